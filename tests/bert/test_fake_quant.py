import numpy as np
import pytest
import tensorflow_model_optimization as tfmot

from keras_compress.backend import keras, tf
from keras_compress.bert import fake_quant as Q
from keras_compress.bert import layers as L
from tests.bert import tiny

SETTINGS = {"bits": 8, "activations": "static", "decay": 0.9, "start_step": 2}
X = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)


def wrapped(layer, **changes):
    with tfmot.quantization.keras.quantize_scope():
        quantizers = Q.LayerQuantizers({**SETTINGS, **changes})
        return tfmot.quantization.keras.QuantizeWrapperV2(layer, quantizers, name_prefix="")


def test_by_hand():
    x = np.array(
        [-2.54, -1.0, 0.0, 0.013, 2.0, 9.9], np.float32
    )  # 8 bits, max|x| = 2.54: S = 127 / 2.54 = 50
    np.testing.assert_array_equal(
        Q.quantize(x, 2.54), [-127, -50, 0, 1, 100, 127]
    )  # .65 -> 1; 495 -> 127
    np.testing.assert_allclose(
        Q.fake_quantize(tf.constant(x), 2.54), [-2.54, -1.0, 0.0, 0.02, 2.0, 2.54], atol=1e-6
    )
    assert [Q.levels(bits) for bits in (8, 4, 2)] == [127, 7, 1]


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_laws_of_the_grid(bits, axis):
    big = Q.largest(X, axis)
    once = Q.fake_quantize(tf.constant(X), big, bits).numpy()
    np.testing.assert_array_equal(
        Q.quantize(once, Q.largest(once, axis), bits), Q.quantize(X, big, bits)
    )
    np.testing.assert_allclose(
        Q.fake_quantize(tf.constant(once), Q.largest(once, axis), bits), once, atol=1e-6
    )
    np.testing.assert_array_equal(Q.fake_quantize(tf.constant(-X), big, bits), -once)
    assert np.all(np.abs(once - X) <= 0.5 * big / Q.levels(bits) + 1e-6)
    integers = Q.quantize(X, big, bits).numpy()
    assert np.abs(integers).max() == Q.levels(bits) and len(np.unique(integers)) <= 2**bits - 1
    assert big.shape == {None: (), 0: (1, 30), -1: (40, 1)}[axis]


