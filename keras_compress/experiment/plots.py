"""The pictures of a report, as PNG bytes. One accent colour marks the compressed models; the predecessor is black, the
baselines are grey; shape and dashes say the same, so that colour alone never carries the meaning."""

import io

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from keras_compress.experiment.report import CONTROL, metric_name

INK, GREY, PALE, ACCENT = "#1d2733", "#75808c", "#d9dee4", "#0b63c5"
STYLE = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "grid.color": "#edf0f3",
    "text.color": INK,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.dpi": 200,
    "figure.facecolor": "white",
}
MAX_CLASSES = 24  # of the confusion picture
MEGABYTE = 1e6


def look(name):
    """(colour, marker, line style) of a model, by its fixed name."""
    if name == "predecessor":
        return INK, "o", "-"
    if name == CONTROL:
        return GREY, "o", "--"
    baselines = {
        "plain": (GREY, "s", "-"),
        "truncated": (GREY, "^", "--"),
        "spread": (GREY, "v", ":"),
        "bilstm": (GREY, "P", "-."),
    }
    return baselines.get(name.rpartition("-")[0], (ACCENT, "o", "-"))


def pictures(report):
    """List of (file name, title, caption, PNG bytes); a picture without data is left out."""
    metric = metric_name(report["models"])
    drawn = []
    with matplotlib.rc_context(STYLE):
        for key, name, scale, label in (
            ("file_bytes", "size", MEGABYTE, "file size, MB"),
            ("latency_ms_p50", "latency", 1, "latency, ms (median)"),
        ):
            figure = _scatter(report["models"], key, scale, label, metric)
            drawn.append(
                (
                    f"accuracy_{name}",
                    f"{metric.capitalize()} against {name}",
                    "Up and to the left is better. Bars: 95 % intervals. Hollow: the same model as int8. "
                    "Dashed: a baseline without BERT.",
                    figure,
                )
            )
        curves = own_rows(report.get("curves") or {})
        drawn.append(
            (
                "curves",
                "Training curves",
                f"Training loss, and {metric} on dev, by update; stages one after another.",
                curves_figure(curves, [("loss", "loss", 1), ("dev", f"dev {metric}, %", 100)]),
            )
        )
        drawn.append(
            (
                "replacing_rate",
                "Replacing rate",
                "Chance that a module of the predecessor is replaced by its successor.",
                curves_figure(curves, [("replacing_rate", "replacing rate", 1)]),
            )
        )
        if report.get("confusion"):
            labels, matrix, model = (
                report["confusion"][key] for key in ("labels", "matrix", "model")
            )
            caption = (
                "Row: truth; column: prediction. Off the diagonal: number of errors (the darker, the larger the "
                "share of its row). On the diagonal: % right."
            )
            if any(_drawable(label, i) == f"class {i}" for i, label in enumerate(labels)):
                caption += " Class N: line N of labels.txt, from 0."
            drawn.append(
                (
                    "confusion",
                    f"Confusion of the classes: {model}",
                    caption,
                    _confusion(labels, matrix),
                )
            )
        return [
            (name, title, caption, to_png(figure))
            for name, title, caption, figure in drawn
            if figure
        ]


