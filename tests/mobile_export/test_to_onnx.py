"""ONNX files: what is in them, that they agree with Keras, and what is said where the packages are missing."""

import collections

import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import Tokenizer
from mobile_export import convert, ort, parity
from mobile_export.benchmark import benchmark
from mobile_export.convert import ExportError, export, exported_model
from mobile_export.litert import Runner
from mobile_export.ort import OnnxRunner, open_model
from mobile_export.stamp import stamped
from tests.mobile_export.conftest import LENGTH, converted, split_of, texts, tiny

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")


@pytest.fixture(scope="module")
def onnx_facts(task_model, tmp_path_factory):
    found = export(
        task_model,
        tmp_path_factory.mktemp("onnx"),
        convert.ONNX_FORMATS,
        sequence_length=LENGTH,
        dev=split_of(task_model),
    )
    return {row["format"]: row for row in found}


def test_facts(onnx_facts):
    floats, int8 = onnx_facts.values()
    assert floats["path"].endswith("float32.onnx") and int8["path"].endswith("int8.onnx")
    assert floats["max_dlogit"] <= 1e-4 and floats["agreement"] == 1.0 and floats["cls_only"]
    assert 0 < int8["mean_dp"] <= int8["max_dp"] < 5e-2 and int8["accuracy_keras"] == 1.0
    assert int8["bytes"] < floats["bytes"]


def test_the_file_speaks_for_itself(onnx_facts, task_model):
    """Read with ONNX Runtime alone: int32 inputs by name, static shape, probabilities."""
    session = onnxruntime.InferenceSession(
        onnx_facts["onnx_float32"]["path"], providers=["CPUExecutionProvider"]
    )
    assert {(i.name, i.type, tuple(i.shape)) for i in session.get_inputs()} == {
        (name, "tensor(int32)", (1, LENGTH))
        for name in ("input_word_ids", "input_mask", "input_type_ids")
    }
    assert [(o.name, tuple(o.shape)) for o in session.get_outputs()] == [("probabilities", (1, 3))]
    for encoding in task_model.tokenizer.encode(texts(), LENGTH)[:5]:
        inputs = task_model.pad([encoding], LENGTH)
        expected = tf.nn.softmax(task_model.model(inputs, training=False))
        np.testing.assert_allclose(session.run(None, inputs)[0], expected, atol=1e-6)


def test_what_onnx_runtime_can_fuse_is_written_so(onnx_facts, tmp_path):
    operators = collections.Counter(
        node.op_type for node in onnx.load(onnx_facts["onnx_float32"]["path"]).graph.node
    )
    assert (
        operators["LayerNormalization"] == 5
        and operators["Erf"] == 2
        and not {"Erfc", "Sqrt"} & {*operators}
    )
    assert operators["MatMul"] + operators["Gemm"] == 13 + 2 * 2  # Dense layers; two per attention
    assert operators["Reshape"] <= 10
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(
        onnx_facts["onnx_float32"]["path"], options, providers=["CPUExecutionProvider"]
    )
    fused = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "SkipLayerNormalization" in fused and fused & {"Gelu", "BiasGelu"}
    stored = onnx.load(onnx_facts["onnx_int8"]["path"]).graph.initializer
    bytes_each = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    kernels = [
        t for t in stored if t.data_type in bytes_each and len(t.dims) == 2 and t.dims[0] > 2
    ]
    assert len(kernels) == 14  # 12 Dense layers, classifier, word table


def test_tf2onnx_sees_no_weights(task_model, monkeypatch):
    from tf2onnx import tfonnx

    seen, convert_graph = [], tfonnx.process_tf_graph

    def process(graph, **settings):
        seen.append(graph.as_graph_def().ByteSize())
        return convert_graph(graph, **settings)

    monkeypatch.setattr(tfonnx, "process_tf_graph", process)
    model = onnx.load_from_string(converted(task_model, "onnx_float32"))
    num_bytes = sum(value.nbytes for value in task_model.weights().values())
    assert seen[0] < 40_000 < num_bytes < model.ByteSize()
    assert len(model.graph.input) == 3  # the weights are no inputs of the file


