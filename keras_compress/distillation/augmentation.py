"""More training texts by changed words: TinyBERT's data augmentation. Jiao et al., 2020, arXiv:1909.10351, Algorithm 1.

Equation map (p_t = 0.4, N_a = 20, K = 15 in the paper)
    a word of one piece: masked; the K words that the masked-LM finds most probable     Candidates.masked
    a word of several pieces: the K nearest by the cosine of word vectors               Candidates.nearest
    N_a times: each word is replaced by a random candidate with probability p_t         change
Departures
    Candidates are found once per word, as in the authors' code, not anew for every copy. That code shows the model the
    masked text and, as a second segment, the whole text: context="pair". Ours is the paper's, the masked text alone.
    Only alphabetic words that are no stop words change, as in the code; ours change only into alphabetic words.
    A word is not its own candidate; in the paper it may be, so that less changes than p_t says.
    Without a file of vectors, the mean rows of the masked-LM model's word table stand for GloVe.
    The two texts of a pair change independently; in the authors' code one stays changed while the other is.
    A Chinese character is a word, unless the text has spaces between its words.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import re
import sys
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from tqdm import tqdm

from keras_compress.backend import tf
from keras_compress.bert.checkpoints import load_for
from keras_compress.datasets.dataset import Split
from keras_compress.method import check_trained
from keras_compress.pretraining.masked_lm import choosing_model
from keras_compress.pretraining.masking import check_mask_piece

log = logging.getLogger(__name__)
CHUNK, ROWS = 64, 64  # texts whose words are looked up together; masked texts per forward pass
NUM_VECTORS = 100_000
LETTERS = r"[^\W\d_\u4e00-\u9fff]+(?:['’][^\W\d_\u4e00-\u9fff]+)*"  # "don't" is one word, and never changes
WORDS = re.compile(LETTERS + r"|[\u4e00-\u9fff]|\d+|[^\w\s]|_")
WORDS_BETWEEN_SPACES = re.compile(LETTERS + r"|[\u4e00-\u9fff]+|\d+|[^\w\s]|_")
TAGGED = re.compile(r"[^ ]+")
NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")


class Candidates:
    """Finds words that could stand in for those of a text.

    Args:
        mlm: `TaskModel` of task "mlm".
        number: K, candidates per word. context: "single" or "pair" (module docstring).
        vectors: for words of several pieces: {word: vector}, see `read_vectors`; None: the mean of the word table's
            rows of its pieces.
    """

    def __init__(self, mlm, number=15, context="single", vectors=None, max_length=128):
        check_masked_lm(mlm)
        self.tokenizer, self.number, self.context = mlm.tokenizer, number, context
        self.max_length = min(max_length, mlm.config.max_position_embeddings)
        self.mlm, model = mlm, choosing_model(mlm)
        self._top = tf.function(
            lambda inputs: tf.math.top_k(model(inputs, training=False)["logits"], number).indices,
            reduce_retracing=True,
        )
        self.table = mlm.weights()["word_embeddings/embeddings"]
        self.of_pieces = vectors is None
        if vectors is None:
            vectors = {
                piece: self.table[row]
                for row, piece in enumerate(mlm.tokenizer.vocab)
                if piece.isalpha()
            }
        self.words, self.rows = list(vectors), {word: row for row, word in enumerate(vectors)}
        self.vectors = np.stack(
            [vector / max(np.linalg.norm(vector), 1e-12) for vector in vectors.values()]
        )
        self._near = {}

    def __call__(self, texts, pattern=None):
        """For each text its words' [(first, last + 1, [candidates])], where there are any.

        Args:
            pattern: what a word is; default: `WORDS`.
        """
        spans = [_spans(text, pattern) for text in texts]
        words = [
            " ".join(text[first:last] for first, last in row) for text, row in zip(texts, spans)
        ]
        encodings = self.tokenizer.encode_words(words, self.max_length)
        found, asked = [[] for _ in texts], []
        for place, (text, row, encoding) in enumerate(zip(texts, spans, encodings)):
            ends = [start for start in encoding.word_starts if start > 0][1:] + [
                len(encoding.ids) - 1
            ]
            here = iter(ends)
            for (first, last), start in zip(row, encoding.word_starts):
                end = next(here) if start > 0 else -1
                word = text[first:last].lower() if self.tokenizer.lowercase else text[first:last]
                if start < 0 or not word.isalpha() or word.lower() in ENGLISH_STOP_WORDS:
                    continue
                slot = (first, last, [])
                found[place].append(slot)
                if end == start + 1:
                    asked.append((encoding, start, slot[2]))
                else:
                    slot[2].extend(self.nearest(word, encoding.ids[start:end]))
        self.masked(asked)
        return [[slot for slot in row if slot[2]] for row in found]

    def masked(self, asked):
        """Fills the lists in `asked`, [(encoding, place of the piece, list)], with the model's guesses at the mask."""
        asked = sorted(asked, key=lambda one: len(one[0].ids))
        for begin in range(0, len(asked), ROWS):
            rows = asked[begin : begin + ROWS]
            shown = [self._shown(encoding, place) for encoding, place, _ in rows]
            longest = max(len(pair[0].ids) for pair in shown)
            inputs = self.mlm.pad(
                [pair[0] for pair in shown], min(-(-longest // 8) * 8, self.max_length)
            )
            targets = np.full(inputs["input_mask"].shape, -1, np.int32)
            for row, (_, place) in enumerate(shown):
                targets[row, place] = 0
            top = self._top({**inputs, "targets": targets}).numpy()
            for (encoding, place, slot), ids in zip(rows, top):
                words = (
                    self.tokenizer.vocab[index] for index in ids if index != encoding.ids[place]
                )
                slot.extend(word for word in words if word.isalpha())

    def _shown(self, encoding, place):
        ids = list(encoding.ids)
        ids[place] = self.tokenizer.ids["[MASK]"]
        if self.context == "pair":
            again = encoding.ids[1:][: self.max_length - len(ids)]
            return type(encoding)(ids + again, [0] * len(ids) + [1] * len(again), ()), place
        return type(encoding)(ids, encoding.type_ids, ()), place

    def nearest(self, word, ids):
        """The K words whose vectors are nearest to that of a word of several pieces."""
        if word not in self._near:
            self._near[word] = []
            if self.of_pieces or word in self.rows:
                vector = (
                    self.table[ids].mean(axis=0)
                    if self.of_pieces
                    else self.vectors[self.rows[word]]
                )
                order = np.argsort(-(self.vectors @ vector), kind="stable")[: self.number + 1]
                self._near[word] = [
                    self.words[row]
                    for row in order
                    if self.words[row] != word and self.words[row].isalpha()
                ][: self.number]
        return self._near[word]


def check_masked_lm(mlm):
    """Raises ValueError unless a model can fill in words."""
    if mlm.task != "mlm":
        raise ValueError(
            f"Augmentation needs a masked-LM model. Received: a {mlm.task} model. Train its head with "
            "the method masked_lm."
        )
    check_mask_piece(mlm.tokenizer)


def _spans(text, pattern=None):
    if pattern is None:
        pattern = (
            WORDS_BETWEEN_SPACES if re.search("[\u4e00-\u9fff] [\u4e00-\u9fff]", text) else WORDS
        )
    return [match.span() for match in pattern.finditer(text)]


def change(text, candidates, random, chance=0.4):
    """One changed copy of a text: each word with candidates becomes, by chance, one of them."""
    parts, end = [], 0
    for first, last, words in candidates:
        if random.random() < chance:
            word = words[random.integers(len(words))]
            parts += [text[end:first], word.capitalize() if text[first].isupper() else word]
            end = last
    return "".join(parts) + text[end:]


def augment(
    texts,
    mlm,
    *,
    copies=20,
    chance=0.4,
    number=15,
    context="single",
    vectors=None,
    seed=0,
    first=0,
    pattern=None,
):
    """Changed copies of each text, one text after the other.

    Args:
        texts: list of str, or of (str, str).
        mlm: `TaskModel` of task "mlm".
        copies: N_a per text; those that came out equal are dropped. chance: p_t. number: K.
        context, vectors: see `Candidates`.
        seed: every text's copies are a stateless function of it and of the text's place.
        first: go on from this text.
    Yields:
        list of changed texts (the text itself is not among them).
    """
    find = Candidates(mlm, number, context, vectors)
    for begin in range(
        first - first % CHUNK, len(texts), CHUNK
    ):  # the same chunks, wherever it goes on
        chunk = texts[begin : begin + CHUNK]
        fields = [(text,) if isinstance(text, str) else tuple(text) for text in chunk]
        found = iter(find([field for row in fields for field in row], pattern))
        for place, row in enumerate(fields):
            slots, random = [next(found) for _ in row], np.random.default_rng([seed, begin + place])
            drawn = [
                tuple(change(field, slot, random, chance) for field, slot in zip(row, slots))
                for _ in range(copies)
            ]
            new = [one for one in dict.fromkeys(drawn) if one != row]
            if begin + place >= first:
                yield [one[0] if isinstance(chunk[place], str) else one for one in new]


def augmented(dataset, mlm, *, copies=20, folder=None, **settings):
    """The data set with changed copies of its training texts; each copy has its text's label.

    Args:
        mlm: `TaskModel` of task "mlm", or a source of weights. copies: per text. settings: of `augment`.
        folder: keep what is made there, and go on from it after a stop.
    Returns:
        `Dataset`.
    """
    if mlm is None:
        raise ValueError(
            "Augmentation needs a masked-LM model. Received: none. Give `mlm`, made with the method "
            "masked_lm."
        )
    if not hasattr(mlm, "tokenizer"):
        mlm = load_for(mlm, "mlm", ())
    check_trained(mlm)
    check_masked_lm(mlm)
    if isinstance(settings.get("vectors"), (str, Path)):
        settings["vectors"] = read_vectors(settings["vectors"])
    train, made = dataset.train, []
    vectors = settings.get("vectors") or {}
    plain = sorted((key, value) for key, value in settings.items() if key != "vectors")
    made_from = hashlib.sha256(
        repr([dataset.summary()["sha256"], copies, plain, list(vectors)]).encode()
    )
    for array in (*mlm.weights().values(), *vectors.values()):
        made_from.update(np.ascontiguousarray(array).tobytes())
    path = folder and Path(folder) / f"{made_from.hexdigest()[:16]}.jsonl"
    settings["pattern"] = TAGGED if dataset.task == "tagging" else None
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = _read_lines(path)
    bar = tqdm(
        total=len(train.texts),
        initial=len(made),
        desc="augment",
        file=sys.stderr,
        disable=None,
        unit="text",
    )
    with open(path, "a", encoding="utf-8") if path else contextlib.nullcontext() as file:
        for new in augment(train.texts, mlm, copies=copies, first=len(made), **settings):
            if file:
                file.write(json.dumps(new, ensure_ascii=False) + "\n")
            made.append(new)
            bar.update(1)
    bar.close()
    pairs = dataset.task == "matching"
    texts = [
        (tuple(one) if pairs else one, label)
        for text, label, new in zip(train.texts, train.labels, made)
        for one in [text, *new]
    ]
    log.info("augmentation: %d texts, %d with their copies", len(train.texts), len(texts))
    return dataclasses.replace(
        dataset, train=Split([text for text, _ in texts], [label for _, label in texts])
    )


def _read_lines(path):
    """The whole lines of a file that may end in the middle of one; what is cut off there is removed."""
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        path.write_bytes(whole)
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise ValueError(
            f"{path}: a line is damaged ({error}). Remove the file, and it is made anew."
        ) from error


def read_vectors(path, most=NUM_VECTORS):
    """Reads word vectors in GloVe's form: a word and its numbers a line, separated by spaces.

    Args:
        most: rows read; files are sorted by frequency.
    Returns:
        {word: float32 (width,)}.
    Raises:
        ValueError: naming file and line, if it is missing or malformed.
    """
    vectors, width = {}, None
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip()
                    word, *values = (
                        text.rsplit(" ", width) if width else text.split(" ")
                    )  # some words hold spaces
                    if not text or (
                        number == 1 and len(values) == 1 and (word + values[0]).isdigit()
                    ):
                        continue  # word2vec's header: rows and width
                    more = [part for part in word.split(" ")[1:] if NUMBER.fullmatch(part)]
                    vector = np.array(
                        more + values, np.float32
                    )  # a number too many belongs to no word
                except ValueError:  # UnicodeDecodeError is one
                    vector = np.zeros(0)
                width = width or len(vector)
                if not len(vector) or len(vector) != width or not np.isfinite(vector).all():
                    raise ValueError(
                        f"{path}:{number}: a line must hold a word and {width or 'its'} numbers in UTF-8. "
                        f"Received: {line[:60]!r}. Correct or remove it."
                    )
                vectors[word] = vector
                if len(vectors) >= most:
                    break
    except OSError as error:
        raise ValueError(
            f"{path}: word vectors must be a text file ({error.strerror}). Give the path of one, such as "
            "glove.6B.300d.txt, or leave `vectors` out."
        ) from error
    if not vectors:
        raise ValueError(f"{path}: a file of word vectors must have lines. It is empty.")
    return vectors
