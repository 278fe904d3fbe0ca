"""The engine of all distillation: a frozen teacher, a student, and an objective between their named outputs.

    teacher ─> named outputs ─┐
    student ─> named outputs ─┼─> objective ─> {"name": loss} ─> weighted sum ─> the student's update
    labels, mask ─────────────┘

A method chooses the outputs, writes the objective, and starts a student; nothing else here knows about papers.
Outputs are named as in a `TaskModel`, with a place where there are several: "logits", "pooled", "hidden_states/3" (0 is
the embeddings' output), "hidden_states/3/cls" (its [CLS] vector), "attention_scores/0" (layer 0).

Equation map
    Hinton et al., 2015, arXiv:1503.02531, Sec. 2      softmax(z / T); the soft term scaled by T^2     soft_target_loss
Departures
    Losses over tokens are means over real tokens: padding counts nowhere.
    No mean squared error of logits, which is what the soft term tends to for large T (lesson 02 shows it).
"""

import logging
import math

from keras_compress.backend import keras, tf
from keras_compress.bert.checkpoints import load_for, with_head
from keras_compress.training.loop import (
    adamw,
    check_length,
    check_not_quantized,
    check_trained,
    finetune,
    fit,
    stream,
)
from keras_compress.training.settings import check_choice
from keras_compress.training.teacher_cache import cache_outputs

log = logging.getLogger(__name__)
KINDS = ("kl", "ce")


class Distiller(keras.Model):
    """Trains a student to agree with a teacher.

    Args:
        teacher: callable, the teacher's side of a batch -> dict of its outputs. It is not tracked: no checkpoint holds
            it, no optimizer sees it.
        student: `keras.Model`, inputs -> dict of its outputs.
        objective: (teacher outputs, student outputs, labels, mask) -> dict of scalar losses; mask int32 (batch, seq) is
            the student's.
        weights: {name of a loss: its factor}; those and no others are added up.
        projections: layers that the objective uses and that train with the student.
    """

    def __init__(self, teacher, student, objective, weights, projections=()):
        super().__init__()
        self.student, self.projections = student, list(projections)
        self._teacher, self._objective, self._weights = teacher, objective, dict(weights)
        self.means = {name: keras.metrics.Mean(name=name) for name in ("loss", *weights)}

    @property
    def metrics(self):
        return list(self.means.values())

    def call(self, inputs, training=None):
        return self.student(inputs["student"], training=training)

    def train_step(self, data):
        inputs, labels = data
        teacher = {
            name: tf.stop_gradient(value)
            for name, value in self._teacher(inputs["teacher"]).items()
        }
        with tf.GradientTape() as tape:
            student = self.student(inputs["student"], training=True)
            losses = self._objective(teacher, student, labels, inputs["student"]["input_mask"])
            loss = tf.add_n([factor * losses[name] for name, factor in self._weights.items()])
            share = loss / tf.distribute.get_strategy().num_replicas_in_sync
        self.optimizer.minimize(share, self.trainable_variables, tape=tape)
        for name, value in {"loss": loss, **{name: losses[name] for name in self._weights}}.items():
            self.means[name].update_state(value)
        return {name: mean.result() for name, mean in self.means.items()}


