"""The README's picture: test accuracy on SST-2 against file size and speed, from the studies' cells.

python -m keras_compress.experiment.overview data/results/overview.png
"""

import functools
import sys
from operator import itemgetter
from pathlib import Path

import matplotlib
import numpy as np

from keras_compress.experiment.plots import REFERENCE, STYLE, apart, new_figure, to_png
from keras_compress.experiment.recipe import read_toml
from keras_compress.experiment.report import report_of
from keras_compress.files import DATA_FOLDER

RESULTS = DATA_FOLDER / "results"


@functools.cache
def rows_of(study):
    """{method: row of a report's `pooled`} on SST-2."""
    return {row["method"]: row for row in report_of(study)["pooled"] if row["data"] == "sst2"}


def point(cell):
    """Figures of "study/method" or of a file, "study/method/format": percent, bytes, None if not measured."""
    study, method, *kinds = cell.split("/")
    row = rows_of(study)[":".join([method, *kinds])]
    # The predecessor is the same model in all studies, and theseus-study timed it.
    costs = rows_of(study)[method]["costs"] or rows_of("theseus-study").get(method, row)["costs"]
    cost = costs.get("".join(kinds) or "float32", row)
    return {
        "accuracy": 100 * row["accuracy"],
        "half_interval": 196 * row["accuracy_se"],
        "bytes": cost["bytes"],
        "times_as_fast": cost.get("times_as_fast"),
    }


def overview():
    """The picture as PNG bytes: filled marks are float models, hollow ones files with fewer bits."""
    what = read_toml(RESULTS / "overview.toml")
    marks = [{**row, **point(cell)} for row in what["points"] for cell in row["cells"]]
    with matplotlib.rc_context({**STYLE, "legend.frameon": False, "legend.fontsize": 9}):
        figure, (sizes, speeds) = new_figure(9, 8.4, rows=2, sharex=False)
        for axes, key, place, gap in (
            (sizes, "bytes", lambda size: np.divide(size, 1e6), 0.9),
            (speeds, "times_as_fast", np.log10, 0.015),
        ):
            shown = sorted((mark for mark in marks if mark[key]), key=itemgetter(key))
            for x, mark in zip(apart(place([mark[key] for mark in shown]), gap), shown):
                look = {"label": mark["label"], "linestyle": "", "linewidth": 1, **mark["style"]}
                axes.errorbar(x, mark["accuracy"], mark["half_interval"], **look)
            axes.axhline(point(what["line"])["accuracy"], **REFERENCE)
            for x, y, text in what["words"][key]:
                axes.text(place(x), y, text, color=REFERENCE["color"], fontsize=9, ha="center")
            axes.set(ylim=(79.8, 91.5), ylabel="test accuracy, %")
        sizes.set(xlim=(0, 96), xlabel="file size, MB")
        speeds.set_xlabel("times as fast as the predecessor's float file, one thread")
        times = [1, 2, 3, 4, 6, 10, 20]
        speeds.set_xticks(np.log10(times), times)
        handles, labels = sizes.get_legend_handles_labels()
        handles, labels = dict(zip(labels, handles)), [row["label"] for row in what["points"]]
        figure.legend(
            [handles[label] for label in labels], labels, loc="outside lower center", ncols=4
        )
        return to_png(figure)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(overview())
