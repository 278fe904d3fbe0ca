"""Optimal subwords and shared projections: a narrow student with few word pieces. Zhao et al., 2019, arXiv:1909.11687.

Two ways: `optimal_subwords_general` (unlabelled text: teacher and student learn masked words together; the student is
then fine-tuned) and `compress` (a fine-tuned teacher, no pre-training).

Equation map (theta: a variable of the layers; S: student, T: teacher)
    dual training   words cut with either vocabulary, two tables, two softmaxes         DualEmbedding, dual_model
    L_down          sum ||D theta_T D^T - theta_S||^2, a 1-D variable: ||D theta_T - theta_S||^2     down
    L_up            sum ||theta_T - U theta_S U^T||^2                                                up
    L               L_down and/or L_up + eps L_mlm(teacher) + L_mlm(student)            optimal_subwords_general
Departures
    Feed-forward layers have an axis of their own width, with a second pair D, U. All layers share the two pairs.
    Position and type tables count as variables; word tables and heads, whose rows are pieces or classes, do not.
    Table 2 starts from the mean of the teacher's pieces that spell a piece. D starts as the identity, cut to size, and
    U as D^T; the student starts as D theta_T D^T, its word table from table 2. The paper starts from random weights.
    The student may have fewer layers: each is compared with the teacher's layer that it starts from.
    p_DT, eps and the weight of the projection loss are ours: the paper's are not known to us.
    On the task (not in the paper) table 2 alone learns first: the teacher on mixed words is to answer as on its own.
    Then the student, on its own pieces of the same texts, learns the teacher's answers.
"""

from typing import Literal

import numpy as np

from keras_compress import datasets
from keras_compress.backend import keras, tf
from keras_compress.bert.checkpoints import with_head
from keras_compress.bert.encoder import BLOCKS, LayerStore, make_inputs, mlm_head, split_name
from keras_compress.bert.layer_maps import HOW, select_layers
from keras_compress.bert.layers import Bias, WordEmbedding
from keras_compress.bert.tasks import TASKS
from keras_compress.distillation.mixed_words import (
    UNCUT,
    learn_wordpiece,
    mask_mixed,
    mixed_stream,
    spell,
)
from keras_compress.method import BelowOne, Count, NotNegative, Positive, Share, compression, note
from keras_compress.pretraining.masked_lm import (
    TakeTokens,
    choosing_model,
    masked_accuracy,
    masked_loss,
    masked_stream,
)
from keras_compress.pretraining.masking import MaskShare
from keras_compress.training.distill import Distiller, distill, named_outputs
from keras_compress.training.loop import fit
from keras_compress.training.losses import masked_mean, soft_targets
from keras_compress.training.optimizer import adamw
from keras_compress.training.settings import Training

Projection = Literal["none", "down", "up", "both"]
Layers = Literal[HOW] | list[int]
OWN = (
    "word_embeddings",
    "classifier",
    "mlm_",
)  # layers that share no axis: their rows are pieces or classes


class DualEmbedding(keras.layers.Layer):
    """Vectors of mixed words: table 1 where `source` is 0, table 2 where it is 1. (batch, seq) twice -> (batch, seq, hidden)."""

    def __init__(self, tables):
        super().__init__(name="dual_embeddings")
        self.tables = tables

    def call(self, x, as_decoder=False):
        if as_decoder:
            return self.tables[0](x, as_decoder=True)
        ids, source = x
        theirs, ours = (table(tf.where(source == k, ids, 0)) for k, table in enumerate(self.tables))
        return tf.where(source[..., None] == 0, theirs, ours)


def spelled_rows(rows, teacher, student):
    """For each of the student's pieces the mean of the rows of the teacher's pieces that spell it. (V_T, ..) -> (V_S, ..).

    `teacher`, `student`: `Tokenizer`s.
    """
    return np.stack([rows[spell(piece, teacher.ids)].mean(axis=0) for piece in student.vocab])


