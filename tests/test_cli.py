"""Every verb once, and every bad input as one line on stderr. `main` is called in this process."""

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from itertools import chain

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from keras_compress import cli
from keras_compress import method as boundary
from keras_compress.bert.checkpoints import names
from keras_compress.bert.task_model import TaskModel
from keras_compress.cli import main
from keras_compress.experiment.run_folder import DEFAULTS
from keras_compress.files import read_json, write_json
from keras_compress.lock import alone
from keras_compress.training.checkpoints import Saver
from mobile_export.serve import PACKAGES
from tests import samples
from tests.bert import tiny
from tests.support import ROOT, in_new_process

pytestmark = pytest.mark.usefixtures("eagerly")
FAST = ["--epochs", "0.5", "--max-length", "16", "--batch-size", "8", "--evaluations", "0"]
VERBS = [
    "run",
    "table",
    "train",
    "compress",
    "export",
    "android",
    "evaluate",
    "benchmark",
    "diff",
    "serve",
    "predict",
    "data",
    "methods",
]


def options_of(verb):
    """The options that a verb has."""
    verbs = next(action for action in cli.parser()._actions if action.choices)
    return {*verbs.choices[verb]._option_string_actions}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data and models of all tasks; `exported` is a model's folder with its files."""
    place = tmp_path_factory.mktemp("cli")
    for task in tiny.LABELS:
        samples.data(place / task, task)
        samples.model(place / f"bert-{task}", task)
    shutil.copytree(place / "bert-classification", place / "exported")
    assert (
        main(
            [
                "export",
                "--from",
                str(place / "exported"),
                "--out",
                str(place / "exported"),
                "--length",
                "16",
            ]
        )
        == 0
    )
    return place


