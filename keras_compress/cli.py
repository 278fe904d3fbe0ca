"""The command line: `python -m keras_compress <verb>`. Results on stdout, progress on stderr; exit 0, 1 or 2."""
import argparse
import contextlib
import dataclasses
import json
import logging
import sys
import tomllib
import warnings
from pathlib import Path

from keras_compress.settings import Training

TRAINING_HELP = {
    "epochs": "passes over the training texts", "batch_size": "texts per update",
    "max_length": "longest text in pieces; the rest is cut off", "learning_rate": "peak learning rate",
    "warmup": "share of the updates in which the learning rate rises", "weight_decay": "decoupled weight decay",
    "clip_norm": "largest global norm of the gradients",
    "patience": "stop after so many evaluations on dev without a better one",
    "evaluations": "how often dev is looked at in each stage", "checkpoint_every": "updates between checkpoints",
    "strategy": "none, or mirrored: all devices (with TF_CONFIG set: all workers) share each batch",
}


def parser():
    """All verbs with their options; nothing heavy is imported for it."""
    top = argparse.ArgumentParser(prog="keras_compress", description="BERT compression, paper by paper.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name, text, *groups):
        one = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".",
                               formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        for group in groups:
            group(one)
        one.add_argument("--json", action="store_true", help="print the result as JSON")
        return one

    def data(one, required=False, default=None):
        one.add_argument("--data", required=required, default=default, metavar="NAME|DIR",
                         help="assistant, apidocs, a downloaded set, or a folder with train.tsv, dev.tsv, test.tsv")
        one.add_argument("--task", choices=("classification", "matching", "tagging"), default=None,
                         help="task of a built-in set (default: classification); other sets know theirs")
        one.add_argument("--language", choices=("en", "zh"), default="en", help="of assistant")

    def source(one):
        one.add_argument("--from", dest="source", required=True, metavar="SOURCE",
                         help="minilm; a folder of ours, of Hugging Face (safetensors) or of Google's BERT")

    def out(one):
        one.add_argument("--out", required=True, metavar="DIR", help="folder to write")
        one.add_argument("--overwrite", action="store_true", help="replace what the folder holds")

    def training(one):
        for field in dataclasses.fields(Training):
            if field.name in TRAINING_HELP:
                kind = int if field.name == "patience" else type(field.default)
                one.add_argument("--" + field.name.replace("_", "-"), type=kind, default=field.default,
                                 help=TRAINING_HELP[field.name])
        one.add_argument("--seed", type=int, default=0, help="of initial weights, data order, dropout and draws")

    def new_head(one):
        one.add_argument("--pooling", choices=("pooler", "cls", "mean"), default=None,
                         help="what the classifier reads; default: as the source was trained")
        one.add_argument("--new-head", action="store_true", help="leave out the classifier that the source has")

    one = verb("run", "run a recipe from texts to a report with exported models, or a study", data)
    one.add_argument("recipe", nargs="?", default="theseus", help="a recipe's name (see `methods`) or a TOML file")
    one.add_argument("--from", dest="source", default=None, metavar="SOURCE",
                     help="weights to start from instead of minilm, e.g. a folder with your own BERT")
    one.add_argument("--out", default=None, metavar="DIR", help="report folder; default: runs/<recipe>-<time>")
    one.add_argument("--quick", action="store_true", help="a small part of the data: about 3 minutes on 2 cores")
    one.add_argument("--resume", action="store_true", help="go on with a run that was stopped; default: the last one")
    one.add_argument("--overwrite", action="store_true", help="replace what the folder holds")
    one.add_argument("--seed", type=int, default=0, help="of everything random")
    one.add_argument("--strategy", choices=("none", "mirrored"), default="none", help=TRAINING_HELP["strategy"])
    one.add_argument("--allow-drift", action="store_true", help="write int8 files that drift too far, marked")
    one.add_argument("--seeds", default=None, metavar="0,1,2", help="a study's seeds; default: the recipe's")
    one.add_argument("--only", default=None, metavar="STEP,..", help="a study's steps; default: all")
    one.add_argument("--fixed-lr", action="store_true", help="a study: the recipe's learning rates, no grid")

    one = verb("train", "fine-tune a BERT on a task", source, data, out, new_head, training)
    one = verb("compress", "compress a model with one method", source, data, out, new_head, training)
    one.add_argument("method", help="see `methods`")
    one.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
                     help="a setting of the method, e.g. num_layers=3 (see `methods METHOD`); may be repeated")
    one = verb("export", "write .tflite files, each checked against Keras", source, data, out)
    one.add_argument("--formats", default="float32,int8", help="of float32, float16, int8, int8_per_tensor")
    one.add_argument("--length", type=int, default=64, help="fixed sequence length in pieces")
    one.add_argument("--allow-drift", action="store_true", help="write int8 files that drift too far, marked")
    one = verb("evaluate", "measure a model, or an exported file with its model, on a labelled split", source, data)
    one.add_argument("--split", choices=("train", "dev", "test"), default="test", help="the split")
    one.add_argument("--tflite", default=None, metavar="FILE", help="an exported file of this model")
    one = verb("benchmark", "time exported files on this machine, side by side")
    one.add_argument("files", nargs="+", metavar="FILE.tflite", help="exported files")
    one.add_argument("--threads", type=int, default=1, help="threads of the runtime")
    one.add_argument("--runs", type=int, default=50, help="forward passes per file, after 10 to warm up")
    one = verb("predict", "label texts from the command line, or from stdin, one a line", source)
    one.add_argument("texts", nargs="*", metavar="TEXT", help="texts; the two of a pair are separated by a tab")
    one = verb("data", "show data sets, or download a public one", data)
    one.add_argument("action", choices=("show", "download"), help="show counts and examples of --data, or download")
    one.add_argument("name", nargs="?", default=None, help="what to download: sst2, mrpc, tnews")
    one = verb("methods", "list methods and recipes, or tell about one method")
    one.add_argument("method", nargs="?", default=None, help="a method's name")
    return top


