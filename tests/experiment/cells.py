"""Cells made by hand, for the tests of comparisons and reports."""

import numpy as np

from keras_compress.experiment.compare import cell_of
from keras_compress.experiment.report import report_of
from keras_compress.files import write_json

BASELINES = ("plain", "truncated", "spread")


def cell(data, method, seed, correct, **more):
    """A cell of "family-size", or of a step without a size; what the tests' names stand for."""
    family, _, size = method.rpartition("-")
    sized = {"family": family, "size": int(size)} if size.isdigit() else {}
    role = {"predecessor": "predecessor", "control": "control", "majority": "reference"}
    role |= {"tfidf": "reference", **dict.fromkeys(BASELINES, "baseline")}
    correct = np.array(correct, bool)
    result = {"metric": "accuracy", "value": float(correct.mean()), "se": 0.0}
    result |= {"n": len(correct), "scores": correct}
    own = {"role": role.get(family or method), **sized, **more}
    return cell_of(data, method, seed, result, **own)


def report(folder, cells, costs={}, compare=()):
    """The report of these cells, written to a folder."""
    for number, one in enumerate(cells):
        write_json(folder / "cells" / f"{number}.json", one)
    for name, cost in costs.items():
        write_json(folder / "cells" / "costs" / f"{name}.json", cost)
    content = {"name": "mine", "compare": list(compare)}
    write_json(folder / "run.json", {"content": content, "cells": "cells", "spent": 60})
    return report_of(folder)
