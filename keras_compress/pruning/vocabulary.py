"""Vocabulary pruning: drop the word pieces that the data never use. No paper; bert4keras calls it `keep_tokens`.

Rules
    kept: special pieces; single characters (and their ## forms) of the scripts allowed; pieces that occur often
    enough, with their characters, so that whatever is kept can be spelled                           choose_pieces
    the word table keeps the rows of these pieces, the masked-LM bias its numbers                    slice_vocabulary
A text whose pieces are all kept gives the same logits as before, to the last bit: WordPiece takes the longest piece
that fits, and what fitted before still does. Other words fall apart into smaller pieces; single characters stay, so
that hardly anything becomes [UNK]. What that costs depends on how much of the vocabulary the training texts have shown:
on dev (MiniLM, no tuning) SST-2 loses 0.2 points, `assistant`, whose dev has held-out words, 7.2 (data/results). No
rate of [UNK] tells of that, since characters are always there: look at how many texts of dev are cut otherwise.
"""

import logging
import re
import unicodedata

import numpy as np

from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer
from keras_compress.training.loop import Training, check_fit, check_not_quantized, finetune
from keras_compress.training.settings import is_whole

log = logging.getLogger(__name__)


def scripts_of(piece):
    """Names of the scripts of a piece's letters: {"LATIN"}, {"CJK"}, .. (first word of the Unicode name)."""
    return {
        unicodedata.name(c, "?").split(" ")[0].split("-")[0]
        for c in piece.removeprefix("##")
        if c.isalpha()
    }


def choose_pieces(vocab, counts, min_count=1, scripts=None, keep=()):
    """Which pieces stay.

    Args:
        vocab: list of pieces. counts: int (vocabulary,).
        min_count: how often a piece must occur; 0 keeps pieces that never do.
        scripts: names such as ["LATIN"], see `scripts_of`: pieces with letters of others go, unless they occur, and often
            enough, to be one of the data's own. None: no such rule.
        keep: further pieces to keep, such as the words of an application.
    Returns:
        sorted int array of the pieces' ids.
    Raises:
        ValueError: if `scripts` or `keep` names what the vocabulary does not have.
    """
    known = {
        "scripts": {script for piece in vocab for script in scripts_of(piece)},
        "keep": {*vocab},
    }
    for name, value in (("scripts", () if scripts is None else scripts), ("keep", keep)):
        listed = isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
        unknown = [one for one in value if one not in known[name]] if listed else value
        if unknown or not listed:
            some = f" It has {', '.join(sorted(known[name])[:40])}." if name == "scripts" else ""
            raise ValueError(
                f"`{name}` must be a list of {'scripts' if some else 'pieces'} that the vocabulary has. "
                f"Received: {unknown!r}.{some}"
            )
    if not is_whole(min_count, 0):
        raise ValueError(
            f"`min_count` must be a whole number of 0 or more. Received: {min_count!r}."
        )
    always = {*SPECIAL_PIECES, "[MASK]", *keep}

    def stays(piece, count):
        if piece in always or count >= max(min_count, 1):
            return True
        allowed = scripts is None or scripts_of(piece) <= {*scripts}
        return allowed and (len(piece.removeprefix("##")) == 1 or min_count == 0)

    chosen = {piece for piece, count in zip(vocab, counts) if stays(piece, count)}
    chosen |= {form for piece in chosen for c in letters(piece) for form in (c, f"##{c}")}
    return np.array([index for index, piece in enumerate(vocab) if piece in chosen])


def letters(piece):
    """The characters of a piece that is no special one."""
    return "" if re.fullmatch(r"\[.*\]", piece) else piece.removeprefix("##")


