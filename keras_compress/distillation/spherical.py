"""Spherical KD: soft targets between logits of one norm. Guo et al., 2020, arXiv:2010.07485.

The paper's argument: a larger teacher is surer, its logits are longer, and a small student is asked for a
length that it cannot reach. So only the direction of the logits is compared.

Equation map
    z' = l_avg z / ||z||_2                                             on_sphere
    l_avg: mean norm of the teacher's logits                           mean_norm
    L = (1 - alpha) CE(softmax(z'_S), y)
        + alpha T^2 KL(softmax(z'_T / T) || softmax(z'_S / T))         spherical_losses
Three scales are in circulation, written with z~ = z - mean(z) over the C classes; softmax ignores the shift:
    "norm"          z'_T and z'_S as above (paper)
    "layernorm"     z' = l_avg z~ / std(z~), l_avg: mean standard deviation (the authors' README)
    "teacher_std"   z'_T = z_T and z'_S = z_S std(z_T) / std(z_S), text by text (the authors' script)
Departures
    std divides by C; that of the authors' script by C - 1. l_avg is measured before training and constant.
    alpha is constant; the authors' script lowers it from .9 to .5 and .1 at 60 and 80 % of the epochs.
    The student starts from layers of a trained model.
It answers with its own logits z_S: the norm changes no answer, but nothing trains it, so that the
probabilities are not calibrated.
"""

from typing import Literal

from keras_compress.backend import tf
from keras_compress.bert.layer_maps import select_layers
from keras_compress.bert.task_model import TaskModel
from keras_compress.method import Count, Positive, Share, compression, note
from keras_compress.training.distill import distill, start_student
from keras_compress.training.losses import label_loss, masked_mean, soft_label_loss
from keras_compress.training.settings import Training


def on_sphere(logits, norm):
    """z' = norm z / ||z||_2. (..., classes) -> the same; zeros stay zeros."""
    return norm * tf.math.l2_normalize(logits, axis=-1)


def centred(logits):
    """z~ = z - mean(z). (..., classes) -> the same."""
    return logits - tf.reduce_mean(logits, axis=-1, keepdims=True)


def on_one_sphere(teacher_logits, student_logits, scale="norm", l_avg=None):
    """z'_T and z'_S.

    Args:
        teacher_logits, student_logits: float, (..., classes).
        scale: "norm", "layernorm" or "teacher_std". l_avg: see `mean_norm`; "teacher_std" needs none.
    Returns:
        (float (..., classes), the same).
    """
    if scale == "norm":
        return on_sphere(teacher_logits, l_avg), on_sphere(student_logits, l_avg)
    z_T, z_S = centred(teacher_logits), centred(student_logits)
    if scale == "teacher_std":
        # std(z_T) / std(z_S) = ||z~_T|| / ||z~_S||
        return teacher_logits, on_sphere(z_S, tf.norm(z_T, axis=-1, keepdims=True))
    # l_avg z~ / std(z~), and std(z~) = ||z~|| / sqrt(C)
    norm = l_avg * z_S.shape[-1] ** 0.5
    return on_sphere(z_T, norm), on_sphere(z_S, norm)


def mean_norm(task_model, dataset, training, scale="norm"):
    """l_avg: mean of ||z||_2 over the labelled training texts or pieces; for "layernorm" mean of std(z)."""
    run = tf.function(lambda x: task_model.model(x, training=False), reduce_retracing=True)
    total = count = 0
    for inputs, labels in dataset.batches(
        "train", task_model.tokenizer, training.batch_size, training.max_length
    ):
        z = tf.boolean_mask(run(inputs), labels >= 0)  # (texts, classes)
        sizes = tf.norm(z, axis=-1) if scale == "norm" else tf.math.reduce_std(z, axis=-1)
        total, count = total + float(tf.reduce_sum(sizes)), count + len(sizes)
    return total / count


def spherical_losses(temperature=4.0, alpha=0.9, scale="norm", l_avg=None):
    """L as losses of `distill`: {"soft": (alpha, function), "label": (1 - alpha, function)}."""

    def soft(T, S, labels, mask):  # T^2 KL(softmax(z'_T / T) || softmax(z'_S / T))
        z_T, z_S = on_one_sphere(T["logits"], S["logits"], scale, l_avg)
        return masked_mean(soft_label_loss(z_T, z_S, temperature), labels >= 0)

    def label(T, S, labels, mask):  # CE(softmax(z'_S), y)
        _, z_S = on_one_sphere(T["logits"], S["logits"], scale, l_avg)
        return label_loss(labels, z_S)

    return {"soft": (alpha, soft), "label": (1.0 - alpha, label)}


@compression(data="classes")
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    student: TaskModel | str | None = None,
    num_layers: Count | None = None,
    layers: str | list[int] = "bottom",
    temperature: Positive = 4.0,
    alpha: Share = 0.9,
    scale: Literal["norm", "layernorm", "teacher_std"] = "norm",
    l_avg: Positive | None = None,
):
    """Distils the direction of a teacher's logits into a student.

    Args:
        task_model: the teacher, `TaskModel`.
        student, num_layers, layers: what the student starts from, as in `soft_targets`.
        temperature: T. alpha: share of the soft targets against the labels.
        scale: which of the three. Two labels allow "norm" alone.
        l_avg: norm (for "layernorm": standard deviation) of all logits; None: the teacher's mean on train.
            The history holds what was used.
    Returns:
        `TaskModel` of the teacher's task.
    """
    if scale != "norm" and len(task_model.labels) < 3:
        raise ValueError(
            "Two labels need the scale norm: two centred logits of one length keep nothing but their sign, so "
            f'that no gradient is left. Received: {scale!r}. Take scale="norm".'
        )
    if scale == "teacher_std" and l_avg:
        raise ValueError(
            f"The scale teacher_std is the teacher's, text by text. Received: l_avg = {l_avg}. Leave it out."
        )
    depth = num_layers or (student or task_model).config.num_layers
    kept = range(depth) if student else select_layers(task_model.config.num_layers, depth, layers)
    note(layers=None if student else kept)
    small = start_student(task_model, student, kept, seed)
    if scale != "teacher_std":
        l_avg = l_avg or mean_norm(task_model, dataset, training, scale)
    losses = spherical_losses(temperature, alpha, scale, l_avg)
    distill(task_model, small, dataset, losses, training=training, seed=seed)
    # Not before: another machine's last digit would make checkpoints another run's.
    note(l_avg=l_avg)
    return small