def new_figure(width, height, rows=1, columns=1):
    """(figure, array of axes), without the global state of pyplot."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=columns == 1).ravel()


def to_png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _scatter(models, key, scale, label, metric):
    points = [model for model in models if model[key] and model["accuracy"] is not None]
    if not points:
        return None
    figure, (axes,) = new_figure(4.8, 3.6)
    labels, occupied, lines, file_key = [], [], [], key.replace("file_", "")
    for model in points:
        colour, marker, _ = look(model["name"])
        x, y, half = model[key] / scale, 100 * model["accuracy"], 196 * (model["accuracy_se"] or 0)
        axes.errorbar(x, y, half, color=colour, alpha=0.35, linewidth=1.2, zorder=2)
        axes.plot(x, y, marker, color=colour, markersize=7, zorder=3)
        labels.append((x, y, model["name"], colour))
        occupied.append((x, y))
        lines += [(x, y + part * half) for part in np.linspace(-1, 1, 9)]
        for file in model["files"]:
            if file["format"] == "int8" and file[file_key] and file["accuracy"] is not None:
                small = file[file_key] / scale, 100 * file["accuracy"]
                axes.plot(*zip((x, y), small), color=colour, linewidth=0.8, alpha=0.35, zorder=1)
                axes.plot(
                    *small, marker, color=colour, markerfacecolor="white", markersize=6, zorder=3
                )
                lines += [
                    (x + part * (small[0] - x), y + part * (small[1] - y))
                    for part in np.linspace(0.1, 0.9, 15)
                ]
                occupied.append(small)
    axes.set_xlim(0, 1.2 * max(x for x, _ in occupied))
    low, high = axes.get_ylim()
    far = []  # baselines without BERT: a line where it lies near, else a word
    for model in models:
        if model["name"] in ("tfidf", "majority") and model["accuracy"] is not None:
            value, name = (
                100 * model["accuracy"],
                {"tfidf": "TF-IDF"}.get(model["name"], "majority"),
            )
            if 2 * low - high <= value <= 2 * high - low:
                axes.axhline(value, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
                axes.annotate(
                    name,
                    (1, value),
                    (0, 2),
                    ("axes fraction", "data"),
                    "offset points",
                    color=GREY,
                    fontsize=9,
                    ha="right",
                    va="bottom",
                )
            else:
                far.append(f"{name} {value:.1f} %")
    axes.set_xlabel(label + (f"\n(far off: {', '.join(far)})" if far else ""))
    axes.set_ylabel(f"{metric}, %")
    _place_labels(figure, axes, labels, occupied, lines)
    return figure


def _place_labels(figure, axes, labels, points, lines):
    """Write each label beside its point, as near as can be without covering a point or another label, and better
    not a line or a bar."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    frame, pixels = axes.get_window_extent(), figure.dpi / 72
    taken, lines = (
        [
            Bbox.from_bounds(x - half, y - half, 2 * half, 2 * half)
            for x, y in axes.transData.transform(places)
        ]
        for places, half in ((points, 12), (lines, 6))
    )
    offsets = [
        (radius * right, radius * up)
        for radius in (8, 16, 28, 44)
        for right, up in (
            (1, 0),
            (-1, 0),
            (0.8, 0.8),
            (0.8, -0.8),
            (-0.8, 0.8),
            (-0.8, -0.8),
            (0, 1),
            (0, -1),
        )
    ]
    for x, y, text, colour in sorted(labels, key=lambda label: -label[1]):
        note = axes.annotate(
            text,
            (x, y),
            (0, 0),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "alpha": 0.6,
                "shrinkA": 1,
                "shrinkB": 4,
            },
        )
        size, (left, middle) = note.get_window_extent(), axes.transData.transform((x, y))
        boxes = {
            (right, up): Bbox.from_bounds(
                left + right * pixels - size.width * (0.5 - 0.5 * np.sign(right)),
                middle + up * pixels - size.height / 2,
                size.width,
                size.height,
            )
            for right, up in offsets
        }

        def cost(offset):
            box, distance = boxes[offset], max(map(abs, offset))
            outside = (
                box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1
            )
            return (
                100 * outside
                + 10 * sum(map(box.overlaps, taken))
                + 2 * sum(map(box.overlaps, lines))
                + (distance + abs(offset[1])) / 4
            )

        best = min(offsets, key=cost)
        note.set_position(best)
        note.set_horizontalalignment({1: "left", 0: "center", -1: "right"}[int(np.sign(best[0]))])
        note.arrow_patch.set_visible(max(map(abs, best)) > 10)
        taken.append(boxes[best])


def own_rows(curves):
    """The rows of each model without those it inherited from the predecessor, its stages laid end to end."""
    inherited, result = curves.get("predecessor", []), {}
    for name, rows in curves.items():
        offset, last, stage, moved = 0, 0, None, []
        for row in rows:
            if name != "predecessor" and row in inherited:
                continue
            if stage is not None and row.get("stage") != stage:
                offset += last
            stage, last = row.get("stage"), row["step"]
            moved.append({**row, "step": offset + row["step"]})
        result[name] = moved
    return result