@pytest.fixture
def call(place, capsys):
    """Runs a command ({} = the folder of the module's data); returns its exit status, stdout and stderr."""

    def call(*arguments):
        capsys.readouterr()
        status = main([str(argument).replace("{}", str(place)) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    return call


def test_help_and_import_do_not_import_tensorflow():
    code = (
        "import sys, keras_compress\nfrom keras_compress.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "sys.exit('tensorflow' in sys.modules or 'numpy' in sys.modules)"
    )
    for arguments in (["--help"], ["run", "--help"], ["methods"]):
        found = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True
        )
        assert found.returncode == 0 and found.stderr == "", found.stderr
        assert all(verb in found.stdout for verb in VERBS) or arguments != ["--help"]
    found = subprocess.run(
        [sys.executable, "-m", "keras_compress", "colour"], capture_output=True, text=True
    )
    assert found.returncode == 2 and "invalid choice: 'colour'" in found.stderr


# Each of these is told before TensorFlow is imported, which takes longer than the rest of many a command.
WRONG_PATHS = """
predict --from nowhere text: `--from` must be minilm, .*nowhere, which does not exist. .*`hf download nowhere`
evaluate --from some/where/best.h5: some/where/best.h5, which does not exist. Check the path.$
export --from minilm --out x --data nowhere: a folder that exists. Received: 'nowhere'
train --from nowhere --out x: nowhere, which does not exist
compress theseus --from minilm --out x --data sst3: Received: 'sst3'
compress theseus --from nowhere --out x --data {}: nowhere, which does not exist
evaluate --from minilm --tflite nowhere.tflite: nowhere.tflite
benchmark nowhere.tflite: nowhere.tflite
benchmark --from nowhere {}: nowhere, which does not exist
run nothing: recipe must be one of
run nothing.toml: recipe must be one of .* Received: 'nothing.toml'
run --from nowhere: nowhere, which does not exist
run --data nowhere: Received: 'nowhere'
run --from nowhere --strategy mirrored: nowhere, which does not exist
"""


def test_a_wrong_path_is_told_without_tensorflow(tmp_path):
    code = (
        "import sys\nfrom keras_compress.cli import main\n"
        "for line in sys.argv[1].splitlines():\n    main(line.split())\n"
        "    assert 'tensorflow' not in sys.modules, line"
    )
    lines = [line.split(": ", 1) for line in WRONG_PATHS.strip().splitlines()]
    commands = "\n".join(command for command, _ in lines).replace("{}", str(tmp_path))
    done = in_new_process(code, commands)
    messages = done.stderr.splitlines()
    assert done.returncode == 0 and len(messages) == len(lines), done.stderr
    for (_, expected), message in zip(lines, messages):
        assert message.startswith("error: ") and re.search(expected, message), message


def with_option(*options):
    return {verb for verb in VERBS if options_of(verb) >= {*options}}


LOADS, TRAINS, WRITES = map(with_option, ("--new-head", "--epochs", "--overwrite"))
# file::function -> the verbs that can print what it says. The longest beginning of a place counts.
PRINTED_BY = {
    "keras_compress/bert/": LOADS,
    "keras_compress/bert/tokenizer": LOADS | {"data"},
    "keras_compress/cli/options.py::Source": LOADS,
    "keras_compress/cli/options.py::Texts": with_option("--data"),
    "keras_compress/cli/exported.py::_phones": {"benchmark"},
    "keras_compress/cli/exported.py::_exported": {"export"},
    "keras_compress/cli/__init__.py::_look": LOADS,
    **{
        f"keras_compress/cli/{file}.py::{v}": {v}
        for file in ("verbs", "answers", "exported")
        for v in VERBS
    },
    "keras_compress/datasets/": with_option("--data"),
    "keras_compress/datasets/dataset.py::Dataset": TRAINS,  # in `run` it names the recipe's key, too
    "keras_compress/experiment/": {"run"},
    "keras_compress/experiment/report.py": {"run", "table"},
    "keras_compress/files.py": WRITES - {"export"},  # that replaces single files
    "keras_compress/measure/": LOADS,
    "keras_compress/method.py": LOADS,
    "mobile_export/": {"export", "run"},
    "mobile_export/adb.py": {"benchmark"},
    "mobile_export/benchmark.py": {"benchmark", "run"},
    "mobile_export/contract.py::add_file": {"export"},
    "mobile_export/contract.py::check_same": {"export"},
    "mobile_export/diff.py": {"diff"},
    "mobile_export/serve.py": {"serve"},
    "mobile_export/android_app.py": {"export"},
    **dict.fromkeys([f"keras_compress/{room}/" for room in boundary.ROOMS], TRAINS | {"run"}),
}


def messages():
    """(file::function, text) of every string in the code that is no docstring."""
    files = [*(ROOT / "keras_compress").rglob("*.py"), *(ROOT / "mobile_export").glob("*.py")]
    for path in sorted(files):
        for part in ast.parse(path.read_text(encoding="utf-8")).body:
            place = f"{path.relative_to(ROOT).as_posix()}::{getattr(part, 'name', '')}"
            nodes = [*ast.walk(part)]
            docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
            for node in nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    if node not in docstrings:
                        yield place, node.value


def advice():
    """(place, verb or "", option) of every option that a message names; `run --resume` names the verb, too."""
    for place, text in messages():
        text = re.sub(r"\b(pip|hf|npm) [^`.]*", "", text)  # options of others
        if not re.fullmatch("--[a-z-]*", text):  # the option itself, in the command line's own code
            for verb, option in re.findall(r"(?:(\w+) )?(?<![\w-])(--[a-z][a-z-]*)", text):
                yield place, verb if verb in VERBS else "", option


def test_every_option_that_a_message_names_is_one_of_the_verbs_that_print_it():
    missing, options = [], {verb: options_of(verb) for verb in VERBS}
    for place, verb, option in advice():
        known = [start for start in PRINTED_BY if place.startswith(start)]
        assert known or verb, f"{place} names {option}: say in PRINTED_BY which verbs print it"
        verbs = [verb] if verb else PRINTED_BY[max(known, key=len)]
        missing += [(place, name, option) for name in verbs if option not in options[name]]
    assert not missing


def test_every_verb_that_a_message_names_exists():
    commands = [re.findall(r"-m keras_compress (\w+)", text) for _, text in messages()]
    assert {*chain(*commands)} <= {*VERBS}


def test_the_advice_is_found():
    found = {*advice()}
    assert ("keras_compress/cli/__init__.py::main", "run", "--resume") in found
    assert ("keras_compress/files.py::new_folder", "", "--overwrite") in found
    assert ("mobile_export/serve.py::server", "", "--port") in found


@pytest.mark.parametrize("verb", VERBS)
def test_help_tells_every_option_and_default(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "None)" not in text and "False)" not in text and "[])" not in text and "--json" in text
    subparsers = next(
        action for action in cli.parser()._actions if action.choices and "run" in action.choices
    )
    for action in subparsers.choices[verb]._actions:
        assert action.help, action.dest
        assert options_of(verb) >= {*re.findall("--[a-z-]+", action.help)}, action.dest
        if type(action.default) in (int, float, str) and action.dest != "help":
            assert f"(default: {action.default})" in text, action.dest


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["train"],
        ["predict", "--from", "minilm", "--speed", "1.5", "a"],
        ["train", "--from", "minilm"],
        ["train", "--from", "a", "--out", "b", "--epochs", "0"],
        ["run", "--seed", "-1"],
        ["benchmark", "a.tflite", "--runs", "0"],
        ["run", "--seed", "x"],
        ["run", "--seeds", "0,x"],
        ["data", "burn"],
        ["benchmark"],
        ["train", "--from", "a", "--out", "b", "--strategy", "all"],
        ["train", "--from", "a", "--out", "b", "--patience", "2", "--evaluations", "0"],
    ],
)
def test_wrong_usage_is_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 2 and captured.out == "" and captured.err.startswith("usage:")


