"""An experiment: recipe x data sets x seeds. Each (data, step, seed) is a cell, one small JSON file.

    OUT/run.json       what was asked for, and the versions         OUT/log.txt
    OUT/cells/*.json   settings, metrics, what was right, the files' sizes and times
    OUT/models/        `TaskModel` folders with their exported files; in studies without the files
    OUT/checkpoints/   of the step under way; removed after it      OUT/tensorboard/   the curves
    OUT/report.html, .md, .json, pictures/                          made of the cells alone

`run` is the experiment with one data set and one seed, and OUT/models/NAME is a step's model.
A study without `out` grows over days: its cells go to data/results/<study>, all else to runs/<study>.

A cell, its model and its checkpoints belong to the hash of (data, chain of steps with settings, seed).
So nothing is mixed up, what is there is not made again, and a run that was killed goes on.
The predecessor is trained once per data set and shared by the seeds; so is what is made of it without
training, and helpers unless `shared = false`. Learning rates are chosen on dev, with the first seed.
Test is looked at once per cell. Times are ratios to the predecessor's file, measured in one process.
"""

import contextlib
import functools
import inspect
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from keras_compress import datasets
from keras_compress.bert.checkpoints import load
from keras_compress.bert.task_model import TaskModel
from keras_compress.experiment.compare import cell_of
from keras_compress.experiment.recipe import (
    changed,
    hash_of,
    identity,
    is_seeded,
    parents,
    predecessor_of,
    rates_of,
    read_recipe,
    role_of,
    run_step,
    seed_of,
    size_of,
    training_of,
)
from keras_compress.experiment.report import report_of, write_report
from keras_compress.files import DATA_FOLDER, new_folder, read_json, write_json
from keras_compress.measure.accuracy import agreement, evaluate, pack_correct
from keras_compress.measure.baselines import baselines
from keras_compress.measure.cost import encoder_parameters, flops
from keras_compress.method import untrained
from keras_compress.training.settings import one_update
from mobile_export.benchmark import benchmark
from mobile_export.convert import ONNX, ONNX_FORMATS, check_export, export, exported_model

log = logging.getLogger(__name__)
QUICK = {"num_train": 800, "num_dev": 200, "num_test": 400}  # `--quick`: texts per split
FEW = 8  # texts of a rehearsal
PARTS = (  # of a run's folder: what `overwrite` removes
    "models checkpoints tensorboard cells pictures log.txt run.json report.html report.md report.json"
)
PACKAGES = (
    "tensorflow tf-keras numpy ai-edge-litert ai-edge-quantizer tokenizers "
    "tensorflow-model-optimization"
)