def curves_figure(curves, panels, height=3.6, looks=look):
    """One panel per (key, label, factor) for which there is data; every line named at its end. `looks`: see `look`."""

    def line(rows, key):
        return [
            (row["step"], row[key])
            for row in rows
            if row.get(key) is not None and np.isfinite(row[key])
        ]

    panels = [panel for panel in panels if any(line(rows, panel[0]) for rows in curves.values())]
    if not panels:
        return None
    figure, all_axes = new_figure(4.8, height, len(panels))
    for axes, (key, label, factor) in zip(all_axes, panels):
        ends = []
        for name, rows in curves.items():
            points = line(rows, key)
            if points:
                colour, marker, dashes = looks(name)
                x, y = zip(*points)
                y = [factor * value for value in y]
                axes.plot(
                    x,
                    y,
                    color=colour,
                    linestyle=dashes,
                    linewidth=1.5,
                    markersize=3.5,
                    marker=marker if key.startswith("dev") else None,
                )
                ends.append((x[-1], y[-1], name, colour))
        axes.set_ylabel(label)
        axes.margins(x=0.02, y=0.08)
        low, high = axes.get_ylim()
        ends.sort(key=lambda end: end[1])
        gap, right, heights = (
            0.065 * 3.6 / height * len(panels) * (high - low),
            axes.get_xlim()[1] * 1.04,
            [],
        )
        for _, y, _, _ in ends:
            heights.append(max(y, heights[-1] + gap) if heights else y)
        for place, (x, y, name, colour) in enumerate(ends):
            level = min(heights[place], high - gap * (len(ends) - 1 - place))
            axes.annotate(
                name,
                (x, y),
                (right, level),
                color=colour,
                fontsize=8.5,
                va="center",
                annotation_clip=False,
                arrowprops={
                    "arrowstyle": "-",
                    "color": colour,
                    "linewidth": 0.5,
                    "alpha": 0.5,
                    "relpos": (0, 0.5),
                    "shrinkA": 0,
                    "shrinkB": 2,
                },
            )
    all_axes[-1].set_xlabel("update")
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def _confusion(labels, matrix):
    """Errors of the classes that have most of them, at most `MAX_CLASSES`."""
    matrix = np.asarray(matrix)
    errors = matrix - np.diag(np.diag(matrix))
    chosen = np.sort(
        np.argsort(-(errors.sum(axis=0) + errors.sum(axis=1)), kind="stable")[:MAX_CLASSES]
    )
    rows = matrix.sum(axis=1, keepdims=True)
    share = (errors / np.maximum(rows, 1))[np.ix_(chosen, chosen)]
    count = len(chosen)
    figure, (axes,) = new_figure(2.2 + max(0.27 * count, 0.9), 1.9 + max(0.27 * count, 0.9))
    axes.imshow(
        share,
        cmap=LinearSegmentedColormap.from_list("errors", ["white", "#9cc3ee", ACCENT]),
        vmax=max(share.max(), 0.05),
    )
    for i, row in enumerate(chosen):
        for j, column in enumerate(chosen):
            if i == j and rows[row, 0]:
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color="#eceff2"))
                axes.text(
                    j,
                    i,
                    f"{100 * matrix[row, row] / rows[row, 0]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=GREY,
                )
            elif errors[row, column]:
                dark = share[i, j] > 0.6 * max(share.max(), 0.05)
                axes.text(
                    j,
                    i,
                    matrix[row, column],
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else INK,
                )
    names = [_drawable(labels[row], row) for row in chosen]
    axes.set_xticks(range(count), names, rotation=90 if count > 4 else 0, fontsize=8)
    axes.set_yticks(range(count), names, fontsize=8)
    axes.set_xlabel(
        "predicted"
        if count == len(labels)
        else f"predicted (the {count} of {len(labels)} classes with most errors)"
    )
    axes.set_ylabel("true")
    axes.grid(False)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color=PALE, linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    return figure


def _drawable(label, number):
    """The label, shortened, or "class N" where the font of the pictures lacks a character of it."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    if not all(font.get_char_index(ord(character)) for character in label):
        return f"class {number}"
    return label if len(label) <= 22 else label[:21] + "…"
