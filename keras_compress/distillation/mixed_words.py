"""Two vocabularies at once: WordPiece learned on any text, and texts whose words are cut with the one or the other.

Equation map (Zhao et al., 2019, arXiv:1909.11687)
    student vocabulary     WordPiece of a given size on the teacher's corpus           learn_wordpiece
    longest match first    the teacher's pieces that spell a piece of the student's    spell
    dual training          each word: the student's pieces with probability p_DT       mix
    MLM on mixed words     a masked piece is predicted in its own vocabulary           mask_mixed
Departures
    [CLS] and [SEP] are words, too: at p_DT = 1 all ids are the student's, at 0 the teacher's.
    A text that is too long after mixing loses its end (or beginning, as the teacher's tokenizer says); of a pair the
    tokenizer alone would cut the longer text.
"""

import logging
from collections import Counter

from tokenizers import Tokenizer as Engine
from tokenizers import models, normalizers, pre_tokenizers, trainers

from keras_compress.backend import tf
from keras_compress.bert.tokenizer import Tokenizer, clean
from keras_compress.bert.tokenizer_kinds import BERT_PIECES
from keras_compress.pretraining.masking import each_piece, mask_words
from keras_compress.training.loop import stream

UNCUT = 2**20  # pieces: texts are cut after mixing

log = logging.getLogger(__name__)


def learn_wordpiece(texts, size, like, min_count=1):
    """A vocabulary of the words of texts, with words cut as another tokenizer cuts them (case, accents, Chinese).

    Args:
        texts: list of str.
        size: number of pieces, special ones included. Words that are used up give fewer, which is logged.
        like: `Tokenizer`; its added words are pieces of the new one, too.
        min_count: characters that occur less often are left out, and words that have them are [UNK].
    Returns:
        `Tokenizer`, the same for the same texts. The log tells the share of unknown words.
    Raises:
        ValueError: if the texts have no words, or more characters than `size` can hold.
    """
    engine = Engine(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=like.split_chinese,
        strip_accents=like.strip_accents,
        lowercase=like.lowercase,
    )
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts, words, counts = [clean(text) for text in texts], Counter(), Counter()
    for text in texts:
        normal = engine.normalizer.normalize_str(text)
        words.update(word for word, _ in engine.pre_tokenizer.pre_tokenize_str(normal))
    for word, count in words.items():
        counts.update(dict.fromkeys(word, 0))
        for character in word:
            counts[character] += count
    known = sorted(c for c, count in counts.items() if count >= min_count)
    if not known:
        raise ValueError(
            f"A vocabulary is learned from words, of characters that occur {min_count} times or more. Received: "
            f"{len(texts)} texts with {len(words)} different words. Give a corpus with text, or lower `min_count`."
        )
    inside = sorted({c for word in words for c in word[1:]}.intersection(known))
    added = [word["content"] for word in like.added]
    # The trainer would number these in another order each time, and so break ties among merges differently.
    spelling = [*dict.fromkeys([*BERT_PIECES, *added, *known, *(f"##{c}" for c in inside)])]
    if size < len(spelling):
        raise ValueError(
            f"The vocabulary must hold {len(spelling)} pieces or more: {len(known)} characters, {len(inside)} of them "
            f"inside of words, too, and {len(spelling) - len(known) - len(inside)} special ones. Received: {size}. Raise "
            f"`vocab_size`, or `min_count` ({min_count}), so that rarer characters are unknown."
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=spelling, limit_alphabet=len(known), show_progress=False
    )
    engine.train_from_iterator(texts, trainer)
    ids = engine.get_vocab(with_added_tokens=False)
    unknown = sum(count for word, count in words.items() if {*word}.difference(known))
    log.info(
        "%d pieces (of %d wanted) learned from %d texts, %d different words; %.2f %% of their words are unknown",
        len(ids),
        size,
        len(texts),
        len(words),
        100 * unknown / words.total(),
    )
    return Tokenizer(sorted(ids, key=ids.get), like.lowercase, **like.switches())


def spell(piece, ids):
    """The ids of the pieces that spell a piece: longest match first, as WordPiece cuts words; [UNK] if none do."""
    if piece in ids:
        return [ids[piece]]
    found, rest, mark = [], piece.removeprefix("##"), "##" if piece.startswith("##") else ""
    while rest:
        length = next((n for n in range(len(rest), 0, -1) if mark + rest[:n] in ids), 0)
        if not length:
            return [ids["[UNK]"]]
        found.append(ids[mark + rest[:length]])
        rest, mark = rest[length:], "##"
    return found


