"""The report of any folder of cells: report.json (for machines), report.md and report.html (for
people), with pictures; and its table for the terminal. What the tables hold stands in report.toml."""

import json
from base64 import b64encode
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape

from keras_compress.experiment import compare
from keras_compress.experiment.plots import pictures
from keras_compress.experiment.recipe import FOLDER, read_toml
from keras_compress.experiment.verdict import headline, in_words, to_ship
from keras_compress.experiment.words import NONE, WORDS, fill, markdown
from keras_compress.files import DATA_FOLDER, atomic_write, read_json, write_json

HERE = Path(__file__).parent
BLOCKS = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
PAGES = Environment(loader=FileSystemLoader(HERE), autoescape=select_autoescape(), **BLOCKS)
PAGES.filters["md"] = markdown
FILE_KEYS = tuple(
    "format bytes gzip_bytes latency_ms_p50 latency_ms_p90 accuracy agreement times_as_fast".split()
)
MODEL_KEYS = tuple(
    "name parameters encoder_parameters flops metric accuracy accuracy_se num_examples seeds agreement "
    "file_bytes latency_ms_p50 latency_ms_p90 files times_as_fast data role".split()
)


def report_of(folder):
    """The report of a folder of cells, of a run, or of a study by its name.

    Returns:
        dict, as JSON has it: `recipe`, `data`, `task`, `created`, `seconds`, `settings`, `versions`,
        `device`, `threads`, `sequence_length`, `notes` (list of str), `models` (dicts of MODEL_KEYS),
        `comparisons` (dicts with data, model, baseline, difference, low, high, n, verdict), `engines`
        (None, or model and rows of name, latency_ms_p50, latency_ms_p90), `curves` ({model: rows of
        stage, step, loss, ..}), `confusion` (None, or labels, matrix, model), `pooled` (rows of
        `pool_cells`), `ship` (rows of `verdict.to_ship`), `phones` (rows of phones/*.json: what `benchmark
        --adb --out` wrote there, or what the Android app shares) and `lines` (differences in words).
    Raises:
        ValueError: if there are no cells.
    """
    own = DATA_FOLDER / "results" / folder
    folder = own if own.is_dir() else Path(folder).resolve()
    run = read_json(path) if (path := folder / "run.json").is_file() else {}
    place = folder / run.get("cells", ".")
    cells = compare.read_cells(place)
    if not cells:
        raise ValueError(f"A study must have cells (run it first). Received: none in {folder}.")
    known = FOLDER / f"{folder.name}.toml"
    recipe = run.get("content") or (read_toml(known) if known.is_file() else {})
    entries = compare.entries_of(cells)
    costs = {path.stem: read_json(path) for path in place.glob("costs/*.json")}
    pooled = compare.pool_cells(entries, costs)
    models = [entry for entry in entries if not entry["file"]]
    sets = list(dict.fromkeys(entry["data"] for entry in entries))
    alone = len(cells) == len(models) and len(sets) == 1  # one seed and one data set
    engines, curves, confusions = (
        [entry for entry in models if key in entry and len(sets) == 1]
        for key in ("engines", "curve", "confusion")
    )
    timed = next((file for row in pooled for file in row["costs"].values()), {})
    return {
        "recipe": recipe.get("name", folder.name),
        "data": ", ".join(sets),
        "task": next((cell["task"] for cell in cells if "task" in cell), None),
        "created": run.get("created"),
        "seconds": run.get("spent"),
        "settings": run or None,
        "versions": run.get("versions"),
        **{key: timed.get(key) for key in ("device", "threads", "sequence_length")},
        "notes": _notes(run, cells, sets),
        "models": [_model(*both) for both in zip(entries, pooled) if not both[0]["file"]],
        "comparisons": [row for entry in models for row in _comparisons(entry, models)],
        "engines": next(({"model": e["method"], "rows": e["engines"]} for e in engines), None),
        "curves": {entry["method"]: entry["curve"] for entry in curves},
        "confusion": next(map(_confusion, sorted(confusions, key=lambda e: bool(e["role"]))), None),
        "pooled": pooled,
        "ship": to_ship(models, run.get("allow_drift")) if alone else [],
        "phones": [row for path in sorted(folder.glob("phones/*.json")) for row in _on_phone(path)],
        "lines": [
            f"{text}: {in_words(difference)}."
            for text, difference in compare.pooled_differences(entries, recipe.get("compare") or ())
        ],
    }


def _on_phone(path):
    """The rows of a phone, with `name` and `format` of each file, whose folder has the model's name, and `hot`."""
    told = read_json(path, listed=True)
    rows = told if isinstance(told, list) else told.get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{path}: `rows` must be a list of objects. Received: {rows!r:.100}. Measure again, or move it away."
        )
    for row in rows:
        file, heat = Path(str(row.get("path"))), row.get("thermal_after", "unknown")
        hot = row.get("throttled") or heat not in (
            "none",
            "unknown",
        )  # the app's word, Android's names
        name = {"name": file.parent.name, "format": file.stem}
        yield {**row, **name, "hot": "throttled" if hot else None}


def _model(entry, row):
    """A row of `models`: what `pool_cells` says of a model, and its sizes and times."""
    files = entry.get("files") or [{**file, "format": name} for name, file in row["costs"].items()]
    main = next((file for file in files if file["format"] == "float32"), [*files, {}][0])
    same = [cell["agreement"] for cell in entry["cells"] if cell.get("agreement") is not None]
    facts = {
        **main,
        **entry,
        **row,
        "name": row["method"],
        "agreement": float(np.mean(same)) if same else None,
        "file_bytes": main.get("bytes"),
        "files": [{key: file.get(key) for key in FILE_KEYS} for file in files],
    }
    return {key: facts.get(key) for key in MODEL_KEYS}


