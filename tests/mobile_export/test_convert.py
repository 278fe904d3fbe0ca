import json

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.schema_py_generated import ModelT

from keras_compress.backend import tf
from keras_compress.bert.task_model import TaskModel
from keras_compress.datasets.dataset import Split
from keras_compress.measure.accuracy import evaluate
from mobile_export import convert, parity
from mobile_export.convert import ExportError, export, exported_model
from mobile_export.litert import Runner
from mobile_export.stamp import STAMP
from tests.mobile_export.conftest import (
    LABELS,
    LENGTH,
    blow_up,
    converted,
    split_of,
    texts,
    tiny,
)

TOLERANCE = {"float32": 1e-5, "float16": 5e-3, "int8": 5e-2, "int8_per_tensor": 5e-2}


def test_facts_of_every_format(facts, folder):
    for name, row in facts.items():
        path = folder / f"{name}.tflite"
        assert row["path"] == str(path) and row["bytes"] == path.stat().st_size
        assert row["num_examples"] == 24 and row["cls_only"] and row["drift"] is None
        assert 0 <= row["mean_dp"] <= row["max_dp"] < TOLERANCE[name] and row["agreement"] > 0.9
        assert row["partitions"] == (
            2 if name == "float16" else 1
        )  # float16: one of its own unpacks the tables
    assert facts["float32"]["max_dlogit"] <= 1e-4 and facts["float16"]["max_dlogit"] <= 1e-2
    assert facts["int8"]["bytes"] < facts["float16"]["bytes"] < facts["float32"]["bytes"]
    assert facts["int8"]["accuracy_keras"] == 1.0 and facts["int8"]["metric"] == "accuracy"
    json.dumps(facts)


@pytest.mark.parametrize("name", TOLERANCE)
def test_parity_by_signature_name(facts, task_model, name):
    run = Interpreter(facts[name]["path"]).get_signature_runner("serving_default")
    for tensor in run.get_input_details().values():
        assert tensor["dtype"] == np.int32 and tuple(tensor["shape"]) == (1, LENGTH)
    assert sorted(run.get_input_details()) == ["input_mask", "input_type_ids", "input_word_ids"]
    assert list(run.get_output_details()) == ["probabilities"]
    for encoding in task_model.tokenizer.encode(texts(), LENGTH)[:5]:
        inputs = task_model.pad([encoding], LENGTH)
        expected = tf.nn.softmax(task_model.model(inputs, training=False))
        np.testing.assert_allclose(run(**inputs)["probabilities"], expected, atol=TOLERANCE[name])


@pytest.mark.parametrize("task, pooling", [("matching", "pooler"), ("tagging", "cls")])
def test_other_tasks(tmp_path, task, pooling):
    task_model = tiny(task, pooling)
    dev = split_of(task_model)
    (row,) = export(
        task_model, tmp_path / "model.tflite", ("int8",), sequence_length=LENGTH, dev=dev
    )
    assert row["partitions"] == 1 and row["agreement"] > 0.9 and row["accuracy_keras"] == 1.0
    assert row["metric"] == ("entity_f1" if task == "tagging" else "accuracy")
    assert row["cls_only"] == (task == "matching")
    again = exported_model(tmp_path / "model.tflite", task_model)
    assert again.task == task and again.labels == LABELS[task]
    assert evaluate(again, dev)["value"] == row["accuracy"]


def test_mean_pooling_needs_every_token_and_padding_does_not_count(tmp_path):
    task_model = tiny(pooling="mean")
    with pytest.raises(ValueError, match="reads .CLS. alone"):
        export(task_model, tmp_path, ("float32",), sequence_length=LENGTH, cls_only=True)
    (row,) = export(
        task_model, tmp_path, ("float32",), sequence_length=LENGTH
    )  # random ids of varied lengths
    assert not row["cls_only"] and row["partitions"] == 1 and row["accuracy"] is None
    runner = Runner(row["path"])
    inputs = runner.inputs(task_model.tokenizer.encode(["wa wb"], LENGTH)[0])
    expected = runner.run(inputs)
    np.testing.assert_allclose(expected, task_model.predict(["wa wb"]), atol=1e-6)
    inputs["input_word_ids"][:, 4:], inputs["input_type_ids"][:, 4:] = 7, 1
    np.testing.assert_array_equal(runner.run(inputs), expected)


def test_cls_only_is_exact(facts, task_model):
    full = Runner(converted(task_model, "float32", cls_only=False))
    short = Runner(facts["float32"]["path"])
    encodings = task_model.tokenizer.encode(texts(), LENGTH)
    np.testing.assert_allclose(full.forward(encodings), short.forward(encodings), atol=1e-6)
    assert facts["float32"]["cls_only"]


