"""Accuracy, F1 and correlation with their uncertainty, and paired comparisons of models on the same examples.

What is kept per example are `scores`: right or wrong (n,) for classification and matching; counts (n, 3) of right,
predicted and gold entities for tagging (of tags, where these mark no entities) and of names for multilabel; and the
predicted and the gold number (n, 2) for regression. Everything below is computed from them, so a study can keep them
(packed, see `pack_correct`) and compare models later. Several seeds of one model are a leading axis: (seeds, n[, 2 or 3]).
"""

import itertools
import warnings

import numpy as np
from scipy.stats import rankdata

from keras_compress.bert.answers import decided, targets
from keras_compress.bert.tasks import TASKS, THRESHOLD
from keras_compress.measure.tagging import entity_counts, marks_entities, word_counts
from keras_compress.method import entry_at_work, untrained

# How reports call what is measured.
METRICS = {
    "accuracy": "accuracy",
    "entity_f1": "entity F1",
    "token_accuracy": "token accuracy",
    "micro_f1": "micro F1",
    "pearson": "Pearson correlation",
}
NUM_RESAMPLES = 1000
THRESHOLDS = np.arange(1, 20) / 20  # of which one is chosen on dev
Z95 = 1.96


def evaluate(task_model, split, choose_threshold=False, speed=None):
    """Measure a model on a labelled split; see `score_predictions` for what comes back.

    `choose_threshold`: of a model that has one, set it first to the best of THRESHOLDS on this split.
    `speed`: of a model with exits, as in `predict`; the result has `layers`, too, where texts left. None: all layers.
    """
    if split is None:
        raise ValueError(
            "`split` must have labels to be evaluated. Received: none. Use a labelled dev or test split."
        )
    early = {} if speed is None else {"speed": speed}  # not all that predicts has exits
    if TASKS[task_model.task].per_token:
        predicted = task_model.predict([text.split(" ") for text in split.texts], **early)
        predicted = [[tag or "O" for tag in tags] for _, tags in predicted]  # None: cut off
    else:
        predicted = task_model.predict(split.texts, **early)
        if early:
            predicted, layers = predicted
        if choose_threshold and TASKS[task_model.task].answer == "sigmoid":
            gold = targets(task_model.task, split.labels, len(task_model.labels)) > 0
            found = [f1(_counts(gold, predicted >= each)) for each in THRESHOLDS]
            best = max(zip(found, -abs(THRESHOLDS - THRESHOLD), THRESHOLDS))  # ties: nearest to 0.5
            task_model.threshold = float(best[-1])
        predicted = decided(task_model.task, predicted, task_model.threshold)
    result = score_predictions(task_model.task, task_model.labels, split.labels, predicted)
    _doubt_order(task_model, result)
    return result if speed is None else {**result, "layers": layers}


def _doubt_order(task_model, result):
    """Warns if a head that was trained elsewhere is far worse than the majority: its classes may be in another order."""
    labels, history = task_model.labels, task_model.history
    elsewhere = history and history[0]["method"] == "load" and not untrained(task_model)
    if not elsewhere or entry_at_work() or any("training" in entry for entry in history):
        return
    if result["metric"] != "accuracy" or result["n"] < 20:
        return
    majority = result["confusion"].sum(axis=1).max() / max(result["confusion"].sum(), 1)
    low = 0.4 if len(labels) == 2 else majority / 2
    if result["value"] < low:
        # Without figures, and from this line: Python shows a text once per line, not once per exported file.
        warnings.warn(
            "Far fewer texts are right than the most frequent class alone would give. "
            f"The labels may be in another order than {', '.join(labels[:2])}, ... Where the model's files do not name "
            f"them, give its order (`--labels {','.join(labels[1::-1])}`); else correct `id2label` in its config.json.",
            stacklevel=1,
        )


def score_predictions(task, labels, gold, predicted):
    """Compare predictions with the truth.

    Args:
        task: of `bert.tasks.TASKS`, with labels.
        labels: label names; ids index them.
        gold: labels per text, as in `Split`.
        predicted: label id per text; tagging: list of label *names* per text, one per word; multilabel: bool (n, labels);
            regression: float (n,).
    Returns:
        dict: `metric` (of METRICS; tagging: "entity_f1" or "token_accuracy", as the labels are), `value` and `se` (0-1), `n`,
        `predictions`, `scores` (module docstring), and what stands beside the metric: `macro_f1` (over names; tagging:
        over tags), for regression `spearman` and `mse`. With one label a text or word `confusion` (gold x predicted).
    """
    metric = TASKS[task].metric
    if TASKS[task].answer == "number":
        scores = np.stack([predicted, gold], axis=-1).astype(np.float32)
        ranks = np.apply_along_axis(rankdata, 0, scores)
        beside = {
            "spearman": float(pearson(_moments(ranks).sum(axis=0))),
            "mse": float(np.mean(np.square(np.diff(scores)))),
        }
        return _result(metric, scores, predicted, beside)
    if TASKS[task].answer == "sigmoid":
        truth = targets(task, gold, len(labels)) > 0
        scores, of_names = (_counts(truth, predicted, axis) for axis in (1, 0))
        beside = {"macro_f1": float(np.nanmean(_f1_of_each(of_names)))}
        return _result(metric, scores, predicted, beside)
    if TASKS[task].per_token:
        by_entity = marks_entities(labels)
        metric = metric if by_entity else "token_accuracy"
        counts = entity_counts if by_entity else word_counts
        gold_tags = [[labels[label] for label in row] for row in gold]
        scores = np.array([counts(*pair) for pair in zip(gold_tags, predicted, strict=True)])
        tags = [*itertools.chain(*predicted)]
        known = [tag in labels for tag in tags]
        words = np.concatenate(gold)[known], [labels.index(tag) for tag in tags if tag in labels]
    else:
        words, scores = (gold, predicted), np.equal(gold, predicted)
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, words, 1)
    beside = {"confusion": confusion, "macro_f1": float(np.nanmean(class_f1(confusion)))}
    return _result(metric, scores, predicted, beside)


