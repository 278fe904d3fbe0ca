"""The report of a run: report.json (for machines), report.md and report.html (for people), with pictures."""

import base64
import json
import math
import re
from pathlib import Path

from keras_compress.files import atomic_write

MODEL_KEYS = (
    "name",
    "parameters",
    "encoder_parameters",
    "flops",
    "metric",
    "accuracy",
    "accuracy_se",
    "num_examples",
    "seeds",
    "agreement",
    "file_bytes",
    "latency_ms_p50",
    "latency_ms_p90",
    "files",
)
FILE_KEYS = (
    "format",
    "bytes",
    "gzip_bytes",
    "latency_ms_p50",
    "latency_ms_p90",
    "accuracy",
    "agreement",
)
# Small models without the method: bottom layers pre-trained or fine-tuned; the last layers of even blocks, fine-tuned.
BASELINES = ("plain", "truncated", "spread")
NOISE = 0.15  # equal work, timed twice on a machine that others use, differed by up to 8 %
CONTROL = "control"  # a float model that trained as long as the others, without the method
BASELINE = re.compile(rf"predecessor|{CONTROL}|({'|'.join(BASELINES)})-\d+|tfidf|majority")
MADE_SET = (
    "assistant is a made set: its sentences come from a grammar written for this project. It shows that the "
    "path works; claims about methods rest on public sets."
)
NONE = "–"


def model_row(**values):
    """A row of `models` in report.json with every key of the contract, null where nothing is given.

    `seeds` is the list of seeds; `accuracy`, `accuracy_se`, `agreement` are 0-1; `files` is a list of dicts, which are
    completed in the same way.
    """
    return {
        **_complete(MODEL_KEYS, values),
        "files": [_complete(FILE_KEYS, file) for file in values.get("files") or []],
    }


def _complete(keys, values):
    unknown = sorted(set(values) - set(keys))
    if unknown:
        raise ValueError(f"A row may hold {', '.join(keys)}. Received: {', '.join(unknown)}.")
    return {key: values.get(key) for key in keys}