def test_logits_view_is_the_same_file_before_its_softmax(facts, task_model):
    content = open(facts["float32"]["path"], "rb").read()
    view = parity.logits_view(content)
    before, after = map(ModelT.InitFromPackedBuf, (content, view))
    (output,), (same, logits) = before.subgraphs[0].outputs, after.subgraphs[0].outputs
    assert same == output
    softmax = next(row for row in before.subgraphs[0].operators if output in row.outputs)
    assert logits in softmax.inputs and logits != output
    for kind in ("operators", "tensors"):
        assert len(getattr(before.subgraphs[0], kind)) == len(getattr(after.subgraphs[0], kind))
    for old, new in zip(before.buffers, after.buffers, strict=True):
        if old.data is None or STAMP not in bytes(old.data):
            np.testing.assert_array_equal(old.data, new.data)
    encodings = task_model.tokenizer.encode(texts(), LENGTH)
    outputs = parity._outputs(Runner(view), encodings, "view")
    np.testing.assert_allclose(outputs["logits"], task_model.forward(encodings), atol=1e-5)
    np.testing.assert_array_equal(outputs["probabilities"], Runner(content).forward(encodings))


def test_int8_drift_is_refused_or_marked(tmp_path, monkeypatch):
    drifting = blow_up(
        tiny(), 1e3
    )  # the scale of every channel is 1000 / 127: all its other weights become 0
    dev = split_of(drifting, 100)
    with pytest.raises(
        ExportError, match=r"int8: mean .dp. must be at most 0.05. Received: 0\.\d+"
    ):
        export(drifting, tmp_path, ("int8",), sequence_length=LENGTH)
    assert not list(tmp_path.iterdir())
    (row,) = export(
        drifting, tmp_path, ("int8",), sequence_length=LENGTH, dev=dev, allow_drift=True
    )
    assert row["drift"].startswith(
        "dev accuracy must not fall by more than 0.02 beyond its 95 % interval. Received: 1"
    )
    assert (tmp_path / "int8.tflite").is_file()


