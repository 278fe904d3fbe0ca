"""The study of word tables and shared layers, with its own steps on tiny data; only the export is a stand-in."""

from types import SimpleNamespace

import pytest

from keras_compress.bert.task_model import TaskModel
from keras_compress.experiment.compare import study_table
from keras_compress.experiment.recipe import read_recipe
from keras_compress.experiment.study import _Study, run_study
from tests import samples
from tests.replacement.test_theseus import data

ONLY = ["vocabulary", "factorised-64"]


@pytest.mark.parametrize("name", ["factorization-study", "sharing-study"])
def test_predecessor_is_that_of_the_other_studies_and_all_recover_alike(name):
    ours, others = (read_recipe(name) for name in (name, "theseus-study"))
    first, theirs = ({**recipe["training"], **recipe["steps"][0]} for recipe in (ours, others))
    assert first == theirs
    for step in ours["steps"][1:]:
        assert step["from"] == "predecessor" and not {*step} & {
            "epochs",
            "batch_size",
            "max_length",
            "evaluations",
        }
        told = {
            "weighted-distilled-128": "distil",
            "weighted-untrained-128": "none",
            "shared-distilled": "distil",
        }
        assert step.get("recover", "finetune") == told.get(step["name"], "finetune")


def test_what_is_not_trained_has_one_seed_and_no_learning_rate():
    recipe = read_recipe("factorization-study")
    study = _Study(recipe, data(), recipe["learning_rates"], None, None)
    steps = {step["name"]: step for step in recipe["steps"]}
    assert study.grid(steps["vocabulary"]) is None and study.seed(steps["vocabulary"], 2) == 0
    assert (
        study.grid(steps["vocabulary-tuned"]) == [5e-5, 2e-4]
        and study.seed(steps["vocabulary-tuned"], 2) == 2
    )


def stand_ins(patch):
    """An export whose files weigh four bytes a parameter, and a benchmark of files that take a millisecond."""

    def export(model, folder, **settings):
        return [
            {"format": name, "path": name, "bytes": 4 * model.model.count_params()}
            for name in ("float32", "int8")
        ]

    def benchmark(*paths):
        return [
            {
                "latency_ms_p50": 1.0,
                "device": "a phone",
                "threads": 1,
                "sequence_length": 16,
                "runs": 1,
            }
            for _ in paths
        ]

    patch.setattr("mobile_export.convert.export", export)
    patch.setattr("mobile_export.benchmark.benchmark", benchmark)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("study")
    samples.data(place / "one")
    samples.model(place / "bert", hidden_size=16)
    recipe = read_recipe("factorization-study")
    recipe["training"] |= {"max_length": 16, "batch_size": 8}
    for step in recipe["steps"]:
        step |= {"embedding_size": 8} if "embedding_size" in step else {}
        step["from"] = str(place / "bert") if step["from"] == "minilm" else step["from"]
    with pytest.MonkeyPatch.context() as patch:
        stand_ins(patch)
        cells, costs = run_study(
            recipe,
            data=[str(place / "one")],
            seeds=[0],
            only=ONLY,
            fixed_lr=True,
            weights=place / "weights",
            results=place / "results",
        )
    models = {name: TaskModel.load(next(place.glob(f"weights/one-{name}-0-*"))) for name in ONLY}
    return SimpleNamespace(
        cells={cell["method"]: cell for cell in cells}, costs=costs, models=models
    )


def test_cells_and_models(made):
    models, cells = made.models, made.cells
    assert {*cells} == {*ONLY, "majority", "tfidf"}
    assert (
        models["factorised-64"].config.table_size == 8
        and models["factorised-64"].history[-1]["num_steps"] == 3
    )
    assert models["vocabulary"].history[-1]["method"] == "vocabulary"
    assert models["vocabulary"].history[-1]["min_count"] == 2
    assert models["vocabulary"].config.vocab_size < models["factorised-64"].config.vocab_size


def test_the_size_of_a_vocabulary_belongs_to_its_data(made):
    assert {*made.costs} == {"factorised-64", "one-vocabulary"}
    assert (
        made.costs["one-vocabulary"]["float32"]["bytes"]
        == 4 * made.cells["vocabulary"]["parameters"]
    )
    made.costs["one-vocabulary"]["float32"]["bytes"] = 7.7e6
    row = next(
        line
        for line in study_table(made.cells.values(), made.costs).splitlines()
        if "| vocabulary |" in line
    )
    assert "| 7.7 / " in row
