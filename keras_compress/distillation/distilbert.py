"""DistilBERT: soft targets, labels, and the direction of hidden states. Sanh et al., 2019, arXiv:1910.01108.

The student has the teacher's width and some of its layers, which it starts from; token types and pooler are gone. Two
uses: general (unlabelled text and a masked-LM teacher; the result is then fine-tuned) and on a task (labels and a
fine-tuned teacher). On a task any student will do, a BiLSTM also, with `cosine_weight` = 0.

Equation map
    Sec. 2   distillation loss, T^2 KL(softmax(z_T / T) || softmax(z_S / T))     soft_target_loss (distiller.py)
    Sec. 2   masked-LM loss; on a task the cross-entropy with its labels         label_loss (distiller.py)
    Sec. 2   cosine loss, 1 - cos(h_S, h_T) of the last hidden states            cosine_loss (distiller.py)
    Sec. 2   initialisation: one layer out of two                "distilbert" of select_layers (bert/selection.py)
    Sec. 2   architecture: no token types, no pooler                             without_token_types
Departures
    The paper writes the soft term as cross-entropy; the authors' code has KL, whose gradient is the same. Their layers
    are 0, 2, 4, 7, 9, 11 of 12, not every second one. We follow the code in both.
    The vector of segment 0, which BERT adds to every single text, goes into the position table; the authors lose it.
    Masked pieces are drawn evenly; the authors favour rare ones.
"""

import math

from keras_compress.backend import tf
from keras_compress.bert.layer_maps import select_layers
from keras_compress.pretraining.masked_lm import choosing_model, masked_accuracy, masked_stream
from keras_compress.training.distill import (
    check_pair,
    check_soft_targets,
    cosine_loss,
    distill,
    label_loss,
    soft_target_loss,
    start_student,
)
from keras_compress.training.loop import check_fit, check_trained
from keras_compress.training.settings import Training, check_choice


def without_token_types(task_model, *, seed=0):
    """The same model without token types and pooler; for texts of one segment its hidden states are the same.

    Returns:
        `TaskModel`: the vector of segment 0 is part of the position table, a head reads [CLS] (or the mean) itself.
    """
    weights, config = task_model.weights(), task_model.config
    weights["position_embeddings/embeddings"] = (
        weights["position_embeddings/embeddings"] + weights["type_embeddings/embeddings"][0]
    )
    config = config.replace(
        type_vocab_size=0, pooling="cls" if config.pooling == "pooler" else config.pooling
    )
    small = task_model.rebuilt(config, weights, seed=seed)
    small.history.append({"method": "without_token_types"})
    return small


def check_layers(depth, *, num_layers=3, layers="distilbert", **_):
    """How many layers the student has. Raises ValueError if a teacher of `depth` layers cannot give them."""
    return len(select_layers(depth, num_layers, layers))


