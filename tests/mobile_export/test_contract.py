"""What an app gets beside the files: model.json, vocab.txt, labels.txt, parity.json, and the same in the file itself."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import ModelT

from keras_compress.bert.answers import answers_of
from keras_compress.bert.config import BertConfig
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tasks import encoding
from keras_compress.bert.tokenizer import BERT_PIECES, Tokenizer
from keras_compress.files import read_json
from mobile_export import contract
from mobile_export.convert import export
from mobile_export.diff import opened
from mobile_export.litert import unpadded
from tests import arm64
from tests.mobile_export.conftest import LENGTH, WORDS, split_of, tiny

LETTERS = [*"Wé，我wab"]


def unusual(task):
    """A model whose tokenizer MediaPipe cannot follow: cased, with accents, added words, and texts cut at their beginning."""
    pieces = [*BERT_PIECES, *WORDS, *LETTERS, "", "##b"]
    added = [
        {"content": "<user>", "single_word": False, "normalized": True},
        {"content": "wa", "single_word": True, "normalized": False},
    ]
    switches = {"special_in_text": True, "truncation_side": "left", "strip_accents": False}
    tokenizer = Tokenizer(pieces, False, added=added, **switches)
    size = {"hidden_size": 32, "num_layers": 1, "num_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer.vocab), max_position_embeddings=24, **size)
    labels = ("score",) if task == "regression" else ("O", "B-开 灯")
    return TaskModel(config, tokenizer, task, labels, seed=1)


@pytest.fixture(scope="module", params=["tagging", "matching", "multilabel", "regression"])
def exported(request, tmp_path_factory):
    model, folder = unusual(request.param), tmp_path_factory.mktemp(request.param)
    model.threshold = 0.35
    settings = {"sequence_length": (8, LENGTH), "allow_drift": True, "parity_texts": 3}
    (row,) = export(model, folder, ("float32",), **settings)
    contract.write_vectors(folder, model)
    return model, folder, row


def test_everything_that_an_app_needs_for_every_task(exported):
    model, folder, row = exported
    names = {path.name for path in folder.iterdir()}
    assert names == {"float32.tflite", "model.json", "vocab.txt", "labels.txt", "parity.json"}
    pieces = (folder / "vocab.txt").read_text("utf-8").split("\n")
    assert pieces == [*model.tokenizer.own, ""] and "" in model.tokenizer.own
    assert (folder / "labels.txt").read_text("utf-8").split("\n") == [*model.labels, ""]
    told = read_json(folder / "model.json", beside=True)
    assert [*told][0] == "keras_compress_model" and told["keras_compress_model"] == 1
    assert (told["task"], told["num_labels"]) == (model.task, len(model.labels))
    assert told["threshold"] == (0.35 if model.task == "multilabel" else None)
    assert told["words"] == ("blanks" if model.task == "tagging" else None)
    cases = told["tokenizer"]
    assert (cases["lowercase"], cases["strip_accents"], cases["truncation_side"]) == (
        False,
        False,
        "left",
    )
    assert cases["special"]["sep"] == {"piece": "[SEP]", "id": model.tokenizer.ids["[SEP]"]}
    ids = {word["content"]: word["id"] for word in cases["never_split"]}
    assert ids == {x: model.tokenizer.ids[x] for x in (*BERT_PIECES, "<user>", "wa")}
    assert ids["<user>"] == cases["num_pieces"] == len(model.tokenizer.own)
    (file,) = told["files"]
    content = (folder / "float32.tflite").read_bytes()
    assert (file["path"], file["bytes"]) == ("float32.tflite", len(content))
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert [(x["name"], x["length"]) for x in file["signatures"]] == [
        ("length_8", 8),
        ("serving_default", LENGTH),
    ]
    assert file["signatures"][0]["max_dp"] == row["lengths"][8]["max_dp"]


def test_the_file_itself_holds_what_model_json_does(exported):
    model, folder, _ = exported
    content = (folder / "float32.tflite").read_bytes()
    start = content.index(b'{"keras_compress_model": ')
    found = json.loads(content[start : content.index(b"\n", start)])
    told = read_json(folder / "model.json")
    assert found.pop("lengths") == [8, LENGTH] and found == {
        k: told[k] for k in told if k != "files"
    }
    metadata = [entry.name for entry in ModelT.InitFromPackedBuf(content).metadata]
    assert metadata.count(b"keras_compress_model") == 1 and b"TFLITE_METADATA" not in metadata


def test_vectors_are_what_the_model_says_and_what_arm64_reads(exported):
    model, folder, _ = exported
    told = read_json(folder / "parity.json")
    given = [tuple(x) if isinstance(x, list) else x for x in told["texts"]]
    assert len(given) == contract.NUM_VECTORS and len({*map(str, given)}) > 40
    assert isinstance(given[0], tuple) == (model.task == "matching")
    expected = encoding(model.task, model.tokenizer)(given, LENGTH)
    for row, each in zip(told["inputs"][str(LENGTH)], expected, strict=True):
        assert (row["ids"], row["type_ids"], row["mask"]) == (
            each.ids,
            each.type_ids,
            [1] * len(each.ids),
        )
        assert row.get("word_starts") == each.word_starts
    encodings, outputs, tolerance = arm64.vectors_of(folder / "float32.tflite")
    from_keras = unpadded(model.forward(expected), expected)
    answers = answers_of(model.task, np.vstack(from_keras))
    np.testing.assert_allclose(np.vstack(outputs), answers, atol=2e-6)
    found = arm64.probabilities(folder / "float32.tflite")
    np.testing.assert_allclose(found, np.vstack(outputs), atol=tolerance)
    assert {len(each.ids) > 8 for each in encodings} == {True, False}  # both signatures ran


def test_a_file_is_read_back_by_what_stands_beside_it(exported):
    model, folder, _ = exported
    read = opened(folder / "float32.tflite")
    tokenizer = read.tokenizer
    assert read.labels == model.labels and tokenizer.switches() == model.tokenizer.switches()
    given = read_json(folder / "parity.json")["texts"]
    given = [tuple(x) if isinstance(x, list) else x for x in given]
    both = [encoding(model.task, each)(given, LENGTH) for each in (tokenizer, model.tokenizer)]
    assert both[0] == both[1]


def test_a_folder_tells_of_all_its_files_of_one_model(facts, folder, tmp_path, caplog):
    told = contract.read_model(folder)
    assert [row["path"] for row in told["files"]] == sorted(f"{name}.tflite" for name in facts)
    for row in told["files"]:
        assert row["signatures"][0]["max_dp"] == facts[row["format"]]["max_dp"]
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    other = tiny()
    other.labels = ("a", "b", "c")
    row = {**facts["int8"], "path": str(tmp_path / "int8.tflite")}
    contract.add_file(other, row)
    assert "no longer tells about float16.tflite, of another model" in caplog.text
    assert [row["path"] for row in contract.read_model(tmp_path)["files"]] == ["int8.tflite"]
    assert (tmp_path / "labels.txt").read_text() == "a\nb\nc\n"


def test_a_kill_between_what_stands_beside_keeps_no_later_call_away(
    facts, folder, tmp_path, monkeypatch
):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    other, sealed = tiny(), contract.write_sealed
    other.labels, row = ("a", "b", "c"), {**facts["int8"], "path": str(tmp_path / "int8.tflite")}

    def killed(path, value, *beside):  # after labels.txt, before the seal that tells of it
        sealed(path, value, *beside) if not value["files"] else 1 / 0

    monkeypatch.setattr(contract, "write_sealed", killed)
    with pytest.raises(ZeroDivisionError):
        contract.add_file(other, row)
    monkeypatch.undo()
    assert (tmp_path / "labels.txt").read_text() == "a\nb\nc\n"
    with pytest.raises(ValueError, match="model.json beside it must tell of this file"):
        opened(tmp_path / "int8.tflite")
    contract.check_folder(tmp_path, other)
    contract.add_file(other, row)
    assert [row["path"] for row in contract.read_model(tmp_path)["files"]] == ["int8.tflite"]


def test_files_of_others_are_not_replaced(task_model, tmp_path):
    (tmp_path / "vocab.txt").write_text("mine")
    with pytest.raises(
        ValueError, match="come with a vocab.txt of their model. Received: .* Choose another"
    ):
        export(task_model, tmp_path, ("float32",), sequence_length=LENGTH)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(
        ValueError, match="model.json: `keras_compress_model` must be 1. Received: None. Move it"
    ):
        export(task_model, tmp_path, ("float32",), sequence_length=LENGTH)
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]


def test_files_of_another_model_stay_told_about(facts, folder, task_model, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    other = tiny()
    other.labels = ("a", "b", "c")
    contract.check_same(tmp_path, task_model)
    with pytest.raises(
        ValueError, match="one model's. Received: .* whose float16.tflite, .* be lost"
    ):
        contract.check_same(tmp_path, other)
    contract.write_vectors(tmp_path, task_model)
    contract.check_same(tmp_path, task_model)
    (tmp_path / "parity.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match="whose parity.json would be lost"):
        contract.check_same(tmp_path, task_model)


def test_what_was_changed_is_refused_by_name(facts, folder, tmp_path, task_model):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    contract.write_vectors(tmp_path, task_model, split_of(task_model))
    file = tmp_path / "int8.tflite"
    assert len(arm64.vectors_of(file)[0]) == len(contract.TRICKY) + 24
    assert arm64.vectors_of(folder / "int8.tflite") is None
    shutil.copy(folder / "float32.tflite", file)
    with pytest.raises(
        ValueError, match="parity.json: must hold the outputs of int8.tflite as it is"
    ):
        arm64.vectors_of(file)
    with pytest.raises(
        ValueError, match="int8.tflite: the model.json beside it must tell of this file"
    ):
        opened(file)
    (tmp_path / "labels.txt").write_text("green\nred\nblue\n")
    with pytest.raises(ValueError, match="labels.txt: must be as it was written"):
        opened(tmp_path / "float32.tflite")
    (tmp_path / "model.json").unlink()
    with pytest.raises(
        ValueError, match="must stand beside its model.json. .* Copy the whole folder"
    ):
        opened(tmp_path / "float32.tflite")
