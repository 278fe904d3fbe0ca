"""Pairs of segments for the sentence tasks of pre-training, from running text.

    sop    sentence order (Lan et al., 2020, arXiv:1909.11942): two neighbouring segments, as written or swapped
    nsp    next sentence (Devlin et al., 2019, arXiv:1810.04805): two neighbouring segments, or the second one of
           another document
    none   two neighbouring segments, always as written: the same texts without a task

A document's sentences are collected until they fill a text, or, one time in ten, a shorter one; they are cut between
two sentences into segments A and B, and half of the pairs are changed. All three tasks get the same segments.
Departures
    A chunk of one sentence is skipped. The authors' code of ALBERT takes B from another document there and calls it
    swapped: next-sentence prediction inside of sentence order.
    A pair that is too long is cut at the end of its longer segment by the tokenizer, not at random ends.
    The other document's B is one of its own segments B, so that `nsp` and `sop` differ in nothing but the task.
"""

import itertools
import logging

import numpy as np

from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.training.settings import check_choice

log = logging.getLogger(__name__)
LABELS = ("as written", "changed")
SHORTER = 0.1


def sentence_pairs(dataset, tokenizer, max_length, sentence_task="sop", seed=0):
    """Makes pairs of segments.

    Args:
        dataset: unlabelled `Dataset`; its labels number the documents.
        tokenizer: `Tokenizer` that tells how long a sentence is. max_length: pieces of a pair, special ones included.
        sentence_task: "sop", "nsp" or "none".
    Returns:
        `Dataset` of task "matching" with the labels "as written" and "changed"; dev only if it has pairs.
    Raises:
        ValueError: if the data are no running text, or hold too few documents of two sentences.
    """
    check_choice("sentence_task", sentence_task, ("sop", "nsp", "none"))
    if dataset.task != "unlabelled":
        raise ValueError(
            "Sentence pairs are made of running text. Received: "
            f"{dataset.task} data ({dataset.name}), whose texts have no order. Take apidocs, or a text "
            "file with one sentence a line and an empty line between documents."
        )
    splits = {}
    for place, name in enumerate(("train", "dev")):
        split, random = getattr(dataset, name), np.random.default_rng([seed, place])
        found = segments(split, tokenizer, max_length, random) if split else []
        enough = len({document for document, _, _ in found}) > (sentence_task == "nsp")
        if not enough and name == "train":
            raise ValueError(
                "A corpus must have sentences to order: documents of two sentences or more, for nsp two "
                f"such documents. Received: {dataset.name}, {len(split.texts)} sentences in "
                f"{len({*split.labels})} documents, {len(found)} pairs of segments of {max_length} pieces "
                "at most. Write one sentence a line, and an empty line only where a document ends; if "
                "sentences fill a text alone, raise `max_length`."
            )
        splits[name] = change(found, sentence_task, random) if enough else None
    return Dataset(dataset.name, "matching", LABELS, **splits)


def by_length(pairs, tokenizer, max_length):
    """Share of dev's pairs that the lengths of A and B tell apart: a small decision tree, fitted to train. 0-1.

    What a sentence task has to beat: segments of a text differ in length, and B is where a text is cut off.
    """
    from sklearn.tree import DecisionTreeClassifier

    lengths = [
        np.array(
            [
                (encoding.type_ids.count(0), encoding.type_ids.count(1))
                for encoding in tokenizer.encode(split.texts, max_length)
            ]
        )
        for split in (pairs.train, pairs.dev)
    ]
    tree = DecisionTreeClassifier(
        min_samples_leaf=max(1, min(100, len(lengths[0]) // 4)), random_state=0
    )
    return float(tree.fit(lengths[0], pairs.train.labels).score(lengths[1], pairs.dev.labels))


def segments(split, tokenizer, max_length, random):
    """[(document, A, B)], A and B neighbouring texts of one or more sentences each."""
    lengths = [len(encoding.ids) - 2 for encoding in tokenizer.encode(split.texts, max_length)]
    room, found, skipped = max_length - 3, [], 0  # for [CLS] and two [SEP]
    rows = zip(split.labels, split.texts, lengths)
    for document, sentences in itertools.groupby(rows, key=lambda row: row[0]):
        chunk, size, target = [], 0, None
        sentences = [(text, length) for _, text, length in sentences]
        for place, (text, length) in enumerate(sentences, start=1):
            if target is None:
                target = (
                    random.integers(min(2, room), room + 1) if random.random() < SHORTER else room
                )
            chunk.append(text)
            size += length
            if size >= target or place == len(sentences):
                if len(chunk) > 1:
                    cut = random.integers(1, len(chunk))
                    found.append((document, " ".join(chunk[:cut]), " ".join(chunk[cut:])))
                skipped += len(chunk) == 1
                chunk, size, target = [], 0, None
    log.info(
        "sentence pairs: %d; left out, since they stood alone: %d sentences", len(found), skipped
    )
    return found


def change(found, sentence_task, random):
    """The pairs, about half of them changed as the task says, as a `Split`."""
    pairs, labels = [], []
    for document, a, b in found:
        label = int(sentence_task != "none" and random.random() < 0.5)
        if label and sentence_task == "sop":
            a, b = b, a
        elif label:
            other = document
            while other == document:
                other, _, b = found[random.integers(len(found))]
        pairs.append((a, b))
        labels.append(label)
    return Split(pairs, labels)
