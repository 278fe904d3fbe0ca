import numpy as np
import pytest

from keras_compress.backend import keras, tf
from keras_compress.pruning import movement
from keras_compress.pruning.sparsity import zeros
from keras_compress.training.optimizer import adamw
from tests.bert import tiny
from tests.support import TRAINING as SHORT
from tests.support import data, inputs_of, stages_of, still, values_of

TRAINING = SHORT.replace(epochs=4, learning_rate=1e-3)  # 12 updates
KERNEL = np.array([[1.0, -2.0], [3.0, 4.0]], np.float32)


def gate_of(kernel, block=1, score_rate=1.0):
    dense = keras.layers.Dense(kernel.shape[1])
    dense.build((None, kernel.shape[0]))
    dense.set_weights([kernel, np.zeros(kernel.shape[1], np.float32)])
    return movement.MaskedDense(dense, block, score_rate)


def step_of(gate, x, slopes, rate=0.1):
    """One update by SGD on L = sum(y * slopes); dL/dW' = x^T slopes."""
    optimizer = keras.optimizers.SGD(rate)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(gate(tf.constant(x)) * slopes)
    optimizer.minimize(loss, gate.trainable_variables, tape=tape)


def test_one_update_by_hand():
    gate = gate_of(KERNEL, score_rate=2.0)
    gate.mask.assign([[1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(gate(tf.constant([[1.0, 10.0]])), [[31.0, 40.0]])
    step_of(gate, [[1.0, 10.0]], [[0.5, -1.0]])
    # dL/dW' = [[.5, -1], [5, -10]]; S <- S - .1 * 2 * dL/dW' * W, also where the mask is 0
    np.testing.assert_allclose(gate.scores, [[-0.1, -0.4], [-3.0, 8.0]], rtol=1e-6)
    # W <- W - .1 * dL/dW' * M
    np.testing.assert_allclose(gate.kernel, [[0.95, -2.0], [2.5, 5.0]], rtol=1e-6)
    np.testing.assert_allclose(gate.bias, [-0.05, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(gate.dense.kernel, KERNEL)  # until it is written
    gate.write()
    np.testing.assert_allclose(gate.dense.kernel, [[0.95, 0.0], [2.5, 5.0]], rtol=1e-6)
    np.testing.assert_array_equal(gate.dense.bias, gate.bias)


def test_a_block_has_the_sum_of_its_weights_movement():
    kernel = np.tile(KERNEL, (1, 2))  # blocks [[1, -2], [3, 4]] twice
    gate = gate_of(kernel, block=2)
    gate.mask.assign([[0.0, 1.0]])
    step_of(gate, [[1.0, 10.0]], [[0.5, -1.0, 0.0, 1.0]])
    # left: -.1 (.5 * 1 - 1 * -2 + 5 * 3 - 10 * 4) = 2.25; right: -.1 (1 * -2 + 10 * 4) = -3.8
    np.testing.assert_allclose(gate.scores, [[2.25, -3.8]], rtol=1e-6)
    gate.write()
    np.testing.assert_array_equal(gate.dense.kernel[:, :2], np.zeros((2, 2)))
    assert np.all(gate.dense.kernel[:, 2:] != 0.0)


def test_masks_by_hand():
    scores = np.array([[3.0, -1.0], [0.0, -3.0]])
    assert movement.mask_of(scores, "hard", 0.5).tolist() == [[1, 0], [1, 0]]
    assert movement.mask_of(scores, "hard", 0.99).tolist() == [[1, 0], [0, 0]]  # one stays
    assert movement.mask_of(scores, "hard", 0.0).min() == 1
    # sigmoid: .953, .269; .5, .047
    assert movement.mask_of(scores, "soft", 0.1).tolist() == [[1, 1], [1, 0]]
    assert movement.mask_of(scores, "soft", 0.5).tolist() == [[1, 0], [0, 0]]  # .5 is not above
    assert movement.mask_of(np.arange(-2000.0, -1000.0), "soft", 0.1).sum() == 6  # .5 % and one


def pruned_kernels(model):
    return {
        name: weight
        for name, weight in model.weights().items()
        if name.startswith("layer_") and name.endswith("/kernel")
    }


@pytest.fixture
def gates(monkeypatch):
    """The `MaskedDense` layers of the run."""
    seen, masks = [], movement.Masks
    keep = lambda gates, *given: seen.extend(gates) or masks(gates, *given)
    monkeypatch.setattr(movement, "Masks", keep)
    return seen


def test_hard_gives_each_kernel_its_zeros(gates):
    source = still(num_layers=1)
    training = TRAINING.replace(evaluations=2)
    small = movement.compress(source, data(), training=training, sparsity=0.75)
    kernels, before = pruned_kernels(small), source.weights()
    for name, kernel in kernels.items():
        assert np.mean(kernel == 0.0) == 0.75, name
        moved = kernel != before[name]
        assert np.all(moved), name
    for name, weight in small.weights().items():
        still_the_same = np.array_equal(weight, before[name])
        assert still_the_same == ("embedding" in name) or name.endswith("key/bias"), name
    assert small.history[-1]["zeros"] == zeros(small) > 0.6
    kept = {row["step"]: row["kept"] for row in small.curve}
    # cubic from update 1 to 10 of 12: before the sixth, t = 5, v = .25 + .75 (1 - 4 / 9)^3 = .3786
    share = 0.25 + 0.75 * (5 / 9) ** 3
    assert kept[6] == pytest.approx(share, abs=0.02) and kept[12] == 0.25
    for gate in gates:
        np.testing.assert_array_equal(gate.dense.kernel, gate.masked(gate.mask))


def test_the_scores_have_a_rate_of_their_own_and_no_decay(gates):
    training = TRAINING.replace(epochs=0.3, weight_decay=0.9, evaluations=0)
    movement.compress(still(), data(), training=training, sparsity=0.5, score_rate=0.25)
    moved = np.concatenate([np.abs(gate.scores).ravel() for gate in gates])
    # Adam's first step is the learning rate, whatever the gradient, unless it is about 0
    assert np.quantile(moved, 0.9) == pytest.approx(0.25, rel=0.01) and moved.max() < 0.2501
    optimizer = adamw(training, 1)
    assert optimizer._use_weight_decay(gates[0].kernel)
    assert not optimizer._use_weight_decay(gates[0].raw_scores)


def test_soft_prunes_what_the_penalty_pushes_down_and_blocks_go_whole(gates):
    settings = {"how": "soft", "score_rate": 1.0, "block": 4, "end": 0.5}
    small = movement.compress(still(), data(), training=TRAINING, penalty_weight=1e4, **settings)
    assert 0.3 < zeros(small) < 1.0
    for name, kernel in pruned_kernels(small).items():
        rows, columns = (size // 4 for size in kernel.shape)
        blocks = kernel.reshape(rows, 4, columns, 4).any(axis=(1, 3)).sum()
        assert np.count_nonzero(kernel) == 16 * blocks > 0, name
    free = movement.compress(still(), data(), training=TRAINING, penalty_weight=0.0, how="soft")
    assert zeros(free) == 0.0  # scores near 0 are above tau


def test_losses_and_their_weights(monkeypatch):
    teacher, settings = still(), {"how": "soft", "soft_weight": 0.9, "temperature": 2.0}
    (stage,) = stages_of(movement, monkeypatch, still(), data(), teacher=teacher, **settings)
    assert stage["teacher"] is teacher
    weights = {name: weight for name, (weight, _) in stage["losses"].items()}
    assert (weights["label"], weights["soft"]) == (pytest.approx(0.1), 0.9)
    # tau rises from update 1 to 5 of 6: with it lambda, 400 (1 - (1 - 2 / 4)^3) = 350 at update 3
    assert [float(weights["penalty"](np.int64(t))) for t in (0, 3, 5)] == [0.0, 350.0, 400.0]
    T = {"logits": tf.math.log([[0.75, 0.25]])}
    S = {"logits": tf.math.log([[0.5, 0.5]])}
    values = values_of(stage["losses"], T, S, tf.constant([1]))
    # 4 KL(softmax(z_T / 2) || .5): .634 ln(.634 / .5) + .366 ln(.366 / .5) = .03634 nats, times 4
    np.testing.assert_allclose(values["soft"], 0.14536, atol=1e-5)
    np.testing.assert_allclose(values["penalty"], 0.5)  # sigmoid(0)
    (stage,) = stages_of(movement, monkeypatch, still(), data())
    weights = {name: weight for name, (weight, _) in stage["losses"].items()}
    assert weights == {"label": 1.0, "soft": 0.0}  # which leaves it out


def test_a_stopped_run_goes_on(tmp_path):
    whole = movement.compress(tiny.model(), data(), training=TRAINING)
    folder = TRAINING.replace(folder=str(tmp_path), checkpoint_every=5)
    for _ in range(2):  # the second finds a finished stage
        small = movement.compress(tiny.model(), data(), training=folder)
        np.testing.assert_equal(small.weights(), whole.weights())
        np.testing.assert_array_equal(small.model(inputs_of(small)), whole.model(inputs_of(small)))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"block": 3}, "`block` must divide .* Received: 3. Choose 1, 2, 4."),
        ({"begin": 0.9, "end": 0.8}, "`begin` below `end`. Received: .* 0.9 and 0.8."),
        ({"training": TRAINING.replace(patience=3)}, "`patience` must be none: .* Received: 3."),
        ({"sparsity": 1.0}, "`sparsity` must be less than 1. Received: 1.0"),
        ({"training": TRAINING.replace(cache_teacher=True)}, "needs a teacher. .* stage movement,"),
        ({"teacher": still("tagging")}, "one task. Received: a model for tagging"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        movement.compress(tiny.shared(), data(), **{"training": TRAINING, **settings})
