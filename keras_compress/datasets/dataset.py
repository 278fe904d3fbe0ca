"""Raw texts and labels, and their batches: what every method receives."""

import dataclasses
import hashlib
import itertools
import json
import logging
import warnings
from array import array
from typing import NamedTuple

import numpy as np

from keras_compress.bert.answers import targets
from keras_compress.bert.labels import places
from keras_compress.bert.tasks import TASKS, encoding
from keras_compress.bert.words import are_characters

log = logging.getLogger(__name__)
SPLITS = ("train", "dev", "test")
CHUNK = 8192  # texts that are encoded at once
WINDOW = 32  # batches per window that is sorted by length


class Split(NamedTuple):
    """texts: str, or (str, str) for pairs; labels: an int each, for tagging a list with one int per word, for multilabel
    a list of different ints, for regression a float.

    Unlabelled text: one sentence each; its "label" is the number of the document that it belongs to.
    """

    texts: list
    labels: list


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Texts with labels in three splits, and no token ids: each model brings its own tokenizer.

    Args:
        name: for reports.
        task: of `bert.tasks.TASKS`.
        labels: the names; a label id is a place in this tuple.
        train, dev, test: `Split` or None.
        ordered: whether the order of the names was written down, not made by sorting.
    """

    name: str
    task: str
    labels: tuple
    train: Split
    dev: Split = None
    test: Split = None
    ordered: bool = True
    _encoded: dict = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def batches(
        self,
        split,
        tokenizer,
        batch_size,
        max_length,
        shuffle_seed=None,
        first=0,
        last=None,
        order_by=None,
        words=False,
    ):
        """Token ids and labels, batch by batch, padded to the longest of the batch (a multiple of 4).

        Args:
            split: "train", "dev" or "test".
            tokenizer: `Tokenizer` of the model that will see the batches.
            shuffle_seed: None keeps the order. An int shuffles and buckets by length; the order is a stateless
                function of the lengths and this seed.
            first, last: a slice of the sequence of batches, to go on where a run stopped.
            order_by: the `Tokenizer` whose lengths count (default: `tokenizer`). Two models with different
                vocabularies see the same texts in the same order when both pass the same one.
            words: instead of labels, the number of the word that each piece belongs to, -1 for special pieces and
                padding. Chinese words are what stands between spaces, up to four characters; longer runs count as text
                that nobody cut into words, with words of one character.
        Returns:
            tf.data.Dataset of (inputs, labels): int32 `input_word_ids`, `input_mask`, `input_type_ids` (batch, seq);
            labels int32 (batch,), for tagging (batch, seq) with -1 wherever no word begins; for multilabel float32
            (batch, labels), 1 for each name of the text, else 0; for regression float32 (batch, 1).
        """
        from keras_compress.backend import tf

        lengths = self.lengths(split, order_by or tokenizer, max_length)
        ids, type_ids, labels = self._encode(split, tokenizer, max_length, words)
        order = batch_order(lengths, batch_size, shuffle_seed)[first:last]
        rows = tf.RaggedTensor.from_row_lengths(
            np.concatenate([np.arange(0), *order]), list(map(len, order))
        )

        def pad(rows):
            row_ids = tf.gather(ids, rows)  # (batch, pieces), ragged
            longest = tf.reduce_max(row_ids.row_lengths())
            shape = [-1, tf.minimum(-(-longest // 4) * 4, max_length)]
            inputs = {
                "input_word_ids": row_ids.to_tensor(tokenizer.pad_id, shape=shape),
                "input_mask": tf.ones_like(row_ids).to_tensor(0, shape=shape),
                "input_type_ids": tf.gather(type_ids, rows).to_tensor(0, shape=shape),
            }
            row_labels = tf.gather(labels, rows)
            if isinstance(row_labels, tf.RaggedTensor):  # a label for each piece
                row_labels = row_labels.to_tensor(-1, shape=shape)
            return inputs, row_labels

        data = tf.data.Dataset.from_tensor_slices(rows)
        return data.map(pad, num_parallel_calls=2).prefetch(4)

    def lengths(self, split, tokenizer, max_length):
        """Pieces of each text, special ones included, cut at `max_length`: int64 (n,)."""
        return self._encode(split, tokenizer, max_length)[0].row_lengths().numpy()

    def subset(self, num_train=None, num_dev=None, num_test=None, seed=0):
        """A smaller data set, drawn at random; a larger subset with the same seed holds the smaller one."""

        def draw(split, number):
            if not split or number is None:
                return split
            chosen = np.random.default_rng(seed).permutation(len(split.texts))[:number]
            return Split(*([column[i] for i in sorted(chosen)] for column in split))

        return dataclasses.replace(
            self,
            train=draw(self.train, num_train),
            dev=draw(self.dev, num_dev),
            test=draw(self.test, num_test),
        )

    def with_labels(self, names):
        """The same data with a model's names of the labels, in its order.

        Raises ValueError if a label has no place among the names (see `bert.labels.places`).
        """
        names = tuple(names)
        if not self.labels or self.labels == names:
            return self
        place = places(self.labels, names)
        pairs = ", ".join(f"{label} = {names[k]}" for label, k in zip(self.labels[:8], place))
        log.info("%s: labels are numbered as in the model: %s", self.name, pairs)

        def renumbered(split):
            by_row = [
                [place[i] for i in x] if isinstance(x, list) else place[x] for x in split.labels
            ]
            return Split(split.texts, by_row)

        splits = {name: split and renumbered(split) for name, split in self.splits().items()}
        return dataclasses.replace(self, labels=names, ordered=True, **splits)

    @property
    def pairs(self):
        """Whether the texts are pairs."""
        return isinstance(self.train.texts[0], tuple)

    def tags_characters(self):
        """Whether the words that are tagged are Chinese characters."""
        return TASKS[self.task].per_token and are_characters(self.train.texts)

    def splits(self):
        """{"train", "dev", "test": `Split` or None}."""
        return {name: getattr(self, name) for name in SPLITS}

    def summary(self):
        """Counts and a hash of the content, for reports: two runs with one hash saw the same data."""
        splits, content = self.splits(), hashlib.sha256()
        json_of = json.JSONEncoder(ensure_ascii=False)
        for part in json_of.iterencode([self.task, self.labels, splits]):  # the whole may be large
            content.update(part.encode())
        return {
            "name": self.name,
            "task": self.task,
            "num_labels": len(self.labels),
            **{name: len(split.texts) if split else 0 for name, split in splits.items()},
            "sha256": content.hexdigest(),
        }

    def check_splits(self, *wanted):
        """Raises ValueError unless the data are labelled and have these splits."""
        there = [name for name, split in self.splits().items() if split]
        if self.task == "unlabelled" or not {*wanted} <= {*there}:
            raise ValueError(
                f"The data must have labels and the splits {', '.join(wanted)}. Received: {self.name}, "
                f"{self.task}, with {', '.join(there)}. Add the file that is missing, with labels, or "
                "take other data."
            )

    def piece_counts(self, tokenizer, split="train", max_length=512):
        """How often each piece of the vocabulary occurs in a split: int64 (vocabulary,)."""
        ids = self._encode(split, tokenizer, max_length)[0]
        return np.bincount(ids.flat_values, minlength=len(tokenizer.vocab))

    def unknown_rate(self, tokenizer, split="dev", max_length=512):
        """Share of a split's pieces that are [UNK], 0-1."""
        counts = self.piece_counts(tokenizer, split, max_length)
        special = [tokenizer.ids[piece] for piece in ("[PAD]", "[CLS]", "[SEP]")]
        return float(counts[tokenizer.ids["[UNK]"]] / max(counts.sum() - counts[special].sum(), 1))

    def check_unknown(self, tokenizer, training):
        """Raises ValueError if more of the training texts' words are unknown than `training.max_unknown`."""
        ids = self._encode("train", tokenizer, training.max_length)[0].flat_values
        share = tokenizer.unknown_share(ids)
        if share > training.max_unknown:
            raise ValueError(
                f"At most {training.max_unknown:.0%} of the words of the training texts may be unknown "
                f"to the vocabulary. Received: {share:.0%} of {self.name}. Take a model for this "
                "language, or raise `max_unknown` (`--max-unknown`; of a recipe, in [training])."
            )

    def _encode(self, split, tokenizer, max_length, words=False):
        """Ids, type ids (ragged) and labels as int32 tensors, kept for later epochs."""
        from keras_compress.backend import tf

        key = (split, tokenizer, max_length, words)
        if key in self._encoded:
            return self._encoded[key]
        if not self.splits().get(split):
            raise ValueError(f"`split` must be one that `{self.name}` has. Received: {split!r}.")
        texts, labels = getattr(self, split)
        if words:
            texts = [" ".join(text.split()) for text in texts]
        by_words = words or TASKS[self.task].texts == "words"
        encode = encoding("tagging" if words else self.task, tokenizer)
        ids, type_ids, marks, lengths, num_truncated = array("i"), array("i"), array("i"), [], 0
        for first in range(0, len(texts), CHUNK):  # objects of many texts would fill the memory
            encodings = encode(texts[first : first + CHUNK], max_length)
            num_truncated += sum(each.truncated for each in encodings)
            for each, label in zip(encodings, labels[first : first + CHUNK]):
                ids.extend(each.ids)
                type_ids.extend(each.type_ids)
                lengths.append(len(each.ids))
                if words:
                    marks.extend(_word_numbers(each, tokenizer.vocab))
                elif by_words:
                    marks.extend(_first_pieces(each, label))
        if num_truncated:
            warnings.warn(
                f"{self.name}: {num_truncated} of {len(texts)} {split} texts are longer than "
                f"{max_length} pieces; their {tokenizer.cut_part} are cut off.",
                stacklevel=3,
            )

        def ragged(numbers):
            return tf.RaggedTensor.from_row_lengths(np.asarray(numbers, np.int32), lengths)

        by_text = None if by_words else targets(self.task, labels, len(self.labels))
        labels = ragged(marks) if by_words else tf.constant(by_text)
        self._encoded[key] = ragged(ids), ragged(type_ids), labels
        return self._encoded[key]


