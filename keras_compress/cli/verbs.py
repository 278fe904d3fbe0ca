"""The verbs of the command line: (what `--json` prints, lines of text) each.

A verb's signature declares its options: text where nothing is annotated, a flag where the default is False. Its
docstring tells what they mean. Nothing heavy is imported before a verb is at work.
"""

import contextlib
import inspect
import logging
import os
import shutil
import sys
import tomllib
from typing import Annotated, Literal

from keras_compress import method as boundary
from keras_compress.cli.options import COMMAS, AnySource, Source, Texts
from keras_compress.experiment.recipe import hash_of, recipes
from keras_compress.files import new_folder
from keras_compress.method import Count, Positive, Whole
from keras_compress.training.settings import Training


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
    out = new_folder(out, overwrite, sign="history.csv")
    dataset, values = texts.load(), dict(map(_setting, settings))
    unlabelled = dataset.task == "unlabelled"
    if not unlabelled:
        dataset.check_splits("train", "dev")
    name = method or ("masked_lm" if unlabelled else "finetune")
    function = boundary.method(name)
    function.check(values)
    # A method that only looks at text leaves the model its task.
    looks = unlabelled and function.declared.data == "any" and not function.declared.trains
    model, fitted = source.load(None if looks else dataset, trained=False, seed=seed)
    dataset = fitted or dataset
    command = [name, values, {**vars(source), "seed": seed}, training.settings(), dataset.summary()]
    checkpoints = out.with_name(f"{out.name}.checkpoints-{hash_of(command)}")
    training = training.replace(folder=str(checkpoints))
    model = function(model, dataset, seed=seed, training=training, **values)
    lines = []
    if model.task == dataset.task:
        model.metrics, lines = _evaluated(model, dataset, "dev")
    model.save(out, overwrite=overwrite)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return {"folder": str(out), **model.metrics}, [*lines, f"Saved: {out}"]


def _setting(text):
    """("num_layers", 3) of "num_layers=3"; what is no value of TOML is text."""
    key, _, value = text.partition("=")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def export(
    *,
    source: Source,
    texts: Texts,
    out,
    overwrite=False,
    formats="float32,int8",
    onnx=False,
    length: int = 64,
    allow_drift=False,
):
    """Write .tflite files, each checked against Keras.

    formats: of float32, float16, int8, int8_per_tensor, int4, int2, onnx_float32, onnx_int8
    onnx: float32.onnx and int8.onnx for ONNX Runtime, too
    length: fixed sequence length in pieces
    """
    from mobile_export import convert
    from mobile_export.parity import in_words

    names = [*formats.split(","), *(convert.ONNX_FORMATS if onnx else ())]
    paths = [f"{out}/{convert.file_name(name)}" for name in names if name in convert.FORMATS]
    there = [path for path in (out, *paths) if os.path.isfile(path)]
    if there and not overwrite:
        raise ValueError(
            f"Exported files are not replaced without `--overwrite`. Received: {', '.join(there)}. "
            "Choose another folder, or pass `--overwrite`."
        )
    model, dataset = source.load(texts.given(), texts.task)
    dev = dataset and dataset.dev
    rows = convert.export(
        model, out, names, sequence_length=length, dev=dev, allow_drift=allow_drift
    )
    form = "{path}: {bytes:,} bytes ({gzip_bytes:,} after gzip), {parts}"
    lines = []
    for row in rows:
        parts = f"{row['partitions']} XNNPACK part(s), " if row["partitions"] else ""
        lines.append(form.format(**row, parts=parts) + in_words(row))
    reasons = convert.reasons_without_metadata(rows)
    lines += [f"The .tflite files hold no metadata: {reason}." for reason in reasons]
    return rows, lines


def evaluate(
    *,
    source: Source,
    texts: Texts,
    split: Literal["train", "dev", "test"] = "test",
    tflite=None,
):
    """Measure a model, or an exported file with its model, on a labelled split.

    split: train, dev or test
    tflite: an exported file of this model, .tflite or .onnx
    """
    dataset = texts.load()
    dataset.check_splits(split)
    model, dataset = source.load(dataset)
    if tflite:
        from mobile_export.parity import exported_model

        model = exported_model(tflite, model)
    return _evaluated(model, dataset, split)


