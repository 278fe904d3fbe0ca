"""Patient KD (PKD): soft targets, and the [CLS] vectors of several layers. Sun et al., 2019, arXiv:1908.09355.

The student has the teacher's width and its first layers. It learns from the labels, from the teacher's answers, and
from what the teacher's inner layers say of [CLS]; the last layer is left to the soft targets.

Equation map
    L_DS    T^2 KL(softmax(z_T / T) || softmax(z_S / T))                           soft_target_loss (distiller.py)
    L_PT    sum over layers || h_S / ||h_S|| - h_T / ||h_T|| ||_2^2 of [CLS]       patience_loss
    L       (1 - alpha) L_CE + alpha L_DS + beta L_PT                              compress
    PT-Skip I(j) = j N / k;  PT-Last I(j) = N - k + j;  j = 1 .. k - 1             patient_layers
Departures
    L_PT is the mean over texts, layers and dimensions, as in the authors' code, to which their values of beta belong;
    reduction="sum" is the paper's (then divide beta by layers x width). L_DS is a mean over texts; the authors' code
    also divides by the number of classes: soft_reduction="mean".
    Texts are shuffled and the teacher runs beside the student; the authors read stored outputs in a fixed order.
    The student starts from the fine-tuned teacher's own first layers; for the paper's start give `student` the
    pre-trained weights ("minilm").
"""

import math

from keras_compress.backend import tf
from keras_compress.bert.layer_maps import check_multiple, rising_layers
from keras_compress.training.distill import (
    check_pair,
    check_soft_targets,
    check_trained,
    distill,
    label_loss,
    masked_mean,
    soft_target_loss,
    start_student,
)
from keras_compress.training.loop import Training, check_fit
from keras_compress.training.settings import is_whole

MAPS, REDUCTIONS = ("skip", "last"), ("mean", "sum")


def patient_layers(num_layers, num_student_layers, layer_map="skip"):
    """The teacher's layers that the student's layers 1 .. k - 1 learn from, counted from 1: I(j).

    Raises:
        ValueError: if the name is unknown, a list has another length or order, or "skip" does not divide evenly.
    """
    n, k = num_layers, num_student_layers
    if not is_whole(k, 2, n):
        raise ValueError(
            f"`num_layers` must be 2 to {n}: the last layer learns from the answers alone. Received: {k}."
        )
    if isinstance(layer_map, (list, tuple)):
        return rising_layers("The layers of `layer_map`", layer_map, k - 1, 1, n)
    if layer_map not in MAPS:
        raise ValueError(
            f"`layer_map` must be one of {', '.join(MAPS)}, or a list. Received: {layer_map!r}."
        )
    if layer_map == "last":
        return [n - k + j for j in range(1, k)]
    check_multiple(n, k, 'the map "skip"', 'take "last" or a list', least=2)
    return [j * n // k for j in range(1, k)]


def check_layers(depth, *, num_layers=3, layer_map="skip", **_):
    """How many layers the student has. Raises ValueError if a teacher of `depth` layers cannot teach it."""
    return len(patient_layers(depth, num_layers, layer_map)) + 1


def patience_loss(teacher, student, normalize=True, reduction="mean"):
    """L_PT: squared distance of the [CLS] vectors, each scaled to length 1.

    Args:
        teacher, student: lists of float (batch, hidden), one per layer.
        reduction: "mean" over texts, layers and dimensions; "sum" over layers and dimensions, mean over texts.
    Returns:
        float scalar.
    """
    teacher, student = (
        tf.stack(teacher, axis=1),
        tf.stack(student, axis=1),
    )  # (batch, layers, hidden)
    if normalize:
        teacher, student = (
            tf.math.l2_normalize(h, axis=-1, epsilon=1e-12) for h in (teacher, student)
        )
    squares = tf.square(student - teacher)
    return masked_mean(squares if reduction == "mean" else tf.reduce_sum(squares, axis=(1, 2)))


def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers=3,
    layer_map="skip",
    student=None,
    alpha=0.5,
    beta=100.0,
    temperature=5.0,
    normalize=True,
    reduction="mean",
    soft_reduction="batchmean",
):
    """Distils a fine-tuned teacher into its first layers.

    Args:
        task_model: the teacher, `TaskModel`; left as it is.
        num_layers: layers k of the student.
        layer_map: "skip", "last", or a list of k - 1 of the teacher's layers, from 1, rising.
        student: start from this instead of the teacher's own layers (see `start_student`); "minilm" is the paper's way.
        alpha: share of the soft targets against the labels. beta: factor of L_PT. temperature: T.
        normalize: scale [CLS] vectors to length 1. reduction: of L_PT. soft_reduction: of L_DS.
    Returns:
        `TaskModel` of `num_layers` layers.
    Raises:
        ValueError: if teacher and student cannot be compared, or a setting is out of range.
    """
    check_fit(task_model, dataset)
    if not (0.0 <= alpha <= 1.0 and 0.0 <= beta < math.inf) or reduction not in REDUCTIONS:
        raise ValueError(
            f"`alpha` must be in [0, 1], `beta` 0 or more, `reduction` one of {', '.join(REDUCTIONS)}. "
            f"Received: {alpha}, {beta}, {reduction!r}."
        )
    check_soft_targets(temperature, reduction=soft_reduction)
    check_trained(task_model)
    check_pair(task_model, task_model, inside=True)  # the teacher is a BERT
    learned_from = patient_layers(task_model.config.num_layers, num_layers, layer_map)
    with training.scope():
        small = start_student(task_model, student, list(range(num_layers)), seed)
    check_pair(task_model, small, same_hidden=True)
    theirs = [f"hidden_states/{layer}/cls" for layer in learned_from]
    ours = [f"hidden_states/{layer}/cls" for layer in range(1, num_layers)]

    def objective(teacher, student, labels, mask):
        return {
            "label": label_loss(labels, student["logits"]),
            "soft": soft_target_loss(
                teacher["logits"],
                student["logits"],
                temperature,
                reduction=soft_reduction,
                mask=labels >= 0,
            ),
            "patience": patience_loss(
                [teacher[name] for name in theirs],
                [student[name] for name in ours],
                normalize,
                reduction,
            ),
        }

    small.history.append(
        {
            "method": "pkd",
            "seed": seed,
            "num_layers": num_layers,
            "learned_from": learned_from,
            "student": getattr(student, "history", student and str(student)),
            "alpha": alpha,
            "beta": beta,
            "temperature": temperature,
            "normalize": normalize,
            "reduction": reduction,
            "soft_reduction": soft_reduction,
            "training": training.settings(),
        }
    )
    small.curve += distill(
        task_model,
        small,
        dataset,
        objective,
        {"label": 1.0 - alpha, "soft": alpha, "patience": beta},  # L
        teacher_outputs=["logits", *theirs],
        student_outputs=["logits", *ours],
        training=training,
        seed=seed,
        stage="distill",
        num_steps=training.num_steps(len(dataset.train.texts)),
    )
    return small
