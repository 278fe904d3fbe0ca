"""Accuracy and entity F1 with their uncertainty, and paired comparisons of models on the same examples.

What is kept per example are `scores`: right or wrong (n,) for classification and matching, and (n, 3) counts of
right, predicted and gold entities for tagging (of tags, where these mark no entities). Everything below is computed from them, so a study can keep them
(packed, see `pack_correct`) and compare models later. Several seeds of one model are a leading axis: (seeds, n[, 3]).
"""

import itertools
import warnings

import numpy as np

from keras_compress.measure.tagging import entity_counts, marks_entities, word_counts
from keras_compress.method import entry_at_work, untrained

# How reports call what is measured.
METRICS = {"accuracy": "accuracy", "entity_f1": "entity F1", "token_accuracy": "token accuracy"}
NUM_RESAMPLES = 1000
Z95 = 1.96


def evaluate(task_model, split):
    """Measure a model on a labelled split; see `score_predictions` for what comes back."""
    if split is None:
        raise ValueError(
            "`split` must have labels to be evaluated. Received: none. Use a labelled dev or test split."
        )
    if task_model.task == "tagging":
        predicted = task_model.predict([text.split(" ") for text in split.texts])
        predicted = [[tag or "O" for tag in tags] for _, tags in predicted]  # None: cut off
    else:
        predicted = task_model.predict(split.texts).argmax(axis=-1)
    result = score_predictions(task_model.task, task_model.labels, split.labels, predicted)
    _doubt_order(task_model, result)
    return result


def _doubt_order(task_model, result):
    """Warns if a head that was trained elsewhere is far worse than the majority: its classes may be in another order."""
    labels, history = task_model.labels, task_model.history
    elsewhere = history and history[0]["method"] == "load" and not untrained(task_model)
    if not elsewhere or entry_at_work() or any("training" in entry for entry in history):
        return
    majority = result["confusion"].sum(axis=1).max() / max(result["confusion"].sum(), 1)
    low = 0.4 if len(labels) == 2 else majority / 2
    if result["metric"] == "accuracy" and result["value"] < low and result["n"] >= 20:
        warnings.warn(
            f"{result['value']:.0%} of {result['n']} texts are right; the most frequent class alone gives {majority:.0%}. "
            f"The labels may be in another order than {', '.join(labels[:2])}, ... Where the model's files do not name "
            f"them, give its order (`--labels {','.join(labels[1::-1])}`); else correct `id2label` in its config.json.",
            stacklevel=3,
        )


def score_predictions(task, labels, gold, predicted):
    """Compare predictions with the truth.

    Args:
        task: "classification", "matching" or "tagging".
        labels: label names; ids index them.
        gold: label id per text; tagging: list of label ids per text, one per word.
        predicted: label id per text; tagging: list of label *names* per text, one per word.
    Returns:
        dict: `metric` (of METRICS; tagging: "entity_f1" or "token_accuracy", as the labels are), `value` and `se` (0-1), `n`, `predictions`, `scores` (module
        docstring), `confusion` (gold x predicted; tagging: words), `macro_f1` (over classes; tagging: over tags).
    """
    if task == "tagging":
        by_entity = marks_entities(labels)
        metric = "entity_f1" if by_entity else "token_accuracy"
        counts = entity_counts if by_entity else word_counts
        gold_tags = [[labels[label] for label in row] for row in gold]
        scores = np.array([counts(*pair) for pair in zip(gold_tags, predicted, strict=True)])
        tags = [*itertools.chain(*predicted)]
        known = [tag in labels for tag in tags]
        words = np.concatenate(gold)[known], [labels.index(tag) for tag in tags if tag in labels]
    else:
        metric, words = "accuracy", (gold, predicted)
        scores = np.equal(gold, predicted)
    value, se = value_and_error(metric, scores[None])
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, words, 1)
    return {
        "metric": metric,
        "value": value,
        "se": se,
        "n": len(gold),
        "predictions": predicted,
        "scores": scores,
        "confusion": confusion,
        "macro_f1": float(np.nanmean(class_f1(confusion))),
    }


def f1(counts):
    """Micro F1, (..., 3) -> (...): 2 right / (predicted + gold); 0 where there is nothing."""
    right, predicted, gold = np.moveaxis(counts, -1, 0)
    return 2 * right / np.maximum(predicted + gold, 1)


