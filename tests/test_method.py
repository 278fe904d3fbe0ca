import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest

from keras_compress.bert.task_model import TaskModel
from keras_compress.method import (
    FAMILIES,
    BelowOne,
    Count,
    Positive,
    check,
    check_trained,
    compression,
    entry_at_work,
    method,
    methods,
    note,
)
from keras_compress.training.finetune import finetune
from keras_compress.training.settings import Training
from tests.support import data, masked_lm, still


def example(
    *,
    seed=0,
    training=Training(),
    number: Count = 3,
    heat: Positive = 1.0,
    how: Literal["mean", "sum"] | list[int] = "mean",
):
    """Declares settings; does nothing."""


def test_methods_are_listed_by_their_place():
    listed = methods()
    assert listed["theseus"][0] == "replacement" and "Xu et al., 2020" in listed["theseus"][1]
    assert listed["soft_targets"][0] == "distillation"
    assert listed["tinybert_general"][0] == "distillation"  # a second use in the same file
    assert all(about for _, about in listed.values())
    assert {family for family, _ in listed.values()} >= set(FAMILIES)


def test_listing_imports_no_tensorflow():
    code = "import sys; from keras_compress.method import methods; methods(); sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_method_by_name():
    assert method("finetune") is finetune and not finetune.declared.settings
    assert method("theseus").declared.settings["rate"] == 0.3
    with pytest.raises(ValueError, match="`method` must be one of .*theseus.*Received: 'magic'"):
        method("magic")


def test_settings_are_checked_strictly():
    values = check(example, {"number": 2, "heat": 2, "how": (1, 2)})
    assert values == {"number": 2, "heat": 2.0, "how": [1, 2]}  # a tuple is a list
    for given, message in (
        ({"number": True}, "`number` must be a valid integer. Received: True. Way out."),
        ({"number": 0}, "`number` must be greater than or equal to 1. Received: 0."),
        ({"heat": float("inf")}, "`heat` must be a finite number. Received: inf."),
        ({"how": "max"}, "`how` must be 'mean' or 'sum' or a valid list. Received: 'max'."),
        ({"cold": 1}, "Settings must be among number, heat, how. Received: cold. Way out."),
    ):
        with pytest.raises(ValueError) as error:
            check(example, {"number": 1, "heat": 1.0, "how": "sum", **given}, "Way out.")
        assert str(error.value).startswith(message)


def test_a_source_becomes_a_model_and_history_tells_the_models_own(tmp_path):
    still().save(tmp_path / "student")
    masked_lm().save(tmp_path / "mlm")
    given = {}

    @compression(trains=False)
    def teach(
        task_model,
        dataset,
        *,
        seed=0,
        training=Training(),
        student: TaskModel | str | None = None,
        mlm: Annotated[TaskModel | str | None, "mlm"] = None,
    ):
        given.update(student=student, mlm=mlm)
        note(noted=1)
        entry_at_work()["also"] = 2
        return task_model.clone()

    sources = {"student": str(tmp_path / "student"), "mlm": str(tmp_path / "mlm")}
    small = teach(still(), data(), **sources)
    assert (given["student"].task, given["mlm"].task) == ("classification", "mlm")
    assert small.history == [
        {"method": "teach", "seed": 0, "student": [], "mlm": [], "noted": 1, "also": 2}
    ]
    given["student"].history.append({"method": "finetune"})
    entry = teach(still(), data(), student=given["student"]).history[-1]
    assert (entry["student"], entry["mlm"]) == ([{"method": "finetune"}], None)
    assert teach.declared.models == {"student": None, "mlm": "mlm"}


def test_after_a_method_that_failed_no_entry_is_open():
    @compression(trains=False)
    def fail(task_model, dataset, *, seed=0, training=Training()):
        raise KeyError("broken")

    with pytest.raises(KeyError):
        fail(still(), data())
    note(lost=1)  # outside of a method: goes nowhere
    assert entry_at_work() is None


def test_a_new_head_counts_as_trained_once_its_answers_were_learned():
    model = still()
    model.history = [{"method": "load", "new": ["classifier/bias", "pooler/bias"]}]
    for entry in ({"method": "vocabulary"}, {"method": "t", "training": {}, "num_answers": 0}):
        model.history.append(entry)
        with pytest.raises(
            ValueError, match="a model whose classifier/bias is new. Train it first"
        ):
            check_trained(model)
    model.history.append({"method": "finetune", "training": {}})
    check_trained(model)


def test_paths_and_tuples_count_as_text_and_lists():
    checked = method("distilbert").check
    assert checked({"layers": (0, 2)})["layers"] == [0, 2]
    assert checked({"student": Path("somewhere")})["student"] == "somewhere"


@pytest.mark.parametrize("name", ["soft_targets", "distilbert", "distilbert_general"])
def test_layers_of_the_teacher_and_a_student_are_not_both_the_start(name):
    checked = method(name).check
    with pytest.raises(ValueError, match="Either `layers` or `student`.* Received: both"):
        checked({"layers": "top", "student": "minilm"})
    assert checked({"layers": "top", "student": None})["layers"] == "top"


def test_a_setting_without_an_annotation_is_no_setting():
    def bare(task_model, dataset, *, seed=0, training=None, epsilon=0.1): ...

    def by_place(task_model, dataset, epsilon: BelowOne = 0.1, *, seed=0, training=None): ...

    for function in (bare, by_place):
        with pytest.raises(TypeError, match=r"behind `\*`, each with an annotation.*epsilon"):
            compression()(function)
