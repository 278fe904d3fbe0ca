"""Studies: a recipe over several data sets and seeds, as a grid of cells that grows over days.

A cell is (data, method, seed). It trains one model, looks at test once, and writes one small JSON file to
data/results/<study>/. Cells whose file exists are skipped, so a study can be stopped and resumed anywhere; a file
that was made from other data or settings is an error, never mixed in. Weights stay under runs/<study>/, out of git;
where they are gone, a model that others start from is trained again. What a method's model weighs and how fast it is
does not depend on seed and data: costs/<method>.json holds it, measured beside the predecessor in one process. Only a
pruned vocabulary depends on the data: costs/<data>-<method>.json.

A step with `formats` has its exported files measured on test, too, at the recipe's `sequence_length`: post-training
quantisation of a model is a file of the step that trained it.

Learning rates are chosen on dev, from the study's own grid, with the first seed. The first step of a tree (the
predecessor) is trained once per data set, at its own rate, and shared by the seeds; so is what is made of it without
training, and a step that only serves others; it makes no cell. With `shared = false` steps that serve others are
trained anew for every seed.
"""

import functools
import hashlib
import json
import logging
import platform
import shutil
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from keras_compress import datasets
from keras_compress.experiment.recipe import (
    OF_DATA,
    check_data,
    is_measured,
    is_trained,
    parents,
    run_step,
)
from keras_compress.files import DATA_FOLDER, write_json

log = logging.getLogger(__name__)
PACKAGES = (
    "tensorflow",
    "tf-keras",
    "numpy",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "tokenizers",
    "tensorflow-model-optimization",
)


def versions():
    """Versions of what a number depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def run_study(
    recipe, *, seeds=None, data=None, fixed_lr=False, only=None, weights=None, results=None
):
    """Runs the cells that are missing.

    Args:
        recipe: a study, from `read_recipe`.
        seeds: default: the recipe's. data: list of data sets, default: the recipe's.
        fixed_lr: take the learning rates of the recipe instead of choosing on dev.
        only: names of steps; default: all.
        weights, results: folders; default: runs/<study> and data/results/<study>; of data that are not the study's own
            the cells go to runs/<study>/results.
    Returns:
        (list of all cells, those from earlier runs included; dict of costs, as of `read_costs`).
    Raises:
        ValueError: on wrong input, or if a cell or a learning rate on disk came from other data or settings.
    """
    names = [step["name"] for step in recipe["steps"]]
    if not {*(only or ())} <= {*names}:
        raise ValueError(
            f"`only` must name steps of the study: {', '.join(names)}. Received: {', '.join(only)}."
        )
    weights = Path(weights or DATA_FOLDER.parent / "runs" / recipe["name"])
    own = not data or {*data} <= {*recipe["datasets"]}
    results = Path(
        results or (DATA_FOLDER / "results" / recipe["name"] if own else weights / "results")
    )
    loaded = [
        datasets.load(name) for name in data or recipe["datasets"]
    ]  # all of them before hours of training
    for dataset in loaded:
        check_data(dataset, "train", "dev", "test")
    for dataset in loaded:
        study = _Study(
            recipe, dataset, None if fixed_lr else recipe.get("learning_rates"), weights, results
        )
        _write_baselines(dataset, results)
        for seed in seeds or recipe["seeds"]:
            for step in recipe["steps"]:
                if is_measured(step) and (only is None or step["name"] in only):
                    study.cell(step, seed)
    return read_cells(results), read_costs(results)


def read_cells(results):
    """All cells in a folder of results, as dicts. Raises ValueError on a JSON file that is none."""
    from keras_compress.measure.accuracy import unpack_correct

    cells = []
    for path in sorted(Path(results).glob("*.json")):
        try:
            cell = json.loads(path.read_text(encoding="utf-8"))
            kinds = {
                "data": str,
                "method": str,
                "seed": int,
                "metric": str,
                "num_examples": int,
                "correct": str,
            }
            wrong = [key for key, kind in kinds.items() if not isinstance(cell[key], kind)]
            if wrong or cell["metric"] not in ("accuracy", "entity_f1"):
                raise ValueError(", ".join(wrong) or cell["metric"])
            unpack_correct(cell["correct"], cell["num_examples"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: a folder of results must hold cells of a study alone. Received a file that is "
                f"none ({error!r}). Move it away."
            ) from error
        cells.append(cell)
    return cells


def _read_made_from(path, made_from):
    """What a JSON file holds, None if there is no file; ValueError if it was made from something else."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    changed = [key for key, value in made_from.items() if found and found.get(key) != value]
    if changed:
        raise ValueError(
            f"{path}: was made with other {', '.join(changed)}. Restore them, or move the file away and "
            "have it made anew."
        )
    return found


