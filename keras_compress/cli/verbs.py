"""The verbs of the command line: (what `--json` prints, lines of text, for some what failed) each.

A verb's signature declares its options: text where nothing is annotated, a flag where the default is False. Its
docstring tells what they mean. Nothing heavy is imported before a verb is at work.
"""

import inspect
import logging
import sys
from glob import escape
from pathlib import Path
from typing import Annotated, Literal

from keras_compress import method as boundary
from keras_compress.bert.stored import FILES
from keras_compress.cli.answers import evaluate, evaluated, predict
from keras_compress.cli.exported import android, benchmark, diff, export, serve
from keras_compress.cli.options import COMMAS, AnySource, Source, Texts
from keras_compress.depth import toml_of
from keras_compress.experiment.recipe import hash_of, recipes
from keras_compress.files import clear_left, new_folder, read_json
from keras_compress.lock import alone
from keras_compress.method import Count, Positive, Whole
from keras_compress.own import remove_own
from keras_compress.training.settings import Training

log = logging.getLogger(__name__)
ENDED = ".ended"  # ends the name of checkpoints that are done with


def run(
    recipe="theseus",
    *,
    texts: Texts,
    source: AnySource,
    length: int | None = None,
    num_layers: Count | None = None,
    learning_rate: Positive | None = None,
    out=None,
    quick=False,
    resume=False,
    overwrite=False,
    seed: Whole = 0,
    seeds: Annotated[list[Whole], COMMAS] | None = None,
    only: Annotated[list[str], COMMAS] | None = None,
    fixed_lr=False,
    strategy: Literal["none", "mirrored"] = "none",
    allow_drift=False,
):
    """Run a recipe, or a study of several data sets and seeds, from texts to a report with exported models.

    recipe: a recipe's name (see `methods`) or a TOML file
    source: weights instead of minilm, such as a folder with your own BERT. Fine-tuned for the labels of the
        data, it is the predecessor as it is; with --new-head it is fine-tuned anew
    length: longest text in pieces, in training and in the exported files (default: the recipe's)
    num_layers: layers of the small models (default: the recipe's)
    learning_rate: of all steps (default: the recipe's, tried on MiniLM; wider models want lower rates)
    out: report folder (default: runs/<recipe>-<time>; a study's own)
    quick: a small part of the data: shows the path, gives no results
    resume: go on with a run that was stopped: --out, or the last at work
    overwrite: replace the run that the folder holds
    seeds: several seeds, such as 0,1,2 (default: the recipe's)
    only: names of steps, separated by commas (default: all)
    fixed_lr: take the recipe's learning rates instead of choosing on dev
    strategy: mirrored: all devices share each batch
    allow_drift: a file that drifts too far from Keras may be named as what to ship
    """
    options = {**locals(), **vars(texts), **vars(source)}
    from keras_compress.experiment.experiment import run
    from keras_compress.experiment.report import headline

    if resume and overwrite:
        raise ValueError(
            "Either `--resume` or `--overwrite` can be given. Received: both. Leave one out."
        )
    del options["texts"]
    folder, report = run(**options)
    lines = [" ".join(sentences).strip() for sentences in headline(report)]
    lines.append(f"Report: {folder / 'report.html'}")
    return {"folder": str(folder), "models": report["models"]}, lines


def table(study, *, picture=None):
    """Print the table of a study or run from its cells, without training.

    study: a study's name, or a folder of cells
    picture: write its picture, too, as .png
    """
    from keras_compress.experiment.report import report_of, table_text, write_picture

    report = report_of(study)
    if picture:
        write_picture(report, picture)
    return report["pooled"], [table_text(report)]


def train(
    *, source: Source, seed: Whole = 0, out, overwrite=False, texts: Texts, training: Training
):
    """Fine-tune a BERT on a task, or train a masked-LM model on unlabelled text."""
    return compress(None, **locals())


def compress(
    method,
    *,
    settings: list[str] = [],
    source: Source,
    seed: Whole = 0,
    out,
    overwrite=False,
    texts: Texts,
    training: Training,
):
    """Compress a model with one method. Stopped, the same command goes on from its checkpoints.

    method: see `methods`
    settings: KEY=VALUE, a setting of the method, e.g. num_layers=3 (see `methods METHOD`); may be repeated
    """
    out = Path(out).resolve()
    with alone(out):
        if not [*out.parent.glob(f"{escape(out.name)}.checkpoints-*{ENDED}")]:
            new_folder(out, overwrite, "history.csv", FILES)
        return _compressed(method, settings, source, seed, out, overwrite, texts, training)


