import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_compress.cli import main
from keras_compress.files import read_json
from mobile_export import adb
from mobile_export.litert import INPUT_NAMES, Runner
from tests.experiment.cells import cell, report
from tests.mobile_export import fake_adb
from tests.mobile_export.conftest import LENGTH, converted, tiny

PIXEL = (
    "38091FDJH00001         device usb:1-4 product:shiba model:Pixel_8 device:shiba transport_id:1"
)
TABLET = "192.168.1.7:5555       device product:gta9 model:SM_X210 device:gta9 transport_id:2"
ELF = b"\x7fELF\2\1\1" + bytes(9) + b"\3\0" + bytes([183, 0]) + bytes(40)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An exported file at a path that a shell would take apart."""
    path = tmp_path_factory.mktemp("a b; 'c'") / "models" / "small" / "float32.tflite"
    path.parent.mkdir(parents=True)
    path.write_bytes(converted(tiny(), "float32"))
    return path


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A function that sets up the fake `adb`, and gives the words of all calls so far."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    folder.mkdir()
    program = Path(fake_adb.__file__).read_text(encoding="utf-8")
    (folder / "adb").write_text(f"#!{sys.executable} -IS\n{program}", encoding="utf-8")
    (folder / "adb").chmod(0o755)
    (tmp_path / "benchmark model").write_bytes(ELF)
    monkeypatch.setenv("PATH", str(folder))

    def set_up(fail=None, devices=(PIXEL,)):
        facts = {"devices": [*devices], "fail": fail, "files": str(tmp_path / "storage")}
        for line in devices:
            (tmp_path / "storage" / line.split()[0] / "data/local/tmp").mkdir(parents=True)
        monkeypatch.setenv("FAKE_ADB", json.dumps(facts | {"log": str(log)}))
        return lambda: [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]

    return set_up


def run(capsys, file, tmp_path, *more):
    arguments = ["benchmark", file, "--runs", 3, "--adb", "--benchmark-model"]
    status = main([*map(str, [*arguments, tmp_path / "benchmark model", *more])])
    return status, *capsys.readouterr()


def left(tmp_path):
    """What stayed on the phones."""
    return [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]


def test_a_phone_beside_this_machine(phone, file, tmp_path, capsys):
    calls = phone()
    status, out, err = run(capsys, file, tmp_path, "--json")
    here, *there = json.loads(out)
    assert status == 0 and err == "" and "serial" not in here and left(tmp_path) == []
    assert [row["threads"] for row in there] == [1, 2, 4]
    row = there[0]
    assert row["device"].startswith("Google Pixel 8, Android 14, arm64-v8a, asimddp (int8 can be")
    # of the second count line, not of the warm-up's; microseconds become ms
    assert (row["runs"], row["latency_ms_mean"], row["latency_ms_p50"]) == (3, 33.2094, 33.1)
    assert (row["latency_ms_p95"], row["first_ms"], row["init_ms"]) == (33.9, 49.06, 5.579)
    assert (row["memory_mb"], row["sequence_length"]) == (12.8672, LENGTH)
    assert row["host_ms"] == here["latency_ms_p50"] and row["path"] == here["path"]
    cool = {"battery_percent": 84, "battery_celsius": 32.6, "thermal_status": 0}
    assert row["before"] == row["after"] == cool and row["throttled"] is False
    serials = {words[1] for words in calls()[1:]}
    assert serials == {"38091FDJH00001"} and calls()[-1][2:4] == ["shell", calls()[-1][3]]
    assert shlex.split(calls()[-1][3])[:2] == ["rm", "-rf"]
    assert not any(str(file) in word for words in calls() if "shell" in words for word in words)
    *lines, last = adb.in_words(there)
    assert "1 thread(s): 33.21 ms on average (median 33.10, 95th percentile 33.90), " in lines[0]
    assert len(lines) == 3 and "THROTTLED" not in "".join(lines)
    assert last.startswith("38091FDJH00001: Google Pixel 8, Android 14, arm64-v8a, asimddp")
    assert last.endswith("; °C 32.6 to 32.6, thermal status 0 to 0, battery 84 %")


def test_the_tool_gets_the_inputs_in_the_order_of_the_file(file):
    words = shlex.split(adb.command_of("/p", file, LENGTH, 4, 50))
    flags = dict(word[2:].split("=", 1) for word in words[1:])
    names = flags["input_layer"].split(",")
    assert sorted(names) == sorted(INPUT_NAMES) and flags["num_threads"] == "4"
    assert flags["input_layer_shape"] == f"1,{LENGTH}:1,{LENGTH}:1,{LENGTH}"
    # LiteRT's own list of inputs, which benchmark_model goes by
    from ai_edge_litert.interpreter import Interpreter

    tensors = Interpreter(model_path=str(file)).get_input_details()
    assert all(name in tensor["name"] for name, tensor in zip(names, tensors, strict=True))


def test_ids_on_the_phone_are_in_the_vocabulary(phone, file, tmp_path, capsys, monkeypatch):
    phone()
    monkeypatch.setattr(adb, "_remove", lambda *_: None)
    assert run(capsys, file, tmp_path)[0] == 0
    (ids,) = [path for path in left(tmp_path) if path.name == "input_word_ids"]
    ids, runner = np.fromfile(ids, "<i4"), Runner(file)
    assert ids.shape == (LENGTH,) and ids.min() >= 0 and 20 < ids.max() < runner.vocab_size


def test_an_older_tool_and_android_tell_less(phone, file, tmp_path, capsys):
    phone("old")
    status, out, _ = run(capsys, file, tmp_path, "--json")
    row = json.loads(out)[1]
    assert status == 0 and row["latency_ms_mean"] == 1240.27 and row["memory_mb"] == 109.832
    assert row["latency_ms_p50"] is row["latency_ms_p95"] is row["throttled"] is None
    line, about = adb.in_words([row])
    assert "median" not in line and "thermal status None to None" in about


def test_a_hot_phone_is_marked(phone, file, tmp_path, capsys):
    phone("hot")
    status, out, _ = run(capsys, file, tmp_path)
    *lines, about = [line for line in out.splitlines() if "38091FDJH00001" in line]
    assert status == 0 and ["THROTTLED" in line for line in lines] == [False, True, True]
    assert "thermal status 0 to 2" in about


@pytest.mark.parametrize(
    "devices, serials, words",
    [
        ([], [], "Received: none from `adb devices`"),
        ([PIXEL, TABLET], [], r"00001 \(device\), 192.168.1.7:5555 \(device\). Name each with `--serial`"),
        ([PIXEL], ["nosuch"], "Received: nosuch, not attached; attached: 38091FDJH00001"),
        (["0123456789ABCDEF       unauthorized usb:3-1 transport_id:3"], [], "unauthorized.*allow debugging"),
        (["emulator-5554          offline transport_id:2"], [], "offline; .*plug it in"),
        (["082f59270073e1e3       no permissions (verify udev rules); see [x]"], [], "no permissions; .*udev"),
    ],
)  # fmt: skip
def test_which_phone(phone, devices, serials, words):
    calls = phone(devices=devices)
    with pytest.raises(ValueError, match=words):
        adb.phones(serials)
    assert len(calls()) == 1


def test_no_adb_on_the_path_and_one_that_hangs(phone, file, tmp_path, capsys, monkeypatch):
    phone("hangs")
    monkeypatch.setattr(adb, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(adb.adb, "__kwdefaults__", {"serial": None, "seconds": 0.3})
    status, out, err = run(capsys, file, tmp_path)
    assert status == 1 and "must answer within 0 s. Received: nothing after `adb -s 38091" in err
    assert "ms (90th percentile" in out  # this machine's figures are not lost
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "`adb`. Received: none on PATH. Install the" in run(capsys, file, tmp_path)[2]


@pytest.mark.parametrize(
    "fail, words",
    [
        ("full", "remote No space left on device.* Free some space on the phone."),
        ("linux", "exit status 127.*inaccessible or not found. Take the benchmark_model that is built for"),
        ("other tool", "Take the interpreter's benchmark_model"),
        ("gone", "38091FDJH00001: A phone must answer. Received: error: device '38091FDJH00001' not found. Unplug"),
    ],
)  # fmt: skip
def test_failures_say_what_helps_and_leave_nothing(phone, file, tmp_path, capsys, fail, words):
    phone(fail)
    status, out, err = run(capsys, file, tmp_path)
    assert status == 1 and left(tmp_path) == [], left(tmp_path)
    assert re.search(words, err), err


def test_what_was_measured_before_a_failure_is_kept(phone, file, tmp_path, capsys):
    phone("killed", [PIXEL, TABLET])
    serials = ("--serial", "192.168.1.7:5555", "--serial", "38091FDJH00001")
    status, out, err = run(capsys, file, tmp_path, *serials, "--json")
    rows = json.loads(out)[1:]
    assert status == 1 and "2 threads: benchmark_model must end with its timings" in err
    assert "exit status 137" in err and "Killed. Android stopped it" in err
    assert [(row["serial"][:3], "failed" in row) for row in rows] == [
        *[("192", False), ("192", True), ("192", False)],
        *[("380", False), ("380", True), ("380", False)],
    ]


@pytest.mark.parametrize(
    "content, words",
    [
        (ELF[:18] + b"\3\0", "Received: x86; Google Pixel 8 takes arm64-v8a, armeabi-v7a, armeabi. Take"),
        (b"PK\3\4" + bytes(30), "which is none (an .apk will not do)"),
        (b"", "which is none"),
    ],
)  # fmt: skip
def test_a_tool_for_another_processor(phone, file, tmp_path, capsys, content, words):
    phone()
    (tmp_path / "benchmark model").write_bytes(content)
    status, _, err = run(capsys, file, tmp_path)
    assert status == 1 and words in err and left(tmp_path) == []


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["a.tflite", "--adb"], "Pass both, or none"),
        (["a.tflite", "--serial", "x"], "Pass both, or none"),
        (["a.onnx", "--adb", "--benchmark-model", "tool"], "Received: a.onnx"),
        (["a.tflite", "--adb", "--benchmark-model", "tool", "--out", "."], "holds no run.json"),
        (["a.tflite", "--adb", "--benchmark-model", "none"], "A file must exist. Received: none"),
        (
            ["a.tflite", "--adb", "--benchmark-model", "."],
            "program for Android. Received: ., which is none",
        ),
    ],
)
def test_wrong_options(phone, tmp_path, monkeypatch, capsys, arguments, words):
    phone()
    monkeypatch.chdir(tmp_path)
    for name in ("a.tflite", "a.onnx", "tool"):
        Path(name).write_bytes(ELF)
    assert main(["benchmark", *arguments]) == 1 and words in capsys.readouterr().err


def test_the_report_shows_the_phone(phone, file, tmp_path, capsys):
    phone()
    folder = tmp_path / "run"
    report(folder, [cell("assistant-en", "small", 0, [1, 0, 1], task="classification")])
    assert "On phones" not in json.dumps(read_json(folder / "run.json"))
    status, out, _ = run(capsys, file, tmp_path, "--out", folder)
    assert status == 0 and f"Report: {os.path.join(folder, 'report.html')}" in out
    assert len(read_json(folder / "phones" / "38091FDJH00001.json")["rows"]) == 3
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "## On phones" in text and "throttled |" not in text
    assert "| small float32 | Google Pixel 8, Android 14, arm64-v8a, asimddp" in text
    assert "| 1 | 33.21 | 33.10 / 33.90 |" in text and "| 32.6 / 32.6 | 0 / 0 |" in text
    assert "On phones" in (folder / "report.html").read_text(encoding="utf-8")
    assert main(["table", str(folder)]) == 0 and "| 33.10 / 33.90 |" in capsys.readouterr().out
    # what the Android app shares (its CompareScreen.kt), put beside
    row = {"path": "small/int8.tflite", "device": "Android 15 arm64-v8a, Fairphone 5, none known"}
    row |= {"engine": "MediaPipe", "threads": None, "latency_ms_p50": 4.5, "latency_ms_p90": 5.25}
    row |= {"thermal_before": "none", "thermal_after": "light"}
    (folder / "phones" / "app.json").write_text(json.dumps([row]), encoding="utf-8")
    main(["table", str(folder)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "Fairphone" in line]
    assert line.startswith(
        "| small int8 | Android 15 arm64-v8a, Fairphone 5, none known | MediaPipe |"
    )
    assert "| 4.50 / 5.25 |" in line and line.endswith("| none / light | throttled |")
    (folder / "phones" / "app.json").write_text("[1]", encoding="utf-8")
    assert main(["table", str(folder)]) == 1 and "app.json: must hold" in capsys.readouterr().err
    shutil.rmtree(folder / "phones")
    assert main(["table", str(folder)]) == 0 and "Pixel" not in capsys.readouterr().out


def test_the_code_for_a_raspberry_pi_runs(tmp_path, file, monkeypatch, capsys):
    """PLATFORMS.md's block as it stands, in a folder with what `export` writes."""
    page = Path(adb.__file__).with_name("PLATFORMS.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    folder, model = tmp_path / "phone", tiny()
    folder.mkdir()
    shutil.copy(file, folder / "int8.tflite")
    model.tokenizer.save(folder / "vocab.txt")
    (folder / "labels.txt").write_text("".join(f"{x}\n" for x in model.labels), encoding="utf-8")
    told = {"lowercase": True, "strip_accents": True, "split_chinese": True}
    (folder / "model.json").write_text(json.dumps({"tokenizer": told}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    texts = "wa wb wc", "WÉ wd we", " ".join(["wz"] * 30)  # the last is cut
    for text, ours in zip(texts, model.predict(list(texts), max_length=LENGTH)):
        names = {}
        exec(code.replace("turn on the lights in the hall", text), names)
        np.testing.assert_allclose(names["probabilities"], ours, atol=1e-5)
        assert capsys.readouterr().out.startswith(model.labels[ours.argmax()])
