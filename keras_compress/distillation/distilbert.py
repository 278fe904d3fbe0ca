"""DistilBERT: soft targets, labels, and the direction of hidden states. Sanh et al., 2019, arXiv:1910.01108.

The student has the teacher's width and some of its layers, which it starts from; token types and pooler
are gone. Two uses: on a task (`compress`: labels, a fine-tuned teacher) and in general
(`distilbert_general`: unlabelled text, a masked-LM teacher; the result is then fine-tuned).

Equation map
    Sec. 2   distillation loss, T^2 KL(softmax(z_T / T) || softmax(z_S / T))   soft_label_loss (losses.py)
    Sec. 2   masked-LM loss; on a task the cross-entropy with its labels       label_loss (losses.py)
    Sec. 2   cosine loss, 1 - cos(h_S, h_T) of the last hidden states          cosine_loss (losses.py)
    Sec. 2   initialisation: one layer out of two              "distilbert" of select_layers (layer_maps.py)
    Sec. 2   architecture: no token types, no pooler                           without_token_types
Departures
    The paper writes the soft term as cross-entropy; the authors' code has KL, whose gradient is the same.
    Their layers are 0, 2, 4, 7, 9, 11 of 12, not every second layer. We follow the code in both.
    The vector of segment 0, which BERT adds to every single text, goes into the position embeddings; the
    authors lose it.
    Masked pieces are drawn evenly and each on its own; the authors favour rare pieces and draw exactly 15 %.
    On a task the weights are the general stage's 5, 2, 1; the authors' script has .5, .5 and no cosine
    loss. In general they use betas (.9, .98), no weight decay and clip at 5.
"""

from typing import Literal

from keras_compress.backend import tf
from keras_compress.bert.layer_maps import select_layers
from keras_compress.bert.task_model import TaskModel
from keras_compress.method import Count, NotNegative, Positive, compression, note
from keras_compress.pretraining.masked_lm import choosing_model, masked_accuracy, masked_stream
from keras_compress.training.distill import distill, start_student
from keras_compress.training.losses import (
    cosine_loss,
    label_loss,
    masked_mean,
    soft_label_loss,
    soft_targets,
    true_labels,
)
from keras_compress.training.settings import Training


def without_token_types(task_model, *, seed=0):
    """The same model without token types and pooler; single texts keep their hidden states.

    Returns:
        `TaskModel`: the vector of segment 0 is part of the position embeddings, a head reads [CLS]
        (or the mean) itself.
    """
    weights, config = task_model.weights(), task_model.config
    if not config.type_vocab_size:
        return task_model
    positions = "position_embeddings/embeddings"
    weights[positions] = weights[positions] + weights["type_embeddings/embeddings"][0]
    pooling = "cls" if config.pooling == "pooler" else config.pooling
    config = config.replace(type_vocab_size=0, pooling=pooling)
    return task_model.rebuilt(config, weights, seed=seed)


def make_student(task_model, num_layers, layers, student, seed):
    """The student: `layers` of the teacher without token types, or the given model."""
    kept = select_layers(task_model.config.num_layers, num_layers, layers)
    note(layers=None if student else kept)
    small = start_student(task_model, student, kept, seed)
    if small.config.num_layers != num_layers:  # of a BiLSTM no layers are taken away
        raise ValueError(
            f"`num_layers` must be what `student` has. Received: {num_layers}. Set "
            f"num_layers={small.config.num_layers}."
        )
    return small if student else without_token_types(small, seed=seed)


def cosine(teacher_output, student_output):
    """1 - cos(h_S, h_T) of the last hidden states, mean over real tokens, as a loss of `distill`."""
    return lambda T, S, labels, mask: masked_mean(
        cosine_loss(T[teacher_output], S[student_output]), mask
    )


@compression()
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count = 3,
    layers: str | list[int] = "distilbert",
    student: TaskModel | str | None = None,
    temperature: Positive = 2.0,
    soft_weight: NotNegative = 5.0,
    label_weight: NotNegative = 2.0,
    cosine_weight: NotNegative = 1.0,
):
    """Distils a fine-tuned teacher into a student of fewer layers.

    Args:
        task_model: the teacher, `TaskModel`.
        num_layers: layers of the student. layers: which of the teacher's it starts from, see `select_layers`.
        student: start from this `TaskModel` or source of weights instead of `layers`; with
            `cosine_weight` = 0 any model of the task will do, a BiLSTM too.
        temperature: T of the soft targets.
        soft_weight, label_weight, cosine_weight: factors of the three losses; 0 leaves a loss out.
    Returns:
        `TaskModel` of the teacher's task.
    """
    last = ("hidden_states", task_model.config.num_layers), ("hidden_states", num_layers)
    losses = {
        "soft": (soft_weight, soft_targets(temperature)),
        "label": (label_weight, true_labels),
        "cosine": (cosine_weight, cosine(*last)),
    }
    small = make_student(task_model, num_layers, layers, student, seed)
    return distill(task_model, small, dataset, losses, training=training, seed=seed)


@compression(data="unlabelled")
def distilbert_general(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count = 3,
    layers: str | list[int] = "distilbert",
    student: TaskModel | str | None = None,
    temperature: Positive = 2.0,
    soft_weight: NotNegative = 5.0,
    label_weight: NotNegative = 2.0,
    cosine_weight: NotNegative = 1.0,
    tokens: Literal["all", "masked"] = "all",
    whole_word: bool = False,
):
    """DistilBERT's general stage: distils a masked-LM teacher on unlabelled text.

    Args:
        task_model: the teacher, a `TaskModel` of task "mlm". The other settings are those of `distilbert`.
        tokens: soft targets of "all" tokens, as in the paper, or only of the "masked" tokens, which is
            several times as fast. whole_word: mask words as a whole.
    Returns:
        `TaskModel` of task "mlm".
    """
    if task_model.task != "mlm":
        raise ValueError(
            f"On unlabelled text the teacher must be a masked-LM model. Received: a {task_model.task} model. "
            "Train its head with the method masked_lm."
        )
    small = make_student(task_model, num_layers, layers, student, seed)
    masked = masked_stream(dataset, task_model.tokenizer, training, seed, whole_word=whole_word)

    def scored(labels, mask):  # labels: the true pieces where masked, else -1
        return labels >= 0 if tokens == "masked" else mask > 0

    def choose(inputs, labels):
        chosen = tf.cast(scored(labels, inputs["input_mask"]), tf.int32)
        return {**inputs, "targets": chosen - 1}, labels

    def soft(T, S, labels, mask):
        return masked_mean(soft_label_loss(T["logits"], S["logits"], temperature))

    def label(T, S, labels, mask):
        return label_loss(tf.boolean_mask(labels, scored(labels, mask)), S["logits"])

    losses = {
        "soft": (soft_weight, soft),
        "label": (label_weight, label),
        "cosine": (cosine_weight, cosine("hidden", "hidden")),
    }
    return distill(
        task_model,
        small,
        dataset,
        losses,
        training=training,
        seed=seed,
        outputs=lambda model, names: choosing_model(model),
        batches=lambda first, last: masked(first, last).map(choose),
        measure=lambda: masked_accuracy(small, dataset, training),
    )
