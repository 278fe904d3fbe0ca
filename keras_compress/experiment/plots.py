"""The pictures of a report, as PNG bytes. The predecessor is black, compressed models are coloured,
controls and baselines grey; a family has one colour, one mark and one kind of line."""

import io
import itertools
import logging
from operator import itemgetter

import matplotlib
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from scipy.optimize import isotonic_regression

from keras_compress.experiment.compare import metric_name
from keras_compress.experiment.words import WORDS

log = logging.getLogger(__name__)
STYLE = WORDS["style"]
INK, GREY = STYLE["text.color"], STYLE["axes.edgecolor"]
PALE, ACCENT = "#d9dee4", "#0b63c5"
MAX_CLASSES = 24  # of the confusion picture
DASHED = (0, (4, 3))
REFERENCE = {"color": GREY, "linewidth": 1, "linestyle": DASHED, "zorder": 0}
COLOURS = {"predecessor": [INK], None: [ACCENT, "#d1432b", "#14803c", "#8a3fb5"]}
SHAPES = [*zip("os^vPD", ("-", "--", ":", "-.", "-", "--"))]


def looks(rows):
    """{model: its colour, marker and line style, as `plot` takes them} by role and family."""
    look, numbers = {}, {}
    for row in rows:
        colours = COLOURS.get(row["role"], [GREY])
        family = row["role"], row["family"] or row["method"].partition(":")[0]
        number = numbers.setdefault(family, sum(role == row["role"] for role, _ in numbers))
        marker, line = SHAPES[number % len(SHAPES)]
        colour = colours[number % len(colours)]
        look[row["method"]] = {"color": colour, "marker": marker, "linestyle": line}
    return look


def pictures(report):
    """List of (file name, title, caption, PNG bytes); a picture without data is left out."""
    rows, confusion = report["pooled"], report["confusion"]
    metric, look = metric_name(rows), looks(rows)
    sets = sorted({row["data"] for row in rows})
    models = {data: [m for m in report["models"] if m["data"] == data] for data in sets}
    curves, rates = own_rows(report["curves"]), {"replacing_rate": "replacing rate"}
    losses = {"loss": "loss", "dev": f"dev {metric}, %"}
    facts, result = {"metric": metric, "confusion": confusion}, []
    with matplotlib.rc_context(STYLE):
        drawn = [
            (f"accuracy_{axis}", data * (len(sets) > 1), _scatter, models[data], axis, metric, look)
            for data in sets
            for axis in AXES
        ]
        drawn += [
            ("intervals", "", _intervals, rows, look),
            ("curves", "", curves_figure, curves, losses, look),
            ("replacing_rate", "", curves_figure, curves, rates, look),
            ("pretraining", "", _pretraining, rows),
            ("confusion", "", _confusion, *(confusion or {"labels": [], "matrix": []}).values()),
        ]
        for name, data, draw, *given in drawn:
            try:
                figure = draw(*given)
                png = to_png(figure) if figure else None
            except Exception as error:  # of matplotlib, on a text or figure that nobody thought of
                log.warning("warning: the picture %s is left out: %r", name, error)
                continue
            if png:
                words = {key: text.format(**facts) for key, text in WORDS["picture"][name].items()}
                title = ", ".join(filter(None, [words["title"], data]))
                result.append(("-".join(filter(None, [name, data])), title, words["caption"], png))
    return result


AXES = {  # {name: (label, model or file -> value or 0)}
    "size": ("file size, MB", lambda row: (row.get("file_bytes", row.get("bytes")) or 0) / 1e6),
    "latency": ("time, of the predecessor's", lambda row: 1 / (row["times_as_fast"] or np.inf)),
}


