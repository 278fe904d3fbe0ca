"""Several data sets, seeds and rates, with stand-ins for training and measuring: which models are made, from what."""

import copy
import json

import numpy as np
import pytest

from keras_compress.cli import main
from keras_compress.experiment import cells, run_folder
from keras_compress.experiment import experiment as module
from keras_compress.experiment.experiment import Plan, run
from keras_compress.experiment.forecast import CONVERT, to_train
from tests import samples

STEPS = [
    ("predecessor", "finetune", "bert"),
    ("plain-1", "layers", "bert", 'num_layers = 1\nrole = "baseline"'),
    ("theseus-1", "theseus", "predecessor", "num_layers = 1"),
]
DEV = {1e-2: 0.5, 2e-2: 0.75, 5e-3: 0.25}  # dev accuracy of the stand-ins, by learning rate


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("study")
    for name in ("one", "two"):
        samples.data(place / name)
    samples.model(place / "bert")
    return place


@pytest.fixture
def recipe(place, tmp_path):
    def make(steps=STEPS, **changes):
        head = {
            "datasets": [str(place / "one"), str(place / "two")],
            "seeds": [4, 5],
            "learning_rates": [5e-3, 2e-2, 1e-2],
            **changes,
        }
        steps = [
            (name, method, str(place / "bert") if source == "bert" else source, *rest)
            for name, method, source, *rest in steps
        ]
        text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in head.items())
        return samples.recipe(tmp_path / "grid.toml", *steps, head=text)

    return make


@pytest.fixture
def trained(monkeypatch):
    """Replaces training and measuring; lists (data, step, seed, rate, parent) and the steps looked at on test."""
    made, tested = [], []

    def stand_in(step, parent, dataset, **_):
        rate = step.training["learning_rate"]
        before = (parent.history or [{}])[-1].get("name", "source")
        made.append((dataset.name, step.name, step.seed, rate, before))
        model = copy.copy(parent)  # with its layers: nothing trains them
        model.history = [*parent.history, {"method": "x", "name": step.name, "rate": rate}]
        return model

    def measure(model, split):
        number, last = len(split.texts), model.history[-1]
        if number == 30:
            tested.append(last["name"])
        right = np.arange(number) < DEV[last["rate"]] * number
        result = {"metric": "accuracy", "value": right.mean(), "se": 0.1, "n": number}
        return {**result, "scores": right, "predictions": right, "confusion": np.eye(3, dtype=int)}

    monkeypatch.setattr(module, "run_step", stand_in)
    monkeypatch.setattr(module, "evaluate", measure)
    monkeypatch.setattr(cells, "evaluate", measure)
    monkeypatch.setattr(module, "rehearse", lambda plan: None)
    monkeypatch.setattr(Plan, "first", (None, {"predictions": [True]}))
    monkeypatch.setattr(cells, "agreement", lambda a, b: 1.0)
    monkeypatch.setattr(
        cells,
        "files_of",
        lambda plan, step, *_: ([{"format": f} for f in step.formats or ()], None),
    )
    monkeypatch.setattr(module, "write_report", lambda folder, report: folder)
    return made, tested


def cells_of(folder):
    return {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("cells/*.json")}


