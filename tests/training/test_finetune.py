import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.measure.accuracy import evaluate
from keras_compress.training.finetune import finetune, task_loss, tune
from tests.support import TRAINING, data, still


def test_task_loss_by_hand():
    logits = tf.math.log([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    # -(ln .5 + ln .25) / 2 = (0.6931 + 1.3863) / 2
    np.testing.assert_allclose(task_loss("classification")([0, 0], logits), 1.0397, atol=1e-4)
    rows = tf.stack([logits, logits])
    # Only three of four places count: (0.6931 + 1.3863 + 0.6931) / 3
    np.testing.assert_allclose(task_loss("tagging")([[0, 0], [0, -1]], rows), 0.9242, atol=1e-4)
    # names that hold with .5 and .75: -(ln .5 + ln .25) / 2; numbers: (2^2 + 1^2) / 2
    names = tf.math.log([[1.0, 3.0]])
    np.testing.assert_allclose(task_loss("multilabel")([[1.0, 0.0]], names), 1.0397, atol=1e-4)
    assert task_loss("regression")([[-1.0], [0.0]], [[1.0], [1.0]]) == 2.5


def test_finetune_learns(tmp_path):
    training = TRAINING.replace(epochs=20, evaluations=2, folder=str(tmp_path))
    tuned = finetune(still(), data(), training=training)
    assert tuned.curve[-1]["dev"] == 1.0 and tuned.curve[-1]["loss"] < tuned.curve[0]["loss"] / 2
    assert tuned.curve[-1]["step"] == 60 and sum("dev" in row for row in tuned.curve) == 2
    assert {row["stage"] for row in tuned.curve} == {"finetune"}
    assert list((tmp_path / "finetune" / "log").iterdir())  # TensorBoard's file


@pytest.mark.parametrize("task, metric", [("multilabel", "micro_f1"), ("regression", "pearson")])
def test_finetune_learns_sets_of_names_and_numbers(task, metric):
    tuned = finetune(still(task), data(task), training=TRAINING.replace(epochs=20))
    result = evaluate(tuned, data(task).test)
    assert result["metric"] == metric and result["value"] > 0.9
    assert tuned.history[-1].get("threshold") == (tuned.threshold if task == "multilabel" else None)


@pytest.mark.usefixtures("eager_here")
def test_only_trains_only_and_a_later_stage_goes_on_in_the_schedule():
    model = still()
    before = model.weights()
    tune(model, data(), seed=0, training=TRAINING, num_steps=3, first_step=5, only="classifier")
    moved = {k for k, value in model.weights().items() if not np.array_equal(before[k], value)}
    assert moved == {"classifier/kernel", "classifier/bias"}
    # Updates 5, 6 and 7 of 8
    rates = [row["learning_rate"] for row in model.curve]
    np.testing.assert_allclose(rates, [0.01 * 3 / 8, 0.01 * 2 / 8, 0.01 * 1 / 8], rtol=1e-5)