def versions():
    """Versions of what a number depends on."""
    packages = {name: version(name) for name in PACKAGES.split()}
    return {"python": platform.python_version(), **packages}


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
    seeds=None,
    only=None,
    fixed_lr=False,
    resume=False,
    overwrite=False,
    strategy="none",
    allow_drift=False,
):
    """Runs a recipe: makes the cells that are missing, and a report of all.

    Args:
        recipe: a name, or a TOML file. out: folder of the report; default: runs/<recipe>-<time>, and
            runs/<study> for a study.
        data, task, language: as in `datasets.load`; default: the recipe's data. They need train, dev
            and test.
        source: weights to start from instead of the recipe's "minilm". If they are fine-tuned for the
            labels of the data already, they are the predecessor as they are, and steps that need a
            pre-trained model are left out.
        new_head: leave out the classifier of the source and fine-tune it anew.
        length: longest text in pieces, in training and in the exported files; default: the recipe's.
        num_layers: of the small models. learning_rate: of all steps. Default: the recipe's, whose
            rates were tried on MiniLM; wider models want lower ones.
        quick: on a small part of the data.
        seed, seeds: of everything random; default: the recipe's seeds, or 0.
        only: names of the steps to measure; default: all.
        fixed_lr: take the recipe's learning rates instead of choosing on dev.
        resume: go on with a run that was stopped; all that makes a model must be as it was, and may be
            left out.
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
    grows = not out and "seeds" in read_recipe(recipe)
    if resume and not grows:
        folder = Path(out or last_folder())
        settings = _asked_before(folder, asked)
    else:
        folder, settings = _new_run(asked, out, grows, overwrite)
    plans = _plans(settings, folder, allow_drift)
    sets = [plan.dataset.summary() for plan in plans]
    if settings.setdefault("sets", sets) != sets:
        raise ValueError(
            "A resumed run must have the same data. Received: other content than before. Restore it, or "
            "start a new run."
        )
    unfinished = {plan.dataset.task: plan for plan in reversed(plans) if plan.missing()}
    for plan in unfinished.values():  # one for each task
        plan.rehearse()
    for part in PARTS.split() if overwrite else ():
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).unlink(missing_ok=True)
    settings["notes"] = [note for plan in plans for note in plan.notes]
    write_json(folder / "run.json", settings)
    with _log_file(folder / "log.txt"):
        try:
            for plan in plans:
                log.info("data: %s", plan.dataset.summary())
                plan.baselines()
                for step, of_seed in plan.missing():
                    plan.cell(step, of_seed)
                if plan.single:
                    plan.engines()
        finally:
            settings["spent"] += time.time() - started
            write_json(folder / "run.json", settings)
        report = report_of(folder)
        log.info("report: %s", write_report(folder, report))
    return folder, report


DEFAULTS = {  # of what makes a run; run.json holds it
    name: parameter.default
    for name, parameter in inspect.signature(run).parameters.items()
    if name not in ("out", "resume", "overwrite", "allow_drift")
}
CHANGES = ("num_layers", "learning_rate", "length", "source", "new_head", "fixed_lr")  # of a recipe
FREE = ("recipe", "data", "seeds", "only", "fixed_lr", "strategy")  # leave a study what it is


def _new_run(asked, out, grows, overwrite):
    """(folder, what its run.json will hold)."""
    recipe, data = read_recipe(asked["recipe"]), asked["data"]
    content = {
        "datasets": [recipe.get("data", "assistant")],
        "seeds": asked["seeds"] or [asked["seed"]],
        **changed(recipe, **{key: asked[key] for key in CHANGES}),
    }
    runs, name = DATA_FOLDER.parent / "runs", recipe["name"]
    if grows:
        folder = runs / name
        own = all(value == DEFAULTS[key] or key in FREE for key, value in asked.items())
        own = own and data in (None, *content["datasets"])
        cells = DATA_FOLDER / "results" / name if own else folder / "results"
    else:
        folder = out or runs / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder = new_folder(folder, overwrite=overwrite, sign="run.json")
        cells = folder / "cells"
    return folder, {
        **asked,
        "content": content | {"datasets": [data] if data else content["datasets"]},
        "cells": os.path.relpath(cells, folder),
        "versions": versions(),
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "spent": 0,
    }


def last_folder():
    """The run under runs/ that was last at work. Raises ValueError if there is none."""
    runs = (DATA_FOLDER.parent / "runs").glob("*/run.json")
    last = max(runs, key=lambda path: path.stat().st_mtime, default=None)
    if last is None:
        raise ValueError(
            "`--resume` needs a run to go on with. Received: none under runs/. Name it with --out."
        )
    return last.parent


def _asked_before(folder, asked):
    """What run.json holds, if it is what is asked for now; `seeds` and `only` choose cells anew."""
    path = folder / "run.json"
    before = DEFAULTS | (read_json(path) if path.is_file() else {})
    if "content" not in before:
        raise ValueError(
            f"`--resume` needs the folder of a run. Received: {folder}, which holds no run.json of one."
        )
    for key, value in asked.items():
        if key in ("seeds", "only"):
            before[key] = value or before[key]
        elif value not in (before[key], DEFAULTS[key]):
            raise ValueError(
                f"A resumed run must be asked for what it was. `{key}` was {before[key]!r}. "
                f"Received: {value!r}. Leave it out, or start a new run."
            )
    return before


@contextlib.contextmanager
def _log_file(path):
    """Keeps the log of what happens inside, with what stopped it."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.handleError = lambda record: None  # a full disk is told once, by what cannot go on
    logging.getLogger().addHandler(handler)
    try:
        yield
    except BaseException as error:
        handler.handle(logging.makeLogRecord({"msg": f"stopped: {type(error).__name__}: {error}"}))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _plans(settings, folder, allow_drift):
    """One `Plan` for each data set. What can be checked without training is checked here."""
    recipe, only = settings["content"], settings["only"] or ()
    names = [step["name"] for step in recipe["steps"]]
    if not {*only} <= {*names}:
        raise ValueError(
            f"`only` must name steps of the recipe: {', '.join(names)}. Received: {', '.join(only)}."
        )
    plans = []
    for name in recipe["datasets"]:
        dataset = datasets.load(name, task=settings["task"], language=settings["language"])
        dataset.check_splits("train", "dev", "test")
        if settings["quick"]:
            dataset = dataset.subset(**QUICK)
        plans.append(Plan(settings, dataset, folder, allow_drift))
    return plans


