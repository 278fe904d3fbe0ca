"""The command line: `python -m keras_compress <verb>`. Results on stdout, progress on stderr; exit 0, 1 or 2."""

import contextlib
import json
import logging
import os
import re
import sys
import tomllib
import warnings
from pathlib import Path

from keras_compress.arguments import TRAINING_HELP, parser
from keras_compress.training.settings import Training


def main(arguments=None):
    """Runs one command; returns the exit status. Expected errors become one line on stderr."""
    options = parser().parse_args(arguments)
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
            if getattr(options, "strategy", "none") != "none":
                from keras_compress.training.loop import strategy

                strategy(
                    options.strategy
                )  # several workers must meet before TensorFlow does anything else
            result, text = globals()["_" + options.verb](options)
            print(json.dumps(result, ensure_ascii=False) if options.json else text, flush=True)
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
            print("stopped" + "; `run --resume` goes on" * (options.verb == "run"), file=sys.stderr)
    return 1


def _expected_errors():
    """What wrong input or a full machine raises; everything else is a bug and keeps its traceback."""
    tf = sys.modules.get(
        "tensorflow"
    )  # its own errors: no memory or a full disk; a file grown too large
    return (ValueError, OSError, ImportError) + (
        (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError) if tf else ()
    )


def _dataset(options):
    from keras_compress import datasets

    return datasets.load(options.data or "assistant", task=options.task, language=options.language)


def _load(options, dataset=None, **settings):
    from keras_compress.bert.checkpoints import load

    wanted = {} if dataset is None else {"task": dataset.task, "labels": dataset.labels}
    if wanted.get("task") == "unlabelled":
        wanted["task"] = "mlm"
    return load(options.source, **wanted, **settings)


def _load_trained(options, dataset=None):
    from keras_compress.training.loop import check_trained

    model = _load(options, dataset)
    check_trained(model)
    return model


def _run(options):
    from keras_compress.experiment.recipe import read_recipe

    recipe = {} if options.resume and options.recipe == "theseus" else read_recipe(options.recipe)
    for_study = {"seeds", "only", "fixed_lr"}
    allowed = (
        for_study | {"recipe", "json", "data", "resume"}
        if "seeds" in recipe
        else {*vars(options)} - for_study
    )
    unset = vars(parser().parse_args(["run"]))
    unused = [
        name
        for name, value in vars(options).items()
        if value != unset[name] and name not in allowed
    ]
    if unused:
        raise ValueError(
            f"Options must have an effect. Received for {options.recipe}: {', '.join(unused)}. Studies "
            f"alone take {', '.join(sorted(for_study))}; beside these they take data and resume."
        )
    if "seeds" in recipe:
        return _run_study(recipe, options)
    from keras_compress.experiment.report import headline
    from keras_compress.experiment.run import run

    folder, report = run(
        **{
            name: value
            for name, value in vars(options).items()
            if name not in {"verb", "json", *for_study}
        }
    )
    text = "\n".join(" ".join(sentences).strip() for sentences in headline(report))
    return {
        "folder": str(folder),
        "models": report["models"],
    }, f"{text}\nReport: {folder / 'report.html'}"


def _run_study(recipe, options):
    from keras_compress.experiment.compare import study_table
    from keras_compress.experiment.study import run_study

    cells, costs = run_study(
        recipe,
        fixed_lr=options.fixed_lr,
        data=options.data and [options.data],
        seeds=options.seeds,
        only=options.only and options.only.split(","),
    )
    return cells, study_table(cells, costs, recipe.get("compare", ()))


def _table(options):
    from keras_compress.experiment.compare import (
        curves_picture,
        pool_cells,
        study_picture,
        study_table,
    )
    from keras_compress.experiment.recipe import read_recipe, recipes
    from keras_compress.experiment.study import read_cells, read_costs
    from keras_compress.files import DATA_FOLDER, atomic_write

    own = DATA_FOLDER / "results" / options.study
    folder = own if own.is_dir() else Path(options.study)
    cells = read_cells(folder)
    if not cells:
        raise ValueError(
            f"A study must have cells (run it first). Received: {options.study}, which has none."
        )
    if options.picture:
        path = Path(options.picture)
        for name, content in (
            (path, study_picture(cells)),
            (path.with_stem(path.stem + "-curves"), curves_picture(cells)),
        ):
            if content:
                with atomic_write(name, "wb") as file:
                    file.write(content)
    compare = read_recipe(options.study).get("compare", ()) if options.study in recipes() else ()
    return pool_cells(cells), study_table(cells, read_costs(folder), compare)


