"""Vocabulary pruning: drop the word pieces that the data never use. No paper; bert4keras calls it `keep_tokens`.

Rules
    kept: special pieces; single characters (and their ## forms) of the scripts allowed; pieces that
    occur often enough, with their characters, so that each can be spelled         choose_pieces
    the embedding matrix keeps the rows of these pieces, the masked-LM head its numbers    slice_vocabulary
A text whose pieces are all kept gives the same logits as before, to the last bit. WordPiece takes the
longest piece that fits, and what fitted before still does.
Other words fall apart into smaller pieces. Single characters stay, so hardly anything becomes [UNK].
The cost depends on how much of the vocabulary the training texts have shown. On dev (MiniLM, no
tuning) SST-2 loses 0.2 points; `assistant`, whose dev has held-out words, loses 7.2 (data/results).
The rate of [UNK] does not show that cost; the share of dev's texts that are cut otherwise does.
"""

import logging
import re
import unicodedata

import numpy as np

from keras_compress.bert.encoder import MLM_ROWS
from keras_compress.bert.tokenizer import SPECIAL_PIECES
from keras_compress.method import Whole, check_fit, compression, note
from keras_compress.training.settings import Training

log = logging.getLogger(__name__)


def scripts_of(piece):
    """Names of the scripts of a piece's letters, such as {"LATIN"}: first words of their Unicode names."""
    letters = [c for c in piece.removeprefix("##") if c.isalpha()]
    return {unicodedata.name(c, "?").split(" ")[0].split("-")[0] for c in letters}


def choose_pieces(vocab, counts, min_count=1, scripts=None, keep=()):
    """Which pieces stay.

    Args:
        vocab: list of pieces. counts: int (vocabulary,).
        min_count: how often a piece must occur; 0 keeps pieces that never do.
        scripts: names such as ["LATIN"], see `scripts_of`. Pieces with letters of others go, unless
            they occur often enough. None: no such rule.
        keep: further pieces to keep, such as the words of an application.
    Returns:
        sorted int array of the pieces' ids.
    Raises:
        ValueError: if `scripts` or `keep` names what the vocabulary does not have.
    """
    every = set().union(*map(scripts_of, vocab))
    allowed = every if scripts is None else {*scripts}
    for name, given, known in (("scripts", allowed, every), ("keep", {*keep}, {*vocab})):
        if given - known:
            raise ValueError(
                f"`{name}` must be among what the vocabulary has. Received: {sorted(given - known)}. "
                f"It has {', '.join(sorted(known)[:40])}."
            )
    chosen = {*SPECIAL_PIECES, "[MASK]", *keep}
    for piece, count in zip(vocab, counts):
        spares = min_count == 0 or len(piece.removeprefix("##")) == 1
        if count >= max(min_count, 1) or (spares and scripts_of(piece) <= allowed):
            chosen.add(piece)
    spelled = (piece for piece in chosen if not re.fullmatch(r"\[.*\]", piece))
    letters = {letter for piece in spelled for letter in piece.removeprefix("##")}
    chosen |= letters | {f"##{letter}" for letter in letters}
    return np.array([index for index, piece in enumerate(vocab) if piece in chosen])


def slice_vocabulary(task_model, kept, *, seed=0):
    """The same model on some pieces of its vocabulary.

    Args:
        kept: ids of the pieces, rising, as from `choose_pieces`.
    Returns:
        `TaskModel` with a tokenizer and an embedding matrix of its own.
    """
    weights, tokenizer = task_model.weights(), task_model.tokenizer
    for name in {"word_embeddings/embeddings", *MLM_ROWS} & weights.keys():
        weights[name] = weights[name][kept]
    config = task_model.config.replace(vocab_size=len(kept))
    pieces = tokenizer.with_pieces([tokenizer.vocab[index] for index in kept])
    return task_model.rebuilt(config, weights, tokenizer=pieces, seed=seed)


def cut_otherwise(before, after, texts):
    """Share of texts that a pruned tokenizer cuts into other pieces, 0-1. What is cut at spaces first is cut alike."""

    def pieces(tokenizer):
        encodings = tokenizer.encode(texts, 512)
        return [[tokenizer.vocab[index] for index in encoding.ids] for encoding in encodings]

    return float(np.mean([old != new for old, new in zip(pieces(before), pieces(after))]))


@compression(data="any", trained_head=False, trains=False)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    min_count: Whole = 1,
    scripts: list[str] | None = None,
    keep: list[str] = (),
):
    """Drops word pieces that the training texts do not use.

    Where frequent pieces go (`min_count` above 1), `finetune` afterwards.

    Args:
        dataset: `Dataset` of the model's task, or unlabelled text like its own: the more text, the
            fewer words that a user needs are lost.
        min_count, scripts, keep: see `choose_pieces`.
    Returns:
        `TaskModel` with a vocabulary of its own. Its history tells how many pieces stayed, what share
        of dev's pieces is unknown before and after, and what share of dev's texts is cut into other
        pieces. Without dev train is looked at, which flatters; `looked_at` names the split.
    """
    if dataset.task != "unlabelled":
        check_fit(task_model, dataset)
    counts = dataset.piece_counts(task_model.tokenizer)
    # Added words stay: without one, a text that holds it would fall apart.
    keep = [*keep, *(word["content"] for word in task_model.tokenizer.added)]
    kept = choose_pieces(task_model.tokenizer.vocab, counts, min_count, scripts, keep)
    small = slice_vocabulary(task_model, kept, seed=seed)
    before, after, split = task_model.tokenizer, small.tokenizer, "dev" if dataset.dev else "train"
    facts = {
        "pieces_before": len(counts),
        "pieces": len(kept),
        "looked_at": split,
        "unknown_before": dataset.unknown_rate(before, split),
        "unknown": dataset.unknown_rate(after, split),
        "cut_otherwise": cut_otherwise(before, after, getattr(dataset, split).texts),
    }
    note(**facts)
    log.info("vocabulary: %s", facts)
    return small
