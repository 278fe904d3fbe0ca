"""The command line: results on stdout, progress on stderr; exit 0 done, 1 failed, 2 wrong usage.

Each function under `VERBS` is a verb. Its signature declares the options, with their kinds, defaults and
help, so nothing is written twice. Nothing heavy is imported before a verb is at work.
"""

import argparse
import contextlib
import inspect
import json
import logging
import os
import re
import sys
import tomllib
import typing
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import TypeAdapter, ValidationError

from keras_compress.method import Count, Positive, Whole
from keras_compress.training.settings import Training

Source = Annotated[
    str,
    "minilm; bilstm, a new small one; a model folder of this project, of Hugging Face (safetensors) or of "
    "Google's BERT; a bert4keras .h5 file",
]
Seed = Annotated[Whole, "of initial weights, data order, dropout and draws"]
Drift = Annotated[bool, "write int8 files that drift too far from Keras, marked"]
Overwrite = Annotated[bool, "replace what the folder holds"]
NewHead = Annotated[bool, "leave out the classifier that the source has"]
FLAGS = {"source": "--from", "settings": "--set"}


@dataclass
class Texts:
    """Options of every verb that reads data."""

    data: Annotated[
        str | None,
        "assistant, apidocs, a downloaded set, or a folder with train.tsv, dev.tsv, test.tsv, labels.txt "
        "(default: assistant, or the recipe's; export: random ids)",
    ] = None
    task: Annotated[
        Literal["classification", "matching", "tagging", "unlabelled"] | None,
        "task of a built-in set; other sets know theirs (default: classification). Unlabelled text makes "
        "a masked-LM model",
    ] = None
    language: Annotated[Literal["en", "zh"], "of assistant"] = "en"

    def load(self, *splits):
        """The data set; it must have these splits, with labels."""
        from keras_compress import datasets

        dataset = datasets.load(self.data or "assistant", task=self.task, language=self.language)
        if splits:
            dataset.check_splits(*splits)
        return dataset


@dataclass
class Start:
    """Options of the verbs that train: where a model comes from and goes to."""

    source: Source
    out: Annotated[str, "folder to write"]
    overwrite: Overwrite = False
    new_head: NewHead = False
    pooling: Annotated[
        Literal["pooler", "cls", "mean"] | None,
        "what the classifier reads (default: as the source was trained)",
    ] = None
    seed: Seed = 0


def run(
    recipe: Annotated[str, "a recipe's name (see `methods`) or a TOML file"] = "theseus",
    *,
    texts: Texts,
    source: Annotated[
        str | None,
        "weights instead of minilm, such as a folder with your own BERT. Fine-tuned for the labels of the "
        "data, it is the predecessor as it is; with --new-head it is fine-tuned anew",
    ] = None,
    new_head: NewHead = False,
    length: Annotated[
        int | None,
        "longest text in pieces, in training and in the exported files (default: the recipe's)",
    ] = None,
    num_layers: Annotated[
        Count | None, "layers of the small models (default: the recipe's)"
    ] = None,
    learning_rate: Annotated[
        Positive | None,
        "of all steps (default: the recipe's, tried on MiniLM; wider models want lower rates)",
    ] = None,
    out: Annotated[
        str | None, "report folder (default: runs/<recipe>-<time>; a study's own)"
    ] = None,
    quick: Annotated[bool, "a small part of the data: shows the path, gives no results"] = False,
    resume: Annotated[
        bool, "go on with a run that was stopped: --out, or the last at work"
    ] = False,
    overwrite: Annotated[bool, "replace the run that the folder holds"] = False,
    seed: Seed = 0,
    seeds: Annotated[str | None, "several seeds, such as 0,1,2 (default: the recipe's)"] = None,
    only: Annotated[str | None, "names of steps, separated by commas (default: all)"] = None,
    fixed_lr: Annotated[
        bool, "take the recipe's learning rates instead of choosing on dev"
    ] = False,
    strategy: Annotated[
        Literal["none", "mirrored"], "mirrored: all devices share each batch"
    ] = "none",
    allow_drift: Drift = False,
):
    """Run a recipe, or a study of several data sets and seeds, from texts to a report with exported models."""
    options = locals()
    from keras_compress.experiment.experiment import run
    from keras_compress.experiment.report import headline

    if resume and overwrite:
        raise ValueError(
            "Either `--resume` or `--overwrite` can be given. Received: both. Leave one out."
        )
    if seeds is not None:
        if not re.fullmatch(r"\d+(,\d+)*", seeds):
            raise ValueError(f"`--seeds` must be numbers separated by commas. Received: {seeds!r}.")
        options["seeds"] = [int(each) for each in seeds.split(",")]
    options["only"] = only and only.split(",")
    del options["texts"]
    folder, report = run(**options, **vars(texts))
    lines = [" ".join(sentences).strip() for sentences in headline(report)]
    return {"folder": str(folder), "models": report["models"]}, "\n".join(
        [*lines, f"Report: {folder / 'report.html'}"]
    )


