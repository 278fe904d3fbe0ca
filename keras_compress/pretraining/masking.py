"""Masked words for the masked-LM task. Devlin et al., 2019, Sec. 3.1, Task 1; n-grams: Lan et al., 2020 (ALBERT).

Equation map
    15 % of the words; of these 80 % [MASK], 10 % a random piece, 10 % unchanged     mask_words
    P(n) = (1 / n) / sum_{k=1..N} 1 / k, n words in a row                            length_probabilities
Departures
    Each word is drawn on its own, so that a text has 15 % masked words on average; the authors draw
    exactly 15 %.
    Drawn anew in every epoch (as RoBERTa does), not ten times beforehand. No limit of 20 pieces per text.
    N-grams may overlap, and reach from one segment into the next. They begin so often that 15 % of the
    words are masked all the same.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from keras_compress.backend import tf

MaskShare = Annotated[float, Field(gt=0, lt=1)]
MASKED, RANDOM = 0.8, 0.1


def mask_words(inputs, words, tokenizer, seed, share=0.15, ngram=1):
    """Hides words.

    Args:
        inputs: dict of int32 (batch, seq), as from `Dataset.batches`.
        words: int32 (batch, seq): the number of the word that each piece belongs to (a word is drawn
            as a whole), or -1 where nothing may be masked. `each_piece` makes every piece a word.
        tokenizer: its vocabulary must have [MASK].
        seed: two integers: the draw is a stateless function of them.
        share: chance of a word. ngram: N, most words in a row that are drawn together.
    Returns:
        (inputs with changed `input_word_ids` and with `targets`, targets): int32 (batch, seq), the true
        id where a piece was drawn, -1 elsewhere.
    """
    ids = inputs["input_word_ids"]
    seed = tf.stack([tf.cast(number, tf.int64) for number in seed])
    draw = tf.random.stateless_uniform((3 + (ngram > 1), *tf.unstack(tf.shape(ids))), seed)
    hit = begins = draw[0] < begin_rate(share, ngram)  # (batch, seq): column k is word number k
    if ngram > 1:
        lengths = draw_lengths(draw[3], ngram)
        for distance in range(1, ngram):  # words that an n-gram begun earlier reaches
            reaches = begins & (lengths > distance)
            hit |= tf.pad(reaches, [[0, 0], [distance, 0]])[:, : tf.shape(ids)[1]]
    chosen = tf.gather(hit, tf.maximum(words, 0), batch_dims=1) & (words >= 0)
    random_ids = tf.cast(draw[2] * len(tokenizer.vocab), ids.dtype)
    changed = tf.where(draw[1] < MASKED + RANDOM, random_ids, ids)
    changed = tf.where(draw[1] < MASKED, tokenizer.ids["[MASK]"], changed)
    shown, targets = tf.where(chosen, changed, ids), tf.where(chosen, ids, -1)
    return {**inputs, "input_word_ids": shown, "targets": targets}, targets


def length_probabilities(ngram):
    """P(n) for n = 1 .. N: float (N,)."""
    weights = 1 / np.arange(1, ngram + 1)
    return weights / weights.sum()


def draw_lengths(uniform, ngram):
    """Lengths of n-grams from uniform numbers. float (..) in [0, 1) -> int32 (..), 1 to N."""
    limits = np.cumsum(length_probabilities(ngram)).tolist()
    return 1 + sum(tf.cast(uniform >= limit, tf.int32) for limit in limits[:-1])


def begin_rate(share, ngram):
    """Chance that an n-gram begins at a word, so that a word is masked with chance `share`."""
    longer = 1 - np.cumsum([0, *length_probabilities(ngram)[:-1]])  # P(n > k), k = 0 .. N - 1
    rates = np.linspace(0, share, 100_001)
    masked = 1 - np.prod([1 - rates * chance for chance in longer], axis=0)
    return float(rates[min(np.searchsorted(masked, share), len(rates) - 1)])


def each_word(inputs, tokenizer):
    """The number of the word that each piece is part of; ## pieces go on with a word. Special pieces: -1."""
    goes_on = tf.constant([piece.startswith("##") for piece in tokenizer.vocab])
    begins = ~tf.gather(goes_on, inputs["input_word_ids"])
    numbers = tf.cumsum(tf.cast(begins, tf.int32), axis=1) - 1
    return tf.where(each_piece(inputs, tokenizer) < 0, -1, numbers)


def each_piece(inputs, tokenizer):
    """Every piece as a word of its own; [CLS], [SEP] and padding as -1. int32 (batch, seq)."""
    ids, special = inputs["input_word_ids"], inputs["input_mask"] == 0
    for piece in ("[CLS]", "[SEP]"):
        special |= ids == tokenizer.ids[piece]
    return tf.where(special, -1, tf.range(tf.shape(ids)[1])[None])
