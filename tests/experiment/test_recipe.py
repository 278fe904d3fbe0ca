import pytest

from keras_compress.experiment import recipe as module
from keras_compress.experiment.recipe import (
    hash_of,
    identity,
    of_seed,
    read_recipe,
    recipes,
    run_step,
    steps_of,
)
from keras_compress.experiment.run_folder import changed
from keras_compress.training.settings import Training
from tests import samples
from tests.bert import tiny

FIRST = '[[step]]\nname = "a"\nmethod = "finetune"\nfrom = "minilm"\n'
STUDY = 'datasets = ["x"]\nseeds = [0]\n'


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_of_the_package_can_be_read(name):
    recipe = read_recipe(name)
    first = recipe["steps"][0]
    assert recipe["name"] == name and recipe["about"] and first["role"] == "predecessor"
    names = {"minilm", "bilstm", *(step["name"] for step in recipe["steps"])}
    assert all(step["from"] in names for step in recipe["steps"])


def test_studies_share_their_predecessor():
    studies = [read_recipe(name) for name in recipes() if name.endswith("-study")]
    firsts = [identity(of_seed(steps_of(study)[0], 7), str) for study in studies]
    assert len(firsts) > 1 and len({hash_of(first) for first in firsts}) == 1
    assert firsts[0]["seed"] == 0  # the first, whatever is asked for


def test_the_parts_of_a_method_are_the_same_models_in_two_studies():
    """A cell of one study is that of another: new settings of a method do not change what was made before."""
    one, two = (read_recipe(f"{name}-study") for name in ("distillation", "tinybert"))
    one, two = ({step.name: step for step in steps_of(recipe)} for recipe in (one, two))
    same = "plain-2 truncated-3 spread-2 masked-lm-task tinybert-2 tinybert-3".split()
    for name in same:
        assert identity(of_seed(one[name], 1), str) == identity(of_seed(two[name], 1), str)


@pytest.mark.parametrize(
    "text, message",
    [
        ("step = 5", "`step`: must be"),
        ("[[step]]\nname = [1]", "`step`: must be"),
        ("training = 5\n" + FIRST, "`training`: must be a table"),
        ('include = "../_base"\n' + FIRST, "`include` must name another recipe"),
        ("data = 5\n" + FIRST, "`data`: Input should be a valid string. Received: 5"),
        ("sequence_length = -1\n" + FIRST, "greater than or equal to 4"),
        (FIRST + "learning_rates = [-1.0]", "greater than 0"),
        (STUDY.replace("0", "9" * 20) + FIRST, "less than or equal to 1000000000"),
        ("a" + ".a" * 2000 + " = 1\n" + FIRST, "not valid TOML"),
        (f'include = "{"x" * 300}"\n' + FIRST, "`include` must name another recipe"),
        (FIRST.replace("name = ", f'name = "{"x" * 61}" # '), "should match pattern"),
    ],
)
def test_what_is_misshapen_names_the_file(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"mine.toml: .*{message}"):
        read_recipe(path)
    path.with_name("other.toml").write_text('include = "mine"\n' + FIRST)
    with pytest.raises(ValueError, match=f".toml: .*{message}"):
        read_recipe(path.with_name("other.toml"))


def test_a_training_has_an_end():
    assert Training(epochs=1e6).num_steps(3200) == 10**8
    with pytest.raises(ValueError, match="at most 100,000,000 updates. Received: 1e\\+11, in"):
        Training(epochs=1e9).num_steps(3200)


