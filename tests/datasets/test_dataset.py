"""Batches: order, padding, labels; a small tokenizer with the real one's interface counts characters as pieces."""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest

from keras_compress.datasets.dataset import Dataset, Split, batch_order
from keras_compress.training.settings import Training
from tests.bert import tiny


class Encoding(NamedTuple):
    ids: list
    type_ids: list
    word_starts: list = None
    truncated: bool = False


class Letters:
    """Every character is a piece, 1 = [CLS], 2 = [SEP]; counts how often it is asked."""

    pad_id, calls, cut_part = 0, 0, "beginnings"

    def encode(self, texts, max_length):
        self.calls += 1
        rows = [[text] if isinstance(text, str) else text for text in texts]
        rows = [
            ([1] + [ord(c) for c in row[0]] + [2], [ord(c) for c in "".join(row[1:])])
            for row in rows
        ]
        return [
            Encoding(
                (a + b)[:max_length],
                ([0] * len(a) + [1] * len(b))[:max_length],
                truncated=len(a + b) > max_length,
            )
            for a, b in rows
        ]

    def encode_words(self, texts, max_length):
        found = []
        for text, row in zip(
            texts, self.encode([text.replace(" ", "") for text in texts], max_length)
        ):
            starts = np.cumsum([1] + [len(word) for word in text.split(" ")])[:-1]
            found.append(
                row._replace(word_starts=[s if s < max_length else -1 for s in starts.tolist()])
            )
        return found


def words(number, seed=0):
    random = np.random.default_rng(seed)
    return Split(
        ["x" * n for n in random.integers(1, 40, number)], random.integers(0, 3, number).tolist()
    )


def make(split, task="classification"):
    return Dataset("made", task, ("a", "b", "c"), split, Split(["abc", "d"], [2, 0]))


def collect(data):
    return [
        ({name: value.numpy() for name, value in inputs.items()}, labels.numpy())
        for inputs, labels in data
    ]


def test_evaluation_batches_by_hand():
    ((inputs, labels),) = collect(make(words(4)).batches("dev", Letters(), 8, 16))
    # "abc" is [CLS] a b c [SEP]: 5 pieces, padded to 8, the next multiple of 4
    assert inputs["input_word_ids"].tolist() == [
        [1, 97, 98, 99, 2, 0, 0, 0],
        [1, 100, 2, 0, 0, 0, 0, 0],
    ]
    assert inputs["input_mask"].tolist() == [[1] * 5 + [0] * 3, [1] * 3 + [0] * 5]
    assert not inputs["input_type_ids"].any() and labels.tolist() == [2, 0]
    assert {value.dtype for value in [*inputs.values(), labels]} == {np.dtype("int32")}


def test_element_spec_leaves_batch_and_length_open():
    inputs, labels = make(words(40)).batches("train", Letters(), 8, 64).element_spec
    assert {spec.shape.rank for spec in inputs.values()} == {2} and labels.shape.rank == 1
    assert all(size is None for spec in [*inputs.values(), labels] for size in spec.shape)


def test_pairs_get_type_ids():
    data = make(Split([("ab", "c")], [1]), "matching")
    ((inputs, labels),) = collect(data.batches("train", Letters(), 2, 16))
    assert inputs["input_type_ids"].tolist() == [[0, 0, 0, 0, 1, 0, 0, 0]] and labels.tolist() == [
        1
    ]


def test_tagging_labels_fall_on_the_first_piece_only():
    data = make(Split(["ab c def", "a"], [[1, 0, 2], [2]]), "tagging")
    with pytest.warns(UserWarning, match="1 of 2 train .* 4 pieces; their beginnings are cut"):
        ((_, short),) = collect(data.batches("train", Letters(), 2, 4))
    ((_, labels),) = collect(data.batches("train", Letters(), 2, 16))
    assert labels.tolist() == [[-1, 1, -1, 0, 2, -1, -1, -1], [-1, 2, -1, -1, -1, -1, -1, -1]]
    assert short.tolist() == [[-1, 1, -1, 0], [-1, 2, -1, -1]]  # the third word was cut off


