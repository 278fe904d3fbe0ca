"""What changes for users when one exported file takes the place of another: answers, accuracy, bytes, time."""

import itertools
from pathlib import Path
from types import MethodType, SimpleNamespace

import numpy as np

from keras_compress.bert.answers import decided, in_words, logits_of
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tasks import TASKS, encoding
from keras_compress.bert.tokenizer import Tokenizer, read_vocab
from keras_compress.files import sha256_of
from keras_compress.measure.accuracy import agreement, paired_difference, score_predictions
from mobile_export import contract
from mobile_export.benchmark import device, interleave
from mobile_export.ort import open_model

NUM_TIMED = 50  # texts, three times each
NUMBER_CHANGES = 0.05  # as a share of the largest number


def opened(path):
    """An exported file as an object with `predict(texts)`, `task`, `labels`, `tokenizer`, by what stands beside it alone.

    Raises ValueError if no model.json stands beside it, or one that does not tell of this file.
    """
    path, about = Path(path), contract.read_model(Path(path).parent)
    known = {row["path"]: row["sha256"] for row in about["files"]}
    if known.get(path.name) != sha256_of(path):
        raise ValueError(
            f"{path}: the model.json beside it must tell of this file. Received: {', '.join(known)}, or other "
            "bytes. Copy the whole folder again, or export the model again."
        )
    runner, cases = open_model(path), about["tokenizer"]
    kinds = ("content", "single_word", "normalized")
    added = [{kind: x[kind] for kind in kinds} for x in cases["never_split"] if not x["special"]]
    tokenizer = Tokenizer(
        read_vocab(path.with_name(contract.VOCABULARY), keep=True),
        added=added,
        special_in_text=len(added) < len(cases["never_split"]),
        **{key: cases[key] for key in contract.SWITCHES},
    )
    model = SimpleNamespace(
        task=about["task"],
        labels=tuple(path.with_name(contract.LABELS).read_text("utf-8").split("\n")[:-1]),
        tokenizer=tokenizer,
        threshold=about["threshold"],
        history=[{"method": "export", "words": about["words"]}],
        config=SimpleNamespace(max_position_embeddings=runner.sequence_length),
        forward=lambda texts, _: [logits_of(about["task"], row) for row in runner.forward(texts)],
        runner=runner,
        num_bytes=path.stat().st_size,
    )
    model.predict = MethodType(TaskModel.predict, model)
    return model


def compare_files(old, new, texts, labels=None):
    """Two exported files on the same texts.

    Args:
        old, new: `opened` files. texts, labels: as in `Split`; labels None: unknown.
    Returns:
        dict: `task`, `num_examples`, `agreement` (as in `measure.accuracy.agreement`; of numbers None), `changed` (list
        of dicts `text`, `old`, `new` and, where it is known, `right`; of numbers those that move by NUMBER_CHANGES),
        `old_bytes`, `new_bytes`, `time` (of the new file on the texts, old = 1), `device`; and with labels `metric`,
        `old_value`, `new_value` and, of new - old, `difference` with `low` and `high`, its 95 % interval.
    Raises:
        ValueError: if the files are not for one task and the same labels.
    """
    if (old.task, old.labels) != (new.task, new.labels):
        told = (f"{each.task} of {', '.join(each.labels[:20])}" for each in (old, new))
        raise ValueError(
            "Files to compare must be for one task, and the same labels in the same order. Received: "
            f"{'; and '.join(told)}. Choose two versions of one model."
        )
    kind, answers = TASKS[old.task], [_answers(model, texts) for model in (old, new)]
    if kind.answer == "number":
        moved = np.abs(np.subtract(*answers))
        places = np.flatnonzero(moved > NUMBER_CHANGES * np.abs(answers[0]).max())
    else:
        places = [k for k, pair in enumerate(zip(*answers)) if not np.array_equal(*pair)]
    changed = []
    for k in places:
        before, after = (_in_words(old, answer[k]) for answer in answers)
        changed.append({"text": texts[k], "old": before, "new": after})
        if labels and kind.per_token:
            changed[-1]["right"] = [old.labels[tag] for tag in labels[k]]
        elif labels:
            is_number = kind.answer == "number"
            changed[-1]["right"] = labels[k] if is_number else in_words(old.labels, labels[k])
    result = {
        "task": old.task,
        "num_examples": len(texts),
        "agreement": agreement(*answers),
        "changed": changed,
        "old_bytes": old.num_bytes,
        "new_bytes": new.num_bytes,
        "time": _time((old, new), texts[:NUM_TIMED]),
        "device": device(),
    }
    if labels:
        a, b = (score_predictions(old.task, old.labels, labels, each) for each in answers)
        change = paired_difference(a["metric"], b["scores"], a["scores"])
        result |= {"metric": a["metric"], "old_value": a["value"], "new_value": b["value"]}
        result |= {key: change[key] for key in ("difference", "low", "high")}
    return result


def _answers(model, texts):
    """Of each text: the place of its name, its names (bool), its number, or the names of its words."""
    if TASKS[model.task].per_token:
        found = model.predict([text.split(" ") for text in texts])
        return [[tag or "O" for tag in tags] for _, tags in found]
    return decided(model.task, model.predict(texts), model.threshold)


def _in_words(model, answer):
    """An answer as JSON has it: a name, names, or a number."""
    kind = TASKS[model.task]
    if kind.per_token or kind.answer == "number":
        return answer if kind.per_token else float(answer)
    return in_words(model.labels, np.flatnonzero(answer) if kind.answer == "sigmoid" else answer)


def _time(models, texts):
    """Time of the second file on the texts as a share of that of the first, in turns, on one thread."""
    calls = []
    for model in models:
        encode, length = encoding(model.task, model.tokenizer), model.runner.sequence_length
        inputs = itertools.cycle(map(model.runner.inputs, encode(texts, length)))
        calls.append(lambda run=model.runner.run, inputs=inputs: run(next(inputs)))
    times = interleave(calls, runs=3 * len(texts)).reshape(2, 3, -1)
    old, new = times.min(axis=1).sum(axis=1)  # what other programs take does not count
    return float(new / old)
