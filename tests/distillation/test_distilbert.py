import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.config import BertConfig
from keras_compress.bert.layer_maps import select_layers
from keras_compress.bert.task_model import TaskModel
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.distillation import distilbert
from keras_compress.measure.cost import parameters
from keras_compress.training.distill import outputs
from mobile_export.convert import export
from tests.bert import tiny
from tests.replacement.test_theseus import data, inputs_of
from tests.training.test_distill import TRAINING, bilstm, foreign, still


def unlabelled():
    texts = data().train.texts
    return Dataset(
        "prose", "unlabelled", (), Split(texts, [0] * len(texts)), Split(texts[:4], [0] * 4)
    )


def masked_lm(**changes):
    config = tiny.config(dropout=0.0, attention_dropout=0.0, pooling="cls", **changes)
    return TaskModel(config, tiny.tokenizer(), "mlm", (), seed=1)


def test_layer_maps():
    assert select_layers(12, 6, "distilbert") == [0, 2, 4, 7, 9, 11]
    assert select_layers(12, 6, "alternate") == [0, 2, 4, 6, 8, 10]
    assert select_layers(12, 6, "last-of-block") == [1, 3, 5, 7, 9, 11]
    assert select_layers(12, 3, "bottom") == [0, 1, 2] and select_layers(12, 3, "top") == [
        9,
        10,
        11,
    ]


def test_parameters_of_the_paper_s_student():
    config = BertConfig(num_layers=6, type_vocab_size=0, pooling="cls")
    assert parameters(config) == 66_362_880
    assert parameters(config) + head_parameters(768, 30522) == 66_985_530
    model = masked_lm(num_layers=1, type_vocab_size=0)
    assert model.model.count_params() == parameters(model.config) + head_parameters(
        8, len(tiny.VOCAB)
    )


def head_parameters(width, vocab_size):
    """Of a masked-LM head: transform, LayerNorm, one bias per word; the table is the encoder's."""
    return width * width + width + 2 * width + vocab_size


