import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_compress.bert.tokenizer import Encoding
from mobile_export.flatbuffer import edited
from mobile_export.litert import Runner
from mobile_export.stamp import STAMP
from tests import arm64
from tests.mobile_export.conftest import LENGTH


def test_inputs_are_set_by_name(facts):
    runner = Runner(facts["float32"]["path"])
    inputs = runner.inputs(Encoding([2, 9, 3, 12, 3], [0, 0, 0, 1, 1]))
    assert {name: row[0, :6].tolist() for name, row in inputs.items()} == {
        "input_word_ids": [2, 9, 3, 12, 3, 0],
        "input_mask": [1, 1, 1, 1, 1, 0],
        "input_type_ids": [0, 0, 0, 1, 1, 0],
    }
    expected = runner.run(inputs)
    np.testing.assert_array_equal(runner.run(dict(reversed(inputs.items()))), expected)
    swapped = {
        **inputs,
        "input_type_ids": inputs["input_mask"],
        "input_mask": inputs["input_type_ids"],
    }
    assert np.abs(runner.run(swapped) - expected).max() > 1e-4


def test_what_it_says_about_the_file(facts):
    runner = Runner(facts["int8"]["path"])
    assert (runner.sequence_length, runner.num_partitions, runner.vocab_size) == (LENGTH, 1, 30)
    assert {"GATHER", "FULLY_CONNECTED", "SOFTMAX"} <= set(
        runner.op_names
    ) and "DELEGATE" not in runner.op_names


def test_text_that_does_not_fit(facts):
    with pytest.raises(ValueError, match="could not broadcast"):
        Runner(facts["float32"]["path"]).inputs(Encoding([2] * 17, [0] * 17))


def test_missing_or_damaged_file(facts, tmp_path):
    whole = open(facts["float32"]["path"], "rb").read()
    noise = np.random.default_rng(0).bytes(5000)
    damaged = (b"", noise, whole[:4] + b"TFL3" + noise, whole[: len(whole) // 2])
    for content in damaged:
        path = tmp_path / "model.tflite"
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match="model.tflite: (not a TFLite model that this runtime|.*damaged)"
        ):
            Runner(path)
    with pytest.raises(FileNotFoundError, match="none.tflite"):
        Runner(tmp_path / "none.tflite")


def test_a_file_without_a_signature_is_refused(facts):
    content = Path(facts["float32"]["path"]).read_bytes()
    bare = edited(content, lambda model: setattr(model, "signatureDefs", []))
    with pytest.raises(ValueError, match="it has no signature: .* temporary files is full"):
        Runner(bare)


def test_damage_that_only_running_shows_is_found_when_loading(facts):
    whole, refused = open(facts["float32"]["path"], "rb").read(), 0
    whole = whole.replace(STAMP, bytes(len(STAMP)))  # as earlier versions wrote it
    for start in range(0, len(whole), len(whole) // 12):
        content = whole[:start] + bytes(min(2000, len(whole) - start)) + whole[start + 2000 :]
        try:
            runner = Runner(content)
        except ValueError as error:
            refused += "not a TFLite model that this runtime can load" in str(error)
        else:
            assert runner.run(runner.inputs(Encoding([2, 9, 3], [0, 0, 0]))).shape == (1, 3)
    assert refused


def test_runs_without_tensorflow_and_says_when_there_is_no_runtime(facts):
    # What tests/arm64.py imports on a processor of phones' kind, which has no `tokenizers` either.
    script = (
        "import sys; from mobile_export.litert import Runner; from mobile_export import contract\n"
        "sys.modules.update(dict.fromkeys(sys.argv[2:]))\n"
        "print(Runner(sys.argv[1]).num_partitions, bool({'tensorflow', 'tokenizers'} & {*sys.modules}))"
    )

    def run(*without):
        command = [sys.executable, "-c", script, facts["int8"]["path"], *without]
        return subprocess.run(command, capture_output=True, text=True)

    assert run().stdout == "1 False\n"
    assert (
        "pip install ai-edge-litert"
        in run("ai_edge_litert.interpreter", "tflite_runtime.interpreter").stderr
    )


def test_the_arm64_script_makes_its_files_and_reads_them(tmp_path):
    paths = arm64.exported(tmp_path)
    assert len(paths) == 6 and all(
        arm64.probabilities(path).shape == (arm64.NUM_TEXTS, 3) for path in paths
    )
