import logging
import time

from keras_compress.experiment.forecast import Forecast

ROWS = [
    ("sst2 predecessor", "finetune", "float32, int8", 300, 120.0),
    ("sst2 theseus-3", "theseus", "float32, int8", 300, 60.0),
    ("sst2 theseus-3", "theseus", "float32, int8", 300, 60.0),
    ("sst2 words", "vocabulary", "", 0, 0.0),
    ("mrpc words", "vocabulary", "", None, 0),
]


def lines(caplog, forecast, *trained):
    with caplog.at_level(logging.INFO):
        forecast.tell()
        for name in trained:
            forecast.trained(name)
    return caplog.messages


def test_the_plan_by_hand(caplog):
    assert lines(caplog, Forecast(ROWS)) == [
        "plan: 5 model(s) to make; training takes about 4 min, as rehearsed here; then come files",
        "  sst2 predecessor: finetune, 1 x 300 updates, about 2 min; files: float32, int8",
        "  sst2 theseus-3: theseus, 2 x 300 updates, about 2 min; files: float32, int8",
        "  sst2 words: vocabulary, no training; files: none",
        "  mrpc words: vocabulary, not rehearsed; files: none",
    ]


def test_the_time_left_grows_with_what_took_longer_than_rehearsed(caplog):
    forecast = Forecast(ROWS)
    forecast.started = time.monotonic() - 600  # 10 minutes for the first 2 of 4
    said = lines(caplog, forecast, "sst2 predecessor", "sst2 theseus-3", "sst2 theseus-3")[5:]
    assert said[0] == "sst2 predecessor: trained; about 10 min left of the run"
    assert said[1].startswith("sst2 theseus-3: trained; about 3 min") and len(said) == 2


def test_without_a_rehearsal_nothing_is_promised(caplog):
    assert lines(caplog, Forecast(), "sst2 predecessor") == []
