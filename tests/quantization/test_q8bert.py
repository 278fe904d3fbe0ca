import collections

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_compress.backend import tf
from keras_compress.bert.fake_quant import largest, quantize
from keras_compress.distillation import soft_targets
from keras_compress.factorization import albert
from keras_compress.quantization import q8bert
from mobile_export.convert import FORMATS, export
from mobile_export.graph import exported_graph
from tests.bert import tiny
from tests.support import TRAINING as SHORT
from tests.support import data, inputs_of

TRAINING = SHORT.replace(learning_rate=1e-3)  # 6 updates
STATIC = {"bits": 8, "activations": "static", "decay": 0.9, "start_step": 0}
WIDE = {
    "num_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 64,
    "initializer_range": 0.3,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "pooling": "cls",
}  # kernels of 1,024 values: the converter quantises no smaller ones


def int8_bytes(task_model):
    """An int8 file of length 16."""
    return FORMATS["int8"].write(exported_graph(task_model, 16, True), False)


def compress(model, **settings):
    return q8bert.compress(
        model, data(), training=TRAINING, **{"start_step": 2, "decay": 0.9, **settings}
    )


@pytest.fixture(scope="module")
def source():
    return tiny.model(**WIDE)


@pytest.fixture(scope="module")
def static(source):
    return compress(source)


def opened(content):
    """The interpreter of a file, its tensors in place."""
    interpreter = Interpreter(model_content=bytes(content))
    interpreter.allocate_tensors()
    return interpreter


def operators(content):
    """{operator: [types of its inputs and output, the ids and shapes left out]} of a file."""
    interpreter = opened(content)
    kinds = {t["index"]: t["dtype"].__name__ for t in interpreter.get_tensor_details()}
    found = collections.defaultdict(list)
    for op in interpreter._get_ops_details():
        places = (
            [*op["inputs"][:2], op["outputs"][0]]
            if op["op_name"] == "FULLY_CONNECTED"
            else op["outputs"][:1]
        )
        found[op["op_name"]].append(tuple(kinds[index] for index in places))
    return found


@pytest.fixture(scope="module")
def content(static):
    """The static model's int8 file."""
    return int8_bytes(static)


@pytest.mark.parametrize(
    "changes, count",
    [
        ({"num_layers": 2, "sharing": "all"}, 12),
        ({"embedding_size": 32, "hidden_size": 64, "adapter": "mlp"}, 8),
        ({"embedding_size": 16, "pooling": "pooler", "activation": "gelu_tanh"}, 8),
    ],
)
def test_every_product_of_the_encoder_is_int8_and_norms_and_softmax_are_float(changes, count):
    model = tiny.model(**{**WIDE, **changes})
    small = q8bert.quantized(model, STATIC)
    names = [layer.name for layer in small.model.layers]
    assert (
        names.count("layer_0_query") == 1 and "layer_1_query" not in names
    )  # shared ones stay one
    assert {name for name in small.weights() if not name.endswith("_range")} == set(model.weights())
    small.model(inputs_of(small), training=True)  # collects ranges
    found = operators(int8_bytes(small))
    assert collections.Counter(found["FULLY_CONNECTED"]) == {
        ("int8", "int8", "int8"): count,
        ("float32",) * 3: 1,
    }
    assert {*found["SOFTMAX"], *found["RSQRT"], *found["SQUARED_DIFFERENCE"]} == {("float32",)}


def test_the_file_computes_as_the_trained_model_does(static, content, tmp_path):
    (facts,) = export(static, tmp_path, ("int8",), sequence_length=16, dev=data().dev)
    assert (
        facts["agreement"] == 1.0
        and facts["mean_dp"] < 2e-3
        and facts["accuracy"] == facts["accuracy_keras"]
    )
    assert facts["gzip_bytes"] < facts["bytes"] == (tmp_path / "int8.tflite").stat().st_size
    kinds = collections.Counter(operators(content)["FULLY_CONNECTED"])
    assert kinds == {("int8", "int8", "int8"): 6, ("float32",) * 3: 1}
    stored = stored_integers(content)
    for name, weight in static.weights().items():
        if name.endswith("/kernel") and name != "classifier/kernel":
            assert holds(stored, quantize(weight, largest(weight)).numpy().T), name


def test_static_weights_of_four_bits_are_stored_in_half_the_bytes(source, content):
    small = q8bert.quantized(source, {**STATIC, "bits": 4})
    small.model(inputs_of(small), training=True)
    packed = int8_bytes(small)
    kernels = sum(
        weight.size for name, weight in source.weights().items() if name.endswith("/kernel")
    )
    assert ("int8",) * 3 in operators(packed)["FULLY_CONNECTED"]  # what the interpreter unpacks to
    assert len(content) - len(packed) > 0.45 * kernels


