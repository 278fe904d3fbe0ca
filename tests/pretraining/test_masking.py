import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.pretraining.masking import (
    begin_rate,
    draw_lengths,
    each_piece,
    each_word,
    length_probabilities,
    mask_words,
)
from tests.bert import tiny

TOKENIZER = tiny.tokenizer()
MASK = TOKENIZER.ids["[MASK]"]


def batch(texts, words):
    data = Dataset("prose", "unlabelled", (), Split(texts, [0] * len(texts)))
    return next(iter(data.batches("train", TOKENIZER, len(texts), 16, words=words)))


def masks(texts, share=0.15, times=400, whole=False):
    """Ids, shown ids and targets of many draws."""
    inputs, words = batch(texts, whole)
    words = words if whole else each_piece(inputs, TOKENIZER)
    drawn = [mask_words(inputs, words, TOKENIZER, (1, step), share) for step in range(times)]
    return (
        inputs["input_word_ids"].numpy(),
        np.stack([shown["input_word_ids"] for shown, _ in drawn]),
        np.stack([targets for _, targets in drawn]),
        words.numpy(),
    )


def test_shares_of_what_is_drawn():
    ids, shown, targets, words = masks(tiny.TEXTS, times=2000)
    chosen = targets >= 0
    n = (words >= 0).sum() * 2000
    assert abs(chosen.sum() / n - 0.15) < 4 * (0.15 * 0.85 / n) ** 0.5
    total = chosen.sum()
    for share, found in ((0.8, (shown == MASK) & chosen), (0.1, (shown == ids[None]) & chosen)):
        extra = 1 / len(TOKENIZER.vocab)  # a random piece may happen to be the same one, or [MASK]
        assert (
            abs(found.sum() / total - share)
            < 4 * (share * (1 - share) / total) ** 0.5 + 0.1 * extra
        )
    assert np.array_equal(targets[chosen], np.broadcast_to(ids, targets.shape)[chosen])
    assert np.array_equal(shown[~chosen], np.broadcast_to(ids, shown.shape)[~chosen])


def test_special_pieces_and_padding_are_never_drawn():
    ids, shown, targets, _ = masks(tiny.TEXTS, share=1.0, times=3)
    special = np.isin(ids, [TOKENIZER.ids[piece] for piece in ("[CLS]", "[SEP]", "[PAD]")])
    assert (targets[:, special] == -1).all() and (targets[:, ~special] >= 0).all()
    assert (shown[:, special] == ids[special]).all()


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("unbelievable cats", [-1, 0, 0, 0, 1, 1, -1]),  # un ##believ ##able | dog
        ("the cat!", [-1, 0, 1, 2, -1]),  # punctuation is a word of its own
        ("我 听 音乐", [-1, 0, 1, 2, 2, -1]),  # cut into words by spaces
        ("我听音乐你好", [-1, 0, 1, 2, 3, 4, 5, -1]),
    ],
)  # a longer run is text that nobody cut
def test_word_numbers(text, numbers):
    text = text.replace("cats", "dogs")
    _, words = batch([text], True)
    assert words.numpy()[0].tolist()[: len(numbers)] == numbers


def test_whole_words_are_drawn_as_a_whole():
    _, _, targets, words = masks(["unbelievable dogs sat", "我 听 音乐"], whole=True)
    for row in range(2):
        for word in range(words[row].max() + 1):
            inside = targets[:, row, words[row] == word] >= 0
            assert (inside.all(-1) | ~inside.any(-1)).all() and 0 < inside.any(-1).mean() < 0.4


def test_a_draw_is_a_function_of_its_seed():
    inputs, _ = batch(tiny.TEXTS, False)
    words = each_piece(inputs, TOKENIZER)
    a, b, c = (
        mask_words(inputs, words, TOKENIZER, tf.constant(seed, tf.int32), 0.5)[1].numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_lengths_of_ngrams():
    np.testing.assert_allclose(length_probabilities(3), [6 / 11, 3 / 11, 2 / 11])
    lengths = draw_lengths(tf.random.stateless_uniform((20_000,), (1, 2)), 3).numpy()
    for length, p in zip((1, 2, 3), (6 / 11, 3 / 11, 2 / 11)):
        assert abs((lengths == length).mean() - p) < 4 * (p * (1 - p) / 20_000) ** 0.5
    assert set(
        draw_lengths(tf.constant([0.0, 0.5454, 0.5456, 0.8181, 0.8183, 0.9999]), 3).numpy()
    ) == {1, 2, 3}


def test_ngrams_mask_as_many_words_in_longer_runs():
    assert begin_rate(0.15, 1) == 0.15
    inputs = {
        "input_word_ids": tf.fill((64, 102), TOKENIZER.ids["cat"]),
        "input_mask": tf.ones((64, 102), tf.int32),
    }
    words = each_piece(inputs, TOKENIZER)
    runs = {}
    for ngram in (1, 3):
        chosen = np.concatenate(
            [
                mask_words(inputs, words, TOKENIZER, (3, k), ngram=ngram)[1].numpy() >= 0
                for k in range(20)
            ]
        )[:, 2:]  # where an n-gram may have begun before
        n = chosen.size
        assert abs(chosen.mean() - 0.15) < 4 * (3 * 0.15 * 0.85 / n) ** 0.5  # a run is drawn as one
        runs[ngram] = (chosen[:, 1:] & chosen[:, :-1]).sum() / chosen[:, :-1].sum()
    # The next word is masked, too: 15 % of the time if words are drawn alone; far more often in n-grams.
    assert abs(runs[1] - 0.15) < 0.01 and runs[3] > 0.35


def test_each_word():
    inputs, _ = batch(["unbelievable dogs sat", "the cat!"], False)
    numbers = each_word(inputs, TOKENIZER).numpy()
    assert numbers[0].tolist()[:8] == [-1, 1, 1, 1, 2, 2, 3, -1] and numbers[1].tolist()[:5] == [
        -1,
        1,
        2,
        3,
        -1,
    ]
    targets = np.stack(
        [mask_words(inputs, numbers, TOKENIZER, (1, k), 0.3, ngram=2)[1] for k in range(100)]
    )[:, 0]
    whole = targets >= 0
    assert (
        (whole[:, 1] == whole[:, 2]).all()
        and (whole[:, 2] == whole[:, 3]).all()
        and 0 < whole[:, 1].mean() < 1
    )