def test_a_file_of_a_step_can_be_compared(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(STUDY + 'compare = ["a:int8 minus a"]\n' + FIRST + 'formats = ["int8"]\n')
    assert read_recipe(path)["compare"] == ["a:int8 minus a"]


def test_steps_that_name_other_models(tmp_path):
    steps = [
        ("a", "finetune", "minilm"),
        ("words", "masked_lm", "minilm", 'data = "apidocs"\nrole = "helper"'),
        ("b", "tinybert", "a", 'mlm = "words"\ncopies = 2'),
        ("c", "distilbert", "a", 'student = "b"'),
    ]
    recipe = read_recipe(samples.recipe(tmp_path / "mine.toml", *steps))
    wanted = [[], [], ["a", "words"], ["a", "b"]]
    assert [[p.name for p in step.models.values()] for step in steps_of(recipe)] == wanted
    with pytest.raises(ValueError, match="step 'c': `student` must name an earlier step.*'b'"):
        read_recipe(samples.recipe(tmp_path / "wrong.toml", *steps[:2], steps[3], steps[2]))


def test_include_adds_keys_steps_and_changes_steps_of_the_same_name(tmp_path):
    (tmp_path / "base.toml").write_text("formats = ['int8']\n[training]\nepochs = 2\n" + FIRST)
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'include = "base"\n[training]\nbatch_size = 4\n[[step]]\nname = "a"\nepochs = 5\n'
        '[[step]]\nfamily = "b"\nnum_layers = 2\nmethod = "layers"\nfrom = "a"\n'
    )
    recipe = read_recipe(mine)
    assert recipe["training"] == {"epochs": 2, "batch_size": 4} and recipe["formats"] == ["int8"]
    assert [step["name"] for step in recipe["steps"]] == ["a", "b-2"] and recipe["steps"][0][
        "epochs"
    ] == 5
    assert recipe["steps"][0]["method"] == "finetune"
    mine.write_text('include = "mine"\n' + FIRST)
    with pytest.raises(ValueError, match="`include` must name another recipe"):
        read_recipe(mine)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[[step", "not valid TOML"),
        (b"about = '\xff'", "not valid TOML"),
        ("", "`step`: Field required"),
        ("step = []", "`step`: .*at least 1 item"),
        ("step = 3", "`step`: .*Received: 3"),
        ("colour = 1\n" + FIRST, "`colour`: must be a key of a recipe; .* Keys are include, about"),
        ("formats = 'int8'\n" + FIRST, "`formats`: .*valid list. Received: 'int8'"),
        ("sequence_length = '9'\n" + FIRST, "`sequence_length`: .*valid integer"),
        ("seeds = [0]\n" + FIRST, "a study has `datasets` and `seeds`"),
        ("seeds = ['a']\ndatasets = ['b']\n" + FIRST, "`seeds.0`: .*valid integer"),
        ('[[step]]\nname = "a"\nmethod = "finetune"', "`step.0.from`: Field required"),
        (FIRST + "role = 'teacher'", "`step.0.role`: .*'predecessor', 'baseline', 'control'"),
        (FIRST + "epochs = 0", "step 'a': `epochs` must be greater than 0"),
        (FIRST + "epochs = 'x'", "'a': `epochs` must be a valid number"),
        (FIRST + "batch_size = 2.5", "`batch_size` must be a valid integer.*Received: 2.5"),
        (FIRST + "colour = 1", "step 'a': Settings must be among .*Received: colour"),
        (FIRST + "folder = '/'", "Received: folder"),
        (FIRST + FIRST, "must be different.*Received: 'a'"),
        (FIRST.replace('"a"', '"majority"'), "neither majority nor tfidf"),
        (FIRST.replace('"a"', '"../a"'), "`step.0.name`: .*match pattern"),
        (FIRST.replace('"finetune"', '"magic"'), "`method` must be one of .*Received: 'magic'"),
        (FIRST.replace('"minilm"', '"a"'), "`from` must name an earlier step.*Put that step first"),
        (FIRST + "formats = 'int8'", "`step.0.formats`: .*valid list"),
        (STUDY + 'compare = ["a minus c"]\n' + FIRST, "`compare` must name steps or families"),
        (STUDY + 'compare = ["a:int8 minus a"]\n' + FIRST, "Received: 'a:int8 minus a'"),
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


def test_settings_of_training_and_of_the_method(tmp_path):
    steps = ("p", "finetune", "minilm"), ("s", "theseus", "p", "num_layers = 2\nepochs = 2")
    path = samples.recipe(tmp_path / "mine.toml", *steps, training="epochs = 1")
    first, step = steps_of(read_recipe(path))
    assert first.training["epochs"] == 1 and first.settings == {} and first.size is None
    assert step.training == {**first.training, "epochs": 2}
    assert step.settings == {"num_layers": 2} and step.size == 2


def test_seeds_and_rates_matter_where_a_chain_trains():
    steps = {step.name: step for step in steps_of(read_recipe("factorization-study"))}
    for name, trained, shared, rates in (
        ("predecessor", True, True, None),
        ("control", True, False, [5e-5, 2e-4]),
        ("vocabulary", False, True, None),
        ("vocabulary-tuned", True, False, [5e-5, 2e-4]),
        ("weighted-untrained-128", False, True, None),
        ("weighted-128", True, False, [5e-5, 2e-4]),
    ):
        step = steps[name]
        assert (step.seeded, step.shared, step.rates) == (trained, shared, rates)
    assert steps["control"].role == "control"


def test_identity_is_what_a_model_depends_on_and_nothing_else(tmp_path):
    steps = [("a", "finetune", "minilm"), ("b", "layers", "a", "num_layers = 1")]
    recipe = read_recipe(samples.recipe(tmp_path / "mine.toml", *steps))
    recipe |= {"seeds": [0], "datasets": ["x"]}

    def mark(recipe, seed=1, data="d"):
        return hash_of(identity(of_seed(steps_of(recipe)[-1], seed), lambda own: data))

    renamed = read_recipe(
        samples.recipe(
            tmp_path / "other.toml",
            ("x", "finetune", "minilm"),
            ("y", "layers", "x", 'num_layers = 1\nrole = "baseline"\nformats = ["int8"]'),
        )
    ) | {"seeds": [0], "datasets": ["x"]}
    assert mark(recipe) == mark(renamed)
    others = [mark(recipe, seed=2), mark(recipe, data="e"), mark(changed(recipe, num_layers=2))]
    others += [mark(changed(recipe, source="bilstm")), mark(changed(recipe, new_head=True))]
    others += [mark(changed(recipe, lowercase=False)), mark(changed(recipe, labels=["a", "b"]))]
    others += [mark({**recipe, "training": {**recipe["training"], "epochs": 9}})]
    others += [mark({**recipe, "learning_rates": [1e-3]})]
    assert len({mark(recipe), *others}) == 10
    assert mark(recipe) == mark(changed(recipe, new_head=False, lowercase=None, ignore_weights=[]))


def test_another_source_takes_the_place_of_the_recipes_own_alone(tmp_path):
    path = samples.recipe(tmp_path / "a.toml", ("x", "finetune", "minilm"), ("y", "layers", "X"))
    steps = changed(read_recipe(path), source="bilstm")["steps"]
    assert [step["from"] for step in steps] == ["bilstm", "X"]  # a misspelt step is not replaced


def test_run_step_passes_everything_on(monkeypatch):
    seen = {}

    def compress(*args, **settings):
        seen.update(args=args, **settings)
        return "made"

    real = module.method("distilbert")
    compress.declared, compress.check = real.declared, real.check
    monkeypatch.setattr(module, "method", lambda name: seen.update(name=name) or compress)
    parent, student = tiny.shared(), object()
    steps = [
        {"name": "p", "method": "distilbert", "from": "minilm", "num_layers": 2},
        {"name": "s", "method": "distilbert", "from": "p", "num_layers": 2, "student": "b"},
    ]
    step = steps_of({"training": {"epochs": 2, "max_length": 16}, "steps": steps})[1]
    step = of_seed(step, 5)
    made = run_step(step, parent, "data", models={"student": student}, learning_rate=1e-3)
    assert made == "made" and seen.pop("student") is student
    assert seen.pop("training") == Training(epochs=2, max_length=16, learning_rate=1e-3)
    assert seen == {"name": "distilbert", "args": (parent, "data"), "seed": 5, "num_layers": 2}


def test_another_number_of_layers_or_rate_changes_every_step_and_the_names_made_of_it(tmp_path):
    recipe = read_recipe("vocabulary")
    steps = changed(recipe, num_layers=4, learning_rate=2e-5, length=20)
    names = [step["name"] for step in steps["steps"]]
    assert names == ["predecessor", "vocabulary", "theseus-4", "theseus-vocabulary-3"]
    assert steps["steps"][2]["num_layers"] == 4 and steps["steps"][3]["from"] == "theseus-4"
    assert {step["learning_rate"] for step in steps["steps"]} == {2e-5}
    assert steps["sequence_length"] == steps["training"]["max_length"] == 20
    assert recipe["steps"][2]["num_layers"] == 3
    with pytest.raises(ValueError, match="`learning_rate` must be greater than 0"):
        changed(recipe, learning_rate=0.0)


def test_on_data_of_ones_own_every_step_keeps_its_best(tmp_path):
    for name in recipes():
        recipe = read_recipe(name)
        trained = {step.name: step.training for step in steps_of(changed(recipe, data="my-data"))}
        if "seeds" in recipe or recipe["data"] == "my-data":
            assert trained == {step.name: step.training for step in steps_of(recipe)}
            continue
        last = changed(recipe, data="my-data")["last"]
        methods = {step["name"]: step["method"] for step in recipe["steps"]}
        assert {methods[step] for step in last} <= {"magnitude", "movement", "clustering"}
        for step, training in trained.items():
            patience = training.get("patience")
            assert patience is None if step in last else patience == training["evaluations"] >= 4
    recipe = read_recipe("theseus")
    own = steps_of(changed(recipe, data=recipe["data"]))
    assert [step.training for step in own] == [step.training for step in steps_of(recipe)]


def test_what_a_recipe_says_of_patience_stays(tmp_path):
    steps = [("a", "finetune", "minilm"), ("b", "finetune", "a", "patience = 2\nevaluations = 9")]
    recipe = read_recipe(samples.recipe(tmp_path / "mine.toml", *steps))
    first, second = steps_of(changed(recipe, data="my-data"))
    assert (first.training["patience"], second.training["patience"]) == (4, 2)
    assert second.training["evaluations"] == 9


@pytest.mark.parametrize("text", ["step = 5", "step = [5]", 'include = "_base"\nstep = [5]'])
def test_a_recipe_that_is_none_is_refused_by_name(tmp_path, text):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ValueError, match=r"r.toml: `step(\.0)?`"):
        read_recipe(tmp_path / "r.toml")


def test_a_deep_recipe_is_refused(tmp_path):
    (tmp_path / "r.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ValueError, match="r.toml: not valid TOML"):
        read_recipe(tmp_path / "r.toml")
