"""Large data: 200,000 rows of 50 pieces encoded, and 100,000 lines through `predict`, by memory beside what is needed anyway."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks import figure

ROOT, ROWS, LINES = Path(__file__).parents[2], 200_000, 100_000
WORDS = [f"word{i}" for i in range(20_000)]


def texts(number, words):
    random = np.random.default_rng(0).integers(0, len(WORDS), (number, words))
    return [" ".join(WORDS[i] for i in row) for row in random.tolist()]


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def model():
    """As small as it gets, so that memory is that of texts and answers."""
    from keras_compress.bert.config import BertConfig
    from keras_compress.bert.task_model import TaskModel
    from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer

    sizes = {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(WORDS) + len(SPECIAL_PIECES), **sizes)
    return TaskModel(config, Tokenizer([*SPECIAL_PIECES, *WORDS]), "classification", ["no", "yes"])


def encode():
    """Prints seconds, MB before, MB at the peak, and MB of the ids alone."""
    from keras_compress.datasets.dataset import Dataset, Split

    split, tokenizer = Split(texts(ROWS, 48), [0, 1] * (ROWS // 2)), model().tokenizer
    data, before, start = (
        Dataset("large", "classification", ("no", "yes"), split),
        peak_mb(),
        time.time(),
    )
    lengths = data.lengths("train", tokenizer, 64)
    print(json.dumps([time.time() - start, before, peak_mb(), 8 * int(lengths.sum()) / 1e6]))


def predict(folder, lines):
    """Runs `predict --jsonl` on a file's first lines; prints seconds to the first answer, to the last, MB at the peak."""
    code = """
import resource, sys
from keras_compress.cli import main
main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, file=sys.stderr)
"""
    command = [sys.executable, "-c", code, "predict", "--from", f"{folder}/model", "--jsonl"]
    start = time.time()
    with open(f"{folder}/{lines}.txt") as file, open(f"{folder}/log", "w+") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=file, stdout=subprocess.PIPE, stderr=log
        )
        process.stdout.readline()
        first, rest = time.time() - start, len(process.stdout.readlines())
        assert process.wait() == 0 and rest == lines - 1
        log.seek(0)
        return first, time.time() - start, float(log.read().split()[-1])


def encode_scale():
    command = [sys.executable, "-c", "from tests.benchmarks.scale import encode; encode()"]
    answer = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    seconds, before, peak, ids = json.loads(answer.stdout)
    return figure(
        "encode_scale",
        (peak - before) / ids,
        f"{ROWS:,} rows encoded in {seconds:.0f} s, peak {peak:.0f} MB, {peak - before:.0f} MB more than before",
        f"their ids alone: {ids:.0f} MB",
    )


def predict_scale():
    with tempfile.TemporaryDirectory() as folder:
        model().save(f"{folder}/model")
        for lines in (1000, LINES):
            Path(folder, f"{lines}.txt").write_text("\n".join(texts(lines, 12)))
        _, _, few = predict(folder, 1000)
        first, last, many = predict(folder, LINES)
    return figure(
        "predict_scale",
        many / few,
        f"{LINES:,} lines in {last:.0f} s, the first answer after {first:.0f} s, peak {many:.0f} MB",
        f"peak of 1,000 lines: {few:.0f} MB",
    )


FIGURES = {"encode_scale": encode_scale, "predict_scale": predict_scale}
