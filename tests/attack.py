"""Damages what is read back, and counts what comes of it: python -m tests.attack [--tries N] [TARGET ...]

Each try flips a bit, cuts a file off, deletes it, or writes zeros into it, then reads as a user's command would.
    refused   one clear error: ValueError or OSError        same    nothing differs from what was read before
    LOST      anything else: other content in silence, or a traceback
"""

import argparse
import logging
import shutil
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from keras_compress.bert.task_model import TaskModel
from keras_compress.experiment.compare import read_cells
from keras_compress.experiment.run_folder import open_run
from keras_compress.files import write_sealed
from keras_compress.training.finetune import finetune
from mobile_export.convert import export
from mobile_export.diff import opened
from tests import samples
from tests.bert import tiny
from tests.experiment.cells import cell
from tests.support import TRAINING, data


def damaged(content, random):
    """The bytes after one accident of a disk or a transfer; None: the file is gone."""
    kind, place = random.integers(0, 8), int(random.integers(0, max(len(content), 1)))
    if kind == 0:
        return None
    if kind == 1:
        return content[:place]
    if kind == 2:
        return content[:place] + bytes(min(64, len(content) - place)) + content[place + 64 :]
    flipped = bytearray(content or b"\0")
    flipped[place] ^= 1 << int(random.integers(0, 8))
    return bytes(flipped)


def model_folder(place):
    """A saved model."""
    folder = samples.model(place / "model", tuned=True)

    def read():
        model = TaskModel.load(folder)
        facts = model.labels, model.config, model.history, model.curve, model.metrics
        answers = model.predict(tiny.TEXTS).tobytes()
        return facts, answers, {k: v.tobytes() for k, v in model.weights().items()}

    return folder, read


def exported(place, name="float32"):
    """An exported file with what stands beside it."""
    (row,) = export(tiny.model(), place / "files", [name], sequence_length=16, allow_drift=True)

    def read():
        model = opened(row["path"])
        return model.labels, model.threshold, model.predict(tiny.TEXTS).tobytes()

    return place / "files", read


def cells(place):
    """The cells of a study."""
    (place / "cells").mkdir()
    for seed in range(3):
        one = cell("x", "predecessor", seed, [1, 0, 1, 1])
        write_sealed(place / "cells" / f"{seed}.json", one)
    return place / "cells", lambda: [only(one, found) for found in read_cells(place / "cells")]


def only(known, found):
    """What is read of JSON: a bit that flips in the name of its seal leaves a key that nothing reads."""
    return {key: found.get(key) for key in known}


def run_json(place):
    """run.json of a run that is resumed."""
    _, settings = open_run(place / "run", {"recipe": "theseus", "quick": True, "num_layers": 2})
    (place / "run").mkdir()
    write_sealed(place / "run" / "run.json", settings)

    def read():
        return only(settings, open_run(place / "run", {"recipe": "theseus", "resume": True})[1])

    return place / "run", read


def checkpoints(place):
    """Checkpoints, and best weights, of a training that goes on."""
    folder = place / "checkpoints"
    dataset = data(dev_labels=[2 - k % 3 for k in range(12)])  # dev contradicts train
    training = TRAINING.replace(epochs=3, evaluations=3, patience=3, checkpoint_every=3)
    training = training.replace(folder=str(folder))

    def read():
        tuned = finetune(tiny.model(), dataset, training=training)
        return {name: array.tobytes() for name, array in tuned.weights().items()}, tuned.curve

    read()
    return folder, read


TARGETS = {
    "model folder": (model_folder, 400),
    "float32.tflite": (exported, 700),
    "int8.tflite": (lambda place: exported(place, "int8"), 700),
    "float32.onnx": (lambda place: exported(place, "onnx_float32"), 300),
    "cells": (cells, 300),
    "run.json": (run_json, 250),
    "checkpoints": (checkpoints, 100),
}


def attack(target, tries, seed=0):
    """Counter of "refused", "same" and of what was lost, each with what happened."""
    random, counts = np.random.default_rng(seed), Counter()
    with tempfile.TemporaryDirectory() as place:
        folder, read = target(Path(place))
        whole, backup = read(), Path(place, "backup")
        shutil.copytree(folder, backup)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for _ in range(tries):
            path = files[random.integers(len(files))]
            content = damaged(path.read_bytes(), random)
            if content is None and target is cells:
                content = b""  # who removes a cell wants a report without it
            path.unlink() if content is None else path.write_bytes(content)
            try:
                counts["same" if read() == whole else f"LOST: other content, {path.name}"] += 1
            except (ValueError, OSError) as error:
                named = "\n" not in str(error) and str(folder) in str(error)
                counts["refused" if named else f"LOST: {error!r:.90}"] += 1
            except Exception as error:
                counts[f"LOST: {error!r:.90}"] += 1
            shutil.rmtree(folder)
            shutil.copytree(backup, folder)
    return counts


def main():
    parser = argparse.ArgumentParser(prog="tests.attack")
    parser.add_argument("targets", nargs="*", default=[*TARGETS], help=", ".join(TARGETS))
    parser.add_argument("--tries", type=int, help="of each target (default: its own)")
    options = parser.parse_args()
    logging.disable()
    warnings.simplefilter("ignore")
    for name in options.targets:
        target, tries = TARGETS[name]
        counts = attack(target, options.tries or tries)
        print(f"{name}: {counts.total()} tried, {counts.pop('refused', 0)} refused,", end=" ")
        print(f"{counts.pop('same', 0)} without effect, {counts.total()} lost")
        for lost, number in counts.most_common():
            print(f"    {number} x {lost}")


if __name__ == "__main__":
    main()
