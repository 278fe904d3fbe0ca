"""`run`: a recipe from texts to a report folder. A run that was killed, even by kill -9, goes on with `resume`.

    OUT/run.json         what was asked for, and the versions        OUT/log.txt
    OUT/models/NAME/     a `TaskModel` folder with its .tflite files  OUT/report.html, .md, .json, pictures/
    OUT/checkpoints/     of the step under way; removed after it

Each stage's product appears whole or not at all (files.py), and what is there is not made again.
"""
import json
import logging
import shutil
import time
from pathlib import Path

from keras_compress import datasets
from keras_compress.files import DATA_FOLDER, atomic_write, new_folder
from keras_compress.recipe import is_step, read_recipe, run_step
from keras_compress.study import versions

log = logging.getLogger(__name__)
QUICK = {"num_train": 1200, "num_dev": 300, "num_test": 600}      # `--quick`: texts per split


def default_folder(recipe):
    """runs/<recipe>-<time> in the clone."""
    return DATA_FOLDER.parent / "runs" / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"


def last_folder(recipe):
    """The newest run of a recipe. Raises ValueError if there is none."""
    found = sorted(path.parent for path in (DATA_FOLDER.parent / "runs").glob(f"{recipe}-*/run.json"))
    if not found:
        raise ValueError(f"`--resume` needs a run to go on with. Received: none of recipe {recipe} under runs/. "
                         "Name its folder with --out.")
    return found[-1]


def run(recipe="theseus", out=None, *, data=None, task=None, language="en", source=None, quick=False, seed=0,
        resume=False, overwrite=False, strategy="none", allow_drift=False):
    """Runs a recipe.

    Args:
        recipe: a name, or a TOML file. out: folder of the report; default: runs/<recipe>-<time>.
        data, task, language: as in `datasets.load`; default: the recipe's data.
        source: weights to start from instead of the recipe's "minilm".
        quick: on a small part of the data.
        resume: go on with a run that was stopped; everything else must be as it was, and may be left out.
        overwrite: use a folder that holds another run.
    Returns:
        (folder, the dict that report.json holds).
    Raises:
        ValueError: on wrong input; OSError: if a file cannot be written. What was finished stays.
    """
    started = time.time()
    name = Path(recipe).stem
    folder = Path(out) if out else last_folder(name) if resume else default_folder(name)
    asked = {"recipe": str(recipe), "data": data, "task": task, "language": language, "source": source,
             "quick": quick, "seed": seed, "strategy": strategy, "allow_drift": allow_drift}
    if resume:
        asked, spent = _asked_before(folder, asked)
    else:
        spent = 0
        recipe_now = read_recipe(recipe)                            # wrong words cost no folder
        new_folder(folder, overwrite=overwrite)
        if overwrite:
            for stale in ("models", "checkpoints", "pictures"):
                shutil.rmtree(folder / stale, ignore_errors=True)
        _write_json(folder / "run.json", {**asked, "content": recipe_now, "versions": versions(), "spent": 0})
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        return folder, _run(folder, asked, started - spent)
    finally:
        _write_json(folder / "run.json", {**json.loads((folder / "run.json").read_text(encoding="utf-8")),
                                          "spent": spent + time.time() - started})
        logging.getLogger().removeHandler(handler)
        handler.close()


def _asked_before(folder, asked):
    path = folder / "run.json"
    if not path.is_file():
        raise ValueError(f"`--resume` needs the folder of a run. Received: {folder}, which holds no run.json.")
    before = json.loads(path.read_text(encoding="utf-8"))
    default = {"data": None, "task": None, "language": "en", "source": None, "quick": False, "seed": 0,
               "strategy": "none", "allow_drift": False}
    for key, value in asked.items():
        if value != before[key] and value != default.get(key, value):
            raise ValueError(f"A resumed run must be asked for what it was. `{key}` was {before[key]!r}. "
                             f"Received: {value!r}. Leave it out, or start a new run.")
    return {key: before[key] for key in asked}, before["spent"]