def test_train_compress_export_evaluate_predict_benchmark(call, tmp_path):
    model, small, files = tmp_path / "model", tmp_path / "small", tmp_path / "files"
    data = ["--data", "{}/classification"]
    status, out, _ = call("train", "--from", "{}/bert-classification", *data, "--out", model, *FAST)
    assert status == 0 and out.startswith("dev accuracy ") and out.endswith(f"Saved: {model}\n")
    status, out, _ = call(
        "compress",
        "theseus",
        "--from",
        model,
        *data,
        "--set",
        "module_map=[[0, 1]]",
        "--set",
        "gate=anneal",
        "--set",
        "finetune_share=0",
        "--out",
        small,
        *FAST,
        "--json",
    )
    result = json.loads(out)
    assert (
        status == 0
        and result["split"] == "dev"
        and result["num_examples"] == 20
        and result["folder"] == str(small)
    )
    compressed = TaskModel.load(small)
    assert compressed.config.num_layers == 1 and compressed.history[-1]["gate"] == "anneal"
    assert compressed.metrics["value"] == result["value"]
    exported = ["export", "--from", small, *data, "--out", files, "--formats", "float32"]
    status, out, _ = call(*exported, "--lengths", "6,12", "--vectors")
    assert status == 0 and "\n  6 pieces: agrees with Keras on 100.0 %" in out
    gain = (
        r"\n  20 dev texts of \d\.\d pieces take \d\.\d\d of the time that all take at 12 pieces\n"
    )
    assert re.search(gain, out)
    assert f"{files / 'parity.json'}: texts" in out and (files / "float32.tflite").is_file()
    status, out, err = call("export", "--from", small, "--out", files, "--formats", "float32")
    assert status == 1 and "not replaced without `--overwrite`" in err and out == ""
    status, out, _ = call(
        "evaluate", "--from", small, *data, "--tflite", files / "float32.tflite", "--json"
    )
    assert (
        status == 0 and json.loads(out)["split"] == "test" and json.loads(out)["num_examples"] == 30
    )
    assert call("evaluate", "--from", small, "--data", "{}/classification")[1].startswith(
        "test accuracy "
    )
    status, out, _ = call("benchmark", files / "float32.tflite", "--runs", "3", "--json")
    assert (
        status == 0
        and json.loads(out)[0]["runs"] == 3
        and json.loads(out)[0]["sequence_length"] == 12
    )
    lines = call("benchmark", files / "float32.tflite", "--from", small, "--runs", "3")[
        1
    ].splitlines()
    assert (
        " ms (90th percentile" in lines[0]
        and lines[0].endswith(", 1.00 x the first")
        and "Keras call: " in lines[2]
    )
    status, out, _ = call("predict", "--from", small, "The cats sat", "我听音乐")
    lines = out.splitlines()
    assert status == 0 and len(lines) == 2 and lines[1].endswith("\t我听音乐")
    assert lines[0].split("\t")[0] in compressed.labels


@pytest.mark.parametrize(
    "task, keys, words",
    [
        ("multilabel", {"macro_f1"}, ("dev micro_f1 ", "macro F1 ")),
        ("regression", {"spearman", "mse"}, ("dev pearson ", "; Spearman ")),
    ],
)
def test_sets_of_names_and_scores_from_data_to_file(call, tmp_path, task, keys, words):
    model, data = tmp_path / "model", ["--data", f"{{}}/{task}"]
    start = ["--from", f"{{}}/bert-{task}"]
    status, out, err = call("train", *start, *data, "--out", model, *FAST)
    assert status == 0 and all(word in out for word in words) and f": {task}, since " in err
    arguments = ["--from", model, *data, "--out", tmp_path, "--length", "16", "--json"]
    status, out, _ = call("export", *arguments, "--formats", "float32,int8", "--allow-drift")
    rows = json.loads(out)
    assert status == 0 and rows[0]["max_dlogit"] < 1e-4
    assert ("threshold" in rows[0]) == (task == "multilabel")
    evaluated = ["evaluate", "--from", model, *data, "--json"]
    plain, file = (
        json.loads(call(*evaluated, *more)[1])
        for more in ([], ["--tflite", tmp_path / "float32.tflite"])
    )
    assert plain.keys() == {"split", "metric", "value", "se", *keys, "num_examples"}
    assert file == pytest.approx(plain)
    shown = json.loads(call("data", "show", *data, "--json")[1])
    assert shown["task"] == task and ("scores" in shown) == (task == "regression")
    status, out, err = call("evaluate", "--from", "{}/bert-classification", *data)
    assert status == 1 and "The model's task must be the one asked for" in err


def test_an_export_that_fails_keeps_what_passes(call, monkeypatch, tmp_path):
    monkeypatch.setattr("mobile_export.parity.MAX_MEAN_DP", -1)  # every int8 file drifts
    command = ["export", "--from", "{}/bert-matching", "--out", tmp_path, "--length", "12"]
    status, out, err = call(*command, "--formats", "int8,float32", "--parity-texts", "3")
    assert (
        status == 1
        and out.startswith(f"{tmp_path / 'float32.tflite'}: ")
        and "of 3 random inputs" in out
    )
    assert "int8: mean |dp| must be at most -1. Received: 0." in err.splitlines()[-1]
    assert [path.name for path in tmp_path.glob("*.tflite")] == ["float32.tflite"]
    status, out, _ = call(*command, "--formats", "int8", "--json")
    (row,) = json.loads(out)
    assert status == 1 and row["format"] == "int8" and row["failed"].startswith("int8: mean |dp|")


def test_two_exports_into_one_folder_are_refused(call, tmp_path):
    command = ["export", "--from", "{}/bert-matching", "--out", tmp_path / "files"]
    with alone(tmp_path / "files"):
        status, _, err = call(*command, "--length", "12")
    assert status == 1 and "where another one is at work" in err
    assert [*tmp_path.iterdir()] == []


def test_onnx_files_are_written_beside_the_others(call, tmp_path):
    pytest.importorskip("tf2onnx")
    command = [
        "export",
        "--from",
        "{}/bert-matching",
        "--data",
        "{}/matching",
        "--out",
        tmp_path,
        "--length",
        "12",
    ]
    status, out, _ = call(*command, "--onnx", "--allow-drift")
    names = ["float32.tflite", "int8.tflite", "float32.onnx", "int8.onnx"]
    assert status == 0 and [line.split(": ")[0] for line in out.splitlines()[:4]] == [
        str(tmp_path / n) for n in names
    ]
    beside = {"model.json", "vocab.txt", "labels.txt"}
    assert {path.name for path in tmp_path.iterdir()} == {*names} | beside
    status, _, err = call(*command, "--formats", "onnx_int8")
    assert status == 1 and "not replaced without `--overwrite`" in err and "int8.onnx" in err
    figures = [
        call(
            "evaluate",
            "--from",
            "{}/bert-matching",
            "--data",
            "{}/matching",
            "--tflite",
            tmp_path / name,
        )
        for name in ("float32.tflite", "float32.onnx")
    ]
    assert figures[0] == figures[1] and figures[0][0] == 0


