"""A BERT-base, the model that most users bring: 12 layers, width 768, 21,128 pieces, random weights; 200 texts, 64 pieces.

Each figure comes from a process of its own, whose peak memory is told. Processor seconds of all cores are counted, since
other programs take less of them than of the time on the wall.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks import figure

NUM_TEXTS, LENGTH, BATCH = 200, 64, 50


def base():
    """(model, texts of random words, of 10 to 80 pieces)."""
    from keras_compress.bert.config import BertConfig
    from keras_compress.bert.task_model import TaskModel
    from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer

    config, random = BertConfig(vocab_size=21_128), np.random.default_rng(0)
    words = [f"word{i}" for i in range(config.vocab_size - len(SPECIAL_PIECES))]
    model = TaskModel(config, Tokenizer([*SPECIAL_PIECES, *words]), "classification", ["no", "yes"])
    return model, [" ".join(random.choice(words, random.integers(8, 79))) for _ in range(NUM_TEXTS)]


def seconds(work):
    """Processor seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def child(formats):
    """Prints processor seconds and the peak memory, in GB: of an export, or of `predict` if there are no formats."""
    from keras_compress.backend import tf
    from keras_compress.datasets.dataset import Split
    from mobile_export.convert import export

    model, texts = base()
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    encodings = model.tokenizer.encode(texts, LENGTH)
    batches = [model.pad(encodings[n : n + BATCH], LENGTH) for n in range(0, NUM_TEXTS, BATCH)]
    run = tf.function(lambda inputs: model.model(inputs, training=False))

    def plain():
        for batch in batches:
            run(batch).numpy()

    def export_all():
        with tempfile.TemporaryDirectory() as folder:
            dev = Split(texts, [0] * NUM_TEXTS)
            export(model, folder, formats, sequence_length=LENGTH, dev=dev, allow_drift=True)

    def predict():
        model.predict(texts, BATCH, LENGTH)

    plain(), predict()
    plain_seconds, wall = seconds(plain), time.perf_counter()
    measured = seconds(export_all if formats else predict)
    wall = time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([plain_seconds, measured, wall, loaded / 1e6, peak / 1e6]))


def in_a_child(what, *formats):
    """Two figures, of time and of memory."""
    code = f"from tests.benchmarks.base import child; child({formats})"
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    answer = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    plain, measured, wall, loaded, peak = json.loads(answer.stdout)
    name = ", ".join(filter(None, (what, "+".join(formats))))
    return [
        figure(
            name,
            measured / plain,
            f"{measured:.0f} processor seconds, {wall:.0f} s on the wall",
            f"plain forward pass of the same {NUM_TEXTS} texts, {LENGTH} pieces: {plain:.0f} s",
        ),
        figure(
            f"{name}, memory", peak / loaded, f"peak {peak:.2f} GB", f"model loaded {loaded:.2f} GB"
        ),
    ]


def export_base():
    """`export` with comparison over the plain forward pass: two .tflite files, then two .onnx files."""
    return [
        *in_a_child("export_base", "float32", "int8"),
        *in_a_child("export_base", "onnx_float32", "onnx_int8"),
    ]


def predict_base():
    """`TaskModel.predict` over the plain forward pass: less, where texts of one length stand in one batch."""
    return in_a_child("predict_base")


FIGURES = {"export_base": export_base, "predict_base": predict_base}