class Plan:
    """An experiment on one data set: what is trained, where it is kept, which rate was chosen.

    `single` is a run of one data set and one seed without a choice of rates, in a folder of its own: a
    model's folder is then called as its step, and keeps the exported files.
    """

    def __init__(self, settings, dataset, folder, allow_drift):
        self.settings, self.dataset, self.folder = settings, dataset, folder
        self.recipe = recipe = settings["content"]
        self.cells = folder / settings["cells"]
        self.seeds, self.first_seed = settings["seeds"] or recipe["seeds"], recipe["seeds"][0]
        alone = len(recipe["datasets"]) == 1 and self.seeds == recipe["seeds"] == [self.first_seed]
        rates = any(rates_of(recipe, step) for step in recipe["steps"])
        self.single = alone and not rates and settings["cells"] == "cells"
        self.export = {
            "sequence_length": recipe["sequence_length"],
            "dev": dataset.dev,
            "allow_drift": allow_drift or not self.single,
        }
        self.notes, self.ready = [], []
        if settings["source"]:
            self._start_from(Path(settings["source"]).name)
        self.predecessor = predecessor_of(self.recipe)

    def _start_from(self, source):
        """Sees what a source of weights is good for. One that is trained for the labels is what the steps
        that would fine-tune it make; then steps that need pre-trained weights are left out."""
        steps = self.recipe["steps"]
        model = self._source(steps[0]["from"], self.first_seed)
        if model.config.hidden_size > 384 and not self.settings["learning_rate"]:
            self.notes.append(
                f"The recipe's learning rates were tried on a width of 384; {source} is "
                f"{model.config.hidden_size} wide. Lower ones (2e-5 to 1e-4) are usual: --learning-rate."
            )
        if self.settings["new_head"]:
            self.notes.append(
                f"--new-head: every step that starts from {source} has its weights with a new classifier. "
                "If these were fine-tuned before, baselines that need pre-trained layers start from "
                "fine-tuned ones."
            )
        if not model.history or untrained(model):
            return
        names, kept = [step["name"] for step in steps], []
        for step in steps:
            if step["from"] not in names and step["method"] == "finetune":
                self.ready.append(step["name"])
            if step["name"] in self.ready or step["from"] in kept:
                kept.append(step["name"])
        if not self.ready:
            raise ValueError(
                f"{source} is fine-tuned already, and recipe {self.recipe['name']} starts from "
                "pre-trained weights only. Pass --new-head to fine-tune it anew."
            )
        self.recipe = {**self.recipe, "steps": [s for s in steps if s["name"] in kept]}
        left_out = ", ".join(name for name in names if name not in kept) or "nothing"
        self.notes.append(
            f"{', '.join(self.ready)}: {source} as it is, since it is fine-tuned for these labels. Left "
            f"out, since pre-trained weights are not at hand: {left_out}. With --new-head it is "
            "fine-tuned anew."
        )

    def measured(self):
        """[(step, seed)] of all cells that are asked for."""
        cells = []
        for seed in self.seeds:
            for step in self.recipe["steps"]:
                cell = step, seed_of(self.recipe, step, seed)
                asked = step["name"] in (self.settings["only"] or [step["name"]])
                if asked and role_of(self.recipe, step) != "helper" and cell not in cells:
                    cells.append(cell)
        return cells

    def missing(self):
        """Those of them that are still to be made, or of which a step's formats are.

        Raises:
            ValueError: if a cell on disk came from other data or settings.
        """
        missing = []
        for step, seed in self.measured():
            cell = self._cell(step, seed)
            there = {file["format"] for file in (cell or {}).get("files", ())}
            if not cell or not {*step.get("formats", ())} <= there:
                missing.append((step, seed))
        return missing

    def _data(self, name):
        return own_data(name) if name else self.dataset

    def _identity(self, step, seed):
        return identity(self.recipe, step, seed, lambda name: self._data(name).summary()["sha256"])

    def _path(self, name, seed):
        return self.cells / f"{self.dataset.name}-{name}-{seed}.json"

    def _cell(self, step, seed):
        return _made_of(self._path(step["name"], seed), hash_of(self._identity(step, seed)))

    def _label(self, step, seed):
        """The name of a model's folder."""
        if self.single:
            return step["name"]
        data = Path(step.get("data", self.dataset.name)).stem
        return f"{data}-{step['name']}-{seed}-{hash_of(self._identity(step, seed))}"

    def chosen(self, step):
        """(a step with the learning rate that is best on dev, {rate: dev metric} if there was a choice)."""
        rates = rates_of(self.recipe, step)
        if not rates:
            return step, None
        made = hash_of(self._identity(step, self.first_seed))
        path = self.cells / "grid" / f"{self.dataset.name}-{step['name']}.json"
        before = self._cell(step, self.first_seed) or _made_of(path, made) or {}
        on_dev = before.get("dev_of_learning_rates", before.get("dev", {}))
        steps = {
            f"{rate:g}": {**step, "learning_rate": rate, "learning_rates": None} for rate in rates
        }
        for rate, tried in steps.items():
            if rate not in on_dev:
                model = self.model(tried, self.first_seed)
                on_dev[rate] = evaluate(model, self.dataset.dev)["value"]
                log.info("%s, learning rate %s: %.4f on dev", step["name"], rate, on_dev[rate])
                write_json(path, {"dev": on_dev, "hash": made})
        return steps[max(steps, key=on_dev.get)], on_dev

    def model(self, step, seed):
        """The trained model of a step, from disk if it is there."""
        label = self._label(step, seed)
        folder, checkpoints = (self.folder / part / label for part in ("models", "checkpoints"))
        if (folder / "config.json").is_file():
            log.info("%s: there already", label)
        else:
            log.info("%s: %s from %s", label, step["method"], step["from"])
            models = {
                other["name"]: self.model(self.chosen(other)[0], seed_of(self.recipe, other, seed))
                for other in parents(self.recipe, step)
            }
            self._run_step(step, seed, models, folder=str(checkpoints)).save(folder)
        for curves in checkpoints.glob("*/log"):
            kept = self.folder / "tensorboard" / label / curves.parent.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(curves, kept)
        shutil.rmtree(checkpoints, ignore_errors=True)
        return TaskModel.load(folder)

    def _source(self, name, seed):
        data, new_head = self.dataset, self.settings["new_head"]
        return load(name, task=data.task, labels=data.labels, new_head=new_head, seed=seed)

    def _run_step(self, step, seed, models, dataset=None, **changes):
        """The model of a step; `changes` are those of `recipe.run_step`."""
        parent = models.get(step["from"]) or self._source(step["from"], seed)
        if step["name"] in self.ready:
            return parent
        dataset, changes["strategy"] = (
            dataset or self._data(step.get("data")),
            self.settings["strategy"],
        )
        return run_step(self.recipe, step, parent, dataset, seed=seed, models=models, **changes)

    def cell(self, step, seed):
        """Trains and measures one cell."""
        start, label = time.time(), f"{self.dataset.name} {step['name']}, seed {seed}"
        tried, on_dev = self.chosen(step)
        model = self.model(tried, seed)
        result = evaluate(model, self.dataset.test)
        dev = evaluate(model, self.dataset.dev)["value"]
        log.info("%s: %.4f on test, %.4f on dev", label, result["value"], dev)
        confusion, length = result["confusion"], self.recipe["sequence_length"]
        files, chain = self._files(tried, model, seed), self._identity(step, seed)
        cell = cell_of(
            self.dataset.name,
            step["name"],
            seed,
            result,
            role=role_of(self.recipe, step),
            family=step.get("family"),
            size=size_of(step),
            trained=is_seeded(self.recipe, step),
            hash=hash_of(chain),
            data_sha256=self.dataset.summary()["sha256"],
            task=model.task,
            dev=dev,
            learning_rate=training_of(self.recipe, tried).learning_rate,
            dev_of_learning_rates=on_dev,
            parameters=model.model.count_params(),
            encoder_parameters=encoder_parameters(model.config),
            flops=flops(model.config, length, len(model.labels), model.task),
            agreement=agreement(result["predictions"], self.first[1]),
            quantized=model.config.quantization is not None,
            files=files,
            labels=model.labels,
            confusion=[[*map(int, at), int(confusion[at])] for at in zip(*confusion.nonzero())],
            chain=chain,
            settings=model.history,
            curve=model.curve,
            seconds=round(time.time() - start),
            versions=versions(),
        )
        write_json(self._path(step["name"], seed), cell)

    @functools.cached_property
    def first(self):
        """(float32 file, predictions on test) of the predecessor: what all models are set against."""
        model = self.model(self.predecessor, self.first_seed)
        label = self._label(self.predecessor, self.first_seed)
        path = self.folder / "models" / label / "float32.tflite"
        if not path.is_file():
            export(model, path, ["float32"], **self.export)
        return path, evaluate(model, self.dataset.test)["predictions"]

    def _files(self, step, model, seed):
        """Exports a model and measures its files; they are kept where there is one seed and set.

        Times are set against the predecessor's float32 file. Files of formats that the step names itself
        are models to compare: `correct` says what they got right.
        """
        keep = self.single or step is self.predecessor
        folder = self.folder / "models" / self._label(step, seed)
        with contextlib.nullcontext(folder) if keep else tempfile.TemporaryDirectory() as place:
            files = export(model, place, step.get("formats", self.recipe["formats"]), **self.export)
            first, predictions = self.first
            base, *times = benchmark(first, *(file["path"] for file in files))
            for file, timed in zip(files, times):
                result = evaluate(exported_model(file["path"], model), self.dataset.test)
                file |= {
                    **timed,
                    "path": Path(file["path"]).name,
                    "times_as_fast": base["latency_ms_p50"] / timed["latency_ms_p50"],
                    "accuracy": result["value"],
                    "accuracy_se": result["se"],
                    "agreement": agreement(result["predictions"], predictions),
                    **({"correct": pack_correct(result["scores"])} if "formats" in step else {}),
                }
        return files

    def baselines(self):
        """Makes the cells of the baselines without BERT; they have no seed."""
        data = {"data_sha256": self.dataset.summary()["sha256"]}
        if _made_of(self._path("majority", 0), hash_of({"method": "majority", **data})):
            return
        for row, result in reversed(baselines(self.dataset)):  # majority, which all have, is last
            cell = cell_of(
                self.dataset.name,
                row["name"],
                0,
                result,
                role="reference",
                hash=hash_of({"method": row["name"], **data}),
                task=self.dataset.task,
                **data,
                parameters=row["parameters"],
                choice=result["choice"],
                versions=versions(),
            )
            write_json(self._path(row["name"], 0), cell)

    def rehearse(self):
        """Runs every step that is still to be made for one update on a few texts.

        Raises:
            ValueError: naming the step, if it is impossible.
        """
        started, models = time.time(), {}
        wanted = [step for step, _ in self.missing()]
        for step in wanted:
            wanted += [other for other in parents(self.recipe, step) if other not in wanted]
        for step in self.recipe["steps"]:
            if step in wanted:
                try:
                    with one_update():
                        models[step["name"]] = self._rehearsed(step, models)
                except ValueError as error:
                    raise ValueError(f"Step {step['name']}: {error}") from error
        log.info("rehearsed %d steps in %.0f s", len(models), time.time() - started)

    def _rehearsed(self, step, models):
        data, training = self._data(step.get("data")), training_of(self.recipe, step)
        model = self._run_step(
            step,
            seed_of(self.recipe, step, self.seeds[0]),
            models,
            data.subset(num_train=FEW * (25 if "data" in step else 1), num_dev=FEW),
            batch_size=FEW,
            epochs=float(training.num_steps(len(data.train.texts))),
            evaluations=0,
            patience=None,
        )
        if role_of(self.recipe, step) != "helper":
            if model.task != self.dataset.task:
                raise ValueError(
                    f'What makes a model for {model.task} must say role = "helper". Received: no role.'
                )
            formats = step.get("formats", self.recipe["formats"])
            check_export(model, self.folder, formats, self.recipe["sequence_length"])
        return model

    def engines(self):
        """Times the graph of one model in LiteRT, ONNX Runtime, TensorFlow and Keras, and adds it to the
        model's cell. A process of its own gives TensorFlow one thread, too."""
        cells = {step["name"]: self._cell(step, seed) for step, seed in self.measured()}
        plain = (name for name, cell in cells.items() if not (cell["role"] or cell["quantized"]))
        name = next(plain, self.predecessor["name"])
        if name not in cells or "engines" in cells[name]:
            return
        cell, folder, notes = cells[name], (self.folder / "models" / name).resolve(), []
        paths = {
            f"LiteRT {file['format']}": folder / file["path"]
            for file in cell["files"]
            if file["format"] not in ONNX_FORMATS
        }
        with tempfile.TemporaryDirectory() as place:
            try:
                changes = {"dev": None, "allow_drift": True}
                model = TaskModel.load(folder)
                for file in export(model, place, ONNX_FORMATS, **{**self.export, **changes}):
                    paths[file["format"].replace(ONNX, "ONNX Runtime ")] = file["path"]
            except (ImportError, ValueError) as error:
                notes.append(f"Not timed in ONNX Runtime: {error}.")
            command = [
                sys.executable,
                "-m",
                "keras_compress",
                "benchmark",
                "--json",
                "--from",
                folder,
            ]
            timed = subprocess.check_output([*command, *paths.values()], cwd=DATA_FOLDER.parent)
        rows = json.loads(timed)
        for engine, row in zip(paths, rows):
            row["path"] = engine
        engines = [{"name": row["path"], **{key: row[key] for key in TIMES}} for row in rows]
        write_json(
            self._path(name, cell["seed"]), cell | {"engines": engines, "engine_notes": notes}
        )


TIMES = ("latency_ms_p50", "latency_ms_p90")


@functools.cache
def own_data(name):
    """The unlabelled text of a step with `data`."""
    return datasets.load(name, task="unlabelled")


def _made_of(path, made):
    """What a JSON file holds, None if there is no file; ValueError if it was made of something else."""
    content = read_json(path) if path.is_file() else None
    if content and content.get("hash") != made:
        raise ValueError(
            f"{path}: was made with other data or settings. Restore them, or move the file away and "
            "have it made anew."
        )
    return content
