"""TernaryBERT and BinaryBERT: their quantisers, the split, and what training moves."""

import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.measure.accuracy import evaluate
from keras_compress.quantization import binarybert, few_values, ternarybert
from tests.support import TRAINING, data, inputs_of, stages_of, still, values_on

SHORT = TRAINING.replace(learning_rate=1e-3)  # 6 updates
RANDOM = np.random.default_rng(0)
# Rows of these are groups, too.
LATENT = {
    "normal": RANDOM.normal(0, 0.02, (40, 24)),
    "skewed": RANDOM.gamma(0.5, 0.1, (40, 24)) - 0.01,
    "heavy": RANDOM.standard_t(1.5, (40, 24)),
    # 1 large weight, 40 small ones of one sign: a = (1 + 0.08 - 0) / 2 would be 0.54, with 1000 of them 1.5
    "one sign": np.r_[1.0, np.full(1000, -0.002)][None],
    "other sign": np.r_[1.0, np.full(1000, 0.002)][None],
    "zeros inside": RANDOM.normal(0, 1, (40, 24)) * RANDOM.integers(0, 2, (40, 24)),
    "all of one size": RANDOM.choice([-0.3, 0.3], (5, 8)),  # Z is empty
    "zeros": np.zeros((3, 4)),  # I is empty
    "one": np.array([[-0.7]]),
}


def numpy_of(function, w, axis=None):
    return function(tf.constant(w), axis).numpy()


def test_quantisers_by_hand():
    w = tf.constant([[1.0, -0.1, 0.3, -0.6], [0.0, 0.0, 0.0, 0.0]])
    # sum |w| = 2, n = 8: Delta = 0.7 / 4 = 0.175; alpha = (1 + .3 + .6) / 3 = .6333
    np.testing.assert_allclose(
        few_values.ternarize(w)[0], [1.9 / 3, 0, 1.9 / 3, -1.9 / 3], rtol=1e-6
    )
    # per row: Delta = 0.7 * 2 / 4 = .35; alpha = 1.6 / 2; a row of zeros stays
    np.testing.assert_allclose(few_values.ternarize(w, -1), [[0.8, 0, 0, -0.8], [0] * 4], rtol=1e-6)
    # 2 / 8 = .25, zeros are positive; per row 2 / 4 = .5
    np.testing.assert_allclose(few_values.binarize(w)[0], [0.25, -0.25, 0.25, -0.25])
    np.testing.assert_allclose(few_values.binarize(w, -1), [[0.5, -0.5, 0.5, -0.5], [0] * 4])
    assert (few_values.binarize(tf.constant([0.0, 2.0])).numpy() == 1.0).all()


@pytest.mark.parametrize("quantizer, most", [(few_values.ternarize, 3), (few_values.binarize, 2)])
def test_laws_of_the_quantisers(quantizer, most):
    w = LATENT["normal"]
    assert len(np.unique(numpy_of(quantizer, w))) == most
    assert max(len(np.unique(row)) for row in numpy_of(quantizer, w, -1)) == most
    np.testing.assert_allclose(numpy_of(quantizer, 3 * w), 3 * numpy_of(quantizer, w))


def test_the_threshold_of_twn_is_no_further_than_the_grid_of_max():
    """Issue: with the step max|w| the relative squared error of normal weights is .73, TWN's is about .21."""
    w = LATENT["normal"]
    error = ((numpy_of(few_values.ternarize, w) - w) ** 2).sum() / (w**2).sum()
    assert 0.17 < error < 0.23


@pytest.mark.parametrize("by_rows", [False, True])
@pytest.mark.parametrize("name", LATENT)
def test_the_split_is_exact(name, by_rows):
    for w in LATENT[name] if by_rows else [LATENT[name]]:
        w1, w2 = binarybert.split_group(w)
        bound = 1e-15 * max(np.abs(w).max(), 1.0)
        np.testing.assert_allclose(w1 + w2, w, atol=bound)
        both = numpy_of(few_values.binarize, w1) + numpy_of(few_values.binarize, w2)
        wanted = numpy_of(few_values.ternarize, w)
        np.testing.assert_allclose(both, wanted, atol=bound)
        sizes = np.abs(w1).mean(), np.abs(w2).mean(), np.abs(wanted).max() / 2
        np.testing.assert_allclose(sizes, sizes[0], atol=bound)


def test_the_other_sign_of_p_and_q_is_wrong():
    w = LATENT["skewed"]
    chosen = numpy_of(few_values.ternarize, w) != 0
    R, P, Q = (np.abs(w)[m].sum() for m in (chosen, ~chosen & (w > 0), ~chosen & (w < 0)))
    w1, w2 = binarybert.split_group(w)
    a = (R + Q - P) / (2 * R)
    np.testing.assert_allclose(w1[chosen], a * w[chosen])
    wrong = np.where(chosen, (R + P - Q) / (2 * R) * w, w1)
    apart = [abs(np.abs(one).mean() - np.abs(w - one).mean()) for one in (w1, wrong)]
    assert apart[0] < 1e-15 and apart[1] > 1e-4


