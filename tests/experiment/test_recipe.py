import dataclasses

import pytest

from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.experiment import recipe as recipe_module
from keras_compress.experiment.recipe import (
    check_data,
    is_step,
    parents,
    read_recipe,
    recipes,
    run_step,
    split_settings,
)
from keras_compress.training.settings import Training
from tests import samples
from tests.bert import tiny

FIRST = '[[step]]\nname = "a"\nmethod = "finetune"\nfrom = "minilm"\n'


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_of_the_package_can_be_read(name):
    recipe = read_recipe(name)
    assert (
        recipe["name"] == name and recipe["about"] and recipe["steps"][0]["name"] == "predecessor"
    )
    assert all(
        step["from"] in ("minilm", "bilstm") or is_step(recipe, step["from"])
        for step in recipe["steps"]
    )


def test_steps_that_name_other_models(tmp_path):
    steps = [
        ("a", "finetune", "minilm"),
        ("words", "masked_lm", "minilm", 'data = "apidocs"'),
        ("b", "tinybert", "a", 'mlm = "words"\ncopies = 2'),
        ("c", "distilbert", "a", 'student = "b"'),
    ]
    recipe = read_recipe(samples.recipe(tmp_path / "mine.toml", *steps))
    assert [[one["name"] for one in parents(recipe, step)] for step in recipe["steps"]] == [
        [],
        [],
        ["a", "words"],
        ["a", "b"],
    ]
    with pytest.raises(
        ValueError, match="step 'c': `student` must name an earlier step.*Received: 'b'"
    ):
        read_recipe(samples.recipe(tmp_path / "wrong.toml", *steps[:2], steps[3], steps[2]))


def test_run_step_hands_on_the_models_and_the_data_of_a_step(monkeypatch):
    found = {}
    monkeypatch.setattr(
        "keras_compress.experiment.recipe.method",
        lambda name: lambda parent, dataset, **k: found.update(parent=parent, data=dataset, **k),
    )
    monkeypatch.setattr(
        "keras_compress.experiment.recipe.split_settings",
        lambda common, step: ({}, {k: v for k, v in step.items() if k in ("student", "mlm")}),
    )
    monkeypatch.setattr("keras_compress.datasets.load", lambda name, task: (name, task))
    parent, student = tiny.shared(), object()
    step = {
        "name": "x",
        "method": "y",
        "from": "a",
        "student": "b",
        "mlm": "minilm",
        "data": "apidocs",
    }
    run_step(
        {"training": {"max_length": 16}},
        step,
        parent,
        "data",
        seed=3,
        models={"b": student},
        max_length=16,
    )
    assert (
        found["parent"] is parent
        and found["student"] is student
        and found["mlm"] == "minilm"
        and found["seed"] == 3
    )
    assert found["data"] == ("apidocs", "unlabelled")


def test_reads_a_file(tmp_path):
    path = samples.recipe(
        tmp_path / "mine.toml", ("a", "finetune", "minilm"), ("b", "theseus", "a", "num_layers = 2")
    )
    recipe = read_recipe(path)
    assert recipe["name"] == "mine" and [step["name"] for step in recipe["steps"]] == ["a", "b"]
    assert (
        recipe["training"]["batch_size"] == 8
        and is_step(recipe, "a")
        and not is_step(recipe, "minilm")
    )
    (tmp_path / "bare.toml").write_text(FIRST)
    assert read_recipe(tmp_path / "bare.toml")["training"] == {}


