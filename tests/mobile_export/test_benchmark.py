import sys

import pytest

from mobile_export.benchmark import benchmark, device, dot_product, interleave, random_inputs
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


@pytest.mark.parametrize(
    "about, words",
    [
        ("flags\t\t: avx2 avx512_vnni avx512_bitalg", "avx512_vnni (int8 can be about 3 times"),
        ("flags\t\t: avx2 avx_vnni", "avx_vnni (int8"),
        ("Features\t: fp asimd asimdhp asimddp", "asimddp (int8"),
        ("hw.optional.arm.FEAT_DotProd: 1", "FEAT_DotProd (int8"),
        (
            "hw.optional.avx512vnni: 0",
            "no dot-product instruction (int8 is no faster than float32)",
        ),
        ("flags\t\t: avx avx2 avx512_vbmi", "no dot-product instruction"),
    ],
)
def test_device_says_what_int8_gains(about, words):
    assert dot_product(about).startswith(words)
    assert "int8" in device() or not sys.platform.startswith("linux")
