"""One file, a signature for each length, on one copy of the weights."""

import zipfile
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

FORMATS, SHORT = ("float32", "int8", "int4"), 6


@pytest.fixture(scope="module")
def several(task_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    settings = {"sequence_length": (LENGTH, SHORT, SHORT), "allow_drift": True, "parity_texts": 12}
    rows = export(task_model, folder, FORMATS, dev=split_of(task_model), **settings)
    return {row["format"]: row for row in rows}


@pytest.mark.parametrize("name", FORMATS)
def test_each_signature_is_the_file_of_its_length(several, task_model, name):
    row = several[name]
    assert [*row["lengths"]] == [SHORT, LENGTH] and row["partitions"] == 1
    assert "takes a single graph" in row["no_metadata"] and not zipfile.is_zipfile(row["path"])
    assert row["lengths"][LENGTH]["max_dp"] == row["max_dp"] and row["sequence_length"] == LENGTH
    interpreter = Interpreter(row["path"])
    assert {*interpreter.get_signature_list()} == {f"length_{SHORT}", "serving_default"}
    first = interpreter.get_input_details()[0]  # of the first graph, which runtimes take unasked
    assert first["shape"].tolist() == [1, LENGTH]
    runner, one = Runner(row["path"]), Runner(converted(task_model, name, length=SHORT))
    assert runner.lengths == [SHORT, LENGTH] and one.num_partitions == 1
    for encoding in task_model.tokenizer.encode(texts(), SHORT)[:6]:
        found = runner.run(runner.inputs(encoding))
        np.testing.assert_array_equal(found, one.run(one.inputs(encoding)))
        at_length = runner.run(runner.inputs(encoding, LENGTH))
        # A difference in the last bit can round an activation to another of 255 steps.
        np.testing.assert_allclose(found, at_length, atol=1e-5 if name == "float32" else 5e-2)


def test_a_text_takes_the_shortest_that_it_fits(several, task_model):
    runner = Runner(several["int8"]["path"])
    for number, length in ((2, SHORT), (SHORT, SHORT), (SHORT + 1, LENGTH), (LENGTH, LENGTH)):
        inputs = runner.inputs(Encoding([5] * number, [0] * number))
        assert inputs["input_mask"].shape == (1, length) and inputs["input_mask"].sum() == number
    model = exported_model(several["float32"]["path"], task_model)
    expected = task_model.predict(texts(), max_length=LENGTH)
    np.testing.assert_allclose(model.predict(texts()), expected, atol=1e-5)


def test_weights_and_their_scales_are_there_once(several, task_model):
    weights = task_model.weights()["layer_0_intermediate/kernel"].T
    content = open(several["float32"]["path"], "rb").read()
    assert content.count(weights[:4].tobytes()) == 1
    scales = np.float32(np.abs(weights).max(1) / 127).tobytes()
    assert open(several["int8"]["path"], "rb").read().count(scales) == 1
    rows = read_model(several["float32"]["path"].rpartition("/")[0])["files"]
    assert {len(row["signatures"]) for row in rows} == {2}


def test_mean_time_by_hand(several, monkeypatch):
    # 6 pieces take 1 ms, 16 take 4; of four texts two fit into 6: (1 + 1 + 4 + 4) / 4 / 4 = .625
    monkeypatch.setattr(benchmark, "interleave", lambda *_, **__: np.array([[1.0], [4.0]]))
    encodings = [Encoding([5] * number, [0] * number) for number in (2, 6, 7, 16)]
    path = several["int8"]["path"]
    assert benchmark.mean_time(path, encodings) == 0.625
    assert benchmark.mean_time(path, None) is None
    assert all(0 < row["mean_time"] < 2 for row in several.values())


def test_what_cannot_have_several_lengths_is_refused(task_model):
    with pytest.raises(ValueError, match="must be .tflite files of a BERT: .* onnx_int8 of a bert"):
        export(task_model, "nowhere", ("onnx_int8",), sequence_length=(8, LENGTH))
    with pytest.raises(ValueError, match="`sequence_length` must be 4 to 24"):
        export(task_model, "nowhere", sequence_length=(3, LENGTH))


def test_all_formats_are_those_that_a_model_allows(monkeypatch, caplog):
    caplog.set_level("INFO")
    model, every = tiny(), [*TFLITE, "int4", "int2"]
    assert formats_for(model) == [*every, "onnx_float32", "onnx_int8"]
    assert formats_for(model, several_lengths=True) == every
    monkeypatch.setattr("mobile_export.convert.find_spec", lambda name: None)
    assert formats_for(model) == every and "not: onnx_float32, onnx_int8" in caplog.text
    model.config = SimpleNamespace(quantization={"scheme": "any"}, architecture="bert")
    assert formats_for(model) == ["int8", "int8_per_tensor"]