def benchmark(
    files: list[str], *, source: AnySource, texts: Texts, threads: Count = 1, runs: Count = 50
):
    """Time exported files on this machine, side by side.

    files: exported files, .tflite or .onnx
    source: the model that they come from: times the same graph as tf.function and in Keras, too
    data: a set with the model's labels, where its files do not tell them
    threads: threads of the runtime
    runs: forward passes per file, after 10 to warm up
    """
    if not source.source and (source, texts) != (AnySource(), Texts()):
        raise ValueError(
            "Options about a model need the model. Received: no `--from`. Name the model, or leave them out."
        )
    # Read when TensorFlow is imported.
    os.environ.update(TF_NUM_INTRAOP_THREADS=str(threads), TF_NUM_INTEROP_THREADS=str(threads))
    from mobile_export.benchmark import benchmark

    model = source.load(texts.given(), texts.task)[0] if source.source else None
    rows = benchmark(*files, num_threads=threads, runs=runs, task_model=model)
    form = "{path}: {latency_ms_p50:.2f} ms (90th percentile {latency_ms_p90:.2f}), {times:.2f} x the first"
    first = rows[0]["latency_ms_p50"]
    lines = [form.format(**row, times=row["latency_ms_p50"] / first) for row in rows]
    lengths = ", ".join(map(str, sorted({row["sequence_length"] for row in rows})))
    lines.append(f"{rows[0]['device']}, {threads} thread(s), sequence length {lengths}")
    return rows, lines


def serve(folder, *, port: int = 8000):
    """Show two exported models side by side on a web page, on this machine alone.

    folder: folder of a run, or of exported files
    port: of http://127.0.0.1; 0: any that is free
    """
    from mobile_export.serve import server

    with contextlib.suppress(KeyboardInterrupt), server(folder, port) as web:
        address = f"http://127.0.0.1:{web.server_address[1]}/"
        logging.getLogger(__name__).info("Open %s in a browser. Ctrl+C ends it.", address)
        web.serve_forever()
    return {"address": address}, ["Ended."]


def predict(texts: list[str] = [], *, source: Source, data: Texts):
    """Label texts from the command line, or from stdin, one a line.

    texts: texts; the two of a pair are separated by a tab (default: stdin's lines)
    data: a set with the model's labels, where its files do not tell them
    """
    model, _ = source.load(data.given(), data.task)
    given = texts = texts or [line.rstrip("\r\n") for line in sys.stdin]
    if model.task == "matching":
        for text in texts:
            if text.count("\t") != 1:
                raise ValueError(
                    f"A pair must be two texts separated by one tab. Received: {text!r:.80}."
                )
        given = [tuple(text.split("\t")) for text in texts]
    predicted = model.predict(given)
    if model.task == "tagging":
        rows = [{"words": words, "labels": labels} for words, labels in predicted]
        return rows, [" ".join(map("/".join, zip(*pair))) for pair in predicted]
    rows = [
        {"text": text, "label": model.labels[row.argmax()], "probability": float(row.max())}
        for text, row in zip(texts, predicted)
    ]
    return rows, ["{label}\t{probability:.3f}\t{text}".format(**row) for row in rows]


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
    import numpy as np

    from keras_compress.datasets import show

    texts.data = name or texts.data
    dataset = texts.load()
    summary, labels = dataset.summary(), list(dataset.labels)
    examples = [list(example) for example in zip(*dataset.train)][:5]
    lines = [f"{key}: {value}" for key, value in summary.items()]
    lines.append(f"labels: {', '.join(labels)}")
    for text, label in examples:
        lines.append(f"  {np.take(labels, label) if labels else label}: {text}")
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


VERBS = (run, table, train, compress, export, evaluate, benchmark, serve, predict, data, methods)


def _tokenizer(source):
    """The tokenizer of a source; MiniLM's without TensorFlow, which takes seconds to import."""
    if source == "minilm":
        from keras_compress.bert.tokenizer import read_tokenizer
        from keras_compress.files import minilm_folder

        return read_tokenizer(minilm_folder())
    from keras_compress.bert.checkpoints import read_tokenizer_of

    return read_tokenizer_of(source)


def _evaluated(model, dataset, split):
    """(figures, [the same in words]) of a model on a split."""
    from keras_compress.measure.accuracy import evaluate

    result = evaluate(model, getattr(dataset, split))
    measured = {key: result[key] for key in ("metric", "value", "se", "macro_f1")}
    figures = {"split": split, **measured, "num_examples": result["n"]}
    form = "{split} {metric} {value:.2%} +- {se:.2%} on {num_examples:,} examples; macro F1 {macro_f1:.2%}"
    return figures, [form.format(**figures)]
