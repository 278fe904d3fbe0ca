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
from keras_compress.experiment.compare import cell_of
from keras_compress.experiment.recipe import (
    changed,
    hash_of,
    identity,
    is_seeded,
    is_shared,
    parents,
    predecessor_of,
    rates_of,
    read_recipe,
    role_of,
    run_step,
    size_of,
    split_settings,
    without_rates,
)
from keras_compress.experiment.report import report_of, write_report
from keras_compress.files import DATA_FOLDER, new_folder, read_json, write_json
from keras_compress.measure.accuracy import agreement, evaluate, pack_correct
from keras_compress.training.settings import Training, one_update

log = logging.getLogger(__name__)
QUICK = {"num_train": 800, "num_dev": 200, "num_test": 400}  # `--quick`: texts per split
FEW = 8  # texts of a rehearsal
PARTS = (  # of a run's folder: what `overwrite` removes
    *("models", "checkpoints", "tensorboard", "cells", "pictures", "log.txt", "run.json"),
    *("report.html", "report.md", "report.json"),
)
PACKAGES = (
    *("tensorflow", "tf-keras", "numpy", "ai-edge-litert", "ai-edge-quantizer", "tokenizers"),
    "tensorflow-model-optimization",
)


def versions():
    """Versions of what a number depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


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
    folder, run_json = _begin(asked, out, resume, overwrite)
    asked = {key: run_json[key] for key in asked}
    plans = _plans(asked, run_json["content"], folder, folder / run_json["cells"], allow_drift)
    sets = [plan.dataset.summary() for plan in plans]
    if run_json.setdefault("sets", sets) != sets:
        raise ValueError(
            "A resumed run must have the same data. Received: other content than before. Restore it, or "
            "start a new run."
        )
    rehearsed = {}
    for plan in plans:
        if plan.missing() and rehearsed.setdefault(plan.dataset.task, plan) is plan:
            plan.rehearse()
    for part in PARTS if overwrite else ():
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).unlink(missing_ok=True)
    run_json["notes"] = [note for plan in plans for note in plan.notes]
    write_json(folder / "run.json", run_json)
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
            run_json["spent"] += time.time() - started
            with contextlib.suppress(OSError):
                write_json(folder / "run.json", run_json)
        report = report_of(folder)
        log.info("report: %s", write_report(folder, report))
    return folder, report


DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(run).parameters.items()
    if name not in ("out", "resume", "overwrite", "allow_drift")
}
CHANGES = ("num_layers", "learning_rate", "length", "source", "new_head")  # of a recipe


def _begin(asked, out, resume, overwrite):
    """(folder, what its run.json holds): of the run to go on with, or of a new one."""
    content = read_recipe(asked["recipe"]) if not (resume and out) else {}
    grows = "seeds" in content and not out
    if resume and not grows:
        folder = Path(out) if out else last_folder()
        return folder, _asked_before(folder, asked)
    name, data = content["name"], asked["data"]
    content = without_rates(content) if asked["fixed_lr"] else content
    content = changed(content, **{key: asked[key] for key in CHANGES})
    content = {
        "datasets": [content.get("data", "assistant")],
        "seeds": asked["seeds"] or [asked["seed"]],
        "formats": ["float32", "int8"],
        "sequence_length": content["training"].get("max_length", 64),
        **content,
        **({"datasets": [data]} if data else {}),
    }
    if grows:
        folder = DATA_FOLDER.parent / "runs" / name
        free = ("recipe", "data", "seeds", "only", "fixed_lr", "strategy")
        own = all(value == DEFAULTS[key] or key in free for key, value in asked.items())
        own = own and (not data or data in read_recipe(asked["recipe"])["datasets"])
        cells = DATA_FOLDER / "results" / name if own else folder / "results"
    else:
        folder = new_folder(out or default_folder(name), overwrite=overwrite, sign="run.json")
        cells = folder / "cells"
    return folder, {
        **asked,
        "content": content,
        "cells": os.path.relpath(cells, folder),
        "versions": versions(),
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "spent": 0,
    }


def default_folder(recipe):
    """runs/<recipe>-<time> in the clone."""
    return DATA_FOLDER.parent / "runs" / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"


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
    if not path.is_file():
        raise ValueError(
            f"`--resume` needs the folder of a run. Received: {folder}, which holds no run.json."
        )
    try:
        before = {**DEFAULTS, **read_json(path)}
        before["content"]["steps"], before["spent"], before["cells"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not what a run wrote ({error}). Start a new run.") from error
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
        with contextlib.suppress(OSError):
            handler.close()


def _plans(asked, recipe, folder, cells, allow_drift):
    """One `Plan` for each data set. What can be checked without training is checked here."""
    from mobile_export import convert, ort

    for formats in (recipe["formats"], *(step.get("formats", ()) for step in recipe["steps"])):
        if not {*formats} <= {*convert.FORMATS}:
            raise ValueError(
                f"`formats` of a recipe must be some of {', '.join(convert.FORMATS)}. "
                f"Received: {formats}."
            )
        if {*formats} & {*convert.ONNX_FORMATS}:
            ort.require(*ort.PACKAGES)
    names = [step["name"] for step in recipe["steps"]]
    if not {*(asked["only"] or ())} <= {*names}:
        raise ValueError(
            f"`only` must name steps of the recipe: {', '.join(names)}. "
            f"Received: {', '.join(asked['only'])}."
        )
    loaded = [
        datasets.load(name, task=asked["task"], language=asked["language"])
        for name in recipe["datasets"]
    ]
    for dataset in loaded:
        dataset.check_splits("train", "dev", "test")
    if asked["quick"]:
        loaded = [dataset.subset(**QUICK) for dataset in loaded]
    return [Plan(asked, recipe, dataset, folder, cells, allow_drift) for dataset in loaded]


class Plan:
    """An experiment on one data set: what is trained, where it is kept, which rate was chosen.

    `single` is a run of one data set and one seed without a choice of rates, in a folder of its own: a
    model's folder is then called as its step, and keeps the exported files.
    """

    def __init__(self, asked, recipe, dataset, folder, cells, allow_drift):
        self.asked, self.recipe, self.dataset = asked, recipe, dataset
        self.folder, self.cells = folder, cells
        self.seeds, self.first_seed = asked["seeds"] or recipe["seeds"], recipe["seeds"][0]
        rates = any(rates_of(recipe, step) for step in recipe["steps"])
        alone = len(recipe["datasets"]) == 1 and self.seeds == recipe["seeds"] == [self.first_seed]
        self.single = alone and not rates and cells == folder / "cells"
        self.export = {
            "sequence_length": recipe["sequence_length"],
            "dev": dataset.dev,
            "allow_drift": allow_drift or not self.single,
        }
        self.notes, self.sources, self.ready, self.models = [], {}, {}, {}
        self._load_sources()
        self.predecessor = predecessor_of(self.recipe)

    def _load_sources(self):
        """Loads what the steps start from. Models that are trained for the labels are those of the steps
        that would fine-tune them; then steps that need pre-trained weights are left out."""
        from keras_compress.method import untrained

        steps, source = self.recipe["steps"], self.asked["source"]
        names = {step["name"] for step in steps}
        for name in {step["from"]: 0 for step in steps if step["from"] not in names}:
            model = self._source(name, self.first_seed)
            longest = model.config.max_position_embeddings
            if not 4 <= self.recipe["sequence_length"] <= longest:
                raise ValueError(
                    f"`sequence_length` must be 4 to {longest}, the positions that the model has. "
                    f"Received: {self.recipe['sequence_length']}. Choose with `--length`."
                )
            if model.config.hidden_size > 384 and not self.asked["learning_rate"]:
                log.warning(
                    "warning: the recipe's learning rates were tried on a width of 384; %s is %d wide. "
                    "Lower ones (2e-5 to 1e-4) are usual: --learning-rate",
                    name,
                    model.config.hidden_size,
                )
        if source and self.asked["new_head"]:
            self.notes.append(
                f"--new-head: every step that starts from {Path(source).name} has its weights with a new "
                "classifier. If these were fine-tuned before, baselines that need pre-trained layers "
                "start from fine-tuned ones."
            )
        if not source or not model.history or untrained(model):
            return
        kept = []
        for step in steps:
            if step["from"] not in names and step["method"] == "finetune":
                self.ready[step["name"]] = model
            if step["name"] in self.ready or step["from"] in kept:
                kept.append(step["name"])
        if not self.ready:
            raise ValueError(
                f"{source} is fine-tuned already, and recipe {self.recipe['name']} starts from "
                "pre-trained weights only. Pass --new-head to fine-tune it anew."
            )
        left_out = ", ".join(step["name"] for step in steps if step["name"] not in kept)
        self.recipe = {**self.recipe, "steps": [s for s in steps if s["name"] in kept]}
        self.notes.append(
            f"{', '.join(self.ready)}: {Path(source).name} as it is, since it is fine-tuned for these "
            "labels. "
            + f"Left out, since pre-trained weights are not at hand: {left_out}. " * bool(left_out)
            + "With --new-head it is fine-tuned anew."
        )

    def measured(self):
        """[(step, seed)] of all cells that are asked for."""
        cells = [
            (step, self._seed(step, seed))
            for seed in self.seeds
            for step in self.recipe["steps"]
            if step["name"] in (self.asked["only"] or [step["name"]])
            and role_of(self.recipe, step) != "helper"
        ]
        return [cell for number, cell in enumerate(cells) if cell not in cells[:number]]

    def missing(self):
        """Those of them that are still to be made, or of which a step's formats are.

        Raises:
            ValueError: if a cell on disk came from other data or settings.
        """
        return [
            (step, seed)
            for step, seed in self.measured()
            if not (cell := self._cell(step, seed))
            or not {*step.get("formats", ())} <= {file["format"] for file in cell.get("files", ())}
        ]

    def _seed(self, step, seed=None):
        return self.first_seed if is_shared(self.recipe, step) else seed

    def _hash(self, step, seed):
        return hash_of(self._identity(step, seed))

    def _identity(self, step, seed):
        def sha256(own):
            return (own_data(own) if own else self.dataset).summary()["sha256"]

        return identity(self.recipe, step, seed, sha256)

    def _path(self, name, seed):
        return self.cells / f"{self.dataset.name}-{name}-{seed}.json"

    def _cell(self, step, seed):
        return _made_of(self._path(step["name"], seed), self._hash(step, seed))

    def _label(self, step, seed):
        """The name of a model's folder."""
        data = Path(step["data"]).stem if "data" in step else self.dataset.name
        whole = f"{data}-{step['name']}-{seed}-{self._hash(step, seed)}"
        return step["name"] if self.single else whole

    def chosen(self, step):
        """(a step with the learning rate that is best on dev, {rate: dev metric} if there was a choice)."""
        rates = rates_of(self.recipe, step)
        if not rates:
            return step, None
        made = self._hash(step, self.first_seed)
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
        """The trained model of a step, from disk if it is there; what others start from stays loaded."""
        from keras_compress.bert.task_model import TaskModel

        label = self._label(step, seed)
        folder, checkpoints = (self.folder / part / label for part in ("models", "checkpoints"))
        if label in self.models:
            return self.models[label]
        if (folder / "config.json").is_file():
            log.info("%s: there already", label)
            model = TaskModel.load(folder)
        else:
            model = self._make(step, seed, label, str(checkpoints))
            model.save(folder)
        for curves in checkpoints.glob("*/log"):
            kept = self.folder / "tensorboard" / label / curves.parent.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(curves, kept)
        shutil.rmtree(checkpoints, ignore_errors=True)
        if any(step["name"] in other.values() for other in self.recipe["steps"] if other != step):
            self.models[label] = model
        return model

    def _make(self, step, seed, label, checkpoints):
        if step["name"] in self.ready:
            log.info("%s: %s as it is, fine-tuned already", label, self.asked["source"])
            return self.ready[step["name"]]
        log.info("%s: %s from %s", label, step["method"], step["from"])
        models = {
            other["name"]: self.model(self.chosen(other)[0], self._seed(other, seed))
            for other in parents(self.recipe, step)
        }
        return self._run_step(step, seed, models, folder=checkpoints)

    def _source(self, name, seed):
        from keras_compress.bert.checkpoints import load

        if (name, seed) not in self.sources:
            self.sources[name, seed] = load(
                name,
                task=self.dataset.task,
                labels=self.dataset.labels,
                new_head=self.asked["new_head"],
                seed=seed,
            )
        return self.sources[name, seed]

    def _run_step(self, step, seed, models, dataset=None, **changes):
        return run_step(
            self.recipe,
            step,
            models.get(step["from"]) or self._source(step["from"], seed),
            dataset or self._data(step),
            seed=seed,
            models=models,
            strategy=self.asked["strategy"],
            **changes,
        )

    def _data(self, step):
        return own_data(step["data"]) if "data" in step else self.dataset

    def cell(self, step, seed):
        """Trains and measures one cell."""
        from keras_compress.measure.cost import encoder_parameters, flops

        start, label = time.time(), f"{self.dataset.name} {step['name']}, seed {seed}"
        tried, on_dev = self.chosen(step)
        model = self.model(tried, seed)
        result = evaluate(model, self.dataset.test)
        dev = evaluate(model, self.dataset.dev)["value"]
        log.info("%s: %.4f on test, %.4f on dev", label, result["value"], dev)
        confusion, length = result["confusion"], self.recipe["sequence_length"]
        cell = cell_of(
            self.dataset.name,
            step["name"],
            seed,
            result,
            role=role_of(self.recipe, step),
            family=step.get("family"),
            size=size_of(step),
            trained=is_seeded(self.recipe, step),
            hash=self._hash(step, seed),
            data_sha256=self.dataset.summary()["sha256"],
            task=model.task,
            dev=dev,
            learning_rate=split_settings(self.recipe["training"], tried)[0].get("learning_rate"),
            dev_of_learning_rates=on_dev,
            parameters=model.model.count_params(),
            encoder_parameters=encoder_parameters(model.config),
            flops=flops(model.config, length, len(model.labels), model.task),
            agreement=agreement(result["predictions"], self._predictions),
            quantized=model.config.quantization is not None,
            files=self._files(tried, model, seed),
            labels=model.labels,
            confusion=[[*map(int, at), int(confusion[at])] for at in zip(*confusion.nonzero())],
            chain=self._identity(step, seed),
            settings=model.history,
            curve=model.curve,
            seconds=round(time.time() - start),
            versions=versions(),
        )
        write_json(self._path(step["name"], seed), cell)

    @functools.cached_property
    def _first_model(self):
        return self.model(self.predecessor, self.first_seed)

    @functools.cached_property
    def _predictions(self):
        """What the predecessor says on test."""
        return evaluate(self._first_model, self.dataset.test)["predictions"]

    def _files(self, step, model, seed):
        """Exports a model and measures its files; they are kept where there is one seed and set.

        Times are set against the predecessor's float32 file. Files of formats that the step names itself
        are models to compare: `correct` says what they got right.
        """
        from mobile_export.benchmark import benchmark
        from mobile_export.convert import export, exported_model

        first = self.folder / "models" / self._label(self.predecessor, self.first_seed)
        keep = self.single or step is self.predecessor
        folder = self.folder / "models" / self._label(step, seed)
        with contextlib.nullcontext(folder) if keep else tempfile.TemporaryDirectory() as place:
            files = export(model, place, step.get("formats", self.recipe["formats"]), **self.export)
            if not (first / "float32.tflite").is_file():
                export(self._first_model, first, ["float32"], **self.export)
            base, *times = benchmark(first / "float32.tflite", *(file["path"] for file in files))
            for file, timed in zip(files, times):
                result = evaluate(exported_model(file["path"], model), self.dataset.test)
                file |= {
                    **timed,
                    "path": Path(file["path"]).name,
                    "times_as_fast": base["latency_ms_p50"] / timed["latency_ms_p50"],
                    "accuracy": result["value"],
                    "accuracy_se": result["se"],
                    "agreement": agreement(result["predictions"], self._predictions),
                    **({"correct": pack_correct(result["scores"])} if "formats" in step else {}),
                }
        return files

    def baselines(self):
        """Makes the cells of the baselines without BERT; they have no seed."""
        from keras_compress.measure.baselines import baselines

        data = {"data_sha256": self.dataset.summary()["sha256"]}
        made = {name: hash_of({"method": name, **data}) for name in ("majority", "tfidf")}
        if [_made_of(self._path(name, 0), made[name]) for name in made][0]:
            return
        for row, result in reversed(baselines(self.dataset)):
            name = row["name"]
            more = {"role": "reference", "hash": made[name], "task": self.dataset.task, **data}
            more |= {"parameters": row["parameters"], "choice": result["choice"]}
            cell = cell_of(self.dataset.name, name, 0, result, **more, versions=versions())
            write_json(self._path(name, 0), cell)

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
        if step["name"] in self.ready:
            return self.ready[step["name"]]
        data, training = self._data(step), split_settings(self.recipe["training"], step)[0]
        model = self._run_step(
            step,
            self._seed(step, self.seeds[0]),
            models,
            data.subset(num_train=FEW * (25 if "data" in step else 1), num_dev=FEW),
            batch_size=FEW,
            epochs=float(Training(**training).num_steps(len(data.train.texts))),
            evaluations=0,
            patience=None,
        )
        if role_of(self.recipe, step) != "helper" and model.task != self.dataset.task:
            raise ValueError(
                f"a model for {model.task} cannot be measured on {self.dataset.name}. Received: no role. "
                'Say role = "helper".'
            )
        return model

    def engines(self):
        """Times one model's graph in all engines, and adds it to the model's cell."""
        cells = {step["name"]: self._cell(step, seed) for step, seed in self.measured()}
        plain = (name for name, cell in cells.items() if not (cell["role"] or cell["quantized"]))
        name = next(plain, self.predecessor["name"])
        if name in cells and "engines" not in cells[name]:
            folder = self.folder / "models" / name
            rows, notes = time_engines(folder, cells[name]["files"])
            more = {"engines": rows, "engine_notes": notes}
            write_json(self._path(name, cells[name]["seed"]), cells[name] | more)


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


