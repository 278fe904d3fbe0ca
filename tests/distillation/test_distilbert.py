import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.config import BertConfig
from keras_compress.bert.layer_maps import select_layers
from keras_compress.distillation import distilbert
from keras_compress.measure.cost import parameters
from keras_compress.pretraining.masked_lm import choosing_model
from tests.bert import tiny
from tests.support import (
    TRAINING,
    bilstm,
    data,
    foreign,
    inputs_of,
    masked_lm,
    shared_still,
    stages_of,
    still,
    unlabelled,
    values_of,
    values_on,
)


def on_a_task(monkeypatch, teacher=None, **settings):
    (stage,) = stages_of(distilbert, monkeypatch, teacher or shared_still(), data(), **settings)
    return stage


def in_general(monkeypatch, **settings):
    (stage,) = stages_of(
        distilbert,
        monkeypatch,
        masked_lm(),
        unlabelled(),
        "distilbert_general",
        num_layers=1,
        **settings,
    )
    return stage


def test_layer_maps():
    assert select_layers(12, 6, "distilbert") == [0, 2, 4, 7, 9, 11]
    assert select_layers(12, 6, "alternate") == [0, 2, 4, 6, 8, 10]
    assert select_layers(12, 6, "last-of-block") == [1, 3, 5, 7, 9, 11]
    assert select_layers(12, 3, "bottom") == [0, 1, 2]
    assert select_layers(12, 3, "top") == [9, 10, 11]


def test_parameters_of_the_papers_student():
    def head(width, vocab_size):  # transform, LayerNorm, one bias per word; the table is shared
        return width * width + width + 2 * width + vocab_size

    config = BertConfig(num_layers=6, type_vocab_size=0, pooling="cls")
    assert parameters(config) == 66_362_880
    assert parameters(config) + head(768, 30522) == 66_985_530
    model = masked_lm(num_layers=1, type_vocab_size=0)
    assert model.model.count_params() == parameters(model.config) + head(8, len(tiny.VOCAB))


def test_without_token_types_hidden_states_are_the_same():
    teacher = still(pooling="cls")
    small = distilbert.without_token_types(teacher)
    assert "type_embeddings/embeddings" not in small.weights() and small.config.type_vocab_size == 0
    theirs, ours = (m.features(["hidden_states", "logits"])(inputs_of(m)) for m in (teacher, small))
    np.testing.assert_allclose(theirs["logits"], ours["logits"], atol=1e-5)
    for a, b in zip(theirs["hidden_states"], ours["hidden_states"]):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_student_starts_from_the_teachers_layers(monkeypatch):
    teacher = tiny.model(num_layers=6)
    small = on_a_task(monkeypatch, teacher, num_layers=3)["student"]
    for new, old in enumerate((0, 3, 5)):
        np.testing.assert_array_equal(
            small.weights()[f"layer_{new}_output/kernel"],
            teacher.weights()[f"layer_{old}_output/kernel"],
        )
    assert small.config.pooling == "cls" and "pooler/kernel" not in small.weights()


