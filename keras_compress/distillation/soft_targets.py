"""Soft targets: a student learns the teacher's answers. Hinton et al., 2015, arXiv:1503.02531.

Equation map
    Hinton, Sec. 2          q = softmax(z / T)                                   soften (losses.py)
    Hinton, Sec. 2          T^2 KL(softmax(z_T / T) || softmax(z_S / T))         soft_label_loss (losses.py)
    Hinton, Sec. 2          weighted mean of this and the cross-entropy          compress
    Tang et al., 2019,      ||z_T - z_S||^2, arXiv:1903.12136                    logits_mse (losses.py)
    Eq. 1
Departures
    The soft term is KL, not cross-entropy: the same gradient, and 0 for equal answers.
    The squared distance is a mean over classes.
The student is any model of the same task: fewer layers of the teacher, a BiLSTM (Tang's), or the
teacher itself after a compression that hurt it.
"""

from typing import Literal

from keras_compress.bert.layer_maps import select_layers
from keras_compress.bert.task_model import TaskModel
from keras_compress.method import Count, NotNegative, Positive, compression, note
from keras_compress.training.distill import distill, start_student
from keras_compress.training.losses import logits_mse, soft_label_loss, soft_targets, true_labels
from keras_compress.training.settings import Training


@compression()
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    student: TaskModel | str | None = None,
    num_layers: Count | None = None,
    layers: str | list[int] = "bottom",
    temperature: Positive = 2.0,
    soft_weight: NotNegative = 0.5,
    label_weight: NotNegative = 0.5,
    kind: Literal["kl", "mse"] = "kl",
):
    """Distils a teacher's answers into a student.

    Args:
        task_model: the teacher, `TaskModel`.
        student: `TaskModel` or source of weights; None: `layers` of the teacher.
        num_layers: layers of the student; None: all of `student`, or of the teacher.
        layers: which of the teacher's layers the student starts from, see `select_layers`.
        temperature: T, for kind "kl".
        soft_weight, label_weight: of the teacher's answers and of the labels.
        kind: "kl" (Hinton) or "mse" of the logits (Tang).
    Returns:
        `TaskModel` of the teacher's task.
    """
    depth = num_layers or (student or task_model).config.num_layers
    kept = range(depth) if student else select_layers(task_model.config.num_layers, depth, layers)
    note(layers=None if student else kept)
    soft = soft_targets(temperature, {"kl": soft_label_loss, "mse": logits_mse}[kind])
    return distill(
        task_model,
        start_student(task_model, student, kept, seed),
        dataset,
        {"soft": (soft_weight, soft), "label": (label_weight, true_labels)},
        training=training,
        seed=seed,
    )