@pytest.mark.parametrize(
    "task, pooling, changes",
    [
        ("matching", "pooler", {"sharing": "all", "embedding_size": 16}),
        ("tagging", "cls", {}),
        ("classification", "mean", {"activation": "gelu_tanh"}),
    ],
)
def test_other_models(tmp_path, task, pooling, changes):
    plain = tiny(task, pooling)
    task_model = TaskModel(
        plain.config.replace(**changes), plain.tokenizer, task, plain.labels, seed=2
    )
    (row,) = export(task_model, tmp_path / "model.onnx", ("onnx_float32",), sequence_length=LENGTH)
    assert row["max_dlogit"] <= 1e-4
    again = exported_model(tmp_path / "model.onnx", task_model)
    expected = task_model.predict(texts(task)[:4], max_length=LENGTH)
    found = again.predict(texts(task)[:4])
    assert found == expected if task == "tagging" else np.abs(found - expected).max() < 1e-5


def test_operator_that_onnx_does_not_have(tmp_path):
    task_model = tiny()
    task_model.model.get_layer("layer_0_intermediate").activation = lambda x: tf.math.igamma(
        1.0 + tf.square(x), 1.0
    )
    with pytest.raises(ExportError, match="ONNX's own operators alone. Received: Igamma.$"):
        export(task_model, tmp_path, ("onnx_float32",), sequence_length=LENGTH)
    bilstm = TaskModel(
        tiny().config.replace(architecture="bilstm"), tiny().tokenizer, "classification", ("a", "b")
    )
    with pytest.raises(
        ExportError, match="must be a BERT. Received: a bilstm. Export it as TFLite"
    ):
        export(bilstm, tmp_path, ("onnx_int8",), sequence_length=LENGTH)
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_is_refused(onnx_facts, task_model, tmp_path):
    content = open(onnx_facts["onnx_float32"]["path"], "rb").read()
    other = tiny()
    other.set_weights({"classifier/bias": np.float32([0, 0, 1])}, only=["classifier/bias"])
    with pytest.raises(ExportError, match="onnx_float32: logits must be within 0.0001"):
        parity.compare(parity.Reference(other, LENGTH), content, "onnx_float32", 1e-4)
    for wrong in (b"", b"noise" * 100, content[: len(content) // 2]):
        (tmp_path / "model.onnx").write_bytes(wrong)
        with pytest.raises(ValueError, match="model.onnx: (not a model that ONNX Ru|.*damaged)"):
            open_model(tmp_path / "model.onnx")
    with pytest.raises(FileNotFoundError, match="none.onnx"):
        open_model(tmp_path / "none.onnx")
    foreign = onnx.load_from_string(content)
    for change in (
        lambda shape: shape.dim[1].__setattr__("dim_param", "seq"),
        lambda shape: shape.ClearField("dim"),
    ):
        for tensor in foreign.graph.input:
            change(tensor.type.tensor_type.shape)
        (tmp_path / "model.onnx").write_bytes(stamped(foreign.SerializeToString()))
        with pytest.raises(ValueError, match="model.onnx: not a model that ONNX Runtime can load"):
            open_model(tmp_path / "model.onnx")
    with pytest.raises(
        ValueError, match="for one a folder or a name that ends in .onnx. Received: `x.tflite`"
    ):
        export(task_model, "x.tflite", ("onnx_int8",), sequence_length=LENGTH)


def test_one_benchmark_of_all_engines(onnx_facts, facts, task_model, monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    paths = [facts["float32"]["path"], onnx_facts["onnx_int8"]["path"]]
    rows = benchmark(*paths, task_model=task_model, runs=3, warmup=1)
    assert [row["path"] for row in rows] == [*paths, "tf.function", "Keras call", "Keras predict"]
    assert all(
        0 < row["latency_ms_p50"] <= row["latency_ms_p90"] and row["sequence_length"] == LENGTH
        for row in rows
    )
    assert [row["threads"] for row in rows] == [1, 1, 3, 3, 3]
    config = task_model.config.replace(vocab_size=task_model.config.vocab_size + 1)
    larger = TaskModel(
        config, Tokenizer([*task_model.tokenizer.vocab, "new"]), task_model.task, task_model.labels
    )
    with pytest.raises(
        ValueError,
        match=r"must be exported from this model, with .* and 31 pieces. Received: .* and 30.",
    ):
        benchmark(*paths, task_model=larger, runs=1, warmup=0)
    assert isinstance(open_model(paths[0]), Runner) and isinstance(open_model(paths[1]), OnnxRunner)


def test_missing_packages_are_named(task_model, tmp_path, monkeypatch):
    monkeypatch.setattr(ort, "find_spec", lambda name: None if name != "onnxruntime" else name)
    with pytest.raises(
        ImportError, match="ONNX needs packages that are missing: pip install onnx tf2onnx$"
    ):
        export(task_model, tmp_path, ("float32", "onnx_float32"), sequence_length=LENGTH)
    assert not list(tmp_path.iterdir())