def _train(options):
    return _make(options, None, {})


def _compress(options):
    settings = {}
    for item in options.settings:
        key, _, value = item.partition("=")
        if key in ("name", "method", "from", "data"):
            raise ValueError(
                f"`--set` takes settings of the method. Received: {item}. See `methods {options.method}`."
            )
        try:
            settings[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key] = value
    return _make(options, options.method, settings)


def _make(options, method, settings):
    """Trains or compresses one model and saves it. Stopped, the same command goes on from its checkpoints."""
    import shutil

    from keras_compress.experiment.recipe import OF_DATA, check_data, run_step, split_settings
    from keras_compress.files import claim_folder, new_folder

    dataset = _dataset(options)
    method = method or ("masked_lm" if dataset.task == "unlabelled" else "finetune")
    fields = {name: getattr(options, name) for name in TRAINING_HELP}
    step = {**settings, "name": method, "method": method, "from": options.source}
    Training(**split_settings(fields, step)[0])
    new_folder(options.out, overwrite=options.overwrite, sign="history.csv")
    if dataset.task != "unlabelled":
        check_data(dataset, "train", "dev")
    any_text = method in OF_DATA and dataset.task == "unlabelled"  # the model keeps its own task
    parent = _load(
        options,
        None if any_text else dataset,
        pooling=options.pooling,
        new_head=options.new_head,
        seed=options.seed,
    )
    out = Path(options.out)
    checkpoints = out.with_name(out.name + ".checkpoints")
    claim_folder(
        checkpoints,
        [step, fields, options.seed, options.pooling, options.new_head, dataset.summary()],
        options.overwrite,
    )
    try:
        model = run_step(
            {"training": fields}, step, parent, dataset, seed=options.seed, folder=str(checkpoints)
        )
    except Exception:
        files = [path for path in checkpoints.rglob("*") if path.is_file()]
        if all(
            path.name == "asked.json" or path.parent.name == "log" for path in files
        ):  # refused before it began
            shutil.rmtree(checkpoints)
        raise
    if model.task == dataset.task:
        from keras_compress.measure.accuracy import evaluate

        model.metrics = _figures(evaluate(model, dataset.dev), "dev")
    model.save(options.out, overwrite=options.overwrite)
    shutil.rmtree(checkpoints)
    said = f"{_say(model.metrics)}\n" if model.metrics else ""
    return {"folder": str(options.out), **model.metrics}, f"{said}Saved: {options.out}"


def _export(options):
    from mobile_export.convert import (
        ONNX_FORMATS,
        export,
        file_name,
        parity,
        reasons_without_metadata,
    )

    formats = (*options.formats.split(","), *(ONNX_FORMATS if options.onnx else ()))
    out = Path(options.out)
    there = (
        [out.name]
        if out.is_file()
        else [name for name in map(file_name, formats) if (out / name).exists()]
    )
    if there and not options.overwrite:
        raise ValueError(
            f"Exported files are not replaced unasked. Received: `{options.out}`, which holds "
            f"{', '.join(there)}. Choose another folder, or pass `--overwrite`."
        )
    dataset = _dataset(options) if options.data else None
    model = _load_trained(options, dataset)
    files = export(
        model,
        options.out,
        formats,
        sequence_length=options.length,
        dev=dataset and dataset.dev,
        allow_drift=options.allow_drift,
    )
    lines = [
        f"{file['path']}: {file['bytes']:,} bytes ({file['gzip_bytes']:,} after gzip), "
        + (f"{file['partitions']} XNNPACK part(s), " if file["partitions"] else "")
        + parity(file)
        for file in files
    ]
    lines += [
        f"The .tflite files hold no metadata: {reason}."
        for reason in reasons_without_metadata(files)
    ]
    return files, "\n".join(lines)


def _evaluate(options):
    from keras_compress.experiment.recipe import check_data
    from keras_compress.measure.accuracy import evaluate

    dataset = _dataset(options)
    check_data(dataset, options.split)
    model = _load_trained(options, dataset)
    if options.tflite:
        from mobile_export.convert import exported_model

        model = exported_model(options.tflite, model)
    figures = _figures(evaluate(model, getattr(dataset, options.split)), options.split)
    return figures, _say(figures)


def _figures(result, split):
    return {
        "split": split,
        **{key: result[key] for key in ("metric", "value", "se", "macro_f1")},
        "num_examples": result["n"],
    }