def test_grid_chooses_on_dev_and_looks_at_test_once(recipe, place, trained, tmp_path):
    out = tmp_path / "out"
    run(recipe(datasets=[str(place / "one")]), out)
    made, tested = trained
    assert {*cells_of(out)} == {
        "one-predecessor-4",
        *(f"one-{step}-{seed}" for step in ("plain-1", "theseus-1") for seed in (4, 5)),
        "one-majority-0",
        "one-tfidf-0",
    }
    here = [row[1:4] for row in made]
    assert len(here) == len(set(here)), "nothing is trained twice"
    rates = {name: [row[2] for row in here if row[:2] == (name, 4)] for name, *_ in STEPS}
    assert rates == {
        "predecessor": [1e-2],  # its own
        "plain-1": [5e-3, 2e-2, 1e-2],
        "theseus-1": [5e-3, 2e-2, 1e-2],
    }
    assert [row for row in here if row[1] == 5] == [("plain-1", 5, 2e-2), ("theseus-1", 5, 2e-2)]
    assert sorted(tested) == ["plain-1", "plain-1", "predecessor", "theseus-1", "theseus-1"]
    assert {row[4] for row in made if row[1] == "theseus-1"} == {"predecessor"}
    assert {row[4] for row in made if row[1] != "theseus-1"} == {"source"}
    cell = cells_of(out)["one-theseus-1-5"]
    assert (cell["learning_rate"], cell["seed"], cell["size"]) == (2e-2, 5, 1)
    assert cell["dev_of_learning_rates"] == {"0.005": 0.25, "0.02": 0.75, "0.01": 0.5}
    assert cell["chain"]["training"]["learning_rate"] == [5e-3, 2e-2, 1e-2]
    assert cell["chain"]["from"]["seed"] == 4 and cell["dev"] == 0.75


def test_the_plan_counts_rates_and_seeds(recipe, place, tmp_path):
    asked = {**run_folder.DEFAULTS, "recipe": str(recipe(datasets=[str(place / "one")]))}
    folder, settings = run_folder.new_run(asked, tmp_path / "out", False)
    plan = Plan(settings, str(place / "one"), folder)
    # updates and seconds for each of 24 texts; no time for a pass; and parameters
    each = {name: (0.5, 0.1, 0, 3e6) for name, *_ in STEPS[:2]}
    rows = [*to_train(plan, {"classification": each})]
    numbers = {name: [row[0] for row in rows].count(f"one {name}") for name, *_ in STEPS}
    assert numbers == {"predecessor": 1, "plain-1": 3 + 1, "theseus-1": 3 + 1}
    files = pytest.approx(2 * CONVERT * 3e6)
    assert rows[0] == (
        "one predecessor",
        "finetune",
        "float32, int8",
        12,
        pytest.approx(2.4),
        files,
    )
    assert [row[-1] for row in rows if row[0] == "one plain-1"] == [
        *[files.expected / 3] * 3,
        files,
    ]
    assert rows[-1] == ("one theseus-1", "theseus", "float32, int8", None, 0, 0)


def test_a_step_may_have_a_grid_of_its_own(recipe, place, trained, tmp_path, monkeypatch):
    monkeypatch.setitem(DEV, 3e-2, 0.9)
    own = (*STEPS[1][:3], STEPS[1][3] + "\nlearning_rates = [1e-2, 3e-2]")
    run(recipe([STEPS[0], own], datasets=[str(place / "one")]), tmp_path / "out", seeds=[4])
    assert [row[3] for row in trained[0] if row[1] == "plain-1"] == [1e-2, 3e-2]
    assert cells_of(tmp_path / "out")["one-plain-1-4"]["learning_rate"] == 3e-2


def test_resume_makes_only_what_is_missing(recipe, place, trained, tmp_path):
    out, (made, tested) = tmp_path / "out", trained
    run(recipe(datasets=[str(place / "one")]), out)
    gone = out / "cells" / "one-theseus-1-5.json"
    before = json.loads(gone.read_text("utf-8"))
    for folder in ("nothing", "models"):
        gone.unlink()
        (out / folder).exists() and (out / folder).rename(tmp_path / "moved")
        del made[:], tested[:]
        run(out=out, resume=True)
        again = json.loads(gone.read_text("utf-8"))
        same = {"seconds": 0, "sha256": 0}  # of which seconds are a part
        assert {**again, **same} == {**before, **same} and tested == ["theseus-1"]
        expected = [("predecessor", 4, 1e-2), ("theseus-1", 5, 2e-2)] if folder == "models" else []
        assert [row[1:4] for row in made] == expected  # no grid again
    run(out=out, resume=True, seeds=[6], only=["plain-1"])  # the grid grows
    assert "one-plain-1-6" in cells_of(out)