def test_serve_says_where_and_ends_in_peace(call, monkeypatch, tmp_path):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("mobile_export.serve.ThreadingHTTPServer.serve_forever", interrupted)
    monkeypatch.setattr("mobile_export.serve.WEB", tmp_path)
    assert "run `npm ci` in" in call("serve", "{}/exported")[2]
    for package in PACKAGES:
        (tmp_path / package).mkdir(parents=True)
    status, out, err = call("serve", "{}/exported", "--port", "0")
    assert (
        status == 0
        and out == "Ended.\n"
        and re.search(r"Open http://127.0.0.1:\d+/ in a browser", err)
    )


def test_unlabelled_text_makes_a_masked_lm_model_that_augments(call, tmp_path):
    (tmp_path / "prose.txt").write_text(
        "the cat sat on the mat\na dog sat\n\nthe dogs sat\n" * 4, encoding="utf-8"
    )
    status, out, _ = call(
        "train",
        "--from",
        "{}/bert-classification",
        "--new-head",
        "--data",
        tmp_path / "prose.txt",
        "--out",
        tmp_path / "mlm",
        *FAST,
    )
    assert (
        status == 0
        and out == f"Saved: {tmp_path / 'mlm'}\n"
        and TaskModel.load(tmp_path / "mlm").task == "mlm"
    )
    status, _, _ = call(
        "compress",
        "vocabulary",
        "--from",
        "{}/bert-classification",
        "--data",
        tmp_path / "prose.txt",
        "--out",
        tmp_path / "fewer",
        *FAST,
    )  # any text will do, and the head stays
    assert status == 0 and TaskModel.load(tmp_path / "fewer").task == "classification"
    status, out, _ = call(
        "compress",
        "tinybert",
        "--from",
        "{}/bert-classification",
        "--data",
        "{}/classification",
        "--set",
        "num_layers=1",
        "--set",
        "copies=2",
        "--set",
        f"mlm={tmp_path / 'mlm'}",
        "--cache-teacher",
        "--out",
        tmp_path / "tiny",
        *FAST,
    )
    assert status == 0 and TaskModel.load(tmp_path / "tiny").history[-1]["copies"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fewer",
        "mlm",
        "prose.txt",
        "tiny",
    ]  # no checkpoints left
    status, _, err = call("export", "--from", tmp_path / "mlm", "--out", tmp_path / "x")
    assert status == 1 and "must have a task with labels" in err


