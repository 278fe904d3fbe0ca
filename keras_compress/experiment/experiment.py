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
"""

import functools
import itertools
import logging
import shutil
import time
from pathlib import Path

from keras_compress import datasets
from keras_compress.bert.checkpoints import load
from keras_compress.bert.task_model import TaskModel
from keras_compress.experiment.cells import make_baselines, make_cell, time_engines
from keras_compress.experiment.forecast import Forecast, rehearse, to_train
from keras_compress.experiment.recipe import hash_of, identity, of_seed, run_step, steps_of
from keras_compress.experiment.report import report_of, write_report
from keras_compress.experiment.run_folder import at_work, check_same, open_run
from keras_compress.files import read_json
from keras_compress.lock import alone
from keras_compress.measure.accuracy import evaluate
from keras_compress.method import untrained
from mobile_export.convert import export

log = logging.getLogger(__name__)
QUICK = 800, 200, 400  # `--quick`: texts of train, dev and test
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
        ValueError: on wrong input, or if another process writes the folder, unless both make parts, `only` or `seeds`;
            OSError: if a file cannot be written. What was finished stays.
    """
    folder, settings = open_run(out, {"recipe": recipe, **options})
    with alone(folder, shared=bool(settings["only"] or settings["seeds"])):
        return _run(folder, settings)


def _run(folder, settings):
    started = time.time()
    plans = [Plan(settings, name, folder) for name in settings["content"]["datasets"]]
    check_same(settings, [plan.dataset.summary() for plan in plans])
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
            make_baselines(plan)
            for step in plan.missing():
                make_cell(plan, step)
            if plan.single:
                time_engines(plan)
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
        self.chain = functools.partial(identity, sha256=self.sha256)
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
        self.first_seed, *_ = self.recipe["seeds"]
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
        model = self._source(self.steps[0])
        self.dataset = self.dataset.with_labels(model.labels)
        width = model.config.hidden_size
        if width > WIDTH and not self.settings["learning_rate"]:
            log.warning(
                f"warning: the recipe's learning rates were tried on a width of {WIDTH}; {source} is {width} "
                "wide. Lower ones (2e-5 to 1e-4) are usual: --learning-rate"
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
        """The steps, with their seeds, whose cells are still to be made, or whose formats are."""
        missing = {}
        for seed, step in itertools.product(self.seeds, self.steps):
            if step.name in self.only:
                step = of_seed(step, seed)
                cell = self.cell(step) or {}
                formats = {file["format"] for file in cell.get("files", ())}
                if not cell or not {*(step.formats or ())} <= formats:
                    missing[step.name, step.seed] = step
        return [*missing.values()]

    def path(self, name, seed):
        """Where a cell is."""
        return self.cells / f"{self.dataset.name}-{name}-{seed}.json"

    def cell(self, step):
        """The cell of a step, as `read`."""
        return self.read(step.name, step.seed, self.chain(step))

    def read(self, name, seed, chain):
        """What a cell holds, None if it is still to be made; ValueError if it was made of something else."""
        path = self.path(name, seed)
        if self.settings["overwrite"] or not path.is_file():
            return None
        content = read_json(path)
        if content.get("hash") != hash_of(chain):
            raise ValueError(
                f"{path}: was made with other data or settings. Restore them, or move the file away and "
                "have it made anew."
            )
        return content

    def place(self, part, step):
        """Where a model, its checkpoints or its curves are."""
        data = Path(step.data).stem if step.data else self.dataset.name
        label = f"{data}-{step.name}-{step.seed}-{hash_of(self.chain(step))}"
        return self.folder / part / (step.name if self.single else label)

    def chosen(self, step):
        """(a step with the learning rate that is best on dev, {rate: dev metric} if there was a choice)."""
        if not step.rates:
            return step, None
        first, steps = of_seed(step, self.first_seed), {}
        on_dev = (self.cell(first) or {}).get("dev_of_learning_rates", {})
        for rate in step.rates:
            name, training = f"{rate:g}", {**step.training, "learning_rate": rate}
            steps[name] = step.model_copy(update={"training": training, "rates": None})
            if name not in on_dev:
                model = self.model(of_seed(steps[name], self.first_seed))
                on_dev[name] = evaluate(model, self.dataset.dev)["value"]
                log.info("%s, learning rate %s: %.4f on dev", step.name, name, on_dev[name])
        return steps[max(steps, key=on_dev.get)], on_dev

    def model(self, step):
        """The trained model of a step, from disk if it is there."""
        parts = ("models", "checkpoints", "tensorboard")
        folder, checkpoints, curves = (self.place(part, step) for part in parts)
        if (folder / "config.json").is_file():
            log.info("%s: there already", folder.name)
            model = TaskModel.load(folder)
        else:
            log.info("%s: %s from %s", folder.name, step.method, step.source)
            model = self.run_step(
                step,
                lambda parent: self.model(self.chosen(parent)[0]),
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

    def _source(self, step):
        """What a step starts from that no step makes."""
        about = {key: getattr(self.dataset, key) for key in ("task", "labels", "ordered")}
        about["ordered"] |= "labels" in step.reading
        return load(step.source, **{**about, **step.reading}, seed=step.seed)

    def run_step(self, step, model_of, dataset, **changes):
        """The model of a step; `model_of` gives that of a parent."""
        models = {key: model_of(parent) for key, parent in step.models.items()}
        parent = models.pop("from", None) or self._source(step)
        if step.name in self.ready:
            return parent
        changes["strategy"] = self.settings["strategy"]
        return run_step(step, parent, dataset, models=models, **changes)

    @functools.cached_property
    def first(self):
        """(float32 file, its figures on test) of the predecessor: what all models are set against."""
        model = self.model(self.predecessor)
        folder = self.place("models", self.predecessor)
        if not (folder / "float32.tflite").is_file():
            self.export(model, folder, ["float32"])
        return folder / "float32.tflite", evaluate(model, self.dataset.test)
