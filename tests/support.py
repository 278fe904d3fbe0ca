"""What several tests use: tiny models of every kind, tiny data, short training, a process of its own."""

import contextlib
import functools
import io
import os
import subprocess
import sys
from pathlib import Path

from keras_compress.backend import tf
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import Tokenizer
from keras_compress.cli import main
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.training.distill import Outputs, named_outputs, outputs_read
from keras_compress.training.settings import Training
from tests.bert import tiny

ROOT = Path(__file__).parents[1]
CLASSES = tiny.LABELS["classification"]
TRAINING = Training(
    epochs=2, batch_size=4, max_length=16, learning_rate=1e-2, warmup=0.0, evaluations=1
)
LENGTHS = [
    "a",
    "the cat",
    "unbelievable dogs sat",
    "我听音乐",
    "the cat sat on the mat",
    "dog",
    "a cafe, the mat !",
    "x 12",
]


def data(task="classification", n=12, dev_labels=None):
    """Labelled texts of three words, the same in each split."""
    texts = [
        f"{a} {b} {c}"
        for a in ("the", "a")
        for b in ("cat", "dog", "mat")
        for c in ("sat", "on", "x")
    ][:n]
    if task == "matching":
        texts = [(text, text[::-1]) for text in texts]
    classes = len(tiny.LABELS[task])  # three classes: the last word tells which
    labels = [[k % 3, 0, 1] if task == "tagging" else k % classes for k in range(n)]
    if task == "multilabel":
        labels = [([0], [0, 2], [])[k % 3] for k in range(n)]
    elif task == "regression":
        labels = [k % 3 - 1.5 for k in range(n)]
    train, dev = Split(texts, labels), Split(texts, dev_labels or labels)
    return Dataset("tiny", task, tiny.LABELS[task], train, dev, train)


def lengths():
    """Texts of many lengths, so that buckets, padding and order all matter."""
    split = Split(LENGTHS, [k % 3 for k in range(len(LENGTHS))])
    return Dataset("lengths", "classification", CLASSES, split, split)


def unlabelled():
    """Running text: 12 sentences in two documents."""
    texts = data().train.texts
    documents = [k // 6 for k in range(len(texts))]
    return Dataset(
        "prose", "unlabelled", (), Split(texts, documents), Split(texts[3:9], documents[3:9])
    )


def still(task="classification", **changes):
    """A tiny BERT without dropout."""
    return tiny.model(task, dropout=0.0, attention_dropout=0.0, **changes)


@functools.cache
def shared_still(task="classification", **changes):
    """One `still` for all tests that only look at it, or give it to what leaves a model as it was."""
    return still(task, **changes)


def bilstm(task="classification", seed=3):
    config = tiny.config(architecture="bilstm", num_layers=1, intermediate_size=5, pooling="mean")
    return TaskModel(config, tiny.tokenizer(), task, tiny.LABELS[task], seed=seed)


def masked_lm(**changes):
    config = tiny.config(dropout=0.0, attention_dropout=0.0, pooling="cls", **changes)
    return TaskModel(config, tiny.tokenizer(), "mlm", (), seed=1)


def foreign(task="classification", labels=CLASSES):
    """A model with another vocabulary."""
    vocab = [*tiny.VOCAB[:5], *reversed(tiny.VOCAB[5:]), "extra"]
    config = tiny.config(vocab_size=len(vocab), dropout=0.0, attention_dropout=0.0, pooling="cls")
    return TaskModel(config, Tokenizer(vocab, True), task, labels, seed=7)


def inputs_of(model, texts=tiny.TEXTS, length=None):
    """A batch of texts as the model's inputs, padded to `length`."""
    encodings = model.tokenizer.encode(texts, 16)
    return {name: tf.constant(value) for name, value in model.pad(encodings, length).items()}


def in_new_process(code, *arguments):
    """Runs Python code; returns what `subprocess.run` gives."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def in_this_process(command, **_):
    """In place of `subprocess.check_output`: a command of keras_compress without the start of a process."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([str(part) for part in command[command.index("keras_compress") + 1 :]]) == 0
    return out.getvalue()


def stages_of(module, monkeypatch, teacher, dataset, /, compress="compress", **settings):
    """What a method hands to the engine, stage by stage, without training.

    Returns:
        list of dicts: teacher, student, dataset, losses, and what else `distill` was given.
    """
    stages = []

    def distill(teacher, student, dataset, losses, **given):
        stages.append(
            dict(teacher=teacher, student=student, dataset=dataset, losses=losses, **given)
        )
        return student

    with monkeypatch.context() as patch:
        patch.setattr(module, "distill", distill)
        getattr(module, compress)(teacher, dataset, **{"training": TRAINING, **settings})
    return stages


def values_of(losses, T, S, labels=None, mask=None):
    """{name: value} of a stage's losses, before their weights, on outputs by name."""
    return {name: loss(Outputs(T), Outputs(S), labels, mask) for name, (_, loss) in losses.items()}


def values_on(stage, texts=tiny.TEXTS, length=None, labels=(0, 1, 2, 0)):
    """The same on texts, run through the stage's teacher and student."""
    teacher, student, losses = stage["teacher"], stage["student"], stage["losses"]
    functions = [loss for _, loss in losses.values()]
    keys = outputs_read(functions, teacher, student, any_heads=stage.get("any_heads", False))
    inputs = inputs_of(teacher, texts, length)
    T, S = (named_outputs(m, k)(inputs) for m, k in zip((teacher, student), keys))
    return values_of(losses, T, S, tf.constant(labels), inputs["input_mask"])