def test_a_stopped_command_goes_on_and_is_not_mixed_with_another(call, tmp_path, monkeypatch):
    slash = str(tmp_path / "small") + "/"  # as a shell completes it
    command = [
        "compress",
        "layers",
        "--from",
        "{}/bert-classification",
        "--data",
        "{}/classification",
        "--set",
        "num_layers=1",
        "--epochs",
        "2",
        "--max-length",
        "16",
        "--evaluations",
        "0",
        "--out",
        slash,
    ]

    def save_and_die(self, save=Saver.save):
        save(self)
        raise KeyboardInterrupt

    def left():
        return {path.name for path in tmp_path.iterdir()}

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", save_and_die)
        assert call(*command)[0] == 1
        mine = left()
        for other in (["--seed", "1"], ["--new-head"], ["--pooling", "cls"]):
            more, before = [*other, *(["--new-head"] if "--pooling" in other else [])], left()
            status, _, err = call(*command, *more)
            assert status == 1 and "resumed" not in err and len(left()) == len(before) + 1
    others = left() - mine
    command[-1] = slash[:-1]
    with monkeypatch.context() as patch:  # killed before it saves, then while it cleans up
        patch.setattr(TaskModel, "save", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call(*command)
        ended = {f"{name}.ended" for name in mine}
        assert left() == {*ended, *others}
    with monkeypatch.context() as patch:
        patch.setattr("keras_compress.cli.verbs.remove_own", lambda folder: None)
        status, _, err = call(*command)
        assert status == 0 and f"{mine.pop()}/finetune/ckpt-2" in err
    assert left() == {"small", *ended, *others}
    (tmp_path / ".small.999999999.abc.part").mkdir()  # of a process that is gone
    status, out, _ = call(*command, "--json")
    assert status == 0 and json.loads(out)["folder"] == slash[:-1] and "value" in json.loads(out)
    assert left() == {"small", *others}
    status, _, err = call(*command)
    assert status == 1 and "must be new or empty" in err


READING = "--new-head --labels a,b --pooling mean --cased --ignore-weights x.* --ignore-weights y"
SEEN = {
    "new_head": True,
    "labels": ["a", "b"],
    "pooling": "mean",
    "lowercase": False,
    "ignore_weights": ["x.*", "y"],
}


@pytest.mark.parametrize("verb", sorted(LOADS))
def test_what_says_how_a_model_is_read_reaches_load(call, monkeypatch, tmp_path, verb):
    def load(source, **settings):
        assert settings.items() >= SEEN.items()
        raise ValueError("seen")

    monkeypatch.setattr("keras_compress.bert.checkpoints.load", load)
    monkeypatch.setattr("keras_compress.experiment.experiment.load", load)
    by_place = {"compress": ["theseus"], "benchmark": ["{}/exported/float32.tflite"]}
    data = ["--data", "{}/matching", "--from", "{}/bert-matching"]
    out = ["--out", tmp_path / "out"] if verb != "benchmark" and "--out" in options_of(verb) else []
    status, _, err = call(verb, *by_place.get(verb, []), *data, *out, *READING.split())
    assert status == 1 and err.splitlines()[-1].endswith("seen")


@pytest.fixture
def keras_file(tmp_path):
    """A bert4keras file with a trained head, which does not tell its labels, and the model that it holds."""
    model, layers = tiny.model(pooling="cls"), {"dense": ["classifier/kernel", "classifier/bias"]}
    for layer, _, theirs in names.rows(model.config.num_layers):
        variables = [f"{layer}/{variable}" for variable in names.variables(layer)]
        layers.setdefault(theirs, []).extend(variables)
    weights = model.weights()
    with h5py.File(tmp_path / "best.h5", "w") as file:
        for theirs, variables in layers.items():
            if theirs != "-" and {*variables} <= {*weights}:
                group = file.create_group(theirs)
                group.attrs["weight_names"] = [variable.replace("/", "_") for variable in variables]
                for variable in variables:
                    group[variable.replace("/", "_")] = weights[variable]
    sizes = (
        "vocab_size hidden_size intermediate_size max_position_embeddings type_vocab_size".split()
    )
    config = {size: getattr(model.config, size) for size in sizes}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu"}
    (tmp_path / "bert_config.json").write_text(json.dumps(config), encoding="utf-8")
    model.tokenizer.save(tmp_path / "vocab.txt")
    return tmp_path / "best.h5", model


def test_a_file_without_labels_is_told_them(call, keras_file):
    file, model = keras_file
    expected = model.labels[model.predict(["a dog sat"])[0].argmax()]
    predict = ["predict", "--from", file, "a dog sat", "--json"]
    status, _, err = call(*predict)
    assert status == 1 and "`--data`, or `--labels` in the model's order, and `--task`" in err
    data, labels = ["--data", "{}/classification"], ["--labels", "no, maybe,yes"]
    for told in (data, labels):
        status, out, err = call(*predict, *told)
        assert status == 0 and json.loads(out)[0]["label"] == expected
    assert "labels are taken to be those of texts; `--task` says otherwise" in err
    rows = json.loads(call(*predict, *labels, "--task", "tagging")[1])
    assert rows[0]["words"] == ["a", "dog", "sat"]
    status, _, err = call("evaluate", "--from", file, *data, "--labels", "yes,no,maybe")
    assert status == 0 and "labels are numbered as in the model: no = no" in err
    benchmark = ["benchmark", "{}/exported/float32.tflite", "--runs", "2"]
    assert "Keras call: " in call(*benchmark, "--from", file, *data)[1]
    status, _, err = call(*benchmark, *labels)
    assert status == 1 and "Received: no `--from`" in err


def test_predict_reads_stdin_and_all_tasks(call, monkeypatch):
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO("the cat\ta dog\r\n我\t你".encode()))
    )
    status, out, _ = call("predict", "--from", "{}/bert-matching", "--json")
    rows = json.loads(out)
    assert status == 0 and [row["text"] for row in rows] == ["the cat\ta dog", "我\t你"]
    assert {row["label"] for row in rows} <= {"other", "same"} and all(
        0.5 <= row["probability"] <= 1 for row in rows
    )
    rows = json.loads(call("predict", "--from", "{}/bert-tagging", "the cats sat", "--json")[1])
    assert rows[0]["words"] == ["the", "cats", "sat"] and len(rows[0]["labels"]) == 3
    assert len(call("predict", "--from", "{}/bert-tagging", "the cats sat")[1].split()) == 3
    _, out, err = call("predict", "--from", "{}/bert-tagging", "我听音乐", "你好")
    assert [line.count("/") for line in out.splitlines()] == [4, 2]
    assert err.count("Chinese that nobody cut into words is tagged by characters") == 1
    (row,) = json.loads(call("predict", "--from", "{}/bert-multilabel", "the cat", "--json")[1])
    assert row["labels"] == [name for name, p in row["probabilities"].items() if p >= 0.5]
    status, out, _ = call("predict", "--from", "{}/bert-regression", "the cat\ta dog", "--json")
    assert status == 0 and np.isfinite(json.loads(out)[0]["score"])
    assert call("predict", "--from", "{}/bert-regression", "the cat")[1].endswith("\tthe cat\n")
    mixed = ("the cat\ta dog", "the cat")
    assert "A pair must be two" in call("predict", "--from", "{}/bert-regression", *mixed)[2]
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the \xff cat\n"))
    )  # shown, not fatal
    status, _, err = call("predict", "--from", "{}/bert-classification")
    assert status == 0 and "1 text(s) hold U+FFFD" in err
    for nothing in (io.StringIO(""), None):  # None: closed, as of some services
        monkeypatch.setattr(sys, "stdin", nothing)
        assert json.loads(call("predict", "--from", "{}/bert-classification", "--json")[1]) == []


def test_predict_prints_as_it_reads(call, monkeypatch):
    texts, predict = (
        ["the cat", "a \x1b[31mdog", "我", "x"],
        ["predict", "--from", "{}/bert-matching"],
    )
    monkeypatch.setattr("keras_compress.cli.answers.CHUNK", 2)
    whole = json.loads(call("predict", *texts, "--from", "{}/bert-classification", "--json")[1])
    out = call("predict", *texts, "--from", "{}/bert-classification", "--jsonl")[1]
    assert [json.loads(line) for line in out.splitlines()] == whole and len(whole) == 4
    out = call("predict", *texts, "--from", "{}/bert-classification")[1]
    assert "\x1b" not in out and "a \\u001b[31mdog" in out
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\tb\nx\ty\nno tab\n"))
    status, out, err = call(*predict)
    assert status == 1 and len(out.splitlines()) == 2 and "Received: 'no tab'" in err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("a\tb\n".encode("utf-16-le"))))
    assert "text(s) hold U+FFFD or NUL" in call(*predict)[2]