def dual_model(teacher, tokenizer):
    """A teacher that reads mixed words, on its own layers and a second table.

    Args:
        teacher: `TaskModel`. tokenizer: the student's.
    Returns:
        (`keras.Model`, table 2). Inputs: the usual ones and `source`. Outputs: "logits"; of a masked-LM model a list
        of the scores of the pieces that are the teacher's, and the student's, where the input `targets` is not -1.
    """
    config, weights = teacher.config, teacher.weights()
    get = LayerStore(config, existing=teacher.model.layers)
    rows = spelled_rows(weights["word_embeddings/embeddings"], teacher.tokenizer, tokenizer)
    table = WordEmbedding(*rows.shape, weights=[rows], name="word_embeddings_2")
    tables = get["word_embeddings"], table
    get["word_embeddings"] = DualEmbedding(tables)
    inputs = make_inputs() | {"source": keras.Input((None,), dtype="int32", name="source")}
    mixed = {**inputs, "input_word_ids": [inputs["input_word_ids"], inputs["source"]]}
    outputs = BLOCKS[config.architecture](get, teacher.task, len(teacher.labels), mixed)
    if teacher.task != "mlm":
        return keras.Model(inputs, {"logits": outputs["logits"]}), table
    inputs["targets"] = keras.Input((None,), dtype="int32", name="targets")
    bias = spelled_rows(weights["mlm_bias/bias"], teacher.tokenizer, tokenizer)
    biases, logits = (get["mlm_bias"], Bias(name="mlm_bias_2", weights=[bias])), []
    for source in (0, 1):  # two ties, two biases
        get.update({"word_embeddings": tables[source], "mlm_bias": biases[source]})
        chosen = masked_of(source, inputs)
        logits.append(mlm_head(get, TakeTokens()(outputs["hidden_states"][-1], chosen)))
    return keras.Model(inputs, logits), table


def masked_of(source, inputs):
    """Where a masked piece of the teacher's (0) or the student's (1) vocabulary stands. bool (batch, seq)."""
    return tf.logical_and(inputs["targets"] >= 0, tf.equal(inputs["source"], source))


def narrow(teacher, tokenizer, kept, sizes, *, seed):
    """The student: theta_S = D theta_T D^T at the start of D, that is the first rows and columns of each variable.

    Args:
        kept: the teacher's layers that it starts from.
        sizes: hidden size, number of heads and intermediate size; None: the teacher's.
    Raises:
        ValueError: if the student would be wider than the teacher.
    """
    names, before = ("hidden_size", "num_heads", "intermediate_size"), teacher.config
    sizes = {name: size or getattr(before, name) for name, size in zip(names, sizes)}
    if before.adapter_shapes or any(sizes[n] > getattr(before, n) for n in names[::2]):
        raise ValueError(
            "A student must be as wide as its teacher or narrower, and the teacher's word table as wide as its layers. "
            f"Received: {sizes}, and a teacher of widths {before.table_size} (table), {before.hidden_size} and "
            f"{before.intermediate_size}. Lower them, or take a teacher without `embedding_size`."
        )
    plain = {"num_layers": len(kept), "sharing": "none", "num_groups": 1}
    config = before.replace(vocab_size=len(tokenizer.vocab), **plain, **sizes)
    weights = teacher.keep_layers(kept).weights()
    for name in {"word_embeddings/embeddings", "mlm_bias/bias"} & weights.keys():
        weights[name] = spelled_rows(weights[name], teacher.tokenizer, tokenizer)
    small = teacher.rebuilt(config, {}, tokenizer=tokenizer, only=(), seed=seed)
    shapes = {name: value.shape for name, value in small.weights().items()}
    small.set_weights({name: weights[name][tuple(map(slice, shapes[name]))] for name in shapes})
    return small


def pairs_of(teacher, student, kept):
    """[(theta_T, theta_S, its axes)] of all variables that are compared; an axis is "hidden", "intermediate" or None."""
    pairs, theirs = [], {layer.name: layer for layer in teacher.model.layers}
    for layer in student.model.layers:
        name = rest = layer.name
        if name.startswith(OWN):
            continue
        if name.startswith("layer_"):
            number, part, rest = split_name(name)
            name = f"layer_{teacher.config.owner(kept[number], part)}_{rest}"
        tables = "position_embeddings", "type_embeddings"  # whose rows are positions and types
        rows = {"output": "intermediate", **dict.fromkeys(tables)}.get(rest, "hidden")
        columns = "intermediate" if rest == "intermediate" else "hidden"
        for theta_T, theta_S in zip(theirs[name].weights, layer.trainable_weights):
            pairs.append((theta_T, theta_S, (rows, columns)[-len(theta_S.shape) :]))
    return pairs


