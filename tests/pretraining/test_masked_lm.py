import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.checkpoints import load, with_head
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import Tokenizer
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.method import check_trained
from keras_compress.pretraining.masked_lm import (
    choosing_model,
    from_scratch,
    masked_accuracy,
    masked_lm,
    masked_loss,
)
from mobile_export.convert import export
from tests import support
from tests.bert import tiny
from tests.support import TRAINING, data, inputs_of, unlabelled


def test_the_head_is_the_papers():
    """dense, gelu, LayerNorm, embedding matrix, bias: the whole in NumPy."""
    model = support.masked_lm()
    w = {name: value + 0.1 for name, value in model.weights().items()}
    model.set_weights(w)
    outputs = model.features(["hidden_states", "logits"])(inputs_of(model))
    x = outputs["hidden_states"][-1].numpy() @ w["mlm_transform/kernel"] + w["mlm_transform/bias"]
    x = tf.nn.gelu(x).numpy()
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    x = x * w["mlm_norm/gamma"] + w["mlm_norm/beta"]
    scores = x @ w["word_embeddings/embeddings"].T + w["mlm_bias/bias"]
    np.testing.assert_allclose(outputs["logits"], scores, rtol=1e-4, atol=1e-4)


def test_the_embedding_matrix_is_one_variable():
    shapes = [value.shape for value in support.masked_lm().weights().values()]
    assert sum(len(shape) == 2 and shape[0] == len(tiny.VOCAB) for shape in shapes) == 1


def test_scores_of_chosen_tokens_are_those_of_the_whole_model():
    model = support.masked_lm()
    inputs = inputs_of(model)
    even = tf.range(inputs["input_mask"].shape[1])[None] % 2 == 0
    targets = tf.where(even, inputs["input_mask"] - 1, -1)
    some = choosing_model(model)({**inputs, "targets": targets})["logits"]
    np.testing.assert_allclose(some, model.model(inputs)[targets >= 0], atol=1e-5)


def test_masked_loss_by_hand():
    targets = tf.constant([[-1, 1, -1], [-1, -1, 0]])
    # logits (0, ln 3): p = 1/4, 3/4; the two targets cost -ln .75 and -ln .25: mean .8370
    logits = tf.math.log([[1.0, 3.0], [1.0, 3.0]])
    np.testing.assert_allclose(masked_loss(targets, logits), 0.8370, atol=1e-4)
    assert masked_loss(tf.constant([[-1]]), tf.zeros((0, 2))) == 0.0


@pytest.mark.usefixtures("eager_here")
def test_head_alone_leaves_the_encoder():
    model = tiny.model()
    trained = masked_lm(model, unlabelled(), training=TRAINING, train="head")
    for name, value in trained.weights().items():
        assert name.startswith("mlm_") or np.array_equal(value, model.weights()[name]), name
    assert trained.task == "mlm" and trained.labels == () and "dev" in trained.curve[-1]


@pytest.mark.parametrize("whole_word", [False, True])
def test_it_learns(whole_word):
    start, training = support.masked_lm(), TRAINING.replace(epochs=60)
    trained = masked_lm(start, unlabelled(), training=training, whole_word=whole_word, seed=1)
    losses = [row["loss"] for row in trained.curve]
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])
    before, after = (masked_accuracy(m, unlabelled(), TRAINING) for m in (start, trained))
    assert after > before


@pytest.mark.parametrize("task", ["classification", "matching", "tagging"])
@pytest.mark.usefixtures("eager_here")
def test_a_labelled_set_s_texts_do_as_well(task):
    trained = masked_lm(support.masked_lm(), data(task), training=TRAINING.replace(epochs=1))
    assert trained.task == "mlm" and np.isfinite(trained.curve[-1]["loss"])


def test_a_new_head_keeps_encoder_and_history(tmp_path):
    model, name = support.masked_lm(), "layer_0_query/kernel"
    model.history = [{"method": "masked_lm"}]
    model.save(tmp_path / "m")
    loaded = load(tmp_path / "m", task="classification", labels=["no", "yes"])
    changed = with_head(model, "classification", ("no", "yes"))
    assert [step["method"] for step in changed.history] == ["masked_lm", "load"]
    for tuned in (loaded, changed):
        np.testing.assert_array_equal(tuned.weights()[name], model.weights()[name])
        assert "classifier/kernel" in tuned.weights()
        assert not any(name.startswith("mlm_") for name in tuned.weights())


def test_from_scratch():
    start, shape = tiny.model(seed=5), {"embedding_size": 4, "sharing": "all"}
    model = from_scratch(start, None, seed=3, config=shape)
    whole = model.config.to_dict()
    again, other = (from_scratch(start, None, seed=seed, config=whole) for seed in (3, 4))
    assert (model.task, model.labels) == (start.task, start.labels)
    assert model.config == start.config.replace(**shape)
    topics = Dataset("topics", "classification", ("a", "b", "c"), Split(["x"], [0]))
    assert from_scratch(start, topics).labels == ("a", "b", "c")
    drawn = [m.weights()["layer_0_query/kernel"] for m in (model, again, other, start)]
    assert [np.array_equal(drawn[0], each) for each in drawn] == [True, True, False, False]
    with pytest.raises(ValueError, match="head must be trained"):
        check_trained(model)


def without_mask():
    vocab = [piece for piece in tiny.VOCAB if piece != "[MASK]"]
    return TaskModel(tiny.config(vocab_size=len(vocab)), Tokenizer(vocab), "mlm", (), seed=1)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: masked_lm(tiny.shared(), data("matching"), training=TRAINING, whole_word=True),
            "`whole_word` needs single texts. Received: m",
        ),
        (
            lambda: from_scratch(tiny.shared(), None, config={"depth": 3}),
            "must be fields of BertConfig.*'depth': 3",
        ),
        (
            lambda: from_scratch(tiny.shared(), None, config={"hidden_size": 9}),
            "must be a multiple of `num_heads`",
        ),
        (
            lambda: masked_lm(without_mask(), unlabelled(), training=TRAINING),
            r"must have the piece \[MASK\]",
        ),
        (lambda: support.masked_lm().predict(["a"]), "`predict` needs a task with labels"),
        (lambda: export(support.masked_lm(), "x"), "must have a task with labels"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
