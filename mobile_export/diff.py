"""What changes for users when one exported file takes the place of another: answers, accuracy, bytes, time."""

import itertools
import os
from functools import partial
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

NUM_TIMED = 200  # texts


def read_file(path):
    """(what model.json tells of an exported file, its labels, its `Tokenizer`).

    Raises ValueError if model.json does not stand beside it, or tells of another file.
    """
    path, about = Path(path), contract.read_model(Path(path).parent)
    known = {row["path"]: row["sha256"] for row in about["files"]}
    if known.get(path.name) != sha256_of(path):
        raise ValueError(
            f"{path}: the {contract.MODEL} beside it must tell of this file. Received: {', '.join(known)}, or other bytes. "
            "Copy the whole folder again, or export the model again."
        )
    cases, keys = about["tokenizer"], ("strip_accents", "split_chinese", "truncation_side")
    kinds = ("content", "single_word", "normalized")
    whole = cases["never_split"]
    tokenizer = Tokenizer(
        read_vocab(path.with_name(contract.VOCABULARY), keep=True),
        cases["lowercase"],
        added=[{kind: word[kind] for kind in kinds} for word in whole if not word["special"]],
        special_in_text=any(word["special"] for word in whole),
        **{key: cases[key] for key in keys},
    )
    return (
        about,
        tuple(path.with_name(contract.LABELS).read_text("utf-8").split("\n")[:-1]),
        tokenizer,
    )


def opened(path):
    """An exported file as an object with `predict(texts)`, `task`, `labels`, by what stands beside it alone.

    Raises ValueError if its folder has no model.json, or that one is of another file.
    """
    about, labels, tokenizer = read_file(path)
    runner = open_model(path, os.cpu_count())
    if len(labels) != about["num_labels"] or runner.vocab_size != len(tokenizer.vocab):
        raise ValueError(
            f"{path}: model.json, labels.txt and vocab.txt must be its own. Export it again."
        )

    def forward(encodings, _):
        return [logits_of(about["task"], rows) for rows in runner.forward(encodings)]

    model = SimpleNamespace(
        task=about["task"],
        labels=labels,
        tokenizer=tokenizer,
        threshold=about["threshold"],
        history=[{"method": "export", "words": about["words"]}],
        config=SimpleNamespace(max_position_embeddings=runner.sequence_length),
        forward=forward,
        runner=runner,
    )
    model.predict = MethodType(TaskModel.predict, model)
    return model


def compare_files(old, new, texts, labels=None):
    """Two exported files on the same texts.

    Args:
        old, new: paths of .tflite or .onnx files, each beside its model.json.
        texts, labels: as in `Split`; labels None: unknown.
    Returns:
        dict: `task`, `num_examples`, `agreement` (0-1, as in `measure.accuracy.agreement`; of numbers None), `changed` (list of dicts `text`, `old`,
        `new` and, where it is known, `right`; numbers: those that differ by more than .05 of their largest), `old_bytes`, `new_bytes`, `time` (of the
        new file on the texts, old = 1), `device`, and with labels `metric`, `old_value`, `new_value` and, of new - old, `difference`, `low`, `high`.
    Raises:
        ValueError: if the files are not for one task and the same labels.
    """
    models = [opened(path) for path in (old, new)]
    told = [f"{model.task} of {', '.join(model.labels[:20])}" for model in models]
    if models[0].task != models[1].task or models[0].labels != models[1].labels:
        raise ValueError(
            "Files to compare must be for one task, and the same labels in the same order. Received: "
            f"{told[0]}, and {told[1]}. Choose two versions of one model."
        )
    task, names, kind = models[0].task, models[0].labels, TASKS[models[0].task]
    answers = [_answers(model, texts) for model in models]
    if kind.answer == "number":
        limit = 0.05 * np.abs(answers[0]).max(initial=1e-9)
        places = np.flatnonzero(np.abs(answers[1] - answers[0]) > limit)
    else:
        places = [k for k, pair in enumerate(zip(*answers)) if not np.array_equal(*pair)]
    words = partial(_in_words, kind, names)
    changed = [
        {"text": texts[k], "old": words(answers[0][k]), "new": words(answers[1][k])}
        | ({"right": words(labels[k], True)} if labels else {})
        for k in places
    ]
    result = {
        "task": task,
        "num_examples": len(texts),
        "agreement": agreement(*answers),
        "changed": changed,
        "old_bytes": Path(old).stat().st_size,
        "new_bytes": Path(new).stat().st_size,
        "time": _time(models, texts),
        "device": device(),
    }
    if labels:
        before, after = (score_predictions(task, names, labels, each) for each in answers)
        change = paired_difference(before["metric"], after["scores"], before["scores"])
        result |= {"metric": before["metric"], "old_value": before["value"]}
        result |= {"new_value": after["value"]}
        result |= {key: change[key] for key in ("difference", "low", "high")}
    return result


def _answers(model, texts):
    """Of each text: the place of its name, its names (bool), its number, or the names of its words."""
    if TASKS[model.task].per_token:
        found = model.predict([text.split(" ") for text in texts])
        return [[tag or "O" for tag in tags] for _, tags in found]
    return decided(model.task, model.predict(texts), model.threshold)


def _in_words(kind, names, answer, is_label=False):
    """An answer, or a label of the data, as JSON has it: a name, names, or a number."""
    if kind.per_token:
        return [names[tag] for tag in answer] if is_label else answer
    if kind.answer == "number":
        return float(answer)
    if kind.answer == "sigmoid" and not is_label:
        answer = np.flatnonzero(answer)
    return in_words(names, answer)


def _time(models, texts):
    """Time of the second on the first texts as a share of that of the first, in turns, one thread for both..."""
    calls = []
    for model in models:
        encode, length = encoding(model.task, model.tokenizer), model.runner.sequence_length
        inputs = itertools.cycle(map(model.runner.inputs, encode(texts[:NUM_TIMED], length)))
        calls.append(lambda run=model.runner.run, inputs=inputs: run(next(inputs)))
    old, new = interleave(calls, runs=len(texts[:NUM_TIMED])).sum(axis=1)
    return float(new / old)