def batch_order(lengths, batch_size, shuffle_seed=None):
    """Which texts form which batch: a list of ceil(n / batch_size) arrays of places.

    With a seed: shuffle, cut into windows of 32 batches, sort each window by length, cut into batches, shuffle these.
    """

    def cut(places, size):
        return np.split(places, range(size, len(places), size))

    if shuffle_seed is None:
        return cut(np.arange(len(lengths)), batch_size)
    random, batches = np.random.default_rng(shuffle_seed), []
    for window in cut(random.permutation(len(lengths)), WINDOW * batch_size):
        by_length = np.argsort(lengths[window], kind="stable")
        batches += cut(window[by_length], batch_size)
    return [batches[i] for i in random.permutation(len(batches))]


def _first_pieces(encoding, tags):
    """The tag of each word at its first piece, -1 elsewhere; the tag of a word that was cut off is dropped."""
    row = [-1] * len(encoding.ids)
    for start, tag in zip(encoding.word_starts, tags):
        if start >= 0:
            row[start] = tag
    return row


def _word_numbers(encoding, vocab):
    """The number of the word that each piece is part of, -1 for special pieces.

    A piece goes on with the word before it if it begins with ##, or if it and the piece before it are Chinese
    characters of one stretch between spaces. A stretch of more than four is text that nobody cut into words.
    """
    pieces = np.array([vocab[index] for index in encoding.ids])
    is_chinese = (pieces >= "\u4e00") & (pieces <= "\u9fff")
    goes_on = is_chinese & np.roll(is_chinese, 1)
    starts = [start for start in encoding.word_starts if start > 0]
    goes_on[starts] = False
    for first, last in itertools.pairwise([*starts, len(pieces) - 1]):
        if is_chinese[first:last].sum() > 4:
            goes_on[first:last] = False
    goes_on |= np.strings.startswith(pieces, "##")
    numbers = np.cumsum(~goes_on) - 2  # [CLS] and the first word have begun: number 0
    numbers[[0, -1]] = -1
    return numbers
