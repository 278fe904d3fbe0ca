"""Results of studies: cells (data, method, seed) in, one row per (data, method) and a table out.

A cell is the dict of one small JSON file. `pool_cells` reads `data`, `method`, `seed`, `metric`, `num_examples` and
`correct` (`accuracy.pack_correct`); `study_cell` makes one. Test examples are the same in every cell of a data set.
A cell's `files` (exported models, each with its own `correct`) become rows of their own, "method:format".
"""

import itertools
import math
import re

import numpy as np

from keras_compress.experiment.recipe import is_trained
from keras_compress.experiment.report import BASELINES, CONTROL, MADE_SET, markdown_table, percent
from keras_compress.measure.accuracy import (
    Z95,
    pack_correct,
    paired_difference,
    unpack_correct,
    value_and_error,
    values,
)

USUAL = ("plain", "truncated")
NO_BASELINE = ("predecessor", "tfidf", "majority")  # are compared with none


def study_cell(data, method, seed, result, **more):
    """A cell from the dict of `accuracy.evaluate` on test; `more`: settings, versions, costs, dev figures."""
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


def pool_cells(cells):
    """One row per (data, method), the mean over seeds.

    The better baseline of `name-K` is whichever of `plain-K`, `truncated-K` and `spread-K` has the higher test mean
    over the seeds shared with it: the strictest choice. Where a study has a step `control`, that is the only baseline.
    The predecessor is shared by all seeds. A model that was made without training is the same for every seed: it is set
    against all seeds of the other side.

    Returns:
        list of dicts: `data`, `method`, `metric`, `accuracy`, `accuracy_se` (over examples), `seed_spread` (standard
        deviation over seeds, None for one), `seeds`, `num_examples`, `by_seed` (list), `parameters`, `bytes` and
        `gzip_bytes` (of a file; the first seed's, or None), `vs_predecessor` and `vs_baseline`: None or the dict of
        `accuracy.paired_difference` with `baseline`, and `pretraining`: None or what `_pretraining` gives.
    """
    scores = _scores(cells)
    metric = {cell["data"]: cell["metric"] for cell in cells}
    sizes = {(cell["data"], cell["method"]): cell for cell in reversed(with_files(cells))}
    rows = []
    for (data, method), by_seed in sorted(
        scores.items(), key=lambda item: (item[0][0], _order(item[0][1]))
    ):
        stacked = np.stack(list(by_seed.values()))
        value, error = value_and_error(metric[data], stacked)
        each = values(metric[data], stacked)
        teacher, pair = (
            scores.get((data, "predecessor")),
            _against_baseline(scores, data, method, metric[data]),
        )
        cells_here = [cell for cell in cells if (cell["data"], cell["method"]) == (data, method)]
        rows.append(
            {
                "data": data,
                "method": method,
                "metric": metric[data],
                "accuracy": value,
                "accuracy_se": error,
                "seed_spread": float(each.std(ddof=1)) if len(each) > 1 else None,
                "seeds": [] if None in by_seed else list(by_seed),
                "num_examples": stacked.shape[1],
                "by_seed": each.tolist(),
                **{
                    key: sizes[data, method].get(key)
                    for key in ("bytes", "gzip_bytes", "parameters")
                },
                "vs_predecessor": None
                if method == "predecessor" or not teacher
                else {
                    "baseline": "predecessor",
                    **paired_difference(metric[data], stacked, np.stack(list(teacher.values()))),
                },
                "vs_baseline": pair
                and {"baseline": pair[0], **paired_difference(metric[data], *pair[1:])},
                "pretraining": _pretraining(cells_here),
            }
        )
    return rows