def test_speed_skips_layers_of_a_model_with_exits(call, place, tmp_path):
    samples.model(tmp_path / "exits", num_layers=3, exits=[1, 2])
    texts = "the cat sat", "a dog"
    predict = ["predict", *texts, "--from", tmp_path / "exits"]
    rows = json.loads(call(*predict, "--speed", 1, "--json")[1])
    assert [row["layer"] for row in rows] == [1, 1] and [row["text"] for row in rows] == [*texts]
    assert call(*predict, "--speed", 1)[1].startswith("layer 1\t")
    assert all("layer" not in row for row in json.loads(call(*predict, "--json")[1]))
    measure = ["evaluate", "--from", tmp_path / "exits", "--data", "{}/classification"]
    figures = json.loads(call(*measure, "--speed", 1, "--json")[1])
    assert (figures["speed"], figures["layer"]) == (1.0, 1.0)
    assert "mean layer of exit 1.00" in call(*measure, "--speed", 1)[1]
    assert json.loads(call(*measure, "--json")[1]).keys() == figures.keys() - {"speed", "layer"}
    status, _, err = call("predict", *texts, "--from", "{}/bert-classification", "--speed", 0.5)
    assert status == 1 and "the model must have exits. Received: 0.5 and exits None. Give" in err
    _, _, err = call("evaluate", "--from", "{}/bert-tagging", "--data", "{}/tagging", "--speed", 1)
    assert "the model must have exits. Received: 1.0" in err
    file = ["--tflite", "{}/exported/float32.tflite"]
    _, _, err = call(*measure, "--speed", 1, *file)
    assert "`--speed` belongs to a model, whose layers it skips. Received: `--tflite`" in err


def test_exits_learn_from_unlabelled_text(call, tmp_path):
    (tmp_path / "prose.txt").write_text("the cat sat\na dog sat\n\nthe mat\na cat\n", "utf-8")
    compress = ["compress", "fastbert", "--from", "{}/bert-classification", *FAST]
    text = ["--data", tmp_path / "prose.txt", "--out", tmp_path / "early"]
    status, _, err = call(*compress, *text)
    assert status == 0, err
    model = TaskModel.load(tmp_path / "early")
    assert (model.task, model.config.exits) == ("classification", [1])


def test_data_and_methods(call):
    status, out, _ = call("data", "show", "{}/tagging", "--json")
    shown = json.loads(out)
    assert (
        status == 0
        and shown["task"] == "tagging"
        and shown["train"] == 24
        and len(shown["examples"]) == 5
    )
    assert [*shown["classes"]["O"]] == ["train", "dev", "test"]
    shown = call("data", "show", "--data", "{}/matching", "--from", "{}/bert-matching")[1]
    assert "labels: other, same" in shown and "words unknown to " in shown
    status, out, _ = call("methods", "--json")
    assert json.loads(out)["methods"]["theseus"]["family"] == "replacement"
    assert "theseus-study" in json.loads(out)["recipes"]
    assert "  layers " in call("methods")[1] and "  masked_lm " in call("methods")[1]
    text = call("methods", "theseus")[1]
    assert "Equation map" in text and "num_layers=None" in text and "module_map:" in text
    assert json.loads(call("methods", "layers", "--json")[1])["settings"] == {
        "num_layers": "3",
        "how": "'bottom'",
    }


def test_download_is_called_and_needs_a_name(call, monkeypatch):
    status, out, err = call("data", "download")
    assert status == 1 and out == "" and "one of sst2, mrpc, tnews. Received: None" in err
    monkeypatch.setattr("keras_compress.datasets.download.download", lambda name: f"there/{name}")
    assert call("data", "download", "sst2")[:2] == (0, "Saved: there/sst2\n")


def test_run_prints_the_headline(call, monkeypatch, tmp_path):
    seen = {}
    report = {"models": [], "comparisons": [], "ship": []}
    monkeypatch.setattr(
        "keras_compress.experiment.experiment.run", lambda **k: seen.update(k) or (tmp_path, report)
    )
    given = [
        "--quick",
        "--length",
        "12",
        "--from",
        "{}/bert-matching",
        "--new-head",
        "--seeds",
        "0,3",
        "--only",
        "a,b",
    ]
    status, out, _ = call("run", *given)
    assert status == 0 and out.splitlines()[-1] == f"Report: {tmp_path / 'report.html'}"
    assert (
        seen["recipe"] == "theseus" and seen["quick"] and seen["new_head"] and seen["length"] == 12
    )
    assert (seen["seeds"], seen["only"], seen["out"]) == ([0, 3], ["a", "b"], None)
    assert {*seen} == {"out", *DEFAULTS}
    assert json.loads(call("run", "--json", "--resume")[1]) == {
        "folder": str(tmp_path),
        "models": [],
    }


