"""`run`: a recipe from texts to a report folder. A run that was killed, even by kill -9, goes on with `resume`.

    OUT/run.json         what was asked for, and the versions        OUT/log.txt
    OUT/models/NAME/     a `TaskModel` folder with its .tflite files  OUT/report.html, .md, .json, pictures/
    OUT/checkpoints/     of the step under way; removed after it      OUT/tensorboard/   the curves of all steps

Each stage's product appears whole or not at all (files.py), and what is there is not made again. All that can be
checked before training - recipe, data, source, lengths - is checked before the folder is made.
"""

import contextlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keras_compress import datasets
from keras_compress.experiment.recipe import (
    MODELS,
    changed,
    check_data,
    check_layers,
    is_measured,
    is_step,
    read_recipe,
    run_step,
    split_settings,
)
from keras_compress.experiment.study import versions
from keras_compress.files import DATA_FOLDER, new_folder, write_json
from keras_compress.training.settings import Training

log = logging.getLogger(__name__)
QUICK = {"num_train": 800, "num_dev": 200, "num_test": 400}  # `--quick`: texts per split
PARTS = (
    "models",
    "checkpoints",
    "tensorboard",
    "pictures",
    "report.html",
    "report.md",
    "report.json",
    "export.json",
    "log.txt",
    "run.json",
)  # what `overwrite` removes
DEFAULTS = {
    "recipe": "theseus",
    "data": None,
    "task": None,
    "language": "en",
    "source": None,
    "new_head": False,
    "length": None,
    "num_layers": None,
    "learning_rate": None,
    "quick": False,
    "seed": 0,
    "strategy": "none",
}


def default_folder(recipe):
    """runs/<recipe>-<time> in the clone."""
    return DATA_FOLDER.parent / "runs" / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"