def distill(
    teacher,
    student,
    dataset,
    objective,
    weights,
    *,
    teacher_outputs,
    student_outputs,
    training,
    seed,
    stage,
    num_steps,
    first_step=0,
    projections=(),
    batches=None,
    measure=None,
):
    """Trains a student in place.

    Args:
        teacher, student: `TaskModel`s; the teacher stays as it is.
        objective, weights, projections: see `Distiller`.
        teacher_outputs, student_outputs: names of the outputs that the objective compares, or a `keras.Model` on the
            layers of the one or the other that returns them.
        training, seed, stage, num_steps, measure: see `training.fit`. With `training.cache_teacher` the teacher runs
            once per text that is read (see cache.py).
        first_step: batches that an earlier stage has seen; this one goes on after them.
        batches: (first, last) -> tf.data of (student's inputs, labels), if the training texts are changed on the way;
            both models then read the same ids, so that they need one vocabulary.
    Returns:
        The curve, as of `training.fit`.
    """
    same = same_pieces(teacher, student)
    check_length(teacher, training)
    if not same:
        unknown = dataset.unknown_rate(student.tokenizer, "train", training.max_length)
        log.log(
            logging.WARNING if unknown > 0.1 else logging.INFO,
            "the student's vocabulary is another one than the "
            "teacher's; %.1f %% of the pieces of its training texts are unknown to it",
            100 * unknown,
        )
    if batches and training.cache_teacher:
        raise ValueError(
            "`cache_teacher` needs the same texts in every epoch. Received: texts that are masked anew. "
            "Leave it out."
        )
    cached = None
    with training.scope():
        frozen, learning = (
            names if isinstance(names, keras.Model) else outputs(model, names)
            for model, names in ((teacher, teacher_outputs), (student, student_outputs))
        )
        model = Distiller(
            lambda inputs: inputs if training.cache_teacher else frozen(inputs, training=False),
            learning,
            objective,
            weights,
            projections,
        )
        model.compile(adamw(training, num_steps), jit_compile=False)
    batches = batches or (
        lambda first, last: stream(dataset, student.tokenizer, training, seed, first, last)
    )

    def paired(first, last):
        nonlocal cached
        first, last = first + first_step, last + first_step
        ours = batches(first, last)
        if (
            training.cache_teacher
        ):  # a finished stage asks for no batches; a resumed one makes the same
            cached = cached or cache_outputs(
                frozen,
                dataset,
                teacher.tokenizer,
                student.tokenizer,
                training,
                seed,
                first_step,
                first_step + num_steps,
            )
            theirs = cached(first, last)
        elif same:
            return ours.map(lambda inputs, labels: ({"student": inputs, "teacher": inputs}, labels))
        else:
            theirs = stream(
                dataset, teacher.tokenizer, training, seed, first, last, order_by=student.tokenizer
            ).map(lambda inputs, labels: inputs)
        return tf.data.Dataset.zip((ours, theirs)).map(
            lambda batch, theirs: ({"student": batch[0], "teacher": theirs}, batch[1])
        )

    return fit(
        model,
        student,
        dataset,
        training.replace(cache_teacher=False),
        seed=seed,
        stage=stage,
        num_steps=num_steps,
        batches=paired,
        measure=measure,
        asked=[teacher.history, student.history[-1:], weights, first_step],
    )


def recovered(teacher, student, dataset, recover, temperature, *, seed, training):
    """Trains a compressed model until it has won back what it can.

    Args:
        teacher: `TaskModel`, the original. student: `TaskModel` made of it in `training.scope()` with `seed`; trained in
            place.
        recover: "distil": learn from the labels and, as much, from the original's answers at `temperature`; "finetune":
            from the labels alone; "none": not at all.
    Returns:
        `TaskModel`.
    """
    if recover == "finetune":
        return finetune(student, dataset, seed=seed, training=training, in_place=True)
    if recover == "distil":
        check_pair(teacher, student)

        def objective(teacher, student, labels, mask):
            return {
                "soft": soft_target_loss(
                    teacher["logits"], student["logits"], temperature, mask=labels >= 0
                ),
                "label": label_loss(labels, student["logits"]),
            }

        num_steps = training.num_steps(len(dataset.train.texts))
        student.history.append(
            {
                "method": "distill",
                "seed": seed,
                "num_steps": num_steps,
                "temperature": temperature,
                "training": training.settings(),
            }
        )
        student.curve += distill(
            teacher,
            student,
            dataset,
            objective,
            {"soft": 0.5, "label": 0.5},
            training=training,
            teacher_outputs=["logits"],
            student_outputs=["logits"],
            seed=seed,
            stage="distill",
            num_steps=num_steps,
        )
    return student