def test_more_bits_are_nearer_and_zeros_stay():
    errors = [
        np.abs(Q.fake_quantize(tf.constant(X), Q.largest(X), bits) - X).mean()
        for bits in (2, 4, 8, 16)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-4
    np.testing.assert_array_equal(
        Q.fake_quantize(tf.zeros((2, 2)), Q.largest(tf.zeros((2, 2)))), np.zeros((2, 2))
    )


def test_the_gradient_passes_straight_through_inside_and_outside():
    x = tf.Variable([-5.0, -0.3, 0.0, 0.2, 7.0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(Q.fake_quantize(x, 1.0) * [1.0, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_array_equal(tape.gradient(loss, x), [1.0, 2.0, 3.0, 4.0, 5.0])


@pytest.mark.parametrize("bits, wide", [(4, False), (8, False), (8, True)])
def test_the_converter_s_operator_gives_the_same_values(bits, wide):
    for big in (0.7, 2.0, 11.0):  # values beyond the range, too
        expected = Q.fake_quantize(tf.constant(X), big, bits, wide)
        np.testing.assert_allclose(Q.marked(X, big, bits, wide), expected, atol=2e-6)
        if big == 0.7:
            assert Q.quantize(X, big, bits, wide).numpy().min() == -Q.levels(bits) - wide


def test_ranges_are_moving_averages():
    layer = wrapped(L.LayerNorm())
    x = tf.random.stateless_normal((3, 4, 8), (1, 2))
    ema = lambda: float(layer._output_quantizer_vars["ema"])  # noqa: E731
    before = layer(x, training=False)
    assert ema() == 0.0
    layer(x, training=True)
    largest = float(tf.reduce_max(tf.abs(layer.layer(x))))
    assert ema() == pytest.approx(largest)  # the first value sets it; a constant stays
    layer(x, training=True)
    assert ema() == pytest.approx(largest)
    layer.layer.gamma.assign(2.0 * layer.layer.gamma)
    layer(x, training=True)
    assert ema() == pytest.approx(largest + 0.1 * largest)  # ema - (1 - .9) (ema - 2 ema)
    layer(x, training=False)
    assert ema() == pytest.approx(1.1 * largest) and float(tf.reduce_max(tf.abs(before))) < 1e-6


def test_activations_are_quantised_from_the_start_step_on_and_always_outside_of_training():
    layer, x = wrapped(L.LayerNorm()), tf.random.stateless_normal((3, 4, 8), (1, 2))
    plain = None
    for step in range(4):
        layer.optimizer_step.assign(step) if layer.built else None
        seen = layer(x, training=True)
        plain = layer.layer(x) if plain is None else plain
        assert np.array_equal(seen, plain) == (step < 2)
    used = np.unique(layer(x, training=False))
    step = float(layer._output_quantizer_vars["ema"]) / 127
    np.testing.assert_allclose(used / step, np.round(used / step), atol=1e-3)


def test_a_dense_layer_computes_with_integers():
    """(Xq Wq) / (Sx Sw) + b, the product quantised, is what the wrapped layer gives."""
    layer = wrapped(keras.layers.Dense(5, kernel_initializer="glorot_normal"), start_step=0)
    x = tf.constant(X)
    big = Q.largest(x)
    layer(Q.fake_quantize(x, big), training=True)
    weight, bias = layer.layer.weights if len(layer.layer.weights) == 2 else layer.trainable_weights
    s_x, s_w = 127 / big, 127 / Q.largest(weight)
    x_int, w_int = (np.round(np.array(a)).astype(np.int32) for a in (x * s_x, weight * s_w))
    b_int = np.round(np.array(bias * s_x * s_w)).astype(np.int32)
    total = x_int @ w_int + b_int
    assert np.abs(total).max() < 2**31 and 3072 * 127 * 127 < 2**31
    by_hand = total / np.array(s_x * s_w)
    ema = layer._quantize_activations[0]._post_activation_vars["ema"]
    np.testing.assert_allclose(
        layer(Q.fake_quantize(x, big), training=False),
        Q.fake_quantize(tf.constant(by_hand, tf.float32), float(ema)),
        atol=1e-5,
    )


def test_probabilities_have_256_levels_and_a_straight_gradient():
    layer = Q.ProbabilityQuantizer()
    x = tf.Variable([0.0, 0.3, 0.5, 1.0])
    with tf.GradientTape() as tape:
        seen = layer(x, True, {})
    np.testing.assert_array_equal(tape.gradient(seen, x), np.ones(4))
    np.testing.assert_allclose(seen, [0.0, 77 / 256, 0.5, 255 / 256], atol=1e-6)  # .3 x 256 = 76.8
    np.testing.assert_allclose(layer(x, False, {}), seen, atol=1e-6)


@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_what_is_wrapped(activations):
    model = tiny.model(sharing="all", embedding_size=4)
    layers = Q.quantized_layers(model.model, {**SETTINGS, "activations": activations})
    found = {
        layer.name
        for layer in layers
        if isinstance(layer, tfmot.quantization.keras.QuantizeWrapperV2)
    }
    dense = {layer.name for layer in model.model.layers if isinstance(layer, keras.layers.Dense)}
    assert dense > {"layer_0_query", "embedding_projection", "pooler", "classifier"}
    inner = {
        "embeddings_norm",
        "layer_0_attention_norm",
        "layer_0_output_norm",
        "layer_0_attention_context",
        "layer_0_attention_probs",
    }
    assert found == {"word_embeddings"} | (
        dense - {"classifier"} | inner if activations == "static" else dense
    )
    assert [layer.name for layer in layers] == [layer.name for layer in model.model.layers]


@pytest.mark.parametrize(
    "part",
    [
        Q.WeightQuantizer(4, -1),
        Q.ActivationQuantizer(0.9, 3),
        Q.ProbabilityQuantizer(),
        Q.LayerQuantizers(SETTINGS),
    ],
)
def test_config_round_trip(part):
    again = type(part).from_config(part.get_config())
    assert vars(again) == vars(part)