def write_report(folder, report):
    """Write report.json, report.md, report.html and pictures/*.png.

    Args:
        folder: made if missing.
        report: dict with `recipe`, `data`, `task`, `created`, `seconds`, `settings`, `versions`, `device`, `threads`,
            `sequence_length`, `notes` (list of str), `models` (`model_row`s), `comparisons` (dicts with model,
            baseline, difference, low, high, n), `engines` (None, or model and rows of name, latency_ms_p50,
            latency_ms_p90), `curves` ({model: rows of stage, step, loss, learning_rate,
            replacing_rate, dev}), `confusion` (None, or labels, matrix, model). Missing keys are written as null.
    Returns:
        Path of report.html.
    """
    from jinja2 import (
        Environment,
        FileSystemLoader,
    )  # these two take half a second, which --help does not have

    from keras_compress.experiment.plots import pictures

    keys = (
        "recipe",
        "data",
        "task",
        "created",
        "seconds",
        "settings",
        "versions",
        "device",
        "threads",
        "sequence_length",
        "notes",
        "models",
        "comparisons",
        "engines",
        "curves",
        "confusion",
    )
    report = _plain({**dict.fromkeys(keys), **report})
    report["models"] = [model_row(**model) for model in report["models"] or []]
    report["notes"] = list(report["notes"] or [])
    if str(report["data"]).startswith("assistant") and MADE_SET not in report["notes"]:
        report["notes"].append(MADE_SET)
    folder, drawn = Path(folder), pictures(report)
    for name, _, _, png in drawn:
        with atomic_write(folder / "pictures" / f"{name}.png", "wb") as file:
            file.write(png)
    page = {
        "title": f"{report['recipe']} on {report['data']}",
        "summary": headline(report),
        "report": report,
        "facts": _facts(report),
        "tables": _tables(report),
        "pictures": [
            (
                name,
                title,
                caption,
                base64.b64encode(png).decode(),
                int.from_bytes(png[16:20], "big") // 2,
            )
            for name, title, caption, png in drawn
        ],
    }  # the last: width in CSS pixels
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name, text in (
        ("report.json", json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"),
        ("report.md", _markdown(page)),
        ("report.html", environment.get_template("report.html").render(page)),
    ):
        with atomic_write(folder / name) as file:
            file.write(text)
    return folder / "report.html"


def _plain(value):
    """The same with plain Python values; numbers that JSON lacks (nan, inf) become None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def metric_name(models):
    """What `accuracy` holds, in words."""
    return "entity F1" if any(model["metric"] == "entity_f1" for model in models) else "accuracy"


def headline(report):
    """What compression cost and gained: (sentence, further sentences) of each compressed model. Plain when it did not
    pay, too."""
    rows = {model["name"]: model for model in report["models"] if model["accuracy"] is not None}
    predecessor, result = rows.get("predecessor"), []
    metric = metric_name(report["models"])
    for name, row in rows.items():
        if BASELINE.fullmatch(name) or not predecessor or not predecessor["accuracy"]:
            continue
        share = row["accuracy"] / predecessor["accuracy"]
        verb = "reaches" if share > 1 else "keeps" if share >= 0.9 else "keeps only"
        text = (
            f"{name} {verb} {100 * share:.1f} % of the predecessor's {metric} "
            f"({100 * row['accuracy']:.1f} against {100 * predecessor['accuracy']:.1f} %)"
        )
        if row["file_bytes"] and predecessor["file_bytes"]:
            text += f" at {100 * row['file_bytes'] / predecessor['file_bytes']:.0f} % of the size"
        if row["latency_ms_p50"] and predecessor["latency_ms_p50"]:
            faster = predecessor["latency_ms_p50"] / row["latency_ms_p50"]
            if (row["flops"] or 0) >= 0.99 * (predecessor["flops"] or math.inf) and abs(
                faster - 1
            ) < NOISE:
                text += f" but computes as much as before (speed measured: {faster:.2f}x)"
            else:
                text += (
                    f" and runs {faster:.1f}x faster"
                    if faster >= 1.05
                    else f" but runs {1 / faster:.1f}x slower"
                    if faster <= 0.95
                    else " but runs no faster"
                )
        more = [
            _against(comparison)
            for comparison in report.get("comparisons") or []
            if comparison["model"] == name and comparison["baseline"] != "predecessor"
        ]
        linear = rows.get("tfidf")
        if linear and linear["accuracy"] >= row["accuracy"]:
            more.append(
                "A linear model on TF-IDF does as well or better without any BERT "
                f"({100 * linear['accuracy']:.1f} %)."
            )
        result.append((text + ".", " ".join(more)))
    return result or [
        (
            "No compressed model stands beside its predecessor here; the tables show what was measured.",
            "",
        )
    ]


def _against(comparison):
    points, interval = 100 * comparison["difference"], _interval(comparison)
    if comparison["low"] > 0:
        return f"It is {points:.1f} points better than {comparison['baseline']} (95 % interval {interval})."
    if comparison["high"] < 0:
        return (
            f"It is {-points:.1f} points worse than {comparison['baseline']} (95 % interval {interval}): "
            "here the method did not pay."
        )
    return (
        f"Its difference from {comparison['baseline']}, {points:+.1f} points (95 % interval {interval}), is too "
        f"small to tell on {comparison['n']:,} examples."
    )


def _interval(comparison):
    return f"{100 * comparison['low']:+.1f} to {100 * comparison['high']:+.1f}"


def percent(value, error=None):
    """0-1 as percent, with its standard error."""
    return (
        NONE
        if value is None
        else f"{100 * value:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")
    )


def _number(value, factor=1, form=",.1f"):
    return NONE if value is None else format(value if factor == 1 else value / factor, form)


def _latency(row):
    figures = row["latency_ms_p50"], row["latency_ms_p90"]
    return (
        NONE
        if figures[0] is None
        else " / ".join(_number(figure, form=",.2f") for figure in figures)
    )


def _times(large, small):
    return f"{large / small:.2f}×" if large and small else NONE


def _tables(report):
    """List of (title, note, header, rows of str); columns without any value are dropped."""
    models = report["models"]
    predecessor = next(
        (model for model in models if model["name"] == "predecessor"), dict.fromkeys(MODEL_KEYS)
    )
    metric = metric_name(models)
    tables = [
        (
            "Models",
            "± is one standard error over the test examples. Smaller and faster: against the predecessor. "
            "Encoder: transformer layers alone. 1 MB = 1,000,000 bytes.",
            (
                "model",
                f"{metric}, %",
                "agreement, %",
                "parameters",
                "encoder",
                "GFLOPs",
                "MB",
                "bytes",
                "smaller",
                "ms p50 / p90",
                "faster",
                "examples",
                "seeds",
            ),
            [
                (
                    m["name"],
                    percent(m["accuracy"], m["accuracy_se"]),
                    percent(m["agreement"]),
                    _number(m["parameters"], form=","),
                    _number(m["encoder_parameters"], form=","),
                    _number(m["flops"], 1e9, ",.2f"),
                    _number(m["file_bytes"], 1e6),
                    _number(m["file_bytes"], form=","),
                    _times(predecessor["file_bytes"], m["file_bytes"]),
                    _latency(m),
                    _times(predecessor["latency_ms_p50"], m["latency_ms_p50"]),
                    _number(m["num_examples"], form=","),
                    ", ".join(map(str, m["seeds"] or [])) or NONE,
                )
                for m in models
            ],
        )
    ]
    tables.append(
        (
            "Paired differences",
            "In points, on the same test examples; a difference counts where the interval "
            "excludes zero.",
            ("model", "minus", "difference", "95 % interval", "verdict", "examples"),
            [
                (
                    c["model"],
                    c["baseline"],
                    f"{100 * c['difference']:+.1f}",
                    _interval(c),
                    "better" if c["low"] > 0 else "worse" if c["high"] < 0 else "cannot tell",
                    f"{c['n']:,}",
                )
                for c in report["comparisons"] or []
            ],
        )
    )
    tables.append(
        (
            "Exported files",
            "Agreement: with the predecessor.",
            (
                "file",
                "MB",
                "MB, gzip",
                "bytes",
                "smaller",
                f"{metric}, %",
                "agreement, %",
                "ms p50 / p90",
                "faster",
            ),
            [
                (
                    f"{m['name']} {f['format']}",
                    _number(f["bytes"], 1e6),
                    _number(f["gzip_bytes"], 1e6),
                    _number(f["bytes"], form=","),
                    _times(predecessor["file_bytes"], f["bytes"]),
                    percent(f["accuracy"]),
                    percent(f["agreement"]),
                    _latency(f),
                    _times(predecessor["latency_ms_p50"], f["latency_ms_p50"]),
                )
                for m in models
                for f in m["files"]
            ],
        )
    )
    if report["engines"] and report["engines"]["rows"]:
        rows = report["engines"]["rows"]
        tables.append(
            (
                "Engines",
                f"The exported graph of {report['engines']['model']} in one process, one thread, "
                "batch 1, taking turns after a warm-up; ONNX Runtime with all of its optimisations. Time: over "
                "that of the first row.",
                ("engine", "ms p50 / p90", "time"),
                [
                    (
                        row["name"],
                        _latency(row),
                        f"{row['latency_ms_p50'] / rows[0]['latency_ms_p50']:.2f}",
                    )
                    for row in rows
                ],
            )
        )
    if report["confusion"]:
        labels, matrix = report["confusion"]["labels"], report["confusion"]["matrix"]
        errors = sorted(
            (
                (matrix[i][j], i, j)
                for i in range(len(labels))
                for j in range(len(labels))
                if i != j and matrix[i][j]
            ),
            key=lambda error: (-error[0], error[1:]),
        )[:8]
        tables.append(
            (
                "Most frequent confusions",
                f"Of {report['confusion']['model']}.",
                ("true", "predicted", "errors", "of"),
                [
                    (labels[i], labels[j], str(count), f"{sum(matrix[i]):,}")
                    for count, i, j in errors
                ],
            )
        )
    return [
        (title, note, *_drop_empty(header, rows)) for title, note, header, rows in tables if rows
    ]


def _drop_empty(header, rows):
    kept = [i for i in range(len(header)) if any(row[i] != NONE for row in rows)]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _facts(report):
    """(name, value) of what the numbers hold for."""
    facts = [
        ("recipe", report["recipe"]),
        ("data", report["data"]),
        ("task", report["task"]),
        ("created", report["created"]),
        ("took", report["seconds"] is not None and f"{report['seconds'] / 60:.1f} minutes"),
        ("device", report["device"]),
        ("threads", report["threads"]),
        ("sequence length", report["sequence_length"]),
    ]
    return [(name, value) for name, value in facts if value]


def markdown_table(header, rows):
    """A pipe table; all columns but the first are aligned right."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _markdown(page):
    parts = [
        f"# {page['title']}",
        "\n\n".join(f"**{lead}** {more}".strip() for lead, more in page["summary"]),
    ]
    parts += ["; ".join(f"{name}: {value}" for name, value in page["facts"]) + "."]
    parts += (
        ["\n".join(f"- {note}" for note in page["report"]["notes"])]
        if page["report"]["notes"]
        else []
    )
    for title, note, header, rows in page["tables"]:
        parts += [f"## {title}", markdown_table(header, rows), note]
    parts += [
        f"## {title}\n\n![{title}](pictures/{name}.png)\n\n{caption}"
        for name, title, caption, *_ in page["pictures"]
    ]
    details = {key: page["report"][key] for key in ("settings", "versions")}
    return (
        "\n\n".join(
            [*parts, "## Settings and versions", f"```json\n{json.dumps(details, indent=1)}\n```"]
        )
        + "\n"
    )
