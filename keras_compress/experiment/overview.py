"""The README's picture: test accuracy on SST-2 against file size and speed, from the studies' cells.

python -m keras_compress.experiment.overview data/results/overview.png
"""

import json
import sys
import tomllib
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from keras_compress.experiment.plots import DASHED, GREY, STYLE, to_png

RESULTS = Path(__file__).parents[2] / "data" / "results"
EXAMPLES = 1821  # of SST-2's test set


def point(cell):
    """Figures of "study/method" or of a file, "study/method/format": percent, bytes, None if not measured."""
    study, method, *kinds = cell.split("/")
    paths = (RESULTS / study).glob(f"sst2-{method}-[0-9].json")
    cells, costs = [json.loads(path.read_text()) for path in paths], RESULTS / study / "costs"
    if kinds:
        cells = [next(f for f in cell["files"] if [f["format"]] == kinds) for cell in cells]
    bits = [np.unpackbits(np.frombuffer(bytes.fromhex(c["correct"]), np.uint8)) for c in cells]
    right = np.mean(bits, axis=0)[:EXAMPLES]  # over seeds first, then over test examples
    if kinds == ["int8"] and method == "predecessor":  # the same model, timed there
        costs = RESULTS / "theseus-study" / "costs"
    for path in (costs / f"{method}.json", costs / f"sst2-{method}.json"):
        if path.exists():
            cells = [json.loads(path.read_text())["".join(kinds) or "float32"]]
    half_interval = 1.96 * right.std(ddof=1) / EXAMPLES**0.5
    figures = {key: cells[0].get(key) for key in ("bytes", "times_as_fast")}
    return {"accuracy": 100 * right.mean(), "half_interval": 100 * half_interval, **figures}


def apart(places, gap):
    """Moves places until neighbours are `gap` apart; a crowd stays around its mean."""
    moved, order = np.array(places, float), np.argsort(places, kind="stable")
    for _ in range(1000):
        for a, b in zip(order, order[1:]):
            push = max(gap - moved[b] + moved[a], 0) / 2
            moved[[a, b]] += -push, push
    return moved


def overview():
    """The picture as PNG bytes: filled marks are float models, hollow ones files with fewer bits."""
    what = tomllib.loads((RESULTS / "overview.toml").read_text(encoding="utf-8"))
    marks = [(row, cell, point(cell)) for row in what["points"] for cell in row["cells"]]
    with matplotlib.rc_context({**STYLE, "legend.frameon": False, "legend.fontsize": 9}):
        figure = Figure((9, 8.4), layout="constrained")
        panels = dict(zip(("bytes", "times_as_fast"), figure.subplots(2, 1)))
        for (key, axes), gap in zip(panels.items(), (0.9, 0.015)):
            shown = [mark for mark in marks if mark[2][key]]
            x = np.array([figures[key] for _, _, figures in shown])
            x = apart(x / 1e6, gap) if key == "bytes" else 10 ** apart(np.log10(x), gap)
            for at, (row, cell, figures) in zip(x, shown):
                look = {"color": row["colour"], "marker": row["marker"], "linewidth": 1}
                look["label"] = row["label"] if cell == row["cells"][0] else None
                look["markerfacecolor"] = "white" if cell.count("/") == 2 else row["colour"]
                axes.errorbar(at, figures["accuracy"], figures["half_interval"], ls="", **look)
            axes.axhline(point(what["line"])["accuracy"], color=GREY, linestyle=DASHED, zorder=0)
            for at, y, text in what["words"][key]:
                axes.text(at, y, text, color=GREY, fontsize=9, ha="center")
            axes.set(ylim=(79.8, 91.5), ylabel="test accuracy, %")
        sizes, speeds = panels.values()
        sizes.set(xlim=(0, 96), xlabel="file size, MB")
        speeds.set(xscale="log", xlabel="times as fast as the predecessor's float file, one thread")
        speeds.set_xticks([], minor=True)
        speeds.set_xticks([1, 2, 3, 4, 6, 10, 20], ["1", "2", "3", "4", "6", "10", "20"])
        figure.legend(*sizes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return to_png(figure)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(overview())