def _result(metric, scores, predicted, beside):
    value, se = value_and_error(metric, scores[None])
    told = {"metric": metric, "value": value, "se": se, "n": len(scores)}
    return {**told, "predictions": predicted, "scores": scores, **beside}


def _counts(gold, predicted, axis=None):
    """Right, predicted and gold along an axis of two bool (n, labels): int (..., 3)."""
    return np.stack([each.sum(axis) for each in (gold & predicted, predicted, gold)], axis=-1)


def f1(counts):
    """Micro F1, (..., 3) -> (...): 2 right / (predicted + gold); 0 where there is nothing."""
    right, predicted, gold = np.moveaxis(counts, -1, 0)
    return 2 * right / np.maximum(predicted + gold, 1)


def _moments(pairs):
    """What sums to a correlation: (..., 2) -> (..., 6). Numbers are taken from the first, so that equal ones give 0."""
    x, y = np.moveaxis(pairs.astype(np.float64) - pairs[..., :1, :], -1, 0)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)


def pearson(sums):
    """Correlation from sums of `_moments`, (..., 6) -> (...); 0 where one side says the same for all texts."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    of_x, of_y = n * xx - x * x, n * yy - y * y
    varies = (of_x > 1e-12 * n * xx) & (of_y > 1e-12 * n * yy)  # not by rounding alone
    return np.where(varies, (n * xy - x * y) / np.sqrt(np.where(varies, of_x * of_y, 1)), 0.0)


def _parts(metric, scores):
    """(what is summed over examples, what makes the metric of the sums)."""
    return (_moments(scores), pearson) if metric == "pearson" else (scores, f1)


def values(metric, scores):
    """The metric of each seed, (seeds, n[, 2 or 3]) -> (seeds,)."""
    if metric == "accuracy":
        return scores.mean(axis=1)
    parts, metric_of = _parts(metric, scores)
    return metric_of(parts.sum(axis=1))


def value_and_error(metric, scores):
    """Mean over seeds and its standard error over examples, from (seeds, n[, 2 or 3]).

    Accuracy: each example is averaged over the seeds first; one seed gives sqrt(p (1 - p) / n).
    Others: bootstrap over texts.
    """
    if metric == "accuracy":
        error = scores.mean(axis=0).std() / scores.shape[1] ** 0.5
    else:
        error = _resampled(metric, scores).std()
    return float(values(metric, scores).mean()), float(error)


def paired_difference(metric, a, b):
    """Model a minus model b on the same examples, with a 95 % interval.

    Accuracy: each example is averaged over the seeds first, then the normal interval of the per-example differences.
    Others: paired bootstrap over texts (both models see the same resamples), percentile interval.
    The interval says what other test examples would change; `seed_spread`, beside it, what other seeds would.

    Args:
        metric: of METRICS.
        a, b: scores, (n[, 2 or 3]) or (seeds, n[, 2 or 3]).
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
        resampled = _resampled(metric, a) - _resampled(metric, b)
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


def _resampled(metric, scores):
    """Mean metric over seeds in each of 1,000 resamples of the texts, the same ones for every model of n texts."""
    generator, n, means = np.random.default_rng(0), scores.shape[1], []
    parts, metric_of = _parts(metric, scores)
    for _ in range(NUM_RESAMPLES):
        times_drawn = np.bincount(generator.integers(0, n, n), minlength=n)
        means.append(metric_of(np.tensordot(parts, times_drawn, axes=(1, 0))).mean())
    return np.array(means)


def agreement(a, b):
    """Share of equal predictions (tagging: of words, multilabel: of names) of two models, 0-1; None for numbers."""
    if np.hstack(a).dtype.kind == "f":
        return None
    return float(np.mean(np.hstack(a) == np.hstack(b)))


def class_f1(confusion):
    """F1 of each class, (classes, classes) -> (classes,); nan for a class that occurs on neither side.

    `class_f1(confusion)[1]` is the F1 that GLUE reports for MRPC.
    """
    right, predicted, gold = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    return _f1_of_each(np.stack([right, predicted, gold], axis=-1))


def _f1_of_each(counts):
    return np.where(counts[..., 1] + counts[..., 2], f1(counts), np.nan)


def pack_correct(scores):
    """Scores of one seed as a short hex string: one bit per example; for counts three numbers per text, of one byte each,
    or of two where one is above 255; for numbers two of 4 bytes per text."""
    if scores.ndim == 1:
        return np.packbits(scores).tobytes().hex()
    if scores.dtype.kind == "f":
        return scores.astype("<f4").tobytes().hex()
    return scores.astype("u1" if scores.max(initial=0) < 256 else "<u2").tobytes().hex()


def unpack_correct(text, n):
    """Inverse of `pack_correct`: bool (n,), int (n, 3) or float32 (n, 2), told apart by the length."""
    data = np.frombuffer(bytes.fromhex(text), np.uint8)
    if len(data) == 8 * n:
        return data.view("<f4").reshape(n, 2)
    for number, kind in ((3, "u1"), (6, "<u2")):
        if len(data) == number * n:
            return data.view(kind).reshape(n, 3).astype(np.int64)
    if len(data) != -(-n // 8):
        raise ValueError(f"`text` must hold {n} packed scores. Received: {len(data)} bytes.")
    return np.unpackbits(data, count=n).astype(bool)
