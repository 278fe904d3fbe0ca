"""Optimal subwords and shared projections: a narrow student with few word pieces. Zhao et al., 2019, arXiv:1909.11687.

Two ways: `optimal_subwords_general` (unlabelled text: teacher and student learn masked words together; the student is
fine-tuned afterwards) and `compress` (a fine-tuned teacher, no pre-training). The vocabularies: mixed_words.py.

Equation map (theta: a variable of the layers; S: student, T: teacher)
    L_down   sum ||D theta_T D^T - theta_S||^2, of a 1-D variable ||D theta_T - theta_S||^2    SharedProjections
    L_up     sum ||theta_T - U theta_S U^T||^2                                                SharedProjections
    L        L_down and/or L_up + eps L_mlm(teacher) + L_mlm(student)               optimal_subwords_general
Departures
    Feed-forward layers have an axis of their own width, with a second pair D, U. All layers share both pairs.
    Position and type tables are compared, too; word tables and heads are not: their rows are pieces and classes.
    D starts as the identity cut to size, U as D^T, and the student as D theta_T D^T; its word table starts so from
    table 2. The paper's student starts from random weights.
    Of fewer layers each is compared with the teacher's that it starts from, the last of a block.
    p_DT, eps and the factor of the projection loss are our choices.
    On a task (not in the paper) table 2 learns first, alone: on mixed words the teacher is to answer as on its own.
    The student then learns the teacher's answers, each on its own pieces. Tagging is left out.
"""

from typing import Literal

import numpy as np

from keras_compress import datasets
from keras_compress.backend import keras, tf
from keras_compress.bert.checkpoints import with_head
from keras_compress.bert.encoder import split_name
from keras_compress.bert.layer_maps import select_layers
from keras_compress.bert.tasks import TASKS
from keras_compress.distillation import mixed_words as words
from keras_compress.method import BelowOne, Count, NotNegative, Positive, Share, compression, note
from keras_compress.pretraining import masked_lm
from keras_compress.training.distill import Distiller, distill, named_outputs
from keras_compress.training.loop import fit
from keras_compress.training.losses import masked_mean, soft_targets
from keras_compress.training.optimizer import adamw
from keras_compress.training.settings import Training

Projection = Literal["none", "down", "up", "both"]


def learned(task_model, dataset, vocab_size, min_count, corpus=None):
    """The student's `Tokenizer`, learned on the training texts and a corpus; what it does to texts is noted."""
    texts = [part for x in dataset.train.texts for part in ([x] if isinstance(x, str) else x)]
    if corpus is not None:
        texts += datasets.load(corpus, task="unlabelled").train.texts
    tokenizer = words.learn_wordpiece(texts, vocab_size, task_model.tokenizer, min_count)
    split, both = "dev" if dataset.dev else "train", (task_model.tokenizer, tokenizer)
    before, after = (float(dataset.lengths(split, x, words.UNCUT).mean()) for x in both)
    note(pieces=len(tokenizer.vocab), pieces_per_text_before=before, pieces_per_text=after)
    note(unknown=dataset.unknown_rate(tokenizer, split, words.UNCUT), looked_at=split)
    return tokenizer


def narrow(teacher, tokenizer, kept, sizes, *, seed):
    """The student, theta_S = D theta_T D^T at the start of D: the first rows and columns of each variable.

    Args:
        kept: the teacher's layers that it starts from.
        sizes: hidden size, number of heads and intermediate size; None: the teacher's.
    Raises:
        ValueError: if it would be wider than the teacher.
    """
    names, before = ("hidden_size", "num_heads", "intermediate_size"), teacher.config
    sizes = {name: size or getattr(before, name) for name, size in zip(names, sizes)}
    if before.adapter_shapes or any(sizes[n] > getattr(before, n) for n in names[::2]):
        widths = {n: getattr(before, n) for n in (*names[::2], "embedding_size")}
        raise ValueError(
            "A student must be as wide as its teacher or narrower, the teacher's word table as wide as its layers. "
            f"Received: {sizes} of {widths}. Lower them, or take a teacher without `embedding_size`."
        )
    plain = {"num_layers": len(kept), "sharing": "none", "num_groups": 1}
    config = before.replace(vocab_size=len(tokenizer.vocab), **plain, **sizes)
    weights = teacher.keep_layers(kept).weights()
    for name in {"word_embeddings/embeddings", "mlm_bias/bias"} & weights.keys():
        weights[name] = words.spelled_rows(weights[name], teacher.tokenizer, tokenizer)
    small = teacher.rebuilt(config, {}, tokenizer=tokenizer, only=(), seed=seed)
    shapes = {name: tuple(map(slice, value.shape)) for name, value in small.weights().items()}
    small.set_weights({name: weights[name][shape] for name, shape in shapes.items()})
    return small


