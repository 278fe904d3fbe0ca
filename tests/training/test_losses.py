from types import SimpleNamespace

import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.training import losses as L

LOGITS = tf.constant([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
OTHERS = tf.constant([[0.2, 0.1, -1.0], [2.0, 0.0, 0.0]])
HALVES, QUARTERS = tf.math.log([[0.5, 0.5]]), tf.math.log([[0.75, 0.25]])


def test_soft_labels_by_hand():
    # .75 ln(.75/.5) + .25 ln(.25/.5) = 0.3041 - 0.1733 = 0.1308 nats
    np.testing.assert_allclose(L.soft_label_loss(QUARTERS, HALVES), [0.1308], atol=1e-4)
    # Logits twice as large at T = 2 soften to the same, and the loss counts T^2 = 4 times.
    np.testing.assert_allclose(
        L.soft_label_loss(2 * QUARTERS, 2 * HALVES, 2.0), [0.5232], atol=4e-4
    )
    # cross-entropy: -(.75 + .25) ln .5 = 0.6931
    np.testing.assert_allclose(L.soft_cross_entropy(QUARTERS, HALVES), [0.6931], atol=1e-4)
    np.testing.assert_allclose(L.soften(2 * QUARTERS, 2.0), [[0.75, 0.25]], rtol=1e-6)


def test_squared_distance_of_logits_by_hand():
    # ((1 - .2)^2 + (-2 - .1)^2 + (.5 + 1)^2) / 3 = (.64 + 4.41 + 2.25) / 3 = 2.4333
    np.testing.assert_allclose(L.logits_mse(LOGITS, OTHERS)[0], 7.3 / 3, rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 20.0])
def test_equal_logits_give_no_loss_and_no_gradient(temperature):
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = L.soft_label_loss(LOGITS, logits, temperature)
    assert loss.shape == (2,)
    np.testing.assert_allclose(loss, 0.0, atol=2e-4)  # T^2 times a difference of two entropies
    np.testing.assert_allclose(tape.gradient(loss, logits), 0.0, atol=1e-5)


def test_a_high_temperature_gives_the_difference_of_the_logits():
    teacher, student = (x - tf.reduce_mean(x, -1, keepdims=True) for x in (LOGITS[:1], OTHERS[:1]))
    student = tf.Variable(student)
    with tf.GradientTape() as tape:  # Hinton et al., Sec. 2.1: (z_S - z_T) / V
        loss = L.soft_label_loss(teacher, student, 1000.0)
    np.testing.assert_allclose(
        tape.gradient(loss, student), (student - teacher) / 3, rtol=1e-2, atol=1e-4
    )


def test_a_constant_added_to_the_logits_changes_nothing():
    np.testing.assert_allclose(
        L.soft_label_loss(LOGITS + 5.0, OTHERS - 3.0, 2.0),
        L.soft_label_loss(LOGITS, OTHERS, 2.0),
        rtol=1e-5,
    )


@pytest.mark.parametrize("loss", [L.soft_label_loss, L.soft_cross_entropy, L.logits_mse])
def test_the_teacher_receives_no_gradient_and_a_text_answers_for_itself(loss):
    teacher, student = tf.Variable(LOGITS), tf.Variable(OTHERS)
    with tf.GradientTape() as tape:
        value = loss(teacher, student)[0]
    to_teacher, to_student = tape.gradient(value, [teacher, student])
    assert to_teacher is None and not np.any(to_student[1]) and np.any(to_student[0])


@pytest.mark.parametrize("factor, expected", [(2.0, 0.0), (0.1, 0.0), (-3.0, 2.0)])
def test_cosine_by_hand(factor, expected):
    h = tf.constant([[1.0, 2.0, -1.0]])
    np.testing.assert_allclose(L.cosine_loss(h, factor * h), [expected], atol=1e-6)
    right = L.cosine_loss(tf.constant([[1.0, 0.0]]), tf.constant([[0.0, 2.0]]))
    np.testing.assert_allclose(right, [1.0], atol=1e-6)


def test_labels_of_minus_one_do_not_count():
    # ln(1 + 1 + 1) for equal logits
    logits = tf.constant([[0.0, 0, 0], [9.0, 0, 0]])
    np.testing.assert_allclose(L.label_loss(tf.constant([0, -1]), logits), np.log(3), rtol=1e-6)
    assert L.label_loss(tf.constant([-1]), tf.zeros((1, 3))) == 0.0


def test_losses_of_names_that_hold_each_on_its_own_by_hand():
    names, zeros = tf.math.log([[1.0, 3.0]]), tf.zeros((1, 2))  # sigmoid .5 and .75; .5 and .5
    # (0 + 0.1308) / 2 nats, and T^2 = 4 times as much of logits twice as large at T = 2
    T, S, held = {"logits": 2 * names}, {"logits": zeros}, tf.constant([[1.0, 0.0]])
    np.testing.assert_allclose(L.soft_label_loss(names, zeros, 1.0, "sigmoid"), [0.0654], atol=1e-4)
    np.testing.assert_allclose(L.soft_targets(2.0)(T, S, held, None), 4 * 0.0654, atol=4e-4)
    # -(ln .5 + ln .25) / 2
    np.testing.assert_allclose(L.label_loss(held, names), 1.0397, atol=1e-4)


def test_losses_of_numbers_by_hand():
    T, S = {"logits": tf.constant([[3.0], [1.0]])}, {"logits": tf.Variable([[1.0], [1.0]])}
    with tf.GradientTape() as tape:  # ((3 - 1)^2 + 0) / 2, whatever the temperature
        value = L.soft_targets(7.0)(T, S, tf.constant([[-1.0], [0.0]]), None)
    np.testing.assert_allclose(value, 2.0, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(value, S["logits"]), [[-2.0], [0.0]], rtol=1e-5)
    # ((1 + 1)^2 + (1 - 0)^2) / 2: a label below 0 counts
    np.testing.assert_allclose(L.label_loss(tf.constant([[-1.0], [0.0]]), S["logits"]), 2.5)


def test_padding_changes_no_mean():
    values, mask = tf.Variable([[1.0, 2.0, np.inf]]), tf.constant([[1, 1, 0]])
    with tf.GradientTape() as tape:
        mean = L.masked_mean(values, mask)
    assert mean == 1.5
    np.testing.assert_allclose(tape.gradient(mean, values), [[0.5, 0.5, 0.0]])
    assert L.masked_mean(tf.constant([1.0, 4.0])) == 2.5
    assert L.masked_mean(tf.zeros((0,))) == 0.0
    assert L.masked_mean(values, tf.zeros((1, 3))) == 0.0


def test_devices_with_unequal_counts_give_the_mean_of_the_whole_batch(monkeypatch):
    """Two devices hold 1 and 3 values. Mean of (s_d / mean count) = (s_1 + s_2) / (n_1 + n_2)."""
    context = SimpleNamespace(all_reduce=lambda how, count: tf.constant((1 + 3) / 2))
    monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: context)
    devices = [[5.0, 9.0, 9.0], [1.0, 2.0, 4.0]], [[1, 0, 0], [1, 1, 1]]
    means = [L.masked_mean(tf.constant(v), tf.constant(m)) for v, m in zip(*devices)]
    np.testing.assert_allclose(np.mean(means), (5 + 1 + 2 + 4) / 4)