def mix(theirs, ours, tokenizers, picked, max_length):
    """Texts whose words are cut with the student's vocabulary where they are picked, with the teacher's elsewhere.

    Args:
        theirs, ours: dicts of int32 (batch, seq), the same texts in both vocabularies, uncut.
        tokenizers: of the teacher and of the student.
        picked: bool (batch, words or more).
    Returns:
        dict of int32 (batch, seq): the usual inputs; `source`, 0 where an id is the teacher's, 1 where it is the
        student's; `words`, the number of the word that a piece belongs to, -1 at padding.
    """
    parts = []
    for source, (inputs, tokenizer) in enumerate(zip((theirs, ours), tokenizers)):
        begins = tf.constant([not piece.startswith("##") for piece in tokenizer.vocab], tf.int32)
        ids, mask = inputs["input_word_ids"], inputs["input_mask"]
        words = tf.cumsum(tf.gather(begins, ids) * mask, axis=1) - 1  # (batch, seq)
        kept = (mask > 0) & (tf.gather(picked, words, batch_dims=1) == bool(source))
        order = tf.where(kept, words, words.dtype.max)
        parts.append((order, ids, inputs["input_type_ids"], tf.fill(tf.shape(ids), source)))
    order, *values = (tf.concat(pair, axis=1) for pair in zip(*parts))
    kept = tf.reduce_sum(tf.cast(order < order.dtype.max, tf.int32), axis=1, keepdims=True)
    length = tf.minimum(kept, max_length)  # (batch, 1)
    place = tf.range(tf.reduce_max(length))[None]
    mask = tf.cast(place < length, tf.int32)  # (batch, seq)
    if tokenizers[0].truncation_side == "left":
        place += tf.where(place > 0, kept - length, 0)
    else:  # the last piece stays
        place += tf.where(place == length - 1, kept - length, 0)
    place = tf.minimum(place, kept - 1)
    # words in their order, pieces of a word in theirs
    place = tf.gather(tf.argsort(order, axis=1, stable=True), place, batch_dims=1)
    words, ids, types, source = (tf.gather(x, place, batch_dims=1) for x in (order, *values))
    return {
        "input_word_ids": tf.where(mask > 0, ids, tokenizers[0].pad_id),
        "input_mask": mask,
        "input_type_ids": types * mask,
        "source": source * mask,
        "words": tf.where(mask > 0, words, -1),
    }


def mixed_stream(dataset, tokenizers, training, seed, share):
    """(first, last) -> tf.data of (mixed inputs, labels, the teacher's inputs); see `loop.stream`.

    `share`: p_DT, the chance that a word is cut with the student's vocabulary, drawn anew in each batch.
    """
    uncut = training.replace(max_length=UNCUT)

    def mixed(step, batch):
        (theirs, labels), (ours, _) = batch
        shape, seeds = tf.shape(theirs["input_word_ids"]), tf.stack([seed, -1 - step])
        picked = tf.random.stateless_uniform(shape, seeds) < share
        both = [
            mix(theirs, ours, tokenizers, words, training.max_length)
            for words in (picked, tf.zeros_like(picked))
        ]
        return both[0], labels, both[1]

    def batches(first, last):
        cut = [
            stream(dataset, each, uncut, seed, first, last, order_by=tokenizers[1])
            for each in tokenizers
        ]
        return tf.data.Dataset.zip(tuple(cut)).enumerate(first).map(mixed)

    return batches


def mask_mixed(inputs, tokenizers, seed, share):
    """Hides words of mixed texts, each by [MASK] or a random piece of its own vocabulary; see `mask_words`.

    Returns:
        the inputs with changed `input_word_ids` and with `targets`, int32 (batch, seq), -1 where nothing was drawn.
    """
    targets = []
    for source, tokenizer in enumerate(tokenizers):
        free = (inputs["source"] == source) & (each_piece(inputs, tokenizer) >= 0)
        words = tf.where(free, inputs["words"], -1)
        inputs, drawn = mask_words(inputs, words, tokenizer, seed, share)
        targets.append(drawn)
    return {**inputs, "targets": tf.maximum(*targets)}