class SharedProjections(keras.layers.Layer):
    """D and U of each axis, the same for all layers.

    Args:
        teacher, student: their `BertConfig`s. projection: which matrices there are.
    """

    def __init__(self, teacher, student, projection):
        super().__init__()
        self.D, self.U = {}, {}
        for axis in ("hidden", "intermediate"):
            wide, thin = (getattr(config, f"{axis}_size") for config in (teacher, student))
            if projection in ("down", "both"):
                self.D[axis] = self.add_weight(f"D_{axis}", (thin, wide), None, "identity")
            if projection in ("up", "both"):
                self.U[axis] = self.add_weight(f"U_{axis}", (wide, thin), None, "identity")

    def differences(self, pairs):
        """{"down": [D theta_T D^T - theta_S], "up": [theta_T - U theta_S U^T]} of `pairs_of`, as far as there are D and U."""
        down = [projected(t, self.D, axes) - s for t, s, axes in pairs if self.D]
        up = [t - projected(s, self.U, axes) for t, s, axes in pairs if self.U]
        return {name: values for name, values in (("down", down), ("up", up)) if values}

    def losses(self, pairs, weight):
        """Losses of `distill` that read weights alone: {"down": L_down, "up": L_up}, with their factor."""

        def loss_of(name):  # L = sum ||..||^2
            def loss(T, S, labels, mask):
                values = self.differences(pairs)[name]
                return tf.add_n([tf.reduce_sum(tf.square(value)) for value in values])

            return weight, loss

        return {name: loss_of(name) for name in self.differences(pairs)}

    def note(self, pairs):
        """Notes the norms of D and U, and the mean squared difference of each kind of variable."""
        means = {
            f"{name} {kind}": float(
                np.mean([np.mean(np.square(x)) for x, k in zip(values, kinds) if k == kind])
            )
            for name, values in self.differences(pairs).items()
            for kinds in [[s.name.split("/")[-1].split(":")[0] for _, s, _ in pairs]]
            for kind in sorted({*kinds})
        }
        norms = {w.name.split(":")[0]: float(tf.norm(w)) for w in self.weights}
        note(projection_norms=norms, mean_square_differences=means)


def projected(theta, matrices, axes):
    """P theta P^T, each axis with its own P, an axis of None as it is; a 1-D variable: P theta."""
    *rows, columns = (matrices.get(axis) for axis in axes)
    if not rows:
        return tf.linalg.matvec(columns, theta)
    theta = theta if rows[0] is None else tf.matmul(rows[0], theta)
    return tf.matmul(theta, columns, transpose_b=True)


def learned(task_model, dataset, vocab_size, corpus, min_count):
    """The student's `Tokenizer`, learned on the training texts and a corpus; what it does to texts is noted."""
    texts = [part for x in dataset.train.texts for part in ([x] if isinstance(x, str) else x)]
    if corpus is not None:
        texts += datasets.load(corpus, task="unlabelled").train.texts
    tokenizer = learn_wordpiece(texts, vocab_size, task_model.tokenizer, min_count)
    split = "dev" if dataset.dev else "train"
    lengths = (dataset.lengths(split, x, UNCUT) for x in (task_model.tokenizer, tokenizer))
    before, after = (float(each.mean()) for each in lengths)
    facts = {"pieces": len(tokenizer.vocab), "looked_at": split}
    facts |= {"pieces_per_text_before": before, "pieces_per_text": after}
    note(**facts, unknown=dataset.unknown_rate(tokenizer, split, UNCUT))
    return tokenizer


def align(teacher, tokenizer, dataset, *, training, seed, num_steps, share):
    """Table 2 of a fine-tuned teacher, trained so that it answers mixed words as its own: (rows (V_S, hidden), curve)."""
    config = teacher.config.replace(dropout=0.0, attention_dropout=0.0)
    still = teacher.clone(config=config)
    for layer in still.model.layers:
        layer.trainable = False
    dual, table = dual_model(still, tokenizer)
    frozen = named_outputs(still, ["logits"])
    mixed = mixed_stream(dataset, (teacher.tokenizer, tokenizer), training, seed, share)
    model = Distiller(
        lambda own: frozen(own, training=False), dual, {"align": (1.0, soft_targets(1.0))}
    )
    model.compile(adamw(training, num_steps), jit_compile=False)
    curve = fit(
        model,
        still,
        dataset,
        training.replace(patience=None, evaluations=0, cache_teacher=False),
        seed=seed,
        stage="align",
        num_steps=num_steps,
        batches=mixed,
    )
    return table.embeddings.numpy(), curve