@pytest.mark.parametrize("number", [1, 8, 9, 700])
def test_shuffled_batches_hold_every_text_once(number):
    lengths = np.random.default_rng(0).integers(1, 40, number)
    batches = batch_order(lengths, 8, shuffle_seed=3)
    assert len(batches) == -(-number // 8)
    assert sorted(np.concatenate(batches).tolist()) == list(range(number))
    assert make(words(number)).batches("train", Letters(), 8, 64).cardinality() == len(batches)


def test_the_order_is_a_function_of_the_seed_and_can_be_resumed():
    data = make(words(700))
    whole = collect(data.batches("train", Letters(), 8, 64, shuffle_seed=5))
    again = collect(data.batches("train", Letters(), 8, 64, shuffle_seed=5, first=30, last=33))
    other = collect(data.batches("train", Letters(), 8, 64, shuffle_seed=6))
    for (inputs, labels), (same_inputs, same_labels) in zip(whole[30:33], again, strict=True):
        np.testing.assert_array_equal(inputs["input_word_ids"], same_inputs["input_word_ids"])
        np.testing.assert_array_equal(labels, same_labels)
    assert [x["input_mask"].sum() for x, _ in whole] != [x["input_mask"].sum() for x, _ in other]
    assert collect(data.batches("train", Letters(), 8, 64, shuffle_seed=5, first=88)) == []


def test_bucketing_saves_padding():
    lengths = np.random.default_rng(0).integers(3, 60, 2000)

    def padded(batches):
        return sum(len(batch) * lengths[batch].max() for batch in batches)

    assert (
        padded(batch_order(lengths, 16, shuffle_seed=0))
        < 1.1 * lengths.sum()
        < 1.5 * lengths.sum()
        < padded(batch_order(lengths, 16))
    )


def test_two_vocabularies_see_the_same_texts_when_they_share_the_order():
    class Halves(Letters):
        def encode(self, texts, max_length):
            return super().encode([text[::2] for text in texts], max_length)

    data, teacher, student = make(words(200)), Letters(), Halves()
    first = collect(data.batches("train", teacher, 8, 64, shuffle_seed=1))
    second = collect(data.batches("train", student, 8, 64, shuffle_seed=1, order_by=teacher))
    for (a, labels_a), (b, labels_b) in zip(first, second, strict=True):
        np.testing.assert_array_equal(labels_a, labels_b)
        np.testing.assert_array_equal(
            (a["input_mask"].sum(-1) - 1) // 2, b["input_mask"].sum(-1) - 2
        )


def test_later_epochs_do_not_tokenise_again():
    data, tokenizer = make(words(50)), Letters()
    for seed in range(3):
        collect(data.batches("train", tokenizer, 8, 64, shuffle_seed=seed))
    assert tokenizer.calls == 1


def test_subset_is_nested_and_summary_hashes_the_content():
    data = make(words(100))
    small, large = data.subset(10), data.subset(30)
    assert len(small.train.texts) == 10 and set(small.train.texts) <= set(large.train.texts)
    assert small.dev == data.dev and data.subset(1000).train == data.train
    assert data.summary() == make(words(100)).summary() != make(words(100, seed=1)).summary()
    assert data.summary()["train"] == 100 and data.summary()["test"] == 0


def test_a_split_that_is_not_there():
    with pytest.raises(ValueError, match="`split` must be.*Received: 'test'"):
        make(words(4)).batches("test", Letters(), 8, 16)


def test_check_splits():
    split = Split(["a", "b"], [0, 1])
    whole = Dataset("d", "classification", ("x", "y"), split, split, split)
    whole.check_splits("train", "dev", "test")
    dataclasses.replace(whole, test=None).check_splits("train", "dev")
    with pytest.raises(
        ValueError,
        match="the splits train, test. Received: d, classification, with train, dev. Add",
    ):
        dataclasses.replace(whole, test=None).check_splits("train", "test")
    with pytest.raises(ValueError, match="Received: d, unlabelled"):
        Dataset("d", "unlabelled", (), split).check_splits("train")


def test_training_on_unknown_words_is_refused_above_a_limit():
    split = Split(["cat"] * 4 + [f"zebra{k} " for k in range(6)], [0] * 10)
    data = Dataset("zoo", "classification", ("a", "b"), split, split)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="At most 50% .* Received: 60%"):
        data.check_unknown(tiny.tokenizer(), Training(max_length=16))
    with pytest.warns(UserWarning):
        data.check_unknown(tiny.tokenizer(), Training(max_length=16, max_unknown=0.6))


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_many_texts_are_encoded_as_few(task, monkeypatch):
    texts = ["the cat", "a", "un cafe sat on", "我 你"] * 3
    labels = [[0] * len(text.split()) for text in texts] if task == "tagging" else [0] * 12
    data = lambda: Dataset("x", task, tiny.LABELS[task], Split(texts, labels))
    whole = data()._encode("train", tiny.tokenizer(), 16, words=task == "tagging")
    monkeypatch.setattr("keras_compress.datasets.dataset.CHUNK", 5)
    monkeypatch.setattr("keras_compress.bert.tokenizer.CHUNK", 2)
    again = data()._encode("train", tiny.tokenizer(), 16, words=task == "tagging")
    for a, b in zip(whole, again):
        assert a.dtype == b.dtype == "int32"
        a, b = (x.to_list() if hasattr(x, "to_list") else x.numpy().tolist() for x in (a, b))
        assert a == b
