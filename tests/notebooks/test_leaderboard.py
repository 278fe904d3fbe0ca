import csv
import os
import subprocess
import sys

import numpy as np
import pytest

from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer
from keras_compress.datasets import assistant
from mobile_export.metadata import with_metadata
from notebooks import build, leaderboard
from tests.bert import tiny
from tests.mobile_export.conftest import LENGTH, converted

WORDS = "the a on off light alarm set cancel play call weather timer remind text search and to"
COSTS = {"bytes": 10, "ms": 1.0}
# A file that never ends, since no real one does.
MAIN = """
import sys, time
from notebooks import leaderboard
real = leaderboard.right_answers
leaderboard.right_answers = lambda path, *a: time.sleep(99) if path.stem == "sleeps" else real(path, *a)
leaderboard.main(sys.argv[1:])
"""


@pytest.mark.filterwarnings("ignore:.*(unknown to the vocabulary|longer than)")
def test_every_file_gets_its_line_and_the_accuracy_is_that_of_keras(tmp_path):
    labels = assistant.load().labels
    vocab = [*SPECIAL_PIECES, *WORDS.split(), *"bcdefgh", *(f"##{letter}" for letter in "abcdefgh")]
    config = tiny.config(vocab_size=len(vocab))
    model = TaskModel(config, Tokenizer(vocab), "classification", labels, seed=1)
    content, test = converted(model, "float32"), assistant.load(salt="s").test
    right = model.predict(test.texts, max_length=LENGTH).argmax(-1) == test.labels
    files = {"anna": with_metadata(content, model, "")}
    model.labels = labels[::-1]  # the same numbers mean something else
    files["bob/int8"] = with_metadata(content, model, "")
    model.labels = tuple("abcdefghijklmnopqrst")
    files |= {"other": with_metadata(content, model, ""), "bare": content, "noise": b"TFL3" * 99}
    model.labels, model.tokenizer = labels, Tokenizer([*vocab, "more"])
    files |= {"wide": with_metadata(content, model, ""), "sleeps": files["anna"]}
    files["damaged"] = files["anna"].replace(b"\nalarm\n", b"\nALARM\n")
    for name, bytes_ in files.items():
        path = tmp_path / "in" / f"{name}.tflite"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_)
    (tmp_path / "in" / "essay.txt").write_text("my model is at home")
    (tmp_path / "in" / "nothing").mkdir()

    command = [sys.executable, "-c", MAIN, tmp_path / "in", "--salt", "s", "--seconds", "8"]
    done = subprocess.run(
        [*command, "--out", tmp_path], cwd=build.FOLDER.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "leaderboard.csv", encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert float(rows["anna"]["accuracy"]) == pytest.approx(100 * right.mean())
    assert int(rows["anna"]["bytes"]) == len(files["anna"]) and float(rows["anna"]["ms"]) > 0
    assert rows["bob/int8"]["rank"] and rows["bob/int8"]["accuracy"] != rows["anna"]["accuracy"]
    for name, said in {
        "other": "other labels than the data: a, b",
        "bare": "no vocabulary and labels inside",
        "noise": "not a TFLite model",
        "wide": "more pieces in the vocabulary than rows",
        "damaged": "it was damaged",
        "sleeps": "stopped after 8 seconds",
        "essay.txt": "not a .tflite file",
        "nothing/": "a folder without .tflite files",
    }.items():
        assert said in rows[name]["note"] and not rows[name]["rank"], rows[name]
    assert len(rows) == 10
    page = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert page == done.stdout and f"| anna | {100 * right.mean():.1f} ± " in page


def test_standings_by_hand():
    """80, 80, 77 and 40 of 100 right: 3 texts fewer are a tie, 37 are none."""
    count = np.arange(100)
    scores = {"third": count < 40, "second": count < 77, "first": count < 80, "same": count < 80}
    rows = leaderboard.standings(
        scores, dict.fromkeys(scores, COSTS) | {"same": {"bytes": 9, "ms": 2}}
    )
    assert [row["name"] for row in rows] == [
        "same",
        "first",
        "second",
        "third",
    ]  # fewer bytes first
    assert [row["rank"] for row in rows] == [1, 1, 1, 4]
    assert [row["tied_with"] for row in rows] == [
        "first, second",
        "same, second",
        "same, first",
        "",
    ]
    # 3 of 100 differ: 3 points, SE sqrt(.03 .97 / 100) = 1.706
    assert rows[2]["minus_first"] == pytest.approx(-3) and rows[2]["se"] == pytest.approx(
        4.208, abs=1e-3
    )
    assert rows[2]["low"] == pytest.approx(-3 - 1.96 * 1.706, abs=1e-2)


def test_wrong_use_is_refused(tmp_path, capsys):
    for arguments, said in (
        ([str(tmp_path / "none"), "--salt", "s"], "MODELS must be a folder"),
        ([str(tmp_path), "--salt", ""], "`--salt` must not be empty"),
        ([str(tmp_path)], "--salt"),
    ):
        with pytest.raises(SystemExit):
            leaderboard.main(arguments)
        assert said in capsys.readouterr().err
    assert leaderboard.main([str(tmp_path), "--salt", "s", "--out", str(tmp_path / "out")]) == 0
    assert "0 files ranked" in capsys.readouterr().out and os.listdir(tmp_path / "out")
