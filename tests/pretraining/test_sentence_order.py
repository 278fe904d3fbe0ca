import numpy as np
import pytest

from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.pretraining import sentence_order
from keras_compress.pretraining.masked_lm import from_scratch
from keras_compress.pretraining.sentence_order import pretrain
from keras_compress.pretraining.sentence_pairs import sentence_pairs
from keras_compress.training import loop
from tests.bert import tiny
from tests.samples import corpus
from tests.support import TRAINING, still

SHORT = TRAINING.replace(epochs=1, batch_size=8)


@pytest.mark.parametrize("task", ["sop", "none"])
@pytest.mark.usefixtures("eager_here")
def test_pretrain(task, monkeypatch):
    seen = []
    monkeypatch.setattr(
        sentence_order, "masked_accuracy", lambda model, pairs, *rest: seen.append(pairs) or 0.5
    )
    start, text = still(sharing="all"), corpus(20)
    model = pretrain(start, text, training=SHORT, sentence_task=task)
    before, entry, row = start.weights(), model.history[-1], model.curve[-1]
    for name, value in model.weights().items():  # token types too: pairs have both
        assert name not in before or not np.array_equal(value, before[name]), name
    assert model.task == "mlm" and entry["steps_per_second"] > 0
    assert entry["parameters"] == model.model.count_params()
    assert ("sentence_loss" in row) == (task == "sop")
    for name in ("sentence_accuracy", "sentence_by_length"):
        assert 0 <= entry[name] <= 1 if task == "sop" else entry[name] is None
    assert entry["sentence_pairs"] == (len(seen[0].dev.texts) if task == "sop" else None)
    written = sentence_pairs(text, start.tokenizer, SHORT.max_length, "none", 0)
    assert seen[0].dev.texts == written.dev.texts  # words are guessed in the same texts
    assert entry["curve"] == [row] and row.get("dev_sentence") == entry["sentence_accuracy"]


def test_it_learns_the_order_of_sentences():
    """Every document goes from "the cat .." to "a dog .."; so the first segment can be read off."""
    texts = [f"{start} mat {1 + k % 2}" for k in range(30) for start in ("the cat sat", "a dog on")]
    split = Split(texts, [k // 2 for k in range(len(texts))])
    text = Dataset("order", "unlabelled", (), split, split)
    start = from_scratch(still(), None, config={"num_layers": 1, "hidden_size": 16})
    model = pretrain(start, text, training=SHORT.replace(epochs=10), mask_share=0.05)
    assert model.history[-1]["sentence_accuracy"] > 0.9  # chance: 0.5


@pytest.mark.usefixtures("eager_here")
def test_a_killed_pretraining_goes_on_with_the_same_weights(tmp_path, monkeypatch):
    start, text = tiny.model(num_layers=1), corpus(10, dev=False)  # with dropout
    settings = SHORT.replace(folder=str(tmp_path), checkpoint_every=2)
    whole = pretrain(start, text, training=SHORT)
    save = loop.Saver.save

    def killed(self):
        save(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Saver, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(start, text, training=settings)
    monkeypatch.setattr(loop.Saver, "save", save)
    again = pretrain(start, text, training=settings)
    assert len(again.curve) > 1
    np.testing.assert_equal(again.weights(), whole.weights())


@pytest.mark.parametrize(
    "changes, text, message",
    [
        ({"type_vocab_size": 1}, corpus(), "need two token types.*`type_vocab_size` 1"),
        ({}, corpus(5, 1), "must have documents of two sentences"),
    ],
)
def test_errors(changes, text, message):
    with pytest.raises(ValueError, match=message):
        pretrain(tiny.model(**changes), text, training=SHORT)
