"""The report of any folder of cells: report.json (for machines), report.md and report.html (for
people), with pictures; and its table for the terminal."""

import base64
import itertools
import json
import math
import string
from pathlib import Path

import numpy as np

from keras_compress.experiment.compare import (
    cost_of,
    difference_of,
    entries_of,
    pool_cells,
    pooled_differences,
    read_cells,
    read_costs,
)
from keras_compress.experiment.recipe import FOLDER, read_toml
from keras_compress.files import DATA_FOLDER, atomic_write, read_json
from keras_compress.measure.accuracy import metric_name

FILE_KEYS = (
    *("format", "bytes", "gzip_bytes", "latency_ms_p50", "latency_ms_p90", "accuracy", "agreement"),
    "times_as_fast",
)
MODEL_KEYS = (
    *("name", "parameters", "encoder_parameters", "flops", "metric", "accuracy", "accuracy_se"),
    *(
        "num_examples",
        "seeds",
        "agreement",
        "file_bytes",
        "latency_ms_p50",
        "latency_ms_p90",
        "files",
    ),
    *("times_as_fast", "data", "role"),
)
NOISE = 0.15  # equal work, timed twice on a machine that others use, differed by up to 8 %
MADE_SET = (
    "assistant is a made set: its sentences come from a grammar written for this project. It shows that the "
    "path works; claims about methods rest on public sets."
)
NONE = "–"
# Tables: {column: format of a row}; a cell is empty where a value is missing, % signs are left out.
PAIR = "{X[difference]:+.1%} [{X[low]:+.1%}, {X[high]:+.1%}]"
TIMES = {
    "ms p50 / p90": "{latency_ms_p50:,.2f} / {latency_ms_p90:,.2f}",
    "faster": "{times_as_fast:.2f}×",
}
RESULTS = {
    "data": "{data}",
    "method": "{method}",
    "test, % ± SE": "{accuracy:.1%} ± {accuracy_se:.1%}",
    "SD of seeds": "{seed_spread:.1%}",
    "minus the better baseline [95 %]": PAIR.replace("X", "vs_baseline")
    + " ({vs_baseline[baseline]})",
    "minus predecessor [95 %]": PAIR.replace("X", "vs_predecessor"),
    "seeds": "{seeds:,}",
    "examples": "{num_examples}",
    "MB float / int8": "{costs[float32][bytes]:.1M} / {costs[int8][bytes]:.1M}",
    "times as fast float / int8": "{costs[float32][times_as_fast]:.2f} / {costs[int8][times_as_fast]:.2f}",
    "file, MB": "{bytes:.2M}",
    "gzip, MB": "{gzip_bytes:.2M}",
    "parameters": "{parameters:,}",
    "masked words, dev %": "{pretraining[dev]:.1%}",
    "sentences, dev % ± SE": "{pretraining[sentence_accuracy]:.1%} ± {pretraining[sentence_se]:.1%}",
    "by length alone, %": "{pretraining[sentence_by_length]:.1%}",
}
SIZES = {
    "model": "{name}",
    "data": "{data}",
    "agreement, %": "{agreement:.1%}",
    "parameters": "{parameters:,}",
    "encoder": "{encoder_parameters:,}",
    "GFLOPs": "{flops:,.2G}",
    "MB": "{file_bytes:,.1M}",
    "bytes": "{file_bytes:,}",
    "smaller": "{smaller:.2f}×",
    **TIMES,
}
FILES = {
    "file": "{name} {format}",
    "data": "{data}",
    "MB": "{bytes:,.1M}",
    "MB, gzip": "{gzip_bytes:,.1M}",
    "bytes": "{bytes:,}",
    "smaller": "{smaller:.2f}×",
    "accuracy or F1, %": "{accuracy:.1%}",
    "agreement, %": "{agreement:.1%}",
    **TIMES,
}
PAIRS = {
    "model": "{model}",
    "minus": "{baseline}",
    "difference": "{difference:+.1%}",
    "95 % interval": "{low:+.1%} to {high:+.1%}",
    "verdict": "{verdict}",
    "examples": "{n:,}",
}
ENGINES = {
    "engine": "{name}",
    "ms p50 / p90": TIMES["ms p50 / p90"],
    "time": "{time:.2f}",
}
CONFUSIONS = {"true": "{true}", "predicted": "{predicted}", "errors": "{errors}", "of": "{of:,}"}


