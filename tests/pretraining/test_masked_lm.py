import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.checkpoints import load, with_head
from keras_compress.bert.task_model import TaskModel
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.pretraining.masked_lm import (
    choosing_model,
    from_scratch,
    masked_accuracy,
    masked_lm,
    masked_loss,
    pretrain,
)
from keras_compress.pretraining.sentence_pairs import sentence_pairs
from keras_compress.quantization.q8bert import quantized
from keras_compress.training.distill import check_trained
from mobile_export.convert import export
from tests.bert import tiny
from tests.distillation.test_distilbert import masked_lm as mlm_model
from tests.distillation.test_distilbert import unlabelled
from tests.factorization.test_albert import STATIC
from tests.pretraining.test_sentence_pairs import corpus
from tests.replacement.test_theseus import data, inputs_of
from tests.training.test_distill import TRAINING


def test_the_head_is_the_papers():
    """dense, gelu, LayerNorm, word table, bias: the whole in NumPy."""
    model = mlm_model()
    weights = {name: value + 0.1 for name, value in model.weights().items()}
    model.set_weights(weights)
    found = model.features(["hidden_states", "logits"])(inputs_of(model))
    x = (
        found["hidden_states"][-1].numpy() @ weights["mlm_transform/kernel"]
        + weights["mlm_transform/bias"]
    )
    x = tf.nn.gelu(x).numpy()
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    x = x * weights["mlm_norm/gamma"] + weights["mlm_norm/beta"]
    np.testing.assert_allclose(
        found["logits"],
        x @ weights["word_embeddings/embeddings"].T + weights["mlm_bias/bias"],
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_word_table_is_one_variable():
    weights = mlm_model().weights()
    assert (
        sum(value.shape[0] == len(tiny.VOCAB) and value.ndim == 2 for value in weights.values())
        == 1
    )


def test_scores_of_chosen_tokens_are_those_of_the_whole_model():
    model = mlm_model()
    inputs = inputs_of(model)
    targets = tf.where(
        tf.range(tf.shape(inputs["input_mask"])[1])[None] % 2 == 0, inputs["input_mask"] - 1, -1
    )
    some = choosing_model(model)({**inputs, "targets": targets})["logits"]
    np.testing.assert_allclose(some, model.model(inputs)[targets >= 0], atol=1e-5)


def test_masked_loss_by_hand():
    targets = tf.constant([[-1, 1, -1], [-1, -1, 0]])
    # logits (0, ln 3): p = 1/4, 3/4; the two targets cost -ln .75 and -ln .25: mean .8370
    logits = tf.math.log([[1.0, 3.0], [1.0, 3.0]])
    np.testing.assert_allclose(masked_loss(targets, logits), 0.8370, atol=1e-4)
    assert masked_loss(tf.constant([[-1]]), tf.zeros((0, 2))) == 0.0


def test_head_alone_leaves_the_encoder():
    model = tiny.model()
    trained = masked_lm(model, unlabelled(), training=TRAINING, train="head")
    for name, value in trained.weights().items():
        assert name.startswith("mlm_") or np.array_equal(value, model.weights()[name]), name
    assert trained.task == "mlm" and trained.labels == () and "dev" in trained.curve[-1]
    assert trained.model.trainable and trained.history[-1]["train"] == "head"


@pytest.mark.parametrize("whole_word", [False, True])
def test_it_learns(whole_word):
    trained = masked_lm(
        mlm_model(),
        unlabelled(),
        training=TRAINING.replace(epochs=60),
        whole_word=whole_word,
        seed=1,
    )
    losses = [row["loss"] for row in trained.curve]
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])
    assert masked_accuracy(trained, unlabelled(), TRAINING) > masked_accuracy(
        mlm_model(), unlabelled(), TRAINING
    )


@pytest.mark.parametrize("task", ["classification", "matching", "tagging"])
def test_a_labelled_set_s_texts_do_as_well(task):
    trained = masked_lm(mlm_model(), data(task), training=TRAINING.replace(epochs=1))
    assert trained.task == "mlm" and np.isfinite(trained.curve[-1]["loss"])


