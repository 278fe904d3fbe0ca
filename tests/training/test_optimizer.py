import numpy as np

from keras_compress.backend import tf
from keras_compress.training.optimizer import AdamW, WarmUpLinear, adamw
from keras_compress.training.settings import Training
from tests.bert import tiny


def test_warm_up_and_linear_decay_by_hand():
    schedule = WarmUpLinear(peak=1.0, warmup_steps=4, num_steps=10)
    # Up by quarters: 1/4 .. 4/4, then (10 - t) / 6: t = 4 -> 1, t = 7 -> 1/2, t = 10 -> 0, and 0 beyond.
    np.testing.assert_allclose(
        [schedule(t) for t in (0, 1, 3, 4, 7, 10, 12)], [0.25, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    )
    assert float(WarmUpLinear(0.5, 0, 10)(0)) == 0.5
    later = WarmUpLinear(1.0, 4, 10, first_step=3)  # a second stage goes on where the first ended
    np.testing.assert_allclose([later(t) for t in (0, 4)], [1.0, 0.5])
    assert WarmUpLinear.from_config(later.get_config()).get_config() == later.get_config()


def test_an_update_by_hand():
    weight = tf.Variable([1.0, -2.0], name="kernel")
    training = Training(learning_rate=0.1, warmup=0.0, weight_decay=0.5, clip_norm=100.0)
    adamw(training, 10).apply_gradients([(tf.constant([3.0, -0.2]), weight)])
    # Decay first: w (1 - .1 x .5); then Adam's first step, which is lr x the gradient's sign.
    np.testing.assert_allclose(weight, [0.95 - 0.1, -1.9 + 0.1], rtol=1e-5)


def test_decay_spares_biases_and_normalisation():
    model = tiny.model(dropout=0.0)
    optimizer = adamw(Training(weight_decay=0.5, learning_rate=0.1, warmup=0.0), 1)
    before = model.weights()
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in model.model.trainable_variables])
    for name, after in model.weights().items():
        spared = name.endswith(("bias", "beta", "gamma"))
        factor = 1.0 if spared else 1.0 - 0.1 * 0.5  # decoupled: w - lr * decay * w
        np.testing.assert_allclose(after, factor * before[name], rtol=1e-6, err_msg=name)


def test_gradients_are_clipped_by_their_global_norm():
    optimizer = adamw(Training(clip_norm=1.0), 10)
    clipped = optimizer._clip_gradients([tf.constant([3.0]), tf.constant([4.0])])  # norm 5 -> 1
    np.testing.assert_allclose([float(g[0]) for g in clipped], [0.6, 0.8], rtol=1e-6)


def test_rows_that_a_batch_meets_are_updated_as_the_whole_matrix_is():
    dense, sparse = (tf.Variable(tf.reshape(tf.range(8.0), (4, 2)), name="e") for _ in range(2))
    gradient = tf.IndexedSlices(tf.ones((3, 2)), tf.constant([1, 3, 1]), (4, 2))
    for variable, g in ((dense, tf.convert_to_tensor(gradient)), (sparse, gradient)):
        optimizer = AdamW(learning_rate=0.1, weight_decay=0.1)
        optimizer.build([variable])
        optimizer.apply_gradients([(g, variable)])
    np.testing.assert_allclose(sparse, dense, rtol=1e-6)
    assert np.all(sparse[0].numpy()[1:] < [1.0])  # decay moves rows that no text used


def test_a_slow_variable_makes_a_share_of_each_update():
    """A scaled gradient would change nothing: AdamW divides by its size."""
    training = Training(learning_rate=0.1, warmup=0.0, weight_decay=0.5, clip_norm=100.0)
    fast, slow, scaled = (tf.Variable([1.0, -2.0], name="kernel") for _ in range(3))
    optimizer = adamw(training, 10, slow=[slow], rate=0.1)
    optimizer.build([fast, slow, scaled])
    gradient, moved = tf.constant([3.0, -0.2]), np.array([-0.1, 0.1])
    optimizer.apply_gradients([(gradient, fast), (gradient, slow), (0.1 * gradient, scaled)])
    np.testing.assert_allclose(fast, [0.95 - 0.1, -1.9 + 0.1], rtol=1e-5)  # decay, then the update
    np.testing.assert_allclose(slow, [1.0, -2.0] + 0.1 * moved, rtol=1e-5)  # no decay
    np.testing.assert_allclose(scaled, fast, rtol=1e-4)