class _Form(string.Formatter):
    """Formats with M and G for millions and billions, lists with commas, and without % signs."""

    def format_field(self, value, spec):
        if value is None or value == []:
            raise ValueError
        if isinstance(value, list):
            return ", ".join(map(str, value))
        scale = {"M": 1e6, "G": 1e9}.get(spec[-1:])
        return format(value / scale, spec[:-1] + "f") if scale else format(value, spec).rstrip("%")


def fill(form, row):
    """A format string with the values of a row; NONE where a value is missing."""
    try:
        return _Form().vformat(form, (row,), row)
    except (TypeError, KeyError, ValueError):
        return NONE


def table(columns, rows, keep=1):
    """[header, *rows of str]; after the first `keep` columns those without any value are left out."""
    lines = [[fill(form, row) for form in columns.values()] for row in rows]
    kept = [i < keep or any(line[i] != NONE for line in lines) for i in range(len(columns))]
    return [list(itertools.compress(line, kept)) for line in (columns, *lines)]


def report_of(folder):
    """The report of a folder of cells, of a run, or of a study by its name.

    Returns:
        dict, as JSON has it: `recipe`, `data`, `task`, `created`, `seconds`, `settings`, `versions`,
        `device`, `threads`, `sequence_length`, `notes` (list of str), `models` (dicts that all have
        every one of MODEL_KEYS), `comparisons` (dicts with data, model, baseline, difference, low,
        high, n), `engines` (None, or model and rows of name, latency_ms_p50, latency_ms_p90),
        `curves` ({model: rows of stage, step, loss, ..}), `confusion` (None, or labels, matrix,
        model), `pooled` (rows of `pool_cells` with `costs`) and `lines` (differences in words).
    Raises:
        ValueError: if there are no cells.
    """
    own = DATA_FOLDER / "results" / str(folder)
    folder = own if own.is_dir() else Path(folder)
    run = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    place = folder / run.get("cells", ".")
    cells, costs = read_cells(place), read_costs(place)
    if not cells:
        raise ValueError(
            f"A study must have cells (run it first). Received: {folder}, which has none."
        )
    name = run["content"]["name"] if run else folder.resolve().name
    known = FOLDER / f"{name}.toml"
    recipe = run.get("content") or (read_toml(known) if known.is_file() else {})
    entries, pooled = entries_of(cells), pool_cells(cells)
    for row, entry in zip(pooled, entries):
        row["costs"] = {} if "file" in entry else cost_of(entry, costs)
    models = [_model(*both) for both in zip(pooled, entries) if "file" not in both[1]]
    sets = list(dict.fromkeys(row["data"] for row in pooled))
    alone = [e for e in entries if "file" not in e and len(sets) == 1]
    shown = sorted((e for e in alone if "confusion" in e), key=lambda e: bool(e.get("role")))
    timed = next((file for row in pooled for file in row["costs"].values()), {})
    lines = pooled_differences(cells, recipe.get("compare") or ())
    return {
        "recipe": name,
        "data": ", ".join(sets),
        "task": next((cell["task"] for cell in cells if "task" in cell), None),
        "created": run.get("created"),
        "seconds": run.get("spent"),
        "settings": run or None,
        "versions": run.get("versions"),
        **{key: timed.get(key) for key in ("device", "threads", "sequence_length")},
        "notes": [*run.get("notes", ()), *_notes(run, cells, sets)],
        "models": models,
        "comparisons": [row for entry in entries for row in _comparisons(entry, entries)],
        "engines": next(
            ({"model": e["method"], "rows": e["engines"]} for e in alone if "engines" in e), None
        ),
        "curves": {e["method"]: e["curve"] for e in alone if "curve" in e},
        "confusion": _confusion_of(shown[0]) if shown else None,
        "pooled": pooled,
        "lines": [f"{text}: {in_words(difference)}." for text, difference in lines],
    }


