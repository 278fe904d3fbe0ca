"""Ranks handed-in .tflite files on texts of `assistant` that did not exist before.

    python -m notebooks.leaderboard models --salt SECRET    into grades/leaderboard.csv and grades/leaderboard.md

MODELS holds NAME.tflite, or folders NAME with such files: classifiers, as `keras_compress export` writes them. A rank
is 1 + the number of files that are better beyond the paired 95 % interval: files that tie may share it.
"""

import argparse
import csv
import os
import sys
import zipfile
from pathlib import Path

import numpy as np

from keras_compress.bert.tokenizer import Tokenizer
from keras_compress.datasets import assistant
from keras_compress.experiment.report import markdown_table
from keras_compress.measure.accuracy import paired_difference, value_and_error
from mobile_export import litert
from mobile_export.benchmark import benchmark
from notebooks import sandbox

COLUMNS = "rank name accuracy se minus_first low high tied_with bytes ms note".split()
CELLS = {
    "rank": "{rank}",
    "model": "{name}",
    "accuracy, % ± SE": "{accuracy:.1f} ± {se:.1f}",
    "minus the first [95 %]": "{minus_first:+.1f} [{low:+.1f}, {high:+.1f}]",
    "tied with": "{tied_with}",
    "bytes": "{bytes:,}",
    "ms": "{ms:.2f}",
}


def handed_in(place):
    """{name: path, or in words why there is none} of what lies in a folder."""
    found = {}
    for entry in sorted(place.iterdir()):
        if entry.name.startswith((".", "__MACOSX")):
            continue
        inside = sorted(entry.rglob("*.tflite")) if entry.is_dir() else [entry]
        if not inside:
            found[f"{entry.name}/"] = "a folder without .tflite files"
        for path in inside:
            is_model = path.suffix == ".tflite" and path.is_file()
            name = path.relative_to(place).as_posix()
            found[name.removesuffix(".tflite")] = path if is_model else "not a .tflite file"
    return found


def right_answers(path, split, labels):
    """Which texts a file answers rightly, bool (n,). ValueError if it is no classifier with these labels."""
    runner = litert.Runner(path)
    if not zipfile.is_zipfile(path):
        raise ValueError("no vocabulary and labels inside: another task, or no BERT tokenizer")
    with zipfile.ZipFile(path) as archive:
        texts = [archive.read(name).decode() for name in ("vocab.txt", "labels.txt")]
    vocab, names = (text.removesuffix("\n").split("\n") for text in texts)
    if {*names} != {*labels} or runner.output_shape != (len(names),):
        raise ValueError(f"other labels than the data: {', '.join(names)}")
    if len(vocab) > runner.vocab_size:
        raise ValueError("more pieces in the vocabulary than rows in the embedding matrix")
    encodings = Tokenizer(vocab).encode(split.texts, runner.sequence_length)
    answers = np.stack(runner.forward(encodings))  # (n, classes)
    if not np.isfinite(answers).all():
        raise ValueError("answers that are not finite")
    return np.array(names)[answers.argmax(axis=-1)] == np.array(labels)[split.labels]


def examined(found, dataset, seconds):
    """({name: bool (n,)}, {name: why it is not ranked}); each file runs in a process of its own."""

    def task(path, send):
        try:
            send({"right": right_answers(path, dataset.test, dataset.labels).tolist()})
        except Exception as error:  # a file may be anything: all that happens belongs into its line
            told = sandbox.summary(error).replace(f"{path}: ", "")
            send({"error": told.removeprefix("ValueError: ")})

    litert._interpreter_class()  # imports the runtime, which the sandbox would refuse
    notes = {name: path for name, path in found.items() if isinstance(path, str)}
    tasks = {n: lambda send, n=n: task(found[n], send) for n in found if n not in notes}
    scores = {}
    for name, (messages, why) in sandbox.run(tasks, seconds).items():
        told = messages[0] if messages else {"error": why or "the process that ran it ended early"}
        if "error" in told:
            notes[name] = told["error"]
        else:
            scores[name] = np.array(told["right"])
    return scores, notes


def standings(scores, costs):
    """Rows with the keys COLUMNS, the best first: by accuracy, then by cost. Accuracies are in %.

    Args:
        scores: {name: bool (n,)}. costs: {name: {"bytes": int, "ms": float}}.
    """
    order = sorted(scores, key=lambda n: (-scores[n].mean(), costs[n]["bytes"], costs[n]["ms"]))
    rows = []
    for name in order:
        pairs = {o: paired_difference("accuracy", scores[name], scores[o]) for o in order}
        better = sum(pair["high"] < 0 for pair in pairs.values())
        ties = [o for o in order if pairs[o]["low"] <= 0 <= pairs[o]["high"] and o != name]
        accuracy = value_and_error("accuracy", scores[name][None])
        first = (pairs[order[0]][key] for key in ("difference", "low", "high"))
        points = zip(COLUMNS[2:7], (100 * value for value in (*accuracy, *first)))
        told = {"rank": 1 + better, "name": name, "tied_with": ", ".join(ties)}
        rows.append({**told, **dict(points), **costs[name]})
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m notebooks.leaderboard", description="Ranks handed-in .tflite files."
    )
    parser.add_argument("models", metavar="MODELS", type=Path, help="what was handed in")
    parser.add_argument("--salt", required=True, help="a secret text that makes the test texts")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="(default: en)")
    parser.add_argument("--seconds", type=float, default=600, help="for a file (default: 600)")
    parser.add_argument("--out", type=Path, default=Path("grades"), help="folder (default: grades)")
    options = parser.parse_args(arguments)
    if not options.models.is_dir():
        parser.error(f"MODELS must be a folder. Received: {options.models}. Give one that exists.")
    if not options.salt:
        parser.error("`--salt` must not be empty. Choose a text that nobody can guess.")
    if not hasattr(os, "fork"):
        parser.error("Ranking forks processes, which Windows cannot do. Use Linux, macOS or WSL.")
    dataset, found = assistant.load(options.language, salt=options.salt), handed_in(options.models)
    scores, notes = examined(found, dataset, options.seconds)
    times = benchmark(*map(found.get, scores)) if scores else []  # in turns
    size = lambda name: found[name].stat().st_size
    costs = {n: {"bytes": size(n), "ms": t["latency_ms_p50"]} for n, t in zip(scores, times)}
    rows = standings(scores, costs)
    parts = [f"{dataset.name}: {len(dataset.test.texts):,} new texts, {len(rows)} files ranked"]
    parts += [markdown_table([*CELLS], [[c.format(**row) for c in CELLS.values()] for row in rows])]
    parts += [markdown_table(("not ranked", "why"), notes.items())] * bool(notes)
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "leaderboard.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows + [{"name": name, "note": note} for name, note in notes.items()])
    page = options.out / "leaderboard.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(page.read_text(encoding="utf-8"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
