import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.distillation import pkd
from keras_compress.training.distill import Outputs, named_outputs, outputs_read
from tests.support import (
    TRAINING,
    bilstm,
    data,
    inputs_of,
    shared_still,
    stages_of,
    still,
    values_of,
    values_on,
)


@pytest.mark.parametrize(
    "n, k, layer_map, layers",
    [
        (12, 6, "skip", [2, 4, 6, 8, 10]),
        (12, 3, "skip", [4, 8]),
        (12, 6, "last", [7, 8, 9, 10, 11]),
        (12, 3, "last", [10, 11]),
        (6, 2, "last", [5]),
        (6, 3, [1, 6], [1, 6]),
    ],
)
def test_patient_layers(n, k, layer_map, layers):
    assert pkd.patient_layers(n, k, layer_map) == layers


@pytest.mark.parametrize(
    "k, layer_map, message",
    [
        (3, "skip", "must be a multiple.*4 and 3. Choose 2, 4"),
        (1, "skip", "`num_layers` must be 2 to 4"),
        (2, [1, 2], "must be 1 different .*among 1 to 4"),
    ],
)
def test_layers_that_do_not_fit(k, layer_map, message):
    with pytest.raises(ValueError, match=message):
        pkd.patient_layers(4, k, layer_map)


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
    scaled = pkd.patience_loss([3.0 * u], [0.1 * v], reduction="sum")
    np.testing.assert_allclose(scaled, value, rtol=1e-5)
    assert 0.0 <= value <= 4.0
    np.testing.assert_allclose(pkd.patience_loss([u], [-u], reduction="sum"), 4.0, rtol=1e-5)
    zero = pkd.patience_loss([tf.zeros((1, 4))], [tf.ones((1, 4))])  # a vector of length 0
    assert np.isfinite(zero)


def test_coinciding_layers_give_no_patience_loss_and_the_weights_are_alpha_and_beta(monkeypatch):
    settings = {"num_layers": 3, "layer_map": [1, 2], "alpha": 0.3, "beta": 7.0}
    (stage,) = stages_of(pkd, monkeypatch, shared_still(num_layers=4), data(), **settings)
    weights = {name: weight for name, (weight, _) in stage["losses"].items()}
    assert weights == {"label": 0.7, "soft": 0.3, "patience": 7.0}
    np.testing.assert_allclose(values_on(stage)["patience"], 0.0, atol=1e-10)


def test_only_cls_of_the_matched_layers_receives_a_gradient_of_the_patience_loss(monkeypatch):
    teacher = still(num_layers=4)
    settings = {"num_layers": 2, "layer_map": [3]}
    (stage,) = stages_of(pkd, monkeypatch, teacher, data(), **settings)
    patience, student = stage["losses"]["patience"][1], stage["student"]
    theirs, ours = outputs_read([patience], teacher, student)
    assert (theirs, ours) == (["hidden_states/3/cls"], ["hidden_states/1/cls"])
    inputs, every = inputs_of(teacher), [f"hidden_states/{layer}" for layer in (0, 1, 2)]
    T = Outputs(named_outputs(teacher, theirs)(inputs))
    with tf.GradientTape() as tape:
        S = Outputs(named_outputs(student, [*ours, *every])(inputs))
        loss = patience(T, S, None, inputs["input_mask"])
    _, first, last = tape.gradient(loss, [S[key] for key in every])
    assert np.any(first[:, 0]) and not np.any(first[:, 1:]) and last is None


def test_each_setting_reaches_its_loss(monkeypatch):
    settings = {"num_layers": 2, "temperature": 3.0, "normalize": False, "reduction": "sum"}
    settings["soft_reduction"] = "mean"
    (stage,) = stages_of(pkd, monkeypatch, shared_still(num_layers=4), data(), **settings)
    T = {"logits": [[1.0, 0.0, 2.0]], "hidden_states/2/cls": [[3.0, 0.0]]}
    S = {"logits": [[0.0, 1.0, 1.0]], "hidden_states/1/cls": [[0.0, 1.0]]}
    T, S = ({name: tf.constant(v) for name, v in rows.items()} for rows in (T, S))
    values = values_of(stage["losses"], T, S, tf.constant([1]))
    np.testing.assert_allclose(values["patience"], 9 + 1)  # not of length 1, and not a mean
    p, q = (np.exp(rows["logits"][0] / 3) for rows in (T, S))
    p, q = p / p.sum(), q / q.sum()
    np.testing.assert_allclose(values["soft"], 9 * np.sum(p * np.log(p / q)) / 3, rtol=1e-5)
    np.testing.assert_allclose(values["label"], np.log(1 + 2 * np.e) - 1, rtol=1e-5)


def test_a_bilstm_student_has_no_layers_to_learn_with():
    with pytest.raises(ValueError, match="must be able to compare the outputs"):
        pkd.compress(
            shared_still(), data(), training=TRAINING, num_layers=2, layer_map=[1], student=bilstm()
        )
