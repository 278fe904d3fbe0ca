import logging
import time
from types import SimpleNamespace

import pytest

from keras_compress.experiment import forecast
from keras_compress.experiment.forecast import Forecast

ROWS = [
    ("sst2 predecessor", "finetune", "float32, int8", 300, 120.0, 60.0),
    ("sst2 theseus-3", "theseus", "float32, int8", 300, 60.0, 30.0),
    ("sst2 theseus-3", "theseus", "float32, int8", 300, 60.0, 30.0),
    ("sst2 words", "vocabulary", "", 0, 0.0, 0.0),
    ("mrpc words", "vocabulary", "", None, 0, 0),
]


def lines(caplog, plan, *trained):
    with caplog.at_level(logging.INFO):
        plan.tell()
        for name in trained:
            plan.trained(name)
    return caplog.messages


def test_the_plan_by_hand(caplog):
    assert lines(caplog, Forecast(ROWS)) == [
        "plan: 5 model(s) to make; training takes about 4 min, files about 2 min, as rehearsed here",
        "  sst2 predecessor: finetune, 1 x 300 updates, about 2 min; files: float32, int8",
        "  sst2 theseus-3: theseus, 2 x 300 updates, about 2 min; files: float32, int8",
        "  sst2 words: vocabulary, no training; files: none",
        "  mrpc words: vocabulary, not rehearsed; files: none",
    ]


def test_the_time_left_grows_with_what_took_longer_than_rehearsed(caplog):
    plan = Forecast(ROWS)
    # 10 minutes for the first 2 of 6; then its minute of files and one of training: 4 of 6, half as much again
    plan.started = time.monotonic() - 600
    said = lines(caplog, plan, "sst2 predecessor", "sst2 theseus-3", "sst2 theseus-3")[5:]
    assert said[0] == "sst2 predecessor: trained; about 20 min left of the run"
    assert said[2].startswith("sst2 theseus-3: trained; about 55 s")  # 5.5 of 6
    assert said[1].startswith("sst2 theseus-3: trained; about 5 min") and len(said) == 3


def test_without_a_rehearsal_nothing_is_promised(caplog):
    assert lines(caplog, Forecast(), "sst2 predecessor") == []


def test_the_time_of_files_by_hand(monkeypatch):
    """float32: 200 of 300 dev texts, int8: all, in at most MAX_SECONDS; each then 400 test texts and TIMED passes."""
    split = lambda number: SimpleNamespace(texts=["t"] * number)
    plan = SimpleNamespace(dataset=SimpleNamespace(dev=split(300), test=split(400)))
    monkeypatch.setattr(forecast, "CONVERT", 1e-6)
    seconds = lambda one_pass: forecast._seconds_of_files(
        plan, ["float32", "int8"], one_pass, 10**6
    )
    assert seconds(0) == pytest.approx(2)  # two conversions of a million parameters
    # 200 + 300 passes to compare, twice 520 to measure and time
    assert seconds(0.01) == pytest.approx(2 + 0.01 * (500 + 2 * 520))
    assert seconds(1) == pytest.approx(2 + 2 * forecast.MAX_SECONDS + 2 * 520)
