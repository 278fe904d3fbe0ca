"""Long work shows a bar on a terminal's stderr; short work, and work without a terminal, shows nothing."""

import io
import itertools
import re

import numpy as np
import pytest

from keras_compress.training import distill as D
from keras_compress.training import teacher_cache as cache
from mobile_export import parity
from tests.bert import tiny
from tests.support import TRAINING, lengths, still


def forward():
    return still().predict(tiny.TEXTS, batch_size=2)


def compare():
    class Runner:
        inputs = staticmethod(lambda encoding, length: encoding)
        outputs = staticmethod(lambda encoding: {"probabilities": np.float32([[0.5, 0.5]])})

    return parity._outputs(Runner, ["text"] * 5, "int8")


def teacher():
    model, training = still(), TRAINING.replace(batch_size=3)
    outputs = D.named_outputs(model, ["logits"])
    return cache.cache_outputs(
        outputs, lengths(), model.tokenizer, model.tokenizer, training, 0, 99
    )


@pytest.mark.parametrize(
    "work, name", [(forward, "batches"), (compare, "int8"), (teacher, "teacher")]
)
@pytest.mark.parametrize("seconds, terminal", [(10, True), (0, True), (10, False)])
def test_bars(work, name, seconds, terminal, monkeypatch, capsys):
    clock, stderr = itertools.count(0, seconds), io.StringIO()
    stderr.isatty = lambda: terminal
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    monkeypatch.setattr("sys.stderr", stderr)
    work()
    bar = re.search(rf"{name}: +\d+%", stderr.getvalue())  # not the log's line of the same name
    assert bool(bar) == (seconds > 0 and terminal)
    assert capsys.readouterr().out == ""