def pairs_of(teacher, student, kept):
    """[(theta_T, theta_S, its axes)] of what is compared; an axis is "hidden", "intermediate" or None."""
    pairs, theirs = [], {layer.name: layer for layer in teacher.model.layers}
    for layer in student.model.layers:
        name = rest = layer.name
        if name.startswith(("word_embeddings", "classifier", "mlm_")):
            continue
        if name.startswith("layer_"):
            number, part, rest = split_name(name)
            name = f"layer_{teacher.config.owner(kept[number], part)}_{rest}"
        tables = {"position_embeddings": None, "type_embeddings": None}  # their rows stay
        rows = {"output": "intermediate", **tables}.get(rest, "hidden")
        columns = "intermediate" if rest == "intermediate" else "hidden"
        for theta_T, theta_S in zip(theirs[name].weights, layer.trainable_weights):
            pairs.append((theta_T, theta_S, (rows, columns)[-len(theta_S.shape) :]))
    return pairs


def projected(theta, matrices, axes):
    """P theta P^T, each axis with its own P, an axis of None as it is; of a 1-D variable P theta."""
    *rows, columns = (matrices.get(axis) for axis in axes)
    if not rows:
        return tf.linalg.matvec(columns, theta)
    theta = theta if rows[0] is None else tf.matmul(rows[0], theta)
    return tf.matmul(theta, columns, transpose_b=True)


class SharedProjections(keras.layers.Layer):
    """D and U of each axis, the same for all layers, and their losses.

    Args:
        teacher, student: `TaskModel`s. kept: see `pairs_of`. projection: which of D and U there are.
    """

    def __init__(self, teacher, student, kept, projection):
        super().__init__()
        self.pairs, self.D, self.U = pairs_of(teacher, student, kept), {}, {}
        for axis in ("hidden", "intermediate"):
            wide, thin = (getattr(x.config, f"{axis}_size") for x in (teacher, student))
            if projection in ("down", "both"):
                self.D[axis] = self.add_weight(f"D_{axis}", (thin, wide), None, "identity")
            if projection in ("up", "both"):
                self.U[axis] = self.add_weight(f"U_{axis}", (wide, thin), None, "identity")

    def differences(self):
        """{"down": [D theta_T D^T - theta_S, ..], "up": [theta_T - U theta_S U^T, ..]}, those that there are."""
        down = [projected(t, self.D, axes) - s for t, s, axes in self.pairs if self.D]
        up = [t - projected(s, self.U, axes) for t, s, axes in self.pairs if self.U]
        return {name: values for name, values in (("down", down), ("up", up)) if values}

    def losses(self, weight):
        """L_down and L_up as losses of `distill`, which read weights alone, with their factor."""

        def loss_of(name):  # sum ||..||^2
            squares = lambda: (tf.reduce_sum(tf.square(x)) for x in self.differences()[name])
            return weight, lambda T, S, labels, mask: tf.add_n([*squares()])

        return {name: loss_of(name) for name in self.differences()}

    def note(self):
        """Notes the norms of D and U, and for each kind of variable the mean square of its differences."""
        means = {}
        for name, values in self.differences().items():
            for value, (_, theta_S, _) in zip(values, self.pairs):
                kind = f"{name} {theta_S.name.split('/')[-1].split(':')[0]}"
                means.setdefault(kind, []).append(float(tf.reduce_mean(tf.square(value))))
        note(mean_squares={kind: float(np.mean(values)) for kind, values in means.items()})
        note(norms={weight.name.split(":")[0]: float(tf.norm(weight)) for weight in self.weights})


def align(teacher, tokenizer, dataset, *, training, seed, num_steps, share):
    """Trains table 2, so that a teacher answers mixed words as its own: (rows (V_S, hidden), curve)."""
    still = teacher.config.replace(dropout=0.0, attention_dropout=0.0)
    still = teacher.clone(config=still)
    for layer in still.model.layers:
        layer.trainable = False
    (dual, table), frozen = words.dual_model(still, tokenizer), named_outputs(still, ["logits"])
    losses = {"align": (1.0, soft_targets(1.0))}
    model = Distiller(lambda own: frozen(own, training=False), dual, losses)
    model.compile(adamw(training, num_steps), jit_compile=False)
    mixed = words.mixed_stream(dataset, (teacher.tokenizer, tokenizer), training, seed, share)
    settings = {"seed": seed, "stage": "align", "num_steps": num_steps, "batches": mixed}
    quiet = training.replace(patience=None, evaluations=0, cache_teacher=False)
    curve = fit(model, still, dataset, quiet, **settings)
    return table.embeddings.numpy(), curve


