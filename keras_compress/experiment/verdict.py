"""What a report comes to: what compression cost and gained, in words, and which files to ship."""

import math

from keras_compress.experiment.compare import metric_name
from keras_compress.experiment.words import PAIR, WORDS, fill

NOISE = 0.15  # equal work, timed twice on a machine that others use, differed by up to 8 %
MAX_FALL = 0.02  # no file is shipped whose whole 95 % interval lies so far below the predecessor


def to_ship(entries, drifted=False):
    """The best files by point estimates; those of the predecessor and of the baselines count, too.

    Args:
        entries: of `compare.entries_of`, of one seed and data set. drifted: whether files count that
            drifted from Keras.
    Returns:
        list of dicts: `best` ("smallest", "fastest", "most accurate"), `name` and `role` of the model,
        `format`, `bytes`, `times_as_fast`, `accuracy`, `vs_predecessor` (paired, minus the model itself).
    """
    files = [
        {**file, "name": entry["method"], "role": entry["role"]}
        for entry in entries
        for file in entry.get("files", ())
        if "vs_predecessor" in file and (drifted or not file.get("drift"))
    ]
    files = [file for file in files if file["vs_predecessor"]["high"] >= -MAX_FALL]
    if not files:
        return []
    keys = "name role format bytes times_as_fast accuracy vs_predecessor".split()
    best = {
        "smallest": min(files, key=lambda file: (file["bytes"], -file["accuracy"])),
        "fastest": max(files, key=lambda file: (file["times_as_fast"], file["accuracy"])),
        "most accurate": max(files, key=lambda file: (file["accuracy"], -file["bytes"])),
    }
    return [{"best": what} | {key: file[key] for key in keys} for what, file in best.items()]


def headline(report):
    """What compression cost and gained: (sentence, further sentences) of each compressed model, plain
    when it did not pay, too; of several data sets the pooled differences."""
    rows, result, words = report["models"], [], WORDS["headline"]
    if len({row["data"] for row in rows}) > 1 and report["lines"]:
        return [(line, "") for line in report["lines"]]
    first = next((row for row in rows if row["role"] == "predecessor"), {"accuracy": None})
    linear = next((row["accuracy"] for row in rows if row["name"] == "tfidf"), 0)
    for row in [row for row in rows if not row["role"] and first["accuracy"] is not None]:
        share = row["accuracy"] / first["accuracy"] if first["accuracy"] else 1
        verb = "reaches" if share > 1 else "keeps" if share >= 0.9 else "keeps only"
        part = f"{verb} {100 * share:.1f} % of" if first["accuracy"] else "stands beside"
        text = (
            f"{row['name']} {part} the predecessor's {metric_name(rows)} "
            f"({100 * row['accuracy']:.1f} against {100 * first['accuracy']:.1f} %)"
        )
        if row["file_bytes"] and first["file_bytes"]:
            text += f" at {100 * row['file_bytes'] / first['file_bytes']:.0f} % of the size"
        if row["times_as_fast"]:
            text += _speed(row, first)
        more = [
            fill(WORDS["verdicts"][pair["verdict"]], {**pair, "size": abs(pair["difference"])})
            for pair in report["comparisons"]
            if pair["model"] == row["name"] and pair["baseline"] != first["name"]
        ]
        if linear >= row["accuracy"]:
            more.append(fill(words["linear"], {"accuracy": linear}))
        result.append((text + ".", " ".join(more)))
    return (result or [(words["nothing"], "")]) + _ship(report["ship"])


def _ship(files):
    """What to ship in words, for `headline`; where the predecessor, rounded, is best, this is said."""
    words, best = WORDS["headline"], {}
    for file in files:
        best.setdefault((file["name"], file["format"]), []).append(file)
    if not files:
        return []
    one_of = lambda names: ", ".join(names[:-1]) + " and " * (len(names) > 1) + names[-1]
    named = {key: one_of([file["best"] for file in same]) for key, same in best.items()}
    lines = [fill(words["file"], {**same[0], "best": named[key]}) for key, same in best.items()]
    rounded = [
        named[key]
        for key, (file, *_) in best.items()
        if file["role"] == "predecessor" and file["format"].startswith("int")
    ]
    more = fill(words["rounded"], {"best": rounded[0]}) if rounded else ""
    unsure = [
        x for x, (file, *_) in best.items() if file["vs_predecessor"]["difference"] < -MAX_FALL
    ]
    if unsure:
        named = {"fall": MAX_FALL, "files": one_of([" ".join(names) for names in unsure])}
        more = f"{more} {fill(words['unsure'], named)}".strip()
    return [(fill(words["ship"], {"fall": MAX_FALL, "files": "; ".join(lines)}), more)]


def _speed(row, first):
    faster = row["times_as_fast"]
    share = (row["flops"] or 0) / (first["flops"] or math.inf)
    if share >= 0.99 and abs(faster - 1) < NOISE:
        return f" but computes as much as before (speed measured: {faster:.2f}x)"
    if 0.95 < faster < 1.05:
        return " but runs no faster"
    if faster > 1:
        return f" and runs {faster:.1f}x faster"
    return f" but runs {1 / faster:.1f}x slower"


def in_words(pooled):
    """A pooled difference with its interval, seed by seed and data set by data set."""
    seeds = ", ".join(f"{100 * value:+.1f}" for value in pooled["by_seed"])
    each = [f"{data} {fill(PAIR, pair)}" for data, pair in pooled["by_set"].items()]
    more = f"; {', '.join(each)}" * (len(each) > 1)
    return f"{fill(PAIR, pooled)}, SE {100 * pooled['se']:.2f}; seed by seed {seeds}{more}"
