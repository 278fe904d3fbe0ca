"""More training texts by changed words: TinyBERT's data augmentation. Jiao et al., 2020, arXiv:1909.10351, Algorithm 1.

Equation map (p_t = 0.4, N_a = 20, K = 15 in the paper)
    a word of one piece: masked; the K words that the masked-LM finds most probable    Candidates.masked
    a word of several pieces: the K nearest by the cosine of word vectors              Candidates.nearest
    N_a times: each word is replaced by a random candidate with probability p_t        change
Departures
    Candidates are computed once per word, as in the authors' code, not anew for every copy. The model sees
    the masked text alone, as in the paper; in that code the whole text follows as a second segment.
    Only alphabetic words that are no stop words change, as in the code; they change only into alphabetic
    words. The stop words are the authors' (stop_words.txt).
    A word is not its own candidate; in the paper and for words of one piece in the code it is, so that
    less changes than p_t says. Texts keep their case and spaces; the code joins lower-case tokens.
    Without a file of vectors, mean rows of the masked-LM model's embedding matrix stand for GloVe.
    The two texts of a pair change independently; in the authors' code the first stays changed while the
    second is.
    A Chinese character is a word, unless the text has spaces between its words.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import re
from itertools import chain, takewhile
from pathlib import Path
from zlib import crc32

import numpy as np
from safetensors.numpy import save
from tqdm import tqdm

from keras_compress.backend import tf
from keras_compress.datasets.dataset import Split
from keras_compress.method import check_trained
from keras_compress.pretraining.masked_lm import choosing_model

log = logging.getLogger(__name__)
TEXTS_AT_ONCE = ROWS_AT_ONCE = 64  # whose words are looked up together; of a forward pass
NUM_VECTORS = 100_000
CHINESE = "\u4e00-\u9fff"
LETTERS = rf"[^\W\d_{CHINESE}]+"
STOP_WORDS = frozenset(
    re.sub("#.*", "", Path(__file__).with_name("stop_words.txt").read_text("utf-8")).split()
)


class Candidates:
    """Words that could stand in for those of a text.

    Args:
        mlm: `TaskModel` of task "mlm".
        number: K, candidates per word.
        vectors: for words of several pieces: {word: vector}, see `read_vectors`; None: the mean of the
            embedding matrix's rows of its pieces.
    """

    def __init__(self, mlm, number=15, vectors=None, max_length=128):
        if mlm is None or mlm.task != "mlm":
            raise ValueError(
                f"Augmentation needs a masked-LM model. Received: {mlm and f'a {mlm.task} model'}. Give "
                "`mlm`, made with the method masked_lm."
            )
        check_trained(mlm)
        self.mlm, self.tokenizer, self.number = mlm, mlm.tokenizer, number
        self.max_length = min(max_length, mlm.config.max_position_embeddings)
        scores = choosing_model(mlm)
        self._top = tf.function(
            lambda inputs: tf.math.top_k(scores(inputs, training=False)["logits"], number).indices,
            reduce_retracing=True,
        )
        if vectors is None:
            table = mlm.weights()["word_embeddings/embeddings"]
            pieces = enumerate(self.tokenizer.vocab)
            vectors = {piece: table[row] for row, piece in pieces if piece.isalpha()}
            self._vector = lambda word, ids: table[list(ids)].mean(axis=0)
        else:
            self._vector = lambda word, ids: vectors.get(word)
        self.words, rows = list(vectors), np.stack([*vectors.values()])
        self.rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        self.nearest = functools.cache(self.nearest)

    def __call__(self, texts):
        """For each text its words' [(first, last + 1, [candidates])], where there are any."""
        spans = [spans_of(text) for text in texts]
        words = [" ".join(text[a:b] for a, b in row) for text, row in zip(texts, spans)]
        encodings = self.tokenizer.encode_words(words, self.max_length)
        slots, to_mask = [], []
        for text, row, encoding in zip(texts, spans, encodings):
            slots.append([])
            for (first, last), start in zip(row, encoding.word_starts):
                word = text[first:last].lower() if self.tokenizer.lowercase else text[first:last]
                if start < 0 or not word.isalpha() or word.lower() in STOP_WORDS:
                    continue
                ends = *encoding.word_starts, len(encoding.ids) - 1
                ids = encoding.ids[start : min(end for end in ends if end > start)]
                found = self.nearest(word, tuple(ids)) if len(ids) > 1 else []
                slots[-1].append((first, last, found))
                if len(ids) == 1:
                    to_mask.append((encoding, start, found))
        self.masked(to_mask)
        return [[slot for slot in row if slot[2]] for row in slots]

    def masked(self, to_mask):
        """Fills the lists in `to_mask`, [(encoding, position of the piece, list)], with the model's guesses."""
        to_mask = sorted(to_mask, key=lambda row: len(row[0].ids))
        for begin in range(0, len(to_mask), ROWS_AT_ONCE):
            encodings, positions, found = zip(*to_mask[begin : begin + ROWS_AT_ONCE])
            longest = -(-len(encodings[-1].ids) // 8) * 8
            inputs = self.mlm.pad(encodings, min(longest, self.max_length))
            pieces, places = inputs["input_word_ids"], (range(len(positions)), positions)
            inputs["targets"] = np.full_like(pieces, -1)
            true = inputs["targets"][places] = pieces[places]
            pieces[places] = self.tokenizer.ids["[MASK]"]
            for words, ids, own in zip(found, self._top(inputs).numpy(), true):
                guesses = (self.tokenizer.vocab[i] for i in ids if i != own)
                words.extend(filter(str.isalpha, guesses))

    def nearest(self, word, ids):
        """The K words whose vectors are nearest to that of a word of several pieces."""
        vector = self._vector(word, ids)
        if vector is None:
            return []
        order = np.argsort(-(self.rows @ vector), kind="stable")[: self.number + 1]
        near = [self.words[row] for row in order if self.words[row] != word]
        return list(filter(str.isalpha, near))[: self.number]


def spans_of(text):
    """[(first, last + 1)] of a text's words; "don't" is one, and never changes."""
    spaced = "+" if re.search(f"[{CHINESE}] [{CHINESE}]", text) else ""
    word = rf"{LETTERS}(?:['’]{LETTERS})*|[{CHINESE}]{spaced}|\d+|\S"
    return [match.span() for match in re.finditer(word, text)]


def change(text, candidates, random, chance=0.4):
    """One changed copy of a text: each word with candidates becomes, by chance, one of them."""
    parts, end = [], 0
    for first, last, words in candidates:
        if random.random() < chance:
            word = words[random.integers(len(words))]
            parts += [text[end:first], word.capitalize() if text[first].isupper() else word]
            end = last
    return "".join(parts) + text[end:]


def augment(texts, candidates, *, copies=20, chance=0.4, seed=0, first=0):
    """Changed copies of each text, text after text.

    Args:
        texts: list of str, or of (str, str).
        candidates: `Candidates`. copies: N_a per text; those that came out equal are dropped. chance: p_t.
        seed: every text's copies are a stateless function of it and of the text's position.
        first: go on from this text.
    Yields:
        list of changed texts (the text itself is not among them).
    """
    # The same groups after a stop
    for begin in range(first - first % TEXTS_AT_ONCE, len(texts), TEXTS_AT_ONCE):
        group = texts[begin : begin + TEXTS_AT_ONCE]
        fields = [(text,) if isinstance(text, str) else tuple(text) for text in group]
        slots = iter(candidates([*chain(*fields)]))
        for index, row in enumerate(fields, start=begin):
            here, random = [next(slots) for _ in row], np.random.default_rng([seed, index])
            if index < first:
                continue
            drawn = [
                tuple(change(field, slot, random, chance) for field, slot in zip(row, here))
                for _ in range(copies)
            ]
            new = [copy for copy in dict.fromkeys(drawn) if copy != row]
            yield new if len(row) > 1 else [*chain(*new)]


def augmented(dataset, mlm, *, copies=20, vectors=None, folder=None, **settings):
    """The data set with changed copies of its training texts; each copy has its text's label.

    Args:
        mlm: `TaskModel` of task "mlm". copies: per text.
        vectors: {word: vector}, or the path of a file, see `read_vectors`. settings: of `augment`.
        folder: keep what is made there, and go on from it after a stop.
    Returns:
        `Dataset`.
    """
    if isinstance(vectors, str):
        vectors = read_vectors(vectors)
    candidates, train, made = Candidates(mlm, vectors=vectors), dataset.train, []
    path, settings["copies"] = os.devnull, copies
    if folder:
        said = repr([dataset.summary()["sha256"], sorted(settings.items()), list(vectors or ())])
        made_from = hashlib.sha256(said.encode() + save(mlm.weights()) + candidates.rows.tobytes())
        path = Path(folder, f"{made_from.hexdigest()[:16]}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        whole = [*takewhile(_is_whole, path.read_bytes().splitlines(keepends=True))]
        os.truncate(path, sum(map(len, whole)))  # the rest is made anew
        made = [json.loads(line.partition(b"\t")[0]) for line in whole]
    more = augment(train.texts, candidates, first=len(made), **settings)
    told = {"total": len(train.texts), "initial": len(made), "desc": "augment", "unit": "text"}
    with open(path, "a", encoding="utf-8") as file:
        for new in tqdm(more, disable=None, **told):
            line = json.dumps(new, ensure_ascii=False)
            file.write(f"{line}\t{crc32(line.encode()):08x}\n")
            made.append(new)
    row = tuple if dataset.pairs else str
    texts, labels = [], []
    for text, label, new in zip(*train, made):
        texts += map(row, (text, *new))
        labels += [label] * (1 + len(new))
    log.info("augmentation: %d texts, %d with their copies", len(train.texts), len(texts))
    return dataclasses.replace(dataset, train=Split(texts, labels))


def _is_whole(line):
    """Whether a line is as it was written: a stop may have cut it off, or a disk damaged it."""
    text, _, check = line.rpartition(b"\t")
    return check == b"%08x\n" % crc32(text) if text else check.endswith(b"]\n")


def read_vectors(path):
    """Reads word vectors in GloVe's form: a word and its numbers a line, separated by spaces; the first 100,000.

    Returns:
        {word: float32 (width,)}.
    Raises:
        ValueError: naming file and line, if it is malformed.
    """
    vectors, width = {}, None
    number = r" -?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
    row = re.compile(rf"([^\udc80-\udcff]+?)((?:{number})+)\s*")  # words of GloVe hold spaces
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for place, line in enumerate(file, 1):
            if not line.strip() or (place == 1 and re.fullmatch(r"\d+ \d+\s*", line)):
                continue  # word2vec's header: rows and width
            match = row.fullmatch(line)
            values = match[2].split() if match else []
            width = width or len(values)
            if not values or len(values) != width:
                raise ValueError(
                    f"{path}:{place}: a line must hold a word and {width or 'its'} numbers in UTF-8. "
                    f"Received: {line[:60]!r}. Correct or remove it."
                )
            vectors[match[1]] = np.array(values, np.float32)
            if len(vectors) == NUM_VECTORS:
                break
    if not vectors:
        raise ValueError(f"{path}: a file of word vectors must have lines. It is empty.")
    return vectors
