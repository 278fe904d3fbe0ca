"""Patient KD (PKD): soft targets, and the [CLS] vectors of several layers. Sun et al., 2019, arXiv:1908.09355.

The student has the teacher's width and its first layers. It learns from the labels, from the teacher's
answers, and from the [CLS] vectors of the teacher's inner layers.

Equation map
    L_DS    T^2 KL(softmax(z_T / T) || softmax(z_S / T))                      soft_label_loss (losses.py)
    L_PT    sum over layers || h_S / ||h_S|| - h_T / ||h_T|| ||_2^2 of [CLS]  patience_loss
    L       (1 - alpha) L_CE + alpha L_DS + beta L_PT                         compress
    PT-Skip I(j) = j N / k;  PT-Last I(j) = N - k + j;  j = 1 .. k - 1        patient_layers
Departures
    L_PT is the mean over texts, layers and dimensions, as in the authors' code, to which their values of
    beta belong; reduction="sum" is the paper's (then divide beta by layers x width). L_DS is a mean
    over texts; the authors' code also divides by the number of classes: soft_reduction="mean".
    Texts are shuffled and the teacher runs beside the student; the authors read stored outputs in a fixed order.
    The student starts from the fine-tuned teacher's own first layers; for the paper's start give
    `student` the pre-trained weights ("minilm").
    The authors' script has other defaults: alpha .95, T 10, beta 0, no normalisation, 4 epochs of batch 16.
"""

from typing import Literal

from keras_compress.backend import tf
from keras_compress.bert.layer_maps import check_multiple, rising_layers
from keras_compress.bert.task_model import TaskModel
from keras_compress.method import Count, NotNegative, Positive, Share, compression, note
from keras_compress.training.distill import distill, start_student
from keras_compress.training.losses import masked_mean, soft_targets, true_labels
from keras_compress.training.settings import Training


def patient_layers(num_layers, num_student_layers, layer_map="skip"):
    """The teacher's layers that the student's layers 1 .. k - 1 learn from, counted from 1: I(j).

    Raises:
        ValueError: if a list has another length or order, or "skip" does not divide evenly.
    """
    n, k = num_layers, num_student_layers
    if not 2 <= k <= n:
        raise ValueError(
            f"`num_layers` must be 2 to {n}: the last layer learns from the answers alone. Received: {k}."
        )
    if layer_map == "skip":
        check_multiple(n, k, 'the map "skip"', 'take "last" or a list', least=2)
        return [j * n // k for j in range(1, k)]
    if layer_map == "last":
        return [n - k + j for j in range(1, k)]
    return rising_layers("The layers of `layer_map`", layer_map, k - 1, 1, n)


def patience_loss(teacher, student, normalize=True, reduction="mean"):
    """L_PT: squared distance of the [CLS] vectors, each scaled to length 1.

    Args:
        teacher, student: lists of float (batch, hidden), one per layer.
        reduction: "mean" over texts, layers and dimensions; "sum" over layers and dimensions, mean over texts.
    Returns:
        float scalar.
    """
    h_T, h_S = tf.stack(teacher, axis=1), tf.stack(student, axis=1)  # (batch, layers, hidden)
    if normalize:
        h_T, h_S = (tf.math.l2_normalize(h, axis=-1, epsilon=1e-12) for h in (h_T, h_S))
    squares = tf.square(h_S - h_T)
    return masked_mean(squares if reduction == "mean" else tf.reduce_sum(squares, axis=(1, 2)))


@compression(bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count = 3,
    layer_map: Literal["skip", "last"] | list[int] = "skip",
    student: TaskModel | str | None = None,
    alpha: Share = 0.5,
    beta: NotNegative = 100.0,
    temperature: Positive = 5.0,
    normalize: bool = True,
    reduction: Literal["mean", "sum"] = "mean",
    soft_reduction: Literal["batchmean", "mean"] = "batchmean",
):
    """Distils a fine-tuned teacher into its first layers.

    Args:
        task_model: the teacher, `TaskModel`.
        num_layers: layers k of the student.
        layer_map: "skip", "last", or a list of k - 1 of the teacher's layers, from 1, rising.
        student: start from this instead of the teacher's own layers; "minilm" is the paper's way.
        alpha: share of the soft targets against the labels. beta: factor of L_PT. temperature: T.
        normalize: scale [CLS] vectors to length 1. reduction: of L_PT. soft_reduction: of L_DS.
    Returns:
        `TaskModel` of `num_layers` layers.
    """
    learned_from = patient_layers(task_model.config.num_layers, num_layers, layer_map)
    note(learned_from=learned_from)

    def soft(T, S, labels, mask):
        value = soft_targets(temperature)(T, S, labels, mask)
        return value / len(task_model.labels) if soft_reduction == "mean" else value

    def patience(T, S, labels, mask):
        teacher = [T["hidden_states", layer, "cls"] for layer in learned_from]
        student = [S["hidden_states", layer, "cls"] for layer in range(1, num_layers)]
        return patience_loss(teacher, student, normalize, reduction)

    return distill(
        task_model,
        start_student(task_model, student, range(num_layers), seed),
        dataset,
        # L = (1 - alpha) L_CE + alpha L_DS + beta L_PT
        {"label": (1.0 - alpha, true_labels), "soft": (alpha, soft), "patience": (beta, patience)},
        training=training,
        seed=seed,
    )
