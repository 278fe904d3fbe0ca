"""Two vocabularies at once: WordPiece learned on any text, and texts whose words are cut with the one or the other.

Equation map (Zhao et al., 2019, arXiv:1909.11687)
    student vocabulary     WordPiece of a given size, learned on a corpus               learn_wordpiece
    longest match first    the teacher's pieces that spell a piece of the student's     spell
    dual training          each word: the student's pieces with probability p_DT        mix, mixed_stream
    two tables             an id is looked up in the table of its vocabulary            DualEmbedding
    two softmaxes          a masked piece is predicted in the vocabulary of its word    mask_mixed, dual_model
Departures
    [CLS] and [SEP] are words, too: at p_DT = 1 all ids are the student's, at 0 the teacher's.
    A text that is too long after mixing loses its end; of a pair a tokenizer alone would cut the longer text.
    Table 2 and its biases start from the means of the teacher's pieces that spell a piece.
"""

import logging
from collections import Counter

import numpy as np
from tokenizers import Tokenizer as Engine
from tokenizers import models, normalizers, pre_tokenizers, trainers

from keras_compress.backend import keras, tf
from keras_compress.bert.encoder import BLOCKS, INPUT_NAMES, LayerStore, make_inputs, mlm_head
from keras_compress.bert.layers import Bias, WordEmbedding
from keras_compress.bert.tokenizer import Tokenizer, clean
from keras_compress.bert.tokenizer_kinds import BERT_PIECES
from keras_compress.pretraining.masked_lm import TakeTokens
from keras_compress.pretraining.masking import each_piece, mask_words
from keras_compress.training.loop import stream

UNCUT = 2**20  # pieces; texts are cut after mixing

log = logging.getLogger(__name__)


def learn_wordpiece(texts, size, like, min_count=1):
    """A vocabulary learned on texts, whose words are cut as another tokenizer cuts them: case, accents, Chinese.

    Args:
        texts: list of str. size: number of pieces; where words are used up there are fewer, which is logged.
        like: `Tokenizer`, whose added words are pieces, too.
        min_count: characters that occur less often are left out; words that have them are [UNK].
    Returns:
        `Tokenizer`, the same for the same texts. The log tells the share of unknown words.
    Raises:
        ValueError: if there are no words, or more characters than `size` can hold.
    """
    settings = {"handle_chinese_chars": like.split_chinese, "strip_accents": like.strip_accents}
    engine = Engine(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=like.lowercase, **settings)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [engine.normalizer.normalize_str(clean(text)) for text in texts]
    cut = map(engine.pre_tokenizer.pre_tokenize_str, texts)
    words = Counter(word for text in cut for word, _ in text)
    counts = Counter("".join(words.elements()))
    known = sorted(c for c, count in counts.items() if count >= min_count)
    inside = sorted({c for word in words for c in word[1:]}.intersection(known))
    added = [word["content"] for word in like.added]
    # The trainer alone would number these differently each time, and so break ties among merges differently.
    least = [*dict.fromkeys([*BERT_PIECES, *added, *known, *(f"##{c}" for c in inside)])]
    if not known or size < len(least):
        raise ValueError(
            "A vocabulary must be learned on texts with words, and hold all their characters. Received: "
            f"{len(words)} different words; {len(known)} characters, with ## forms and special pieces {len(least)} "
            f"pieces, and `vocab_size` {size}. Give text, raise `vocab_size`, or raise `min_count` ({min_count}): rarer "
            "characters become unknown."
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=least, limit_alphabet=len(known), show_progress=False
    )
    engine.train_from_iterator(texts, trainer)
    ids = engine.get_vocab(with_added_tokens=False)
    unknown = sum(count for word, count in words.items() if {*word}.difference(known))
    form = "%d pieces (wanted: %d) learned from %d texts; %.2f %% of their words are unknown"
    log.info(form, len(ids), size, len(texts), 100 * unknown / words.total())
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


def spelled_rows(rows, teacher, student):
    """For each of the student's pieces the mean row of the teacher's pieces that spell it. (V_T, ..) -> (V_S, ..).

    `teacher`, `student`: `Tokenizer`s.
    """
    return np.stack([rows[spell(piece, teacher.ids)].mean(axis=0) for piece in student.vocab])


