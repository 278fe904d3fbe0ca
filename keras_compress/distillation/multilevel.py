"""Multi-level distillation: heads on several layers learn the teacher's answers; not the published BERT-of-Theseus.

An unpublished text describes it under that name, without figures or code. The paper of the name, arXiv:2002.02925,
replaces modules and has no distillation loss (replacement/theseus.py). Here is what can be built of the text.

Equation map (h_s: what a head reads of the student's layer s, counted from 1; y: the teacher's answer)
    levels   L_d = 1/k sum_i MSE(g_i(h_{s_i}), y)                            levels_of
    head     g = Dense(C), or Dense(H, gelu) -> Dense(C)                     make_head
    gate     m(h; w) = h + w/2 (MLP(h) - h), before a head                   GatedMix
    chain    g'_i([h_{s_i + 1}; g_i(h_{s_i})]), no gradient into g_i         levels_of
    sum      L = (1 - alpha) L_CE + alpha L_d                                compress
Departures from the text
    The last layer's head is the student's own, so that what is returned learns from L_d, too. Other heads and gates
    serve training alone. They read what the student's own head reads: [CLS], the mean of the pieces, or each piece.
    The product of two levels' widths, the text's width of an MLP, fits no layer: here it is the student's H.
    Its gate is open or shut; here w is any number in [0, 1], or trained.
    It counts layers from i - 1 and from i. In a chain the last layer, above which there is none, reads itself.
    Its copies of layers that never train are left out; for shared weights see factorization/albert.py.
    With real replacing it is a chain of two methods: `theseus` with finetune_share=0.0, then this with that as
    `student`. At alpha=0.0 the second is plain fine-tuning, and the chain is Theseus alone.
"""

from typing import Literal

from keras_compress.backend import keras, tf
from keras_compress.bert.encoder import ACTIVATIONS
from keras_compress.bert.layer_maps import HOW, select_layers
from keras_compress.bert.layers import MaskedMean
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tasks import TASKS
from keras_compress.method import Count, Share, compression, note
from keras_compress.training.distill import distill, start_student
from keras_compress.training.losses import answer_of, counted, logits_mse, masked_mean, true_labels
from keras_compress.training.settings import Training

HEADS = ("linear", *ACTIVATIONS)


