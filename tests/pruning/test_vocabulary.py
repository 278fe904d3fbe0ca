import numpy as np
import pytest

from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.pruning import vocabulary as V
from tests.bert import tiny
from tests.support import data, masked_lm


def dataset(texts, dev=None):
    labels = [k % 3 for k in range(len(texts))]
    splits = Split(texts, labels), Split(dev, labels[: len(dev)]) if dev else None
    return Dataset("tiny", "classification", tiny.LABELS["classification"], *splits)


SOME = dataset(["the cats sat", "unbelievable!", "我听"], dev=["the dog sat"])


def test_kept_texts_give_the_same_logits_to_the_last_bit():
    model = tiny.model()
    small = V.compress(model, SOME)
    assert len(small.tokenizer.vocab) < len(tiny.VOCAB)
    assert small.history[-1]["cut_otherwise"] == 1.0  # "dog" went
    after, before = (m.tokenizer.encode(SOME.train.texts, 16) for m in (small, model))
    assert [[small.tokenizer.vocab[i] for i in e.ids] for e in after] == [
        [tiny.VOCAB[i] for i in e.ids] for e in before
    ]
    np.testing.assert_array_equal(small.forward(after), model.forward(before))


def test_what_is_kept():
    counts = np.zeros(len(tiny.VOCAB), int)
    counts[tiny.VOCAB.index("cat")] = 5
    counts[tiny.VOCAB.index("dog")] = 1

    def names(*arguments, **settings):
        return {tiny.VOCAB[i] for i in V.choose_pieces(tiny.VOCAB, counts, *arguments, **settings)}

    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    always = special | {piece for piece in tiny.VOCAB if len(piece.removeprefix("##")) == 1}
    assert names() == always | {"cat", "dog"}
    assert names(2) == always | {"cat"}
    assert names(2, keep=["mat"]) == always | {"cat", "mat"}
    assert names(0) == {*tiny.VOCAB}
    latin = {piece for piece in tiny.VOCAB if not any("\u4e00" <= c for c in piece)}
    assert names(0, scripts=["LATIN"]) == latin
    counts[tiny.VOCAB.index("我")] = 9  # the data's own, of another script
    assert names(0, scripts=["LATIN"]) == latin | {"我"} and "我" in names(2, scripts=["LATIN"])
    cjk = names(2, scripts=["CJK"])
    assert {"cat", "a"} <= cjk and "x" not in cjk  # "cat" can be spelled
    assert V.choose_pieces(tiny.VOCAB, counts)[0] == 0  # [PAD] stays piece 0


def test_words_that_went_fall_apart_and_are_counted():
    entry = V.compress(tiny.shared(), dataset(["a cat"], dev=["the dog 听"])).history[-1]
    assert entry["pieces_before"] == len(tiny.VOCAB) and entry["looked_at"] == "dev"
    # Of the, dog and 听, a single character, two are unknown.
    assert (entry["unknown_before"], entry["unknown"]) == (0.0, pytest.approx(2 / 3))
    entry = V.compress(tiny.shared(), dataset(["a cat"])).history[-1]  # no dev
    assert (entry["looked_at"], entry["unknown"], entry["cut_otherwise"]) == ("train", 0.0, 0.0)


def test_parameters_fall_by_the_rows_and_unlabelled_text_will_do():
    model = masked_lm()
    small = V.compress(model, Dataset("p", "unlabelled", (), Split(["a cat"], [0])))
    gone = len(tiny.VOCAB) - len(small.tokenizer.vocab)  # width 8, and the masked-LM bias
    assert model.model.count_params() - small.model.count_params() == gone * 8 + gone > 0


@pytest.mark.parametrize("task", ["matching", "tagging"])
def test_other_tasks(task):
    small = V.compress(tiny.shared(task), data(task))
    assert small.config.vocab_size < len(tiny.VOCAB) and small.task == task


def test_scripts_by_hand():
    scripts = [V.scripts_of(piece) for piece in ("##cafe", "我", "12!")]
    assert scripts == [{"LATIN"}, {"CJK"}, set()]


@pytest.mark.parametrize(
    "task, settings, message",
    [
        ("classification", {"keep": ["zebra"]}, r"`keep` must be among .*Received: \['zebra'\]"),
        ("classification", {"scripts": ["latin"]}, r"\['latin'\]. It has .*CJK, LATIN"),
        ("matching", {}, "must have one task"),
    ],
)
def test_errors(task, settings, message):
    with pytest.raises(ValueError, match=message):
        V.compress(tiny.shared(task), SOME, **settings)
