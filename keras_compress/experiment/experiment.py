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
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keras_compress import datasets
from keras_compress.bert.checkpoints import load
from keras_compress.bert.task_model import TaskModel
from keras_compress.experiment.compare import cell_of
from keras_compress.experiment.forecast import Forecast, rehearse, to_train
from keras_compress.experiment.recipe import hash_of, identity, run_step, steps_of
from keras_compress.experiment.report import report_of, write_report
from keras_compress.experiment.run_folder import at_work, open_run, versions
from keras_compress.files import DATA_FOLDER, read_json, write_json
from keras_compress.measure.accuracy import agreement, evaluate, pack_correct, paired_difference
from keras_compress.measure.baselines import baselines
from keras_compress.measure.cost import encoder_parameters, flops
from keras_compress.method import untrained
from mobile_export.benchmark import benchmark
from mobile_export.convert import ONNX_FORMATS, export, exported_model
from mobile_export.graph import ExportError

log = logging.getLogger(__name__)
QUICK = 800, 200, 400  # `--quick`: texts of train, dev and test
ENGINES = {".tflite": "LiteRT", ".onnx": "ONNX Runtime"}
WIDTH = 384  # of the model on which the recipes' learning rates were tried


def run(recipe="theseus", out=None, **options):
    """Runs a recipe: makes the cells that are missing, and a report of all.

    Args:
        recipe: a name, or a TOML file. out: folder of the report; default: runs/<recipe>-<time>, and
            runs/<study> for a study.
        options: of `run_folder.DEFAULTS`, as `python -m keras_compress run --help` has them; seeds is
            a list of int, only a list of names of steps.
    Returns:
        (folder, the dict that report.json holds).
    Raises:
        ValueError: on wrong input; OSError: if a file cannot be written. What was finished stays.
    """
    folder, settings = open_run(out, {"recipe": recipe, **options})
    started = time.time()
    plans = [Plan(settings, name, folder) for name in settings["content"]["datasets"]]
    sets = [plan.dataset.summary() for plan in plans]
    if settings.setdefault("sets", sets) != sets:
        raise ValueError(
            "A resumed run must have the same data. Received: other content than before. Restore it, or "
            "start a new run."
        )
    unfinished = {plan.dataset.task: plan for plan in reversed(plans) if plan.missing()}
    costs = {task: rehearse(plan) for task, plan in unfinished.items()}
    settings["notes"] = [note for plan in plans for note in plan.notes]
    settings["spent"] += time.time() - started
    with at_work(folder, settings):
        forecast = Forecast([row for plan in plans for row in to_train(plan, costs)])
        forecast.tell()
        for plan in plans:
            plan.forecast = forecast
            log.info("data: %s", plan.dataset.summary())
            plan.baselines()
            for step, of_seed in plan.missing():
                plan.cell(step, of_seed)
            if plan.single:
                plan.engines()
    report = report_of(folder)
    log.info("report: %s", write_report(folder, report))
    return folder, report


