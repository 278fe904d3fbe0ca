"""The baselines that need no BERT: majority class, and TF-IDF with a linear support vector machine.

    one text         TF-IDF of word 1-2 grams (Chinese and other text without spaces: character 1-3 grams)
    a pair           the TF-IDF vectors of both texts, their product and their absolute difference, and per pair their
                     cosine, the share of common words and the ratio of the lengths
    tagging          no linear model; instead of the majority class, the most frequent tag of each word in training,
                     "O" for a word that was never seen (where that is no tag, the most frequent of all)
    multilabel       the most frequent set of names; a machine for each name
    regression       the mean score; ridge regression
The penalty C of the machine (of ridge: 1 / C) is chosen on dev from `PENALTIES`; ties go to the smaller. Test is used once.
"""

import re
from collections import Counter, defaultdict

import numpy as np

from keras_compress.bert.answers import in_words, targets
from keras_compress.bert.tasks import TASKS
from keras_compress.measure.accuracy import METRICS, score_predictions

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)


def baselines(dataset):
    """All baselines that fit the task, measured on test.

    Returns:
        list of (row, result): `name`, "majority" or "tfidf", and number of `parameters`; and the dict of
        `accuracy.score_predictions` with one more key, `choice`: what was chosen, in words.
    """
    fits = [most_frequent_tags] if TASKS[dataset.task].per_token else [majority, tfidf]
    return [fit(dataset) for fit in fits]


def majority(dataset):
    """Always the most frequent class, or set of names, of the training split; or its mean score."""
    gold = _gold(dataset)
    kinds, counts = np.unique(gold, axis=0, return_counts=True)
    most = gold.mean() if TASKS[dataset.task].answer == "number" else kinds[counts.argmax()]
    predicted = np.repeat(most[None], len(dataset.test.texts), axis=0)
    label = np.flatnonzero(most) if most.ndim else most.item()
    choice = f"always {in_words(dataset.labels, label)}"
    return _measured("majority", dataset, predicted, 1, choice)


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
    """TF-IDF and a linear support vector machine, one for each name, or ridge regression."""
    from sklearn.linear_model import Ridge  # takes a second to import, and only training needs it
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC

    features, grams = _features(dataset)
    train, dev, test = (features(split.texts) for split in dataset.splits().values())
    answer, fitted = TASKS[dataset.task].answer, []
    for penalty in PENALTIES:
        machine, gold = LinearSVC(C=penalty, random_state=0), _gold(dataset)
        if answer == "sigmoid":
            machine = OneVsRestClassifier(machine)
        elif answer == "number":
            machine = Ridge(1 / penalty)
        machine.fit(train, gold)
        on_dev, on_test = (machine.predict(texts).astype(gold.dtype) for texts in (dev, test))
        result = score_predictions(dataset.task, dataset.labels, dataset.dev.labels, on_dev)
        fitted.append((result["value"], -penalty, result["metric"], machine, on_test))
    value, penalty, metric, machine, predicted = max(fitted, key=lambda row: row[:2])
    num_machines = len(machine.estimators_ if answer == "sigmoid" else np.atleast_2d(machine.coef_))
    choice = f"{grams}, C = {-penalty} (dev {METRICS[metric]} {value:.3f})"
    return _measured("tfidf", dataset, predicted, num_machines * (train.shape[1] + 1), choice)


def _gold(dataset):
    """The training labels: (n,), for multilabel bool (n, names)."""
    gold = targets(dataset.task, dataset.train.labels, len(dataset.labels))
    if TASKS[dataset.task].answer == "sigmoid":
        return gold > 0
    return np.ravel(gold)


def _features(dataset):
    """A function texts -> sparse matrix (n, features), fitted on the training texts; and its name in words."""
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = dataset.train.texts
    if dataset.pairs:
        texts = [side for pair in texts for side in pair]
    if _has_spaces(texts):
        grams, cut = "word 1-2 grams", {"ngram_range": (1, 2), "token_pattern": r"\b\w+\b"}
    else:
        grams, cut = "character 1-3 grams", {"ngram_range": (1, 3), "analyzer": "char"}
    vectorizer = TfidfVectorizer(sublinear_tf=True, **cut).fit(texts)
    if not dataset.pairs:
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
