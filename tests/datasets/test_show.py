"""What `data show` counts, by hand."""

import pytest

from keras_compress.bert.tokenizer import Tokenizer
from keras_compress.datasets import show
from keras_compress.datasets.dataset import Dataset, Split

TOKENIZER = Tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "sat", ".", "我"])


def test_figures_by_hand():
    train = Split(["the cats sat", "the cat", "the cat", "zebra sat", "我爱cat."], [0, 0, 1, 1, 0])
    data = Dataset(
        "toy", "classification", ("a", "b", "c"), train, Split(["the cat", "sat"], [2, 1])
    )
    figures = show.facts(data, TOKENIZER)
    assert figures["classes"]["a"] == {"train": 3, "dev": 0}
    assert figures["classes"]["c"] == {"train": 0, "dev": 1}
    assert figures["classes_without_training"] == ["c"]
    # with [CLS] and [SEP]: 6, 4, 4, 4, 6
    assert figures["pieces"]["train"] == {"median": 4, "p95": 6, "longest": 6}
    # of 3 + 2 + 2 + 2 + 4 + 2 + 1 words "zebra" and 爱 are unknown
    assert figures["unknown_words"] == {"share": pytest.approx(2 / 16), "examples": ["zebra", "爱"]}
    assert figures["repeated"] == {"train": 1, "dev": 0} and figures["also_in_train"] == {"dev": 1}
    assert figures["contradictory"] == 1  # "the cat" is a, b and c
    text = "\n".join(show.in_words(figures, "toy-bert"))
    for line in (
        "  a: 3 in train, 0 in dev",
        "classes without a training text: c",
        "  train: median 4, 95 % up to 6, longest 6",
        "words unknown to toy-bert: 12.50%, such as zebra 爱",
        "texts that occur twice: 1 in train, 0 in dev",
        "texts with different labels: 1",
    ):
        assert line in text


def test_tags_are_counted_by_word_and_pairs_are_two_texts():
    tagged = Dataset("t", "tagging", ("O", "X"), Split(["the cats", "sat"], [[0, 1], [0]]))
    figures = show.facts(tagged, TOKENIZER)
    assert figures["classes"]["O"] == {"train": 2} and figures["also_in_train"] == {}
    assert figures["pieces"]["train"]["longest"] == 5
    pairs = Dataset(
        "p", "matching", ("no", "yes"), Split([("the cat", "sat"), ("x", "sat")], [0, 1])
    )
    figures = show.facts(pairs, TOKENIZER)
    assert figures["pieces"]["train"]["longest"] == 6
    assert figures["unknown_words"] == {"share": 0.2, "examples": ["x"]}


def test_unlabelled_text_has_no_classes():
    data = Dataset("u", "unlabelled", (), Split(["the cat", "the cat"], [0, 1]))
    figures = show.facts(data, TOKENIZER)
    assert (figures["classes"], figures["contradictory"], figures["repeated"]) == (
        {},
        0,
        {"train": 1},
    )
    assert "classes" not in show.in_words(figures, "toy")[0]


def test_many_classes_are_cut():
    labels = tuple(map(str, range(50)))
    data = Dataset("m", "classification", labels, Split(["the"] * 50, list(range(50))))
    assert "  ... and 10 more" in show.in_words(show.facts(data, TOKENIZER), "toy")