def time_engines(folder, files):
    """Times a saved model's graph in LiteRT, ONNX Runtime, TensorFlow and Keras, in a process of its
    own, where TensorFlow has one thread, too.

    Args:
        folder: where the model is saved. files: facts of its files there.
    Returns:
        (rows of name, latency_ms_p50, latency_ms_p90; notes on what could not be done).
    """
    from keras_compress.bert.task_model import TaskModel
    from mobile_export.convert import ONNX, ONNX_FORMATS, export

    folder, notes, length = folder.resolve(), [], files[0]["sequence_length"]
    lite = [file for file in files if file["format"] not in ONNX_FORMATS]
    paths = {f"LiteRT {file['format']}": folder / file["path"] for file in lite}
    with tempfile.TemporaryDirectory() as place:
        try:
            model = TaskModel.load(folder)
            onnx = export(model, place, ONNX_FORMATS, sequence_length=length, allow_drift=True)
            paths |= {f["format"].replace(ONNX, "ONNX Runtime "): f["path"] for f in onnx}
            notes += [f"{f['format']} was timed although {f['drift']}." for f in onnx if f["drift"]]
        except (ImportError, ValueError) as error:
            notes.append(f"Not timed in ONNX Runtime: {error}.")
        command = [sys.executable, "-m", "keras_compress", "benchmark", "--json", "--from", folder]
        timed = subprocess.run(
            [*command, *paths.values()],
            capture_output=True,
            encoding="utf-8",
            cwd=DATA_FOLDER.parent,
        )
    if timed.returncode:
        said = timed.stderr.strip().splitlines() or [f"exit code {timed.returncode}"]
        return [], [*notes, f"The engines could not be timed: {said[-1]}."]
    rows = json.loads(timed.stdout)
    for name, row in zip(paths, rows):
        row["path"] = name
    keys = {"path": "name", "latency_ms_p50": "latency_ms_p50", "latency_ms_p90": "latency_ms_p90"}
    return [{name: row[key] for key, name in keys.items()} for row in rows], notes
