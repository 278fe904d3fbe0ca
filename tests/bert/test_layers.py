import inspect

import numpy as np
import pytest

from keras_compress.backend import keras, tf
from keras_compress.bert import layers as L

ARGUMENTS = {
    "PositionEmbedding": {"input_dim": 5, "output_dim": 2},
    "LayerNorm": {"epsilon": 1e-7},
    "AttentionScores": {"num_heads": 2},
    "WordEmbedding": {"input_dim": 5, "output_dim": 2},
    "ExtraScores": {"width": 3},
}
LAYERS = [
    cls for _, cls in inspect.getmembers(L, inspect.isclass) if issubclass(cls, keras.layers.Layer)
]


@pytest.mark.parametrize("cls", LAYERS, ids=lambda cls: cls.__name__)
def test_config_round_trip(cls):
    layer = cls(name="some", **ARGUMENTS.get(cls.__name__, {}))
    assert keras.utils.get_registered_name(cls) == f"keras_compress>{cls.__name__}"
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is cls and again.get_config() == layer.get_config()
    own = (
        set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}
        if "__init__" in vars(cls)
        else set()
    )
    assert own <= set(layer.get_config())


def test_attention_bias_by_hand():
    np.testing.assert_array_equal(
        L.AttentionBias()(tf.constant([[1, 1, 0]])), [[[[0.0, 0.0, -1e4]]]]
    )


def test_position_embedding_by_hand():
    layer = L.PositionEmbedding(3, 2)
    layer.build((None, None, 2))
    layer.set_weights([np.array([[1, 2], [3, 4], [5, 6]], np.float32)])
    # Two positions, so the third vector is not used: (10, 10) + (1, 2), (10, 10) + (3, 4)
    np.testing.assert_array_equal(layer(tf.fill((1, 2, 2), 10.0)), [[[11, 12], [13, 14]]])


def test_layer_norm_by_hand():
    layer = L.LayerNorm(epsilon=1e-12)
    layer.build((None, 2))
    layer.set_weights([np.array([2.0, 3.0]), np.array([10.0, 20.0])])
    # Mean 2, variance 1: (1, 3) -> (-1, 1) -> (2 * -1 + 10, 3 * 1 + 20)
    np.testing.assert_allclose(layer(tf.constant([[1.0, 3.0]])), [[8.0, 23.0]], rtol=1e-6)
    np.testing.assert_allclose(
        layer(tf.constant([[5.0, 5.0]])), [[10.0, 20.0]]
    )  # variance 0 divides nothing by 0


def test_attention_scores_by_hand():
    query, key = (
        tf.constant([[[1.0, 2.0, 3.0, 4.0]]]),
        tf.constant([[[1.0, 1.0, 0.0, 2.0], [0.0, 1.0, 1.0, 0.0]]]),
    )
    # Two heads of size 2: (1, 2).(1, 1) = 3, (1, 2).(0, 1) = 2; (3, 4).(0, 2) = 8, (3, 4).(1, 0) = 3; over sqrt(2)
    expected = np.array([[[[3.0, 2.0]], [[8.0, 3.0]]]]) / np.sqrt(2.0)
    np.testing.assert_allclose(L.AttentionScores(2)(query, key), expected, rtol=1e-6)


def test_attention_probs_by_hand():
    scores = tf.math.log([[[[1.0, 3.0, 96.0]]]])
    probs = L.AttentionProbs()([scores, tf.zeros((1, 1, 1, 3))])
    np.testing.assert_allclose(probs, [[[[0.01, 0.03, 0.96]]]], rtol=1e-5)
    bias = L.AttentionBias()(tf.constant([[1, 1, 0]]))
    masked = L.AttentionProbs()([scores, bias]).numpy()
    np.testing.assert_allclose(masked, [[[[0.25, 0.75, 0.0]]]], rtol=1e-5)
    assert masked[..., 2] == 0.0


def test_attention_context_by_hand():
    probs = tf.constant([[[[0.25, 0.75]], [[1.0, 0.0]]]])  # 2 heads, 1 query, 2 keys
    value = tf.constant([[[4.0, 8.0, 1.0, 2.0], [0.0, 4.0, 9.0, 9.0]]])
    # Head 1: .25 (4, 8) + .75 (0, 4) = (1, 5); head 2: (1, 2)
    np.testing.assert_allclose(L.AttentionContext()([probs, value]), [[[1.0, 5.0, 1.0, 2.0]]])


def test_first_token_and_mean_by_hand():
    x = tf.constant([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]])
    np.testing.assert_array_equal(L.FirstToken()(x), [[1.0, 2.0]])
    np.testing.assert_array_equal(L.FirstTokenKept()(x), [[[1.0, 2.0]]])
    np.testing.assert_array_equal(L.MaskedMean()(x, tf.constant([[1, 1, 0]])), [[2.0, 4.0]])
    np.testing.assert_array_equal(L.MaskedMean()(x, tf.constant([[0, 0, 0]])), [[0.0, 0.0]])


def test_gelu_tanh_by_hand():
    # .5 (1 + tanh(sqrt(2/pi) (1 + .044715))) = .5 (1 + tanh(.83357)) = .84119; the erf form gives .84134
    np.testing.assert_allclose(L.gelu_tanh(tf.constant([1.0, 0.0])), [0.841192, 0.0], atol=1e-6)


def test_split_heads():
    x = tf.reshape(tf.range(8), (1, 2, 4))
    np.testing.assert_array_equal(L.split_heads(x, 2), [[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]])
