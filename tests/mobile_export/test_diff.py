"""Two versions of a file side by side: which answers change, and what that costs or gains."""

import json
from pathlib import Path

import numpy as np
import pytest

from keras_compress.cli import main
from keras_compress.cli.exported import _change
from mobile_export import diff
from mobile_export.convert import export
from tests.mobile_export.conftest import LENGTH, split_of, texts, tiny


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """{task: (old file, new file, Split labelled by the old one)}, the new one of another classifier."""
    made = {}
    for task in ("classification", "tagging"):
        paths, model = [], tiny(task)
        split = split_of(model)
        for version in ("old", "new"):
            folder = tmp_path_factory.mktemp(f"{task}-{version}")
            (row,) = export(model, folder, ("float32",), sequence_length=LENGTH, parity_texts=2)
            paths.append(row["path"])
            weights = model.weights()["classifier/bias"] + [1.5, 0, 0]
            model.set_weights({"classifier/bias": weights}, only=["classifier/bias"])
        made[task] = (*paths, split)
    return made


def test_changed_answers_have_their_texts(versions):
    old, new, split = versions["classification"]
    found = diff.compare_files(*map(diff.opened, (old, new)), *split)
    changed, n = found["changed"], len(split.texts)
    assert 0 < len(changed) < n and found["agreement"] == 1 - len(changed) / n
    assert all(row["old"] == row["right"] != row["new"] == "red" for row in changed)
    assert {row["text"] for row in changed} <= {*split.texts}
    assert (found["old_value"], found["new_value"]) == (1.0, 1 - len(changed) / n)
    # n texts, k of them lost: -k/n, and 1.96 sqrt(k/n (1 - k/n) / n) to both sides
    share = len(changed) / n
    half = 1.96 * (share * (1 - share) / n) ** 0.5
    assert [found[key] for key in ("difference", "low", "high")] == pytest.approx(
        [-share, -share - half, -share + half]
    )
    assert 0.2 < found["time"] < 5
    sizes = [len(open(path, "rb").read()) for path in (old, new)]
    assert [found["old_bytes"], found["new_bytes"]] == sizes
    same = diff.compare_files(*map(diff.opened, (old, old)), split.texts)
    assert same["agreement"] == 1.0 and not same["changed"] and "metric" not in same
    json.dumps([found, same])


def test_tagged_words(versions):
    old, new, split = versions["tagging"]
    found = diff.compare_files(*map(diff.opened, (old, new)), *split)
    assert found["metric"] == "entity_f1" and found["changed"]
    for row in found["changed"]:
        words = row["text"].split(" ")
        assert len(words) == len(row["old"]) == len(row["new"]) == len(row["right"])
        assert row["old"] != row["new"] and row["old"] == row["right"]


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_names_and_numbers_in_words(task, monkeypatch):
    answers = {
        "multilabel": [np.float32([[0.9, 0.2], [0.6, 0.6]]), np.float32([[0.9, 0.7], [0.6, 0.6]])],
        "regression": [np.float32([1.0, 4.0]), np.float32([1.1, 3.5])],  # .05 of the largest is .2
    }[task]
    labels = {"multilabel": ("a", "b"), "regression": ("score",)}[task]

    old, new = (
        diff.SimpleNamespace(
            task=task,
            labels=labels,
            threshold=0.5,
            num_bytes=1,
            predict=lambda texts, rows=rows: rows,
        )
        for rows in answers
    )
    monkeypatch.setattr(diff, "_time", lambda *_: 1.0)
    gold = {"multilabel": [[0], [0, 1]], "regression": [1.0, 3.0]}[task]
    found = diff.compare_files(old, new, ["x", "y"], gold)
    if task == "multilabel":
        assert found["changed"] == [{"text": "x", "old": ["a"], "new": ["a", "b"], "right": ["a"]}]
        assert found["agreement"] == 0.75
    else:
        assert found["changed"] == [{"text": "y", "old": 4.0, "new": 3.5, "right": 3.0}]
        assert found["agreement"] is None


def test_a_changed_answer_is_a_line():
    row = {"text": ("a b", "c"), "old": -0.5174692273139954, "new": 2.0, "right": 1.5}
    assert _change(row) == "  -0.5175 -> 2 (right: 1.5): a b | c"
    assert _change({"text": "x", "old": ["O", "B-a"], "new": ["O", "O"]}) == "  O B-a -> O O: x"


def test_the_verb_and_what_it_refuses(versions, tmp_path, capsys):
    old, new, split = versions["classification"]
    data = tmp_path / "data"
    data.mkdir()
    names = ("red", "green", "blue")
    rows = "label\ttext\n" + "".join(f"{names[k]}\t{text}\n" for text, k in zip(*split))
    for name in ("train", "dev", "test"):
        (data / f"{name}.tsv").write_text(rows)
    (data / "labels.txt").write_text("\n".join(names) + "\n")

    def call(*arguments):
        status = main(["diff", *map(str, arguments)])
        return status, *capsys.readouterr()

    status, out, err = call(old, new, "--data", data)
    assert status == 0, err
    lines = out.splitlines()
    assert " of 24 answers change; the files agree on " in lines[0]
    assert lines[1].startswith("accuracy 100.00% -> ") and " x the time of the old file" in lines[2]
    assert lines[3].strip().split(" (right: ")[0].endswith(" -> red")
    status, out, _ = call(old, new, "--data", data, "--json")
    assert status == 0 and json.loads(out)["new"] == new
    plain = tmp_path / "plain.txt"
    plain.write_text("".join(f"{text}\n\n" for text in texts()))
    status, out, err = call(old, new, "--data", plain)
    assert status == 0 and "accuracy" not in out, err
    tagger = versions["tagging"][0]
    alone = tmp_path / "alone.tflite"
    alone.write_bytes(open(old, "rb").read())
    for files, message in (
        ((old, tagger), "must be for one task, and the same labels in the same order. Received: "),
        (
            (tagger, tagger),
            "The data must be for the files' task, tagging. Received: classification.",
        ),
        ((old, tmp_path / "none.tflite"), "A file must exist. Received: "),
        ((old, Path(new).parent), "Name a file, not its folder."),
        ((alone, new), "must stand beside its model.json. Received: "),
        ((data / "test.tsv", new), "must stand beside its model.json. Received: "),
    ):
        status, out, err = call(*files, "--data", data)
        assert status == 1 and out == "" and message in err, err
    (data / "labels.txt").write_text("cat\ndog\ncow\n")
    for name in ("train", "dev", "test"):
        (data / f"{name}.tsv").write_text(
            rows.replace("red", "cat").replace("green", "dog").replace("blue", "cow")
        )
    status, _, err = call(old, new, "--data", data)
    assert status == 1 and "error: " in err and "cat" in err