def mix(theirs, ours, tokenizers, picked, max_length):
    """Texts whose words are cut with the student's vocabulary where they are picked, with the teacher's elsewhere.

    Args:
        theirs, ours: dicts of int32 (batch, seq), the same texts in both vocabularies, uncut.
        tokenizers: of the teacher and of the student. picked: bool (batch, words or more).
    Returns:
        (inputs, words), int32 (batch, seq) each: the usual inputs and `source`, 0 where an id is the teacher's, 1 where
        it is the student's; the number of the word that a piece belongs to, -1 at padding.
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
    place = tf.range(tf.reduce_max(length))[None]  # (1, seq)
    mask = tf.cast(place < length, tf.int32)  # (batch, seq)
    left = tokenizers[0].truncation_side == "left"
    shifted = place > 0 if left else place == length - 1  # [CLS] and [SEP] stay
    place = tf.minimum(place + tf.where(shifted, kept - length, 0), kept - 1)
    # words in their order, the pieces of a word in theirs
    place = tf.gather(tf.argsort(order, axis=1, stable=True), place, batch_dims=1)
    words, ids, types, source = (tf.gather(x, place, batch_dims=1) for x in (order, *values))
    ids, values = tf.where(mask > 0, ids, tokenizers[0].pad_id), (mask, types * mask)
    inputs = dict(zip(INPUT_NAMES, (ids, *values))) | {"source": source * mask}
    return inputs, tf.where(mask > 0, words, -1)


def mixed_stream(dataset, tokenizers, training, seed, share, masked=False):
    """(first, last) -> tf.data of (mixed inputs, labels, the same texts in the teacher's pieces); see `loop.stream`.

    Args:
        share: p_DT, the chance that a word is cut with the student's vocabulary, drawn anew in each batch.
        masked: whether words of the mixed texts are hidden, see `mask_mixed`.
    """
    uncut = training.replace(max_length=UNCUT)

    def mixed(step, batch):
        (theirs, labels), (ours, _) = batch
        shape, seeds = tf.shape(theirs["input_word_ids"]), tf.stack([seed, -1 - step])
        picked = tf.random.stateless_uniform(shape, seeds) < share
        own, _ = mix(theirs, ours, tokenizers, tf.zeros_like(picked), training.max_length)
        inputs, words = mix(theirs, ours, tokenizers, picked, training.max_length)
        if masked:
            inputs = mask_mixed(inputs, words, tokenizers, [seed, step])
        return inputs, labels, {name: own[name] for name in INPUT_NAMES}

    def batches(*span):
        cut = (stream(dataset, x, uncut, seed, *span, order_by=tokenizers[1]) for x in tokenizers)
        return tf.data.Dataset.zip(tuple(cut)).enumerate(span[0]).map(mixed)

    return batches


def mask_mixed(inputs, words, tokenizers, seed):
    """`mask_words` of what `mix` gives: [MASK] and random pieces are those of a word's own vocabulary."""
    targets = []
    for source, tokenizer in enumerate(tokenizers):
        free = (inputs["source"] == source) & (each_piece(inputs, tokenizer) >= 0)
        inputs, drawn = mask_words(inputs, tf.where(free, words, -1), tokenizer, seed)
        targets.append(drawn)
    return {**inputs, "targets": tf.maximum(*targets)}


class DualEmbedding(keras.layers.Layer):
    """Vectors of mixed words: table 1 where `source` is 0, table 2 where it is 1. (batch, seq) twice -> (batch, seq, hidden)."""

    def __init__(self, tables):
        super().__init__(name="dual_embeddings")
        self.tables = tables

    def call(self, x, as_decoder=False):
        if as_decoder:
            return self.tables[0](x, as_decoder=True)
        ids, source = x
        theirs, ours = (table(tf.where(source == k, ids, 0)) for k, table in enumerate(self.tables))
        return tf.where(source[..., None] == 0, theirs, ours)


def masked_of(source, inputs):
    """Where a masked piece of the teacher's (0) or the student's (1) vocabulary stands: bool (batch, seq)."""
    return tf.logical_and(inputs["targets"] >= 0, tf.equal(inputs["source"], source))


def dual_model(teacher, tokenizer):
    """A teacher that reads mixed words, on its own layers and a second table.

    Args:
        teacher: `TaskModel`. tokenizer: the student's.
    Returns:
        (`keras.Model`, table 2). Inputs: the usual ones and `source`. Outputs: {"logits"}; of a masked-LM model,
        which also reads `targets`, the scores of the `masked_of` each vocabulary, [(pieces, V_T), (pieces, V_S)].
    """
    get, weights = LayerStore(teacher.config, existing=teacher.model.layers), teacher.weights()
    rows = lambda name: spelled_rows(weights[name], teacher.tokenizer, tokenizer)
    start = rows("word_embeddings/embeddings")
    table = WordEmbedding(*start.shape, weights=[start], name="word_embeddings_2")
    tables = get["word_embeddings"], table
    get["word_embeddings"] = DualEmbedding(tables)
    inputs = make_inputs() | {"source": keras.Input((None,), dtype="int32", name="source")}
    mixed = {**inputs, "input_word_ids": [inputs["input_word_ids"], inputs["source"]]}
    outputs = BLOCKS["bert"](get, teacher.task, len(teacher.labels), mixed)
    if teacher.task != "mlm":
        return keras.Model(inputs, {"logits": outputs["logits"]}), table
    inputs["targets"] = keras.Input((None,), dtype="int32", name="targets")
    biases = get["mlm_bias"], Bias(name="mlm_bias_2", weights=[rows("mlm_bias/bias")])
    logits = []
    for source in (0, 1):  # two ties, two biases
        get.update(word_embeddings=tables[source], mlm_bias=biases[source])
        chosen = TakeTokens()(outputs["hidden_states"][-1], masked_of(source, inputs))
        logits.append(mlm_head(get, chosen))
    return keras.Model(inputs, logits), table
