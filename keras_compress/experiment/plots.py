"""The pictures of a report, as PNG bytes. One accent colour marks the compressed models; the
predecessor is black, the baselines are grey; shape and dashes say the same as colour."""

import io
import itertools

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from keras_compress.measure.accuracy import metric_name

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
DASHED = (0, (4, 3))


def looks(rows):
    """{model: (colour, marker, line style)} by the roles of pooled rows; a family looks the same."""
    fixed = {
        "predecessor": (INK, "o", "-"),
        "control": (GREY, "o", "--"),
        "reference": (GREY, "D", DASHED),
        None: (ACCENT, "o", "-"),
    }
    baselines = [row["family"] or row["method"] for row in rows if row["role"] == "baseline"]
    grey = zip(
        dict.fromkeys(baselines), itertools.cycle("s^vP"), itertools.cycle(("-", "--", ":", "-."))
    )
    marks = {name: (GREY, marker, dashes) for name, marker, dashes in grey}
    return {
        row["method"]: fixed.get(row["role"]) or marks[row["family"] or row["method"]]
        for row in rows
    }


def pictures(report):
    """List of (file name, title, caption, PNG bytes); a picture without data is left out."""
    rows, drawn = report["pooled"], []
    metric = metric_name(rows)
    look, sets = looks(rows), sorted({row["data"] for row in rows})
    with matplotlib.rc_context(STYLE):
        for data, (name, label, value) in itertools.product(sets, AXES):
            models = [model for model in report["models"] if model["data"] == data]
            several = len(sets) > 1
            drawn.append(
                (
                    f"accuracy_{name}" + f"-{data}" * several,
                    f"{metric.capitalize()} against {name}" + f", {data}" * several,
                    "Up and to the left is better. Bars: 95 % intervals. Hollow: the same model as int8. "
                    "Dashed: a baseline without BERT.",
                    _scatter(models, value, label, metric, look),
                )
            )
        drawn.append(
            (
                "intervals",
                f"Test {metric} of all models",
                "With 95 % intervals; small marks are single seeds.",
                _intervals(rows, look),
            )
        )
        curves = own_rows(report["curves"])
        panels = [("loss", "loss", 1), ("dev", f"dev {metric}, %", 100)]
        drawn.append(
            (
                "curves",
                "Training curves",
                f"Training loss, and {metric} on dev, by update; stages one after another.",
                curves_figure(curves, panels, looks=look.get),
            )
        )
        drawn.append(
            (
                "replacing_rate",
                "Replacing rate",
                "Chance that a module of the predecessor is replaced by its successor.",
                curves_figure(curves, [("replacing_rate", "replacing rate", 1)], looks=look.get),
            )
        )
        drawn.append(
            (
                "pretraining",
                "Pre-training",
                "Means over seeds, on dev. Dashed grey: what the lengths of the segments alone tell.",
                _pretraining(rows),
            )
        )
        if report["confusion"]:
            labels, matrix, model = (
                report["confusion"][key] for key in ("labels", "matrix", "model")
            )
            caption = (
                "Row: truth; column: prediction. Off the diagonal: number of errors (the darker, the larger the "
                "share of its row). On the diagonal: % right."
            )
            if any(_drawable(label, i) == f"class {i}" for i, label in enumerate(labels)):
                caption += " Class N: line N of labels.txt, from 0."
            figure = _confusion(labels, matrix)
            drawn.append(("confusion", f"Confusion of the classes: {model}", caption, figure))
        return [(*texts, to_png(figure)) for *texts, figure in drawn if figure]


AXES = (  # (name, label, model or file -> value or None)
    ("size", "file size, MB", lambda row: (row.get("file_bytes", row.get("bytes")) or 0) / 1e6),
    (
        "latency",
        "time, of the predecessor's",
        lambda row: row["times_as_fast"] and 1 / row["times_as_fast"],
    ),
)