def choose_levels(num_layers, levels=None):
    """The layers s_1 .. s_k that answer, counted from 1. The last is always among them.

    Args:
        levels: how many, evenly spaced; or a list of layers, rising; None: all.
    Raises:
        ValueError: if a level lies outside of the student, or its last layer is left out.
    """
    every, chosen = [*range(1, num_layers + 1)], num_layers if levels is None else levels
    if isinstance(chosen, int):
        chosen = [i * num_layers // chosen for i in range(1, chosen + 1)]
    if chosen[-1:] != [num_layers] or chosen != sorted({*chosen} & {*every}):
        raise ValueError(
            f"`levels` must be 1 to {num_layers}, or a list of the student's layers {every} that rises and "
            f"ends with the last. Received: {levels}. Choose among these, or raise `num_layers`."
        )
    return chosen


def make_head(shape, units, hidden, activation, seed):
    """g: Dense(units), or an MLP, Dense(hidden, activation) -> Dense(units). (..., width) -> (..., units)."""
    starts = [keras.initializers.GlorotUniform(seed + number) for number in (0, 1)]
    layers = [keras.Input(shape), keras.layers.Dense(units, kernel_initializer=starts[0])]
    if activation != "linear":
        act = ACTIVATIONS[activation]
        layers.insert(1, keras.layers.Dense(hidden, act, kernel_initializer=starts[1]))
    return keras.Sequential(layers)


class GatedMix(keras.layers.Layer):
    """m(x; w): x at w = 0, the mean of x and MLP(x) at w = 1. (..., hidden) -> the same.

    `weight` is w, which stays as it is, or "trained": from 0, within [0, 1].
    """

    def __init__(self, mlp, weight=0.0):
        super().__init__()
        self.mlp, trained = mlp, weight == "trained"
        start = keras.initializers.Constant(0.0 if trained else weight)
        limit = lambda w: tf.clip_by_value(w, 0.0, 1.0)
        self.w = self.add_weight("w", (), None, start, trainable=trained, constraint=limit)

    def call(self, x):
        # m(x; w) = x + w/2 (MLP(x) - x)
        return x + self.w / 2.0 * (self.mlp(x) - x)


def levels_of(student, levels, head="linear", target="logits", mix=0.0, chained=False, seed=0):
    """L_d of a student's levels as a loss of `distill`, and the heads and gates that train for it.

    Args:
        student: `TaskModel`. levels: list of its layers, counted from 1. Others: see `compress`.
    Returns:
        (loss, {level: head}, {level: gate}, {level: second head}).
    """
    classes, width = len(student.labels), student.config.hidden_size
    last, of_pieces = student.config.num_layers, TASKS[student.task].per_token
    inner, heads, gates, seconds = "gelu" if head == "linear" else head, {}, {}, {}

    def new(level, number, inputs, units, activation):
        shape = (None, inputs) if of_pieces else (inputs,)
        return make_head(shape, units, width, activation, 1000 * seed + 10 * level + number)

    for level in levels:
        if level < last:
            heads[level] = new(level, 0, width, classes, head)
        if level < last and mix:
            gates[level] = GatedMix(new(level, 2, width, width, inner), mix)
        if chained:
            seconds[level] = new(level, 4, width + classes, classes, head)

    def read(S, level, mask):  # h_s: (batch, hidden), in tagging (batch, seq, hidden)
        if of_pieces:
            return S["hidden_states", level]
        if student.config.pooling == "mean":
            return MaskedMean()(S["hidden_states", level], mask)
        return S["hidden_states", level, "cls"]

    def answers(S, mask):
        for level in levels:
            answer = S["logits"]
            if level < last:  # g_i(m(h_{s_i}; w))
                h = read(S, level, mask)
                answer = heads[level](gates[level](h) if mix else h)
            yield answer
            if chained:  # g'_i([h_{s_i + 1}; g_i(h_{s_i})])
                above = read(S, min(level + 1, last), mask)
                yield seconds[level](tf.concat([above, tf.stop_gradient(answer)], axis=-1))

    def level_term(T, S, labels, mask):
        answer = {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid, "number": tf.identity}
        how = answer[answer_of(labels, S["logits"])] if target == "probabilities" else tf.identity
        # L_d = 1/k sum_i MSE(g_i(h_{s_i}), y)
        errors = [logits_mse(how(T["logits"]), how(answer)) for answer in answers(S, mask)]
        return masked_mean(tf.reduce_mean(errors, axis=0), counted(labels))

    return level_term, heads, gates, seconds


@compression(bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count = 3,
    student: TaskModel | str | None = None,
    layers: Literal[HOW] | list[int] = "bottom",
    levels: Count | list[int] | None = None,
    alpha: Share = 0.5,
    head: Literal[HEADS] = "linear",
    target: Literal["logits", "probabilities"] = "logits",
    mix: Share | Literal["trained"] = 0.0,
    chained: bool = False,
    student_activation: Literal[HEADS[1:]] | None = None,
):
    """Distils a fine-tuned teacher's answers into several layers of a student.

    Args:
        task_model: the teacher, `TaskModel`.
        num_layers: of the student, which starts from `layers` of the teacher (see `select_layers`) or from `student`.
        levels: see `choose_levels`. alpha: share of L_d against the labels.
        head: of the levels below the last: linear, or an MLP with this activation. target: what is compared.
        mix: w of a gate before each of these heads; its MLP has their activation, or else gelu. 0: no gate.
        chained: a second head for each level. student_activation: new one of the student's own layers.
    Returns:
        `TaskModel` without heads and gates.
    """
    depth = task_model.config.num_layers
    kept = range(num_layers) if student else select_layers(depth, num_layers, layers)
    small = start_student(task_model, student, kept, seed)
    if student_activation:
        small = small.clone(seed=seed, config=small.config.replace(activation=student_activation))
    chosen = choose_levels(small.config.num_layers, levels)
    note(layers=None if student else kept, level_layers=chosen)
    level_term, *parts = levels_of(small, chosen, head, target, mix, chained, seed)
    # L = (1 - alpha) L_CE + alpha L_d
    losses = {"label": (1.0 - alpha, true_labels), "levels": (alpha, level_term)}
    own = [layer for part in parts for layer in part.values()] if alpha else []
    distill(task_model, small, dataset, losses, training=training, seed=seed, layers=own)
    note(mix_at_last=[float(gate.w) for gate in parts[1].values()])
    return small