def test_save_load_and_a_new_head(tmp_path):
    model = mlm_model()
    model.save(tmp_path / "m")
    again = TaskModel.load(tmp_path / "m")
    np.testing.assert_array_equal(again.model(inputs_of(model)), model.model(inputs_of(model)))
    tuned = load(
        tmp_path / "m", task="classification", labels=["no", "yes"]
    )  # no --new-head needed
    np.testing.assert_array_equal(
        tuned.weights()["layer_0_query/kernel"], model.weights()["layer_0_query/kernel"]
    )
    assert "classifier/kernel" in tuned.weights() and not any(
        name.startswith("mlm_") for name in tuned.weights()
    )


def test_with_head_keeps_the_encoder_and_the_history():
    model = tiny.model()
    model.history = [{"method": "finetune"}]
    changed = with_head(model, "mlm", ())
    assert [step["method"] for step in changed.history] == ["finetune", "load"]
    np.testing.assert_array_equal(
        changed.weights()["layer_1_output/kernel"], model.weights()["layer_1_output/kernel"]
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: masked_lm(tiny.model(), data("matching"), whole_word=True),
            "`whole_word` needs single texts. Received: m",
        ),
        (
            lambda: masked_lm(tiny.model(), unlabelled(), train="body"),
            "`train` must be one of head, all",
        ),
        (
            lambda: masked_lm(quantized(tiny.model(), STATIC), unlabelled()),
            "must be the last of a chain",
        ),
        (
            lambda: pretrain(quantized(tiny.model(), STATIC), corpus()),
            "must be the last of a chain",
        ),
        (
            lambda: from_scratch(quantized(tiny.model(), STATIC), None),
            "must be the last of a chain",
        ),
        (lambda: mlm_model().predict(["a"]), "`predict` needs a task with labels"),
        (lambda: export(mlm_model(), "x"), "must have a task with labels"),
        (lambda: TaskModel(tiny.config(), tiny.tokenizer(), "mlm", ("a", "b")), "has no labels"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- from random weights, on running text ---

SHAPE = {"num_layers": 1, "dropout": 0.0, "attention_dropout": 0.0}
SHORT = TRAINING.replace(max_length=16, epochs=1, batch_size=8)


def test_from_scratch():
    start = tiny.model(seed=5)
    model = from_scratch(
        start, None, seed=3, config={**SHAPE, "embedding_size": 4, "sharing": "all"}
    )
    again, other = (
        from_scratch(start, None, seed=seed, config=model.config.to_dict()) for seed in (3, 4)
    )
    assert (model.task, model.labels, model.tokenizer) == (
        start.task,
        start.labels,
        start.tokenizer,
    )
    assert model.config == start.config.replace(**SHAPE, embedding_size=4, sharing="all")
    other_task = Dataset("topics", "classification", ("a", "b", "c"), Split(["x"], [0]))
    assert from_scratch(start, other_task).labels == ("a", "b", "c")
    name = "layer_0_query/kernel"
    assert np.array_equal(model.weights()[name], again.weights()[name])
    assert not np.array_equal(model.weights()[name], other.weights()[name])
    assert not np.array_equal(model.weights()[name], start.weights()[name])
    with pytest.raises(ValueError, match="head must be trained"):
        check_trained(model)


@pytest.mark.parametrize("task", ["sop", "none"])
def test_pretrain(task, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "keras_compress.pretraining.masked_lm.masked_accuracy",
        lambda model, pairs, *rest: seen.append(pairs) or 0.5,
    )
    start = from_scratch(tiny.model(), None, config={**SHAPE, "sharing": "all", "num_layers": 2})
    before = start.weights()
    model = pretrain(start, corpus(20), training=SHORT, sentence_task=task)
    assert all(np.array_equal(before[name], value) for name, value in start.weights().items())
    for name, value in model.weights().items():
        moved = name not in before or not np.array_equal(value, before[name])
        assert moved, name  # token types too: pairs have both
    assert (
        model.task == "mlm"
        and model.config == start.config.replace(pooling="cls")
        and "dev" in model.curve[-1]
    )
    entry = model.history[-1]
    assert (
        entry["method"] == "pretrain"
        and entry["steps_per_second"] > 0
        and entry["parameters"] == (model.model.count_params())
    )
    assert ("sentence_loss" in model.curve[-1]) == (task == "sop")
    for name in ("sentence_accuracy", "sentence_by_length"):
        assert 0 <= entry[name] <= 1 if task == "sop" else entry[name] is None
    assert entry["sentence_pairs"] == (len(seen[0].dev.texts) if task == "sop" else None)
    written = sentence_pairs(corpus(20), start.tokenizer, SHORT.max_length, "none", 0)
    assert seen[0].dev.texts == written.dev.texts  # words are guessed in the same texts
    assert entry["curve"] == model.curve[-1:]
    assert entry["curve"][-1].get("dev_sentence") == entry["sentence_accuracy"]


def test_it_learns_the_order_of_sentences():
    """Every document goes from "the cat .." to "a dog .."; so which segment comes first can be read off."""
    texts = [f"{start} mat {1 + k % 2}" for k in range(30) for start in ("the cat sat", "a dog on")]
    split = Split(texts, [k // 2 for k in range(len(texts))])
    text = Dataset("order", "unlabelled", (), split, split)
    start = from_scratch(tiny.model(), None, config={**SHAPE, "hidden_size": 16})
    model = pretrain(
        start, text, training=SHORT.replace(epochs=10), sentence_task="sop", mask_share=0.05
    )
    assert model.history[-1]["sentence_accuracy"] > 0.9  # chance: 0.5


def test_a_killed_pretraining_goes_on_with_the_same_weights(tmp_path, monkeypatch):
    from keras_compress.training import loop as training

    start = from_scratch(tiny.model(), None, config={"num_layers": 1})  # with dropout
    settings = SHORT.replace(folder=str(tmp_path), checkpoint_every=2)
    whole = pretrain(start, corpus(10, dev=False), training=SHORT, sentence_task="sop")
    save = training.Saver.save

    def killed(self):
        save(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Saver, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(start, corpus(10, dev=False), training=settings, sentence_task="sop")
    monkeypatch.setattr(training.Saver, "save", save)
    again = pretrain(start, corpus(10, dev=False), training=settings, sentence_task="sop")
    assert len(again.curve) > 1
    for name, value in whole.weights().items():
        np.testing.assert_array_equal(value, again.weights()[name], err_msg=name)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: from_scratch(tiny.model(), None, config={"depth": 3}),
            "must be fields of BertConfig.*'depth': 3",
        ),
        (
            lambda: from_scratch(tiny.model(), None, config="small"),
            "`config` must be fields of BertConfig",
        ),
        (
            lambda: from_scratch(tiny.model(), None, config={"hidden_size": 9}),
            "must be a multiple of `num_heads`",
        ),
        (
            lambda: masked_lm(tiny.model(), unlabelled(), mask_share=0.0),
            "`mask_share` must be between 0 and 1.*Received: 0.0",
        ),
        (lambda: pretrain(tiny.model(), corpus(5), mask_share=float("nan")), "Received: nan and 3"),
        (
            lambda: pretrain(tiny.model(), corpus(5), ngram=0),
            "`ngram` a whole number of 1 or more. Received: 0.15 and 0",
        ),
        (
            lambda: pretrain(tiny.model(), data()),
            "made of running text. Received: classification data",
        ),
        (
            lambda: pretrain(tiny.model(type_vocab_size=1), corpus()),
            "need two token types.*`type_vocab_size` 1",
        ),
        (
            lambda: pretrain(tiny.model(), corpus(), mask_share="x"),
            "`mask_share` must be between 0 and 1.*'x'",
        ),
        (lambda: pretrain(tiny.model(), corpus(5, 1)), "must have sentences to order"),
    ],
)
def test_errors_of_pretraining(call, message):
    with pytest.raises(ValueError, match=message):
        call()
