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

import logging

import numpy as np

from keras_compress.datasets.dataset import Dataset, Split

log = logging.getLogger(__name__)
LABELS = ("as written", "changed")
SHORTER = 0.1


def sentence_pairs(dataset, tokenizer, max_length, sentence_task="sop", seed=0):
    """Makes pairs of segments.

    Args:
        dataset: unlabelled `Dataset`; its labels number the documents.
        tokenizer: `Tokenizer` that tells how long a sentence is.
        max_length: pieces of a pair, special ones included.
        sentence_task: "sop", "nsp" or "none".
    Returns:
        `Dataset` of task "matching" with the labels "as written" and "changed"; dev only if it has pairs.
    Raises:
        ValueError: if the text holds too few documents of two sentences.
    """
    splits = {"train": None, "dev": None}
    for number, name in enumerate(splits):
        split, random = getattr(dataset, name), np.random.default_rng([seed, number])
        pairs = segments(split, tokenizer, max_length, random) if split else []
        if len({document for document, _, _ in pairs}) > (sentence_task == "nsp"):
            splits[name] = change(pairs, sentence_task, random)
        elif name == "train":
            raise ValueError(
                "A corpus must have documents of two sentences or more, for nsp two such documents. "
                f"Received: {dataset.name}, {len(split.texts)} sentences in {len({*split.labels})} "
                f"documents, {len(pairs)} pairs of {max_length} pieces at most. Write one sentence a line, "
                "and an empty line where a document ends, or raise `max_length`."
            )
    return Dataset(dataset.name, "matching", LABELS, **splits)


def by_length(pairs, tokenizer, max_length):
    """Share of dev's pairs that the lengths of A and B tell apart: a small decision tree, fitted to train. 0-1.

    What a sentence task has to beat: segments of a text differ in length, and B is where a text is cut off.
    """
    from sklearn.tree import DecisionTreeClassifier

    def lengths(split):
        encodings = tokenizer.encode(split.texts, max_length)
        return [[each.type_ids.count(0), each.type_ids.count(1)] for each in encodings]

    train, dev = lengths(pairs.train), lengths(pairs.dev)
    leaf = max(1, min(100, len(train) // 4))
    tree = DecisionTreeClassifier(min_samples_leaf=leaf, random_state=0)
    return float(tree.fit(train, pairs.train.labels).score(dev, pairs.dev.labels))


def segments(split, tokenizer, max_length, random):
    """[(document, A, B)], A and B neighbouring texts of one or more sentences each."""
    lengths = [len(encoding.ids) - 2 for encoding in tokenizer.encode(split.texts, max_length)]
    room, pairs, alone, chunk = max_length - 3, [], 0, []  # room beside [CLS] and two [SEP]
    documents = [*split.labels, None]
    for number, (text, length) in enumerate(zip(split.texts, lengths)):
        if not chunk:
            shorter = random.random() < SHORTER
            size, target = 0, random.integers(min(2, room), room + 1) if shorter else room
        chunk.append(text)
        size += length
        if size >= target or documents[number] != documents[number + 1]:
            if len(chunk) > 1:
                cut = random.integers(1, len(chunk))
                first, second = " ".join(chunk[:cut]), " ".join(chunk[cut:])
                pairs.append((documents[number], first, second))
            alone += len(chunk) == 1
            chunk = []
    log.info(
        "sentence pairs: %d; left out, since they stand alone: %d sentences", len(pairs), alone
    )
    return pairs


def change(pairs, sentence_task, random):
    """The pairs, about half of them changed as the task says, as a `Split`."""
    texts, labels = [], []
    for document, a, b in pairs:
        label = int(sentence_task != "none" and random.random() < 0.5)
        if label and sentence_task == "sop":
            a, b = b, a
        elif label:
            other = document
            while other == document:
                other, _, b = pairs[random.integers(len(pairs))]
        texts.append((a, b))
        labels.append(label)
    return Split(texts, labels)
