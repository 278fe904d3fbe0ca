"""Cells in, comparisons out: one row per (data, method), differences pooled over data sets and sizes.

A cell is the dict of one small JSON file; `cell_of` makes one. Test examples are the same in every cell
of a data set, and `correct` says which were right (`accuracy.pack_correct`).
A cell's files with a `correct` of their own become rows, too: "method:format".
What is set against what follows from `role`, `family` and `size` of the cells.
"""

import itertools
import math
from operator import itemgetter
from pathlib import Path

import numpy as np

from keras_compress.experiment.kinds import check_cell
from keras_compress.experiment.recipe import compared
from keras_compress.files import read_json
from keras_compress.measure.accuracy import (
    METRICS,
    Z95,
    pack_correct,
    paired_difference,
    unpack_correct,
    value_and_error,
    values,
)

KEYS = "data method metric role family size parameters bytes gzip_bytes".split()


def metric_name(rows):
    """What `accuracy` holds, in words: the metric of tagging if any row is of tagging."""
    measured = {row["metric"]: METRICS[row["metric"]] for row in rows}
    return next((name for metric, name in measured.items() if metric != "accuracy"), "accuracy")


def cell_of(data, method, seed, result, **more):
    """A cell from the dict of `accuracy.evaluate` on test."""
    return {
        "data": data,
        "method": method,
        "seed": seed,
        "metric": result["metric"],
        "accuracy": result["value"],
        "accuracy_se": result["se"],
        "num_examples": result["n"],
        "correct": pack_correct(result["scores"]),
        **more,
    }


