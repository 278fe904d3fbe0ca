"""Two vocabularies at once: WordPiece learned on any text, and texts whose words are cut with the one or the other.

Equation map (Zhao et al., 2019, arXiv:1909.11687)
    student vocabulary     WordPiece of a given size, learned on a corpus               learn_wordpiece
    longest match first    the teacher's pieces that spell a piece of the student's     spelled_rows
    dual training          each word: the student's pieces with probability p_DT        mix, mixed_stream
    two tables             an id is looked up in the table of its vocabulary            dual_model
    two softmaxes          a masked piece is predicted in the vocabulary of its word    mask_mixed, dual_model
Departures
    [CLS] and [SEP] are words, too: at p_DT = 1 all ids are the student's, at 0 the teacher's.
    A text that is too long after mixing loses its end, whatever a tokenizer alone would cut off.
    Table 2 and its biases start from the means of the teacher's pieces that spell a piece.
"""

import logging
from collections import Counter

import numpy as np
from tokenizers import Tokenizer as Engine
from tokenizers import models, trainers

from keras_compress.backend import keras, tf
from keras_compress.bert.encoder import BLOCKS, INPUT_NAMES, LayerStore, make_inputs, mlm_head
from keras_compress.bert.layers import Bias, WordEmbedding
from keras_compress.bert.tokenizer import Tokenizer
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
        like: `Tokenizer`, whose added words are pieces, too; they are not counted.
        min_count: characters that occur less often are left out; words that have them are [UNK].
    Returns:
        `Tokenizer`, the same for the same texts.
    Raises:
        ValueError: if there are no words, or more characters than `size` can hold.
    """
    words = Counter(word for text in texts for word in like.words(text))
    counts = Counter("".join(words.elements()))
    known = sorted(c for c, count in counts.items() if count >= min_count)
    inside = {c for word in words for c in word[1:]}
    # The trainer alone would number these differently each time, and so break ties among merges differently.
    least = [*BERT_PIECES, *known, *(f"##{c}" for c in known if c in inside)]
    if not known or size < len(least):
        raise ValueError(
            "A vocabulary must be learned on texts with words, and hold all their characters. Received: "
            f"{len(words)} different words; {len(known)} characters, with ## forms and special pieces {len(least)} "
            f"pieces, and `vocab_size` {size}. Give text, raise `vocab_size`, or raise `min_count` ({min_count}): rarer "
            "characters become unknown."
        )
    engine = Engine(models.WordPiece(unk_token="[UNK]"))
    settings = {"limit_alphabet": len(known), "show_progress": False}
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=least, **settings)
    engine.train_from_iterator(words.elements(), trainer)
    ids = engine.get_vocab()
    log.info("%d pieces (wanted: %d) learned from %d texts", len(ids), size, len(texts))
    return Tokenizer(sorted(ids, key=ids.get), like.lowercase, **like.switches())


def spelled_rows(rows, teacher, student):
    """For each of the student's pieces the mean row of the teacher's pieces that spell it. (V_T, ..) -> (V_S, ..).

    Longest match first, as WordPiece cuts words; [UNK] if none do. `teacher`, `student`: `Tokenizer`s.
    """
    spell = models.WordPiece(teacher.ids, unk_token="[UNK]").tokenize
    ids = [[token.id for token in spell(piece)] for piece in student.vocab]
    return np.stack([rows[each].mean(axis=0) for each in ids])


def mix(theirs, ours, tokenizers, picked, max_length):
    """Texts whose words are cut with the student's vocabulary where they are picked, with the teacher's elsewhere.

    Args:
        theirs, ours: dicts of int32 (batch, seq), the same texts in both vocabularies, uncut.
        tokenizers: of the teacher and of the student. picked: bool (batch, words or more).
    Returns:
        (inputs, words), int32 (batch, seq) each: the usual inputs and `source`, 0 where an id is the teacher's, 1 where
        it is the student's; the number of the word that a piece belongs to, -1 at padding.
    """
    parts, left_out = [], tf.int32.max
    for source, (inputs, tokenizer) in enumerate(zip((theirs, ours), tokenizers)):
        ids, mask, types = (inputs[name] for name in INPUT_NAMES)
        begins = tf.constant([not piece.startswith("##") for piece in tokenizer.vocab], tf.int32)
        words = tf.cumsum(tf.gather(begins, ids) * mask, axis=1) - 1  # (batch, seq)
        kept = (mask > 0) & (tf.gather(picked, words, batch_dims=1) == bool(source))
        words, sources = tf.where(kept, words, left_out), tf.fill(tf.shape(ids), source)
        parts.append(tf.stack([words, ids, types, sources], axis=-1))
    pieces = tf.concat(parts, axis=1)  # (batch, theirs and ours, 4)
    # words in their order, the pieces of a word in theirs; what is left out last
    order = tf.argsort(pieces[..., 0], axis=1, stable=True)
    kept = tf.math.count_nonzero(pieces[..., 0] < left_out, 1, keepdims=True, dtype=tf.int32)
    length = tf.minimum(kept, max_length)  # (batch, 1)
    place = tf.range(tf.reduce_max(length))[
        None
    ]  # (1, seq); of a text that is cut [SEP] stays the last
    order = tf.gather(order, tf.where(place < length - 1, place, kept - 1), batch_dims=1)
    words, ids, types, source = tf.unstack(tf.gather(pieces, order, batch_dims=1), axis=-1)
    mask = tf.cast(place < length, tf.int32)  # (batch, seq)
    ids = tf.where(mask > 0, ids, tokenizers[0].pad_id)
    inputs = dict(zip(INPUT_NAMES, (ids, mask, types * mask))) | {"source": source * mask}
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


def dual_model(teacher, tokenizer):
    """A teacher that reads mixed words, on its own layers and a second table.

    Args:
        teacher: `TaskModel`. tokenizer: the student's.
    Returns:
        (`keras.Model`, table 2). Inputs: the usual ones and `source`. Outputs: {"logits"}; of a masked-LM model,
        which also reads `targets`, -log p of each masked piece in nats, first of the teacher's vocabulary, (pieces,).
    """
    get, weights = LayerStore(teacher.config, existing=teacher.model.layers), teacher.weights()
    rows = lambda name: spelled_rows(weights[name], teacher.tokenizer, tokenizer)
    start = rows("word_embeddings/embeddings")
    table = WordEmbedding(*start.shape, weights=[start], name="word_embeddings_2")
    tables = get["word_embeddings"], table
    source = keras.Input((None,), dtype="int32", name="source")
    inputs, ours = make_inputs() | {"source": source}, tf.equal(source, 1)

    def look_up(x, as_decoder=False):  # (batch, seq) -> (batch, seq, hidden)
        if as_decoder:
            return tables[0](x, as_decoder=True)
        vectors = tables[0](tf.where(ours, 0, x)), tables[1](tf.where(ours, x, 0))
        return tf.where(ours[..., None], vectors[1], vectors[0])

    get["word_embeddings"] = look_up
    outputs = BLOCKS["bert"](get, teacher.task, len(teacher.labels), inputs)
    if teacher.task != "mlm":
        return keras.Model(inputs, {"logits": outputs["logits"]}), table
    targets = inputs["targets"] = keras.Input((None,), dtype="int32", name="targets")
    biases = get["mlm_bias"], Bias(name="mlm_bias_2", weights=[rows("mlm_bias/bias")])
    values = []
    for number in (0, 1):  # two ties, two biases
        get.update(word_embeddings=tables[number], mlm_bias=biases[number])
        masked = tf.logical_and(targets >= 0, tf.equal(source, number))
        scores = mlm_head(get, TakeTokens()(outputs["hidden_states"][-1], masked))
        true = tf.boolean_mask(targets, masked)
        values.append(tf.nn.sparse_softmax_cross_entropy_with_logits(true, scores))
    return keras.Model(inputs, tf.concat(values, axis=0)), table