def new_figure(width, height, rows=1, columns=1, sharex=False):
    """(figure, array of axes), without the global state of pyplot."""
    figure = Figure((width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex).ravel()


def to_png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _scatter(models, axis, metric, look):
    label, value_of = AXES[axis]
    points = [model for model in models if value_of(model)]
    if not points:
        return None
    figure, (axes,) = new_figure(5.2, max(3.6, 0.24 * len(points)))
    names = []
    for model in points:
        x, y, mark = value_of(model), 100 * model["accuracy"], look[model["name"]]
        axes.errorbar(x, y, 196 * model["accuracy_se"], **mark, markersize=7, elinewidth=0.5)
        names.append((x, y, model["name"], mark["color"]))
        for file in model["files"]:
            if file["format"] == "int8" and value_of(file) and file["accuracy"]:
                hollow = {"markevery": [1], "markerfacecolor": "white", "linewidth": 0.5}
                axes.plot([x, value_of(file)], [y, 100 * file["accuracy"]], **mark, **hollow)
    axes.set_xlim(0)
    low, high = axes.get_ylim()
    references = {m["name"]: 100 * m["accuracy"] for m in models if m["role"] == "reference"}
    for value in references.values():
        if 2 * low - high <= value <= 2 * high - low:  # others would squeeze all else
            axes.axhline(value, **REFERENCE)
    told = [f"{name} {value:.1f} %" for name, value in references.items()]
    axes.set_xlabel(f"{label}\ndashed: {', '.join(told) or 'none'}")
    axes.set_ylabel(f"{metric}, %")
    _name(axes, names)
    return figure


def own_rows(curves):
    """The rows of each model without those inherited from the first, its stages laid end to end."""
    inherited, result = [], {}
    for name, rows in curves.items():
        offset, last, result[name] = 0, {}, []
        for row in rows:
            if row in inherited:
                continue
            if last and row.get("stage") != last.get("stage"):
                offset += last["step"]
            last = row
            result[name].append({**row, "step": offset + row["step"]})
        inherited = inherited or rows
    return result


def curves_figure(curves, labels, looks, height=3.6):
    """A figure with one panel for each key of which there is data; every line named at its end.

    Args:
        curves: {name: rows of step and keys}. labels: {key: label}; one with a % sign is in percent.
        looks: {name: `style`}.
    """

    def known(rows, key):
        return [(row["step"], row[key]) for row in rows if row.get(key) is not None]

    panels = [key for key in labels if any(known(rows, key) for rows in curves.values())]
    if not panels:
        return None
    figure, all_axes = new_figure(4.8, height, len(panels), sharex=True)
    for axes, key in zip(all_axes, panels):
        ends = []
        for name, rows in curves.items():
            if known(rows, key):
                x, y = np.transpose(known(rows, key)) * [[1], [100 if "%" in labels[key] else 1]]
                marker = looks[name]["marker"] if key.startswith("dev") else None
                axes.plot(x, y, **{**looks[name], "marker": marker}, markersize=3.5)
                ends.append((x[-1], y[-1], name, looks[name]["color"]))
        axes.set_ylabel(labels[key])
        axes.margins(x=0.02, y=0.08)
        _name(axes, ends)
    all_axes[-1].set_xlabel("update")
    return figure


def apart(places, gap, low=-np.inf, high=np.inf):
    """The places nearest to these, in ascending order, that are `gap` apart and within two bounds."""
    steps = gap * np.arange(len(places))
    moved = isotonic_regression(np.asarray(places) - steps).x + steps
    return np.clip(moved, low + steps, high - steps[::-1])


def _name(axes, points):
    """Writes the names of (x, y, name, colour) to the right of the axes, in the order of y, and draws
    a line from each to its point."""
    low, high = axes.get_ylim()
    points = sorted(points, key=itemgetter(1))
    gap = 0.18 * axes.figure.dpi / axes.bbox.height  # 0.18 inches, as a share of the axes' height
    levels = apart([(y - low) / (high - low) for _, y, _, _ in points], gap, 0, 1)
    for level, (x, y, name, colour) in zip(levels, points):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5}
        line["relpos"] = 0, 0.5  # from the middle of the name's left side
        look = {"color": colour, "fontsize": 8.5, "va": "center", "annotation_clip": False}
        place = {"xytext": (1.04, level), "textcoords": "axes fraction"}
        axes.annotate(name, (x, y), **place, **look, arrowprops=line)