def _compressed(method, settings, source, seed, out, overwrite, texts, training):
    dataset, values = texts.load(), dict(map(_setting, settings))
    unlabelled = dataset.task == "unlabelled"
    if not unlabelled:
        dataset.check_splits("train", "dev")
    name = method or ("masked_lm" if unlabelled else "finetune")
    function = boundary.method(name)
    function.check(values)
    # A method that only looks at text, or learns the model's answers to it, leaves the model its task.
    declared = function.declared
    looks = unlabelled and declared.data == "any"
    looks = looks and (declared.trained_head or not declared.trains)
    model, fitted = source.load(None if looks else dataset, trained=False, seed=seed)
    dataset = fitted or dataset
    from keras_compress.experiment.run_folder import sources_of

    command = [name, values, {**vars(source), "seed": seed}, training.settings(), dataset.summary()]
    command.append(sources_of({"steps": [{"name": name, "from": source.source, **values}]}))
    checkpoints = out.with_name(f"{out.name}.checkpoints-{hash_of(command)}")
    ended = checkpoints.with_name(checkpoints.name + ENDED)
    if ended.is_dir() and (out / "metrics.json").is_file() and not overwrite:
        clear_left(out.parent, escape(out.name))  # the same command was killed while it cleaned up
        remove_own(ended)
        return {"folder": str(out), **read_json(out / "metrics.json")}, [f"Saved: {out}"]
    new_folder(out, overwrite, "history.csv", FILES)
    if ended.is_dir():
        ended.rename(checkpoints)
    training = training.replace(folder=str(checkpoints))
    model = function(model, dataset, seed=seed, training=training, **values)
    lines = []
    if model.task == dataset.task:
        model.metrics, lines = evaluated(model, dataset, "dev")
    if checkpoints.is_dir():
        checkpoints.rename(ended)
    model.save(out, overwrite=overwrite)
    remove_own(ended)
    return {"folder": str(out), **model.metrics}, [*lines, f"Saved: {out}"]


def _setting(text):
    """("num_layers", 3) of "num_layers=3"; what is no value of TOML is text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"A setting is NAME=VALUE. Received: {text}. Write {text}=VALUE.")
    try:
        return key, toml_of(f"value = {value}")["value"]
    except ValueError:
        return key, value


def data(
    action: Literal["show", "download"],
    name=None,
    *,
    source="minilm",
    lowercase: bool | None = None,
    texts: Texts,
):
    """Show data sets, or download a public one.

    action: show (classes, lengths, unknown words, texts that occur twice, examples) or download
    name: what to show, as --data; or to download: sst2, mrpc, tnews
    source: the model whose vocabulary counts, as in other verbs
    lowercase: put texts into lower case (default: as the source's files say)
    """
    if action == "download":
        from keras_compress.datasets.download import download

        folder = download(name)
        return {"folder": str(folder)}, [f"Saved: {folder}"]
    from keras_compress.bert.answers import in_words
    from keras_compress.datasets import show

    texts.data = name or texts.data
    dataset = texts.load()
    summary, labels = dataset.summary(), list(dataset.labels)
    examples = [list(example) for example in zip(*dataset.train)][:5]
    lines = [f"{key}: {value}" for key, value in summary.items()]
    lines.append(f"labels: {', '.join(labels)}")
    for text, label in examples:
        lines.append(f"  {in_words(labels, label) if labels else label}: {text}")
    figures = show.facts(dataset, _tokenizer(source).with_case(lowercase))
    lines += show.in_words(figures, source)
    return {**summary, "labels": labels, "examples": examples, **figures}, lines


def methods(method=None):
    """List methods and recipes, or tell about one method.

    method: a method's name
    """
    if method:
        function = boundary.method(method)
        settings = {key: repr(value) for key, value in function.declared.settings.items()}
        about = [inspect.getdoc(sys.modules[function.__module__]), inspect.getdoc(function)]
        about.append("Defaults: " + ", ".join(map("=".join, settings.items())))
        return {"method": method, "settings": settings}, ["\n\n".join(about)]
    listed, known = boundary.methods(), recipes()
    lines = ["Methods:"]
    lines += [f"  {name:18} {family:14} {about}" for name, (family, about) in listed.items()]
    lines += ["Recipes:"] + [f"  {name:18} {about}" for name, about in known.items()]
    rows = {name: {"family": family, "about": about} for name, (family, about) in listed.items()}
    return {"methods": rows, "recipes": known}, lines


VERBS = (run, table, train, compress, export, android, evaluate, benchmark, diff, serve)
VERBS += (predict, data, methods)


def _tokenizer(source):
    """The tokenizer of a source; MiniLM's without TensorFlow, which takes seconds to import."""
    if source == "minilm":
        from keras_compress.bert.tokenizer import read_tokenizer
        from keras_compress.files import minilm_folder

        return read_tokenizer(minilm_folder())
    from keras_compress.bert.checkpoints import read_tokenizer_of

    return read_tokenizer_of(source)