@compression(bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    vocab_size: Count | None = 5000,
    corpus: str | None = None,
    min_count: Count = 1,
    num_layers: Count | None = None,
    layers: Layers = "last-of-block",
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
        vocab_size: pieces that are learned on the training texts; None: the teacher's vocabulary.
        corpus: further text to learn them on: a name or text file of `datasets.load`.
        min_count: see `learn_wordpiece`.
        num_layers, hidden_size, num_heads, intermediate_size: of the student; None: the teacher's.
        layers: the teacher's layers that it starts from and is compared with, see `select_layers`.
        projection: which of L_down and L_up there are. projection_weight: their factor.
        p_dt: chance that a word of the teacher's texts is cut with the student's vocabulary, while table 2 learns.
        align_share: share of the updates in which table 2 learns. temperature: T of the soft targets.
    Returns:
        `TaskModel` with a tokenizer of its own, without table 2 and projections.
    """
    num_steps = training.num_steps(len(dataset.train.texts))
    kept = chosen_layers(task_model, num_layers, layers)
    tokenizer, num_align, curve = task_model.tokenizer, 0, []
    if vocab_size is not None:
        if TASKS[task_model.task].per_token:
            raise ValueError(
                "Another vocabulary needs answers to whole texts, since pieces cannot be compared. Received: "
                f"{task_model.task}. Set vocab_size to None in Python, and narrow the student alone."
            )
        tokenizer = learned(task_model, dataset, vocab_size, corpus, min_count)
        num_align = min(round(align_share * num_steps), num_steps - 1)
    sizes = hidden_size, num_heads, intermediate_size
    small = narrow(task_model, tokenizer, kept, sizes, seed=seed)
    note(layers=kept, num_align=num_align)
    if num_align:
        given = {"training": training, "seed": seed, "num_steps": num_align}
        rows, curve = align(task_model, tokenizer, dataset, share=p_dt, **given)
        table = {"word_embeddings/embeddings": rows[:, : small.config.hidden_size]}
        small.set_weights(table, only=table)
        small.curve += curve
    pairs = pairs_of(task_model, small, kept)
    shared = SharedProjections(task_model.config, small.config, projection)
    distill(
        task_model,
        small,
        dataset,
        {"soft": (1.0, soft_targets(temperature)), **shared.losses(pairs, projection_weight)},
        training=training,
        seed=seed,
        num_steps=num_steps - num_align,
        first_step=num_align,
        layers=[shared],
    )
    shared.note(pairs)
    return small


@compression(data="unlabelled", trained_head=False, bert=True)
def optimal_subwords_general(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    vocab_size: Count = 5000,
    corpus: str | None = None,
    min_count: Count = 1,
    num_layers: Count | None = None,
    layers: Layers = "last-of-block",
    hidden_size: Count | None = None,
    num_heads: Count | None = None,
    intermediate_size: Count | None = None,
    projection: Projection = "up",
    projection_weight: Positive = 1.0,
    p_dt: Share = 0.5,
    teacher_weight: NotNegative = 1.0,
    mask_share: MaskShare = 0.15,
):
    """Pre-trains a narrow student with a vocabulary of its own, and its teacher with it, on masked words.

    Args:
        task_model: the teacher, any encoder; without a masked-LM head it gets a new one, which learns here.
        teacher_weight: eps. mask_share: chance of a word. The other settings are those of `optimal_subwords`.
    Returns:
        `TaskModel` of task "mlm": the student.
    """
    teacher = with_head(task_model, "mlm", (), seed=seed)
    kept = chosen_layers(teacher, num_layers, layers)
    tokenizer = learned(teacher, dataset, vocab_size, corpus, min_count)
    sizes = hidden_size, num_heads, intermediate_size
    small = narrow(teacher, tokenizer, kept, sizes, seed=seed)
    note(layers=kept)
    both = teacher.tokenizer, tokenizer
    (dual, _), pairs = dual_model(teacher, tokenizer), pairs_of(teacher, small, kept)
    shared = SharedProjections(teacher.config, small.config, projection)

    def teacher_loss(T, S, labels, mask):  # T: what the teacher is given; it learns, too
        values = [
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                tf.boolean_mask(T["targets"], masked_of(source, T)), logits
            )
            for source, logits in enumerate(dual(dict(T), training=True))
        ]
        return masked_mean(tf.concat(values, axis=0))

    def student_loss(T, S, labels, mask):
        return masked_loss(labels, S["logits"])

    # L = L_down and/or L_up + eps L_mlm(teacher) + L_mlm(student)
    losses = {
        **shared.losses(pairs, projection_weight),
        "teacher": (teacher_weight, teacher_loss),
        "student": (1.0, student_loss),
    }
    mixed = mixed_stream(dataset, both, training, seed, p_dt)
    own = masked_stream(dataset, tokenizer, training, seed, whole_word=True, share=mask_share)

    def batches(first, last):
        hide = lambda step, batch: mask_mixed(batch[0], both, [seed, step], mask_share)
        asked = mixed(first, last).enumerate(first).map(hide)
        zipped = tf.data.Dataset.zip((own(first, last), asked))
        return zipped.map(lambda batch, asked: (*batch, asked))

    model = Distiller(lambda asked: asked, choosing_model(small), losses, [dual, shared])
    num_steps = training.num_steps(len(dataset.train.texts))
    model.compile(adamw(training, num_steps), jit_compile=False)
    small.curve += fit(
        model,
        small,
        dataset,
        training,
        seed=seed,
        stage="dual",
        num_steps=num_steps,
        batches=batches,
        measure=lambda: masked_accuracy(small, dataset, training, mask_share),
    )
    shared.note(pairs)
    return small


def chosen_layers(teacher, num_layers, how):
    """The teacher's layers that the student starts from; by default all."""
    depth = teacher.config.num_layers
    return select_layers(depth, num_layers or depth, how)