def _comparisons(entry, models):
    """A compressed model minus the predecessor, the control and the baselines of its size."""
    for other in models if not entry["role"] else ():
        fair = entry["size"] == other["size"] or None in (entry["size"], other["size"])
        if other["role"] in ("predecessor", "control") or (other["role"] == "baseline" and fair):
            pair = compare.difference_of(entry, [other])
            if pair:
                low, high = pair["low"], pair["high"]
                verdict = "better" if low > 0 else "worse" if high < 0 else "cannot tell"
                yield {"data": entry["data"], "model": entry["method"], **pair, "verdict": verdict}


def _confusion(entry):
    matrix = np.zeros([len(entry["labels"])] * 2, int)
    true, predicted, count = np.transpose(entry["confusion"])
    matrix[true, predicted] = count
    return {"labels": entry["labels"], "matrix": matrix.tolist(), "model": entry["method"]}


def _notes(run, cells, sets):
    words, notes = WORDS["notes"], list(run.get("notes", ()))
    files = [{**cell, **file} for cell in cells for file in cell.get("files", ())]
    for key in ("choice", "drift", "failed", "no_metadata"):
        notes += [fill(words[key], fact) for fact in (*cells, *files) if fact.get(key)]
    content = run.get("content", {})
    if "last" in content:
        notes.append(words["own_data"])
        if content["last"]:
            notes.append(fill(words["own_data_last"], {"last": ", ".join(content["last"])}))
    applies = {
        "parity": run,
        "quick": run.get("quick"),
        "one_seed": run and len({cell["seed"] for cell in cells}) == 1,
        "made_set": any(name.startswith("assistant") for name in sets),
    }
    notes += [note for cell in cells for note in cell.get("engine_notes", ())]
    used = {pair for cell in cells for pair in cell.get("versions", {}).items()}
    several = [f"{name} {v}" for name, v in sorted(used) if [n for n, _ in used].count(name) > 1]
    notes += [fill(words["versions"], {"several": ", ".join(several)})] if several else []
    notes += [words[key] for key, holds in applies.items() if holds]
    return list(dict.fromkeys(notes))


def write_report(folder, report):
    """Writes report.json, report.md, report.html and pictures/*.png of `report_of`.

    Returns:
        Path of report.html.
    """
    # JSON has no nan and no inf: they become null.
    report = json.loads(json.dumps(report), parse_constant=lambda name: None)
    write_json(Path(folder, "report.json"), report)
    drawn = pictures(report)
    for name, _, _, png in drawn:
        _write(Path(folder, "pictures", f"{name}.png"), png)
    facts = {"report": report, "pictures": drawn, "base64": b64encode}
    for name in ("report.md", "report.html"):
        _write(Path(folder, name), _page(name, **facts).encode())
    return Path(folder, "report.html")


def write_picture(report, path):
    """Writes the picture of all models' intervals, and beside it that of pre-training if there is any."""
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"`picture` must end in .png. Received: {path}.")
    names = {"intervals": path, "pretraining": path.with_stem(path.stem + "-curves")}
    for name, _, _, png in pictures(report):
        if name in names:
            _write(names[name], png)


def _write(path, content):
    with atomic_write(path, "wb") as file:
        file.write(content)


def table_text(report):
    """The Markdown table of a report, and below it what is pooled over data sets and sizes."""
    return _page("report.txt", report=report, metric=compare.metric_name(report["models"]))


def _page(template, **facts):
    table = lambda header, rows: markdown_table(header, [map(markdown, row) for row in rows])
    functions = {"headline": headline, "tables": tables, "markdown_table": table}
    return PAGES.get_template(template).render(functions, **facts)


def tables(report):
    """(title, note, header, rows of str) of each table; the first: results of all models and files."""
    models, pooled = report["models"], report["pooled"]
    first = {m["data"]: m["file_bytes"] for m in models if m["role"] == "predecessor"}
    engines = report["engines"]["rows"] if report["engines"] else []
    pretrained = any(row["pretraining"] for row in pooled)

    def sized(model, row):  # the data set is named where there are several
        large, small = first.get(model["data"]), row["bytes"]
        facts = {"name": model["name"], "smaller": large and small and large / small}
        return {**row, **facts, "data": None if model["data"] == report["data"] else model["data"]}

    every = [
        [row if pretrained else {**row, "parameters": None} for row in pooled],
        [sized(model, {**model, "bytes": model["file_bytes"]}) for model in models],
        [pair for pair in report["comparisons"] if pair["data"] == report["data"]],
        [sized(model, file) for model in models for file in model["files"]],
        [{**row, "time": row["latency_ms_p50"] / engines[0]["latency_ms_p50"]} for row in engines],
        _errors(**report["confusion"]) if report["confusion"] else [],
        report["ship"],
        report["phones"],
    ]
    for about, rows in zip(WORDS["table"], every):
        columns = about["columns"].items()
        columns = [[name, *(fill(form, row) for row in rows)] for name, form in columns]
        kept = [c for i, c in enumerate(columns) if i < about["keep"] or {*c[1:]} != {NONE}]
        header, *lines = zip(*kept)
        if lines:
            yield about["title"], fill(about["note"], report), header, lines


def _errors(labels, matrix, model):
    """The eight pairs of classes with most errors."""
    errors = [
        {"true": labels[i], "predicted": labels[j], "errors": count, "of": sum(row)}
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if count and i != j
    ]
    return sorted(errors, key=lambda row: -row["errors"])[:8]


def markdown_table(header, rows):
    """A pipe table; all columns but the first are aligned right."""
    lines = [header, ["---"] + ["--:"] * (len(header) - 1), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