def main(arguments=None):
    """Runs one command; returns the exit status. Expected errors become one line on stderr."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    logging.captureWarnings(True)
    warnings.showwarning = lambda message, *rest: logging.getLogger("py.warnings").warning("warning: %s", message)
    try:
        result, text = globals()["_" + options.verb](options)
        print(json.dumps(result, ensure_ascii=False) if options.json else text)
        return 0
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; `run --resume` goes on", file=sys.stderr)
    return 1


def _dataset(options):
    from keras_compress import datasets

    return datasets.load(options.data or "assistant", task=options.task, language=options.language)


def _load(options, dataset=None, **settings):
    from keras_compress.bert.weights import load

    wanted = {} if dataset is None else {"task": dataset.task, "labels": dataset.labels}
    return load(options.source, **wanted, **settings)


def _run(options):
    from keras_compress.recipe import read_recipe

    recipe = read_recipe(options.recipe)
    if "seeds" in recipe:
        return _run_study(recipe, options)
    from keras_compress.measure.report import headline
    from keras_compress.run import run

    folder, report = run(options.recipe, options.out, data=options.data, task=options.task, language=options.language,
                         source=options.source, quick=options.quick, seed=options.seed, resume=options.resume,
                         overwrite=options.overwrite, strategy=options.strategy, allow_drift=options.allow_drift)
    text = "\n".join(" ".join(sentences).strip() for sentences in headline(report))
    return {"folder": str(folder), "models": report["models"]}, f"{text}\nReport: {folder / 'report.html'}"


def _run_study(recipe, options):
    from keras_compress.measure.study import study_table
    from keras_compress.study import run_study

    cells = run_study(recipe, fixed_lr=options.fixed_lr, data=options.data and [options.data],
                      seeds=options.seeds and [int(seed) for seed in options.seeds.split(",")],
                      only=options.only and options.only.split(","))
    return cells, study_table(cells)


def _train(options):
    return _make(options, "finetune", {})


def _compress(options):
    settings = {}
    for item in options.settings:
        key, _, value = item.partition("=")
        try:
            settings[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key] = value
    return _make(options, options.method, settings)


def _make(options, method, settings):
    """Trains or compresses one model and saves it; what is under way can be resumed by the same command."""
    from keras_compress.files import new_folder
    from keras_compress.measure.accuracy import evaluate
    from keras_compress.methods import settings_of
    from keras_compress.recipe import run_step

    unknown = sorted(set(settings) - set(settings_of(method)))
    if unknown:
        raise ValueError(f"Settings of {method} must be among {', '.join(settings_of(method))}. "
                         f"Received: {', '.join(unknown)}.")
    new_folder(options.out, overwrite=options.overwrite, make=False)
    dataset = _dataset(options)
    parent = _load(options, dataset, pooling=options.pooling, new_head=options.new_head, seed=options.seed)
    fields = {name: getattr(options, name) for name in TRAINING_HELP}
    step = {"name": method, "method": method, "from": options.source, **settings}
    model = run_step({"training": fields}, step, parent, dataset, seed=options.seed)
    model.metrics = _figures(evaluate(model, dataset.dev), "dev")
    model.save(options.out, overwrite=options.overwrite)
    return {"folder": str(options.out), **model.metrics}, f"{_say(model.metrics)}\nSaved: {options.out}"


def _export(options):
    from mobile_export.convert import export

    dataset = _dataset(options) if options.data else None
    model = _load(options, dataset)
    files = export(model, _new_files(options), tuple(options.formats.split(",")), sequence_length=options.length,
                   dev=dataset and dataset.dev, allow_drift=options.allow_drift)
    lines = [f"{file['path']}: {file['bytes']:,} bytes, agrees with Keras on {100 * file['agreement']:.1f} % of "
             f"{file['num_examples']} texts, largest |dp| {file['max_dp']:.2g}, {file['partitions']} XNNPACK partition(s)"
             + (f"; DRIFT: {file['drift']}" if file["drift"] else "") for file in files]
    return files, "\n".join(lines)


def _new_files(options):
    """The folder for exported files: one that holds some already is refused, a model's own folder is not."""
    from keras_compress.files import new_folder

    folder = Path(options.out)
    if folder.is_dir() and not list(folder.glob("*.tflite")) and (folder / "config.json").is_file():
        return folder
    return new_folder(folder, overwrite=options.overwrite)