def _run(folder, asked, started):
    from keras_compress.bert.task_model import TaskModel
    from keras_compress.bert.weights import load
    from keras_compress.measure.report import write_report

    recipe = json.loads((folder / "run.json").read_text(encoding="utf-8"))["content"]
    dataset = datasets.load(asked["data"] or recipe.get("data", "assistant"), task=asked["task"],
                            language=asked["language"])
    if asked["quick"]:
        dataset = dataset.subset(**QUICK)
    log.info("data: %s", dataset.summary())
    models = {}
    for step in recipe["steps"]:
        place = folder / "models" / step["name"]
        if (place / "config.json").is_file():
            log.info("%s: there already", step["name"])
            models[step["name"]] = TaskModel.load(place)
            continue
        log.info("%s: %s from %s", step["name"], step["method"], step["from"])
        parent = models[step["from"]] if is_step(recipe, step["from"]) else load(
            asked["source"] or step["from"], task=dataset.task, labels=dataset.labels, seed=asked["seed"])
        checkpoints = folder / "checkpoints" / step["name"]
        models[step["name"]] = run_step(recipe, step, parent, dataset, seed=asked["seed"],
                                        strategy=asked["strategy"], folder=str(checkpoints))
        models[step["name"]].save(place)
        shutil.rmtree(checkpoints, ignore_errors=True)
    report = _measure(folder, recipe, dataset, models, asked)
    report["seconds"] = time.time() - started
    log.info("report: %s", write_report(folder, report))
    return report


def _measure(folder, recipe, dataset, models, asked):
    """Looks at the test split, exports, times, and puts the report together."""
    from keras_compress.measure.accuracy import agreement, evaluate, paired_difference
    from keras_compress.measure.baselines import baselines
    from keras_compress.measure.cost import encoder_parameters, flops
    from keras_compress.measure.report import FILE_KEYS, model_row
    from mobile_export.benchmark import benchmark
    from mobile_export.convert import export, exported_model

    length = recipe.get("sequence_length", 64)
    results = {name: evaluate(model, dataset.test) for name, model in models.items()}
    first = next(iter(models))
    files = {}
    for name, model in models.items():
        log.info("%s: %s %.4f on test; exporting", name, results[name]["metric"], results[name]["value"])
        files[name] = export(model, folder / "models" / name, tuple(recipe.get("formats", ("float32", "int8"))),
                             sequence_length=length, dev=dataset.dev, allow_drift=asked["allow_drift"])
        for file in files[name]:
            on_test = evaluate(exported_model(file["path"], model), dataset.test)
            file |= {"accuracy": on_test["value"],
                     "agreement": agreement(on_test["predictions"], results[first]["predictions"])}
    every = [file for group in files.values() for file in group]
    log.info("timing %d files", len(every))
    for file, times in zip(every, benchmark(*(file["path"] for file in every))):
        file |= times
    _write_json(folder / "export.json", files)
    rows = []
    for name, model in models.items():
        main, result = files[name][0], results[name]
        rows.append(model_row(
            name=name, parameters=model.model.count_params(), encoder_parameters=encoder_parameters(model.config),
            flops=flops(model.config, length, len(model.labels), model.task), metric=result["metric"],
            accuracy=result["value"], accuracy_se=result["se"], num_examples=result["n"], seeds=[asked["seed"]],
            agreement=agreement(result["predictions"], results[first]["predictions"]), file_bytes=main["bytes"],
            latency_ms_p50=main["latency_ms_p50"], latency_ms_p90=main["latency_ms_p90"],
            files=[{key: file[key] for key in FILE_KEYS} for file in files[name]]))
    linear = baselines(dataset)
    compressed = [name for name in models if name != first and not name.startswith(("plain", "truncated"))]
    shown = compressed[0] if compressed else first
    return {
        "recipe": recipe["name"], "data": dataset.name, "task": dataset.task, "created": time.strftime("%Y-%m-%d %H:%M"),
        "settings": {**asked, "content": recipe, "data": dataset.summary()}, "versions": versions(),
        "device": every[0]["device"], "threads": every[0]["threads"], "sequence_length": length,
        "notes": _notes(asked, files, linear), "models": rows + [row for row, _ in linear],
        "comparisons": [{"model": name, "baseline": other, **paired_difference(
            results[name]["metric"], results[name]["scores"], results[other]["scores"])}
            for name in compressed for other in models if other not in compressed],
        "curves": {name: model.curve for name, model in models.items()},
        "confusion": {"labels": list(dataset.labels), "matrix": results[shown]["confusion"], "model": shown}}


def _notes(asked, files, linear):
    notes = [f"Parity of the exported files with Keras: see export.json. Size and latency of a model are those of its "
             f"{next(iter(files.values()))[0]['format']} file; batch 1."]
    notes += [f"{row['name']}: {result['choice']}." for row, result in linear]
    notes += [f"{name} {file['format']} was written although {file['drift']}."
              for name, group in files.items() for file in group if file["drift"]]
    if asked["quick"]:
        notes.append(f"A quick run on {QUICK['num_train']:,} training texts: it shows the path; the figures are not results.")
    notes.append("One seed. What other seeds and public data give: the table of the study in the README.")
    return notes


def _write_json(path, value):
    with atomic_write(path) as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
