"""Masked words for the masked-LM task. Devlin et al., 2019, Sec. 3.1, Task 1.

Equation map
    15 % of the words; of these 80 % [MASK], 10 % a random piece, 10 % unchanged     mask_words
Departures
    Each word is drawn on its own, so that a text has 15 % masked words on average; the authors draw exactly 15 %.
    Drawn anew in every epoch (as RoBERTa does), not ten times beforehand.
"""
from keras_compress.backend import tf

MASKED, RANDOM = 0.8, 0.1


def mask_words(inputs, words, tokenizer, seed, share=0.15):
    """Hides words.

    Args:
        inputs: dict of int32 (batch, seq), as from `Dataset.batches`.
        words: int32 (batch, seq): the number of the word that each piece belongs to (a word is drawn as a whole), or -1
            where nothing may be masked. `each_piece` makes every piece a word.
        tokenizer: its vocabulary must have [MASK].
        seed: two ints, or an int32 tensor of two: the draw is a stateless function of it.
        share: chance of a word.
    Returns:
        (inputs with changed `input_word_ids`, targets): targets int32 (batch, seq), the true id where one was drawn,
        -1 elsewhere.
    """
    ids = inputs["input_word_ids"]
    draw = tf.random.stateless_uniform((3, *tf.unstack(tf.shape(ids))), seed)
    chosen = (tf.gather(draw[0], tf.maximum(words, 0), batch_dims=1) < share) & (words >= 0)
    random_ids = tf.cast(draw[2] * len(tokenizer.vocab), ids.dtype)
    changed = tf.where(draw[1] < MASKED, tokenizer.ids["[MASK]"],
                       tf.where(draw[1] < MASKED + RANDOM, random_ids, ids))
    return {**inputs, "input_word_ids": tf.where(chosen, changed, ids)}, tf.where(chosen, ids, -1)


def each_piece(inputs, tokenizer):
    """Every piece as a word of its own; [CLS], [SEP] and padding as -1. int32 (batch, seq)."""
    ids = inputs["input_word_ids"]
    special = (ids == tokenizer.ids["[CLS]"]) | (ids == tokenizer.ids["[SEP]"]) | (inputs["input_mask"] == 0)
    return tf.where(special, -1, tf.range(tf.shape(ids)[1])[None])


def check_mask_piece(tokenizer):
    """Raises ValueError unless the vocabulary has [MASK]."""
    if "[MASK]" not in tokenizer.ids:
        raise ValueError("Masked-LM needs the piece [MASK] in the vocabulary. It is missing: take the vocab.txt of a "
                         "BERT.")