def _model(row, entry):
    """A row of `models`: what `pool_cells` says of a model, and its sizes and times."""
    files = entry.get("files") or [{**file, "format": name} for name, file in row["costs"].items()]
    main = next((f for f in files if f["format"] == "float32"), next(iter(files), {}))
    same = [cell["agreement"] for cell in entry["cells"] if "agreement" in cell]
    facts = {
        **main,
        **row,
        **{key: entry.get(key) for key in ("encoder_parameters", "flops")},
        "name": row["method"],
        "agreement": float(np.mean(same)) if same else None,
        "file_bytes": main.get("bytes"),
        "files": [{key: file.get(key) for key in FILE_KEYS} for file in files],
    }
    return {key: facts.get(key) for key in MODEL_KEYS}


def _comparisons(entry, entries):
    """A compressed model minus the predecessor, the control and the baselines of its size."""
    for other in entries if not entry.get("role") and "file" not in entry else ():
        sizes = {entry.get("size"), other.get("size")}
        fair = len(sizes) == 1 or None in sizes
        if "file" not in other and other.get("role") in ("predecessor", "control", "baseline"):
            difference = (fair or other["role"] != "baseline") and difference_of(entry, [other])
            if difference:
                yield {"data": entry["data"], "model": entry["method"], **difference}


def _confusion_of(entry):
    matrix = np.zeros([len(entry["labels"])] * 2, int)
    for true, predicted, count in entry["confusion"]:
        matrix[true, predicted] = count
    return {"labels": entry["labels"], "matrix": matrix.tolist(), "model": entry["method"]}


def _notes(run, cells, sets):
    notes = [f"{c['method']} on {c['data']}: {c['choice']}." for c in cells if "choice" in c]
    files = [(cell["method"], file) for cell in cells for file in cell.get("files", ())]
    notes += [
        f"{name} {file['format']} was written although {file['drift']}."
        for name, file in files
        if file.get("drift")
    ]
    reasons = dict.fromkeys(file["no_metadata"] for _, file in files if file.get("no_metadata"))
    notes += [f"The .tflite files hold no metadata: {reason}." for reason in reasons]
    notes += [note for cell in cells for note in cell.get("engine_notes", ())]
    if run:
        notes.append(
            "Parity of the exported files with Keras: see the cells. Size and latency of a model are "
            "those of its float32 file, or of its first; batch 1."
        )
    if run.get("quick"):
        notes.append("A quick run on a part of the data: it shows the path, not results.")
    if run and len({cell["seed"] for cell in cells}) == 1:
        notes.append("One seed. What other seeds and public data give: data/results/README.md.")
    return notes + [MADE_SET] * any(name.startswith("assistant") for name in sets)