def _evaluate(options):
    from keras_compress.measure.accuracy import evaluate

    dataset = _dataset(options)
    model = _load(options, dataset)
    if options.tflite:
        from mobile_export.convert import exported_model

        model = exported_model(options.tflite, model)
    figures = _figures(evaluate(model, getattr(dataset, options.split)), options.split)
    return figures, _say(figures)


def _figures(result, split):
    return {"split": split, **{key: result[key] for key in ("metric", "value", "se", "macro_f1")}, "num_examples": result["n"]}


def _say(figures):
    return (f"{figures['split']} {figures['metric']} {100 * figures['value']:.2f} +- {100 * figures['se']:.2f} % "
            f"on {figures['num_examples']:,} examples; macro F1 {100 * figures['macro_f1']:.2f} %")


def _benchmark(options):
    from mobile_export.benchmark import benchmark

    rows = benchmark(*options.files, num_threads=options.threads, runs=options.runs)
    lines = [f"{row['path']}: {row['latency_ms_p50']:.2f} ms (90th percentile {row['latency_ms_p90']:.2f})" for row in rows]
    return rows, "\n".join(lines) + (f"\n{rows[0]['device']}, {rows[0]['threads']} thread(s), sequence length "
                                     f"{', '.join(str(length) for length in sorted({r['sequence_length'] for r in rows}))}")


def _predict(options):
    model = _load(options)
    texts = options.texts or [line.rstrip("\n") for line in sys.stdin]
    if model.task == "matching":
        pairs = [tuple(text.split("\t")) for text in texts]
        if any(len(pair) != 2 for pair in pairs):
            bad = next(i for i, pair in enumerate(pairs) if len(pair) != 2)
            raise ValueError(f"A pair must be two texts separated by one tab. Received: {texts[bad][:80]!r}.")
        texts, shown = pairs, texts
    else:
        shown = texts
    found = model.predict(texts)
    if model.task == "tagging":
        rows = [{"words": words, "labels": labels} for words, labels in found]
        return rows, "\n".join(" ".join(f"{w}/{t}" if t != "O" else w for w, t in zip(*row.values())) for row in rows)
    rows = [{"text": text, "label": model.labels[row.argmax()], "probability": float(row.max())}
            for text, row in zip(shown, found)]
    return rows, "\n".join(f"{row['label']}\t{row['probability']:.3f}\t{row['text']}" for row in rows)


def _data(options):
    if options.action == "download":
        from keras_compress.datasets.download import download

        if options.name is None:
            raise ValueError("`data download` needs a name. Choose sst2, mrpc or tnews.")
        folder = download(options.name)
        return {"folder": str(folder)}, f"Saved: {folder}"
    dataset = _dataset(options)
    summary = dataset.summary()
    examples = [[text, label] for text, label in list(zip(*dataset.train))[:5]]
    lines = [f"{key}: {value}" for key, value in summary.items()]
    lines += ["labels: " + ", ".join(dataset.labels[:40])] if dataset.labels else []
    lines += [f"  {label if isinstance(label, list) or not dataset.labels else dataset.labels[label]}: {text}" for text, label in examples]
    return {**summary, "labels": list(dataset.labels), "examples": examples}, "\n".join(lines)


def _methods(options):
    from keras_compress.methods import method, methods, settings_of
    from keras_compress.recipe import recipes

    if options.method:
        import inspect

        function = method(options.method)
        settings = settings_of(options.method)
        text = inspect.getdoc(sys.modules[function.__module__]) + "\n\n" + inspect.getdoc(function) + "\n\nDefaults: " + \
            ", ".join(f"{key}={value}" for key, value in settings.items())
        return {"method": options.method, "settings": {k: repr(v) for k, v in settings.items()}}, text
    found, known = methods(), recipes()
    lines = ["Methods:"] + [f"  {name:14} {family:14} {text}" for name, (family, text) in found.items()]
    lines += ["Recipes:"] + [f"  {name:14} {text}" for name, text in known.items()]
    return {"methods": {n: {"family": f, "about": t} for n, (f, t) in found.items()}, "recipes": known}, "\n".join(lines)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