def test_interrupts_bugs_and_memory(call, monkeypatch):
    def fail(error):
        def methods():
            """Fail."""
            raise error

        monkeypatch.setattr(cli, "VERBS", (methods,))

    from keras_compress.backend import tf

    fail(KeyboardInterrupt())
    status, out, err = call("methods")
    assert (status, out) == (1, "") and err.startswith("stopped. `run --resume` goes on; ")
    fail(
        tf.errors.ResourceExhaustedError(
            None, None, "{{function_node x}} a/ckpt-2; No space left on device"
        )
    )
    assert call("methods")[2].startswith(
        "error: a/ckpt-2; No space left on device. Free some space, then go on"
    )
    fail(ValueError("two\nlines"))
    assert call("methods") == (1, "", "error: two lines\n")
    fail(ValueError("\x1b[31m" + "x" * 100_000 + " Way out."))
    err = call("methods")[2]
    assert len(err) < 3100 and "\x1b" not in err and err.endswith("Way out.\n")
    fail(ZeroDivisionError())  # a bug keeps its traceback
    with pytest.raises(ZeroDivisionError):
        call("methods")


def test_sigterm_ends_the_process_that_was_started_too(tmp_path):
    code = """
import subprocess, sys
from keras_compress import cli
def methods():
    \"\"\"Wait.\"\"\"
    wait = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    subprocess.check_output([sys.executable, "-c", wait, sys.argv[1]])
cli.VERBS = (methods,)
sys.exit(cli.main(["methods"]))
"""
    note = tmp_path / "pid"
    command = [sys.executable, "-c", code, str(note)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (note.is_file() and note.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert "stopped. `run --resume` goes on" in process.communicate(timeout=20)[1]
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_duplicates_across_splits_are_counted_on_stderr(call, place, tmp_path):
    shutil.copytree(place / "classification", tmp_path / "twice")
    shutil.copy(tmp_path / "twice" / "train.tsv", tmp_path / "twice" / "dev.tsv")
    for _ in range(2):  # not only the first time in a process
        status, out, err = call("data", "show", tmp_path / "twice")
        assert (
            status == 0 and "warning" not in out and "24 of 24 dev texts also occur in train" in err
        )


def replace(name, content):
    def change(folder):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def first_lines(name, number=1):
    def change(folder):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        (folder / name).write_text("\n".join(lines[:number]) + "\n", encoding="utf-8")

    return change


def cut(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])


def other_shape(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {**tensors, "layer_0_query/kernel": np.zeros((8, 9), np.float32)},
        folder / "model.safetensors",
    )


def missing_weight(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: tensors[name] for name in tensors if name != "layer_0_query/kernel"},
        folder / "model.safetensors",
    )


def more_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {**tensors, "layer_9_query/kernel": np.zeros((8, 8), np.float32)},
        folder / "model.safetensors",
    )


def test_a_refused_command_can_be_corrected(call, tmp_path):
    command = (*COMPRESS, *FAST, "--out", tmp_path / "small", "--set")
    status, _, err = call(*command, "num_layers=3")
    assert status == 1 and "must be a multiple" in err and list(tmp_path.iterdir()) == []
    assert call(*command, "num_layers=1")[0] == 0


GOOD = "label\ttext\n"
COMPRESS = (
    "compress",
    "theseus",
    "--from",
    "{}/bert-classification",
    "--data",
    "{}/classification",
)