def check_recovery(teacher, recover, temperature):
    """Raises ValueError unless a model can be `recovered` so; to be called before it is compressed."""
    check_choice("recover", recover, ("distil", "finetune", "none"))
    if recover == "distil":
        check_soft_targets(temperature)
        check_trained(teacher)


def outputs(task_model, names):
    """A `keras.Model` with a task model's weights that returns a flat dict of named outputs.

    Raises:
        ValueError: if the model has no such output.
    """
    found = task_model.features(sorted({name.split("/")[0] for name in names}))
    tensors = {}
    for name in names:
        kind, *place = name.split("/")
        tensor = found.output[kind]
        if place and not int(place[0]) < len(tensor):
            raise ValueError(f"A place of `{kind}` must be below {len(tensor)}. Received: {name}.")
        tensor = tensor[int(place[0])] if place else tensor
        tensors[name] = tensor[:, 0] if place[1:] == ["cls"] else tensor
    return keras.Model(found.input, tensors)


def same_pieces(teacher, student):
    """Whether both models cut a text into the same pieces."""
    return all(
        getattr(teacher.tokenizer, name) == getattr(student.tokenizer, name)
        for name in ("vocab", "lowercase")
    )


def start_student(teacher, student, layers, seed):
    """The model that a student starts from.

    Args:
        teacher: `TaskModel`.
        student: None: the teacher's own `layers`, with its embeddings and head. Else a `TaskModel` or a source of
            weights (see `bert.weights.load`), which gets a head for the teacher's task; of a BERT with more layers the
            bottom ones are kept.
        layers: list of the teacher's layers, as many as the student has.
    Returns:
        `TaskModel` of its own, with the teacher's task and labels.
    Raises:
        ValueError: if `student` has fewer layers.
    """
    if student is None:
        return teacher.keep_layers(layers, seed=seed)
    if not hasattr(student, "tokenizer"):  # the head of a saved model may be for other labels
        student = load_for(student, teacher.task, teacher.labels, seed=seed)
    student = with_head(student, teacher.task, teacher.labels, seed=seed)
    depth = student.config.num_layers
    if student.config.architecture != "bert" or depth == len(
        layers
    ):  # shared layers go on sharing their weights
        return student
    if depth < len(layers):
        raise ValueError(
            f"`student` must have `num_layers` layers or more. Received: {depth} and {len(layers)}. Set "
            f"num_layers={depth}, or give a deeper one."
        )
    log.warning(
        "warning: of the %d layers of `student` the bottom %d are kept, as `num_layers` asks for",
        depth,
        len(layers),
    )
    return student.keep_layers(range(len(layers)), seed=seed)


def soft_target_loss(
    teacher_logits, student_logits, temperature=1.0, kind="kl", reduction="batchmean", mask=None
):
    """How far the student's answers are from the teacher's, softened by a temperature.

    Args:
        teacher_logits, student_logits: float, (..., classes). The teacher's receive no gradient.
        temperature: positive float T.
        kind: "kl": T^2 KL(teacher || student); "ce": T^2 cross-entropy, which is the same but for the teacher's
            entropy.
        reduction: "batchmean": mean over examples; "mean": also over the classes, as some authors' code has it.
        mask: bool, (...): examples (tokens) that count; None = all.
    Returns:
        float scalar, in nats.
    Raises:
        ValueError: if `temperature` is not positive or a name is unknown.
    """
    check_soft_targets(temperature, kind, reduction)
    teacher, student = tf.stop_gradient(teacher_logits) / temperature, student_logits / temperature
    values = -(temperature**2) * tf.reduce_sum(
        tf.nn.softmax(teacher) * tf.nn.log_softmax(student), axis=-1
    )
    if kind == "kl":
        values += temperature**2 * tf.reduce_sum(
            tf.nn.softmax(teacher) * tf.nn.log_softmax(teacher), axis=-1
        )
    value = masked_mean(values, mask)
    return value / student_logits.shape[-1] if reduction == "mean" else value


