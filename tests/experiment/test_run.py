"""Whole runs with tiny models: what they write, how they resume, and what is refused before anything is lost."""

import errno
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from keras_compress.bert.checkpoints import load
from keras_compress.bert.task_model import TaskModel
from keras_compress.cli import main
from keras_compress.experiment import run as run_module
from keras_compress.experiment.recipe import changed as change
from keras_compress.experiment.report import FILE_KEYS, MODEL_KEYS
from keras_compress.experiment.run import run
from keras_compress.training import loop as training
from mobile_export.convert import exported_model
from tests import samples
from tests.bert import tiny

STEPS = [
    ("predecessor", "finetune", "minilm"),
    ("theseus-1", "theseus", "predecessor", "num_layers = 1"),
    ("plain-1", "layers", "minilm", "num_layers = 1"),
    ("truncated-1", "layers", "predecessor", "num_layers = 1"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, a source of weights and recipes, for all tests."""
    place = tmp_path_factory.mktemp("run")
    for task in tiny.LABELS:
        samples.data(place / task, task)
        samples.model(place / f"bert-{task}", task, tuned=task != "classification")
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
        "data": place / "classification",
        "source": place / "bert-classification",
    }


@pytest.fixture(scope="module")
def finished(place):
    """A run that was stopped between two steps and in the middle of one, and twice went on; what each part did."""
    settings = {"data": place / "classification", "source": place / "bert-classification"}
    parts = []

    class Log(logging.Handler):
        def emit(self, record):
            parts[-1].append(record.getMessage())

    def stop_at(name, original=run_module.run_step):
        def run_step(recipe, step, *rest, **more):
            if step["name"] == name:
                raise KeyboardInterrupt
            return original(recipe, step, *rest, **more)

        return run_step

    def stop_after_saving(self, original=training.Saver.save):
        original(self)
        if self.manager.directory.endswith("replace"):
            raise KeyboardInterrupt

    handler, logger = Log(), logging.getLogger("keras_compress")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    for target, replacement in (
        ("keras_compress.experiment.run.run_step", stop_at("theseus-1")),
        ("keras_compress.training.loop.Saver.save", stop_after_saving),
        (None, None),
    ):
        parts.append([])
        with pytest.MonkeyPatch.context() as patch:
            if target:
                patch.setattr(target, replacement)
                with pytest.raises(KeyboardInterrupt):
                    run(place / "small.toml", place / "out", resume=len(parts) > 1, **settings)
            else:
                report = run(out=place / "out", resume=True)[
                    1
                ]  # what it was asked for is in run.json
    logger.removeHandler(handler)
    return place / "out", report, ["\n".join(part) for part in parts]


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_resume_makes_nothing_twice(finished):
    folder, _, (first, second, third) = finished
    assert "predecessor: finetune from" in first and "replace" not in first
    assert (
        "predecessor: there already" in second
        and "replace 1/2" in second
        and "replace 2/2" not in second
    )
    assert "resumed from" in third and "replace 1/2" not in third and "replace 2/2" in third
    assert third.count("there already") == 1 and "plain-1: layers from" in third
    assert not (folder / "checkpoints").exists()
    assert list(folder.glob("tensorboard/theseus-1/replace/events*"))
    assert "resumed from" in (folder / "log.txt").read_text(encoding="utf-8")
    curve = TaskModel.load(folder / "models" / "theseus-1").curve
    assert [row["step"] for row in curve if row["stage"] == "replace"] == [1, 2]


def test_report_files_and_keys(finished):
    folder, report, _ = finished
    written = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in written["models"]] == [
        *(step[0] for step in STEPS[:3]),
        "majority",
        "tfidf",
    ]
    for row in written["models"]:
        assert tuple(row) == MODEL_KEYS
        assert all(tuple(file) == FILE_KEYS for file in row["files"])
        assert (
            row["metric"] == "accuracy" and 0 <= row["accuracy"] <= 1 and row["num_examples"] == 30
        )
    for row in written["models"][:3]:
        assert [file["format"] for file in row["files"]] == ["float32", "int8"]
        assert None not in [value for value in row.values()] + [
            v for file in row["files"] for v in file.values()
        ]
    assert written["models"][0]["agreement"] == 1.0 and written["models"][1]["seeds"] == [0]
    assert {(c["model"], c["baseline"]) for c in written["comparisons"]} == {
        ("theseus-1", "predecessor"),
        ("theseus-1", "plain-1"),
    }
    assert [row["name"] for row in written["engines"]["rows"]] == [
        "LiteRT float32",
        "LiteRT int8",
        "ONNX Runtime float32",
        "ONNX Runtime int8",
        "tf.function",
        "Keras call",
        "Keras predict",
    ] and written["engines"]["model"] == "theseus-1"
    assert all(
        0 < row["latency_ms_p50"] <= row["latency_ms_p90"] for row in written["engines"]["rows"]
    )
    assert (
        written["settings"]["source"].endswith("bert-classification")
        and written["versions"]["tensorflow"]
    )
    assert written["seconds"] > 0 and len(written["models"]) == len(report["models"])
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in html and "<script src" not in html and "theseus-1" in html
    assert "| theseus-1 |" in (folder / "report.md").read_text(encoding="utf-8")


def test_models_are_whole_folders(finished, place):
    folder, report, _ = finished
    texts = [line.split("\t")[1] for line in samples.rows("classification", "test", 30)]
    for row in report["models"][:3]:
        model = TaskModel.load(folder / "models" / row["name"])
        assert model.config.num_layers == (2 if row["name"] == "predecessor" else 1)
        exported = exported_model(folder / "models" / row["name"] / "float32.tflite", model)
        np.testing.assert_allclose(exported.predict(texts), model.predict(texts), atol=1e-5)


@pytest.mark.parametrize("task", ["matching", "tagging"])
def test_other_tasks_end_to_end_from_a_fine_tuned_model(place, tmp_path, task, monkeypatch):
    monkeypatch.setattr(
        "mobile_export.ort.find_spec", lambda name: None
    )  # as without the packages of ONNX
    _, report = run(
        place / "two.toml", tmp_path / "out", data=place / task, source=place / f"bert-{task}"
    )
    assert report["task"] == task and report["notes"][0].startswith(
        f"predecessor: bert-{task} as it is"
    )
    by_name = {row["name"]: row for row in report["models"]}
    assert by_name["theseus-1"]["metric"] == ("entity_f1" if task == "tagging" else "accuracy")
    assert by_name["theseus-1"]["files"][0]["accuracy"] == pytest.approx(
        by_name["theseus-1"]["accuracy"]
    )
    assert set(by_name) >= {"majority"} and ("tfidf" in by_name) == (task == "matching")
    (note,) = (note for note in report["notes"] if "ONNX" in note)
    assert note.startswith(
        "Not timed in ONNX Runtime: ONNX needs packages that are missing: pip install onnx onnxr"
    )
    assert [row["name"] for row in report["engines"]["rows"]][-3:] == [
        "tf.function",
        "Keras call",
        "Keras predict",
    ]
    assert (tmp_path / "out" / "report.html").is_file()
    model = TaskModel.load(tmp_path / "out" / "models" / "theseus-1")
    assert (
        model.task == task
        and (tmp_path / "out" / "models" / "theseus-1" / "float32.tflite").is_file()
    )


def test_quantised_models_stand_beside_their_control(place, asked, tmp_path, monkeypatch):
    monkeypatch.setattr("mobile_export.ort.find_spec", lambda name: None)
    recipe = samples.recipe(
        place / "quantised.toml",
        STEPS[0],
        ("control", "finetune", "predecessor"),
        ("static-int8", "q8bert", "predecessor", 'start_step = 0\nformats = ["int8"]'),
        ("dynamic-int8", "q8bert", "predecessor", 'activations = "dynamic"\nformats = ["int8"]'),
    )
    _, report = run(**{**asked, "recipe": recipe}, out=tmp_path / "out")
    assert {(c["model"], c["baseline"]) for c in report["comparisons"]} == {
        (name, other)
        for name in ("static-int8", "dynamic-int8")
        for other in ("predecessor", "control")
    }
    assert (
        report["confusion"]["model"] == "static-int8"
        and report["engines"]["model"] == "dynamic-int8"
    )
    assert [row["name"] for row in report["engines"]["rows"]][0] == "LiteRT int8"


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"quick": True},
        {"language": "zh"},
        {"length": 8},
        {"data": "else"},
        {"recipe": "other.toml"},
        {"new_head": True},
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
    file = place / "classification" / "test.tsv"
    before = file.read_text(encoding="utf-8")
    file.write_text(before + "yes\tthe mat\n", encoding="utf-8")
    with pytest.raises(ValueError, match="same data. Received: classification with other content"):
        run(out=finished[0], resume=True)
    file.write_text(before, encoding="utf-8")


def test_resume_needs_a_run(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds no run.json"):
        run(out=tmp_path, resume=True)
    monkeypatch.setattr(run_module, "DATA_FOLDER", tmp_path / "data")
    with pytest.raises(ValueError, match="none under runs/. Name it with --out"):
        run(resume=True)
    for age, name in enumerate(["theseus-2", "theseus-1"]):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
        os.utime(tmp_path / "runs" / name / "run.json", (age, age))
    assert run_module.last_folder() == tmp_path / "runs" / "theseus-1"
    assert run_module.default_folder("x").parent == tmp_path / "runs"


def test_an_occupied_folder_keeps_every_byte(finished, asked, tmp_path, capsys):
    folder, before = finished[0], contents(finished[0])
    arguments = [
        "run",
        str(asked["recipe"]),
        "--from",
        str(asked["source"]),
        "--data",
        str(asked["data"]),
    ]
    assert main([*arguments, "--out", str(folder)]) == 1
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
    monkeypatch.setattr(run_module, "_make_models", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(**asked, out=tmp_path / "out", overwrite=True, seed=3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "log.txt",
        "mine.txt",
        "run.json",
    ]
    assert json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["seed"] == 3
    assert "stopped: ZeroDivisionError" in (tmp_path / "out" / "log.txt").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"recipe": "nothing"}, "must be one of albert, .*theseus"),
        ({"data": "{place}/no-test"}, "splits train, dev, test. Received"),
        ({"data": "{place}/text.txt"}, "must have labels and the splits"),
        ({"length": 17}, "must be 4 to 16"),
        ({"length": 3}, "must be 4 to 16"),
        ({"recipe": "{place}/formats.toml"}, "must be some of float32, float16"),
        ({"source": "{place}/bert-tagging"}, "task must be the one asked for"),
        ({"task": "tagging"}, "must be for the task"),
        ({"num_layers": 0}, "`num_layers` must be 1 to 2"),
        ({"num_layers": 3}, "`num_layers` must be 1 to 2, the layers"),
        ({"learning_rate": 0.0}, "`learning_rate` must be positive"),
        ({"length": 0}, "must be 4 to 16"),
        ({"recipe": "{place}/modules.toml"}, "`module_map` must be lists"),
        ({"recipe": "{place}/pkd.toml"}, "Step small: `num_layers` must be 2 to 2.*Received: 1"),
        ({"recipe": "{place}/student.toml"}, "must be steps or files. Received: nowhere"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    place, asked, tmp_path, wrong, message
):
    shutil.copytree(place / "classification", place / "no-test", dirs_exist_ok=True)
    (place / "no-test" / "test.tsv").unlink()
    (place / "text.txt").write_text("the cat\n", encoding="utf-8")
    samples.recipe(place / "modules.toml", STEPS[0], (*STEPS[1][:3], "module_map = [[0]]"))
    samples.recipe(place / "formats.toml", STEPS[0], head='formats = ["pdf"]')
    samples.recipe(place / "pkd.toml", STEPS[0], ("small", "pkd", STEPS[0][0], "num_layers = 1"))
    samples.recipe(
        place / "student.toml",
        STEPS[0],
        ("a", "distilbert", STEPS[0][0], 'num_layers = 1\nstudent = "nowhere"'),
    )
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


def prepare(place, recipe="all.toml", **changes):
    recipe = run_module.read_recipe(place / recipe)
    asked = {**run_module.DEFAULTS, "data": place / "classification", **changes}
    ready, _, notes = run_module._prepare(asked, recipe)[1:]
    return list(ready), [step["name"] for step in recipe["steps"]], " ".join(notes)


def test_a_fine_tuned_source_is_the_predecessor_as_it_is(finished, place):
    source = str(finished[0] / "models" / "predecessor")
    ready, steps, notes = prepare(place, source=source)
    assert (ready, steps) == (["predecessor"], ["predecessor", "theseus-1", "truncated-1"])
    assert "predecessor as it is" in notes and "not at hand: plain-1. With --new-head" in notes
    every = [step[0] for step in STEPS]
    ready, steps, notes = prepare(place, source=source, new_head=True)  # from its encoder, all anew
    assert (ready, steps) == ([], every) and "plain-K starts from fine-tuned layers" in notes
    assert prepare(place, source=str(place / "bert-classification")) == ([], every, "")
    samples.recipe(place / "plain.toml", STEPS[2])
    with pytest.raises(ValueError, match="fine-tuned already.* Pass --new-head"):
        prepare(place, "plain.toml", source=source)


def test_what_counts_as_fine_tuned(place):
    tuned = load(
        Path(__file__).parents[1] / "bert" / "huggingface"
    )  # with a classifier of three labels
    assert tuned.history and not training.untrained(tuned)
    other = load(
        Path(__file__).parents[1] / "bert" / "huggingface",
        task="matching",
        labels=["a", "b"],
        new_head=True,
    )
    assert training.untrained(other) == ["classifier/bias", "classifier/kernel"]


def test_the_ready_predecessor_is_saved_and_compressed(finished, place, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(
        run_module,
        "run_step",
        lambda recipe, step, parent, *_, **__: trained.append(step["name"]) or parent,
    )
    monkeypatch.setattr(run_module, "_measure", lambda *_: {"notes": list(_[-1])})
    source = finished[0] / "models" / "predecessor"
    run(place / "all.toml", tmp_path / "out", data=place / "classification", source=source)
    assert trained == ["theseus-1", "truncated-1"]
    np.testing.assert_equal(
        TaskModel.load(tmp_path / "out" / "models" / "predecessor").weights(),
        TaskModel.load(source).weights(),
    )
    assert "as it is" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    run(out=tmp_path / "out", resume=True)  # the note is still there
    assert trained == ["theseus-1", "truncated-1"]
    assert "not at hand: plain-1" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_quick_and_length(asked, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(run_module, "QUICK", {"num_train": 12, "num_dev": 5, "num_test": 7})

    def make(folder, asked, recipe, dataset, *_):
        seen.update(
            recipe=recipe, sizes=[len(s.texts) for s in (dataset.train, dataset.dev, dataset.test)]
        )
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "_make_models", make)
    with pytest.raises(KeyboardInterrupt):
        run(**asked, out=tmp_path / "out", quick=True, length=12)
    assert seen["sizes"] == [12, 5, 7]
    assert (seen["recipe"]["sequence_length"], seen["recipe"]["training"]["max_length"]) == (12, 12)


def test_a_full_disk_is_one_line_and_what_was_finished_stays(
    finished, place, tmp_path, monkeypatch, capsys
):
    shutil.copytree(finished[0], tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "models" / "plain-1")

    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("keras_compress.bert.task_model.save", full)  # the weights' writer
    assert main(["run", "--resume", "--out", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    error = captured.err.splitlines()[-1]
    assert (
        error.startswith("error: Could not write")
        and "Free some space" in error
        and captured.out == ""
    )
    assert sorted(path.name for path in (tmp_path / "out" / "models").iterdir()) == [
        "predecessor",
        "theseus-1",
    ]
    assert contents(tmp_path / "out" / "models") == {
        name: content
        for name, content in contents(finished[0] / "models").items()
        if "plain" not in name
    }


def test_another_number_of_layers_and_another_rate_change_every_step_and_its_name():
    steps = [
        {"name": "predecessor", "from": "minilm"},
        {"name": "small-3", "from": "predecessor", "num_layers": 3},
        {"name": "pruned-3", "from": "small-3", "student": "small-3"},
    ]
    changed = change({"steps": steps, "name": "x"}, 4, 2e-5)["steps"]
    assert [step["name"] for step in changed] == ["predecessor", "small-4", "pruned-3"]
    assert (
        changed[1]["num_layers"] == 4 and changed[2]["from"] == changed[2]["student"] == "small-4"
    )
    assert {step["learning_rate"] for step in changed} == {2e-5} and "learning_rate" not in steps[0]
    assert change({"steps": steps}, None, None)["steps"] == steps


@pytest.mark.parametrize("content", ["{}", "[1]", "{"])
def test_a_damaged_note_of_a_run_is_named(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match="run.json: not what a run wrote"):
        run(out=tmp_path, resume=True)