def _intervals(rows, look):
    """The methods of each data set with 95 % intervals; small marks are single seeds."""
    rows = [row for row in rows if row["method"] != "majority"]
    sets = [[*group] for _, group in itertools.groupby(rows, itemgetter("data"))]
    if not sets:
        return None
    height = 1.2 + 0.32 * max(map(len, sets))
    figure, panels = new_figure(4.6 * len(sets), height, columns=len(sets))
    for axes, here in zip(panels, sets):
        for place, row in enumerate(here):
            mark, each = look[row["method"]], np.multiply(100, row["by_seed"])
            axes.plot(each, [place] * len(each), "|", color=mark["color"], alpha=0.6, markersize=9)
            axes.errorbar(100 * row["accuracy"], place, xerr=196 * row["accuracy_se"], **mark)
            if place and row["size"] != here[place - 1]["size"]:
                axes.axhline(place - 0.5, color=PALE, linewidth=0.8)
        axes.set(yticks=range(len(here)), yticklabels=[row["method"] for row in here])
        axes.set(ylim=(len(here) - 0.4, -0.6), xlabel=f"test {metric_name(here)}, %")
        axes.grid(False, axis="y")
        title = f"{here[0]['data']} ({here[0]['num_examples']:,} examples)"
        axes.set_title(title, fontsize=10, loc="left", weight="bold")
    return figure


def _pretraining(rows):
    """How pre-training went on dev; None if no cell came from it."""
    rows = [row for row in rows if row["pretraining"]]
    figure = curves_figure(
        {row["method"]: row["pretraining"]["curve"] for row in rows},
        {"dev": "masked words, dev %", "dev_sentence": "sentences, dev %"},
        looks(rows),
        height=7.2,
    )
    for share in {row["pretraining"]["sentence_by_length"] for row in rows} - {None}:
        figure.axes[-1].axhline(100 * share, **REFERENCE)
    return figure


def _confusion(labels, matrix, model=None):
    """The classes that have most errors, at most `MAX_CLASSES`; in percent of a row."""
    from sklearn.metrics import ConfusionMatrixDisplay

    if not labels:
        return None
    matrix = np.array(matrix)
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    chosen = np.sort(np.argsort(-errors, kind="stable")[:MAX_CLASSES])
    percent = 100 * matrix[chosen] / np.maximum(matrix[chosen].sum(axis=1, keepdims=True), 1)
    names, side = [_drawable(labels[row], row) for row in chosen], max(0.27 * len(chosen), 0.9)
    figure, (axes,) = new_figure(2.2 + side, 1.9 + side)
    shown = ConfusionMatrixDisplay(percent[:, chosen], display_labels=names).plot(
        ax=axes,
        cmap="Blues",
        colorbar=False,
        xticks_rotation="vertical",
        values_format=".0f",
        im_kw={"norm": PowerNorm(0.5)},
        text_kw={"fontsize": 8},
    )
    for text, value in zip(shown.text_.flat, shown.confusion_matrix.flat):
        text.set_visible(value > 0)
    part = f" (the {len(chosen)} of {len(labels)} classes with most errors)"
    axes.set(xlabel="predicted" + part * (len(chosen) < len(labels)), ylabel="true")
    axes.tick_params(labelsize=8)
    axes.grid(False)
    return figure


def _drawable(label, number):
    """The label, shortened, or "class N" where the font of the pictures lacks a character of it."""
    font = get_font(findfont(STYLE["font.family"]))
    if not all(font.get_char_index(ord(character)) for character in label):
        return f"class {number}"
    return label if len(label) <= 22 else label[:21] + "…"