def test_data_sets_seeds_only_and_fixed_rates(recipe, trained, tmp_path):
    run(recipe(), tmp_path / "a", only=["predecessor"])
    assert [row[:3] for row in trained[0]] == [("one", "predecessor", 4), ("two", "predecessor", 4)]
    del trained[0][:]
    run(recipe(), tmp_path / "b", fixed_lr=True, seeds=[5], only=["theseus-1"])
    made = [row[1:4] for row in trained[0]]
    assert made[:2] == [("predecessor", 4, 1e-2), ("theseus-1", 5, 1e-2)] and len(made) == 4
    cell = cells_of(tmp_path / "b")["two-theseus-1-5"]
    assert cell["dev_of_learning_rates"] is None and cell["learning_rate"] == 1e-2


def test_stale_cells_are_never_mixed_in(recipe, place, trained, tmp_path, monkeypatch):
    """A study without `out` keeps cells and models from run to run."""
    monkeypatch.setattr(run_folder, "DATA_FOLDER", tmp_path / "data")
    one = {"datasets": [str(place / "one")], "seeds": [4]}
    run(recipe(**one), fixed_lr=True, only=["plain-1"])
    results = tmp_path / "data" / "results" / "grid"
    assert (results / "one-plain-1-4.json").is_file()
    with pytest.raises(
        ValueError, match="one-plain-1-4.json: was made with other data or settings"
    ):
        run(recipe(**one), only=["plain-1"])
    longer = (*STEPS[1][:3], STEPS[1][3] + "\nepochs = 2")
    with pytest.raises(ValueError, match="Restore them, or move"):
        run(recipe([STEPS[0], longer], **one), fixed_lr=True, only=["plain-1"])
    run(recipe([STEPS[0], longer], **one), fixed_lr=True, only=["predecessor"])  # no child
    del trained[0][:]
    run(recipe(**one), data=str(place / "two"), fixed_lr=True, only=["plain-1"])
    assert (tmp_path / "runs" / "grid" / "results" / "two-plain-1-4.json").is_file()
    run(recipe(**one), fixed_lr=True, only=["plain-1"], resume=True)
    assert [row[0] for row in trained[0]] == ["two"]


def test_formats_that_a_step_asks_for_later_are_measured(
    recipe, place, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_folder, "DATA_FOLDER", tmp_path / "data")
    one = {"datasets": [str(place / "one")], "seeds": [4]}
    run(recipe(**one), fixed_lr=True, only=["plain-1"])
    del trained[0][:]
    more = (*STEPS[1][:3], STEPS[1][3] + '\nformats = ["int8", "int4"]')
    run(recipe([STEPS[0], more], **one), fixed_lr=True, only=["plain-1"])
    cell = tmp_path / "data" / "results" / "grid" / "one-plain-1-4.json"
    files = json.loads(cell.read_text("utf-8"))["files"]
    assert trained[0] == [] and [file["format"] for file in files] == ["int8", "int4"]


def test_data_that_are_missing_are_told_before_the_first_cell(recipe, place, trained, tmp_path):
    with pytest.raises(ValueError, match="no-such-data"):
        run(recipe(datasets=[str(place / "one"), "no-such-data"]), tmp_path / "out")
    assert trained[0] == [] and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_real_cells_of_two_seeds(recipe, place, tmp_path, capsys):
    command = ["run", str(recipe(datasets=[str(place / "one")])), "--out", str(tmp_path / "out")]
    assert main([*command, "--fixed-lr", "--only", "predecessor,theseus-1"]) == 0
    assert "theseus-1" in capsys.readouterr().out
    cell = cells_of(tmp_path / "out")["one-theseus-1-5"]
    assert [file["format"] for file in cell["files"]] == ["float32", "int8"]
    assert all(file["times_as_fast"] > 0 and file["device"] for file in cell["files"])
    assert "correct" not in cell["files"][0]
    assert not list((tmp_path / "out" / "models").glob("one-theseus*/*.tflite"))
    assert main(["table", str(tmp_path / "out")]) == 0
    assert "| times as fast float / int8 |" in capsys.readouterr().out