def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers=3,
    layers="distilbert",
    student=None,
    temperature=2.0,
    soft_weight=5.0,
    label_weight=2.0,
    cosine_weight=1.0,
    tokens="all",
    whole_word=False,
):
    """Distils a teacher into a student of fewer layers.

    Args:
        task_model: the teacher: a `TaskModel` of the data's task, or of task "mlm" if they are unlabelled.
        num_layers: layers of the student. layers: which of the teacher's it starts from, see `select_layers`.
        student: start from this instead of `layers`: a `TaskModel` or a source of weights (see `start_student`).
        temperature: T of the soft targets.
        soft_weight, label_weight, cosine_weight: factors of the three losses; 0 leaves one out.
        tokens: on unlabelled text the soft targets of "all" tokens, as in the paper, or only of the "masked" ones,
            which is several times as fast. whole_word: mask words as a whole.
    Returns:
        `TaskModel`, of the teacher's task.
    Raises:
        ValueError: if teacher, student and data do not fit, or a setting is unknown.
    """
    general = dataset.task == "unlabelled"
    if general and task_model.task != "mlm":
        raise ValueError(
            "On unlabelled text the teacher must be a masked-LM model. Received: a "
            f"{task_model.task} model. Train its head with the method masked_lm."
        )
    if not general:
        check_fit(task_model, dataset)
    check_choice("tokens", tokens, ("all", "masked"))
    if not general and (tokens, whole_word) != ("all", False):
        raise ValueError(
            "`tokens` and `whole_word` are for unlabelled text. "
            f"Received: {tokens!r} and {whole_word} with {dataset.task} data. Leave them out."
        )
    if student is not None and layers != "distilbert":
        raise ValueError(
            "Either `layers` or `student` says what the student starts from. "
            f"Received: {layers!r} and a student. Leave one out."
        )
    weights = {"soft": soft_weight, "label": label_weight, "cosine": cosine_weight}
    weights = {name: value for name, value in weights.items() if value}
    if not weights or not all(0 < value < math.inf for value in weights.values()):
        raise ValueError(
            "`soft_weight`, `label_weight` and `cosine_weight` must be 0 or more, one of them positive. "
            f"Received: {soft_weight}, {label_weight}, {cosine_weight}."
        )
    check_soft_targets(temperature)
    check_trained(task_model)
    kept = select_layers(task_model.config.num_layers, num_layers, layers)
    with training.scope():
        small = start_student(task_model, student, kept, seed)
        if student is None and small.config.type_vocab_size:
            small = without_token_types(small, seed=seed)
    check_pair(task_model, small, same_hidden="cosine" in weights)
    if small.config.num_layers != num_layers:
        raise ValueError(
            f"`num_layers` must be what `student` has. Received: {num_layers} for a "
            f"{small.config.architecture} of {small.config.num_layers}. Set num_layers="
            f"{small.config.num_layers}."
        )
    small.history.append(
        {
            "method": "distilbert",
            "seed": seed,
            "num_layers": num_layers,
            "layers": kept if student is None else None,
            "student": getattr(student, "history", student and str(student)),
            "temperature": temperature,
            "weights": weights,
            "tokens": tokens if general else None,
            "whole_word": whole_word,
            "training": training.settings(),
        }
    )
    settings = {
        "training": training,
        "seed": seed,
        "num_steps": training.num_steps(len(dataset.train.texts)),
    }

    def soft(teacher, student, which):
        return soft_target_loss(teacher, student, temperature, mask=which)

    def on_a_task(teacher, student, labels, mask):
        losses = {
            "soft": soft(teacher["logits"], student["logits"], labels >= 0),
            "label": label_loss(labels, student["logits"]),
        }
        if "cosine" in weights:
            losses["cosine"] = cosine_loss(teacher[last_of_teacher], student[last_of_student], mask)
        return losses

    def in_general(teacher, student, labels, mask):  # labels: the true pieces where masked, else -1
        scored = tf.boolean_mask(labels, labels >= 0 if tokens == "masked" else mask > 0)
        losses = {
            "soft": soft(teacher["logits"], student["logits"], None),
            "label": label_loss(scored, student["logits"]),
        }
        if "cosine" in weights:
            losses["cosine"] = cosine_loss(teacher["hidden"], student["hidden"], mask)
        return losses

    if general:
        masked = masked_stream(dataset, task_model.tokenizer, training, seed, whole_word=whole_word)

        def batches(first, last):
            return masked(first, last).map(
                lambda inputs, targets: (
                    {
                        **inputs,
                        "targets": targets if tokens == "masked" else inputs["input_mask"] - 1,
                    },
                    targets,
                )
            )

        curve = distill(
            task_model,
            small,
            dataset,
            in_general,
            weights,
            teacher_outputs=choosing_model(task_model),
            student_outputs=choosing_model(small),
            stage="distill",
            batches=batches,
            measure=lambda: masked_accuracy(small, dataset, training),
            **settings,
        )
    else:
        last_of_teacher, last_of_student = (
            f"hidden_states/{m.config.num_layers}" for m in (task_model, small)
        )
        inside = "cosine" in weights
        curve = distill(
            task_model,
            small,
            dataset,
            on_a_task,
            weights,
            stage="distill",
            teacher_outputs=["logits"] + [last_of_teacher] * inside,
            student_outputs=["logits"] + [last_of_student] * inside,
            **settings,
        )
    small.curve += curve
    return small