def write_report(folder, report):
    """Writes report.json, report.md, report.html and pictures/*.png of `report_of`.

    Returns:
        Path of report.html.
    """
    from jinja2 import Environment, FileSystemLoader

    from keras_compress.experiment.plots import pictures

    report = _plain(report)
    folder, drawn = Path(folder), pictures(report)
    for name, _, _, png in drawn:
        with atomic_write(folder / "pictures" / f"{name}.png", "wb") as file:
            file.write(png)
    page = {
        "report": report,
        "summary": headline(report),
        "tables": _tables(report),
        "pictures": drawn,
        "base64": lambda png: base64.b64encode(png).decode(),
        "width": lambda png: int.from_bytes(png[16:20], "big") // 2,  # in CSS pixels
        "markdown_table": markdown_table,
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name.endswith("html"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("report.md", "report.html"):
        with atomic_write(folder / name) as file:
            file.write(environment.get_template(name).render(page) + "\n")
    with atomic_write(folder / "report.json") as file:
        json.dump(report, file, indent=1, ensure_ascii=False, allow_nan=False)
    return folder / "report.html"


def write_picture(report, path):
    """Writes the picture of all models' intervals, and beside it that of pre-training if there is any."""
    from keras_compress.experiment.plots import pictures

    path = Path(path)
    names = {"intervals": path, "pretraining": path.with_stem(path.stem + "-curves")}
    for name, _, _, png in pictures({**report, "models": [], "curves": {}, "confusion": None}):
        if name in names:
            with atomic_write(names[name], "wb") as file:
                file.write(png)


def _plain(value):
    """The same with plain Python values; numbers that JSON lacks (nan, inf) become None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def headline(report):
    """What compression cost and gained: (sentence, further sentences) of each compressed model, plain
    when it did not pay, too; of several data sets the pooled differences."""
    rows = report["models"]
    if len({row["data"] for row in rows}) > 1 and report["lines"]:
        return [(line, "") for line in report["lines"]]
    first = next((row for row in rows if row["role"] == "predecessor"), None)
    linear = next((row["accuracy"] for row in rows if row["name"] == "tfidf"), 0)
    result = []
    for row in rows if first and first["accuracy"] else ():
        if row["role"]:
            continue
        share = row["accuracy"] / first["accuracy"]
        verb = "reaches" if share > 1 else "keeps" if share >= 0.9 else "keeps only"
        text = (
            f"{row['name']} {verb} {100 * share:.1f} % of the predecessor's {metric_name(rows)} "
            f"({100 * row['accuracy']:.1f} against {100 * first['accuracy']:.1f} %)"
        )
        if row["file_bytes"] and first["file_bytes"]:
            text += f" at {100 * row['file_bytes'] / first['file_bytes']:.0f} % of the size"
        if row["times_as_fast"]:
            text += _speed(row, first)
        more = [
            fill(_verdict(pair)[1], pair)
            for pair in report["comparisons"]
            if pair["model"] == row["name"] and pair["baseline"] != first["name"]
        ]
        if linear >= row["accuracy"]:
            more.append(
                "A linear model on TF-IDF does as well or better without any BERT "
                f"({100 * linear:.1f} %)."
            )
        result.append((text + ".", " ".join(more)))
    return result or [
        (
            "No compressed model stands beside its predecessor here; the tables show what was measured.",
            "",
        )
    ]


def _speed(row, first):
    faster = row["times_as_fast"]
    as_much = (row["flops"] or 0) >= 0.99 * (first["flops"] or math.inf)
    if as_much and abs(faster - 1) < NOISE:
        return f" but computes as much as before (speed measured: {faster:.2f}x)"
    if faster >= 1.05:
        return f" and runs {faster:.1f}x faster"
    return f" but runs {1 / faster:.1f}x slower" if faster <= 0.95 else " but runs no faster"


def _verdict(pair):
    """(verdict, sentence) of a difference with its interval."""
    interval = "(95 % interval {low:+.1%} to {high:+.1%})"
    if pair["low"] > 0:
        return "better", f"It is {{difference:.1%}} points better than {{baseline}} {interval}."
    if pair["high"] < 0:
        points = f"{-100 * pair['difference']:.1f}"
        return (
            "worse",
            f"It is {points} points worse than {{baseline}} {interval}: here the method did not pay.",
        )
    return (
        "cannot tell",
        f"Its difference from {{baseline}}, {{difference:+.1%}} points {interval}, is too small to tell "
        "on {n:,} examples.",
    )


def in_words(pooled):
    """A pooled difference with its interval, seed by seed and data set by data set."""
    seeds = ", ".join(f"{100 * value:+.1f}" for value in pooled["by_seed"])
    each = [f"{data} {fill(PAIR, {'X': pair})}" for data, pair in pooled["by_set"].items()]
    more = f"; {', '.join(each)}" * (len(each) > 1)
    return f"{fill(PAIR, {'X': pooled})}, SE {100 * pooled['se']:.2f}; seed by seed {seeds}{more}"


def results(report):
    """(header, rows of str) of the results of all models and files."""
    made = any(row["pretraining"] for row in report["pooled"])
    columns = {k: v for k, v in RESULTS.items() if made or k != "parameters"}
    return table(columns, report["pooled"], keep=8)


def table_text(report):
    """The Markdown table of a report, and below it what is pooled over data sets and sizes."""
    lines = [markdown_table(*results(report)), ""]
    lines.append(
        "Mean over seeds. SE and intervals are over test examples (paired, averaged over seeds first)."
    )
    if report["device"]:
        lines.append(
            f"Times as fast: median latency of the predecessor's float file over this file's, both measured "
            f"in one process; {report['device']}, {report['threads']} thread, batch 1, "
            f"{report['sequence_length']} pieces."
        )
    metric = metric_name(report["models"])
    if metric != "accuracy":
        lines.append(f"Tagging sets: {metric}, bootstrap over sentences.")
    lines += [note for note in report["notes"] if note == MADE_SET]
    return "\n".join([*lines, *report["lines"]]) + "\n"


def _tables(report):
    """List of (title, note, header, rows of str)."""
    sets, engines = {report["data"]}, report["engines"] or {"model": "", "rows": []}
    first = {m["data"]: m["file_bytes"] for m in report["models"] if m["role"] == "predecessor"}

    def smaller(row, model):
        sizes = first.get(model["data"]), row.get("file_bytes", row.get("bytes"))
        data = None if model["data"] in sets else model["data"]
        return {**row, "data": data, "smaller": sizes[0] / sizes[1] if all(sizes) else None}

    files = [smaller({**f, "name": m["name"]}, m) for m in report["models"] for f in m["files"]]
    pairs = [{**c, "verdict": _verdict(c)[0]} for c in report["comparisons"] if c["data"] in sets]
    base = engines["rows"] and engines["rows"][0]["latency_ms_p50"]
    tables = [
        (
            "Results",
            "On test. ± is one standard error over the test examples. Intervals: 95 %, paired.",
            results(report),
        ),
        (
            "Sizes and times",
            "Smaller and faster: against the predecessor. Encoder: transformer layers alone. "
            "1 MB = 1,000,000 bytes.",
            table(SIZES, [smaller(model, model) for model in report["models"]]),
        ),
        (
            "Paired differences",
            "In points, on the same test examples; a difference counts where the interval "
            "excludes zero.",
            table(PAIRS, pairs),
        ),
        ("Exported files", "Agreement: with the predecessor.", table(FILES, files)),
        (
            "Engines",
            f"The exported graph of {engines['model']} in one process, one thread, batch 1, taking turns "
            "after a warm-up; ONNX Runtime with all of its optimisations. Time: over that of the first row.",
            table(ENGINES, [{**r, "time": r["latency_ms_p50"] / base} for r in engines["rows"]]),
        ),
        (
            "Most frequent confusions",
            f"Of {(report['confusion'] or {}).get('model')}.",
            table(CONFUSIONS, _errors(**(report["confusion"] or {}))[:8]),
        ),
    ]
    return [(title, note, header, rows) for title, note, (header, *rows) in tables if rows]


def _errors(labels=(), matrix=(), model=None):
    """Pairs of classes by the number of errors, most first."""
    errors = [
        {"true": labels[i], "predicted": labels[j], "errors": count, "of": sum(row)}
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if count and i != j
    ]
    return sorted(errors, key=lambda row: -row["errors"])


def markdown_table(header, *rows):
    """A pipe table; all columns but the first are aligned right. `rows` may be one list of them."""
    rows = rows[0] if len(rows) == 1 and rows[0] and isinstance(rows[0][0], (list, tuple)) else rows
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
