"""Raw texts and labels, and their batches: what every method receives."""

import dataclasses
import hashlib
import json
import warnings
from typing import NamedTuple

import numpy as np

WINDOW = 32  # batches per window that is sorted by length


class Split(NamedTuple):
    """texts: str, or (str, str) for matching; labels: an int each, for tagging a list with one int per word.

    Unlabelled text: one sentence each; its "label" is the number of the document that it belongs to.
    """

    texts: list
    labels: list


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Texts with labels in three splits, and no token ids: each model brings its own tokenizer.

    Args:
        name: for reports.
        task: "classification", "matching", "tagging" or "unlabelled".
        labels: the names; a label id is a place in this tuple.
        train, dev, test: `Split` or None.
    """

    name: str
    task: str
    labels: tuple
    train: Split
    dev: Split = None
    test: Split = None
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
            labels int32 (batch,), for tagging (batch, seq) with -1 wherever no word begins.
        """
        from keras_compress.backend import tf

        lengths = self.lengths(split, order_by or tokenizer, max_length)
        batches = batch_order(lengths, batch_size, shuffle_seed)[first:last]
        ids, type_ids, labels = (
            tf.RaggedTensor.from_row_lengths(*column)
            if isinstance(column, tuple)
            else tf.constant(column)
            for column in self._encode(split, tokenizer, max_length, words)
        )
        rows = tf.RaggedTensor.from_row_lengths(
            np.concatenate([*batches, np.zeros(0, np.int64)]),
            np.array([len(batch) for batch in batches], np.int64),
        )

        def pad(rows):
            row_ids = tf.gather(ids, rows)
            longest = tf.reduce_max(row_ids.row_lengths())
            shape = tf.stack([-1, tf.minimum(-(-longest // 4) * 4, max_length)])
            inputs = {
                "input_word_ids": row_ids.to_tensor(tokenizer.pad_id, shape=shape),
                "input_mask": tf.ones_like(row_ids).to_tensor(0, shape=shape),
                "input_type_ids": tf.gather(type_ids, rows).to_tensor(0, shape=shape),
            }
            row_labels = tf.gather(labels, rows)
            return inputs, row_labels if labels.shape.rank == 1 else row_labels.to_tensor(
                -1, shape=shape
            )

        data = tf.data.Dataset.from_tensor_slices(rows).map(pad, num_parallel_calls=2)
        return data.apply(tf.data.experimental.assert_cardinality(len(batches))).prefetch(4)

    def lengths(self, split, tokenizer, max_length):
        """Pieces of each text, special ones included, cut at `max_length`: int64 (n,)."""
        return self._encode(split, tokenizer, max_length)[0][1]

    def subset(self, num_train=None, num_dev=None, num_test=None, seed=0):
        """A smaller data set, drawn at random; a larger subset with the same seed holds the smaller one."""

        def draw(split, number):
            if split is None or number is None or number >= len(split.texts):
                return split
            chosen = np.sort(np.random.default_rng(seed).permutation(len(split.texts))[:number])
            return Split([split.texts[i] for i in chosen], [split.labels[i] for i in chosen])

        return dataclasses.replace(
            self,
            train=draw(self.train, num_train),
            dev=draw(self.dev, num_dev),
            test=draw(self.test, num_test),
        )

    def summary(self):
        """Counts and a hash of the content, for reports: two runs with one hash saw the same data."""
        splits = {name: getattr(self, name) for name in ("train", "dev", "test")}
        content = json.dumps([self.task, self.labels, splits], ensure_ascii=False).encode()
        return {
            "name": self.name,
            "task": self.task,
            "num_labels": len(self.labels),
            **{name: len(split.texts) if split else 0 for name, split in splits.items()},
            "sha256": hashlib.sha256(content).hexdigest(),
        }

    def check_splits(self, *wanted):
        """Raises ValueError unless the data are labelled and have these splits."""
        there = [name for name in ("train", "dev", "test") if getattr(self, name)]
        if self.task == "unlabelled" or not {*wanted} <= {*there}:
            raise ValueError(
                f"The data must have labels and the splits {', '.join(wanted)}. Received: {self.name}, "
                f"{self.task}, with {', '.join(there)}. Add the file that is missing, with labels, or "
                "take other data."
            )

    def piece_counts(self, tokenizer, split="train", max_length=512):
        """How often each piece of the vocabulary occurs in a split: int64 (vocabulary,)."""
        encode = tokenizer.encode_words if self.task == "tagging" else tokenizer.encode
        counts = np.zeros(len(tokenizer.vocab), np.int64)
        for encoding in encode(self._examples(split).texts, max_length):
            np.add.at(counts, encoding.ids, 1)
        return counts

    def unknown_rate(self, tokenizer, split="dev", max_length=512):
        """Share of a split's pieces that are [UNK], 0-1."""
        counts = self.piece_counts(tokenizer, split, max_length)
        special = [tokenizer.ids[piece] for piece in ("[PAD]", "[CLS]", "[SEP]")]
        return float(counts[tokenizer.ids["[UNK]"]] / max(counts.sum() - counts[special].sum(), 1))

    def _examples(self, split):
        examples = getattr(self, split, None) if split in ("train", "dev", "test") else None
        if examples is None:
            there = [name for name in ("train", "dev", "test") if getattr(self, name)]
            raise ValueError(
                f"`split` must be one that `{self.name}` has. Received: {split!r}. "
                f"Choose {', '.join(there)}."
            )
        return examples

    def _encode(self, split, tokenizer, max_length, words=False):
        """Ids, type ids and labels, int32; ragged ones as (flat values, row lengths). Kept for later epochs."""
        key = (split, id(tokenizer), max_length, words)
        if key not in self._encoded:
            texts, labels = self._examples(split)
            if self.task == "tagging":
                encodings = tokenizer.encode_words(texts, max_length)
                labels = [
                    _first_pieces(encoding, tags) for encoding, tags in zip(encodings, labels)
                ]
            elif words:
                encodings = tokenizer.encode_words(
                    [" ".join(text.split()) for text in texts], max_length
                )
                labels = [_word_numbers(encoding, tokenizer.vocab) for encoding in encodings]
            else:
                encodings = tokenizer.encode(texts, max_length)
            num_truncated = sum(encoding.truncated for encoding in encodings)
            if num_truncated:
                warnings.warn(
                    f"{self.name}: {num_truncated} of {len(texts)} {split} texts are longer than "
                    f"{max_length} pieces; their ends are cut off.",
                    stacklevel=3,
                )
            lengths = np.array([len(encoding.ids) for encoding in encodings], np.int64)

            def flat(rows):
                return np.fromiter(
                    (value for row in rows for value in row), np.int32, lengths.sum()
                ), lengths

            columns = (
                flat(encoding.ids for encoding in encodings),
                flat(encoding.type_ids for encoding in encodings),
                flat(labels) if self.task == "tagging" or words else np.array(labels, np.int32),
            )
            self._encoded[key] = (
                tokenizer,
                columns,
            )  # holding the tokenizer keeps its id from being used again
        return self._encoded[key][1]


def batch_order(lengths, batch_size, shuffle_seed=None):
    """Which texts form which batch: a list of ceil(n / batch_size) arrays of places.

    With a seed: shuffle, cut into windows of 32 batches, sort each window by length, cut into batches, shuffle these.
    """
    places = np.arange(len(lengths))
    if shuffle_seed is None:
        return [places[i : i + batch_size] for i in range(0, len(places), batch_size)]
    random = np.random.default_rng(shuffle_seed)
    places, batches = random.permutation(places), []
    for start in range(0, len(places), WINDOW * batch_size):
        window = places[start : start + WINDOW * batch_size]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def _first_pieces(encoding, tags):
    """The tag of each word at its first piece, -1 elsewhere; words that were cut off have no place."""
    row = [-1] * len(encoding.ids)
    for place, tag in zip(encoding.word_starts, tags):
        if place >= 0:
            row[place] = tag
    return row


def _word_numbers(encoding, vocab):
    """The number of the word that each piece is part of. ## pieces go on with a word, and so do the Chinese characters
    of a word of up to four between spaces; a longer run is taken for text that nobody cut into words."""
    pieces, starts = (
        [vocab[index] for index in encoding.ids],
        [place for place in encoding.word_starts if place > 0],
    )
    cut_here = {
        place
        for first, last in zip(starts, [*starts[1:], len(pieces) - 1])
        for place in range(first, last)
        if place == first or sum(map(_is_chinese, pieces[first:last])) > 4
    }
    numbers = []
    for place, piece in enumerate(pieces):
        goes_on = piece.startswith("##") or (
            place not in cut_here and _is_chinese(piece) and _is_chinese(pieces[place - 1])
        )
        numbers.append(numbers[-1] + (not goes_on) if numbers else 0)
    return [-1, *(number - 1 for number in numbers[1:-1]), -1]


def _is_chinese(piece):
    return "\u4e00" <= piece <= "\u9fff"
