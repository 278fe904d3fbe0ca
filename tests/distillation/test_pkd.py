import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.distillation import pkd
from keras_compress.training.distill import outputs
from mobile_export.convert import export
from tests.bert import tiny
from tests.replacement.test_theseus import data, inputs_of
from tests.training.test_distill import TRAINING, bilstm, still


@pytest.mark.parametrize(
    "n, k, strategy, layers",
    [
        (12, 6, "skip", [2, 4, 6, 8, 10]),
        (12, 3, "skip", [4, 8]),
        (12, 6, "last", [7, 8, 9, 10, 11]),
        (12, 3, "last", [10, 11]),
        (6, 3, "skip", [2, 4]),
        (6, 2, "last", [5]),
        (6, 3, [1, 6], [1, 6]),
    ],
)
def test_patient_layers(n, k, strategy, layers):
    assert pkd.patient_layers(n, k, strategy) == layers


def test_patience_loss_by_hand():
    u, v = tf.constant([[1.0, 0.0, 0.0]]), tf.constant([[0.0, 5.0, 0.0]])
    # orthogonal, of length 1: squared distance 2; mean over 3 dimensions 2/3; two layers, one of them equal: sum 2
    np.testing.assert_allclose(pkd.patience_loss([u], [v]), 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(pkd.patience_loss([u, u], [v, u], reduction="sum"), 2.0, rtol=1e-6)
    np.testing.assert_allclose(pkd.patience_loss([u, u], [v, u]), 2 / 6, rtol=1e-6)
    np.testing.assert_allclose(pkd.patience_loss([u], [v], normalize=False, reduction="sum"), 26.0)


def test_patience_loss_ignores_lengths_and_is_bounded():
    random = np.random.default_rng(0)
    u, v = (tf.constant(random.normal(size=(50, 8)), tf.float32) for _ in range(2))
    value = pkd.patience_loss([u], [v], reduction="sum")
    np.testing.assert_allclose(
        pkd.patience_loss([3.0 * u], [0.1 * v], reduction="sum"), value, rtol=1e-5
    )
    assert 0.0 <= value <= 4.0
    np.testing.assert_allclose(pkd.patience_loss([u], [-u], reduction="sum"), 4.0, rtol=1e-5)
    assert np.isfinite(
        pkd.patience_loss([tf.zeros((1, 4))], [tf.ones((1, 4))])
    )  # a vector of length 0


def caught(monkeypatch, teacher, dataset, **settings):
    """What `compress` hands to the engine, without training."""
    found = {}
    monkeypatch.setattr(
        pkd,
        "distill",
        lambda *a, **k: found.update(student=a[1], objective=a[3], weights=a[4], **k) or [],
    )
    pkd.compress(teacher, dataset, **settings)
    return found


def test_coinciding_layers_give_no_patience_loss(monkeypatch):
    teacher = still(num_layers=4)
    found = caught(
        monkeypatch, teacher, data(), num_layers=3, layer_map=[1, 2], alpha=0.3, beta=7.0
    )
    assert found["weights"] == {"label": 0.7, "soft": 0.3, "patience": 7.0}
    inputs = inputs_of(teacher)
    theirs, ours = (
        outputs(teacher, found["teacher_outputs"]),
        outputs(found["student"], found["student_outputs"]),
    )
    losses = found["objective"](
        theirs(inputs), ours(inputs), tf.constant([0, 1, 2, 0]), inputs["input_mask"]
    )
    np.testing.assert_allclose(losses["patience"], 0.0, atol=1e-10)


def test_only_cls_of_the_matched_layers_receives_a_gradient_of_the_patience_loss(monkeypatch):
    teacher = still(num_layers=4)
    found, inputs = (
        caught(monkeypatch, teacher, data(), num_layers=2, layer_map=[3]),
        inputs_of(teacher),
    )
    every = [f"hidden_states/{layer}" for layer in (0, 1, 2)]
    theirs = outputs(teacher, found["teacher_outputs"])(inputs)
    with tf.GradientTape() as tape:
        ours = outputs(found["student"], [*found["student_outputs"], *every])(inputs)
        loss = found["objective"](theirs, ours, tf.constant([0, 1, 2, 0]), inputs["input_mask"])[
            "patience"
        ]
    _, first, last = tape.gradient(loss, [ours[name] for name in every])
    assert np.any(first[:, 0]) and not np.any(first[:, 1:]) and last is None


def test_a_folder_of_another_teacher_or_other_settings_is_refused(tmp_path):
    teacher, training = still(num_layers=2), TRAINING.replace(folder=str(tmp_path), epochs=1)
    settings = {"training": training, "num_layers": 2, "layer_map": [1]}
    small = pkd.compress(teacher, data(), **settings)
    again = pkd.compress(teacher, data(), **settings)  # finished: the same weights, at once
    np.testing.assert_equal(again.weights(), small.weights())
    other = teacher.clone()
    other.history.append({"method": "finetune"})
    for model, changes in (
        (teacher, {"alpha": 0.2}),
        (teacher, {"layer_map": [2]}),
        (teacher, {"seed": 1}),
        (other, {"student": teacher}),
        (teacher, {"training": training.replace(epochs=2)}),
    ):
        with pytest.raises(
            ValueError, match="distill holds the checkpoints of another command, with other"
        ):
            pkd.compress(model, data(), **{**settings, **changes})


def test_a_student_and_its_export(tmp_path):
    teacher = tiny.model(num_layers=4)
    before = teacher.weights()
    small = pkd.compress(teacher, data(), training=TRAINING, num_layers=2)
    assert {"label", "soft", "patience", "dev"} <= set(small.curve[-1]) and small.history[-1][
        "learned_from"
    ] == [2]
    assert all(np.array_equal(before[name], value) for name, value in teacher.weights().items())
    assert export(small, tmp_path, ("float32",), sequence_length=12)[0]["max_dlogit"] < 1e-4


def test_alpha_and_beta_0_are_plain_training(monkeypatch):
    found = caught(monkeypatch, tiny.model(num_layers=4), data(), num_layers=2, alpha=0.0, beta=0.0)
    assert found["weights"] == {
        "label": 1.0,
        "soft": 0.0,
        "patience": 0.0,
    }  # and see test_distiller: labels alone


def test_each_setting_reaches_its_loss(monkeypatch):
    found = caught(
        monkeypatch,
        tiny.model(num_layers=4),
        data(),
        num_layers=2,
        temperature=3.0,
        normalize=False,
        reduction="sum",
        soft_reduction="mean",
    )
    theirs = {
        "logits": tf.constant([[1.0, 0.0, 2.0]]),
        "hidden_states/2/cls": tf.constant([[3.0, 0.0]]),
    }
    ours = {
        "logits": tf.constant([[0.0, 1.0, 1.0]]),
        "hidden_states/1/cls": tf.constant([[0.0, 1.0]]),
    }
    losses = found["objective"](theirs, ours, tf.constant([1]), tf.constant([[1, 1]]))
    np.testing.assert_allclose(losses["patience"], 9 + 1)  # not of length 1, and not a mean
    p, q = (
        np.exp(row["logits"][0] / 3) / np.exp(row["logits"][0] / 3).sum() for row in (theirs, ours)
    )
    np.testing.assert_allclose(losses["soft"], 9 * np.sum(p * np.log(p / q)) / 3, rtol=1e-5)
    np.testing.assert_allclose(
        losses["label"], np.log(1 + 2 * np.e) - 1, rtol=1e-5
    )  # plain cross-entropy, exactly


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_layers": 3}, "must be a multiple.*4 and 3. Choose 2, 4"),
        ({"num_layers": 1}, "`num_layers` must be 2 to 4"),
        ({"layer_map": "first"}, "`layer_map` must be one of skip, last"),
        ({"layer_map": [1, 2]}, "must be 1 different ones among 1 to 4"),
        ({"layer_map": [1.5]}, r"different ones among 1 to 4, rising. Received: \[1.5\]"),
        ({"beta": float("inf")}, "`beta` 0 or more"),
        ({"temperature": float("inf")}, "`temperature` must be positive"),
        (
            {"soft_reduction": "sum"},
            "reduction of the soft targets must be batchmean or mean. Received: 'sum'",
        ),
        ({"alpha": 1.5}, "`alpha` must be in"),
        ({"reduction": "max"}, "`reduction` one of mean, sum"),
        ({"student": bilstm}, "between two BERTs only"),
    ],
)
def test_errors(settings, message):
    settings = {key: value() if callable(value) else value for key, value in settings.items()}
    with pytest.raises(ValueError, match=message):
        pkd.compress(
            tiny.model(num_layers=4), data(), training=TRAINING, **{"num_layers": 2, **settings}
        )