def _say(figures):
    return (
        f"{figures['split']} {figures['metric']} {100 * figures['value']:.2f} +- {100 * figures['se']:.2f} % "
        f"on {figures['num_examples']:,} examples; macro F1 {100 * figures['macro_f1']:.2f} %"
    )


def _benchmark(options):
    from mobile_export.benchmark import benchmark

    for name in (
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ):  # read when TensorFlow is imported
        os.environ[name] = str(options.threads)
    rows = benchmark(
        *options.files,
        num_threads=options.threads,
        runs=options.runs,
        task_model=_load_trained(options) if options.source else None,
    )
    first = rows[0]["latency_ms_p50"]
    lines = [
        f"{row['path']}: {row['latency_ms_p50']:.2f} ms (90th percentile {row['latency_ms_p90']:.2f}), "
        f"{row['latency_ms_p50'] / first:.2f} x the first"
        for row in rows
    ]
    lengths = ", ".join(str(length) for length in sorted({row["sequence_length"] for row in rows}))
    return rows, "\n".join(lines) + (
        f"\n{rows[0]['device']}, {rows[0]['threads']} thread(s), sequence length {lengths}"
    )


def _serve(options):
    from mobile_export.serve import server

    with contextlib.suppress(KeyboardInterrupt), server(options.folder, options.port) as web:
        address = f"http://127.0.0.1:{web.server_address[1]}/"
        logging.getLogger(__name__).info("Open %s in a browser. Ctrl+C ends it.", address)
        web.serve_forever()
    return {"address": address}, "Ended."


def _predict(options):
    model = _load_trained(options)
    texts = options.texts or [line.rstrip("\r\n") for line in sys.stdin]
    bad = [text for text in texts if text.count("\t") != 1]
    if model.task == "matching" and bad:
        raise ValueError(
            f"A pair must be two texts separated by one tab. Received: {bad[0][:80]!r}."
        )
    found = model.predict(
        [tuple(text.split("\t")) for text in texts] if model.task == "matching" else texts
    )
    if model.task == "tagging":
        rows = [{"words": words, "labels": labels} for words, labels in found]
        return rows, "\n".join(
            " ".join(f"{w}/{t}" if t != "O" else w for w, t in zip(*row.values())) for row in rows
        )
    rows = [
        {"text": text, "label": model.labels[row.argmax()], "probability": float(row.max())}
        for text, row in zip(texts, found)
    ]
    return rows, "\n".join(
        f"{row['label']}\t{row['probability']:.3f}\t{row['text']}" for row in rows
    )


def _data(options):
    if options.action == "download":
        from keras_compress.datasets.download import download

        if options.name is None:
            raise ValueError("`data download` needs a name. Choose sst2, mrpc or tnews.")
        folder = download(options.name)
        return {"folder": str(folder)}, f"Saved: {folder}"
    options.data = options.name or options.data
    dataset = _dataset(options)
    summary = dataset.summary()
    examples = [[text, label] for text, label in list(zip(*dataset.train))[:5]]
    lines = [f"{key}: {value}" for key, value in summary.items()]
    lines += ["labels: " + ", ".join(dataset.labels[:40])] if dataset.labels else []
    lines += [
        f"  {label if isinstance(label, list) or not dataset.labels else dataset.labels[label]}: {text}"
        for text, label in examples
    ]
    return {**summary, "labels": list(dataset.labels), "examples": examples}, "\n".join(lines)


def _methods(options):
    from keras_compress.experiment.recipe import recipes
    from keras_compress.method import TRAININGS, method, methods, settings_of

    if options.method:
        import inspect

        function = method(options.method)
        settings = settings_of(options.method)
        text = "\n\n".join(
            [
                inspect.getdoc(sys.modules[function.__module__]),
                inspect.getdoc(function),
                "Defaults: " + ", ".join(f"{key}={value}" for key, value in settings.items()),
            ]
        )
        return {
            "method": options.method,
            "settings": {k: repr(v) for k, v in settings.items()},
        }, text
    found, known = methods(), recipes()
    lines = ["Methods:"] + [
        f"  {name:14} {family:14} {text}" for name, (family, text) in found.items()
    ]
    lines += ["Trainings, to be used like methods:", "  " + ", ".join(TRAININGS)]
    lines += ["Recipes:"] + [f"  {name:14} {text}" for name, text in known.items()]
    about = {name: {"family": family, "about": text} for name, (family, text) in found.items()}
    return {"methods": about, "recipes": known}, "\n".join(lines)