class Plan:
    """An experiment on one data set: what is trained, where it is kept, which rate was chosen.

    `single` is a run of one data set and one seed without a choice of rates, in a folder of its own: a
    model's folder is then called as its step, and keeps the exported files.
    """

    def __init__(self, settings, data, folder):
        dataset = datasets.load(data, task=settings["task"], language=settings["language"])
        dataset.check_splits("train", "dev", "test")
        self.dataset = dataset.subset(*QUICK) if settings["quick"] else dataset
        # A step's own unlabelled text by its name, or the data of the experiment.
        text = functools.cache(functools.partial(datasets.load, task="unlabelled"))
        self.data = lambda own: text(own) if own else self.dataset
        self.sha256 = functools.cache(lambda own: self.data(own).summary()["sha256"])
        self.settings, self.folder, self.cells = settings, folder, folder / settings["cells"]
        self.recipe, self.steps = settings["content"], steps_of(settings["content"])
        self.predecessor = next(step for step in self.steps if step.role == "predecessor")
        self.notes, self.ready = [], []  # the names of steps whose model is the source itself
        if settings["source"]:
            self._start_from(Path(settings["source"]).name)
        names = [step.name for step in self.steps if step.role != "helper"]
        self.only = settings["only"] or names
        if not {*self.only} <= {*names}:
            raise ValueError(
                f"`only` must name steps of the recipe: {', '.join(names)}. "
                f"Received: {', '.join(self.only)}."
            )
        self.seeds = settings["seeds"] or self.recipe["seeds"]
        self.single = (
            settings["cells"] == "cells"
            and self.seeds == self.recipe["seeds"]
            and len(self.seeds) == len(self.recipe["datasets"]) == 1
            and not any(step.rates for step in self.steps)
        )
        self.length, self.forecast = self.recipe["sequence_length"], Forecast()
        self.export = functools.partial(
            export, sequence_length=self.length, dev=self.dataset.dev, allow_drift=True
        )

    def _start_from(self, source):
        """Leaves out what a source of weights is not good for: where it is trained for the labels already,
        it is what the steps make that would fine-tune it, and pre-trained weights are not at hand."""
        if self.settings["new_head"]:
            self.notes.append(
                f"--new-head: every step that starts from {source} has its weights with a new classifier. "
                "If these were fine-tuned before, baselines that need pre-trained layers start from "
                "fine-tuned ones."
            )
        model = self._source(self.steps[0], self.steps[0].seed)
        self.dataset = self.dataset.with_labels(model.labels)
        if model.config.hidden_size > WIDTH and not self.settings["learning_rate"]:
            log.warning(
                "warning: the recipe's learning rates were tried on a width of %d; %s is %d wide. "
                "Lower ones (2e-5 to 1e-4) are usual: --learning-rate",
                WIDTH,
                source,
                model.config.hidden_size,
            )
        if not model.history or untrained(model):
            return
        left_out = []
        for step in self.steps:
            if step.method == "finetune" and not step.models:
                self.ready.append(step.name)
            elif "from" not in step.models or any(one in left_out for one in step.models.values()):
                left_out.append(step)
        if self.predecessor in left_out:
            raise ValueError(
                f"{source} is fine-tuned already, and recipe {self.recipe['name']} starts from "
                "pre-trained weights only. Pass --new-head to fine-tune it anew."
            )
        self.steps = [step for step in self.steps if step not in left_out]
        self.notes.append(
            f"{', '.join(self.ready)}: {source} as it is, since it is fine-tuned for these labels. Left "
            "out, since pre-trained weights are not at hand: "
            f"{', '.join(step.name for step in left_out) or 'nothing'}. With --new-head it is fine-tuned "
            "anew."
        )

    def missing(self):
        """[(step, seed)] of the cells that are still to be made, or of which a step's formats are.

        Raises:
            ValueError: if a cell on disk came from other data or settings.
        """
        missing = {}
        for seed in self.seeds:
            for step in self.steps:
                of_seed = step.seed if step.shared else seed
                if step.name in self.only:
                    cell = self._cell(step, of_seed) or {}
                    formats = {file["format"] for file in cell.get("files", ())}
                    if not cell or not {*(step.formats or ())} <= formats:
                        missing[step.name, of_seed] = step, of_seed
        return [*missing.values()]

    def formats(self, step):
        """Names of the formats of a step's files."""
        return step.formats or self.recipe["formats"]

    def _hash(self, step, seed):
        return hash_of(identity(step, seed, self.sha256))

    def _path(self, name, seed):
        return self.cells / f"{self.dataset.name}-{name}-{seed}.json"

    def _cell(self, step, seed):
        if self.settings["overwrite"]:
            return None
        return _made_of(self._path(step.name, seed), self._hash(step, seed))

    def place(self, part, step, seed):
        """Where a model, its checkpoints or its curves are."""
        data = Path(step.data).stem if step.data else self.dataset.name
        label = f"{data}-{step.name}-{seed}-{self._hash(step, seed)}"
        return self.folder / part / (step.name if self.single else label)

    def chosen(self, step):
        """(a step with the learning rate that is best on dev, {rate: dev metric} if there was a choice)."""
        if not step.rates:
            return step, None
        on_dev = (self._cell(step, step.seed) or {}).get("dev_of_learning_rates", {})
        steps = {}
        for rate in step.rates:
            name, training = f"{rate:g}", {**step.training, "learning_rate": rate}
            steps[name] = step.model_copy(update={"training": training, "rates": None})
            if name not in on_dev:
                model = self.model(steps[name], step.seed)
                on_dev[name] = evaluate(model, self.dataset.dev)["value"]
                log.info("%s, learning rate %s: %.4f on dev", step.name, name, on_dev[name])
        return steps[max(steps, key=on_dev.get)], on_dev

    def model(self, step, seed):
        """The trained model of a step, from disk if it is there."""
        seed = step.seed if step.shared else seed
        parts = ("models", "checkpoints", "tensorboard")
        folder, checkpoints, curves = (self.place(part, step, seed) for part in parts)
        if (folder / "config.json").is_file():
            log.info("%s: there already", folder.name)
            model = TaskModel.load(folder)
        else:
            log.info("%s: %s from %s", folder.name, step.method, step.source)
            model = self.run_step(
                step,
                seed,
                lambda parent: self.model(self.chosen(parent)[0], seed),
                self.data(step.data),
                folder=str(checkpoints),
            )
            model.save(folder)
            self.forecast.trained(f"{self.dataset.name} {step.name}")
        for stage in checkpoints.glob("*/log"):
            curves.mkdir(parents=True, exist_ok=True)
            shutil.move(stage, curves / stage.parent.name)
        shutil.rmtree(checkpoints, ignore_errors=True)
        return model

    def _source(self, step, seed):
        """What a step starts from that no step makes."""
        about = {key: getattr(self.dataset, key) for key in ("task", "labels", "ordered")}
        about["ordered"] |= "labels" in step.reading
        return load(step.source, **{**about, **step.reading}, seed=seed)

    def run_step(self, step, seed, model_of, dataset, **changes):
        """The model of a step; `model_of` gives that of a parent."""
        models = {key: model_of(parent) for key, parent in step.models.items()}
        parent = models.pop("from", None) or self._source(step, seed)
        if step.name in self.ready:
            return parent
        changes["strategy"] = self.settings["strategy"]
        return run_step(step, parent, dataset, seed=seed, models=models, **changes)

    def cell(self, step, seed):
        """Trains and measures one cell."""
        start = time.time()
        tried, on_dev = self.chosen(step)
        model = self.model(tried, seed)
        result = evaluate(model, self.dataset.test)
        dev = evaluate(model, self.dataset.dev)["value"]
        label = f"{self.dataset.name} {step.name}, seed {seed}"
        log.info("%s: %.4f on test, %.4f on dev", label, result["value"], dev)
        files, failed = self._files(tried, model, seed)
        more = {key: result[key] for key in ("spearman", "mse") if key in result}
        if (confusion := result.get("confusion")) is not None:
            at = zip(*confusion.nonzero())
            more["confusion"] = [[*map(int, one), int(confusion[one])] for one in at]
        self._write(
            step.name,
            seed,
            result,
            identity(step, seed, self.sha256),
            role=step.role,
            family=step.family,
            size=step.size,
            trained=step.seeded,
            dev=dev,
            learning_rate=tried.training.get("learning_rate"),
            dev_of_learning_rates=on_dev,
            parameters=model.model.count_params(),
            encoder_parameters=encoder_parameters(model.config),
            flops=flops(model.config, self.length, len(model.labels), model.task),
            agreement=agreement(result["predictions"], self.first[1]["predictions"]),
            quantized=model.config.quantization is not None,
            files=files,
            failed=failed,
            labels=model.labels,
            **more,
            settings=model.history,
            curve=model.curve,
            seconds=round(time.time() - start),
        )

    def _write(self, name, seed, result, chain, **facts):
        facts |= {
            "hash": hash_of(chain),
            "chain": chain,
            "data_sha256": self.sha256(None),
            "task": self.dataset.task,
            "versions": versions(),
        }
        cell = cell_of(self.dataset.name, name, seed, result, **facts)
        write_json(self._path(name, seed), cell)

    @functools.cached_property
    def first(self):
        """(float32 file, its figures on test) of the predecessor: what all models are set against."""
        model = self.model(self.predecessor, self.predecessor.seed)
        folder = self.place("models", self.predecessor, self.predecessor.seed)
        if not (folder / "float32.tflite").is_file():
            self.export(model, folder, ["float32"])
        return folder / "float32.tflite", evaluate(model, self.dataset.test)

    def _files(self, step, model, seed):
        """(measured files of a model, why others failed); they are kept where there is one seed and set.

        Times are set against the predecessor's float32 file. Files of formats that the step names itself
        are models to compare: `correct` says what they got right.
        """
        keep, folder = self.single or step is self.predecessor, self.place("models", step, seed)
        with contextlib.nullcontext(folder) if keep else tempfile.TemporaryDirectory() as place:
            try:
                files, failed = self.export(model, place, self.formats(step)), None
            except ExportError as error:
                files, failed = getattr(error, "files", []), str(error)
                log.warning("warning: %s: %s", step.name, failed)
            first, before = self.first
            base, *times = benchmark(first, *(file["path"] for file in files))
            for file, timed in zip(files, times):
                result = evaluate(exported_model(file["path"], model), self.dataset.test)
                file |= {
                    **timed,
                    "path": Path(file["path"]).name,
                    "times_as_fast": base["latency_ms_p50"] / timed["latency_ms_p50"],
                    "accuracy": result["value"],
                    "accuracy_se": result["se"],
                    "agreement": agreement(result["predictions"], before["predictions"]),
                    "vs_predecessor": paired_difference(
                        result["metric"], result["scores"], before["scores"]
                    ),
                }
                if step.formats:
                    file["correct"] = pack_correct(result["scores"])
        return files, failed

    def baselines(self):
        """Makes the cells of the baselines without BERT; they have no seed."""
        chain = {"data_sha256": self.sha256(None), "method": "majority"}
        if _made_of(self._path("majority", 0), hash_of(chain)):
            return
        for row, result in reversed(baselines(self.dataset)):  # majority, which all have, is last
            facts = {"parameters": row["parameters"], "choice": result["choice"]}
            chain["method"] = row["name"]
            self._write(row["name"], 0, result, chain, role="reference", **facts)

    def engines(self):
        """Times the graph of one model in LiteRT, ONNX Runtime, TensorFlow and Keras, and adds it to the
        model's cell. A process of its own gives TensorFlow one thread, too."""
        cells = [self._cell(step, self.seeds[0]) for step in self.steps if step.name in self.only]
        plain = [cell for cell in cells if not (cell["role"] or cell["quantized"])]
        plain += [cell for cell in cells if cell["role"] == "predecessor"]
        if not plain or "engines" in plain[0]:
            return
        cell, notes = plain[0], []
        folder = (self.folder / "models" / cell["method"]).resolve()
        files = sorted(folder.glob("*.tflite"))
        with tempfile.TemporaryDirectory() as place:
            try:
                onnx = self.export(TaskModel.load(folder), place, ONNX_FORMATS, dev=None)
                files += [Path(file["path"]) for file in onnx]
            except (ImportError, ValueError) as error:
                notes.append(f"Not timed in ONNX Runtime: {error}.")
            command = [sys.executable, "-m", "keras_compress", "benchmark", "--json", *files]
            command += ["--from", folder]
            rows = json.loads(subprocess.check_output(command, cwd=DATA_FOLDER.parent))
        names = [f"{ENGINES[file.suffix]} {file.stem}" for file in files]
        names += [row["path"] for row in rows[len(files) :]]  # in TensorFlow
        rows = [{**row, "name": name} for row, name in zip(rows, names)]
        path = self._path(cell["method"], cell["seed"])
        write_json(path, cell | {"engines": rows, "engine_notes": notes})


def _made_of(path, made):
    """What a JSON file holds, None if there is no file; ValueError if it was made of something else."""
    content = read_json(path) if path.is_file() else None
    if content and content.get("hash") != made:
        raise ValueError(
            f"{path}: was made with other data or settings. Restore them, or move the file away and "
            "have it made anew."
        )
    return content
