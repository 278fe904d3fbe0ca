"""What stands in an exported file beside the graph, read with other tools than those that wrote it."""

import io
import json
import re
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer
from keras_compress.cli import main
from mobile_export.convert import export
from mobile_export.litert import Runner
from mobile_export.metadata import no_metadata, with_metadata
from mobile_export.parity import Reference, compare
from tests.mobile_export.conftest import LENGTH, WORDS, converted, texts, tiny


def packed(content):
    return zipfile.ZipFile(io.BytesIO(content))


def description(content):
    """By the schema classes of MediaPipe."""
    from ai_edge_litert.schema_py_generated import Model
    from mediapipe.tasks.metadata import metadata_schema_py_generated as schema

    model = Model.GetRootAsModel(content)
    (entry,) = (
        entry
        for entry in map(model.Metadata, range(model.MetadataLength()))
        if entry.Name() == b"TFLITE_METADATA"
    )
    return schema.ModelMetadataT.InitFromPackedBuf(
        model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    )


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_vocabulary_labels_and_parity_are_in_the_file(facts, task_model, name):
    content, row = open(facts[name]["path"], "rb").read(), facts[name]
    assert row["bytes"] == len(content) and row["no_metadata"] is None
    files = packed(content)
    assert files.namelist() == ["vocab.txt", "labels.txt"]
    assert all(
        file.compress_type == zipfile.ZIP_STORED for file in files.infolist()
    )  # clients do not inflate
    assert files.read("vocab.txt").decode() == "\n".join(task_model.tokenizer.vocab) + "\n"
    assert files.read("labels.txt") == b"red\ngreen\nblue\n"
    found = description(content)
    agreement = f"agrees with Keras on {100 * row['agreement']:.1f} % of 24 dev texts, largest |dp| {row['max_dp']:.2g}"
    accuracy = (
        "" if name == "float32" else f", accuracy {100 * row['accuracy']:.1f} % (Keras 100.0 %)"
    )
    assert found.description.decode() == f"{name}, {LENGTH} pieces; {agreement}{accuracy}"
    (graph,) = found.subgraphMetadata
    # In the graph's order, which the metadata share.
    inputs = Interpreter(model_content=content).get_input_details()
    names = {"ids": "input_word_ids", "mask": "input_mask", "segment_ids": "input_type_ids"}
    assert [
        names[tensor.name.decode()] in graph_input["name"]
        for tensor, graph_input in zip(graph.inputTensorMetadata, inputs, strict=True)
    ] == [True] * 3
    (labels,) = graph.outputTensorMetadata[0].associatedFiles
    (vocab,) = graph.inputProcessUnits[0].options.vocabFile
    assert (labels.name, labels.type, vocab.name, vocab.type) == (b"labels.txt", 2, b"vocab.txt", 5)


@pytest.mark.parametrize("name", ["float32", "int8", "int4"])
def test_the_model_in_it_stays_as_it_is(task_model, name):
    before = converted(task_model, name)
    after = with_metadata(before, task_model, "any")
    assert after == with_metadata(before, task_model, "any")
    encodings = task_model.tokenizer.encode(texts(), LENGTH)
    np.testing.assert_array_equal(
        Runner(after).forward(encodings), Runner(before).forward(encodings)
    )
    assert 0 < len(after) - len(before) < 2500


def test_pieces_keep_their_lines_and_labels_their_letters():
    pieces = [*SPECIAL_PIECES, *WORDS[:22], "", "a b", "c\u3000d", "e\n"]
    labels = ("开灯", " two  words ", "\u2028")
    task_model = TaskModel(tiny().config, Tokenizer(pieces), "classification", labels)
    files = packed(with_metadata(converted(task_model, "float32"), task_model, "any"))
    lines = files.read("vocab.txt").decode().split("\n")
    assert lines[:26] == pieces[:26] and lines[26:] == [
        "[piece 26]",
        "[piece 27]",
        "[piece 28]",
        "[piece 29]",
        "",
    ]
    assert files.read("labels.txt").decode().split("\n") == [*labels, ""]


@pytest.mark.parametrize("labels", [("a", "a"), ("a\nb", "c"), ("a\r", "c"), ("", "c")])
def test_labels_that_no_file_could_hold_make_no_model(task_model, labels):
    with pytest.raises(ValueError, match="two or more different names of one line each"):
        TaskModel(task_model.config, task_model.tokenizer, "classification", labels)


def test_what_does_not_belong_together_is_refused(task_model, tmp_path):
    content = converted(task_model, "int8")
    short, other = tiny(), tiny()
    short.tokenizer = Tokenizer([*SPECIAL_PIECES, *WORDS[:25]])
    other.labels = ("red", "green")
    for model, rule in (
        (short, r"shape \(3,\) and 29 pieces. Received: \(3,\) and 30"),
        (other, r"shape \(2,\) and 30 pieces. Received: \(3,\) and 30"),
    ):
        with pytest.raises(ValueError, match=f"must be exported from this model, .* {rule}"):
            compare(Reference(model, LENGTH), content, "int8")
    with pytest.raises(ValueError, match="exported from this model"):
        export(short, tmp_path, ("int8",), sequence_length=LENGTH)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("task", ["tagging", "matching"])
def test_what_no_client_can_run_is_exported_without(task, tmp_path):
    task_model = tiny(task)
    (row,) = export(task_model, tmp_path / "a.tflite", ("float32",), sequence_length=LENGTH)
    assert (
        row["no_metadata"]
        == f"MediaPipe's TextClassifier gives one text one label, which {task} is not"
    )
    content = (tmp_path / "a.tflite").read_bytes()
    assert not zipfile.is_zipfile(io.BytesIO(content)) and b"TFLITE_METADATA" not in content


def test_export_says_that_there_are_no_metadata(tmp_path, capsys):
    task_model = tiny("tagging")
    task_model.history, reason = [{"method": "finetune"}], no_metadata(task_model)
    task_model.save(tmp_path / "model")
    command = [
        "export",
        "--from",
        str(tmp_path / "model"),
        "--formats",
        "float32",
        "--length",
        "16",
    ]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert f"The .tflite files hold no metadata for MediaPipe: {reason}." in capsys.readouterr().out
    assert main([*command, "--out", str(tmp_path / "again"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["no_metadata"] == reason


@pytest.mark.parametrize(
    "switches, reason",
    [
        ({"strip_accents": False}, "needs texts without accents"),
        ({"split_chinese": False}, "splits Chinese characters"),
        ({"truncation_side": "left"}, "cuts off the end of a long text"),
        ({"added": [{"content": "wa"}]}, "does not find added words, .* has wa"),
        ({"special_in_text": True}, None),
    ],
)
def test_neither_have_tokenizers_that_the_client_cannot_follow(task_model, switches, reason):
    model = SimpleNamespace(
        task="classification",
        config=task_model.config,
        tokenizer=Tokenizer(task_model.tokenizer.vocab, True, **switches),
    )
    found = no_metadata(model)
    assert re.search(reason, found) if reason else found is None


def test_neither_have_cased_models_and_loops(task_model):
    cased = TaskModel(
        task_model.config,
        Tokenizer(task_model.tokenizer.vocab, lowercase=False),
        "classification",
        "ab",
    )
    loops = TaskModel(
        task_model.config.replace(architecture="bilstm"),
        task_model.tokenizer,
        "classification",
        "ab",
    )
    assert no_metadata(task_model) is None
    assert "lower-cases every text" in no_metadata(cased) and "a bilstm has loops" in no_metadata(
        loops
    )
