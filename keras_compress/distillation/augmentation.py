"""More training texts by changed words: TinyBERT's data augmentation. Jiao et al., 2020, arXiv:1909.10351, Algorithm 1.

Equation map (p_t = 0.4, N_a = 20, K = 15 in the paper)
    a word of one piece: masked; the K words that the masked-LM finds most probable    Candidates.masked
    a word of several pieces: the K nearest by the cosine of word vectors              Candidates.nearest
    N_a times: each word is replaced by a random candidate with probability p_t        change
Departures
    Candidates are computed once per word, as in the authors' code, not anew for every copy. That code shows
    the model the masked text and, as a second segment, the whole text: context="pair". The default is
    the paper's, the masked text alone.
    Only alphabetic words that are no stop words change, as in the code; they change only into alphabetic
    words. The stop words are the authors' (stop_words.txt).
    A word is not its own candidate; in the paper and for words of one piece in the code it is, so that
    less changes than p_t says. Texts keep their case and spaces; the code joins lower-case tokens.
    Without a file of vectors, mean rows of the masked-LM model's embedding matrix stand for GloVe.
    The two texts of a pair change independently; in the authors' code the first stays changed while the
    second is.
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
from tqdm import tqdm

from keras_compress.backend import tf
from keras_compress.bert.task_model import TaskModel
from keras_compress.datasets.dataset import Split
from keras_compress.method import check_trained
from keras_compress.pretraining.masked_lm import choosing_model
from keras_compress.pretraining.masking import check_mask_piece

log = logging.getLogger(__name__)
TEXTS_AT_ONCE, ROWS_AT_ONCE = (
    64,
    64,
)  # texts whose words are looked up together; rows per forward pass
NUM_VECTORS = 100_000
LETTERS = r"[^\W\d_\u4e00-\u9fff]+(?:['’][^\W\d_\u4e00-\u9fff]+)*"  # "don't" is one word, and never changes
WORDS = re.compile(LETTERS + r"|[\u4e00-\u9fff]|\d+|[^\w\s]|_")
WORDS_BETWEEN_SPACES = re.compile(LETTERS + r"|[\u4e00-\u9fff]+|\d+|[^\w\s]|_")
TAGGED = re.compile(r"[^ ]+")
STOP_WORDS = frozenset(
    word
    for line in Path(__file__).with_name("stop_words.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for word in line.split()
)


class Candidates:
    """Words that could stand in for those of a text.

    Args:
        mlm: `TaskModel` of task "mlm".
        number: K, candidates per word. context: "single" or "pair" (module docstring).
        vectors: for words of several pieces: {word: vector}, see `read_vectors`; None: the mean of the
            embedding matrix's rows of its pieces.
    """

    def __init__(self, mlm, number=15, context="single", vectors=None, max_length=128):
        check_masked_lm(mlm)
        self.mlm, self.tokenizer, self.number, self.context = mlm, mlm.tokenizer, number, context
        self.max_length = min(max_length, mlm.config.max_position_embeddings)
        scores = choosing_model(mlm)
        self._top = tf.function(
            lambda inputs: tf.math.top_k(scores(inputs, training=False)["logits"], number).indices,
            reduce_retracing=True,
        )
        self.table = mlm.weights()["word_embeddings/embeddings"]
        self.of_pieces = vectors is None
        if self.of_pieces:
            pieces = enumerate(self.tokenizer.vocab)
            vectors = {piece: self.table[row] for row, piece in pieces if piece.isalpha()}
        self.words, self.rows = list(vectors), {word: row for row, word in enumerate(vectors)}
        self.vectors = np.stack([v / max(np.linalg.norm(v), 1e-12) for v in vectors.values()])
        self._near = {}

    def __call__(self, texts, pattern=None):
        """For each text its words' [(first, last + 1, [candidates])], where there are any.

        Args:
            pattern: what a word is; default: `WORDS`.
        """
        spans = [_spans(text, pattern) for text in texts]
        words = [" ".join(text[a:b] for a, b in row) for text, row in zip(texts, spans)]
        slots, to_mask = [[] for _ in texts], []
        encodings = self.tokenizer.encode_words(words, self.max_length)
        for slots_here, text, row, encoding in zip(slots, texts, spans, encodings):
            starts = [start for start in encoding.word_starts if start > 0]
            ends = dict(zip(starts, [*starts[1:], len(encoding.ids) - 1]))
            for (first, last), start in zip(row, encoding.word_starts):
                word = text[first:last].lower() if self.tokenizer.lowercase else text[first:last]
                if start < 0 or not word.isalpha() or word.lower() in STOP_WORDS:
                    continue
                slots_here.append((first, last, []))
                if ends[start] == start + 1:
                    to_mask.append((encoding, start, slots_here[-1][2]))
                else:
                    slots_here[-1][2].extend(self.nearest(word, encoding.ids[start : ends[start]]))
        self.masked(to_mask)
        return [[slot for slot in row if slot[2]] for row in slots]

    def masked(self, to_mask):
        """Fills the lists in `to_mask`, [(encoding, position of the piece, list)], with the model's guesses."""
        to_mask = sorted(to_mask, key=lambda row: len(row[0].ids))
        for begin in range(0, len(to_mask), ROWS_AT_ONCE):
            rows = to_mask[begin : begin + ROWS_AT_ONCE]
            shown = [self._shown(encoding, position) for encoding, position, _ in rows]
            longest = max(len(encoding.ids) for encoding in shown)
            inputs = self.mlm.pad(shown, min(-(-longest // 8) * 8, self.max_length))
            targets = np.full(inputs["input_mask"].shape, -1, np.int32)
            targets[range(len(rows)), [position for _, position, _ in rows]] = 0
            top = self._top({**inputs, "targets": targets}).numpy()
            for (encoding, position, slot), ids in zip(rows, top):
                words = (self.tokenizer.vocab[i] for i in ids if i != encoding.ids[position])
                slot.extend(word for word in words if word.isalpha())

    def _shown(self, encoding, position):
        ids, type_ids = list(encoding.ids), list(encoding.type_ids)
        ids[position] = self.tokenizer.ids["[MASK]"]
        if self.context == "pair":
            again = encoding.ids[1:][: self.max_length - len(ids)]
            ids, type_ids = ids + again, [0] * len(ids) + [1] * len(again)
        return type(encoding)(ids, type_ids, ())

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
                near = [self.words[row] for row in order if self.words[row] != word]
                self._near[word] = [near_word for near_word in near if near_word.isalpha()][
                    : self.number
                ]
        return self._near[word]


def check_masked_lm(mlm):
    """Raises ValueError unless a model can fill in words."""
    if mlm is None or mlm.task != "mlm":
        raise ValueError(
            f"Augmentation needs a masked-LM model. Received: {mlm and f'a {mlm.task} model'}. Give `mlm`, "
            "made with the method masked_lm."
        )
    check_trained(mlm)
    check_mask_piece(mlm.tokenizer)


def _spans(text, pattern=None):
    if pattern is None:
        spaced = re.search("[\u4e00-\u9fff] [\u4e00-\u9fff]", text)
        pattern = WORDS_BETWEEN_SPACES if spaced else WORDS
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
    """Changed copies of each text, text after text.

    Args:
        texts: list of str, or of (str, str).
        mlm: `TaskModel` of task "mlm".
        copies: N_a per text; those that came out equal are dropped. chance: p_t. number: K.
        context, vectors: see `Candidates`.
        seed: every text's copies are a stateless function of it and of the text's position.
        first: go on from this text.
    Yields:
        list of changed texts (the text itself is not among them).
    """
    candidates = Candidates(mlm, number, context, vectors)
    for begin in range(
        first - first % TEXTS_AT_ONCE, len(texts), TEXTS_AT_ONCE
    ):  # the same groups after a stop
        group = texts[begin : begin + TEXTS_AT_ONCE]
        fields = [(text,) if isinstance(text, str) else tuple(text) for text in group]
        slots = iter(candidates([field for row in fields for field in row], pattern))
        for index, row in enumerate(fields, start=begin):
            here, random = [next(slots) for _ in row], np.random.default_rng([seed, index])
            drawn = [
                tuple(change(field, slot, random, chance) for field, slot in zip(row, here))
                for _ in range(copies)
            ]
            if index >= first:
                new = [copy for copy in dict.fromkeys(drawn) if copy != row]
                yield [copy if len(row) > 1 else copy[0] for copy in new]


def augmented(dataset, mlm, *, copies=20, vectors=None, folder=None, **settings):
    """The data set with changed copies of its training texts; each copy has its text's label.

    Args:
        mlm: `TaskModel` of task "mlm", or a source of weights. copies: per text.
        vectors: {word: vector}, or the path of a file, see `read_vectors`. settings: of `augment`.
        folder: keep what is made there, and go on from it after a stop.
    Returns:
        `Dataset`.
    """
    if isinstance(mlm, (str, Path)):
        mlm = TaskModel.from_source(mlm, "mlm", ())
    check_masked_lm(mlm)
    if isinstance(vectors, (str, Path)):
        vectors = read_vectors(vectors)
    train = dataset.train
    said = [dataset.summary()["sha256"], copies, sorted(settings.items()), list(vectors or ())]
    made_from = hashlib.sha256(repr(said).encode())
    for array in (*mlm.weights().values(), *(vectors or {}).values()):
        made_from.update(np.ascontiguousarray(array).tobytes())
    path = folder and Path(folder) / f"{made_from.hexdigest()[:16]}.jsonl"
    made = _read_lines(path) if path else []
    bar = tqdm(
        total=len(train.texts),
        initial=len(made),
        desc="augment",
        file=sys.stderr,
        disable=None,
        unit="text",
    )
    pattern = TAGGED if dataset.task == "tagging" else None
    more = augment(
        train.texts,
        mlm,
        copies=copies,
        vectors=vectors,
        first=len(made),
        pattern=pattern,
        **settings,
    )
    with bar, open(path, "a", encoding="utf-8") if path else contextlib.nullcontext() as file:
        for new in more:
            if file:
                file.write(json.dumps(new, ensure_ascii=False) + "\n")
            made.append(new)
            bar.update(1)
    row = tuple if dataset.task == "matching" else str
    texts, labels = [], []
    for text, label, new in zip(train.texts, train.labels, made):
        texts += [row(each) for each in (text, *new)]
        labels += [label] * (1 + len(new))
    log.info("augmentation: %d texts, %d with their copies", len(train.texts), len(texts))
    return dataclasses.replace(dataset, train=Split(texts, labels))


def _read_lines(path):
    """The whole lines of a file that may end in the middle of a line; what is cut off there is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_bytes() if path.exists() else b""
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
                    )  # words hold spaces
                    if not text or (
                        number == 1 and len(values) == 1 and (word + values[0]).isdigit()
                    ):
                        continue  # word2vec's header: rows and width
                    more = [part for part in word.split(" ")[1:] if _is_number(part)]
                    vector = np.array(
                        more + values, np.float32
                    )  # a number too many belongs to no word
                except ValueError:  # UnicodeDecodeError is a ValueError
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


def _is_number(text):
    return re.fullmatch(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text) is not None
