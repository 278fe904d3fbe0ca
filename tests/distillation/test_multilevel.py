import numpy as np
import pytest

from keras_compress.backend import keras, tf
from keras_compress.bert.encoder import ACTIVATIONS
from keras_compress.distillation import multilevel, soft_targets
from keras_compress.distillation.multilevel import GatedMix, choose_levels, levels_of, make_head
from keras_compress.replacement import theseus
from keras_compress.training.distill import Outputs, distill
from keras_compress.training.finetune import finetune
from tests.support import TRAINING, data, stages_of, still, values_of, values_on

LABELS = tf.constant([0, 2, -1])
random = np.random.default_rng(0)
T = {"logits": tf.constant(random.normal(size=(3, 3)), tf.float32)}
S = {f"hidden_states/{n}/cls": tf.constant(random.normal(size=(3, 8)), tf.float32) for n in (1, 2)}
S = {**S, "hidden_states/3/cls": S["hidden_states/2/cls"] + 1.0, "logits": T["logits"] + 0.5}


def value(loss, S=S):
    return loss(Outputs(T), Outputs(S), LABELS, None)


@pytest.mark.parametrize(
    "num_layers, levels, chosen",
    [
        (3, None, [1, 2, 3]),
        (3, 1, [3]),
        (3, 2, [1, 3]),
        (6, 3, [2, 4, 6]),
        (12, 9, [1, 2, 4, 5, 6, 8, 9, 10, 12]),
        (3, [2, 3], [2, 3]),
    ],
)
def test_levels(num_layers, levels, chosen):
    assert choose_levels(num_layers, levels) == chosen


@pytest.mark.parametrize("levels", [9, 4, 0, [], [0, 3], [3, 2], [2, 2, 3], [1, 2], [1, 4]])
def test_levels_outside_of_the_student(levels):
    rule = r"`levels` must be 1 to 3, or a list of the student's layers \[1, 2, 3\]"
    with pytest.raises(ValueError, match=f"{rule}.*Received: .*{levels if levels == 9 else ''}"):
        choose_levels(3, levels)


def test_levels_are_those_of_the_student_not_of_the_teacher():
    with pytest.raises(ValueError, match="`levels` must be 1 to 2.*Received: 3. Choose among"):
        multilevel.compress(still(num_layers=4), data(), num_layers=2, levels=3, training=TRAINING)


def by_hand(target, teacher, student):
    """L_d of a text at levels 1 and 2; the head of level 1 answers (ln 3, 0, -99)."""
    loss, heads, *_ = levels_of(still(), [1, 2], target=target)
    heads[1].set_weights([np.zeros((8, 3)), np.array([np.log(3.0), 0.0, -99.0])])
    T, S = ({"logits": tf.constant([z, [9.0, 0.0, 0.0]], tf.float32)} for z in (teacher, student))
    S["hidden_states/1/cls"] = tf.ones((2, 8))
    labels = tf.constant([1, -1])  # the second text does not count
    return values_of({"levels": (1.0, loss)}, T, S, labels)["levels"]


def test_the_loss_by_hand():
    teacher = np.array([np.log(3.0), 2.0, -98.0])
    # level 1 misses by (0, 2, 1): 5/3; level 2 by (1, 1, 2): 6/3; their mean is 11/6
    value = by_hand("logits", teacher, teacher + [1.0, 1.0, 2.0])
    np.testing.assert_allclose(value, 11 / 6, rtol=1e-5)
    # level 1: (3/4, 1/4, 0) against (1/2, 1/2, 0): (1/16 + 1/16)/3 = 1/24; level 2: 0; their mean is 1/48
    value = by_hand("probabilities", [0.0, 0.0, -99.0], [1.0, 1.0, -99.0])
    np.testing.assert_allclose(value, 1 / 48, rtol=1e-5)


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_the_last_level_alone_is_distillation_by_the_squared_distance_of_logits(task, monkeypatch):
    start = still(task, num_layers=3), data(task)
    (ours,) = stages_of(multilevel, monkeypatch, *start, num_layers=2, levels=1, alpha=0.3)
    weights = {"kind": "mse", "soft_weight": 0.3, "label_weight": 0.7}
    (theirs,) = stages_of(soft_targets, monkeypatch, *start, num_layers=2, **weights)
    np.testing.assert_equal(ours["student"].weights(), theirs["student"].weights())
    labels = [0, 1, 2, 0] if task != "tagging" else np.tile([[0], [1], [-1], [2]], 12)
    values = [values_on(stage, length=12, labels=labels) for stage in (ours, theirs)]
    for one, other in (("levels", "soft"), ("label", "label")):
        assert ours["losses"][one][0] == theirs["losses"][other][0]
        np.testing.assert_array_equal(values[0][one], values[1][other])
    assert ours["layers"] == []


def test_the_order_of_levels_does_not_matter_and_equal_heads_on_equal_layers_are_one():
    student = still(num_layers=4)
    (loss, heads, *_), (other, *_) = (levels_of(student, n) for n in ([1, 2, 3], [3, 1, 2]))
    np.testing.assert_allclose(value(loss), value(other), rtol=1e-6)
    equal = {**S, **{f"hidden_states/{n}/cls": S["hidden_states/1/cls"] for n in (2, 3)}}
    for level in (2, 3):
        heads[level].set_weights(heads[1].get_weights())
    np.testing.assert_allclose(value(loss, equal), value(levels_of(student, [1])[0]), rtol=1e-6)