def values(metric, scores):
    """The metric of each seed, (seeds, n[, 3]) -> (seeds,)."""
    return scores.mean(axis=1) if metric == "accuracy" else f1(scores.sum(axis=1))


def value_and_error(metric, scores):
    """Mean over seeds and its standard error over examples, from (seeds, n[, 3]).

    Accuracy: each example is averaged over the seeds first; one seed gives sqrt(p (1 - p) / n).
    Tagging: bootstrap over sentences.
    """
    if metric == "accuracy":
        error = scores.mean(axis=0).std() / scores.shape[1] ** 0.5
    else:
        error = _resampled_f1(scores).std()
    return float(values(metric, scores).mean()), float(error)


def paired_difference(metric, a, b):
    """Model a minus model b on the same examples, with a 95 % interval.

    Accuracy: each example is averaged over the seeds first, then the normal interval of the per-example differences.
    Tagging: paired bootstrap over sentences (both models see the same resamples), percentile interval.
    The interval says what other test examples would change; `seed_spread`, beside it, what other seeds would.

    Args:
        metric: of METRICS.
        a, b: scores, (n[, 3]) or (seeds, n[, 3]).
    Returns:
        dict: `difference`, `low`, `high`, `se`, `n`, `seed_spread` (standard deviation of the per-seed differences;
        None with one seed, or with two unequal numbers of seeds).
    """
    num_axes = 2 if metric == "accuracy" else 3
    a, b = (scores if scores.ndim == num_axes else scores[None] for scores in (a, b))
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"`a` and `b` must score the same examples. Received: {a.shape[1]} and {b.shape[1]}."
        )
    values_a, values_b, num_examples = values(metric, a), values(metric, b), a.shape[1]
    difference = values_a.mean() - values_b.mean()
    if metric == "accuracy":
        error = (a.mean(axis=0) - b.mean(axis=0)).std() / num_examples**0.5
        low, high = difference - Z95 * error, difference + Z95 * error
    else:
        resampled = _resampled_f1(a) - _resampled_f1(b)
        error, (low, high) = resampled.std(), np.percentile(resampled, [2.5, 97.5])
    numbers_of_seeds = {len(a), len(b)} - {1}
    return {
        "difference": float(difference),
        "low": float(low),
        "high": float(high),
        "se": float(error),
        "n": num_examples,
        "seed_spread": float((values_a - values_b).std(ddof=1))
        if len(numbers_of_seeds) == 1
        else None,
    }


def _resampled_f1(counts):
    """Mean F1 over seeds in each of 1,000 resamples of the sentences, the same ones for every model of n sentences."""
    generator, n = np.random.default_rng(0), counts.shape[1]
    means = []
    for _ in range(NUM_RESAMPLES):
        times_drawn = np.bincount(generator.integers(0, n, n), minlength=n)
        means.append(f1(np.tensordot(counts, times_drawn, axes=(1, 0))).mean())
    return np.array(means)


def agreement(a, b):
    """Share of equal predictions (tagging: of words) of two models, 0-1."""
    return float(np.mean(np.hstack(a) == np.hstack(b)))


def class_f1(confusion):
    """F1 of each class, (classes, classes) -> (classes,); nan for a class that occurs on neither side.

    `class_f1(confusion)[1]` is the F1 that GLUE reports for MRPC.
    """
    right, predicted, gold = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    return np.where(predicted + gold, f1(np.stack([right, predicted, gold], axis=-1)), np.nan)


def pack_correct(scores):
    """Scores of one seed as a short hex string: one bit per example, or three numbers per sentence for counts, of one
    byte each, or of two where one is above 255."""
    if scores.ndim == 1:
        return np.packbits(scores).tobytes().hex()
    return scores.astype("u1" if scores.max(initial=0) < 256 else "<u2").tobytes().hex()


def unpack_correct(text, n):
    """Inverse of `pack_correct`: bool (n,) or int (n, 3), told apart by the length."""
    data = np.frombuffer(bytes.fromhex(text), np.uint8)
    for number, kind in ((3, "u1"), (6, "<u2")):
        if len(data) == number * n:
            return data.view(kind).reshape(n, 3).astype(np.int64)
    if len(data) != -(-n // 8):
        raise ValueError(f"`text` must hold {n} packed scores. Received: {len(data)} bytes.")
    return np.unpackbits(data, count=n).astype(bool)