def test_one_that_fails_does_not_keep_the_others_back(tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(
        ExportError, match=r"^int8: mean .dp. .* Written: .*float32.tflite, .*float16"
    ) as error:
        export(
            blow_up(tiny(), 1e3), tmp_path, ("float32", "int8", "float16"), sequence_length=LENGTH
        )
    assert [row["format"] for row in error.value.files] == ["float32", "float16"]
    assert {*error.value.failures} == {"int8"} and "Received: 0." in error.value.failures["int8"]
    assert {path.name for path in tmp_path.glob("*lite")} == {"float32.tflite", "float16.tflite"}
    said = [row.getMessage() for row in caplog.records if row.name == "mobile_export.convert"]
    assert (
        said[-1] == f"float16: {tmp_path / 'float16.tflite'}"
        and "int8: failed, not written" in said
    )


def test_a_stopped_export_leaves_no_old_file_beside_a_new_one(tmp_path, monkeypatch):
    def stopped_at(stop):
        def compare(reference, content, name, tolerance, original=convert.compare):
            if name == stop:
                raise KeyboardInterrupt
            return original(reference, content, name, tolerance)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(convert, "compare", compare)
            export(tiny(), tmp_path, ("float32", "int8"), sequence_length=LENGTH)
        paths = sorted(tmp_path.glob("*.tflite"))
        return {path.name: path.read_bytes() == b"old" for path in paths}

    for name in ("float32", "int8"):
        (tmp_path / f"{name}.tflite").write_bytes(b"old")
    assert stopped_at("float32") == {"float32.tflite": True, "int8.tflite": True}
    assert stopped_at("int8") == {"float32.tflite": False}


def test_keras_is_computed_once_and_each_file_once(tmp_path, monkeypatch):
    task_model, passes = tiny(), []
    dev, of_keras, of_file = split_of(task_model), TaskModel.forward, Runner.outputs

    def forward(self, encodings, batch_size=64):
        passes.append(("Keras", len(encodings)))
        return of_keras(self, encodings)

    def outputs(self, inputs):
        passes.append(("file", 1))
        return of_file(self, inputs)

    monkeypatch.setattr(TaskModel, "forward", forward)
    monkeypatch.setattr(Runner, "outputs", outputs)
    settings = {"sequence_length": LENGTH, "dev": dev}
    rows = export(task_model, tmp_path, ("float32", "int8"), parity_texts=7, **settings)
    assert passes.count(("Keras", 7)) == 1 and passes.count(("file", 1)) == 2 * (
        7 + 1
    )  # one to load
    assert [row["compared_on"] for row in rows] == ["7 dev texts"] * 2
    monkeypatch.setattr(parity, "MAX_SECONDS", 1e-9)
    monkeypatch.setattr(parity, "MIN_TEXTS", 5)
    (row,) = export(task_model, tmp_path, ("int8",), **settings)
    assert row["compared_on"] == "5 of 24 dev texts" and row["num_examples"] == 5
    assert row["accuracy_keras"] == 1.0


@pytest.mark.parametrize("fall, refused", [(4, False), (5, False), (12, True)])
def test_accuracy_rule_by_hand(task_model, facts, monkeypatch, fall, refused):
    # n = 100, k wrong: difference -k/100, its interval ends at -k/100 + 1.96 sqrt(k/100 (1 - k/100) / 100).
    # k = 5: -.05 + .0427 = -.0073; k = 12: -.12 + .0637 = -.0563, below -.02.
    dev = split_of(task_model, 100)
    wrong = np.eye(3, dtype=np.float32)[
        [(label + (i < fall)) % 3 for i, label in enumerate(dev.labels)]
    ]
    monkeypatch.setattr(parity, "_outputs", lambda *_: {"probabilities": list(wrong)})
    monkeypatch.setattr(parity, "MAX_MEAN_DP", 1.0)
    content = open(facts["int8"]["path"], "rb").read()
    found = parity.compare(parity.Reference(task_model, LENGTH, dev), content, "int8")
    assert found["accuracy"] == 1 - fall / 100 and bool(found["drift"]) == refused


def test_float_drift_is_refused_even_with_allow_drift(task_model, facts, tmp_path, monkeypatch):
    class Elsewhere(TaskModel):
        def forward(self, encodings, batch_size=64):
            return [
                row + np.float32(0.01) for row in super().forward(encodings)
            ]  # no probability sees this

    elsewhere = Elsewhere(
        task_model.config, task_model.tokenizer, task_model.task, task_model.labels
    )
    elsewhere.set_weights(task_model.weights())
    content = open(facts["float32"]["path"], "rb").read()
    monkeypatch.setitem(convert.FORMATS, "float32", convert.Format(lambda *_: content, 1e-4))
    with pytest.raises(
        ExportError,
        match="logits must be within 0.0001 of Keras', as a share of the largest, .* Received: 0.01.* apart",
    ):
        export(elsewhere, tmp_path, ("float32",), sequence_length=LENGTH, allow_drift=True)
    assert not list(tmp_path.iterdir())


def test_large_logits_may_differ_in_proportion(task_model, tmp_path):
    large = task_model.clone(seed=0)
    weights = task_model.weights()
    large.set_weights({**weights, "classifier/kernel": 1e4 * weights["classifier/kernel"]})
    (row,) = export(large, tmp_path, ("float32",), sequence_length=LENGTH)
    assert row["max_dlogit"] > 1e-4


def test_dev_texts_that_the_files_cut_are_counted(task_model, tmp_path, caplog):
    dev = Split(["the cat sat on the mat " * LENGTH, "a"], [0, 1])
    export(task_model, tmp_path, ("float32",), sequence_length=LENGTH, dev=dev)
    assert f"1 of 2 dev texts are longer than the {LENGTH} pieces" in caplog.text


def test_operator_that_is_not_built_in_is_refused(tmp_path):
    task_model = tiny()
    layer = task_model.model.get_layer("layer_0_intermediate")
    layer.activation = lambda x: tf.math.igamma(1.0 + tf.square(x), 1.0)  # exists as a Flex op only
    with pytest.raises(
        ExportError, match="built-in operators alone. Received: Custom ops: Igamma.$"
    ):
        export(task_model, tmp_path, ("float32",), sequence_length=LENGTH)
    assert not list(tmp_path.iterdir())


def test_non_finite_output_is_refused(facts, task_model, monkeypatch):
    content, broken = open(facts["int8"]["path"], "rb").read(), tiny()
    broken.set_weights({"classifier/bias": np.full(3, np.nan)}, only=["classifier/bias"])
    with pytest.raises(
        ExportError, match="int8: outputs must be finite. Received: Keras gives 100 of 100 rows"
    ):
        parity.compare(parity.Reference(broken, LENGTH), content, "int8")
    rows = [np.float32([0, np.inf, 0])] * 100
    monkeypatch.setattr(parity, "_outputs", lambda *_: {"probabilities": rows})
    with pytest.raises(
        ExportError, match="The converted model gives 100 of 100 rows with inf or nan"
    ):
        parity.compare(parity.Reference(task_model, LENGTH), content, "int8")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"formats": ("float64",)}, "`formats` must be some of float32.*Received: float64"),
        ({"formats": ()}, "Received: none"),
        ({"sequence_length": 25}, "`sequence_length` must be 4 to 24, .* Received: 25"),
        ({"sequence_length": 3}, "Received: 3"),
        ({"path": "x.tflite"}, "must be a folder for several formats"),
    ],
)
def test_wrong_arguments(task_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        export(task_model, **{"path": "nowhere", **arguments})