def last_folder():
    """The run under runs/ that was last at work. Raises ValueError if there is none."""
    found = sorted(
        (DATA_FOLDER.parent / "runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime
    )
    if not found:
        raise ValueError(
            "`--resume` needs a run to go on with. Received: none under runs/. Name it with --out."
        )
    return found[-1].parent


def run(
    recipe="theseus",
    out=None,
    *,
    data=None,
    task=None,
    language="en",
    source=None,
    new_head=False,
    length=None,
    num_layers=None,
    learning_rate=None,
    quick=False,
    seed=0,
    resume=False,
    overwrite=False,
    strategy="none",
    allow_drift=False,
):
    """Runs a recipe.

    Args:
        recipe: a name, or a TOML file. out: folder of the report; default: runs/<recipe>-<time>.
        data, task, language: as in `datasets.load`; default: the recipe's data. They need train, dev and test.
        source: weights to start from instead of the recipe's "minilm". If they are fine-tuned for the labels of the
            data already, they are the predecessor as they are, and steps that need a pre-trained model are left out.
        new_head: leave out the classifier of the source and fine-tune it anew.
        length: longest text in pieces, in training and in the exported files; default: the recipe's.
        num_layers: of the small models (names that end in the old number get the new one). learning_rate: of all steps.
            Default: the recipe's, whose rates were found for MiniLM; wider models want lower ones.
        quick: on a small part of the data.
        resume: go on with a run that was stopped; everything else must be as it was, and may be left out.
        overwrite: replace the run that the folder holds.
        allow_drift: write int8 files that drift too far from Keras, marked.
    Returns:
        (folder, the dict that report.json holds).
    Raises:
        ValueError: on wrong input; OSError: if a file cannot be written. What was finished stays.
    """
    asked = {key: value for key, value in locals().items() if key in DEFAULTS}
    asked |= {key: str(value) for key, value in asked.items() if isinstance(value, Path)}
    started = time.time()
    if resume:
        folder = Path(out) if out else last_folder()
        before = _asked_before(folder, asked)
        asked = {key: before[key] for key in asked}
    else:
        content = changed(read_recipe(recipe), num_layers, learning_rate)
        for step in content["steps"]:
            Training(**split_settings(content["training"], step)[0])
        if length is not None:
            content |= {
                "sequence_length": length,
                "training": {**content["training"], "max_length": length},
            }
        folder = Path(out) if out else default_folder(content["name"])
        new_folder(folder, overwrite=overwrite, sign="run.json")
        before = {**asked, "content": content, "versions": versions(), "spent": 0}
    content = dict(before["content"])
    dataset, ready, sources, notes = _prepare(asked, content)
    sha256 = dataset.summary()["sha256"]
    if before.setdefault("data_sha256", sha256) != sha256:
        raise ValueError(
            f"A resumed run must have the same data. Received: {dataset.name} with other content than "
            "before. Restore it, or start a new run."
        )
    if not resume:
        for part in PARTS if folder.exists() else ():
            shutil.rmtree(folder / part) if (folder / part).is_dir() else (folder / part).unlink(
                missing_ok=True
            )
    write_json(folder / "run.json", before)
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.handleError = lambda record: (
        None
    )  # a full disk is reported once, by what cannot go on without
    logging.getLogger().addHandler(handler)
    try:
        models = _make_models(folder, asked, content, dataset, ready, sources)
        report = _measure(
            folder, content, dataset, models, {**asked, "allow_drift": allow_drift}, notes
        )
        report["seconds"] = before["spent"] + time.time() - started
        from keras_compress.experiment.report import write_report

        log.info("report: %s", write_report(folder, report))
        return folder, report
    except BaseException as error:
        handler.handle(logging.makeLogRecord({"msg": f"stopped: {type(error).__name__}: {error}"}))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        with contextlib.suppress(OSError):
            write_json(
                folder / "run.json", {**before, "spent": before["spent"] + time.time() - started}
            )
            handler.close()


def _asked_before(folder, asked):
    """What run.json holds, if it is what is asked for now."""
    path = folder / "run.json"
    if not path.is_file():
        raise ValueError(
            f"`--resume` needs the folder of a run. Received: {folder}, which holds no run.json."
        )
    try:
        before = {**DEFAULTS, **json.loads(path.read_text(encoding="utf-8"))}
        before["content"], before["spent"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not what a run wrote ({error}). Start a new run.") from error
    for key, value in asked.items():
        if value not in (before[key], DEFAULTS[key]):
            raise ValueError(
                f"A resumed run must be asked for what it was. `{key}` was {before[key]!r}. "
                f"Received: {value!r}. Leave it out, or start a new run."
            )
    return before


def _prepare(asked, recipe):
    """Loads and checks what the run starts from.

    Returns:
        (`Dataset`, {step: `TaskModel`} that are ready, {source: `TaskModel`}, notes for the report). Steps that cannot
        be fair are taken out of `recipe`.
    """
    from keras_compress.bert.checkpoints import load
    from keras_compress.training.loop import untrained
    from mobile_export.convert import FORMATS, ONNX_FORMATS
    from mobile_export.ort import PACKAGES, require

    dataset = datasets.load(
        asked["data"] or recipe.get("data", "assistant"),
        task=asked["task"],
        language=asked["language"],
    )
    check_data(dataset, "train", "dev", "test")
    if asked["quick"]:
        dataset = dataset.subset(**QUICK)
    formats, length = (
        recipe.setdefault("formats", ["float32", "int8"]),
        recipe.setdefault("sequence_length", 64),
    )
    for asked_for in (formats, *(step.get("formats", ()) for step in recipe["steps"])):
        if not {*asked_for} <= {*FORMATS}:
            raise ValueError(
                f"`formats` of a recipe must be some of {', '.join(FORMATS)}. Received: {asked_for}."
            )
        if {*asked_for} & {*ONNX_FORMATS}:
            require(*PACKAGES)
    sources = {}
    for name in dict.fromkeys(
        step["from"] for step in recipe["steps"] if not is_step(recipe, step["from"])
    ):
        sources[name] = model = load(
            asked["source"] or name,
            task=dataset.task,
            labels=dataset.labels,
            new_head=asked["new_head"],
            seed=asked["seed"],
        )
        longest = max(length, recipe["training"].get("max_length", 4))
        if length < 4 or longest > model.config.max_position_embeddings:
            raise ValueError(
                f"`sequence_length` and `max_length` must be 4 to {model.config.max_position_embeddings}, "
                "the positions that the model has. Choose with `--length`."
            )
        if model.config.hidden_size > 384 and not asked["learning_rate"]:
            log.warning(
                "warning: the recipe's learning rates were found for a width of 384; %s is %d wide. Lower ones "
                "(2e-5 to 1e-4) are usual: --learning-rate",
                asked["source"] or name,
                model.config.hidden_size,
            )
    check_layers(
        recipe["steps"], {name: model.config.num_layers for name, model in sources.items()}
    )
    for name in {
        step[key] for step in recipe["steps"] for key in (*MODELS, "vectors") if key in step
    }:
        if (
            not is_step(recipe, name)
            and name not in ("minilm", "bilstm")
            and not Path(name).exists()
        ):
            raise ValueError(
                f"`{', '.join(MODELS)}` and `vectors` must be steps or files. Received: {name}, which is "
                "not there."
            )
    if not asked["source"] or not model.history or untrained(model):
        return (
            dataset,
            {},
            sources,
            asked["new_head"]
            * [
                f"--new-head: every step that starts from {Path(asked['source'] or name).name} has its weights with a new "
                "classifier. If these were fine-tuned before, plain-K starts from fine-tuned layers, too."
            ],
        )
    ready, kept, left_out = {}, [], []
    for step in recipe["steps"]:
        if step["from"] in sources and step["method"] == "finetune":
            ready[step["name"]] = model
        there = step["name"] in ready or step["from"] in [other["name"] for other in kept]
        (kept if there else left_out).append(step)
    if not ready:
        raise ValueError(
            f"{asked['source']} is fine-tuned already, and recipe {recipe['name']} starts from "
            "pre-trained weights only. Pass --new-head to fine-tune it anew."
        )
    recipe["steps"], names = kept, ", ".join(step["name"] for step in left_out)
    return (
        dataset,
        ready,
        sources,
        [
            f"{', '.join(ready)}: {Path(asked['source']).name} as it is, since it is fine-tuned for these labels. "
            + (f"Left out, since pre-trained weights are not at hand: {names}. " * bool(names))
            + "With --new-head it is fine-tuned anew."
        ],
    )


def _make_models(folder, asked, recipe, dataset, ready, sources):
    """{step: `TaskModel`}; those that are in the folder are not made again."""
    from keras_compress.bert.task_model import TaskModel

    log.info("data: %s", dataset.summary())
    models = {}
    for step in recipe["steps"]:
        name, place = step["name"], folder / "models" / step["name"]
        checkpoints = folder / "checkpoints" / name
        if (place / "config.json").is_file():
            log.info("%s: there already", name)
            models[name] = TaskModel.load(place)
        elif name in ready:
            log.info("%s: %s as it is, fine-tuned already", name, asked["source"])
            models[name] = ready[name]
            models[name].save(place)
        else:
            parent = models.get(step["from"]) or sources[step["from"]]
            log.info(
                "%s: %s from %s",
                name,
                step["method"],
                step["from"] if step["from"] in models else asked["source"] or step["from"],
            )
            models[name] = run_step(
                recipe,
                step,
                parent,
                dataset,
                seed=asked["seed"],
                models=models,
                strategy=asked["strategy"],
                folder=str(checkpoints),
            )
            models[name].save(place)
        for curves in checkpoints.glob("*/log"):
            kept = folder / "tensorboard" / name / curves.parent.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(curves, kept)
        shutil.rmtree(checkpoints, ignore_errors=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return {step["name"]: models[step["name"]] for step in recipe["steps"] if is_measured(step)}


def _measure(folder, recipe, dataset, models, asked, notes):
    """Looks at the test split, exports, times, and puts the report together."""
    from keras_compress.experiment.report import BASELINES, CONTROL, FILE_KEYS, model_row
    from keras_compress.measure.accuracy import agreement, evaluate, paired_difference
    from keras_compress.measure.baselines import baselines
    from keras_compress.measure.cost import encoder_parameters, flops
    from mobile_export.benchmark import benchmark
    from mobile_export.convert import export, exported_model

    length = recipe["sequence_length"]
    results = {name: evaluate(model, dataset.test) for name, model in models.items()}
    first = next(iter(models))
    formats = {
        step["name"]: tuple(step.get("formats", recipe["formats"])) for step in recipe["steps"]
    }
    files = {}
    for name, model in models.items():
        log.info(
            "%s: %s %.4f on test; exporting", name, results[name]["metric"], results[name]["value"]
        )
        files[name] = export(
            model,
            folder / "models" / name,
            formats[name],
            sequence_length=length,
            dev=dataset.dev,
            allow_drift=asked["allow_drift"],
        )
        for file in files[name]:
            on_test = evaluate(exported_model(file["path"], model), dataset.test)
            file |= {
                "accuracy": on_test["value"],
                "agreement": agreement(on_test["predictions"], results[first]["predictions"]),
            }
    every = [file for group in files.values() for file in group]
    log.info("timing %d files", len(every))
    for file, times in zip(every, benchmark(*(file["path"] for file in every))):
        file |= times
    write_json(folder / "export.json", files)
    rows = []
    for name, model in models.items():
        main, result = files[name][0], results[name]
        rows.append(
            model_row(
                name=name,
                parameters=model.model.count_params(),
                encoder_parameters=encoder_parameters(model.config),
                flops=flops(model.config, length, len(model.labels), model.task),
                metric=result["metric"],
                accuracy=result["value"],
                accuracy_se=result["se"],
                num_examples=result["n"],
                seeds=[asked["seed"]],
                agreement=agreement(result["predictions"], results[first]["predictions"]),
                file_bytes=main["bytes"],
                latency_ms_p50=main["latency_ms_p50"],
                latency_ms_p90=main["latency_ms_p90"],
                files=[{key: file[key] for key in FILE_KEYS} for file in files[name]],
            )
        )
    linear = baselines(dataset)
    compressed = [
        name for name in models if name not in (first, CONTROL) and not name.startswith(BASELINES)
    ]
    shown = compressed[0] if compressed else first
    timed = next(
        (name for name in compressed if not models[name].config.quantization), first
    )  # for ONNX: plain
    engines, missing = _engines(folder / "models" / timed, models[timed], files[timed])
    return {
        "recipe": recipe["name"],
        "data": dataset.name,
        "task": dataset.task,
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "settings": {**asked, "content": recipe, "data": dataset.summary()},
        "versions": versions(),
        "device": every[0]["device"],
        "threads": every[0]["threads"],
        "sequence_length": length,
        "notes": notes + _notes(asked, files, linear) + missing,
        "models": rows + [row for row, _ in linear],
        "comparisons": [
            {
                "model": name,
                "baseline": other,
                **paired_difference(
                    results[name]["metric"], results[name]["scores"], results[other]["scores"]
                ),
            }
            for name in compressed
            for other in models
            if other not in compressed
        ],
        "engines": {"model": timed, "rows": engines},
        "curves": {name: model.curve for name, model in models.items()},
        "confusion": {
            "labels": list(dataset.labels),
            "matrix": results[shown]["confusion"],
            "model": shown,
        },
    }


def _engines(folder, model, files):
    """Times one model's graph in LiteRT, ONNX Runtime, TensorFlow and Keras, side by side in a process of its own,
    where TensorFlow has one thread, too.

    Args:
        folder: where the model is saved. files: facts of its .tflite files.
    Returns:
        (rows for the report, notes on what could not be done).
    """
    from mobile_export.convert import ONNX, ONNX_FORMATS, export

    paths, notes = (
        {
            f"LiteRT {file['format']}": Path(file["path"]).resolve()
            for file in files
            if file["format"] not in ONNX_FORMATS
        },
        [],
    )
    with tempfile.TemporaryDirectory() as place:
        try:
            in_onnx = export(
                model,
                place,
                ONNX_FORMATS,
                sequence_length=files[0]["sequence_length"],
                allow_drift=True,
            )
            paths |= {
                file["format"].replace(ONNX, "ONNX Runtime "): file["path"] for file in in_onnx
            }
            notes += [
                f"{file['format']} was timed although {file['drift']}."
                for file in in_onnx
                if file["drift"]
            ]
        except (ImportError, ValueError) as error:
            notes.append(f"Not timed in ONNX Runtime: {error}.")
        command = [
            sys.executable,
            "-m",
            "keras_compress",
            "benchmark",
            "--json",
            "--from",
            folder.resolve(),
        ]
        found = subprocess.run(
            [*command, *paths.values()],
            capture_output=True,
            encoding="utf-8",
            cwd=DATA_FOLDER.parent,
        )
    if found.returncode:
        said = found.stderr.strip().splitlines() or [f"exit code {found.returncode}"]
        return [], [*notes, f"The engines could not be timed: {said[-1]}."]
    rows = json.loads(found.stdout)
    names = [*paths, *(row["path"] for row in rows[len(paths) :])]
    return [
        {"name": name, **{key: row[key] for key in ("latency_ms_p50", "latency_ms_p90")}}
        for name, row in zip(names, rows)
    ], notes


def _notes(asked, files, linear):
    from mobile_export.convert import reasons_without_metadata

    notes = [
        f"Parity of the exported files with Keras: see export.json. Size and latency of a model are those of its "
        f"{next(iter(files.values()))[0]['format']} file; batch 1."
    ]
    notes += [f"{row['name']}: {result['choice']}." for row, result in linear]
    notes += [
        f"{name} {file['format']} was written although {file['drift']}."
        for name, group in files.items()
        for file in group
        if file["drift"]
    ]
    notes += [
        f"The .tflite files hold no metadata: {reason}."
        for reason in reasons_without_metadata(file for group in files.values() for file in group)
    ]
    if asked["quick"]:
        notes.append(
            f"A quick run on {QUICK['num_train']:,} training texts: it shows the path, not results."
        )
    notes.append(
        "One seed. What other seeds and public data give: the table of the study in the README."
    )
    return notes
