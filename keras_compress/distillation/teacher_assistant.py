"""Teacher assistants: distillation through models of sizes in between. Mirzadeh et al., 2019, arXiv:1902.03393.

    teacher -> assistant -> .. -> student: each learns from the one before it, which is then frozen

Equation map
    L = (1 - lambda) CE + lambda T^2 KL, for each link                    `loss`, any method of distillation
    the assistant's size: not the mean of the sizes, but that of the model whose stand-alone
    accuracy is nearest to the mean of teacher's and student's            choose_assistant
    all sizes in between                                                  by="all"
Why a method: a chain of known sizes is a recipe, steps of `soft_targets` each `from` the one before
(recipes/capacity-study.toml). A recipe has no conditions, and a choice by accuracy is one. So this file holds
the rule and the chain that follows it. A link is a call of another method; the chosen sizes and the accuracies
stand in the history.
Departures
    Assistants are chosen on dev, and the last model stays; the authors' code keeps the epoch that is best on test.
    Assistants and student start from the bottom layers of `student`, or of the model before; the authors' from
    random weights.
    The KL of the authors' code is a mean over texts and classes: their lambda is that of KL / C.
"""

from typing import Literal

from keras_compress.bert.task_model import TaskModel
from keras_compress.measure.accuracy import evaluate
from keras_compress.method import Count, compression, method, note
from keras_compress.training.distill import start_student
from keras_compress.training.finetune import tune
from keras_compress.training.settings import Training


def choose_assistant(scores, student, teacher, by="accuracy"):
    """The size of the assistant for a teacher and a student.

    Args:
        scores: {number of layers: stand-alone accuracy} of student, teacher and candidates.
        student, teacher: their numbers of layers.
        by: "accuracy": the accuracy nearest to the mean of student's and teacher's; "size": so with layers.
    Returns:
        Number of layers, between the two; of two equally near the smaller. None if no candidate lies between.
    """
    of = {depth: depth for depth in scores} if by == "size" else scores
    between = sorted(depth for depth in scores if student < depth < teacher)
    mean = (of[student] + of[teacher]) / 2
    return min(between, key=lambda depth: round(abs(of[depth] - mean), 9), default=None)


def sizes_between(candidates, student, teacher):
    """The candidates, large first; None stands for every number of layers in between.

    Raises:
        ValueError: unless each is smaller than the teacher and larger than the student.
    """
    between = [*range(teacher - 1, student, -1)]
    wanted = between if candidates is None else sorted({*candidates}, reverse=True)
    if not {*wanted} <= {*between} or (candidates is None and not between):
        raise ValueError(
            "An assistant must have fewer layers than its teacher and more than its student. Received: "
            f"candidates = {candidates}, a teacher of {teacher} and a student of {student} layers. Choose "
            f"from {between}; [] distils without an assistant."
        )
    return wanted


def stand_alone(task_model, student, depth, dataset, *, seed, training):
    """A model of so many layers that starts as assistants and student do and learns from the labels alone."""
    folder = training.folder and f"{training.folder}/alone-{depth}"
    training = training.replace(folder=folder, cache_teacher=False)
    start = start_student(task_model, student, range(depth), seed)
    return tune(start, dataset, seed=seed, training=training)


@compression(bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count = 3,
    student: TaskModel | str | None = None,
    candidates: list[int] | None = None,
    by: Literal["accuracy", "size", "all"] = "accuracy",
    scores: dict | None = None,
    loss: str = "soft_targets",
    loss_settings: dict = {},
):
    """Distils a teacher into a student through assistants.

    Args:
        task_model: the teacher, `TaskModel`.
        num_layers: layers of the student.
        student: BERT whose bottom layers assistants and student start from; None: the model before.
        candidates: numbers of layers for assistants; None: all between; []: none, which is plain distillation.
        by: "accuracy" or "size": one assistant, see `choose_assistant`; "all": through all candidates.
        scores: {layers: stand-alone accuracy on dev} as far as known, such as an earlier chain's history has
            them. For by="accuracy" the other models are trained on the labels, each once, as long as a link.
        loss: a method of distillation that takes `num_layers`. loss_settings: its other settings.
    Returns:
        `TaskModel` of `num_layers` layers.
    """
    largest = task_model.config.num_layers
    sizes = sizes_between(candidates, num_layers, largest)
    start = {} if student is None else {"student": student}
    method(loss).check({"num_layers": num_layers, **start, **loss_settings})
    if student is not None and student.config.architecture != "bert":
        raise ValueError(
            "Assistants start from the bottom layers of a BERT. Received: `student`, a "
            f"{student.config.architecture}. Distil into it with soft_targets, from a chain's last assistant."
        )
    if {*loss_settings} & {"num_layers", "student"}:
        raise ValueError(
            "`loss_settings` must leave sizes and start to the chain. Received: "
            f"{loss_settings}. Set `num_layers` and `student` beside it."
        )
    every = largest, *sizes, num_layers
    known = {int(depth): float(value) for depth, value in (scores or {}).items()}
    if by == "accuracy" and len(sizes) > 1:
        dataset.check_splits("train", "dev")
        for depth in {*every} - {*known}:
            model = task_model
            if depth != largest:
                model = stand_alone(
                    task_model, student, depth, dataset, seed=seed, training=training
                )
            known[depth] = evaluate(model, dataset.dev)["value"]
    if by != "all" and len(sizes) > 1:
        among = {depth: known.get(depth) for depth in every}
        sizes = [choose_assistant(among, num_layers, largest, by)]
    note(assistants=sizes, scores={str(depth): value for depth, value in known.items()})
    model = task_model
    for depth in (*sizes, num_layers):
        link = training.replace(folder=training.folder and f"{training.folder}/link-{depth}")
        settings = {**loss_settings, **start, "num_layers": depth}
        model = method(loss)(model, dataset, seed=seed, training=link, **settings)
    return model