@compression(bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    vocab_size: Count | Literal["teacher"] = 5000,
    corpus: str | None = None,
    min_count: Count = 1,
    num_layers: Count | None = None,
    hidden_size: Count | None = None,
    num_heads: Count | None = None,
    intermediate_size: Count | None = None,
    projection: Projection = "up",
    projection_weight: Positive = 1.0,
    p_dt: Share = 0.5,
    align_share: BelowOne = 0.25,
    temperature: Positive = 2.0,
):
    """Distils a fine-tuned teacher into a narrow student with a vocabulary of its own.

    Args:
        task_model: the teacher, `TaskModel`.
        vocab_size: pieces, learned on the training texts and a `corpus` (a name or text file of `datasets.load`);
            "teacher": the teacher's own. min_count: see `learn_wordpiece`.
        num_layers, hidden_size, num_heads, intermediate_size: of the student; None: the teacher's.
        projection: which of L_down and L_up there are. projection_weight: their factor.
        p_dt: chance that a word of the teacher's texts is cut with the student's vocabulary, while table 2 learns.
        align_share: share of the updates in which table 2 learns. temperature: T of the soft targets.
    Returns:
        `TaskModel` with a tokenizer of its own, without table 2 and projections.
    """
    depth, num_steps = task_model.config.num_layers, training.num_steps(len(dataset.train.texts))
    kept = select_layers(depth, num_layers or depth, "last-of-block")
    if vocab_size != "teacher" and TASKS[task_model.task].per_token:
        raise ValueError(
            "A vocabulary of its own needs answers to whole texts: pieces cannot be compared. Received: "
            f"{task_model.task}. Keep the teacher's: vocab_size=teacher (`--set`)."
        )
    tokenizer, num_align = task_model.tokenizer, 0
    if vocab_size != "teacher":
        tokenizer = learned(task_model, dataset, vocab_size, min_count, corpus)
        num_align = min(round(align_share * num_steps), num_steps - 1)
    sizes = hidden_size, num_heads, intermediate_size
    small = narrow(task_model, tokenizer, kept, sizes, seed=seed)
    note(layers=kept, num_align=num_align)
    settings = {"training": training, "seed": seed}
    if num_align:
        stage = {**settings, "num_steps": num_align, "share": p_dt}
        rows, curve = align(task_model, tokenizer, dataset, **stage)
        small.curve += curve
        table = {"word_embeddings/embeddings": rows[:, : small.config.hidden_size]}
        small.set_weights(table, only=table)
    shared = SharedProjections(task_model, small, kept, projection)
    losses = {"soft": (1.0, soft_targets(temperature)), **shared.losses(projection_weight)}
    settings |= {"num_steps": num_steps - num_align, "first_step": num_align}
    distill(task_model, small, dataset, losses, layers=[shared], **settings)
    shared.note()
    return small


@compression(data="unlabelled", trained_head=False, bert=True)
def optimal_subwords_general(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    vocab_size: Count = 5000,
    min_count: Count = 1,
    num_layers: Count | None = None,
    hidden_size: Count | None = None,
    num_heads: Count | None = None,
    intermediate_size: Count | None = None,
    projection: Projection = "up",
    projection_weight: Positive = 1.0,
    p_dt: Share = 0.5,
    teacher_weight: NotNegative = 1.0,
):
    """Pre-trains a narrow student with a vocabulary of its own, and its teacher with it, on masked words.

    Args:
        task_model: the teacher; without a masked-LM head it gets a new one, which learns here.
        teacher_weight: eps. The other settings are those of `optimal_subwords`.
    Returns:
        `TaskModel` of task "mlm", the student.
    """
    teacher = with_head(task_model, "mlm", (), seed=seed)
    depth, num_steps = teacher.config.num_layers, training.num_steps(len(dataset.train.texts))
    kept = select_layers(depth, num_layers or depth, "last-of-block")
    tokenizer = learned(teacher, dataset, vocab_size, min_count)
    both, sizes = (teacher.tokenizer, tokenizer), (hidden_size, num_heads, intermediate_size)
    small = narrow(teacher, tokenizer, kept, sizes, seed=seed)
    note(layers=kept)
    shared = SharedProjections(teacher, small, kept, projection)
    dual, _ = words.dual_model(teacher, tokenizer)

    def teacher_loss(T, S, labels, mask):  # T: what the teacher reads; it learns, too
        true = (tf.boolean_mask(T["targets"], words.masked_of(source, T)) for source in (0, 1))
        pairs = zip(true, dual(dict(T), training=True))
        cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits
        return masked_mean(tf.concat([cross_entropy(*pair) for pair in pairs], axis=0))

    def student_loss(T, S, labels, mask):
        return masked_lm.masked_loss(labels, S["logits"])

    # L = L_down and/or L_up + eps L_mlm(teacher) + L_mlm(student)
    losses = {"teacher": (teacher_weight, teacher_loss), "student": (1.0, student_loss)}
    losses |= shared.losses(projection_weight)
    mixed = words.mixed_stream(dataset, both, training, seed, p_dt)
    own = masked_lm.masked_stream(dataset, tokenizer, training, seed, whole_word=True)

    def batches(first, last):
        hide = lambda step, batch: words.mask_mixed(batch[0], both, [seed, step])
        read = mixed(first, last).enumerate(first).map(hide)
        zipped = tf.data.Dataset.zip((own(first, last), read))
        return zipped.map(lambda batch, read: (*batch, read))

    model = Distiller(lambda read: read, masked_lm.choosing_model(small), losses, [dual, shared])
    model.compile(adamw(training, num_steps), jit_compile=False)
    measure = lambda: masked_lm.masked_accuracy(small, dataset, training)
    settings = {"seed": seed, "stage": "dual", "batches": batches, "measure": measure}
    small.curve += fit(model, small, dataset, training, **settings)
    shared.note()
    return small
