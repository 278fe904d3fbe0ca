"""Which tags mark entities, and which entities they mark."""

import pytest

from keras_compress.measure.tagging import entities, entity_counts, marks_entities, word_counts


@pytest.mark.parametrize(
    "tags, expected",
    [
        ("O B-X I-X O", {("X", 1, 3)}),
        ("B-X B-X", {("X", 0, 1), ("X", 1, 2)}),
        ("I-X I-X", {("X", 0, 2)}),  # conlleval: I without B starts an entity
        ("B-X I-Y I-Y", {("X", 0, 1), ("Y", 1, 3)}),  # and so does I of another type
        ("O I-X O I-X", {("X", 1, 2), ("X", 3, 4)}),
        ("B-X I-X E-X S-X", {("X", 0, 3), ("X", 3, 4)}),  # BIOES
        ("B-X E-X I-X", {("X", 0, 2), ("X", 2, 3)}),  # nothing goes on after an end
        ("S-X I-X", {("X", 0, 1), ("X", 1, 2)}),
        ("B-X M-X E-X U-X L-X", {("X", 0, 3), ("X", 3, 4), ("X", 4, 5)}),  # BMES, BILOU
        ("B_X I_X", {("X", 0, 2)}),
        ("B I O B", {(None, 0, 2), (None, 3, 4)}),  # one type
        ("O PER PER LOC", {("PER", 1, 3), ("LOC", 3, 4)}),  # IO without a prefix
        ("B-X X I-X [SEP]", {("X", 0, 1), ("X", 2, 3)}),  # classes of BERT-NER for what is no word
        ("O O", set()),
        ("", set()),
    ],
)
def test_entities_follow_conlleval(tags, expected):
    assert entities(tags.split()) == expected


@pytest.mark.parametrize(
    "tags",
    ["O B-X I-X", "O I-X", "B I O", "B M E S", "O PER LOC", "B-X I-X", "O B-X X [CLS] [SEP]"],
)
def test_schemes_mark_entities(tags):
    assert marks_entities(tags.split())


@pytest.mark.parametrize(
    "tags", ["DET NOUN", "n v a", "N O V E S", "PER-B PER-I O", "0 1 2", "NOUN X"]
)
def test_other_tags_mark_none(tags):
    assert not marks_entities(tags.split())


def test_counts_of_a_sentence_by_hand():
    gold, predicted = ["B-X", "E-X", "S-Y"], ["B-X", "E-X", "O"]
    assert entity_counts(gold, predicted) == [1, 1, 2]
    assert word_counts(gold, predicted) == [2, 3, 3]