def test_losses_by_hand_on_a_task(monkeypatch):
    """The last hidden states are compared, each loss has its weight, padding does not count."""
    losses = on_a_task(monkeypatch, num_layers=1, layers="bottom", temperature=3.0)["losses"]
    weights = {name: weight for name, (weight, _) in losses.items()}
    assert weights == {"soft": 5.0, "label": 2.0, "cosine": 1.0}
    T = {"logits": [[3.0, 0.0]], "hidden_states/2": [[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]]}
    S = {"logits": [[0.0, 0.0]], "hidden_states/1": [[[0.0, 1.0], [2.0, 0.0], [-1.0, 0.0]]]}
    T, S = ({name: tf.constant(v) for name, v in rows.items()} for rows in (T, S))
    values = values_of(losses, T, S, tf.constant([1]), tf.constant([[1, 1, 0]]))
    p = np.array([np.e, 1]) / (np.e + 1)  # softmax(z / 3)
    np.testing.assert_allclose(values["soft"], 9 * np.sum(p * np.log(2 * p)), rtol=1e-5)
    np.testing.assert_allclose(values["label"], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(values["cosine"], 0.5)  # orthogonal 1, parallel 0; padding


@pytest.mark.parametrize("tokens", ["all", "masked"])
def test_losses_by_hand_in_general(tokens, monkeypatch):
    """Three tokens, the third is padding, the second masked: soft targets of the first two, or of the second alone."""
    stage = in_general(monkeypatch, tokens=tokens, temperature=1.0)
    labels, mask = tf.constant([[-1, 1, -1]]), tf.constant([[1, 1, 0]])
    theirs, ours = tf.math.log([[0.75, 0.25], [0.5, 0.5]]), tf.math.log([[0.5, 0.5], [0.5, 0.5]])
    angle = tf.constant([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    chosen = slice(0, 2) if tokens == "all" else slice(1, 2)
    T = {"logits": theirs[chosen], "hidden": angle}
    S = {"logits": ours[chosen], "hidden": tf.ones((1, 3, 2)) * [1.0, 0.0]}
    values = values_of(stage["losses"], T, S, labels, mask)
    # KL of the first .1308, of the second 0; the label's -ln .5; cosines 1 and 0 without padding
    expected = {
        "soft": 0.1308 / 2 if tokens == "all" else 0.0,
        "label": np.log(2),
        "cosine": 0.5,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, atol=1e-4, err_msg=name)
    inputs, targets = next(iter(stage["batches"](0, 1)))
    here = inputs["input_mask"] > 0 if tokens == "all" else targets >= 0
    np.testing.assert_array_equal(inputs["targets"] >= 0, here)


def test_more_padding_changes_no_loss(monkeypatch):
    stage = on_a_task(monkeypatch, num_layers=1, layers="top")
    values = [values_on(stage, length=length) for length in (12, 16)]
    stage = in_general(monkeypatch, layers="top")
    for length in (12, 16):
        inputs = inputs_of(stage["teacher"], length=length)
        ids = inputs["input_word_ids"]
        labels = tf.where(ids == 6, ids, -1)  # one piece is masked
        inputs["targets"] = inputs["input_mask"] - 1
        T, S = (choosing_model(stage[side])(inputs) for side in ("teacher", "student"))
        values.append(values_of(stage["losses"], T, S, labels, inputs["input_mask"]))
    for short, long in (values[:2], values[2:]):
        assert short.keys() == {"soft", "label", "cosine"} and min(short.values()) > 1e-3
        for name, value in short.items():
            np.testing.assert_allclose(long[name], value, rtol=1e-4, err_msg=name)


@pytest.mark.usefixtures("eager_here")
def test_in_general_a_student_equal_to_its_teacher_has_no_soft_loss_and_no_angle():
    teacher = masked_lm()
    training = TRAINING.replace(learning_rate=1e-12, epochs=1, batch_size=12)
    small = distilbert.distilbert_general(
        teacher, unlabelled(), training=training, num_layers=2, student=teacher
    )
    row = small.curve[-1]
    assert row["soft"] < 1e-6 and row["cosine"] < 1e-6 and row["label"] > 0.5 and "dev" in row
    assert small.task == "mlm"


def test_students_of_another_kind_learn_the_answers_alone(monkeypatch):
    answers = {"cosine_weight": 0.0, "num_layers": 1}
    student = on_a_task(monkeypatch, student=bilstm(), **answers)["student"]
    assert student.config.architecture == "bilstm"
    student = on_a_task(monkeypatch, student=foreign(), **answers)["student"]
    assert student.tokenizer.vocab == foreign().tokenizer.vocab


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"layers": "foo"}, "The layers kept must be bottom, .*Received: 'foo'"),
        ({"layers": [2]}, r"among 0 to 1, rising. Received: \[2\]"),
        ({"soft_weight": 0, "label_weight": 0, "cosine_weight": 0}, "must have a weight above 0"),
        (
            {"student": bilstm, "num_layers": 2, "cosine_weight": 0.0},
            "must be what `student` has. Received: 2. Set num_layers=1",
        ),
        ({"num_layers": 5}, "`num_layers` must be 1 to 2"),
        ({"student": foreign}, "cut texts alike"),
    ],
)
def test_errors(settings, message):
    settings = {key: value() if callable(value) else value for key, value in settings.items()}
    with pytest.raises(ValueError, match=message):
        distilbert.compress(
            shared_still(), data(), training=TRAINING, **{"num_layers": 1, **settings}
        )


def test_in_general_the_teacher_guesses_words_and_texts_are_masked_anew():
    with pytest.raises(ValueError, match="must be a masked-LM model. Received: a classification"):
        distilbert.distilbert_general(shared_still(), unlabelled(), num_layers=1, training=TRAINING)
    with pytest.raises(ValueError, match="`cache_teacher` needs the same texts"):
        training = TRAINING.replace(cache_teacher=True)
        distilbert.distilbert_general(masked_lm(), unlabelled(), num_layers=1, training=training)
