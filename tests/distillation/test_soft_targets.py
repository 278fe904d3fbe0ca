import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.distillation import soft_targets
from keras_compress.training.losses import soft_label_loss
from tests.support import (
    TRAINING,
    bilstm,
    data,
    foreign,
    masked_lm,
    shared_still,
    stages_of,
    still,
    values_of,
    values_on,
)

QUARTERS, HALVES = tf.math.log([[0.75, 0.25]]), tf.math.log([[0.5, 0.5]])


def losses_of(monkeypatch, teacher=None, dataset=None, **settings):
    (stage,) = stages_of(
        soft_targets, monkeypatch, teacher or shared_still(), dataset or data(), **settings
    )
    return stage


@pytest.mark.parametrize(
    "settings, factor, expected",
    [
        # .75 ln(.75/.5) + .25 ln(.25/.5) = .1308 nats; logits doubled at T = 2: T^2 = 4 times that
        ({"temperature": 1.0}, 1.0, 0.1308),
        ({"temperature": 2.0}, 2.0, 4 * 0.1308),
        # (ln 1.5^2 + ln .5^2) / 2 = (.1644 + .4805) / 2, whatever T is
        ({"kind": "mse", "temperature": 5.0}, 1.0, 0.3224),
    ],
)
def test_losses_by_hand(settings, factor, expected, monkeypatch):
    losses = losses_of(monkeypatch, **settings)["losses"]
    T, S = {"logits": factor * QUARTERS}, {"logits": factor * HALVES}
    values = values_of(losses, T, S, tf.constant([1]))
    np.testing.assert_allclose(values["soft"], expected, atol=4e-4)
    np.testing.assert_allclose(values["label"], np.log(2), rtol=1e-6)  # -ln .5


@pytest.mark.parametrize("kind", ["kl", "mse"])
def test_equal_models_have_no_soft_loss_and_padding_changes_none(kind, monkeypatch):
    whole = losses_of(monkeypatch, kind=kind)
    np.testing.assert_allclose(values_on(whole)["soft"], 0.0, atol=1e-5)
    stage = losses_of(monkeypatch, num_layers=1, kind=kind)
    values = [values_on(stage, length=length) for length in (12, 16)]
    assert min(values[0].values()) > 1e-3
    for name, value in values[0].items():
        np.testing.assert_allclose(values[1][name], value, rtol=1e-4)


def test_pieces_without_a_label_have_no_answer_to_learn(monkeypatch):
    losses = losses_of(monkeypatch, shared_still("tagging"), data("tagging"), num_layers=1)[
        "losses"
    ]
    T, S = (tf.tile(logits[:, None], (1, 3, 1)) for logits in (QUARTERS, HALVES))
    S = tf.concat([S[:, :2], 100.0 * T[:, :1]], axis=1)  # the third is padding
    values = values_of(losses, {"logits": T}, {"logits": S}, tf.constant([[1, 0, -1]]))
    temperature, mean = 2.0, float(soft_label_loss(QUARTERS, HALVES, 2.0)[0])
    np.testing.assert_allclose(values["soft"], mean, rtol=1e-4)
    assert temperature == soft_targets.compress.declared.settings["temperature"]


def test_weights_and_where_the_student_starts(monkeypatch):
    teacher = still(num_layers=4)
    settings = {"num_layers": 2, "layers": "top", "soft_weight": 0.9, "label_weight": 0.0}
    stage = losses_of(monkeypatch, teacher, **settings)
    assert {name: weight for name, (weight, _) in stage["losses"].items()} == {
        "soft": 0.9,
        "label": 0.0,
    }
    np.testing.assert_array_equal(
        stage["student"].weights()["layer_0_query/kernel"],
        teacher.weights()["layer_2_query/kernel"],
    )
    whole = losses_of(monkeypatch, teacher)["student"]  # recovery of the teacher itself
    assert whole.config == teacher.config


@pytest.mark.parametrize("make", [bilstm, foreign, lambda: masked_lm(num_layers=1)])
def test_any_student_of_the_task_will_do(make, monkeypatch):
    given = make()
    stage = losses_of(monkeypatch, student=given)
    student = stage["student"]
    assert (student.task, student.labels) == ("classification", still().labels)
    assert student.config.num_layers == given.config.num_layers
    assert student.config.architecture == given.config.architecture


def test_the_student_learns_the_answers():
    training = TRAINING.replace(epochs=8, evaluations=0)
    small = soft_targets.compress(
        shared_still(num_layers=3), data(), training=training, num_layers=1, label_weight=0.0
    )
    assert small.curve[-1]["soft"] < 0.5 * small.curve[0]["soft"]
    assert "label" not in small.curve[-1] and small.history[-1]["layers"] == [0]