def test_training_moves_weights_and_ranges(source, static):
    before, after = source.weights(), static.weights()
    assert static.config == source.config.replace(quantization={**STATIC, "start_step": 2})
    for name, value in before.items():
        moved = np.abs(after[name] - value).max() > 1e-6
        assert moved or name.endswith("key/bias"), name  # softmax takes a shift of all keys out
    ranges = {name: value for name, value in after.items() if name not in before}
    assert ranges and all(name.endswith("_range") and value > 0 for name, value in ranges.items())
    free = static.rebuilt(static.config.replace(quantization=None), static.weights())
    apart = np.abs(static.predict(tiny.TEXTS) - free.predict(tiny.TEXTS)).max()
    assert apart > 1e-5  # it does quantise


def test_quantisers_know_the_updates_so_far(static):
    assert {
        int(layer.optimizer_step)
        for layer in static.model.layers
        if hasattr(layer, "optimizer_step")
    } == {5}


@pytest.mark.parametrize("bits, adapter", [(4, None), (2, None), (2, "mlp"), (2, "hgt")])
def test_baked_weights_compute_what_training_computed(source, bits, adapter):
    if adapter:
        source = tiny.model(**WIDE, embedding_size=16, adapter=adapter)
    free = q8bert.quantized(source, {**STATIC, "activations": "dynamic", "bits": bits})
    plain = q8bert.bake(free)
    assert plain.config == source.config and plain.weights().keys() == source.weights().keys()
    np.testing.assert_allclose(
        plain.model(inputs_of(plain)), free.model(inputs_of(free)), atol=1e-6
    )
    kernel = plain.weights()["layer_0_query/kernel"]
    assert (
        max(len(np.unique(column)) for column in kernel.T)
        <= 2**bits - 1
        < len(np.unique(kernel)) * 32
    )
    assert np.abs(kernel - source.weights()["layer_0_query/kernel"]).max() > 0


@pytest.mark.usefixtures("eager_here")
def test_the_stored_integers_are_the_trained_ones(source):
    """8 bits, one scale per output, by TensorFlow's converter; 4 and 2 bits: tests/mobile_export/test_low_bits.py."""
    small = compress(source, activations="dynamic")
    stored, weights = stored_integers(int8_bytes(small)), small.weights()
    for name in [
        name for name, weight in weights.items() if name.endswith("/kernel") and weight.size >= 1024
    ]:
        assert holds(stored, quantize(weights[name], largest(weights[name], 0)).numpy().T), name


def stored_integers(content):
    """All int8 constants of a file, as arrays."""
    interpreter = opened(content)
    return [
        interpreter.get_tensor(t["index"])
        for t in interpreter.get_tensor_details()
        if t["dtype"] == np.int8
        and len(t["shape"]) == 2
        and t["quantization_parameters"]["scales"].size
    ]


def holds(arrays, wanted):
    return any(array.shape == wanted.shape and np.array_equal(array, wanted) for array in arrays)


@pytest.mark.usefixtures("eager_here")
def test_a_narrow_and_shared_model_keeps_its_answers_in_a_file(tmp_path):
    model = tiny.model(**{**WIDE, "num_layers": 2, "hidden_size": 64})
    small = albert.compress(model, data(), sharing="all", embedding_size=16)
    small = soft_targets.compress(model, data(), student=small, training=TRAINING)  # recovers
    (facts,) = export(compress(small, start_step=0), tmp_path, ("int8",), sequence_length=12)
    assert facts["agreement"] > 0.95 and facts["mean_dp"] < 0.02  # 0.004 for a plain BERT


@pytest.mark.parametrize(
    "changes, settings, message",
    [
        ({}, {"bits": 2}, "`bits` must be 8 or 4 with static activations.*Received: 2 and 2"),
        ({}, {"start_step": 6}, "`start_step` below 6, the number of updates.*: 8 and 6"),
        ({"embedding_size": 16, "adapter": "hgt"}, {}, "Received: adapter 'hgt' .*method `fold`"),
    ],
)
def test_errors(changes, settings, message):
    with pytest.raises(ValueError, match=message):
        compress(tiny.model(**WIDE, **changes), **settings)


def test_a_static_model_has_no_float_file(static, tmp_path):
    with pytest.raises(ValueError, match="exported as int8 and int8_per_tensor alone. .*: float32"):
        export(static, tmp_path, ("float32",), sequence_length=16)


def test_gradients_reach_every_weight(source, static):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(static.model(inputs_of(static), training=True) ** 2)
    gradients = tape.gradient(loss, static.model.trainable_variables)
    assert len(static.model.trainable_variables) == len(source.model.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
