"""FastBERT: exits after the layers learn the last layer's answers; sure texts leave early. Liu et al., 2020, arXiv:2004.02178.

The model's own last classifier is the teacher, classifiers after the layers below are the students (self-distillation).
Everything but the students is frozen. No labels are needed: any text will do. How layers are skipped, the question that
Keras makes hard, is told in bert/early_exit.py.

Equation map
    Sec. 3.1   classifier: Dense 128, self-attention, Dense                       branch (bert/branch.py)
    Sec. 3.2   fine-tuning of backbone and teacher classifier                     fastbert_teacher
    Eq. 5      D_KL(p_s, p_t) = sum_i p_s(i) log(p_s(i) / p_t(i))                 divergence
               authors' code: D_KL(p_t, p_s), the default                         soft_label_loss (losses.py)
    Eq. 6      Loss = sum over the L - 1 exits of D_KL                            compress
    Eq. 7      Uncertainty = sum_i p_s(i) log p_s(i) / log(1/N)                   uncertainty (bert/early_exit.py)
    Sec. 3.3   leave at the first layer with Uncertainty <= Speed                 sweep, `TaskModel.predict`
    README     floating point operations, 21,785,247,744 of the baseline          flops (measure/cost.py)
Departures
    The teacher is the classifier that a fine-tuned model has. The paper's, a branch after the last layer, is made by
    `fastbert_teacher`; both methods in a chain are the paper's procedure.
    The backbone runs without dropout while exits learn; in the authors' code its dropout is on.
    The learning rate reaches 0 at the last update. Theirs follows a schedule of 3 epochs, so that of 10 epochs of
    distillation all after the third have rate 0.
    Gradients are clipped, and AdamW corrects its bias; theirs does neither. A text ends with [SEP], theirs only in pairs.
    What is followed on dev is how often exits answer as the last layer does, since text may have no labels.
    Speed is chosen on dev: the paper tries three values.
The paper finds self-distilled exits better than exits trained on labels; a user of the authors' code saw the opposite
with two classes (autoliuweijie/FastBERT, issue 4).
"""

import logging
from typing import Literal

import numpy as np

from keras_compress.backend import tf
from keras_compress.bert.config import Exits
from keras_compress.bert.early_exit import uncertainty
from keras_compress.bert.tasks import encoding
from keras_compress.measure.cost import flops
from keras_compress.method import Share, check_fit, compression, note
from keras_compress.training.distill import distill
from keras_compress.training.finetune import tune
from keras_compress.training.losses import masked_mean, soft_label_loss
from keras_compress.training.settings import Training

SPEEDS = [speed / 100 for speed in range(101)]

log = logging.getLogger(__name__)


def divergence(student_logits, teacher_logits):
    """D_KL(p_s, p_t) in nats, the paper's direction. (batch, classes) twice -> (batch,)."""
    log_s, log_t = tf.nn.log_softmax(student_logits), tf.nn.log_softmax(teacher_logits)
    # sum_i p_s(i) log(p_s(i) / p_t(i))
    return tf.reduce_sum(tf.exp(log_s) * (log_s - log_t), axis=-1)


def all_logits(task_model, texts, max_length):
    """Logits of each exit, then of the last layer; nothing is skipped. float32 (texts, exits + 1, classes)."""
    whole = task_model.features(["exit_logits", "logits"])

    def run(inputs):
        outputs = whole(inputs, training=False)
        return np.stack([*outputs["exit_logits"], outputs["logits"]], axis=1)

    encodings = encoding(task_model.task, task_model.tokenizer)(texts, max_length)
    return np.stack(task_model.forward(encodings, run=run))


def sweep(task_model, dataset, max_length):
    """What each speed gives on dev.

    Args:
        task_model: `TaskModel` with exits. dataset: with `dev`. max_length: longest text in pieces.
    Returns:
        list of dicts, one for each of SPEEDS: `speed`; `layer`, the mean layer of exit; `cost`, the mean share of the
        operations that the model without exits makes, branches counted; `agreement` with the last layer and, where
        the data have the model's labels, `accuracy`, 0-1.
    """
    config, classes, rows = task_model.config, len(task_model.labels), []
    lasts = np.array([*config.exits, config.num_layers])
    full = flops(config, max_length, classes)
    costs = np.array([flops(config, max_length, classes, exit_layer=n) / full for n in lasts])
    logits = all_logits(task_model, dataset.dev.texts, max_length)
    answers, unsure = logits.argmax(-1), uncertainty(logits).numpy()
    for speed in SPEEDS:
        leaves = unsure <= speed
        leaves[:, -1] = True
        exits = leaves.argmax(axis=1)  # the first
        chosen = np.take_along_axis(answers, exits[:, None], axis=1)[:, 0]
        row = {"speed": speed, "layer": lasts[exits].mean(), "cost": costs[exits].mean()}
        row["agreement"] = np.mean(chosen == answers[:, -1])
        if dataset.labels == task_model.labels:
            row["accuracy"] = np.mean(chosen == dataset.dev.labels)
        rows.append({name: float(value) for name, value in row.items()})
    return rows


