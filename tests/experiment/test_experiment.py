"""Whole runs with tiny models: what they write, how they resume, and what is refused before anything is lost."""

import errno
import functools
import json
import logging
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keras_compress import pruning
from keras_compress.bert.task_model import TaskModel
from keras_compress.cli import main
from keras_compress.experiment import cells, run_folder
from keras_compress.experiment import experiment as module
from keras_compress.experiment.experiment import Plan, run
from keras_compress.experiment.recipe import (
    hash_of,
    identity,
    of_seed,
    read_recipe,
    recipes,
    steps_of,
)
from keras_compress.experiment.report import FILE_KEYS, MODEL_KEYS
from keras_compress.files import DATA_FOLDER, write_sealed
from keras_compress.lock import alone
from keras_compress.training.checkpoints import Saver
from mobile_export.benchmark import benchmark
from mobile_export.convert import exported_model
from mobile_export.graph import ExportError
from tests import samples
from tests.bert import tiny
from tests.support import in_this_process

pytestmark = pytest.mark.usefixtures("eagerly")
STEPS = [
    ("predecessor", "finetune", "minilm"),
    ("theseus-1", "theseus", "predecessor", "num_layers = 1"),
    ("plain-1", "layers", "minilm", 'num_layers = 1\nrole = "baseline"'),
    ("truncated-1", "layers", "predecessor", 'num_layers = 1\nrole = "baseline"'),
]
DATA = "classification"


def timed_by(run_command, patch):
    """Times files and engines by 3 calls, not 50."""
    patch.setattr(cells, "benchmark", functools.partial(benchmark, runs=3, warmup=1))
    few = SimpleNamespace(
        check_output=lambda command, **k: run_command([*command, "--runs=3"], **k)
    )
    patch.setattr(cells, "subprocess", few)


@pytest.fixture(scope="module", autouse=True)
def few_calls():
    with pytest.MonkeyPatch.context() as patch:
        timed_by(subprocess.check_output, patch)
        yield


