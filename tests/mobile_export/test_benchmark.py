import pytest

from mobile_export.benchmark import benchmark, interleave, random_inputs
from mobile_export.litert import Runner
from tests.mobile_export.conftest import LENGTH


def test_files_take_turns():
    calls = []
    times = interleave([lambda: calls.append("a"), lambda: calls.append("b")], runs=2, warmup=1)
    assert "".join(calls) == "ababab" and times.shape == (2, 2)


def test_facts(facts):
    names = ("float32", "int8")
    found = benchmark(*(facts[name]["path"] for name in names), runs=5, warmup=1)
    for name, row in zip(names, found):
        assert (
            row["path"] == facts[name]["path"]
            and 0 < row["latency_ms_p50"] <= row["latency_ms_p90"]
        )
        assert (row["runs"], row["threads"], row["sequence_length"]) == (5, 1, LENGTH) and row[
            "device"
        ]


def test_ids_stay_in_the_vocabulary(facts):
    inputs = random_inputs(Runner(facts["int8"]["path"]))
    assert inputs["input_word_ids"].shape == (1, LENGTH)
    assert (
        inputs["input_word_ids"].min() >= 0
        and 20 < inputs["input_word_ids"].max() < 30
        or LENGTH < 8
    )
    assert inputs["input_mask"].all() and not inputs["input_type_ids"].any()


def test_unreadable_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.tflite"):
        benchmark(tmp_path / "none.tflite")