def test_without_token_types_hidden_states_are_the_same():
    teacher = still(pooling="cls")
    small = distilbert.without_token_types(teacher)
    assert "type_embeddings/embeddings" not in small.weights() and small.config.type_vocab_size == 0
    theirs, ours = (m.features(["hidden_states", "logits"])(inputs_of(m)) for m in (teacher, small))
    for a, b in zip(
        [*theirs["hidden_states"], theirs["logits"]], [*ours["hidden_states"], ours["logits"]]
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_student_starts_from_the_teacher_s_layers(monkeypatch):
    monkeypatch.setattr(distilbert, "distill", lambda *a, **k: [])
    teacher = tiny.model(num_layers=6)
    small = distilbert.compress(teacher, data(), num_layers=3)
    for new, old in enumerate((0, 3, 5)):
        np.testing.assert_array_equal(
            small.weights()[f"layer_{new}_output/kernel"],
            teacher.weights()[f"layer_{old}_output/kernel"],
        )
    assert small.config.pooling == "cls" and "pooler/kernel" not in small.weights()


@pytest.mark.parametrize("task", ["classification", "matching", "tagging"])
def test_on_a_task(task, tmp_path):
    teacher = tiny.model(task, num_layers=3)
    before = teacher.weights()
    small = distilbert.compress(teacher, data(task), training=TRAINING, num_layers=2)
    assert small.config.num_layers == 2 and {"soft", "label", "cosine", "dev"} <= set(
        small.curve[-1]
    )
    assert all(np.array_equal(before[name], value) for name, value in teacher.weights().items())
    small.save(tmp_path / "s")
    np.testing.assert_array_equal(
        TaskModel.load(tmp_path / "s").weights()["classifier/kernel"],
        small.weights()["classifier/kernel"],
    )
    files = export(small, tmp_path, ("float32",), sequence_length=12, dev=data(task).dev)
    assert files[0]["max_dlogit"] < 1e-4 and small.history[-1]["layers"] == [0, 2]


@pytest.mark.parametrize("tokens", ["all", "masked"])
def test_in_general(tokens):
    teacher = masked_lm(num_layers=3)
    small = distilbert.compress(
        teacher, unlabelled(), training=TRAINING, num_layers=2, tokens=tokens
    )
    assert small.task == "mlm" and {"soft", "label", "cosine", "dev"} <= set(small.curve[-1])


def test_in_general_a_student_equal_to_its_teacher_has_no_soft_loss_and_no_angle():
    teacher = masked_lm()
    small = distilbert.compress(
        teacher,
        unlabelled(),
        training=TRAINING.replace(learning_rate=1e-12),
        num_layers=2,
        student=teacher,
    )
    assert (
        small.curve[0]["soft"] < 1e-6
        and small.curve[0]["cosine"] < 1e-6
        and small.curve[0]["label"] > 0.5
    )


def test_a_bilstm_student_and_its_export(tmp_path):
    small = distilbert.compress(
        tiny.model(), data(), training=TRAINING, student=bilstm(), num_layers=1, cosine_weight=0.0
    )
    assert small.config.architecture == "bilstm" and set(small.curve[-1]) >= {"soft", "label"}
    whole, int8 = export(small, tmp_path, sequence_length=12, dev=data().dev)
    assert (
        whole["max_dlogit"] < 1e-4
        and int8["mean_dp"] < 0.05
        and int8["agreement"] > 0.9
        and not int8["drift"]
    )


def test_a_student_with_another_vocabulary():
    """Soft targets of whole texts need no common pieces; everything that goes token by token is refused."""
    settings = {"training": TRAINING, "num_layers": 2, "cosine_weight": 0.0}
    small = distilbert.compress(still(), data(), student=foreign(), **settings)
    assert small.tokenizer.vocab == foreign().tokenizer.vocab and {"soft", "label"} <= set(
        small.curve[-1]
    )
    for teacher, student, dataset, changes in (
        (still(), foreign(), data(), {"cosine_weight": 1.0}),
        (still(task="tagging"), foreign("tagging", tiny.LABELS["tagging"]), data("tagging"), {}),
        (masked_lm(), foreign("mlm", ()), unlabelled(), {}),
    ):
        with pytest.raises(
            ValueError,
            match=f"cut texts alike. Received: {len(tiny.VOCAB)} and {len(tiny.VOCAB) + 1} ",
        ):
            distilbert.compress(teacher, dataset, student=student, **{**settings, **changes})


def caught(monkeypatch, teacher, dataset, **settings):
    """What `compress` hands to the engine, without training."""
    found = {}
    monkeypatch.setattr(
        distilbert,
        "distill",
        lambda *a, **k: found.update(student=a[1], objective=a[3], weights=a[4], **k) or [],
    )
    distilbert.compress(teacher, dataset, **settings)
    return found


@pytest.mark.parametrize("tokens", ["all", "masked"])
def test_in_general_by_hand(tokens, monkeypatch):
    """Three tokens, the third is padding, the second masked: soft targets of the first two, or of the second alone."""
    found = caught(
        monkeypatch, masked_lm(), unlabelled(), num_layers=1, tokens=tokens, temperature=1.0
    )
    labels, mask = tf.constant([[-1, 1, -1]]), tf.constant([[1, 1, 0]])
    theirs, ours = tf.math.log([[0.75, 0.25], [0.5, 0.5]]), tf.math.log([[0.5, 0.5], [0.5, 0.5]])
    angle = tf.constant([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    chosen = slice(0, 2) if tokens == "all" else slice(1, 2)
    losses = found["objective"](
        {"logits": theirs[chosen], "hidden": angle},
        {"logits": ours[chosen], "hidden": tf.ones((1, 3, 2)) * [1.0, 0.0]},
        labels,
        mask,
    )
    # KL of the first 0.1308 (see test_distiller), of the second 0; the label's -ln .5; cosines 1 and 0 without padding
    np.testing.assert_allclose(
        [losses["soft"], losses["label"], losses["cosine"]],
        [0.1308 / 2 if tokens == "all" else 0.0, np.log(2), 0.5],
        atol=1e-4,
    )
    inputs, targets = next(iter(found["batches"](0, 1)))
    here = inputs["input_mask"] > 0 if tokens == "all" else targets >= 0
    np.testing.assert_array_equal(inputs["targets"] >= 0, here)


@pytest.mark.parametrize("task", ["classification", "mlm"])
def test_more_padding_changes_no_loss(task, monkeypatch):
    teacher, dataset = (masked_lm(), unlabelled()) if task == "mlm" else (still(), data())
    found, values = caught(monkeypatch, teacher, dataset, num_layers=1, layers="top"), []
    theirs, ours = (
        names if task == "mlm" else outputs(model, names)
        for model, names in (
            (teacher, found["teacher_outputs"]),
            (found["student"], found["student_outputs"]),
        )
    )
    for length in (12, 16):
        inputs = {
            k: tf.constant(v)
            for k, v in teacher.pad(teacher.tokenizer.encode(tiny.TEXTS, 12), length).items()
        }
        labels = tf.constant([0, 1, 2, 0])
        if task == "mlm":
            labels = tf.where(
                inputs["input_word_ids"] == 6, inputs["input_word_ids"], -1
            )  # one piece is masked
            inputs["targets"] = inputs["input_mask"] - 1
        values.append(
            found["objective"](theirs(inputs), ours(inputs), labels, inputs["input_mask"])
        )
    assert values[0].keys() == {"soft", "label", "cosine"} and min(values[0].values()) > 1e-3
    for name, value in values[0].items():
        np.testing.assert_allclose(values[1][name], value, rtol=1e-4, err_msg=name)


def test_cosine_by_hand_on_a_task(monkeypatch):
    """The objective compares the last hidden states, each weight is applied, padding does not count."""
    found = caught(
        monkeypatch, tiny.model(), data(), num_layers=1, layers="bottom", temperature=3.0
    )
    hot = found["objective"](
        {"logits": tf.constant([[3.0, 0.0]]), "hidden_states/2": tf.ones((1, 1, 2))},
        {"logits": tf.zeros((1, 2)), "hidden_states/1": tf.ones((1, 1, 2))},
        tf.constant([1]),
        tf.constant([[1]]),
    )["soft"]
    p = np.array([np.e, 1]) / (np.e + 1)  # softmax(z / 3)
    np.testing.assert_allclose(hot, 9 * np.sum(p * np.log(2 * p)), rtol=1e-5)
    assert found["weights"] == {"soft": 5.0, "label": 2.0, "cosine": 1.0}
    teacher = {
        "logits": tf.zeros((1, 3)),
        "hidden_states/2": tf.constant([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]]),
    }
    student = {
        "logits": tf.zeros((1, 3)),
        "hidden_states/1": tf.constant([[[0.0, 1.0], [2.0, 0.0], [-1.0, 0.0]]]),
    }
    losses = found["objective"](teacher, student, tf.constant([1]), tf.constant([[1, 1, 0]]))
    np.testing.assert_allclose(
        losses["cosine"], 0.5
    )  # orthogonal 1, parallel 0; the third is padding
    np.testing.assert_allclose([losses["soft"], losses["label"]], [0.0, np.log(3)], atol=1e-6)


@pytest.mark.parametrize(
    "model, dataset, settings, message",
    [
        (tiny.model, unlabelled, {}, "must be a masked-LM model. Received: a classification model"),
        (tiny.model, data, {"tokens": "some"}, "`tokens` must be one of all, masked"),
        (
            tiny.model,
            data,
            {"whole_word": True},
            "are for unlabelled text. Received: 'all' and True with classification",
        ),
        (tiny.model, data, {"label_weight": float("nan")}, "must be 0 or more"),
        (tiny.model, data, {"layers": "foo"}, "The layers kept must be bottom, .*Received: 'foo'"),
        (
            tiny.model,
            data,
            {"layers": [0.5]},
            r"1 different ones among 0 to 1, rising. Received: \[0.5\]",
        ),
        (tiny.model, data, {"soft_weight": -1.0}, "must be 0 or more"),
        (
            tiny.model,
            data,
            {"soft_weight": 0, "label_weight": 0, "cosine_weight": 0},
            "one of them positive",
        ),
        (tiny.model, data, {"student": bilstm, "num_layers": 1}, "between two BERTs only"),
        (
            tiny.model,
            data,
            {"student": bilstm, "num_layers": 2, "cosine_weight": 0.0},
            "Received: 2 for a bilstm of 1. Set",
        ),
        (
            tiny.model,
            data,
            {"student": tiny.model, "layers": "top"},
            "Either `layers` or `student`",
        ),
        (tiny.model, data, {"num_layers": 5}, "`num_layers` must be 1 to 2"),
    ],
)
def test_errors(model, dataset, settings, message):
    settings = {key: value() if callable(value) else value for key, value in settings.items()}
    with pytest.raises(ValueError, match=message):
        distilbert.compress(model(), dataset(), training=TRAINING, **{"num_layers": 1, **settings})


def test_changed_texts_cannot_be_cached():
    with pytest.raises(ValueError, match="`cache_teacher` needs the same texts"):
        distilbert.compress(
            masked_lm(), unlabelled(), num_layers=1, training=TRAINING.replace(cache_teacher=True)
        )