@pytest.fixture
def engines_here(monkeypatch):
    """Times the engines in this process, as without the packages of ONNX."""
    monkeypatch.setattr("mobile_export.ort.find_spec", lambda name: None)
    timed_by(in_this_process, monkeypatch)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, sources of weights and recipes, for all tests."""
    place = tmp_path_factory.mktemp("run")
    for task in tiny.LABELS:
        samples.data(place / task, task)
        samples.model(place / f"bert-{task}", task, tuned=task != DATA)
    samples.recipe(
        place / "small.toml",
        *STEPS[:3],
        training="epochs = 1\ncheckpoint_every = 1",
        head='formats = ["float32", "int8"]\nsequence_length = 16',
    )
    samples.recipe(place / "all.toml", *STEPS)
    samples.recipe(place / "two.toml", *STEPS[:2])
    return place


@pytest.fixture
def asked(place):
    """The settings of the finished run."""
    return {
        "recipe": place / "small.toml",
        "data": place / DATA,
        "source": place / "bert-classification",
    }


@pytest.fixture(scope="module")
def finished(place):
    """A run that was stopped between two steps and in the middle of one, and twice went on; what each part did."""
    settings = {"data": place / DATA, "source": place / "bert-classification"}
    parts = []

    class Log(logging.Handler):
        def emit(self, record):
            parts[-1].append(record.getMessage())

    def stop_before(self, step, *rest, original=Plan.run_step, **changes):
        if step.name == "theseus-1" and "folder" in changes:  # no rehearsal
            raise KeyboardInterrupt
        return original(self, step, *rest, **changes)

    def stop_after_saving(self, original=Saver.save):
        original(self)
        if self.folder and self.folder.name == "replace":
            raise KeyboardInterrupt

    handler, logger = Log(), logging.getLogger("keras_compress")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    for owner, name, replacement in (
        (Plan, "run_step", stop_before),
        (Saver, "save", stop_after_saving),
        (None, None, None),
    ):
        parts.append([])
        with pytest.MonkeyPatch.context() as patch:
            if len(parts) > 1:
                patch.setattr(module, "rehearse", lambda plan: None)  # the first part had one
            if owner:
                patch.setattr(owner, name, replacement)
                with pytest.raises(KeyboardInterrupt):
                    run(place / "small.toml", place / "out", resume=len(parts) > 1, **settings)
            else:  # what it was asked for is in run.json
                report = run(out=place / "out", resume=True)[1]
    logger.removeHandler(handler)
    return place / "out", report, ["\n".join(part) for part in parts]


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_resume_makes_nothing_twice(finished):
    folder, _, (first, second, third) = finished
    form = r"  classification {}: {}, 1 x 3 updates, about \d+ s; files: float32, int8"
    planned = [line for line in first.splitlines() if "updates, about" in line]
    for step, line in zip(STEPS[:3], planned, strict=True):
        assert re.fullmatch(form.format(*step[:2]), line)
    assert "plan: 3 model(s)" in first and "plan: 2 model(s)" in second
    assert "classification predecessor:" not in third
    assert "left of the run" in first + third
    first, second, third = (part.partition("data: ")[2] for part in (first, second, third))
    assert "predecessor: finetune from" in first and "replace" not in first
    assert "predecessor: there already" in second and "replace 1/2" in second
    assert "replace 2/2" not in second
    assert "resumed from" in third and "replace 1/2" not in third and "replace 2/2" in third
    there = [line for line in third.splitlines() if "there already" in line]
    assert {*there} == {"predecessor: there already"} and "plain-1: layers from" in third
    assert not any((folder / "checkpoints").iterdir())
    assert list(folder.glob("tensorboard/theseus-1/replace/events*"))
    assert "resumed from" in (folder / "log.txt").read_text(encoding="utf-8")
    curve = TaskModel.load(folder / "models" / "theseus-1").curve
    assert [row["step"] for row in curve if row["stage"] == "replace"] == [1, 2]


def test_a_rehearsal_and_stops_change_no_bit(finished, place, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "rehearse", lambda plan: None)
    monkeypatch.setattr(module, "make_cell", Plan.model)
    monkeypatch.setattr(module, "time_engines", lambda plan: None)
    run(place / "small.toml", tmp_path, data=place / DATA, source=place / "bert-classification")
    for name in ("predecessor", "theseus-1", "plain-1"):
        one, other = (TaskModel.load(p / "models" / name) for p in (tmp_path, finished[0]))
        np.testing.assert_equal(one.weights(), other.weights())


def test_report_files_and_keys(finished):
    folder, report, _ = finished
    written = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    names = ["predecessor", "theseus-1", "plain-1", "tfidf", "majority"]
    assert [row["name"] for row in written["models"]] == names
    for row in written["models"]:
        assert tuple(row) == MODEL_KEYS and row["metric"] == "accuracy"
        assert all(tuple(file) == FILE_KEYS for file in row["files"])
        assert 0 <= row["accuracy"] <= 1 and row["num_examples"] == 30
    for row in written["models"][:3]:
        assert [file["format"] for file in row["files"]] == ["float32", "int8"]
        assert None not in [value for key, value in row.items() if key != "role"]
        assert None not in [value for file in row["files"] for value in file.values()]
    assert written["models"][0]["agreement"] == 1.0 and written["models"][1]["seeds"] == [0]
    assert {(c["model"], c["baseline"]) for c in written["comparisons"]} == {
        ("theseus-1", "predecessor"),
        ("theseus-1", "plain-1"),
    }
    assert written["engines"]["model"] == "theseus-1"
    assert [row["name"] for row in written["engines"]["rows"]] == [
        "LiteRT float32",
        "LiteRT int8",
        "ONNX Runtime float32",
        "ONNX Runtime int8",
        "tf.function",
        "Keras call",
        "Keras predict",
    ]
    assert written["settings"]["source"].endswith("bert-classification")
    assert [row["best"] for row in written["ship"]] == ["smallest", "fastest", "most accurate"]
    (note,) = [note for note in written["notes"] if "best evaluation on dev" in note]
    assert note.endswith("on dev.") and not any(
        "the last update" in each for each in written["notes"]
    )
    trained = TaskModel.load(folder / "models" / "plain-1").history[-1]["training"]
    assert (trained["patience"], trained["evaluations"]) == (4, 4)
    assert written["versions"]["tensorflow"] and written["seconds"] > 0
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in html and "theseus-1" in html
    assert "| theseus-1 |" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_new_file_is_a_step_and_a_row_of_the_report(place, tmp_path, monkeypatch):
    """No other edit; tests/test_contract.py finds such a file (of another name) in `methods`."""
    (tmp_path / "placed_file.py").write_text(
        '"""Nothing. A., B., 2026."""\nfrom keras_compress.method import Share, compression\n\n\n'
        "@compression(trains=False)\n"
        "def compress(task_model, dataset, *, seed=0, training=None, share: Share = 0.5):\n"
        "    return task_model.clone(seed=seed)\n"
    )
    monkeypatch.setattr(pruning, "__path__", [*pruning.__path__, str(tmp_path)])
    for part in ("rehearse", "time_engines"):
        monkeypatch.setattr(module, part, lambda plan: None)
    steps = STEPS[0], ("new", "placed_file", "predecessor", "share = 0.25")
    recipe, out = samples.recipe(tmp_path / "new.toml", *steps), tmp_path / "out"
    run(recipe, out, data=place / DATA, source=place / "bert-classification")
    assert TaskModel.load(out / "models" / "new").history[-1]["share"] == 0.25
    assert "| new |" in (out / "report.md").read_text(encoding="utf-8")


def test_the_table_of_a_run(finished, tmp_path, capsys):
    picture = tmp_path / "all.png"
    assert main(["table", str(finished[0]), "--picture", str(picture)]) == 0
    assert "| classification | theseus-1 |" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["table", str(finished[0] / "cells"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["method"] == "predecessor"


def test_models_are_whole_folders(finished, place):
    folder, report, _ = finished
    texts = [line.split("\t")[1] for line in samples.rows(DATA, "test", 30)]
    for row in report["models"][:3]:
        model = TaskModel.load(folder / "models" / row["name"])
        assert model.config.num_layers == (2 if row["name"] == "predecessor" else 1)
        exported = exported_model(folder / "models" / row["name"] / "float32.tflite", model)
        np.testing.assert_allclose(exported.predict(texts), model.predict(texts), atol=1e-5)


@pytest.mark.parametrize("task", ["matching", "tagging", "multilabel", "regression"])
def test_other_tasks_end_to_end_from_a_fine_tuned_model(place, tmp_path, task, engines_here):
    source = place / f"bert-{task}"
    _, report = run(place / "two.toml", tmp_path / "out", data=place / task, source=source)
    assert report["task"] == task
    assert report["notes"][0].startswith(f"predecessor: bert-{task} as it is")
    by_name = {row["name"]: row for row in report["models"]}
    small = by_name["theseus-1"]
    metrics = {"tagging": "entity_f1", "multilabel": "micro_f1", "regression": "pearson"}
    assert small["metric"] == metrics.get(task, "accuracy")
    assert small["files"][0]["accuracy"] == pytest.approx(
        small["accuracy"], abs=1e-5 if task == "regression" else None
    )
    assert "majority" in by_name and ("tfidf" in by_name) == (task != "tagging")
    pair = report["comparisons"][0]
    assert small["accuracy"] - by_name[pair["baseline"]]["accuracy"] == pytest.approx(
        pair["difference"]
    )
    (note,) = (note for note in report["notes"] if "ONNX" in note)
    assert note.startswith("Not timed in ONNX Runtime: ONNX needs packages that are missing: pip")
    engines = [row["name"] for row in report["engines"]["rows"]]
    assert engines[-3:] == ["tf.function", "Keras call", "Keras predict"]
    assert TaskModel.load(tmp_path / "out" / "models" / "theseus-1").task == task


def test_quantised_models_stand_beside_their_control(place, asked, tmp_path, engines_here):
    recipe = samples.recipe(
        place / "quantised.toml",
        STEPS[0],
        ("control", "finetune", "predecessor", 'role = "control"'),
        ("static-int8", "q8bert", "predecessor", 'start_step = 0\nformats = ["int8"]'),
        ("dynamic-int8", "q8bert", "predecessor", 'activations = "dynamic"\nformats = ["int8"]'),
    )
    source = samples.model(place / "one-layer", num_layers=1)
    _, report = run(**{**asked, "recipe": recipe, "source": source}, out=tmp_path / "out")
    assert {(c["model"], c["baseline"]) for c in report["comparisons"]} == {
        (name, other)
        for name in ("static-int8", "dynamic-int8")
        for other in ("predecessor", "control")
    }
    assert report["engines"]["model"] == "dynamic-int8"
    assert [row["name"] for row in report["engines"]["rows"]][0] == "LiteRT int8"
    assert "static-int8:int8" in {row["method"] for row in report["pooled"]}


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"quick": True},
        {"length": 8},
        {"data": "else"},
        {"recipe": "other.toml"},
        {"new_head": True},
        {"lowercase": False},
        {"source": "minilm"},
    ],
)
def test_changed_settings_are_refused_on_resume(finished, changed):
    folder, before = finished[0], contents(finished[0])
    with pytest.raises(
        ValueError, match=f"must be asked for what it was. `{next(iter(changed))}` was .* Received"
    ):
        run(**{"out": folder, "resume": True, **changed})
    assert contents(folder) == before


def test_changed_data_are_refused_on_resume(finished, place):
    file = place / DATA / "test.tsv"
    before = file.read_text(encoding="utf-8")
    file.write_text(before + "yes\tthe mat\n", encoding="utf-8")
    with pytest.raises(ValueError, match="same data. Received: other content than before"):
        run(out=finished[0], resume=True)
    file.write_text(before, encoding="utf-8")


def test_changed_weights_are_refused_on_resume_and_other_versions_told(
    finished, place, monkeypatch, caplog
):
    settings = json.loads((finished[0] / "run.json").read_text("utf-8"))
    (weights,) = (name for name in settings["sources"] if name.endswith("model.safetensors"))
    before = Path(weights).read_bytes()
    Path(weights).write_bytes(before[:-1] + b"\0")
    with pytest.raises(ValueError, match="same files. Received: other content.*model.safetensors"):
        run_folder.check_same(settings, settings["sets"])
    Path(weights).write_bytes(before)
    del settings["sources"]  # of an earlier version
    monkeypatch.setattr(run_folder, "version", lambda name: "9.9")
    run_folder.check_same(settings, settings["sets"])
    assert "the run began with other versions: ai-edge-litert" in caplog.text


def test_sources_are_files_of_weights_and_vectors(tmp_path):
    for name in ("bert/a.safetensors", "bert/config.json", "bert/1_Pooling/config.json", "g.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in (
        "bert/notes.md",
        "bert/float32.tflite",
        "w.ckpt.index",
        "w.ckpt.data-0",
        "vocab.txt",
    ):
        (tmp_path / name).write_text(name)
    at = lambda *names: {str(tmp_path / name) for name in names}
    every = {"a": "minilm", "b": str(tmp_path / "bert"), "c": str(tmp_path / "w.ckpt")}
    found = {
        key: {
            *run_folder.sources_of({"steps": [{"name": "x", "from": value, "method": "theseus"}]})
        }
        for key, value in every.items()
    }
    assert found == {
        "a": set(),
        "b": at("bert/a.safetensors", "bert/config.json", "bert/1_Pooling/config.json"),
        "c": at("w.ckpt.index", "w.ckpt.data-0", "vocab.txt"),
    }
    step = {"name": "x", "from": "y", "vectors": str(tmp_path / "g.txt"), "num_layers": 3}
    assert {*run_folder.sources_of({"steps": [step]})} == at("g.txt", "vocab.txt")


def test_resume_needs_a_run(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds no run.json"):
        run(out=tmp_path, resume=True)
    monkeypatch.setattr(run_folder, "DATA_FOLDER", tmp_path / "data")
    with pytest.raises(ValueError, match="none under runs/. Name it with --out"):
        run(resume=True)
    for age, name in enumerate(["theseus-2", "theseus-1"]):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
        os.utime(tmp_path / "runs" / name / "run.json", (age, age))
    assert run_folder.last_folder() == tmp_path / "runs" / "theseus-1"
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no run.json of one"):
        run(out=tmp_path, resume=True)


def test_an_occupied_folder_keeps_every_byte(finished, asked, tmp_path, capsys):
    folder, before = finished[0], contents(finished[0])
    arguments = ["run", asked["recipe"], "--from", asked["source"], "--data", asked["data"]]
    assert main([*map(str, arguments), "--out", str(folder)]) == 1
    assert "must be new or empty" in capsys.readouterr().err
    with pytest.raises(ValueError, match="must be minilm"):  # --overwrite, but a wrong source
        run(**{**asked, "source": "nowhere"}, out=folder, overwrite=True)
    with pytest.raises(ValueError, match="folder that exists"):
        run(**{**asked, "data": "nowhere"}, out=folder, overwrite=True)
    assert contents(folder) == before
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="replaces only a folder of the same kind.*no run.json"):
        run(**asked, out=tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_overwrite_removes_the_old_run_and_nothing_else(finished, asked, tmp_path, monkeypatch):
    shutil.copytree(finished[0], tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("mine")
    monkeypatch.setattr(module, "rehearse", lambda plan: None)
    monkeypatch.setattr(module, "make_baselines", lambda plan: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(**asked, out=tmp_path / "out", overwrite=True, length=12)
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["log.txt", "mine.txt", "run.json"]
    assert json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["length"] == 12
    log = (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")
    assert "stopped: ZeroDivisionError" in log


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"recipe": "nothing"}, "must be one of albert, .*theseus"),
        ({"data": "{place}/no-test"}, "splits train, dev, test. Received"),
        ({"data": "{place}/text.txt"}, "must have labels and the splits"),
        ({"length": 17}, "`max_length` must be at most 16"),
        ({"length": 3}, "`max_length` must be greater than or equal to 4"),
        ({"recipe": "{place}/formats.toml"}, "must be some of float32, float16"),
        ({"source": "{place}/bert-tagging"}, "task must be the one asked for"),
        ({"task": "tagging"}, "must be for the task"),
        ({"only": ["theseus-9"]}, "`only` must name steps of the recipe: predecessor, .*theseus-9"),
        ({"num_layers": 3}, "Step theseus-1: .*`num_layers`|Step theseus-1: .*3"),
        ({"learning_rate": 0.0}, "`learning_rate` must be greater than 0"),
        ({"recipe": "{place}/pkd.toml"}, "Step small: .*Received: 1"),
        ({"recipe": "{place}/student.toml"}, "Step a: .*nowhere"),
        ({"recipe": "{place}/words.toml"}, 'Step a: .*must say role = "helper"'),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    place, asked, tmp_path, wrong, message
):
    shutil.copytree(place / DATA, place / "no-test", dirs_exist_ok=True)
    (place / "no-test" / "test.tsv").unlink()
    (place / "text.txt").write_text("the cat sat on the mat\n" * 9, encoding="utf-8")
    first = STEPS[0]
    samples.recipe(place / "formats.toml", first, head='formats = ["pdf"]')
    samples.recipe(place / "pkd.toml", first, ("small", "pkd", "predecessor", "num_layers = 1"))
    student = 'num_layers = 1\nstudent = "nowhere"'
    samples.recipe(place / "student.toml", first, ("a", "distilbert", "predecessor", student))
    words = f'data = "{place}/text.txt"'
    samples.recipe(place / "words.toml", first, ("a", "masked_lm", "minilm", words))
    wrong = {
        key: value.format(place=place) if isinstance(value, str) else value
        for key, value in wrong.items()
    }
    with pytest.raises(ValueError, match=message):
        run(**{**asked, **wrong}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_packages_for_onnx_are_missed_before_anything_is_trained(
    place, asked, tmp_path, monkeypatch
):
    samples.recipe(place / "onnx.toml", (*STEPS[0], 'formats = ["int8", "onnx_int8"]'))
    monkeypatch.setattr("mobile_export.ort.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install onnx onnxruntime tf2onnx"):
        run(**{**asked, "recipe": place / "onnx.toml"}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def plan_of(place, recipe="all.toml", **changes):
    asked = {
        **run_folder.DEFAULTS,
        "recipe": str(place / recipe),
        "data": str(place / DATA),
        **changes,
    }
    folder, settings = run_folder.new_run(asked, place / "unused", False)
    plan = Plan(settings, settings["content"]["datasets"][0], folder)
    return plan.ready, [step.name for step in plan.steps], " ".join(plan.notes)


def test_a_format_that_fails_is_told_and_does_not_end_the_run(place, tmp_path, monkeypatch):
    asked = {**run_folder.DEFAULTS, "recipe": str(place / "small.toml"), "data": str(place / DATA)}
    folder, settings = run_folder.new_run(asked, tmp_path, False)
    plan = Plan(settings, asked["data"], folder)
    assert plan.export.keywords["allow_drift"]

    def fail(*_, **__):
        raise ExportError("int8: far off")

    plan.export = fail
    monkeypatch.setattr(cells, "benchmark", lambda *paths: [{"latency_ms_p50": 1}])
    monkeypatch.setattr(Plan, "first", (None, None))
    assert cells.files_of(plan, plan.steps[0], None) == ([], "int8: far off")


def test_a_fine_tuned_source_is_the_predecessor_as_it_is(finished, place):
    source = str(finished[0] / "models" / "predecessor")
    ready, steps, notes = plan_of(place, source=source)
    assert (ready, steps) == (["predecessor"], ["predecessor", "theseus-1", "truncated-1"])
    assert "predecessor as it is" in notes and "not at hand: plain-1. With --new-head" in notes
    every = [step[0] for step in STEPS]
    ready, steps, notes = plan_of(place, source=source, new_head=True)  # all anew
    assert (ready, steps) == ([], every) and "layers start from fine-tuned ones" in notes
    assert plan_of(place, source=str(place / "bert-classification")) == ([], every, "")
    samples.recipe(place / "plain.toml", STEPS[2])
    with pytest.raises(ValueError, match="fine-tuned already.* Pass --new-head"):
        plan_of(place, "plain.toml", source=source)


def test_data_take_the_order_of_a_fine_tuned_source(place):
    samples.model(place / "tuned", tuned=True)
    (samples.data(place / "unordered") / "labels.txt").unlink()  # sorted: maybe, no, yes
    asked = {"recipe": str(place / "two.toml"), "data": str(place / "unordered")}
    asked = {**run_folder.DEFAULTS, **asked, "source": str(place / "tuned")}
    folder, settings = run_folder.new_run(asked, place / "unused", False)
    plan = Plan(settings, settings["content"]["datasets"][0], folder)
    assert plan.ready == ["predecessor"] and plan.dataset.labels == ("no", "maybe", "yes")
    assert plan.dataset.test == module.datasets.load(place / DATA).test


def test_the_ready_predecessor_is_saved_and_compressed(finished, place, tmp_path, monkeypatch):
    trained = []

    def stand_in(step, parent, *rest, **more):
        trained.append(step.name)
        return parent

    monkeypatch.setattr(module, "run_step", stand_in)
    monkeypatch.setattr(module, "rehearse", lambda plan: None)
    monkeypatch.setattr(module, "make_cell", Plan.model)
    monkeypatch.setattr(module, "time_engines", lambda plan: None)
    source = finished[0] / "models" / "predecessor"
    run(place / "all.toml", tmp_path / "out", data=place / DATA, source=source)
    assert trained == ["theseus-1", "truncated-1"]
    made = TaskModel.load(tmp_path / "out" / "models" / "predecessor")
    np.testing.assert_equal(made.weights(), TaskModel.load(source).weights())
    run(out=tmp_path / "out", resume=True)  # the note is still there
    assert trained == ["theseus-1", "truncated-1"]
    assert "not at hand: plain-1" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_quick_and_length(asked, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(module, "QUICK", (12, 5, 7))

    def stop(plan):
        splits = plan.dataset.train, plan.dataset.dev, plan.dataset.test
        seen.update(recipe=plan.recipe, sizes=[len(split.texts) for split in splits])
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "rehearse", stop)
    with pytest.raises(KeyboardInterrupt):
        run(**asked, out=tmp_path / "out", quick=True, length=12)
    assert seen["sizes"] == [12, 5, 7]
    assert seen["recipe"]["sequence_length"] == seen["recipe"]["training"]["max_length"] == 12


def test_a_full_disk_is_one_line_and_what_was_finished_stays(
    finished, tmp_path, monkeypatch, capsys
):
    shutil.copytree(finished[0], tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "models" / "plain-1")
    (tmp_path / "out" / "cells" / "classification-plain-1-0.json").unlink()

    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("keras_compress.bert.task_model.save", full)  # the weights' writer
    assert main(["run", "--resume", "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    error = captured.err.splitlines()[-1]
    assert error.startswith("error: Could not write") and "Free some space" in error
    assert captured.out == ""
    there = contents(tmp_path / "out" / "models")
    before = contents(finished[0] / "models")
    assert there == {name: part for name, part in before.items() if "plain" not in name}


@pytest.mark.parametrize("study", [name for name in recipes() if name.endswith("-study")])
def test_committed_cells_are_those_of_the_recipes(study):
    steps = {step.name: step for step in steps_of(read_recipe(study))}
    for path in (DATA_FOLDER / "results" / study).glob("*.json"):
        cell = json.loads(path.read_text(encoding="utf-8"))
        if cell["role"] != "reference":
            own = {*cell.get("own_data", {}).values()}  # all of them read apidocs
            known = {None: cell["data_sha256"], "apidocs": min(own, default=None)}
            made = identity(of_seed(steps[cell["method"]], cell["seed"]), known.get)
            assert cell["hash"] == hash_of(made) and len(own) <= 1, path


def test_a_stopped_run_goes_on_with_a_corrected_recipe(place, tmp_path, caplog):
    recipe, settings = tmp_path / "own.toml", {"data": place / DATA}
    samples.recipe(recipe, *STEPS)
    folder, asked = run_folder.open_run(tmp_path / "out", {**settings, "recipe": recipe})
    write_sealed(folder / "run.json", asked)
    for part in ("models/predecessor", "checkpoints/theseus-1", "checkpoints/plain-1"):
        (folder / part).mkdir(parents=True)
    (folder / "models/predecessor/config.json").write_text("{}")
    corrected = [*STEPS[:1], (*STEPS[1][:3], "num_layers = 1\nepochs = 2"), *STEPS[2:]]
    samples.recipe(recipe, *corrected)
    with caplog.at_level("INFO"):
        _, asked = run_folder.open_run(folder, {"resume": True})
    assert "the recipe was corrected since: theseus-1" in caplog.text
    assert asked["content"]["steps"][1]["epochs"] == 2
    with run_folder.at_work(folder, asked):
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["plain-1"]
    assert run_folder.open_run(folder, {"resume": True})[1]["content"] == asked["content"]
    for wrong in (
        [(*STEPS[0], "epochs = 2"), *corrected[1:]],  # what ran, and what was made of it
        corrected[1:2],
    ):
        samples.recipe(recipe, *wrong)
        with pytest.raises(ValueError, match="these have not run. Received: .*another predecessor"):
            run_folder.open_run(folder, {"resume": True})


def test_overwrite_refuses_parts_with_files_of_others(finished, asked, tmp_path):
    shutil.copytree(finished[0], tmp_path / "out")
    (tmp_path / "out" / "models" / "plain-1" / "notes.md").write_text("mine")
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match="only what a run wrote.*models/plain-1/notes.md, too"):
        run(**asked, out=tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == before


def test_a_second_process_is_refused_at_the_start(finished, monkeypatch):
    monkeypatch.setattr(module, "rehearse", lambda plan: 1 / 0)
    with alone(finished[0]), pytest.raises(ValueError, match="where another one is at work"):
        run(out=finished[0], resume=True)