def choose_speed(rows, min_accuracy=None, max_cost=None):
    """The row of `sweep` that is asked for: the fastest of at least this accuracy, or the slowest of at most this cost.

    If there is none, which is logged, the slowest or the fastest of all.
    """
    if min_accuracy is not None:
        fit, nearest = [row for row in rows if row["accuracy"] >= min_accuracy][-1:], rows[0]
    else:
        fit, nearest = [row for row in rows if row["cost"] <= max_cost][:1], rows[-1]
    if not fit:
        log.warning("warning: no speed reaches what was asked for; this is the nearest")
    chosen = fit[0] if fit else nearest
    log.info("  ".join(f"{name} {value:.3g}" for name, value in chosen.items()))
    return chosen


@compression(data="any", bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    exits: Exits | None = None,
    direction: Literal["teacher-student", "student-teacher"] = "teacher-student",
    min_accuracy: Share | None = None,
    max_cost: Share | None = None,
):
    """Gives a fine-tuned model exits, which learn its own answers from any text.

    Args:
        task_model: for classification or matching. The paper's learning rate here is 10 times that of fine-tuning.
        exits: layers after which texts can leave, from 1; None: all but the last.
        direction: D_KL(p_t, p_s), as in the authors' code, or D_KL(p_s, p_t), as in the paper.
        min_accuracy, max_cost: choose a speed on dev, see `choose_speed`; the model's history tells it.
    Returns:
        `TaskModel`: the same model, with exits. `predict(texts, speed=0.5)` uses them.
    """
    config, asked = task_model.config, {"min_accuracy": min_accuracy, "max_cost": max_cost}
    calibrates = min_accuracy is not None or max_cost is not None
    if calibrates and (None not in asked.values() or not dataset.dev):
        raise ValueError(
            "Speed is chosen on dev, by `min_accuracy` or by `max_cost`. Received: "
            f"{min_accuracy} and {max_cost}, dev: {bool(dataset.dev)}. Leave one out, or take data with dev."
        )
    if min_accuracy is not None:
        check_fit(task_model, dataset)
    exits = exits or [*range(1, config.num_layers)]
    still = config.replace(exits=exits, dropout=0.0, attention_dropout=0.0)
    weights = task_model.weights()
    student = task_model.rebuilt(still, weights, only=weights, seed=seed)
    for layer in student.whole.layers:
        layer.trainable = layer.name.startswith("exit_")

    def loss_of(place):
        def loss(T, S, labels, mask):
            p_t, p_s = T["logits"], S["exit_logits", place]
            if direction == "teacher-student":
                return masked_mean(soft_label_loss(p_t, p_s))
            return masked_mean(divergence(p_s, p_t))

        return loss

    def agreement():
        answers = all_logits(student, dataset.dev.texts, training.max_length).argmax(-1)
        return float(np.mean(answers[:, :-1] == answers[:, -1:]))

    # Loss = sum over the exits of D_KL
    losses = {f"exit_{layer}": (1.0, loss_of(place)) for place, layer in enumerate(exits)}
    settings = {"training": training, "seed": seed, "stage": "exits", "measure": agreement}
    distill(task_model, student, dataset, losses, **settings)
    if calibrates:
        row = choose_speed(sweep(student, dataset, training.max_length), **asked)
        note(chosen=row)
    return student.clone(seed=seed, config=config.replace(exits=exits))


@compression(data="classes", trained_head=False, bert=True)
def fastbert_teacher(task_model, dataset, *, seed=0, training=Training()):
    """FastBERT's first phase: fine-tunes a model under the paper's classifier, a branch after the last layer.

    Args:
        task_model: pre-trained or fine-tuned; its own classifier and pooler are left out.
    Returns:
        `TaskModel`, from which `fastbert` goes on.
    """
    config, head = task_model.config.replace(classifier="branch"), ("classifier", "pooler")
    weights = {k: v for k, v in task_model.weights().items() if not k.startswith(head)}
    teacher = task_model.rebuilt(config, weights, only=weights, seed=seed)
    return tune(teacher, dataset, seed=seed, training=training)
