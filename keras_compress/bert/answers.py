"""From logits to answers, and from labels to what the losses read, as a task's row in tasks.py says."""

import numpy as np
from scipy.special import expit, logit, softmax

from keras_compress.bert.tasks import TASKS, THRESHOLD


def answers_of(task, logits):
    """Probabilities of names, or numbers: float (..., labels) -> the same."""
    if TASKS[task].answer == "number":
        return logits
    return softmax(logits, axis=-1) if TASKS[task].answer == "softmax" else expit(logits)


def logits_of(task, answers):
    """Logits that give these answers (of a softmax: some of them)."""
    tiny = np.finfo(np.float32).tiny
    if TASKS[task].answer == "number":
        return answers
    if TASKS[task].answer == "sigmoid":
        return logit(np.clip(answers, tiny, 1 - 1e-7))
    return np.log(np.maximum(answers, tiny))


def targets(task, labels, num_labels):
    """Labels of texts as the losses read them: whole (n,) of one name each, else float (n, labels)."""
    if TASKS[task].answer == "number":
        return np.asarray(labels, np.float32)[:, None]
    if TASKS[task].answer != "sigmoid":
        return np.asarray(labels, np.int32)
    rows = np.zeros((len(labels), num_labels), np.float32)  # 1 for each name of a text
    for row, names in zip(rows, labels):
        row[names] = 1
    return rows


def decided(task, answers, threshold=THRESHOLD):
    """What answers say: of (..., labels) the place of a name (...) or whether each name holds; numbers say themselves."""
    if TASKS[task].answer == "number":
        return answers
    return answers.argmax(-1) if TASKS[task].answer == "softmax" else answers >= threshold


def in_words(labels, label):
    """A label of a data set as people write it: its name, its names, or the number."""
    if isinstance(label, float):
        return f"{label:g}"
    named = [labels[place] for place in np.atleast_1d(label).astype(int)]
    return named[0] if np.ndim(label) == 0 else named


def told(task_model, texts, predicted):
    """What `predict` gave for texts as (rows for machines, lines for people)."""
    labels, kind = task_model.labels, TASKS[task_model.task]
    if kind.per_token:
        rows = [{"words": words, "labels": tags} for words, tags in predicted]
        return rows, [
            " ".join(f"{word}/{label or '(cut off)'}" for word, label in zip(*pair))
            for pair in predicted
        ]
    if kind.answer == "number":
        rows = [{"text": text, "score": score} for text, score in zip(texts, predicted.tolist())]
        return rows, ["{score:.4g}\t{text}".format(**row) for row in rows]
    if kind.answer == "sigmoid":
        rows = []
        for text, row in zip(texts, predicted.tolist()):
            names = [name for name, p in zip(labels, row) if p >= task_model.threshold]
            rows.append({"text": text, "labels": names, "probabilities": dict(zip(labels, row))})
        return rows, [f"{','.join(row['labels'])}\t{row['text']}" for row in rows]
    rows = [
        {"text": text, "label": labels[row.argmax()], "probability": float(row.max())}
        for text, row in zip(texts, predicted)
    ]
    return rows, ["{label}\t{probability:.3f}\t{text}".format(**row) for row in rows]
