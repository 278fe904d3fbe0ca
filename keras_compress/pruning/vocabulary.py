"""Vocabulary pruning: drop the word pieces that the data never use. No paper; bert4keras calls it `keep_tokens`.

Rules
    kept: special pieces; single characters (and their ## forms); pieces that occur often enough     choose_pieces
    the word table keeps the rows of these pieces, the masked-LM bias its numbers                    slice_vocabulary
A text whose pieces are all kept gives the same logits as before, to the last bit: WordPiece takes the longest piece
that fits, and what fitted before still does. Other words fall apart into smaller pieces; single characters stay, so
that hardly anything becomes [UNK]. What that costs depends on how much of the vocabulary the training texts have shown:
on dev (MiniLM, no tuning) SST-2 loses 0.2 points, `assistant`, whose dev has held-out words, 7.2 (data/results).
"""
import logging
import unicodedata

import numpy as np

from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer
from keras_compress.training import Training, check_fit, finetune

log = logging.getLogger(__name__)


def piece_counts(tokenizer, dataset, splits=("train",), max_length=512):
    """How often each piece occurs in the texts: int64 (vocabulary,)."""
    counts = np.zeros(len(tokenizer.vocab), np.int64)
    encode = tokenizer.encode_words if dataset.task == "tagging" else tokenizer.encode
    for split in splits:
        for encoding in encode(getattr(dataset, split).texts, max_length):
            np.add.at(counts, encoding.ids, 1)
    return counts


def scripts_of(piece):
    """Names of the scripts of a piece's letters: {"LATIN"}, {"CJK"}, .. (first word of the Unicode name)."""
    return {unicodedata.name(c, "?").split(" ")[0].split("-")[0] for c in piece.removeprefix("##") if c.isalpha()}


def choose_pieces(vocab, counts, min_count=1, scripts=None, characters=True, keep=()):
    """Which pieces stay.

    Args:
        vocab: list of pieces. counts: int (vocabulary,).
        min_count: how often a piece must occur; 0 keeps pieces that never do.
        scripts: names such as ("LATIN",): pieces with letters of others go, unless they occur often enough to be one of
            the data's own. None: no such rule.
        characters: keep all single characters of the allowed scripts, so that every word can still be spelled.
        keep: further pieces to keep, such as the words of an application.
    Returns:
        sorted int array of the pieces' ids.
    Raises:
        ValueError: if a special piece would go, or `keep` names a piece that the vocabulary does not have.
    """
    missing = sorted({*keep} - {*vocab})
    if min_count < 0 or missing:
        raise ValueError("`min_count` must be 0 or more, `keep` pieces of the vocabulary. "
                         f"Received: {min_count}, and unknown: {', '.join(missing[:10]) or 'none'}.")
    always = {*SPECIAL_PIECES, "[MASK]", *keep}

    def stays(piece, count):
        if piece in always or (min_count and count >= min_count):
            return True
        if scripts is not None and not scripts_of(piece) <= {*scripts}:
            return False
        return (characters and len(piece.removeprefix("##")) == 1) or count >= min_count
    return np.array([index for index, (piece, count) in enumerate(zip(vocab, counts)) if stays(piece, count)])


def slice_vocabulary(task_model, kept, *, seed=0):
    """The same model on some pieces of its vocabulary.

    Args:
        kept: ids of the pieces, rising.
    Returns:
        `TaskModel` with a tokenizer and a word table of their own.
    Raises:
        ValueError: if a special piece is missing.
    """
    vocab = [task_model.tokenizer.vocab[index] for index in kept]
    lost = [piece for piece in SPECIAL_PIECES if piece not in vocab]
    if lost:
        raise ValueError(f"A pruned vocabulary must hold {', '.join(SPECIAL_PIECES)}. Missing: {', '.join(lost)}. "
                         "Keep them.")
    weights = task_model.weights()
    for name in ("word_embeddings/embeddings", "mlm_bias/bias"):
        if name in weights:
            weights[name] = weights[name][kept]
    return task_model.rebuilt(task_model.config.replace(vocab_size=len(vocab)), weights, seed=seed,
                              tokenizer=Tokenizer(vocab, task_model.tokenizer.lowercase))


def unknown_rate(tokenizer, dataset, split="dev", max_length=512):
    """Share of a split's pieces that are [UNK], 0-1."""
    counts = piece_counts(tokenizer, dataset, (split,), max_length)
    special = [tokenizer.ids[piece] for piece in ("[PAD]", "[CLS]", "[SEP]")]
    total = counts.sum() - counts[special].sum()
    return float(counts[tokenizer.ids["[UNK]"]] / max(total, 1))


def compress(task_model, dataset, *, seed=0, training=Training(), min_count=1, scripts=None, characters=True, keep=(),
             tune=False):
    """Drops word pieces that the training texts do not use.

    Args:
        task_model: `TaskModel`; left as it is. dataset: `Dataset` of its task, or any unlabelled text like its own.
        min_count, scripts, characters, keep: see `choose_pieces`.
        tune: fine-tune afterwards, as `training` says; worth it where frequent pieces went (`min_count` above 1).
    Returns:
        `TaskModel` with a vocabulary of its own; its history tells how many pieces stayed, and how many of dev's pieces
        are unknown before and after.
    Raises:
        ValueError: if the data are for another task, or a setting is out of range.
    """
    if dataset.task != "unlabelled":
        check_fit(task_model, dataset)
    counts = piece_counts(task_model.tokenizer, dataset)
    kept = choose_pieces(task_model.tokenizer.vocab, counts, min_count, scripts, characters, keep)
    small = slice_vocabulary(task_model, kept, seed=seed)
    split = "dev" if dataset.dev else "train"
    unknown = [unknown_rate(model.tokenizer, dataset, split) for model in (task_model, small)]
    log.info("vocabulary: %d of %d pieces stay; unknown pieces in %s: %.3f %% -> %.3f %%", len(kept), len(counts),
             split, *(100 * rate for rate in unknown))
    small.history.append({"method": "vocabulary", "seed": seed, "pieces_before": len(counts), "pieces": len(kept),
                          "min_count": min_count, "scripts": scripts and list(scripts), "characters": characters,
                          "keep": list(keep), "unknown_before": unknown[0], "unknown": unknown[1]})
    return finetune(small, dataset, seed=seed, training=training) if tune else small