def pool_differences(cells, family, baselines=None):
    """`family`-K, or a method of that very name, minus the best of some baselines, pooled over all sizes and data sets.

    `baselines` are names of the same two kinds; default: as in `pool_cells`.

    Within a data set the sizes share examples, so they are averaged per example; data sets are independent, each
    counts the same: se^2 = sum of their se^2 / (number of sets)^2.

    Returns:
        dict: `difference`, `low`, `high`, `se`, `by_set` ({data: dict of `accuracy.paired_difference`}), `by_seed` (the
        difference for each seed, as far as all pairs have it); None if there is nothing to pool.
    """
    scores, by_set, by_seed = _scores(cells), {}, []
    metric = {cell["data"]: cell["metric"] for cell in cells}
    for data in sorted(metric):
        pairs = [
            _against_baseline(scores, data, method, metric[data], baselines)
            for where, method in sorted(scores)
            if where == data and re.fullmatch(rf"{re.escape(family)}(-\d+)?", method)
        ]
        pairs = [pair[1:] for pair in pairs if pair]
        if pairs:
            rows = math.lcm(
                *(len(ours) for ours, _ in pairs)
            )  # a size counts the same, however many seeds
            sides = zip(
                *([np.repeat(side, rows // len(side), axis=0) for side in pair] for pair in pairs)
            )
            by_set[data] = paired_difference(metric[data], *map(np.concatenate, sides))
            each = [
                values(metric[data], ours) - values(metric[data], theirs) for ours, theirs in pairs
            ]
            by_seed.append([np.mean(row) for row in zip(*each)])
    if not by_set:
        return None
    difference = sum(one["difference"] for one in by_set.values()) / len(by_set)
    error = sum(one["se"] ** 2 for one in by_set.values()) ** 0.5 / len(by_set)
    return {
        "difference": difference,
        "low": difference - Z95 * error,
        "high": difference + Z95 * error,
        "se": error,
        "by_set": by_set,
        "by_seed": [float(np.mean(row)) for row in zip(*by_seed)],
    }


def study_table(cells, costs=None, compare=()):
    """The Markdown table of a study, and below it what is pooled over data sets and sizes: each method minus its better
    baseline, and a variant, `<method>-<variant>-K`, minus `<method>-K`.

    Args:
        costs: dict of `study.read_costs`; None: no columns of size and speed.
        compare: of the recipe: ["some-step minus another", ..], pooled over data sets, too.
    """
    pooled, names = (
        pool_cells(cells),
        [
            "data",
            "method",
            "test, % ± SE",
            "SD of seeds",
            "minus the better baseline [95 %]",
            "minus predecessor [95 %]",
            "seeds",
            "examples",
        ],
    )
    rows = [
        [
            row["data"],
            row["method"],
            percent(row["accuracy"], row["accuracy_se"]),
            "–" if row["seed_spread"] is None else f"{100 * row['seed_spread']:.1f}",
            _difference(row["vs_baseline"]),
            _difference(row["vs_predecessor"], name=False),
            ", ".join(map(str, row["seeds"])) or "–",
            row["num_examples"],
        ]
        for row in pooled
    ]
    if costs:
        names += ["MB float / int8", "times as fast float / int8"]
        for row, facts in zip(rows, pooled):
            cost = costs.get(f"{facts['data']}-{facts['method']}", costs.get(facts["method"]))
            row += [_both(cost, "bytes", 1e-6, ".1f"), _both(cost, "times_as_fast", 1, ".2f")]
    if any(row["bytes"] for row in pooled):
        names += ["file, MB", "gzip, MB"]
        for row, facts in zip(rows, pooled):
            row += [
                f"{facts[key] / 1e6:.2f}" if facts[key] else "–" for key in ("bytes", "gzip_bytes")
            ]
    if any(row["pretraining"] for row in pooled):
        names += [
            "parameters",
            "masked words, dev %",
            "sentences, dev % ± SE",
            "by length alone, %",
        ]
        for row, facts in zip(rows, pooled):
            made = {"parameters": facts["parameters"], **(facts["pretraining"] or {})}
            parameters, words, sentences, length = (
                f"{made[key]:{form}}".rstrip("%") if made.get(key) is not None else "–"
                for key, form in (
                    ("parameters", ",.0f"),
                    ("dev", ".1%"),
                    ("sentence_accuracy", ".1%"),
                    ("sentence_by_length", ".1%"),
                )
            )
            row += [
                parameters,
                words,
                sentences + (f" ± {100 * made['sentence_se']:.1f}" if sentences != "–" else ""),
                length,
            ]
    lines = [
        markdown_table(names, rows),
        "",
        "Mean over seeds. SE and intervals are over test examples (paired, averaged over seeds first).",
    ]
    if costs:
        one = next(iter(costs.values()))
        lines.append(
            f"Times as fast: median latency of the predecessor's float file over this file's, both measured "
            f"in one process; {one['device']}, {one['threads']} thread, batch 1, {one['sequence_length']} "
            "pieces."
        )
    if any(cell["metric"] == "entity_f1" for cell in cells):
        lines.append("Tagging sets: entity F1, bootstrap over sentences.")
    if any(cell["data"].startswith("assistant") for cell in cells):
        lines.append(MADE_SET)
    methods = {cell["method"] for cell in with_files(cells)}
    families = {method.rpartition("-")[0] for method in methods if re.fullmatch(r".+-\d+", method)}
    asked = (
        _against_control(methods)
        if CONTROL in methods
        else [
            (family, baselines)
            for family in sorted(families - set(BASELINES))
            for baselines in ((USUAL, BASELINES) if families >= {*BASELINES} else (USUAL,))
        ]
    )
    for name, baselines in asked:
        pooled = pool_differences(cells, name, baselines)
        if pooled:
            other, sizes = (
                (f"the better of {', '.join(baselines)}", " and all sizes")
                if len(baselines) > 1
                else (*baselines, "")
            )
            number = len(pooled["by_set"])
            lines.append(
                f"{name} minus {other}, pooled over {number} data set{'s' * (number > 1)}{sizes}: "
                f"{_pooled(pooled)}."
            )
    for family in sorted(families):
        base = next((other for other in families if family.startswith(other + "-")), None)
        pooled = base and pool_differences(cells, family, (base,))
        if pooled:
            lines.append(
                f"{family} minus {base}, the same seeds, data sets and sizes: {_pooled(pooled)}."
            )
    for pair in compare:
        one, other = pair.split(" minus ")
        pooled = pool_differences(cells, one, (other,))
        if pooled:
            lines.append(f"{pair}, the same seeds and data sets: {_pooled(pooled)}.")
    return "\n".join(lines) + "\n"


def study_picture(cells):
    """PNG bytes: the methods of each data set with 95 % intervals; small marks are single seeds."""
    import matplotlib

    from keras_compress.experiment.plots import GREY, PALE, STYLE, look, new_figure, to_png

    rows = [row for row in pool_cells(cells) if row["method"] != "majority"]
    names = sorted({row["data"] for row in rows})
    with matplotlib.rc_context(STYLE):
        tallest = max(sum(row["data"] == name for row in rows) for name in names)
        figure, panels = new_figure(4.6 * len(names), 1.2 + 0.32 * tallest, columns=len(names))
        for axes, name in zip(panels, names):
            here = [row for row in rows if row["data"] == name]
            for place, row in enumerate(here):
                model = row["method"].partition(":")[0]
                colour, marker, _ = look(model) if model != "tfidf" else (GREY, "D", "")
                axes.plot(
                    np.multiply(100, row["by_seed"]),
                    [place] * len(row["by_seed"]),
                    "|",
                    color=colour,
                    alpha=0.6,
                    markersize=9,
                )
                axes.errorbar(
                    100 * row["accuracy"],
                    place,
                    xerr=196 * row["accuracy_se"],
                    color=colour,
                    marker=marker,
                    markersize=6,
                    linewidth=1.2,
                )
                if place and _order(row["method"])[0] != _order(here[place - 1]["method"])[0]:
                    axes.axhline(place - 0.5, color=PALE, linewidth=0.8)
            axes.set_yticks(range(len(here)), [row["method"] for row in here])
            axes.set_ylim(len(here) - 0.4, -0.6)
            axes.grid(False, axis="y")
            axes.set_xlabel(
                "test entity F1, %" if here[0]["metric"] == "entity_f1" else "test accuracy, %"
            )
            axes.set_title(
                f"{name} ({here[0]['num_examples']:,} examples)",
                fontsize=10,
                loc="left",
                weight="bold",
            )
        return to_png(figure)


def curves_picture(cells):
    """PNG bytes: how pre-training went on dev, the mean over seeds; None if no cell came from it. A family, the first
    word of a name, has one colour; grey lines: what the lengths of the segments alone tell."""
    import matplotlib

    from keras_compress.experiment.plots import ACCENT, GREY, INK, STYLE, curves_figure, to_png

    found = {row["method"]: row["pretraining"] for row in pool_cells(cells) if row["pretraining"]}
    families = {}
    for name in found:
        families.setdefault(name.partition("-")[0], []).append(name)
    looks = {
        name: (colour, marker, dashes)
        for colour, names in zip(itertools.cycle((INK, ACCENT)), families.values())
        for name, marker, dashes in zip(
            names, itertools.cycle("os^vPD"), itertools.cycle(("-", "--", ":", "-."))
        )
    }
    with matplotlib.rc_context(STYLE):
        figure = curves_figure(
            {name: made["curve"] for name, made in found.items()},
            height=7.2,
            looks=looks.get,
            panels=[("dev", "masked words, dev %", 100), ("dev_sentence", "sentences, dev %", 100)],
        )
        for share in {made["sentence_by_length"] for made in found.values()} - {None}:
            figure.axes[-1].axhline(
                100 * share, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0
            )
        return figure and to_png(figure)


def with_files(cells):
    """The cells, and one more for each exported file in them."""
    return [
        *cells,
        *(
            {**cell, **file, "method": f"{cell['method']}:{file['format']}"}
            for cell in cells
            for file in cell.get("files", ())
        ),
    ]


def _scores(cells):
    """{(data, method): {seed: scores}}, seeds in order; the seed of what was made without training is None."""
    scores = {}
    for cell in sorted(with_files(cells), key=lambda cell: cell["seed"]):
        by_seed = scores.setdefault((cell["data"], cell["method"]), {})
        by_seed[_seed(cell)] = unpack_correct(cell["correct"], cell["num_examples"])
    return scores


def _seed(cell):
    """A cell's seed; None if its step trains nothing, so that seeds do not change it."""
    return None if "steps" in cell and not is_trained(cell["steps"][-1]) else cell["seed"]


def _against_baseline(scores, data, method, metric, baselines=None):
    """(name of the better baseline, scores of the method, scores of the baseline) on the seeds they share, or None."""
    family, _, size = method.rpartition("-")
    names = (
        []
        if family in BASELINES
        else [
            name
            for baseline in baselines or BASELINES
            for name in (baseline, f"{baseline}-{size}")
            if name != method
        ]
    )
    if baselines is None and (data, CONTROL) in scores:
        names = [] if method == CONTROL or method.startswith(NO_BASELINE) else [CONTROL]
    ours, pairs = scores[data, method], []
    for name in names:
        theirs = scores.get((data, name), {})
        shared = [
            (mine, other)
            for mine in ours
            for other in theirs
            if mine == other or None in (mine, other)
        ]
        if shared:
            both = (
                np.stack(side)
                for side in zip(*((ours[mine], theirs[other]) for mine, other in shared))
            )
            pairs.append((name, *both))
    return max(pairs, key=lambda pair: values(metric, pair[2]).mean(), default=None)


def _against_control(methods):
    """[(method, (what it is set against,))] of a study with a control: the control, and for a file the control's file
    of that format, too. The files of a model stand for the model."""
    files = {method for method in methods if ":" in method and not method.startswith(NO_BASELINE)}
    models = {method for method in methods if ":" not in method} - {
        file.partition(":")[0] for file in files
    }
    pairs = [(method, (CONTROL,)) for method in (models | files) - {CONTROL, *NO_BASELINE}]
    return sorted(
        pairs
        + [
            (file, (rounded,))
            for file in files
            for rounded in files
            if rounded == f"{CONTROL}:{file.partition(':')[2]}" != file
        ]
    )


def _pretraining(cells):
    """What the models of some cells brought along from `pretraining.pretrain`, the mean over them; None if nothing.

    Returns:
        dict: `sentence_accuracy`, `sentence_se` (over the pairs of all seeds), `sentence_by_length` (None where none has
        it), `dev` (masked words guessed, 0-1), `curve` (list of dicts: `step`, `dev` and, for sentence tasks,
        `dev_sentence`).
    """
    found = [
        entry
        for cell in cells
        for entry in cell.get("settings", ())
        if entry.get("method") == "pretrain"
    ]
    if not found:
        return None
    curve = [
        {
            key: float(np.mean([row[key] for row in rows]))
            for key in ("step", "dev", "dev_sentence")
            if key in rows[0]
        }
        for rows in zip(*(entry["curve"] for entry in found))
    ]
    asked = [entry for entry in found if entry["sentence_accuracy"] is not None]
    means = {
        key: float(np.mean([entry[key] for entry in asked])) if asked else None
        for key in ("sentence_accuracy", "sentence_by_length")
    }
    right = means["sentence_accuracy"]
    error = (
        math.sqrt(right * (1 - right) / sum(entry["sentence_pairs"] for entry in asked))
        if asked
        else None
    )
    return {
        **means,
        "sentence_se": error,
        "dev": curve[-1]["dev"] if curve else None,
        "curve": curve,
    }


def _order(method):
    """Predecessor, then by size (large first), methods before baselines; TF-IDF and majority last."""
    family, _, size = method.partition(":")[0].rpartition("-")  # files beside their model
    size = (
        int(size)
        if size.isdigit()
        else {"predecessor": 10**9, "tfidf": -1, "majority": -2}.get(size, 0)
    )
    return -size, family in BASELINES, method


def _pooled(pooled):
    seeds, sets = ", ".join(f"{100 * value:+.1f}" for value in pooled["by_seed"]), pooled["by_set"]
    each = (
        ", ".join(f"{data} {_difference(pair, name=False)}" for data, pair in sets.items())
        if len(sets) > 1
        else ""
    )
    return f"{_difference(pooled, name=False)}, SE {100 * pooled['se']:.2f}; seed by seed {seeds}{each and '; '}{each}"


def _both(cost, key, factor, form):
    return (
        "–"
        if cost is None
        else " / ".join(f"{cost[kind][key] * factor:{form}}" for kind in ("float32", "int8"))
    )


def _difference(pair, name=True):
    if pair is None:
        return "–"
    low, high = 100 * pair["low"], 100 * pair["high"]
    return f"{100 * pair['difference']:+.1f} [{low:+.1f}, {high:+.1f}]" + (
        f" ({pair['baseline']})" if name else ""
    )