@pytest.mark.parametrize("kind", ["ternary", "binary"])
def test_gradients_pass_unchanged_and_ternary_ones_end_at_the_clip(kind):
    w = tf.Variable([0.5, -0.01, 0.2, 3.0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(few_values.latent(w, kind) * [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(tape.gradient(loss, w), [1, 2, 3, 0 if kind == "ternary" else 4])


@pytest.mark.parametrize("kind", few_values.QUANTIZERS)
def test_while_training_values_are_exact(kind):
    """So is their sum, in any order: TensorFlow adds more than two numbers in another order in each run."""
    w = tf.constant(LATENT["skewed"], tf.float32)  # w + (w^ - w) misses 173 binary ones
    values = tf.function(few_values.latent)(w, kind)
    np.testing.assert_array_equal(values, few_values.few_values(w, kind))


@pytest.fixture(scope="module")
def source():
    """A model whose biases are not 0: a split layer is to add its own once."""
    start, random = still(pooling="pooler"), np.random.default_rng(1)
    weights = start.weights()
    for name in [name for name in weights if name.endswith("/bias")]:
        weights[name] = random.normal(0, 0.5, weights[name].shape)
    return start.rebuilt(start.config, weights)


def test_a_split_model_and_a_baked_one_compute_what_the_ternary_one_does(source):
    ternary = few_values.quantized(source, source.weights(), "ternary")
    inputs = inputs_of(source)
    wanted = ternary.model(inputs)
    split = binarybert.split(ternary)
    binary = few_values.quantized(source, split, "binary", split=True)
    np.testing.assert_allclose(binary.model(inputs), wanted, rtol=2e-5, atol=2e-5)
    assert np.abs(wanted - source.model(inputs)).max() > 1e-2  # it does quantise
    for model in (ternary, binary):
        plain, before = few_values.baked(model), source.weights()
        assert plain.config == source.config
        for name, weight in plain.weights().items():
            if name == few_values.TABLE:
                assert max(len(np.unique(row)) for row in np.abs(weight)) <= 2
            elif name.endswith("/kernel") and name != "classifier/kernel":
                assert len(np.unique(np.abs(weight))) <= 2, name
            else:
                np.testing.assert_array_equal(weight, before[name])
    # without the rounding of activations
    np.testing.assert_allclose(
        few_values.baked(binary).model(inputs), few_values.baked(ternary).model(inputs), atol=2e-5
    )


def test_inputs_of_dense_layers_have_eight_bits():
    layer = few_values.FewValuesDense(3, kind="binary")
    x = np.float32([[1.0, 0.503, -0.001], [100.0, 50.3, -0.1]])  # one scale per token
    layer.build((None, 3))
    by_hand = np.float32([[127, 64, 0]] * 2) / 127 * [[1.0], [100.0]]
    expected = by_hand @ few_values.binarize(layer.kernel)
    np.testing.assert_allclose(layer(tf.constant(x)), expected, rtol=1e-5)


def test_ternarybert_learns_from_all_layers_in_one_stage(monkeypatch, source):
    (stage,) = stages_of(ternarybert, monkeypatch, source, data())
    assert {name: weight for name, (weight, _) in stage["losses"].items()} == {
        "hidn": 1.0,
        "attn": 1.0,
        "pred": 1.0,
    }
    values, longer = values_on(stage), values_on(stage, length=16)
    for name, value in values.items():
        assert value > 0, name
        np.testing.assert_allclose(value, longer[name], rtol=1e-4)  # padding changes nothing
    stage["student"] = source
    same = values_on(stage)
    assert same["hidn"] == same["attn"] == 0.0


def test_binarybert_has_two_stages_before_and_after_the_split(monkeypatch, source):
    training = SHORT.replace(epochs=4, patience=2)  # 12 updates
    stages = stages_of(binarybert, monkeypatch, source, data(), training=training)
    facts = [
        (s["stage"], s["num_steps"], s["first_step"], s["training"].patience, [*s["losses"]])
        for s in stages
    ]
    assert facts == [
        ("ternary-inside", 3, 0, None, ["hidn", "attn"]),
        ("ternary-answers", 3, 3, None, ["pred"]),
        ("binary-inside", 3, 6, None, ["hidn", "attn"]),
        ("binary-answers", 3, 9, 2, ["pred"]),
    ]
    rates = [s["training"].learning_rate for s in stages]
    np.testing.assert_allclose(rates, [5e-4, 2e-4, 2.5e-3, 1e-3])


@pytest.mark.usefixtures("eager_here")
@pytest.mark.parametrize("method", [ternarybert, binarybert])
def test_training_moves_everything_and_dev_is_measured_as_the_file_computes(method, source):
    small = method.compress(source, data(), training=SHORT.replace(epochs=3))
    before, after = source.weights(), small.weights()
    for name, weight in after.items():
        moved = not np.array_equal(weight, before[name])
        assert moved or name.endswith("key/bias"), name
    assert len(np.unique(after["layer_0_query/kernel"])) in (
        (3,) if method is ternarybert else (3, 4)
    )
    assert evaluate(small, data().dev)["value"] >= 0 and small.curve[-1]["dev"] >= 0


@pytest.mark.usefixtures("eager_here")
def test_best_weights_of_a_split_model_come_back_from_a_folder(tmp_path, source):
    training = SHORT.replace(evaluations=3, patience=1, folder=str(tmp_path), epochs=1)
    once = {"training": training, "ternary_share": 0.0, "inside_share": 0.0}  # one stage
    first = binarybert.compress(source, data(), **once)
    again = binarybert.compress(source, data(), **once)  # all is restored
    np.testing.assert_equal(again.weights(), first.weights())