def check_soft_targets(temperature, kind="kl", reduction="batchmean"):
    """Raises ValueError unless `soft_target_loss` can be computed so; to be called before training."""
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"`temperature` must be positive. Received: {temperature}.")
    check_choice("kind", kind, KINDS)
    if reduction not in ("batchmean", "mean"):
        raise ValueError(
            f"The reduction of the soft targets must be batchmean or mean. Received: {reduction!r}."
        )


def label_loss(labels, logits):
    """Cross-entropy with the true labels in nats, mean over those that are not -1. (...), (..., classes) -> scalar."""
    values = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    return masked_mean(values, labels >= 0)


def cosine_loss(teacher, student, mask=None):
    """1 - cosine of the angle between vectors, mean over those that count. (..., hidden) twice -> scalar in [0, 2]."""
    cosine = tf.reduce_sum(
        tf.math.l2_normalize(teacher, -1) * tf.math.l2_normalize(student, -1), axis=-1
    )
    return masked_mean(1.0 - cosine, mask)


def masked_mean(values, mask=None):
    """Mean of the values where `mask` is not 0, 0 if there are none. (...) and None or (...) -> scalar.

    On several devices their values are to be averaged: each one's sum is divided by the mean of their counts.
    """
    mask = tf.ones_like(values) if mask is None else tf.cast(mask, values.dtype)
    count = tf.distribute.get_replica_context().all_reduce("mean", tf.reduce_sum(mask))
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(mask > 0, values, 0.0)), count)


def check_pair(teacher, student, *, inside=False, same_hidden=False, same_heads=False):
    """Raises ValueError unless a method can compare what the two models say.

    Args:
        inside: hidden states are compared, token by token.
        same_hidden: hidden states are compared as they are. same_heads: attention maps are compared head by head.
    """
    for model in (teacher, student):
        check_not_quantized(model)
    if (teacher.task, teacher.labels) != (student.task, student.labels):
        raise ValueError(
            "Teacher and student must have one task and the same labels. Received: "
            f"{teacher.task} {list(teacher.labels)[:8]} and {student.task} {list(student.labels)[:8]}."
        )
    ours, theirs = student.config, teacher.config
    inside = inside or same_hidden or same_heads
    if inside and (ours.architecture, theirs.architecture) != ("bert", "bert"):
        raise ValueError(
            "Hidden states and attention can be compared between two BERTs only. Received: "
            f"{theirs.architecture} and {ours.architecture}. Take losses on the logits alone (distilbert "
            "with cosine_weight=0)."
        )
    if (inside or teacher.task in ("tagging", "mlm")) and not same_pieces(teacher, student):
        raise ValueError(
            "Tokens can be compared one by one only if both models cut texts alike. Received: "
            f"{len(teacher.tokenizer.vocab)} and {len(student.tokenizer.vocab)} pieces, lowercase "
            f"{teacher.tokenizer.lowercase} and {student.tokenizer.lowercase}. For whole texts losses on "
            "the logits alone will do (distilbert with cosine_weight=0)."
        )
    if same_hidden and ours.hidden_size != theirs.hidden_size:
        raise ValueError(
            "`hidden_size` of teacher and student must be equal for this method. Received: "
            f"{theirs.hidden_size} and {ours.hidden_size}. Choose tinybert, which learns a projection."
        )
    if same_heads and ours.num_heads != theirs.num_heads:
        raise ValueError(
            "`num_heads` of teacher and student must be equal, since attention is compared head by head. "
            f"Received: {theirs.num_heads} and {ours.num_heads}. Leave out the attention loss, or choose "
            f"{theirs.num_heads} heads."
        )