def new_figure(width, height, rows=1, columns=1):
    """(figure, array of axes), without the global state of pyplot."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=columns == 1).ravel()


def to_png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _scatter(models, value_of, label, metric, look):
    points = [m for m in models if value_of(m) and m["accuracy"] is not None]
    if not points:
        return None
    figure, (axes,) = new_figure(4.8, 3.6)
    labels, occupied, lines = [], [], []
    for model in points:
        colour, marker, _ = look[model["name"]]
        x, y, half = value_of(model), 100 * model["accuracy"], 196 * (model["accuracy_se"] or 0)
        axes.errorbar(x, y, half, color=colour, alpha=0.35, linewidth=1.2, zorder=2)
        axes.plot(x, y, marker, color=colour, markersize=7, zorder=3)
        labels.append((x, y, model["name"], colour))
        occupied.append((x, y))
        lines += [(x, y + part * half) for part in np.linspace(-1, 1, 9)]
        for file in model["files"]:
            if file["format"] == "int8" and value_of(file) and file["accuracy"] is not None:
                small = value_of(file), 100 * file["accuracy"]
                axes.plot(*zip((x, y), small), color=colour, linewidth=0.8, alpha=0.35, zorder=1)
                hollow = {"markerfacecolor": "white", "markersize": 6, "zorder": 3}
                axes.plot(*small, marker, color=colour, **hollow)
                along = np.linspace(0.1, 0.9, 15)
                lines += [(x + part * (small[0] - x), y + part * (small[1] - y)) for part in along]
                occupied.append(small)
    axes.set_xlim(0, 1.2 * max(x for x, _ in occupied))
    low, high = axes.get_ylim()
    far = []  # baselines without BERT: a line where it lies near, else a word
    for model in models:
        if model["role"] == "reference":
            value, name = 100 * model["accuracy"], model["name"].replace("tfidf", "TF-IDF")
            if not 2 * low - high <= value <= 2 * high - low:
                far.append(f"{name} {value:.1f} %")
                continue
            axes.axhline(value, color=GREY, linewidth=1, linestyle=DASHED, zorder=0)
            where = (1, value), (0, 2), ("axes fraction", "data"), "offset points"
            axes.annotate(name, *where, color=GREY, fontsize=9, ha="right", va="bottom")
    axes.set_xlabel(label + (f"\n(far off: {', '.join(far)})" if far else ""))
    axes.set_ylabel(f"{metric}, %")
    _place_labels(figure, axes, labels, occupied, lines)
    return figure


def _place_labels(figure, axes, labels, points, lines):
    """Writes each label beside its point, as near as can be without covering a point or another label,
    and better not a line or a bar."""
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
    sides = [(1, 0), (-1, 0), (0.8, 0.8), (0.8, -0.8), (-0.8, 0.8), (-0.8, -0.8), (0, 1), (0, -1)]
    offsets = [(radius * x, radius * y) for radius in (8, 16, 28, 44) for x, y in sides]
    for x, y, text, colour in sorted(labels, key=lambda label: -label[1]):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6}
        note = axes.annotate(
            text,
            (x, y),
            (0, 0),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            va="center",
            arrowprops={**line, "shrinkA": 1, "shrinkB": 4},
        )
        size, (left, middle) = note.get_window_extent(), axes.transData.transform((x, y))

        def box_at(offset):
            right, up = offset
            corner = left + right * pixels - size.width * (0.5 - 0.5 * np.sign(right))
            return Bbox.from_bounds(
                corner, middle + up * pixels - size.height / 2, size.width, size.height
            )

        def cost(offset):
            box = box_at(offset)
            outside = not (frame.x0 <= box.x0 and box.x1 <= frame.x1)
            outside |= not (frame.y0 <= box.y0 and box.y1 <= frame.y1)
            covered = 10 * sum(map(box.overlaps, taken)) + 2 * sum(map(box.overlaps, lines))
            return 100 * outside + covered + (max(map(abs, offset)) + abs(offset[1])) / 4

        best = min(offsets, key=cost)
        note.set_position(best)
        note.set_horizontalalignment({1: "left", 0: "center", -1: "right"}[int(np.sign(best[0]))])
        note.arrow_patch.set_visible(max(map(abs, best)) > 10)
        taken.append(box_at(best))


def own_rows(curves):
    """The rows of each model without those inherited from the first, its stages laid end to end."""
    first, result = next(iter(curves.items()), (None, [])), {}
    for name, rows in curves.items():
        offset, last, stage, moved = 0, 0, None, []
        for row in rows:
            if name != first[0] and row in first[1]:
                continue
            if stage is not None and row.get("stage") != stage:
                offset += last
            stage, last = row.get("stage"), row["step"]
            moved.append({**row, "step": offset + row["step"]})
        result[name] = moved
    return result


def curves_figure(curves, panels, height=3.6, looks=None):
    """One panel per (key, label, factor) for which there is data; every line named at its end.

    `looks`: name -> (colour, marker, line style).
    """

    def line(rows, key):
        known = [row for row in rows if row.get(key) is not None and np.isfinite(row[key])]
        return [(row["step"], row[key]) for row in known]

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
                x, y = np.transpose(points)
                style = {"linestyle": dashes, "linewidth": 1.5, "markersize": 3.5}
                marker = marker if key.startswith("dev") else None
                axes.plot(x, factor * y, color=colour, marker=marker, **style)
                ends.append((x[-1], factor * y[-1], name, colour))
        axes.set_ylabel(label)
        axes.margins(x=0.02, y=0.08)
        _name_ends(axes, ends, 0.065 * 3.6 / height * len(panels))
    all_axes[-1].set_xlabel("update")
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def _name_ends(axes, ends, share):
    """Names lines at their ends; the names are `share` of the axes' height apart, or more."""
    low, high = axes.get_ylim()
    gap, right, heights = share * (high - low), axes.get_xlim()[1] * 1.04, []
    ends.sort(key=lambda end: end[1])
    for _, y, _, _ in ends:
        heights.append(max(y, heights[-1] + gap) if heights else y)
    for place, (x, y, name, colour) in enumerate(ends):
        level = min(heights[place], high - gap * (len(ends) - 1 - place))
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5}
        axes.annotate(
            name,
            (x, y),
            (right, level),
            color=colour,
            fontsize=8.5,
            va="center",
            annotation_clip=False,
            arrowprops={**line, "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 2},
        )


def _intervals(rows, look):
    """The methods of each data set with 95 % intervals; small marks are single seeds."""
    rows = [row for row in rows if row["method"] != "majority"]
    names = sorted({row["data"] for row in rows})
    if not rows:
        return None
    tallest = max(sum(row["data"] == name for row in rows) for name in names)
    figure, panels = new_figure(4.6 * len(names), 1.2 + 0.32 * tallest, columns=len(names))
    for axes, name in zip(panels, names):
        here = [row for row in rows if row["data"] == name]
        for place, row in enumerate(here):
            colour, marker, _ = look[row["method"]]
            each = np.multiply(100, row["by_seed"])
            axes.plot(each, [place] * len(each), "|", color=colour, alpha=0.6, markersize=9)
            style = {"color": colour, "marker": marker, "markersize": 6, "linewidth": 1.2}
            axes.errorbar(100 * row["accuracy"], place, xerr=196 * row["accuracy_se"], **style)
            if place and row["size"] != here[place - 1]["size"]:
                axes.axhline(place - 0.5, color=PALE, linewidth=0.8)
        axes.set_yticks(range(len(here)), [row["method"] for row in here])
        axes.set_ylim(len(here) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.set_xlabel(f"test {metric_name(here)}, %")
        title = f"{name} ({here[0]['num_examples']:,} examples)"
        axes.set_title(title, fontsize=10, loc="left", weight="bold")
    return figure


def _pretraining(rows):
    """How pre-training went on dev; None if no cell came from it. A family, the first word of a name,
    has one colour; grey lines: what the lengths of the segments alone tell."""
    made = {row["method"]: row["pretraining"] for row in rows if row["pretraining"]}
    families = {}
    for name in made:
        families.setdefault(name.partition("-")[0], []).append(name)
    look = {
        name: (colour, marker, dashes)
        for colour, names in zip(itertools.cycle((INK, ACCENT)), families.values())
        for name, marker, dashes in zip(
            names, itertools.cycle("os^vPD"), itertools.cycle(("-", "--", ":", "-."))
        )
    }
    figure = curves_figure(
        {name: entry["curve"] for name, entry in made.items()},
        [("dev", "masked words, dev %", 100), ("dev_sentence", "sentences, dev %", 100)],
        height=7.2,
        looks=look.get,
    )
    for share in {entry["sentence_by_length"] for entry in made.values()} - {None}:
        line = {"color": GREY, "linewidth": 1, "linestyle": DASHED, "zorder": 0}
        figure.axes[-1].axhline(100 * share, **line)
    return figure


def _confusion(labels, matrix):
    """Errors of the classes that have most of them, at most `MAX_CLASSES`."""
    matrix = np.asarray(matrix)
    errors = matrix - np.diag(np.diag(matrix))
    most = np.argsort(-(errors.sum(axis=0) + errors.sum(axis=1)), kind="stable")[:MAX_CLASSES]
    chosen, rows = np.sort(most), matrix.sum(axis=1, keepdims=True)
    share, count = (errors / np.maximum(rows, 1))[np.ix_(chosen, chosen)], len(chosen)
    darkest, side = max(share.max(), 0.05), max(0.27 * count, 0.9)
    figure, (axes,) = new_figure(2.2 + side, 1.9 + side)
    colours = LinearSegmentedColormap.from_list("errors", ["white", "#9cc3ee", ACCENT])
    axes.imshow(share, cmap=colours, vmax=darkest)
    centred = {"ha": "center", "va": "center"}
    for i, row in enumerate(chosen):
        for j, column in enumerate(chosen):
            if i == j and rows[row, 0]:
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color="#eceff2"))
                right = f"{100 * matrix[row, row] / rows[row, 0]:.0f}"
                axes.text(j, i, right, fontsize=7.5, color=GREY, **centred)
            elif errors[row, column]:
                colour = "white" if share[i, j] > 0.6 * darkest else INK
                axes.text(j, i, matrix[row, column], fontsize=8, color=colour, **centred)
    names = [_drawable(labels[row], row) for row in chosen]
    axes.set_xticks(range(count), names, rotation=90 if count > 4 else 0, fontsize=8)
    axes.set_yticks(range(count), names, fontsize=8)
    part = f" (the {count} of {len(labels)} classes with most errors)" * (count < len(labels))
    axes.set_xlabel("predicted" + part)
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
