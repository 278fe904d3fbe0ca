"""The baselines that need no BERT: majority class, and TF-IDF with a linear support vector machine.

    classification   TF-IDF of word 1-2 grams (Chinese and other text without spaces: character 1-3 grams)
    matching         the TF-IDF vectors of both texts, their product and their absolute difference, and per pair their
                     cosine, the share of common words and the ratio of the lengths
    tagging          no linear model; instead of the majority class, the most frequent tag of each word in training,
                     "O" for a word that was never seen (where that is no tag, the most frequent of all)
The penalty C of the machine is chosen on dev from `PENALTIES`; ties go to the smaller. Test is used once.
"""

import re
from collections import Counter, defaultdict

import numpy as np

from keras_compress.measure.accuracy import score_predictions

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)


def baselines(dataset):
    """All baselines that fit the task, measured on test.

    Returns:
        list of (row, result): `name`, "majority" or "tfidf", and number of `parameters`; and the dict of
        `accuracy.score_predictions` with one more key, `choice`: what was chosen, in words.
    """
    fits = [most_frequent_tags] if dataset.task == "tagging" else [majority, tfidf]
    return [fit(dataset) for fit in fits]


def majority(dataset):
    """Always the most frequent class of the training split."""
    label = np.bincount(dataset.train.labels).argmax()
    predicted = np.full(len(dataset.test.texts), label)
    return _measured("majority", dataset, predicted, 1, f"always {dataset.labels[label]}")


def most_frequent_tags(dataset):
    """The most frequent training tag of each word."""
    seen = defaultdict(Counter)
    for text, labels in zip(*dataset.train):
        for word, label in zip(text.split(" "), labels):
            seen[word][dataset.labels[label]] += 1
    best = {word: counts.most_common(1)[0][0] for word, counts in seen.items()}
    most = sum(seen.values(), Counter()).most_common(1)[0][0]
    new = "O" if "O" in dataset.labels else most
    predicted = [[best.get(word, new) for word in text.split(" ")] for text in dataset.test.texts]
    return _measured("majority", dataset, predicted, len(best), "most frequent tag of each word")


def tfidf(dataset):
    """TF-IDF and a linear support vector machine."""
    from sklearn.svm import LinearSVC  # takes a second to import, and only training needs it

    features, grams = _features(dataset)
    train, dev = features(dataset.train.texts), features(dataset.dev.texts)
    machines = [
        LinearSVC(C=penalty, random_state=0).fit(train, dataset.train.labels)
        for penalty in PENALTIES
    ]
    on_dev = [machine.score(dev, dataset.dev.labels) for machine in machines]
    machine = machines[np.argmax(on_dev)]
    predicted = machine.predict(features(dataset.test.texts))
    size = machine.coef_.size + machine.intercept_.size
    choice = f"{grams}, C = {machine.C} (dev accuracy {max(on_dev):.3f})"
    return _measured("tfidf", dataset, predicted, size, choice)


def _features(dataset):
    """A function texts -> sparse matrix (n, features), fitted on the training texts; and its name in words."""
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer

    matching, texts = dataset.task == "matching", dataset.train.texts
    if matching:
        texts = [side for pair in texts for side in pair]
    if _has_spaces(texts):
        grams, cut = "word 1-2 grams", {"ngram_range": (1, 2), "token_pattern": r"\b\w+\b"}
    else:
        grams, cut = "character 1-3 grams", {"ngram_range": (1, 3), "analyzer": "char"}
    vectorizer = TfidfVectorizer(sublinear_tf=True, **cut).fit(texts)
    if not matching:
        return vectorizer.transform, grams

    def pair_features(pairs):
        a, b = map(vectorizer.transform, zip(*pairs))
        products = a.multiply(b)
        sizes = np.stack([a.count_nonzero(axis=1), b.count_nonzero(axis=1)])
        shape = [
            np.ravel(products.sum(axis=1)),
            2 * products.count_nonzero(axis=1) / np.maximum(sizes.sum(axis=0), 1),
            sizes.min(axis=0) / np.maximum(sizes.max(axis=0), 1),
        ]
        return sparse.hstack([a, b, products, abs(a - b), np.transpose(shape)], format="csr")

    return pair_features, grams + " of pairs"


def _has_spaces(texts):
    """Whether words are separated by spaces: false when over a third of the characters are Chinese or Japanese."""
    sample = "".join(texts[:2000])
    return 3 * len(re.findall("[\u3040-\u9fff]", sample)) <= len(sample)


def _measured(name, dataset, predicted, num_parameters, choice):
    result = score_predictions(dataset.task, dataset.labels, dataset.test.labels, predicted)
    return {"name": name, "parameters": num_parameters}, {**result, "choice": choice}
