"""The verbs that ask a model: evaluate, predict. What verbs declare and give: verbs.py."""

import itertools
import json
import logging
import sys
from typing import Literal

from keras_compress.bert.tasks import TASKS
from keras_compress.cli.options import Source, Texts
from keras_compress.method import Share

log = logging.getLogger(__name__)
CHUNK = 1024  # texts that `predict` reads, labels and prints at once


def evaluate(
    *,
    source: Source,
    texts: Texts,
    split: Literal["train", "dev", "test"] = "test",
    tflite=None,
    speed: Share | None = None,
):
    """Measure a model, or an exported file with its model, on a labelled split.

    split: train, dev or test
    tflite: an exported file of this model, .tflite or .onnx
    speed: of a model with exits: a text leaves at the first layer of at most this uncertainty, 0 to 1 (default: at
        the last)
    """
    dataset = texts.load()
    dataset.check_splits(split)
    model, dataset = source.load(dataset)
    if tflite and speed is not None:
        raise ValueError(
            "`--speed` belongs to a model, whose layers it skips. Received: `--tflite` beside it. Leave one out."
        )
    if tflite:
        from mobile_export.parity import exported_model

        model = exported_model(tflite, model)
    return evaluated(model, dataset, split, speed)


def predict(
    texts: list[str] = [], *, source: Source, data: Texts, speed: Share | None = None, jsonl=False
):
    """Label texts from the command line, or from stdin, one a line; answers come as texts are read.

    texts: texts; the two of a pair are separated by a tab (default: stdin's lines)
    data: a set with the model's labels, where its files do not tell them
    speed: of a model with exits: a text leaves at the first layer of at most this uncertainty, 0 to 1 (default: at
        the last)
    jsonl: print an object of JSON a line, for many texts; --json prints one list at the end
    """
    model, _ = source.load(data.given(), data.task)
    given = iter(texts or (line.rstrip("\r\n") for line in sys.stdin or ()))
    return _predicted(model, given, speed, jsonl, len(texts) or None)


def _predicted(model, given, speed, jsonl, total):
    """Yields (rows for machines, lines of text) of CHUNK texts each."""
    from tqdm import tqdm

    from keras_compress.bert.answers import told

    texts, pairs = TASKS[model.task].texts, None
    with tqdm(total=total, unit="text", delay=5, leave=False, disable=None) as bar:
        while chunk := [*itertools.islice(given, CHUNK)]:
            if damaged := sum("\ufffd" in text or "\0" in text for text in chunk):
                log.warning(
                    "warning: %d text(s) hold U+FFFD or NUL, which stand for what is not UTF-8",
                    damaged,
                )
            if pairs is None:
                pairs = texts == "pair" or (texts == "either" and "\t" in "".join(chunk))
            for text in chunk if pairs or texts == "either" else ():
                if text.count("\t") != pairs:
                    raise ValueError(
                        f"A pair must be two texts separated by one tab. Received: {text!r:.80}. Write all lines "
                        "so, or none."
                    )
            predicted = model.predict(
                [tuple(x.split("\t")) for x in chunk] if pairs else chunk, speed=speed
            )
            predicted, layers = (predicted, None) if speed is None else predicted
            rows, lines = told(model, chunk, predicted)
            if layers is not None:
                rows = [{**row, "layer": layer} for row, layer in zip(rows, layers.tolist())]
                lines = [f"layer {row['layer']}\t{line}" for row, line in zip(rows, lines)]
            yield rows, [json.dumps(row, ensure_ascii=False) for row in rows] if jsonl else lines
            bar.update(len(chunk))


def evaluated(model, dataset, split, speed=None):
    """(figures, [the same in words]) of a model on a split."""
    from keras_compress.measure.accuracy import evaluate

    result = evaluate(model, getattr(dataset, split), speed=speed)
    beside = {"macro_f1": "macro F1 {:.2%}", "spearman": "Spearman {:.2%}", "mse": "MSE {:.4g}"}
    beside = {key: form for key, form in beside.items() if key in result}
    measured = {key: result[key] for key in ("metric", "value", "se", *beside)}
    figures = {"split": split, **measured, "num_examples": result["n"]}
    if speed is not None:
        figures |= {"speed": speed, "layer": float(result["layers"].mean())}
    form = "{split} {metric} {value:.2%} +- {se:.2%} on {num_examples:,} examples; "
    more = ", ".join(form.format(result[key]) for key, form in beside.items())
    more += "" if speed is None else ", mean layer of exit {layer:.2f}".format(**figures)
    return figures, [form.format(**figures) + more]