def test_a_gate_is_open_shut_or_between():
    mlp = make_head((8,), 8, 8, "gelu", seed=1)
    x = S["hidden_states/1/cls"]
    np.testing.assert_array_equal(GatedMix(mlp, 0.0)(x), x)
    np.testing.assert_allclose(GatedMix(mlp, 1.0)(x), (x + mlp(x)) / 2, rtol=1e-5, atol=1e-6)
    gate = GatedMix(mlp, "trained")
    assert not GatedMix(mlp, 0.5).w.trainable
    for step in (1.0, 1.0, -1.0):  # w stays between 0 and 1
        with tf.GradientTape() as tape:
            loss = step * tf.reduce_sum(gate(x))
        gradient = tape.gradient(loss, gate.w)
        assert np.isfinite(gradient) and gradient != 0.0  # also at w = 0
        keras.optimizers.SGD(100.0).apply_gradients([(gradient, gate.w)])
        assert gate.w.numpy() in (0.0, 1.0)


def test_activations():
    x = tf.linspace(-5.0, 5.0, 1001)
    gelu, tanh = ACTIVATIONS["gelu"], ACTIVATIONS["gelu_tanh"]
    # x/2 (1 + erf(x / sqrt 2))
    np.testing.assert_allclose(gelu([0.0, 1.0, -1.0]), [0.0, 0.841345, -0.158655], atol=1e-6)
    assert 0.0 < np.abs(gelu(x) - tanh(x)).max() < 1e-3
    linear, relu = (make_head((8,), 3, 8, name, seed=1) for name in ("linear", "relu"))
    W, b, V, c = relu.get_weights()
    h = S["hidden_states/1/cls"].numpy()
    np.testing.assert_allclose(relu(h), np.maximum(h @ W + b, 0.0) @ V + c, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(linear(h), h @ linear.get_weights()[0], rtol=1e-4, atol=1e-5)


def test_a_second_head_teaches_the_student_but_not_the_first_head():
    student, gradients = still(num_layers=3), []
    for chained in (False, True):
        loss, heads, _, seconds = levels_of(student, [1], chained=chained)
        read = [heads[1].weights[0], S["hidden_states/1/cls"], S["hidden_states/2/cls"]]
        with tf.GradientTape() as tape:
            tape.watch(read)
            of = value(loss)
        gradients.append(tape.gradient(of, read))
    (g, h, above), (g_chained, h_chained, above_chained) = gradients
    # two terms in place of one, each half; none through the answer that the second head reads
    np.testing.assert_allclose(g_chained, g / 2, rtol=1e-5)
    np.testing.assert_allclose(h_chained, h / 2, rtol=1e-5)
    assert above is None and np.any(above_chained) and seconds[1].input_shape == (None, 8 + 3)


def test_in_a_chain_the_last_layer_reads_itself():
    loss, _, _, seconds = levels_of(still(), [2], chained=True)
    (kernel, bias), h = seconds[2].get_weights(), S["hidden_states/2/cls"].numpy()
    second = np.concatenate([h, S["logits"]], -1) @ kernel + bias
    errors = [(z - T["logits"].numpy())[:2] for z in (S["logits"].numpy(), second)]
    np.testing.assert_allclose(value(loss), np.mean(np.square(errors)), rtol=1e-4)


@pytest.mark.parametrize(
    "task, pooling", [("classification", "mean"), ("matching", "cls"), ("tagging", "cls")]
)
def test_heads_and_gates_train_and_stay_behind(task, pooling, monkeypatch):
    teacher = still(task, num_layers=3, pooling=pooling)
    settings = {"num_layers": 2, "head": "relu", "mix": "trained", "chained": True, "alpha": 1.0}
    (stage,) = stages_of(multilevel, monkeypatch, teacher, data(task), **settings)
    values = []
    for length in (12, 16):
        labels = np.full((4, length), -1) if task == "tagging" else [0, 1, 1, 0]
        if task == "tagging":
            labels[:, 1] = [0, 1, 2, 1]
        values.append(values_on(stage, length=length, labels=labels)["levels"])
    np.testing.assert_allclose(*values, rtol=1e-5)
    own = [v for layer in stage["layers"] for v in layer.trainable_variables]
    before, names = [v.numpy() for v in own], stage["student"].weights().keys()
    small = distill(**stage)
    assert len(own) == 4 + 5 + 2 * 4  # the head of level 1, its gate's MLP and w, two second heads
    moved = [np.any(v.numpy() != old) for v, old in zip(own, before)]
    assert all(moved) and small.weights().keys() == names


def test_with_alpha_0_the_chain_with_theseus_is_theseus():
    predecessor, settings = still(), {"num_layers": 1, "training": TRAINING}
    replaced = theseus.compress(predecessor, data(), finetune_share=0.0, **settings)
    both = multilevel.compress(predecessor, data(), student=replaced, alpha=0.0, **settings)
    assert [entry["method"] for entry in both.history] == ["theseus", "multilevel"]
    expected = finetune(replaced, data(), training=TRAINING).weights()
    for name, weight in both.weights().items():
        np.testing.assert_allclose(weight, expected[name], atol=1e-5, err_msg=name)


def test_another_activation_changes_no_weight(monkeypatch):
    settings = {"num_layers": 2, "student_activation": "relu"}
    (stage,) = stages_of(multilevel, monkeypatch, still(num_layers=3), data(), **settings)
    assert stage["student"].config == still(activation="relu").config
    np.testing.assert_equal(
        stage["student"].weights(), still(num_layers=3).keep_layers([0, 1]).weights()
    )