def table(
    study: Annotated[str, "a study's name, or a folder of cells"],
    *,
    picture: Annotated[str | None, "write its picture, too, as .png"] = None,
):
    """Print the table of a study or run from its cells, without training."""
    from keras_compress.experiment.report import report_of, table_text, write_picture

    report = report_of(study)
    if picture:
        write_picture(report, picture)
    return report["pooled"], table_text(report)


def train(*, start: Start, texts: Texts, training: Training):
    """Fine-tune a BERT on a task, or train a masked-LM model on unlabelled text."""
    dataset = texts.load()
    return _make(
        "masked_lm" if dataset.task == "unlabelled" else "finetune", {}, dataset, start, training
    )


def compress(
    method: Annotated[str, "see `methods`"],
    *,
    settings: Annotated[
        list[str],
        "KEY=VALUE, a setting of the method, e.g. num_layers=3 (see `methods METHOD`); may be repeated",
    ] = [],
    start: Start,
    texts: Texts,
    training: Training,
):
    """Compress a model with one method."""
    values = {}
    for item in settings:
        key, _, value = item.partition("=")
        try:
            values[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = value
    return _make(method, values, texts.load(), start, training)


def _make(name, settings, dataset, start, training):
    """Trains or compresses one model and saves it. Stopped, the same command goes on from its checkpoints."""
    import shutil

    from keras_compress.files import claim_folder, new_folder
    from keras_compress.method import method

    function, out = method(name), Path(start.out)
    function.check(settings)
    new_folder(out, overwrite=start.overwrite, sign="history.csv")
    if dataset.task != "unlabelled":
        dataset.check_splits("train", "dev")
    keeps_task = (
        function.declared.data == "any" and dataset.task == "unlabelled" and name != "masked_lm"
    )
    options = {"pooling": start.pooling, "new_head": start.new_head, "seed": start.seed}
    model = _load(start.source, None if keeps_task else dataset, **options)
    checkpoints = out.with_name(out.name + ".checkpoints")
    made_from = [name, settings, start.source, options, training.settings(), dataset.summary()]
    claim_folder(checkpoints, made_from, start.overwrite)
    training = training.replace(folder=str(checkpoints))
    try:
        model = function(model, dataset, seed=start.seed, training=training, **settings)
    except Exception:
        files = [path for path in checkpoints.rglob("*") if path.is_file()]
        if all(path.name == "asked.json" or path.parent.name == "log" for path in files):
            shutil.rmtree(checkpoints)  # refused before it began
        raise
    if model.task == dataset.task:
        model.metrics = _evaluated(model, dataset, "dev")
    model.save(out, overwrite=start.overwrite)
    shutil.rmtree(checkpoints)
    return {"folder": str(out), **model.metrics}, f"{_say(model.metrics)}Saved: {out}"


def export(
    *,
    source: Source,
    texts: Texts,
    out: Annotated[str, "folder to write"],
    overwrite: Overwrite = False,
    formats: Annotated[
        str, "of float32, float16, int8, int8_per_tensor, int4, int2, onnx_float32, onnx_int8"
    ] = "float32,int8",
    onnx: Annotated[bool, "float32.onnx and int8.onnx for ONNX Runtime, too"] = False,
    length: Annotated[int, "fixed sequence length in pieces"] = 64,
    allow_drift: Drift = False,
):
    """Write .tflite files, each checked against Keras."""
    from mobile_export.convert import FORMATS, export, file_name, reasons_without_metadata
    from mobile_export.parity import in_words

    names = [*formats.split(","), *(("onnx_float32", "onnx_int8") if onnx else ())]
    folder = Path(out)
    written = [file_name(name) for name in names if name in FORMATS]
    there = [name for name in written if (folder / name).exists()]
    there = [folder.name] if folder.is_file() else there
    if there and not overwrite:
        raise ValueError(
            f"Exported files are not replaced without `--overwrite`. Received: `{out}`, which holds "
            f"{', '.join(there)}. Choose another folder, or pass `--overwrite`."
        )
    dataset = texts.load() if texts.data else None
    model = _load(source, dataset, trained=True)
    dev = dataset and dataset.dev
    files = export(model, out, names, sequence_length=length, dev=dev, allow_drift=allow_drift)
    lines = []
    for file in files:
        parts = f"{file['partitions']} XNNPACK part(s), " if file["partitions"] else ""
        size = f"{file['bytes']:,} bytes ({file['gzip_bytes']:,} after gzip)"
        lines.append(f"{file['path']}: {size}, {parts}{in_words(file)}")
    reasons = reasons_without_metadata(files)
    lines += [f"The .tflite files hold no metadata: {reason}." for reason in reasons]
    return files, "\n".join(lines)


def evaluate(
    *,
    source: Source,
    texts: Texts,
    split: Annotated[Literal["train", "dev", "test"], "the split"] = "test",
    tflite: Annotated[str | None, "an exported file of this model, .tflite or .onnx"] = None,
):
    """Measure a model, or an exported file with its model, on a labelled split."""
    dataset = texts.load(split)
    model = _load(source, dataset, trained=True)
    if tflite:
        from mobile_export.parity import exported_model

        model = exported_model(tflite, model)
    figures = _evaluated(model, dataset, split)
    return figures, _say(figures).rstrip()


def benchmark(
    files: Annotated[list[str], "exported files, .tflite or .onnx"],
    *,
    source: Annotated[
        str | None,
        "the model that they come from: times the same graph as tf.function and in Keras, too",
    ] = None,
    threads: Annotated[Count, "threads of the runtime"] = 1,
    runs: Annotated[Count, "forward passes per file, after 10 to warm up"] = 50,
):
    """Time exported files on this machine, side by side."""
    for name in (
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ):  # read when TensorFlow is imported
        os.environ[name] = str(threads)
    from mobile_export.benchmark import benchmark

    model = _load(source, trained=True) if source else None
    rows = benchmark(*files, num_threads=threads, runs=runs, task_model=model)
    first = rows[0]["latency_ms_p50"]
    lines = [
        f"{row['path']}: {row['latency_ms_p50']:.2f} ms (90th percentile {row['latency_ms_p90']:.2f}), "
        f"{row['latency_ms_p50'] / first:.2f} x the first"
        for row in rows
    ]
    lengths = ", ".join(str(length) for length in sorted({row["sequence_length"] for row in rows}))
    lines.append(f"{rows[0]['device']}, {rows[0]['threads']} thread(s), sequence length {lengths}")
    return rows, "\n".join(lines)


def serve(
    folder: Annotated[str, "folder of a run, or of exported files"],
    *,
    port: Annotated[int, "of http://127.0.0.1; 0: any that is free"] = 8000,
):
    """Show two exported models side by side on a web page, on this machine alone."""
    from mobile_export.serve import server

    with contextlib.suppress(KeyboardInterrupt), server(folder, port) as web:
        address = f"http://127.0.0.1:{web.server_address[1]}/"
        logging.getLogger(__name__).info("Open %s in a browser. Ctrl+C ends it.", address)
        web.serve_forever()
    return {"address": address}, "Ended."


def predict(
    texts: Annotated[
        list[str], "texts; the two of a pair are separated by a tab (default: stdin's lines)"
    ] = [],
    *,
    source: Source,
):
    """Label texts from the command line, or from stdin, one a line."""
    model = _load(source, trained=True)
    texts = texts or [line.rstrip("\r\n") for line in sys.stdin]
    if model.task == "matching":
        bad = [text for text in texts if text.count("\t") != 1]
        if bad:
            raise ValueError(
                f"A pair must be two texts separated by one tab. Received: {bad[0][:80]!r}."
            )
        predicted = model.predict([tuple(text.split("\t")) for text in texts])
    else:
        predicted = model.predict(texts)
    if model.task == "tagging":
        rows = [{"words": words, "labels": labels} for words, labels in predicted]
        tagged = (zip(row["words"], row["labels"]) for row in rows)
        lines = [
            " ".join(word if tag == "O" else f"{word}/{tag}" for word, tag in row) for row in tagged
        ]
        return rows, "\n".join(lines)
    rows = [
        {"text": text, "label": model.labels[row.argmax()], "probability": float(row.max())}
        for text, row in zip(texts, predicted)
    ]
    return rows, "\n".join(
        f"{row['label']}\t{row['probability']:.3f}\t{row['text']}" for row in rows
    )


def data(
    action: Annotated[Literal["show", "download"], "show counts and examples, or download"],
    name: Annotated[
        str | None, "what to show, as --data; or to download: sst2, mrpc, tnews"
    ] = None,
    *,
    texts: Texts,
):
    """Show data sets, or download a public one."""
    if action == "download":
        from keras_compress.datasets.download import download

        if name is None:
            raise ValueError("`data download` needs a name. Choose sst2, mrpc or tnews.")
        folder = download(name)
        return {"folder": str(folder)}, f"Saved: {folder}"
    texts.data = name or texts.data
    dataset = texts.load()
    summary = dataset.summary()
    examples = [[text, label] for text, label in list(zip(*dataset.train))[:5]]
    lines = [f"{key}: {value}" for key, value in summary.items()]
    lines += ["labels: " + ", ".join(dataset.labels[:40])] if dataset.labels else []
    for text, label in examples:
        named = label if isinstance(label, list) or not dataset.labels else dataset.labels[label]
        lines.append(f"  {named}: {text}")
    return {**summary, "labels": list(dataset.labels), "examples": examples}, "\n".join(lines)


def methods(method: Annotated[str | None, "a method's name"] = None):
    """List methods and recipes, or tell about one method."""
    from keras_compress import method as boundary

    if method:
        function = boundary.method(method)
        settings = function.declared.settings
        docs = [inspect.getdoc(sys.modules[function.__module__]), inspect.getdoc(function)]
        defaults = ", ".join(f"{key}={value}" for key, value in settings.items())
        text = "\n\n".join([*docs, f"Defaults: {defaults}"])
        return {"method": method, "settings": {k: repr(v) for k, v in settings.items()}}, text
    from keras_compress.experiment.recipe import recipes

    listed, known = boundary.methods(), recipes()
    lines = ["Methods:"] + [
        f"  {name:18} {family:14} {text}" for name, (family, text) in listed.items()
    ]
    lines += ["Recipes:"] + [f"  {name:18} {text}" for name, text in known.items()]
    about = {name: {"family": family, "about": text} for name, (family, text) in listed.items()}
    return {"methods": about, "recipes": known}, "\n".join(lines)


VERBS = (run, table, train, compress, export, evaluate, benchmark, serve, predict, data, methods)


def _load(source, dataset=None, trained=False, **settings):
    from keras_compress.bert.checkpoints import load
    from keras_compress.method import check_trained

    if dataset is not None:
        task = "mlm" if dataset.task == "unlabelled" else dataset.task
        settings |= {"task": task, "labels": dataset.labels}
    model = load(source, **settings)
    if trained:
        check_trained(model)
    return model


def _evaluated(model, dataset, split):
    from keras_compress.measure.accuracy import evaluate

    result = evaluate(model, getattr(dataset, split))
    figures = {key: result[key] for key in ("metric", "value", "se", "macro_f1")}
    return {"split": split, **figures, "num_examples": result["n"]}


def _say(figures):
    """The figures of `_evaluated` as a line."""
    if not figures:
        return ""
    return (
        f"{figures['split']} {figures['metric']} {100 * figures['value']:.2f} +- {100 * figures['se']:.2f} % "
        f"on {figures['num_examples']:,} examples; macro F1 {100 * figures['macro_f1']:.2f} %\n"
    )


def parser():
    """All verbs with the options that their signatures declare."""
    top = argparse.ArgumentParser(
        prog="keras_compress", description="BERT compression, paper by paper."
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for function in VERBS:
        text = inspect.getdoc(function)
        verb = verbs.add_parser(
            function.__name__, help=text[0].lower() + text[1:-1], description=text
        )
        for name, hint, default, keyword in _declared(function):
            _add_option(verb, name, hint, default, keyword)
        verb.add_argument("--json", action="store_true", help="print the result as JSON")
    return top


GROUPS = (Start, Texts, Training)


def _declared(function):
    """(name, annotation, default, whether it is an option) of all that a verb or a group declares."""
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if hints[name] in GROUPS:
            yield from _declared(hints[name])
        elif function is not Training or name not in ("folder", "checkpoint_every"):
            keyword = parameter.kind is parameter.KEYWORD_ONLY or function in GROUPS
            yield name, hints[name], parameter.default, keyword


def _add_option(verb, name, hint, default, keyword):
    """Adds an option, or a positional argument, of an annotated kind: Annotated[kind, .., help]."""
    kind, *_, text = typing.get_args(hint)
    required = default is inspect.Parameter.empty
    options = {} if required else {"default": default}
    if isinstance(default, (int, float, str)) and default is not False:
        text += f" (default: {default})"
    literal = next(
        (part for part in (kind, *typing.get_args(kind)) if typing.get_origin(part) is Literal),
        None,
    )
    if kind is bool:
        options = {"action": "store_true"}
    elif kind == list[str] and keyword:
        options |= {"action": "append", "metavar": "KEY=VALUE"}
    elif literal:
        options["choices"] = typing.get_args(literal)
    elif kind != list[str]:
        options |= {"type": _parse(hint), "metavar": name.upper()}
    if keyword:
        flag = FLAGS.get(name, "--" + name.replace("_", "-"))
        options |= {"dest": name, "required": required}
        verb.add_argument(flag, help=text.replace("%", "%%"), **options)
    else:
        options["nargs"] = (
            ("+" if required else "*") if kind == list[str] else None if required else "?"
        )
        verb.add_argument(name, help=text.replace("%", "%%"), **options)


def _parse(hint):
    """Text to a value of an annotated kind, within its range."""
    adapter = TypeAdapter(hint)

    def parse(text):
        try:
            return adapter.validate_python(text)
        except ValidationError as error:
            rule = error.errors(include_url=False)[0]["msg"].removeprefix("Input should be ")
            raise argparse.ArgumentTypeError(f"must be {rule}. Received: {text!r}") from None

    return parse


def main(arguments=None):
    """Runs one command; returns the exit status. Expected errors become one line on stderr."""
    top = parser()
    options = vars(top.parse_args(arguments))
    verb, as_json = options.pop("verb"), options.pop("json")
    function = next(function for function in VERBS if function.__name__ == verb)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("keras_compress").setLevel(logging.INFO)
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                encoding="utf-8", errors="replace"
            )  # whatever the system's own encoding is
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest: logging.getLogger("py.warnings").warning(
            "warning: %s", message
        )
        try:
            if options.get("strategy", "none") != "none":
                from keras_compress.training.optimizer import strategy

                strategy(
                    options["strategy"]
                )  # workers must meet before TensorFlow does anything else
            for name, hint in typing.get_type_hints(function).items():
                if hint in GROUPS:
                    fields = {*inspect.signature(hint).parameters} & {*options}
                    options[name] = hint(**{field: options.pop(field) for field in fields})
            result, text = function(**options)
            print(json.dumps(result, ensure_ascii=False) if as_json else text, flush=True)
            return 0
        except BrokenPipeError:  # the reader, `head` say, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except _expected_errors() as error:
            text = " ".join(re.sub("{{.*?}} ", "", str(error)).splitlines())
            if (
                "No space left" in text and "Free some" not in text
            ):  # TensorFlow's own, of a checkpoint
                text += ". Free some space, then go on: `run --resume`, or the same command again."
            print("error:", text, file=sys.stderr)
        except KeyboardInterrupt:
            print("stopped" + "; `run --resume` goes on" * (verb == "run"), file=sys.stderr)
    return 1


def _expected_errors():
    """What wrong input or a full machine raises; everything else is a bug and keeps its traceback."""
    tf = sys.modules.get(
        "tensorflow"
    )  # its own errors: no memory or a full disk; a file grown too large
    own = (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError) if tf else ()
    return (ValueError, OSError, ImportError, *own)