def slice_vocabulary(task_model, kept, *, seed=0):
    """The same model on some pieces of its vocabulary.

    Args:
        kept: ids of the pieces, rising.
    Returns:
        `TaskModel` with a tokenizer and a word table of their own.
    Raises:
        ValueError: if a special piece is missing, or a single character of one that is kept, or the order is another.
    """
    whole = task_model.tokenizer.ids
    vocab = [task_model.tokenizer.vocab[index] for index in kept if 0 <= index < len(whole)]
    needed = [*SPECIAL_PIECES, *(["[MASK]"] if task_model.task == "mlm" else [])]
    needed += sorted(
        {form for piece in vocab for c in letters(piece) for form in (c, f"##{c}") if form in whole}
    )
    lost = sorted({*needed} - {*vocab})
    if lost or len(vocab) != len(kept) or list(kept) != sorted({*kept}):
        raise ValueError(
            f"A pruned vocabulary must hold {', '.join(SPECIAL_PIECES)}, the single characters of all "
            f"that it holds, and each piece once, in the old order. Received: {len(kept)} ids of {len(vocab)} "
            f"pieces, missing: {', '.join(lost[:20]) or 'none'}. Choose them with `choose_pieces`."
        )
    weights = task_model.weights()
    for name in ("word_embeddings/embeddings", "mlm_bias/bias"):
        if name in weights:
            weights[name] = weights[name][kept]
    return task_model.rebuilt(
        task_model.config.replace(vocab_size=len(vocab)),
        weights,
        seed=seed,
        tokenizer=Tokenizer(vocab, task_model.tokenizer.lowercase),
    )


def cut_otherwise(before, after, dataset, split="dev"):
    """Share of a split's texts that a pruned tokenizer cuts into other pieces, 0-1."""
    texts = getattr(dataset, split).texts
    pieces = (
        [
            [tokenizer.vocab[index] for index in encoding.ids]
            for encoding in (
                tokenizer.encode_words if dataset.task == "tagging" else tokenizer.encode
            )(texts, 512)
        ]
        for tokenizer in (before, after)
    )
    return float(np.mean([old != new for old, new in zip(*pieces)]))


def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    min_count=1,
    scripts=None,
    keep=(),
    tune=False,
):
    """Drops word pieces that the training texts do not use.

    Args:
        task_model: `TaskModel`; left as it is. dataset: `Dataset` of its task, or unlabelled text like its own: the
            more text, the fewer words that a user needs are lost.
        min_count, scripts, keep: see `choose_pieces`.
        tune: fine-tune afterwards, as `training` says; worth it where frequent pieces went (`min_count` above 1).
    Returns:
        `TaskModel` with a vocabulary of its own; its history tells how many pieces stayed, what share of dev's pieces
        is unknown before and after, and what share of dev's texts is cut into other pieces than before. Without dev it
        is train that is looked at, which flatters; `looked_at` names the split.
    Raises:
        ValueError: if the data are for another task, or a setting is out of range.
    """
    if dataset.task != "unlabelled" or tune:
        check_fit(task_model, dataset)
    check_not_quantized(task_model)
    counts = dataset.piece_counts(task_model.tokenizer)
    kept = choose_pieces(task_model.tokenizer.vocab, counts, min_count, scripts, keep)
    small = slice_vocabulary(task_model, kept, seed=seed)
    split = "dev" if dataset.dev else "train"
    unknown = [dataset.unknown_rate(model.tokenizer, split) for model in (task_model, small)]
    changed = cut_otherwise(task_model.tokenizer, small.tokenizer, dataset, split)
    log.info(
        "vocabulary: %d of %d pieces stay; %s: %.1f %% of the texts are cut otherwise, unknown pieces %.3f %% -> "
        "%.3f %%",
        len(kept),
        len(counts),
        split,
        *(100 * rate for rate in (changed, *unknown)),
    )
    small.history.append(
        {
            "method": "vocabulary",
            "seed": seed,
            "pieces_before": len(counts),
            "pieces": len(kept),
            "min_count": min_count,
            "scripts": scripts and list(scripts),
            "keep": list(keep),
            "looked_at": split,
            "unknown_before": unknown[0],
            "unknown": unknown[1],
            "cut_otherwise": changed,
        }
    )
    return finetune(small, dataset, seed=seed, training=training) if tune else small
