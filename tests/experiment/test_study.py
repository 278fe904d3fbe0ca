"""The grid of cells, with stand-ins for training: which models are made, from what, and what is written."""

import json

import pytest

import keras_compress.training.loop  # noqa: F401 - binds `evaluate` before a test replaces it
from keras_compress.bert.task_model import TaskModel
from keras_compress.cli import main
from keras_compress.experiment import study
from keras_compress.experiment.compare import pool_cells
from keras_compress.experiment.recipe import read_recipe, run_step
from tests import samples

STEPS = [
    ("predecessor", "finetune", "bert"),
    ("plain-1", "layers", "bert", "num_layers = 1"),
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
    def make(**changes):
        head = {
            "datasets": [str(place / "one"), str(place / "two")],
            "seeds": [4, 5],
            "learning_rates": [5e-3, 2e-2, 1e-2],
            **changes,
        }
        steps = [
            (name, method, str(place / "bert") if source == "bert" else source, *rest)
            for name, method, source, *rest in STEPS
        ]
        return read_recipe(
            samples.recipe(
                tmp_path / "grid.toml",
                *steps,
                head="\n".join(f"{k} = {json.dumps(v)}" for k, v in head.items()),
            )
        )

    return make


@pytest.fixture
def trained(monkeypatch):
    """Replaces training and measuring; lists (step, seed, learning rate, what it starts from) and test evaluations."""
    made, tested = [], []

    def stand_in(recipe, step, parent, dataset, *, seed, folder, models, learning_rate=None):
        rate = learning_rate or {**recipe["training"], **step}["learning_rate"]
        made.append(
            (
                dataset.name,
                step["name"],
                seed,
                rate,
                (parent.history or [{}])[-1].get("name", "source"),
            )
        )
        model = parent.clone()
        model.history.append({"name": step["name"], "seed": seed, "rate": rate})
        return model

    def measure(model, split):
        if len(split.texts) == 30:
            tested.append(model.history[-1]["name"])
        right = [
            i < DEV[model.history[-1]["rate"]] * len(split.texts) for i in range(len(split.texts))
        ]
        return {
            "metric": "accuracy",
            "value": sum(right) / len(right),
            "se": 0.1,
            "n": len(right),
            "scores": right,
        }

    monkeypatch.setattr(study, "run_step", stand_in)
    monkeypatch.setattr(study._Study, "cost", lambda self, step: None)
    monkeypatch.setattr("keras_compress.measure.accuracy.evaluate", measure)
    return made, tested


@pytest.fixture
def folders(tmp_path):
    return {"weights": tmp_path / "weights", "results": tmp_path / "results"}


def names(folder):
    return sorted(path.name for path in folder.glob("*.json"))


def test_grid_chooses_on_dev_and_looks_at_test_once(recipe, trained, folders):
    cells, _ = study.run_study(recipe(), data=recipe()["datasets"][:1], **folders)
    made, tested = trained
    steps = [step[0] for step in STEPS]
    expected = {
        f"one-{step}-{seed}.json"
        for step in steps
        for seed in (4, 5)
        if step != "predecessor" or seed == 4
    }
    expected |= {"one-majority-0.json", "one-tfidf-0.json"}
    assert set(names(folders["results"])) == expected and len(cells) == len(expected)
    here = [row[1:4] for row in made]
    assert len(here) == len(set(here)), "nothing is trained twice"
    for step in steps:
        rates = (
            (1e-2,) if step == "predecessor" else (5e-3, 2e-2, 1e-2)
        )  # the predecessor keeps its own
        assert [row for row in here if row[0] == step and row[1] == 4] == [
            (step, 4, rate) for rate in rates
        ]
    assert [row for row in here if row[1] == 5] == [("plain-1", 5, 2e-2), ("theseus-1", 5, 2e-2)]
    assert sorted(tested) == ["plain-1", "plain-1", "predecessor", "theseus-1", "theseus-1"]
    assert {row[4] for row in made if row[1] == "theseus-1"} == {"predecessor"}
    assert {row[4] for row in made if row[1] != "theseus-1"} == {"source"}
    cell = json.loads((folders["results"] / "one-theseus-1-5.json").read_text(encoding="utf-8"))
    assert (
        cell["learning_rate"] == 2e-2
        and cell["learning_rates"] == [5e-3, 2e-2, 1e-2]
        and cell["seed"] == 5
    )
    assert (
        cell["dev_of_learning_rates"] == {"0.005": 0.25, "0.02": 0.75, "0.01": 0.5}
        and cell["dev"] == 0.75
    )
    assert {
        "data",
        "method",
        "metric",
        "accuracy",
        "accuracy_se",
        "num_examples",
        "correct",
        "settings",
        "versions",
        "steps",
        "data_sha256",
        "parameters",
        "seconds",
    } <= set(cell)
    assert [step["name"] for step in cell["steps"]] == ["predecessor", "theseus-1"]
    assert cell["steps"][0]["learning_rate"] == 1e-2 and cell["steps"][0]["batch_size"] == 8
    assert "learning_rate" not in cell["steps"][1]  # the grid's choice counts, not its own


def test_a_step_may_have_a_grid_of_its_own(recipe, trained, folders, monkeypatch):
    monkeypatch.setitem(DEV, 3e-2, 0.9)
    content = recipe()
    content["steps"][1]["learning_rates"] = [1e-2, 3e-2]
    study.run_study(
        content, data=content["datasets"][:1], seeds=[4], only=["plain-1", "theseus-1"], **folders
    )
    found = {
        name: [row[3] for row in trained[0] if row[1] == name] for name in ("plain-1", "theseus-1")
    }
    assert found == {"plain-1": [1e-2, 3e-2], "theseus-1": [5e-3, 2e-2, 1e-2]}
    cell = json.loads((folders["results"] / "one-plain-1-4.json").read_text(encoding="utf-8"))
    assert cell["learning_rate"] == 3e-2 and cell["learning_rates"] == [1e-2, 3e-2]


def test_resume_makes_only_what_is_missing(recipe, trained, folders):
    study.run_study(recipe(), data=recipe()["datasets"][:1], **folders)
    made, tested = trained
    gone = folders["results"] / "one-theseus-1-5.json"
    before = gone.read_bytes()
    gone.unlink()
    del made[:], tested[:]
    study.run_study(recipe(), data=recipe()["datasets"][:1], **folders)
    assert made == [] and tested == ["theseus-1"]  # the model was still there
    again = json.loads(gone.read_text(encoding="utf-8"))
    assert {**again, "seconds": 0} == {**json.loads(before), "seconds": 0}
    gone.unlink()
    del tested[:]
    study.run_study(
        recipe(),
        data=recipe()["datasets"][:1],
        **{**folders, "weights": folders["weights"] / "new"},
    )
    assert [row[1:4] for row in made] == [
        ("predecessor", 4, 1e-2),
        ("theseus-1", 5, 2e-2),
    ]  # no grid again
    assert tested == ["theseus-1"]


def test_the_data_sets_of_the_recipe(recipe, trained, folders):
    study.run_study(recipe(), only=["predecessor"], **folders)
    assert [row[:3] for row in trained[0]] == [("one", "predecessor", 4), ("two", "predecessor", 4)]
    assert {name.split("-")[0] for name in names(folders["results"])} == {"one", "two"}


def test_fixed_lr_seeds_and_only(recipe, trained, folders):
    data = recipe()["datasets"][:1]
    cells, _ = study.run_study(
        recipe(), data=data, fixed_lr=True, seeds=[5], only=["theseus-1"], **folders
    )
    assert [row[1:4] for row in trained[0]] == [("predecessor", 4, 1e-2), ("theseus-1", 5, 1e-2)]
    assert {cell["method"] for cell in cells} == {"theseus-1", "majority", "tfidf"}
    cell = next(cell for cell in cells if cell["method"] == "theseus-1")
    assert (
        cell["learning_rates"] is None
        and cell["dev_of_learning_rates"] is None
        and cell["learning_rate"] == 1e-2
    )
    assert cell["steps"][1]["learning_rate"] == 1e-2
    with pytest.raises(
        ValueError, match="`only` must name steps of the study: predecessor, .* Received: theseus-9"
    ):
        study.run_study(recipe(), data=data, only=["theseus-9"], **folders)


def test_stale_cells_are_never_mixed_in(recipe, trained, folders, place):
    data = recipe()["datasets"][:1]
    study.run_study(recipe(), data=data, fixed_lr=True, seeds=[4], only=["plain-1"], **folders)
    del trained[0][:]
    with pytest.raises(
        ValueError, match="one-plain-1-4.json: was made with other learning_rates, steps. .* move"
    ):
        study.run_study(recipe(), data=data, seeds=[4], only=["plain-1"], **folders)
    changed = recipe()
    changed["steps"][1]["epochs"] = 2
    with pytest.raises(ValueError, match="other steps. Restore"):
        study.run_study(changed, data=data, fixed_lr=True, seeds=[4], only=["plain-1"], **folders)
    study.run_study(
        changed, data=data, fixed_lr=True, seeds=[4], only=["predecessor"], **folders
    )  # no child
    assert [row[1] for row in trained[0]] == ["predecessor"]
    file = place / "one" / "test.tsv"
    before = file.read_text(encoding="utf-8")
    file.write_text(before + "yes\tthe mat\n", encoding="utf-8")
    with pytest.raises(ValueError, match="one-majority-0.json: was made with other data_sha256"):
        study.run_study(recipe(), data=data, **folders)
    file.write_text(before, encoding="utf-8")


def test_one_real_cell_its_table_and_picture(recipe, folders, tmp_path, monkeypatch, capsys):
    cells, costs = study.run_study(
        recipe(),
        data=recipe()["datasets"][:1],
        fixed_lr=True,
        seeds=[5],
        only=["plain-1"],
        **folders,
    )
    assert study.run_step is run_step and len(cells) == 3
    (cost,) = costs.values()
    assert (
        cost["method"] == "plain-1" and cost["int8"]["bytes"] > 0 and cost["float32"]["bytes"] > 0
    )
    assert (
        cost["sequence_length"] == 16
        and cost["float32"]["times_as_fast"] > 0
        and costs == study.read_costs(folders["results"])
    )
    (saved,) = folders["weights"].glob("one-plain-1-5-0.01-*")
    assert TaskModel.load(saved).config.num_layers == 1
    assert not list((folders["weights"] / "checkpoints").iterdir())
    assert main(["table", str(folders["results"]), "--picture", str(tmp_path / "study.png")]) == 0
    out = capsys.readouterr().out
    assert (
        "| one | plain-1 |" in out
        and "| times as fast float / int8 |" in out
        and (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
    )
    assert main(["table", str(folders["results"]), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows] == [row["method"] for row in pool_cells(cells)]
    whole = json.loads((folders["results"] / "one-plain-1-5.json").read_text(encoding="utf-8"))
    odd = [
        {**whole, "correct": "zz"},
        {**whole, "seed": "0"},
        {**whole, "metric": "foo"},
        {**whole, "num_examples": 5},
    ]
    for content in ('{"data": "one"}', "[1]", "{", *map(json.dumps, odd)):
        (folders["results"] / "other.json").write_text(content)
        assert main(["table", str(folders["results"])]) == 1
        assert "other.json: a folder of results must hold cells" in capsys.readouterr().err
    (folders["results"] / "other.json").unlink()
    monkeypatch.setattr("keras_compress.files.DATA_FOLDER", tmp_path)
    (tmp_path / "results").rename(tmp_path / "moved")
    (tmp_path / "results").mkdir()
    (tmp_path / "moved").rename(tmp_path / "results" / "mine")
    assert main(["table", "mine"]) == 0 and "plain-1" in capsys.readouterr().out
    assert main(["table", "nothing"]) == 1 and "run it first" in capsys.readouterr().err


def test_exported_files_of_a_cell(recipe, trained, folders, monkeypatch):
    asked = []

    def export(model, folder, formats, **settings):
        asked.append((formats, settings["sequence_length"]))
        return [{"format": name, "path": name, "bytes": 9, "gzip_bytes": 7} for name in formats]

    monkeypatch.setattr("mobile_export.convert.export", export)
    monkeypatch.setattr("mobile_export.convert.exported_model", lambda path, model: model)
    content = recipe(sequence_length=16)
    content["steps"][1]["formats"] = ["int8", "int4"]
    cells, _ = study.run_study(
        content, data=content["datasets"][:1], fixed_lr=True, seeds=[4], **folders
    )
    files = {cell["method"]: cell.get("files") for cell in cells}
    assert (
        asked == [(["int8", "int4"], 16)] and files["theseus-1"] == [] and files["majority"] is None
    )
    assert [
        (file["format"], file["bytes"], file["gzip_bytes"], file["accuracy"])
        for file in files["plain-1"]
    ] == [("int8", 9, 7, 0.5), ("int4", 9, 7, 0.5)]
    assert "plain-1:int4" in {row["method"] for row in pool_cells(cells)}


def test_command_line(recipe, monkeypatch, tmp_path, capsys):
    recipe()
    seen = {}
    monkeypatch.setattr(
        study,
        "run_study",
        lambda recipe, **settings: seen.update(settings, name=recipe["name"]) or ([], {}),
    )
    monkeypatch.setattr(
        "keras_compress.experiment.compare.study_table", lambda *cells_costs_compare: "the table"
    )
    command = ["run", str(tmp_path / "grid.toml")]
    assert (
        main(
            [
                *command,
                "--seeds",
                "0,1",
                "--only",
                "plain-1,theseus-1",
                "--data",
                "d",
                "--fixed-lr",
                "--resume",
            ]
        )
        == 0
    )
    assert seen == {
        "name": "grid",
        "seeds": [0, 1],
        "only": ["plain-1", "theseus-1"],
        "data": ["d"],
        "fixed_lr": True,
    }
    assert capsys.readouterr().out == "the table\n"
    assert main(command) == 0 and seen["data"] is seen["seeds"] is seen["only"] is None
    for unused in (["--quick"], ["--out", "x"], ["--from", "x"], ["--seed", "3"]):
        assert main([*command, *unused]) == 1
        assert "Options must have an effect" in capsys.readouterr().err
    assert (
        main(["run", "theseus", "--fixed-lr"]) == 1
        and "fixed_lr. Studies alone" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit) as stop:
        main([*command, "--seeds", "a"])
    assert stop.value.code == 2


def test_data_that_are_missing_are_told_before_the_first_cell(recipe, place, monkeypatch, tmp_path):
    monkeypatch.setattr(study._Study, "cell", lambda self, step, seed: pytest.fail("trained"))
    with pytest.raises(ValueError, match="no-such-data"):
        study.run_study(
            recipe(datasets=[str(place / "one"), "no-such-data"]),
            weights=tmp_path,
            results=tmp_path,
        )


def test_cells_of_other_data_stay_out_of_the_repository(recipe, place, monkeypatch, tmp_path):
    written = []
    monkeypatch.setattr(study, "_write_baselines", lambda dataset, results: written.append(results))
    monkeypatch.setattr(study._Study, "cell", lambda self, step, seed: None)
    content = recipe(datasets=[str(place / "one")])
    for name in ("two", "one"):
        study.run_study(content, data=[str(place / name)], weights=tmp_path)
    assert written[0] == tmp_path / "results" and written[1].parts[-3:] == (
        "data",
        "results",
        "grid",
    )