def read_cells(folder):
    """All cells in a folder, as dicts. Raises ValueError on a JSON file that is no cell."""
    cells = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            cell = read_json(path)
            cell["data"], cell["method"], cell["metric"], cell["seed"]
            check_cell(cell)
            unpack_correct(cell["correct"], cell["num_examples"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: a folder of results must hold cells alone. Received a file that is none "
                f"({error!r}). Move it away."
            ) from error
        cells.append(cell)
    return cells


def cost_of(cell, costs):
    """{format: facts of that file with `bytes` and `times_as_fast`} of a cell's model.

    `costs`: {method, or <data>-<method>: sizes and times} that earlier studies wrote beside their cells.
    """
    own = {file["format"]: file for file in cell.get("files", ()) if "times_as_fast" in file}
    cost = costs.get(f"{cell['data']}-{cell['method']}", costs.get(cell["method"], {}))
    return own or {name: {**cost, **cost[name]} for name in ("float32", "int8") if name in cost}


def entries_of(cells):
    """One dict per (data, method), in the table's order: all of KEYS, what its first cell holds,
    `cells`, `scores` and `file`, which says whether it is a file of a cell (these have no family).

    `scores` is {seed: scores}; the seed of what was made without training is None: it is set against
    all seeds of the other side.
    """
    files = [
        {
            **cell,
            **file,
            "num_examples": cell["num_examples"],  # the file's own counts the texts of its check
            "method": f"{cell['method']}:{file['format']}",
            "family": None,
            "file": True,
        }
        for cell in cells
        for file in cell.get("files", ())
        if "correct" in file
    ]
    entries = {}
    for cell in sorted([*cells, *files], key=itemgetter("seed")):
        new = {**dict.fromkeys(KEYS), "file": False, **cell, "scores": {}, "cells": []}
        entry = entries.setdefault((cell["data"], cell["method"]), new)
        seed = cell["seed"] if cell.get("trained", True) else None
        entry["scores"][seed] = unpack_correct(cell["correct"], cell["num_examples"])
        entry["cells"].append(cell)
    return sorted(entries.values(), key=_order)


def _order(entry):
    """Predecessor, then by size, large first, methods before baselines; last what knows no BERT."""
    group = {"predecessor": 0, "reference": 2}.get(entry["role"], 1)
    last = entry["role"] == "baseline" or entry["method"] == "majority"
    return entry["data"], group, -(entry["size"] or 0), last, entry["method"]


def rivals_of(entry, entries):
    """What an entry must beat: the control where there is one, else the baselines of its size."""
    if entry["role"] in ("predecessor", "reference"):
        return []
    models = [e for e in entries if e["data"] == entry["data"] and not e["file"]]
    control = [e for e in models if e["role"] == "control"]
    if control or entry["role"] or entry["size"] is None:
        return control
    return [e for e in models if e["role"] == "baseline" and e["size"] == entry["size"]]


def named(entries, labels, like=None):
    """The entries of some methods or families; of families only those of the size of `like`."""
    return [
        entry
        for label in labels
        for entry in entries
        if entry["method"] == label
        or (entry["family"] == label and (not like or entry["size"] == like["size"]))
    ]


def best_of(entry, others):
    """(name, scores of the entry, scores of the other) for the other with the best mean on the seeds
    that both have, or None."""
    pairs = []
    for other in others:
        every = other["role"] == "predecessor"  # its one seed stands for all
        shared = [
            (ours, theirs)
            for seed, ours in entry["scores"].items()
            for one, theirs in other["scores"].items()
            if every or seed == one or None in (seed, one)
        ]
        if shared and other["data"] == entry["data"] and other is not entry:
            pairs.append((other["method"], *map(np.stack, zip(*shared))))
    return max(pairs, key=lambda pair: values(entry["metric"], pair[2]).mean(), default=None)


def difference_of(entry, others):
    """The dict of `accuracy.paired_difference` against the best of some others, with `baseline`."""
    pair = best_of(entry, others)
    return pair and {"baseline": pair[0], **paired_difference(entry["metric"], *pair[1:])}


def pool_cells(entries, costs={}):
    """One row per entry, the mean over seeds.

    Returns:
        list of dicts: KEYS (`bytes` and `gzip_bytes` of a file; the first seed's, or None), `accuracy`,
        `accuracy_se` (over examples), `seed_spread` (standard deviation over seeds, None for one),
        `seeds`, `num_examples`, `by_seed` (list), `vs_predecessor` and `vs_baseline`: None or the dict
        of `difference_of`, `pretraining`: None or what `pretraining_of` gives, `costs`: of `cost_of`.
    """
    rows = []
    first = [e for e in entries if e["role"] == "predecessor" and not e["file"]]
    for entry in entries:
        scores = np.stack(list(entry["scores"].values()))
        each = values(entry["metric"], scores)
        accuracy, error = value_and_error(entry["metric"], scores)
        rows.append(
            {
                **{key: entry[key] for key in KEYS},
                "accuracy": accuracy,
                "accuracy_se": error,
                "seed_spread": float(each.std(ddof=1)) if len(each) > 1 else None,
                "seeds": [seed for seed in entry["scores"] if seed is not None],
                "num_examples": entry["num_examples"],
                "by_seed": each.tolist(),
                "vs_predecessor": difference_of(entry, first),
                "vs_baseline": difference_of(entry, rivals_of(entry, entries)),
                "pretraining": None if entry["file"] else pretraining_of(entry["cells"]),
                "costs": {} if entry["file"] else cost_of(entry, costs),
            }
        )
    return rows


def pretraining_of(cells):
    """What the models of some cells brought along from `pretrain`, the mean over them, or None.

    Returns:
        dict: `sentence_accuracy`, `sentence_se` (over the pairs of all seeds), `sentence_by_length`
        (None where none has it), `dev` (masked words guessed, 0-1), `curve` (list of dicts: `step`,
        `dev` and, for sentence tasks, `dev_sentence`).
    """
    made = [step for c in cells for step in c.get("settings", ()) if "sentence_accuracy" in step]
    if not made:
        return None

    def mean(rows, key):
        return float(np.mean([row[key] for row in rows])) if rows and key in rows[0] else None

    curve = [
        {key: mean(rows, key) for key in ("step", "dev", "dev_sentence") if key in rows[0]}
        for rows in zip(*(step["curve"] for step in made))
    ]
    told = [step for step in made if step["sentence_accuracy"] is not None]
    right = mean(told, "sentence_accuracy")
    pairs = sum(step["sentence_pairs"] for step in told)
    return {
        "sentence_accuracy": right,
        "sentence_by_length": mean(told, "sentence_by_length"),
        "sentence_se": math.sqrt(right * (1 - right) / pairs) if told else None,
        "dev": curve[-1]["dev"] if curve else None,
        "curve": curve,
    }


def pool(entries, left, right):
    """A method, or all sizes of a family, minus the better of some others, pooled.

    Within a data set the sizes share examples, so they are averaged per example; data sets are
    independent, each counts the same: se^2 = sum of their se^2 / (number of sets)^2.

    Returns:
        dict: `difference`, `low`, `high`, `se`, `by_set` ({data: dict of `accuracy.paired_difference`}),
        `by_seed` (for each seed, as far as all pairs have it); None if there is nothing to pool.
    """
    by_set, by_seed = {}, []
    for data, group in itertools.groupby(entries, itemgetter("data")):
        here = [*group]
        metric = here[0]["metric"]
        pairs = [best_of(entry, named(here, right, entry)) for entry in named(here, [left])]
        pairs = [pair[1:] for pair in pairs if pair]
        if pairs:
            # A size counts the same, however many seeds it has.
            rows = math.lcm(*(len(ours) for ours, _ in pairs))
            sides = zip(*([np.repeat(s, rows // len(s), axis=0) for s in pair] for pair in pairs))
            by_set[data] = paired_difference(metric, *map(np.concatenate, sides))
            each = [values(metric, ours) - values(metric, theirs) for ours, theirs in pairs]
            by_seed.append([np.mean(row) for row in zip(*each)])
    if not by_set:
        return None
    difference = sum(pair["difference"] for pair in by_set.values()) / len(by_set)
    error = sum(pair["se"] ** 2 for pair in by_set.values()) ** 0.5 / len(by_set)
    return {
        "difference": difference,
        "low": difference - Z95 * error,
        "high": difference + Z95 * error,
        "se": error,
        "by_set": by_set,
        "by_seed": [float(np.mean(row)) for row in zip(*by_seed)],
    }


def pooled_differences(entries, compare=()):
    """[(text, dict of `pool`)]: what is set against what, pooled over data sets.

    Where there is a control, each model is set against it, and a file against the control's file of
    that format, too; the files of a model stand for the model. `compare`: of the recipe.
    """
    compressed = [e for e in entries if e["role"] not in ("predecessor", "reference")]
    methods = sorted({e["method"] for e in compressed})
    families = sorted({e["family"] for e in compressed if e["family"] and not e["role"]})
    stand = {method.partition(":")[0] for method in methods if ":" in method}
    asked = [compared(pair) for pair in compare]
    lines = [
        (name, [other], ", pooled over {} data set{}")
        for control in {e["method"] for e in compressed if e["role"] == "control" and not e["file"]}
        for name in methods
        for other in (control, f"{control}:{name.partition(':')[2]}")
        if other in methods and name not in (other, control, *stand)
    ]
    each = [[name, *right] for name in families for left, *right in asked if left == "each"]
    for name, *right in each + [pair for pair in asked if pair[0] != "each"]:
        how = ", the same seeds, data sets and sizes"
        how = how if name in families else ", the same seeds and data sets"
        how = how if len(right) == 1 else ", pooled over {} data set{} and all sizes"
        lines.append((name, right, how))
    result = []
    for name, right, how in lines:
        pooled = pool(entries, name, right)
        if pooled:
            number = len(pooled["by_set"])
            other = "the better of " * (len(right) > 1) + ", ".join(right)
            text = f"{name} minus {other}{how}".format(number, "s" * (number > 1))
            result.append((text, pooled))
    return result