@pytest.mark.parametrize(
    "changed, change, message",
    [
        (
            "data",
            replace("train.tsv", "text\nthe cat\n"),
            "train.tsv:1: fields must be separated by tabs.* Received: one column, 'text'",
        ),
        ("data", replace("train.tsv", GOOD + "yes\n"), "train.tsv:2: a row must have 2 fields"),
        (
            "data",
            replace("train.tsv", GOOD + "pink\tthe cat\n"),
            "train.tsv:2: a label must be .* Received: 'pink'",
        ),
        (
            "data",
            replace("train.tsv", GOOD.encode() + b"yes\tthe \xff\n"),
            "train.tsv:2: text must be UTF-8",
        ),
        (
            "data",
            replace("train.tsv", GOOD + "yes\tthe \0\n"),
            "train.tsv:2: text must be UTF-8. Received: a NUL byte",
        ),
        ("data", replace("train.tsv", ""), "train.tsv: .* a train file with examples"),
        ("data", first_lines("test.tsv"), "test.tsv: .* a test file with examples"),
        (
            "data",
            lambda folder: (folder / "dev.tsv").unlink(),
            "must have a dev file with examples. Received: only labels.txt, test.tsv, train.tsv. Write",
        ),
        ("data", replace("labels.txt", "one\n"), "labels.txt: there must be at least two names"),
        ("model", cut, "model.safetensors: not a whole safetensors file"),
        (
            "model",
            other_shape,
            r"`layer_0_query/kernel` must have shape \(8, 8\). Received: \(8, 9\)",
        ),
        ("model", missing_weight, "must hold `layer_0_query/kernel`"),
        (
            "model",
            more_weights,
            "must describe all of model.safetensors.*1 weights more, layer_9_query/kernel",
        ),
        (
            "model",
            replace("config.json", '{"keras_compress": 1, "lowercase": true, "config": 3}'),
            "bert|copy: ",
        ),
        ("model", replace("history.csv", "step\n1,2\n"), "copy: "),
        (
            "model",
            first_lines("vocab.txt", 9),
            "vocabulary must have `vocab_size` pieces. Received: 9 pieces",
        ),
        ("model", replace("vocab.txt", b"\xff\n"), "vocab.txt:1: text must be UTF-8"),
        ("model", replace("config.json", "{"), "config.json: not valid JSON"),
        (
            "model",
            lambda folder: (folder / "labels.txt").unlink(),
            "must come with labels.txt. It is missing",
        ),
    ],
)
def test_damaged_data_and_models(call, place, tmp_path, changed, change, message):
    paths = {"data": place / "classification", "model": place / "bert-classification"}
    paths[changed] = copy = shutil.copytree(paths[changed], tmp_path / "copy")
    if changed == "model":
        write_json(copy / "config.json", read_json(copy / "config.json"))  # without its SHA-256
    change(copy)
    status, out, err = call(
        "compress",
        "layers",
        "--set",
        "num_layers=1",
        "--from",
        paths["model"],
        "--data",
        paths["data"],
        "--out",
        tmp_path / "out",
    )
    check_error(status, out, err, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            (*COMPRESS, *FAST, "--set", "module_map=[[0]]"),
            "`module_map` must be `num_layers` lists that hold every layer from 0 to 1",
        ),
        (
            (*COMPRESS, "--set", "num_layers=three"),
            "`num_layers` must be a valid integer. Received: 'three'",
        ),
        (
            (*COMPRESS, "--set", "num_layers"),
            "A setting is NAME=VALUE. Received: num_layers. Write ",
        ),
        (
            (*COMPRESS, "--set", "colour=1"),
            "Settings must be among .*module_map.*Received: colour",
        ),
        ((*COMPRESS,), "`max_length` must be at most 16"),
        (("compress", "magic", *COMPRESS[2:]), "`method` must be one of finetune, "),
        ((*COMPRESS, "--out", "{}/exported"), "output folder must be new or empty"),
        ((*COMPRESS, "--out", "{}/classification", "--overwrite"), "same kind.*no history.csv"),
        (
            ("train", "--from", "{}/bert-classification", "--data", "{}/matching"),
            "task must be the one asked for",
        ),
        (("train", "--from", "nowhere", "--data", "{}/matching"), "nowhere, which does not exist"),
        (
            ("train", "--from", "minilm", "--data", "nowhere"),
            "a folder that exists. Received: 'nowhere'",
        ),
        (
            ("export", "--from", "{}/bert-tagging", "--formats", "pdf"),
            "must be some of float32, .* Received: pdf",
        ),
        (("export", "--from", "{}/bert-tagging", "--length", "99"), "must be 4 to 16"),
        (
            ("export", "--from", "{}/bert-tagging", "--length", "9", "--lengths", "6,9"),
            "Either `--length` or `--lengths` .* Received: 9 and .6, 9.. Leave",
        ),
        (
            ("export", "--from", "{}/bert-tagging", "--formats", "onnx_int8", "--lengths", "6,9"),
            "must be .tflite files of a BERT",
        ),
        (
            ("export", "--from", "{}/bert-tagging", "--length", "12", "--onnx"),
            "ONNX needs packages .*: pip install onnx",
        ),
        (
            (
                "evaluate",
                "--from",
                "{}/bert-tagging",
                "--data",
                "{}/tagging",
                "--tflite",
                "none.tflite",
            ),
            "none.tflite",
        ),
        (
            (
                "evaluate",
                "--from",
                "{}/bert-tagging",
                "--data",
                "{}/tagging",
                "--tflite",
                "{}/exported/float32.tflite",
            ),
            r"none.tflite|must .*this model",
        ),
        (("benchmark", "none.tflite"), "none.tflite"),
        (("benchmark", "{}/exported/vocab.txt"), "not a TFLite model that this runtime can load"),
        (("run", "--resume", "--overwrite"), "Either `--resume` or `--overwrite`"),
        (
            ("serve", "{}/classification"),
            "must hold .tflite files beside their model.json, or with MediaPipe.s metadata. Received: .*/class",
        ),
        (
            ("predict", "--from", "{}/bert-matching", "no tab"),
            "separated by one tab. Received: 'no tab'",
        ),
        (
            ("predict", "--from", "minilm", "hello"),
            "`task` and `labels` must be given.*fine-tune the model first",
        ),
        (
            ("evaluate", "--from", "minilm", "--data", "{}/classification"),
            "head must be trained.*Train it first",
        ),
        (
            ("export", "--from", "minilm", "--data", "{}/classification"),
            "head must be trained.*Train it first",
        ),
        (
            ("train", "--from", "{}/bert-classification", "--data", "{}/classification/train.tsv"),
            "give the folder",
        ),
        (("data", "download", "everything"), "sst2"),
        (("methods", "magic"), "`method` must be one of"),
        (("run", "nothing"), "recipe must be one of"),
        (("run", "--resume", "--out", "{}/exported"), "holds no run.json"),
        (
            ("run", "--data", "{}/classification", "--from", "nowhere"),
            "nowhere, which does not exist",
        ),
    ],
)
def test_wrong_requests(call, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(
        "mobile_export.ort.find_spec", lambda name: None
    )  # as without the packages of ONNX
    if arguments[0] in ("compress", "train", "export") and "--out" not in arguments:
        arguments = (*arguments, "--out", tmp_path / "out")
    check_error(*call(*arguments), message)
    assert not (tmp_path / "out").exists()


def check_error(status, out, err, message):
    line = err.splitlines()[-1]
    assert status == 1 and out == "" and line.startswith("error: "), err
    assert re.search(message, line), line
    assert err.count("error: ") == 1


def test_a_checkpoint_may_be_named_by_the_beginning_of_its_files(tmp_path):
    (tmp_path / "bert_model.ckpt.index").touch()
    cli._look({"source": str(tmp_path / "bert_model.ckpt")})
    with pytest.raises(ValueError, match="does not exist"):
        cli._look({"source": str(tmp_path / "other.ckpt")})