@pytest.mark.parametrize(
    "text, message",
    [
        ("[[step", "not valid TOML"),
        (b"about = '\xff'", "not valid TOML"),
        ("", r"must have \[\[step\]\]s.*Received: \[\]"),
        ("step = []", "Received: step = "),
        ('[step]\nname = "a"', "Received: step = "),
        ("step = [3]", "Received: step = "),
        ("colour = 1\n" + FIRST, "Received: colour = 1"),
        ("formats = 'int8'\n" + FIRST, "Received: formats = 'int8'"),
        ("sequence_length = '9'\n" + FIRST, "Received: sequence_length"),
        ("training = 3\n" + FIRST, "Received: training = 3"),
        ("seeds = [0]\n" + FIRST, "a study also `datasets` and `seeds`"),
        ("seeds = ['a']\ndatasets = ['b']\n" + FIRST, "Received: seeds"),
        ('[[step]]\nname = "a"\nmethod = "finetune"', "each step must have `from`"),
        (FIRST + "epochs = 0", "step 'a': `epochs` must be positive"),
        (FIRST + "epochs = 'x'", "'a': `epochs` must be a number"),
        (
            FIRST + "learning_rates = [1e-3]",
            "`learning_rates` must be numbers with a point, in a study",
        ),
        (FIRST + "patience = 'x'", "`patience` must be a whole number. Received: 'x'"),
        (FIRST + "batch_size = 2.5", "`batch_size` must be a whole number. Received: 2.5"),
        (
            FIRST + "colour = 1",
            "step 'a': Settings of finetune must be among .*batch_size.*Received: colour",
        ),
        (FIRST + "folder = '/'", "Received: folder"),
        (FIRST + FIRST, "must be different and plain. Received: 'a'"),
        (FIRST.replace('"a"', '"../a"'), "different and plain"),
        (FIRST.replace('"a"', '""'), "different and plain"),
        (
            FIRST.replace('"finetune"', '"magic"'),
            "`method` must be one of finetune, .*theseus.* Received: 'magic'",
        ),
        (FIRST.replace('"minilm"', '"a"'), "`from` must name an earlier step.*Put that step first"),
        (
            FIRST.replace('"minilm"', '"b"') + FIRST.replace('"a"', '"b"'),
            "step 'a': `from` must name an earlier step",
        ),
        (
            FIRST + "formats = 'int8'",
            "step 'a': `formats` must be a list of names. Received: 'int8'",
        ),
        (
            "[training]\nnum_layers = 3\n" + FIRST.replace("finetune", "theseus"),
            "Received: num_layers",
        ),
        (
            FIRST.replace("finetune", "theseus") + "num_layers = 'three'",
            "`num_layers` must be a whole number",
        ),
        (
            FIRST.replace("finetune", "theseus") + "train_head_last = 1",
            "`train_head_last` must be true or false",
        ),
    ],
)
def test_errors_name_file_and_way_out(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        read_recipe(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["nothing", "nothing.toml", ".", ""])
def test_unknown_recipe(name):
    with pytest.raises(ValueError, match="must be one of .*theseus.*, or a TOML file. Received: "):
        read_recipe(name)


def test_split_settings():
    step = {"name": "s", "method": "theseus", "from": "p", "num_layers": 2, "rate": 1, "epochs": 2}
    training, settings = split_settings({"epochs": 1, "batch_size": 4}, step)
    assert training == {"epochs": 2, "batch_size": 4} and settings == {"num_layers": 2, "rate": 1}
    with pytest.raises(
        ValueError, match="Settings of finetune must be among .* Received: num_steps"
    ):
        split_settings({}, {"name": "s", "method": "finetune", "from": "p", "num_steps": 3})


def test_run_step_passes_everything_on(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        recipe_module,
        "method",
        lambda name: lambda *a, **k: seen.update(name=name, args=a, **k) or "made",
    )
    parent = tiny.shared()
    step = {"name": "s", "method": "theseus", "from": "p", "num_layers": 2}
    recipe = {"training": {"epochs": 2, "max_length": 16}}
    assert run_step(recipe, step, parent, "data", seed=5, learning_rate=1e-3) == "made"
    assert seen.pop("training") == Training(epochs=2, max_length=16, learning_rate=1e-3)
    assert seen == {"name": "theseus", "args": (parent, "data"), "seed": 5, "num_layers": 2}
    with pytest.raises(
        ValueError, match="`max_length` must be at most 16, the positions .* Received: 64"
    ):
        run_step({"training": {}}, step, parent, "data", seed=0)


def test_check_data():
    split = Split(["a", "b"], [0, 1])
    whole = Dataset("d", "classification", ("x", "y"), split, split, split)
    check_data(whole, "train", "dev", "test")
    check_data(dataclasses.replace(whole, test=None), "train", "dev")
    with pytest.raises(
        ValueError,
        match="the splits train, test. Received: d, classification, with train, dev. Add",
    ):
        check_data(dataclasses.replace(whole, test=None), "train", "test")
    with pytest.raises(ValueError, match="Received: d, unlabelled"):
        check_data(Dataset("d", "unlabelled", (), split), "train")


def test_what_a_study_compares_are_steps(tmp_path):
    head = 'datasets = ["x"]\nseeds = [0]\ncompare = ["a minus {}"]'
    steps = [("a", "finetune", "minilm"), ("b", "finetune", "a")]
    assert read_recipe(samples.recipe(tmp_path / "mine.toml", *steps, head=head.format("b")))[
        "compare"
    ] == ["a minus b"]
    with pytest.raises(ValueError, match="`compare` must name two steps.*Received: 'a minus c'"):
        read_recipe(samples.recipe(tmp_path / "wrong.toml", *steps, head=head.format("c")))