def read_costs(results):
    """{method, or <data>-<method>: dict} of what `_Study.cost` wrote."""
    found = {}
    for path in sorted(Path(results).glob("costs/*.json")):
        try:
            cost = json.loads(path.read_text(encoding="utf-8"))
            for key in ("bytes", "times_as_fast"):
                (
                    cost["device"],
                    cost["float32"][key]
                    + cost["int8"][key]
                    + cost["threads"]
                    + cost["sequence_length"],
                )
            found[path.stem] = cost
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: costs/ must hold what a study measured alone ({error!r}). Move it away."
            ) from error
    return found


@functools.cache
def own_data_sha256(name):
    return datasets.load(name, task="unlabelled").summary()["sha256"]


class _Study:
    """One data set of a study: what is trained, where it is kept, and which learning rate was chosen."""

    def __init__(self, recipe, dataset, learning_rates, weights, results):
        self.recipe, self.dataset, self.learning_rates = recipe, dataset, learning_rates
        self.weights, self.results = weights, results
        self.first_seed, self.sha256 = recipe["seeds"][0], dataset.summary()["sha256"]

    def cell(self, step, seed):
        """Trains and measures one cell, unless its file exists."""
        seed = self.seed(step, seed)
        path, made_from = (
            self.results / f"{self.dataset.name}-{step['name']}-{seed}.json",
            self.made_from(step),
        )
        if _read_made_from(path, made_from):
            return self.cost(step)
        from keras_compress.experiment.compare import study_cell
        from keras_compress.measure.accuracy import evaluate

        start = time.time()
        rate, on_dev = self.learning_rate(step)
        model = self.model(step, seed, rate)
        cell = study_cell(
            self.dataset.name,
            step["name"],
            seed,
            evaluate(model, self.dataset.test),
            dev=evaluate(model, self.dataset.dev)["value"],
            learning_rate=rate,
            dev_of_learning_rates=on_dev,
            parameters=model.model.count_params(),
            settings=model.history[-3:],
            files=self.files(step, model),
            seconds=round(time.time() - start),
            versions=versions(),
            own_data=self.own_data(step),
            **made_from,
        )
        write_json(path, cell)
        self.cost(step)
        log.info(
            "%s: test %.4f, dev %.4f, learning rate %g",
            path.name,
            cell["accuracy"],
            cell["dev"],
            rate or 0,
        )

    def files(self, step, model):
        """Sizes, and accuracy on test, of the files that the step asks for; the files are not kept."""
        if "formats" not in step:
            return []
        from keras_compress.measure.accuracy import evaluate, pack_correct
        from mobile_export.convert import export, exported_model

        found = []
        with tempfile.TemporaryDirectory() as folder:
            for facts in export(
                model,
                folder,
                step["formats"],
                sequence_length=self.recipe.get("sequence_length", 64),
                allow_drift=True,
            ):
                result = evaluate(exported_model(facts["path"], model), self.dataset.test)
                found.append(
                    {
                        **{key: facts[key] for key in ("format", "bytes", "gzip_bytes")},
                        "accuracy": result["value"],
                        "accuracy_se": result["se"],
                        "correct": pack_correct(result["scores"]),
                    }
                )
        return found

    def cost(self, step):
        """Measures what a step's model weighs and how fast it is beside the predecessor, unless its file exists."""
        own = any(one["method"] in OF_DATA and "data" not in one for one in self.steps_to(step))
        name, first = (
            f"{self.dataset.name}-{step['name']}" if own else step["name"],
            self.recipe["steps"][0],
        )
        path = self.results / "costs" / f"{name}.json"
        if path.is_file() or "formats" in step:
            return
        from mobile_export.benchmark import benchmark
        from mobile_export.convert import export

        with tempfile.TemporaryDirectory() as folder:
            files = [
                file
                for one in (first, step)
                for file in export(
                    self.model(one, self.first_seed, self.learning_rate(one)[0]),
                    Path(folder) / one["name"],
                    sequence_length=self.recipe["training"]["max_length"],
                    allow_drift=True,
                )
            ]
            times = benchmark(*(file["path"] for file in files))
        base = times[0]["latency_ms_p50"]
        write_json(
            path,
            {
                "method": step["name"],
                **{
                    file["format"]: {
                        "bytes": file["bytes"],
                        "times_as_fast": base / row["latency_ms_p50"],
                    }
                    for file, row in zip(files[-2:], times[-2:])
                },
                **{key: times[0][key] for key in ("device", "threads", "sequence_length", "runs")},
                "versions": versions(),
            },
        )

    def own_data(self, step):
        """{step: hash of the data} for the steps up to this one that bring data of their own."""
        return {
            one["name"]: own_data_sha256(one["data"])
            for one in self.steps_to(step)
            if "data" in one
        }

    def steps_to(self, step):
        """A step and all that it starts from, in the recipe's order."""
        steps = [step]
        for one in steps:
            steps += [other for other in parents(self.recipe, one) if other not in steps]
        return [one for one in self.recipe["steps"] if one in steps]

    def made_from(self, step):
        """What a number depends on beside method and seed: the data, all steps up to this one, the grid."""
        steps = self.steps_to(step)
        return {
            "data_sha256": self.sha256,
            "learning_rates": self.grid(step),
            "steps": [
                {
                    k: v
                    for k, v in {**self.recipe["training"], **one}.items()
                    if k != "learning_rate" or not self.grid(one)
                }
                for one in steps
            ],
        }

    def grid(self, step):
        """The learning rates to choose from; None: the step's own holds."""
        alone = (
            self.is_shared(step)
            or not (is_measured(step) and is_trained(step))
            or not self.learning_rates
        )
        return None if alone else step.get("learning_rates", self.learning_rates)

    def is_shared(self, step):
        """Whether a step is made once for all seeds."""
        (parent,) = [one for one in self.recipe["steps"] if one["name"] == step["from"]] or [step]
        return (
            step is self.recipe["steps"][0]
            or (self.recipe.get("shared", True) and not is_measured(step))
            or (not is_trained(step) and parent is not step and self.is_shared(parent))
        )

    def seed(self, step, seed):
        return self.first_seed if self.is_shared(step) else seed

    def learning_rate(self, step):
        """(the learning rate of a step, {rate: dev metric} if it was chosen)."""
        fixed = {**self.recipe["training"], **step}.get("learning_rate")
        if not self.grid(step):
            return fixed, None
        path = self.results / "grid" / f"{self.dataset.name}-{step['name']}.json"
        made_from = self.made_from(step)
        on_dev = (_read_made_from(path, made_from) or {}).get("dev", {})
        for rate in self.grid(step):
            if f"{rate:g}" not in on_dev:
                from keras_compress.measure.accuracy import evaluate

                model = self.model(step, self.first_seed, rate)
                on_dev[f"{rate:g}"] = evaluate(model, self.dataset.dev)["value"]
                log.info(
                    "%s %s learning rate %g: dev %.4f",
                    self.dataset.name,
                    step["name"],
                    rate,
                    on_dev[f"{rate:g}"],
                )
                write_json(path, {"dev": on_dev, **made_from})
        return max(self.grid(step), key=lambda rate: on_dev[f"{rate:g}"]), on_dev

    def model(self, step, seed, rate):
        """The trained model of a cell, from disk if it is there."""
        from keras_compress.bert.checkpoints import load
        from keras_compress.bert.task_model import TaskModel

        made_from = self.made_from(step)
        if self.own_data(step):
            made_from["own_data"] = self.own_data(step)
        if "data" in step:
            del made_from["data_sha256"]  # one model for all data sets
        mark = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:8]
        name = "-".join(
            [
                Path(step["data"]).stem if "data" in step else self.dataset.name,
                step["name"],
                str(seed),
                *([] if rate is None else [f"{rate:g}"]),
                mark,
            ]
        )
        if (self.weights / name / "config.json").is_file():
            return TaskModel.load(self.weights / name)
        models = {
            one["name"]: self.model(one, self.seed(one, seed), self.learning_rate(one)[0])
            for one in parents(self.recipe, step)
        }
        parent = models.get(step["from"]) or load(
            step["from"], task=self.dataset.task, labels=self.dataset.labels, seed=seed
        )
        changes = {} if rate is None else {"learning_rate": rate}
        checkpoints = self.weights / "checkpoints" / name
        model = run_step(
            self.recipe,
            step,
            parent,
            self.dataset,
            seed=seed,
            models=models,
            folder=str(checkpoints),
            **changes,
        )
        model.save(self.weights / name)
        shutil.rmtree(checkpoints, ignore_errors=True)
        return model


def _write_baselines(dataset, results):
    """Cells of the baselines without BERT; they have no seed."""
    from keras_compress.experiment.compare import study_cell
    from keras_compress.measure.baselines import baselines

    if not _read_made_from(
        results / f"{dataset.name}-majority-0.json", {"data_sha256": dataset.summary()["sha256"]}
    ):
        for row, result in reversed(baselines(dataset)):
            write_json(
                results / f"{dataset.name}-{row['name']}-0.json",
                study_cell(
                    dataset.name,
                    row["name"],
                    0,
                    result,
                    parameters=row["parameters"],
                    choice=result["choice"],
                    data_sha256=dataset.summary()["sha256"],
                    versions=versions(),
                ),
            )
