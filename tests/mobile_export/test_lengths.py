"""One file, a signature for each length, on one copy of the weights."""

from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_compress.bert.tokenizer import Encoding
from mobile_export import benchmark
from mobile_export.contract import read_model
from mobile_export.convert import export, exported_model, formats_for
from mobile_export.litert import Runner
from tests.mobile_export.conftest import LENGTH, TFLITE, converted, split_of, texts, tiny

FORMATS = (*TFLITE, "int4", "int2")


@pytest.fixture(scope="module")
def several(task_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    settings = {"sequence_length": (LENGTH, 6, 10, 6), "allow_drift": True, "parity_texts": 12}
    rows = export(task_model, folder, FORMATS, dev=split_of(task_model), **settings)
    return {row["format"]: row for row in rows}


@pytest.mark.parametrize("name", FORMATS)
def test_each_signature_is_the_file_of_its_length(several, task_model, name):
    row = several[name]
    assert [*row["lengths"]] == [6, 10, LENGTH] and row["partitions"] == (
        2 if name == "float16" else 1
    )
    assert row["lengths"][LENGTH]["max_dp"] == row["max_dp"] and row["sequence_length"] == LENGTH
    interpreter = Interpreter(row["path"])
    signatures = [*interpreter.get_signature_list()]
    assert signatures == ["length_10", "length_6", "serving_default"]
    assert interpreter.get_input_details()[0]["shape"].tolist() == [
        1,
        LENGTH,
    ]  # what MediaPipe takes
    runner = Runner(row["path"])
    assert runner.lengths == [6, 10, LENGTH]
    for length in runner.lengths:
        encodings = task_model.tokenizer.encode(texts(), length)[:6]
        one = Runner(converted(task_model, name, length=length))
        assert one.num_partitions == row["partitions"]
        found = [runner.run(runner.inputs(each, length)) for each in encodings]
        expected = [one.run(one.inputs(each)) for each in encodings]
        np.testing.assert_array_equal(found, expected)


def test_a_text_takes_the_shortest_that_it_fits(several, task_model):
    runner = Runner(several["int8"]["path"])
    for number, length in ((2, 6), (6, 6), (7, 10), (11, LENGTH), (LENGTH, LENGTH)):
        inputs = runner.inputs(Encoding([5] * number, [0] * number))
        assert inputs["input_mask"].shape == (1, length) and inputs["input_mask"].sum() == number
    model = exported_model(several["float32"]["path"], task_model)
    expected = task_model.predict(texts(), max_length=LENGTH)
    np.testing.assert_allclose(model.predict(texts()), expected, atol=1e-5)


def test_weights_are_there_once(several, task_model):
    table = task_model.weights()["word_embeddings/embeddings"].tobytes()
    content = open(several["float32"]["path"], "rb").read()
    assert content.count(table[:1000]) == 1
    rows = read_model(several["float32"]["path"].rpartition("/")[0])["files"]
    assert {len(row["signatures"]) for row in rows} == {3}


def test_mean_time_by_hand(several, task_model, monkeypatch):
    # 6 pieces take 1 ms, 10 take 2, 16 take 4; of four texts two fit 6, one 10, one 16: (1 + 1 + 2 + 4) / 4 / 4 = .5
    monkeypatch.setattr(
        benchmark, "interleave", lambda calls, runs, warmup: np.array([[1.0], [2], [4]])
    )
    encodings = [Encoding([5] * number, [0] * number) for number in (2, 6, 7, 16)]
    path = several["int8"]["path"]
    assert benchmark.mean_time(path, encodings) == 0.5 and benchmark.mean_time(path, None) is None
    assert all(0 < row["mean_time"] < 2 for row in several.values())


def test_what_cannot_have_several_lengths_is_refused(task_model):
    with pytest.raises(
        ValueError, match="must be .tflite files of a BERT: .* Received: onnx_int8 of a bert"
    ):
        export(task_model, "nowhere", ("onnx_int8",), sequence_length=(8, LENGTH))
    with pytest.raises(ValueError, match="`sequence_length` must be 4 to 24"):
        export(task_model, "nowhere", sequence_length=(3, LENGTH))


def test_all_formats_are_those_that_a_model_allows(monkeypatch, caplog):
    caplog.set_level("INFO")
    model = tiny()
    assert formats_for(model) == [*FORMATS, "onnx_float32", "onnx_int8"]
    monkeypatch.setattr("mobile_export.convert.find_spec", lambda name: None)
    assert formats_for(model) == [*FORMATS] and "not: onnx_float32, onnx_int8" in caplog.text
    model.config = SimpleNamespace(quantization={"scheme": "any"}, architecture="bert")
    assert formats_for(model) == ["int8", "int8_per_tensor"]
