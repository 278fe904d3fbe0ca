"""A cell is made: one model, measured on dev and test, with the sizes and times of its files.

A plan here is an `experiment.Plan`: what is made of one data set. Test is looked at once per cell. Times are ratios to
the predecessor's file, measured in one process.
"""

import contextlib
import itertools
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from keras_compress.bert.task_model import TaskModel
from keras_compress.experiment.compare import cell_of
from keras_compress.experiment.recipe import hash_of
from keras_compress.experiment.run_folder import versions
from keras_compress.files import DATA_FOLDER, write_sealed
from keras_compress.measure.accuracy import agreement, evaluate, pack_correct, paired_difference
from keras_compress.measure.baselines import baselines
from keras_compress.measure.cost import encoder_parameters, flops
from mobile_export.benchmark import benchmark
from mobile_export.convert import ONNX_FORMATS, exported_model
from mobile_export.graph import ExportError

log = logging.getLogger(__name__)
ENGINES = {".tflite": "LiteRT", ".onnx": "ONNX Runtime"}


def make_cell(plan, step):
    """Trains a step's model, measures it and its files, and writes the cell."""
    start = time.time()
    tried, on_dev = plan.chosen(step)
    model = plan.model(tried)
    result = evaluate(model, plan.dataset.test)
    dev = evaluate(model, plan.dataset.dev)["value"]
    label = f"{plan.dataset.name} {step.name}, seed {step.seed}"
    log.info("%s: %.4f on test, %.4f on dev", label, result["value"], dev)
    files, failed = files_of(plan, tried, model)
    more = {key: result[key] for key in ("spearman", "mse") if key in result}
    if (confusion := result.get("confusion")) is not None:
        more["confusion"] = np.c_[np.argwhere(confusion), confusion[confusion > 0]].tolist()
    _write(
        plan,
        step.name,
        step.seed,
        result,
        plan.chain(step),
        role=step.role,
        family=step.family,
        size=step.size,
        trained=step.seeded,
        dev=dev,
        learning_rate=tried.training.get("learning_rate"),
        dev_of_learning_rates=on_dev,
        parameters=model.model.count_params(),
        encoder_parameters=encoder_parameters(model.config),
        flops=flops(model.config, plan.length, len(model.labels), model.task),
        agreement=agreement(result["predictions"], plan.first[1]["predictions"]),
        quantized=model.config.quantization is not None,
        files=files,
        failed=failed,
        labels=model.labels,
        **more,
        settings=model.history,
        curve=model.curve,
        seconds=round(time.time() - start),
    )


def _write(plan, name, seed, result, chain, **facts):
    cell = cell_of(plan.dataset.name, name, seed, result, **facts)
    cell |= {"hash": hash_of(chain), "chain": chain, "data_sha256": plan.sha256(None)}
    cell |= {"task": plan.dataset.task, "versions": versions()}
    write_sealed(plan.path(name, seed), cell)


def files_of(plan, step, model):
    """(measured files of a model, why others failed); they are kept where there is one seed and set.

    Times are set against the predecessor's float32 file. Files of formats that the step names itself are models to
    compare: `correct` says what they got right.
    """
    keep = plan.single or step.name == plan.predecessor.name
    folder = plan.place("models", step)
    with contextlib.nullcontext(folder) if keep else tempfile.TemporaryDirectory() as place:
        try:
            files, failed = plan.export(model, place, step.formats or plan.recipe["formats"]), None
        except ExportError as error:
            files, failed = getattr(error, "files", []), str(error)
            log.warning("warning: %s: %s", step.name, failed)
        first, before = plan.first
        base, *times = benchmark(first, *(file["path"] for file in files))
        for file, timed in zip(files, times):
            result = evaluate(exported_model(file["path"], model), plan.dataset.test)
            scores = result["scores"]
            file |= {
                **timed,
                "path": Path(file["path"]).name,
                "times_as_fast": base["latency_ms_p50"] / timed["latency_ms_p50"],
                "accuracy": result["value"],
                "accuracy_se": result["se"],
                "agreement": agreement(result["predictions"], before["predictions"]),
                "vs_predecessor": paired_difference(result["metric"], scores, before["scores"]),
            }
            if step.formats:
                file["correct"] = pack_correct(scores)
    return files, failed


def make_baselines(plan):
    """Makes the cells of the baselines without BERT; they have no seed."""
    chain = {"data_sha256": plan.sha256(None), "method": "majority"}
    if plan.read("majority", 0, chain):
        return
    for row, result in reversed(baselines(plan.dataset)):  # majority, which all have, is last
        facts = {"parameters": row["parameters"], "choice": result["choice"]}
        chain["method"] = row["name"]
        _write(plan, row["name"], 0, result, chain, role="reference", **facts)


def time_engines(plan):
    """Times the graph of one model in LiteRT, ONNX Runtime, TensorFlow and Keras, and adds it to the model's cell. A
    process of its own gives TensorFlow one thread, too."""
    cells = [plan.cell(step) for step in plan.steps if step.name in plan.only]
    plain = [cell for cell in cells if not (cell["role"] or cell["quantized"])]
    plain += [cell for cell in cells if cell["role"] == "predecessor"]
    if not plain or "engines" in plain[0]:
        return
    cell, notes = plain[0], []
    folder = (plan.folder / "models" / cell["method"]).resolve()
    files = sorted(folder.glob("*.tflite"))
    with tempfile.TemporaryDirectory() as place:
        try:
            onnx = plan.export(TaskModel.load(folder), place, ONNX_FORMATS, dev=None)
            files += [Path(file["path"]) for file in onnx]
        except (ImportError, ValueError) as error:
            notes.append(f"Not timed in ONNX Runtime: {error}.")
        command = [sys.executable, "-m", "keras_compress", "benchmark", "--from", folder, "--json"]
        rows = json.loads(subprocess.check_output([*command, *files], cwd=DATA_FOLDER.parent))
    for row, file in itertools.zip_longest(rows, files):  # the last rows are TensorFlow's
        row["name"] = f"{ENGINES[file.suffix]} {file.stem}" if file else row["path"]
    path = plan.path(cell["method"], cell["seed"])
    write_sealed(path, cell | {"engines": rows, "engine_notes": notes})
