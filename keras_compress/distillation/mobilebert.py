"""MobileBERT: a thin student learns a teacher's layers one after the other. Sun et al., 2020, arXiv:2004.02984.

Its blocks: bert/mobilebert.py. Two uses: on a task (`compress`: a fine-tuned teacher) and in general
(`mobilebert_general`: unlabelled text, a masked-LM teacher; the result is then fine-tuned).

Equation map (l: layer; H: its output; mu, var: mean and variance over H's units; a: attention probabilities; L layers)
    Sec. 3.5   feature maps, MSE(LN(H_T), LN(H_S)), LN without weights      feature_loss, factor 100 / L
               statistics, (mu_T - mu_S)^2 and |var_T - var_S|              mean_loss, 5000 / L; variance_loss, 5 / L
    Sec. 3.5   attention, KL(a_T || a_S) of each head                       attention_loss, 1 / L
    Sec. 3.5   answers: alpha of the teacher's, 1 - alpha of the labels     compress, mobilebert_general
    Sec. 3.6   progressive transfer: in phase l the losses of layer l       learn
               rates: layer l 1, earlier ones .1, later ones 0              AdamW.slow_down (optimizer.py)
Departures
    No IB-BERT was released: any BERT teaches. Between other widths each layer has a projection W with bias; other
    numbers of heads are mixed, softmax(M) a_S. Of a deeper teacher every N/L-th layer is learned from.
    The authors' rates (3.0 x these, no warm-up) exist in LAMB alone; their AdamW ignores them. AdamW divides by the
    gradient's size, so a scaled gradient changes nothing; here the finished update is scaled. Earlier layers do not
    decay. Each phase has warm-up, decay and moments of its own, and its model ends with layer l. AdamW's epsilon is 1e-8
    there: the factors make gradients of norm 40, of which clipping leaves queries and keys about 1e-7, a tenth of the
    usual epsilon, and they would hardly move. LAMB scales each update to the norm of its weight.
    Embeddings and head start from IB-BERT's and are frozen in the phases. Here the word table starts from the best
    factors of the teacher's, its NoNorm from the mean LayerNorm, the rest as far as it fits (the factors turn the axes
    of a masked-LM head, so its bias alone); they train as layer 1 does.
    The authors' statistics of the teacher are means over all its layers, an error; here each layer has its own.
    Padding counts nowhere; theirs are means over padded queries, too, and padded keys have scores of -6.
    The authors multiply the teacher's last hidden state by the temperature; here it divides both logits. Their ratio is
    the labels' share. No next-sentence task; phases read texts without masks. Nothing drops out, as the config says.
"""

import functools
from typing import Literal

import numpy as np

from keras_compress.backend import keras, tf
from keras_compress.bert.layer_maps import check_multiple
from keras_compress.bert.layers import AttentionBias
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tasks import TASKS
from keras_compress.method import Count, NotNegative, Positive, Share, Whole, compression, note
from keras_compress.pretraining import masked_lm as mlm
from keras_compress.training.distill import distill, start_student
from keras_compress.training.losses import masked_mean, soft_label_loss, soft_targets, true_labels
from keras_compress.training.optimizer import adamw
from keras_compress.training.settings import Training

Factors = dict[Literal["feature", "mean", "variance", "attention"], NotNegative]
FACTORS = {"feature": 100.0, "mean": 5000.0, "variance": 5.0, "attention": 1.0}
TRANSFER = 240 / 740  # share of the paper's updates
EPSILON = 1e-8  # of AdamW in the phases, as in Adam's paper
STILL = {"dropout": 0.0, "attention_dropout": 0.0}
WORDS, PROJECTION = "word_embeddings/embeddings", "embedding_projection/kernel"
STARTS = ("position_embeddings/", "type_embeddings/", "mlm_bias/")


def feature_loss(teacher, student, mask):
    """MSE(LN(H_T), LN(H_S)) over real tokens. (batch, seq, hidden) twice, int32 (batch, seq) -> scalar."""
    T, S = (h - tf.reduce_mean(h, -1, keepdims=True) for h in (teacher, student))
    T, S = (h * tf.math.rsqrt(tf.reduce_mean(h * h, -1, keepdims=True) + 1e-12) for h in (T, S))
    return masked_mean(tf.reduce_mean(tf.square(T - S), axis=-1), mask)


def mean_loss(teacher, student, mask):
    """(mu_T - mu_S)^2 over real tokens; shapes as in `feature_loss`."""
    difference = tf.reduce_mean(teacher, axis=-1) - tf.reduce_mean(student, axis=-1)
    return masked_mean(tf.square(difference), mask)


def variance_loss(teacher, student, mask):
    """|var_T - var_S| over real tokens; shapes as in `feature_loss`."""
    variance = tf.math.reduce_variance
    return masked_mean(tf.abs(variance(teacher, -1) - variance(student, -1)), mask)


def attention_loss(teacher, student, mask, mix=tf.identity):
    """KL(a_T || a_S) in nats, mean over heads and real queries: a scalar.

    Args:
        teacher, student: scores, float (batch, heads, seq, seq), scaled, before mask and softmax.
        mask: int32 (batch, seq). mix: the student's probabilities -> as many heads as the teacher has.
    """
    bias = AttentionBias()(mask)  # (batch, 1, 1, seq)
    a_T, a_S = tf.nn.softmax(teacher + bias), mix(tf.nn.softmax(student + bias))
    # sum over keys of a_T (log a_T - log a_S)
    values = tf.reduce_sum(a_T * (tf.math.log(a_T + 1e-12) - tf.math.log(a_S + 1e-12)), axis=-1)
    return masked_mean(tf.reduce_mean(values, axis=1), mask)


class HeadMix(keras.layers.Layer):
    """softmax(M) a: each head of the teacher as a mean of the student's. (batch, heads, ..) -> (batch, units, ..)."""

    def __init__(self, units, heads, seed):
        super().__init__()
        start = keras.initializers.RandomNormal(seed=seed)
        self.M = self.add_weight("M", (units, heads), None, start)

    def call(self, probs):
        return tf.einsum("ts,bsqk->btqk", tf.nn.softmax(self.M), probs)


def no_norm(weights):
    """The NoNorm that does to embeddings what a LayerNorm does on average: (gamma, beta), float (hidden,) each.

    gamma (h - mu) / sigma + beta as one scale and shift; h: a word at the mean position, in segment 0.
    """
    h = weights[WORDS] + weights["position_embeddings/embeddings"].mean(axis=0)
    h = h + weights.get("type_embeddings/embeddings", np.zeros_like(h))[0]
    gamma = weights["embeddings_norm/gamma"] / np.sqrt(h.var(axis=-1).mean())
    return gamma, weights["embeddings_norm/beta"] - gamma * h.mean()


def new_student(teacher, num_layers, fields, seed):
    """A MobileBERT of the paper's proportions on the teacher's width H and number of heads; `fields` override them.

    Returns:
        `TaskModel`; embeddings and head start from the teacher's as far as they fit, all else is random.
    """
    before = teacher.config
    hidden = fields.get("hidden_size", before.hidden_size)
    sizes = {"embedding_size": hidden // 4, "bottleneck_size": hidden // 4, "num_ffn": 4}
    sizes |= {"intermediate_size": hidden, "num_layers": num_layers}
    block = {"architecture": "mobilebert", "attention_input": "shared", "trigram": True}
    block |= {"activation": "relu", "norm": "none", "sharing": "none", "num_groups": 1}
    block |= {"adapter": "linear", "embedding_norm": "hidden", **STILL}
    block |= {"heads_per_layer": None, "ffn_per_layer": None}
    block["pooling"] = "cls" if before.pooling == "pooler" else before.pooling
    config = before.replace(**{**sizes, **block, **fields})
    small = teacher.rebuilt(config, {}, only=[], seed=seed)
    ours, theirs = small.weights(), teacher.weights()
    pools = not TASKS[teacher.task].per_token and before.classifier == "dense"
    reads_alike = hidden == before.hidden_size and (config.pooling == before.pooling or not pools)
    copied = STARTS + (("classifier", "pooler/") if reads_alike else ())
    copied += ("embeddings_norm/",) if config.norm == "layer" else ()
    start = {name: array for name, array in theirs.items() if name.startswith(copied)}
    if hidden == before.hidden_size == before.table_size:
        E, size = theirs[WORDS], config.table_size
        start[WORDS] = E
        if PROJECTION in ours:
            # E ~ (E P) P^T, P: the first right singular vectors; rows of the kernel: the next piece, its own, the last
            P = np.linalg.eigh(E.T @ E)[1][:, ::-1][:, :size]
            kernel, own = np.zeros_like(ours[PROJECTION]), size if config.trigram else 0
            kernel[own : own + size] = P.T
            start |= {WORDS: E @ P, PROJECTION: kernel}
        if config.norm == "none":
            start |= zip(("embeddings_norm/gamma", "embeddings_norm/beta"), no_norm(theirs))
    small.set_weights(start, [x for x in start if x in ours and start[x].shape == ours[x].shape])
    return small


def make_student(teacher, student, num_layers, fields, seed):
    """The student, new or given, without dropout."""
    check_multiple(teacher.config.num_layers, num_layers, "phases", "take another teacher")
    if student is None:
        return new_student(teacher, num_layers, fields, seed)
    small = start_student(teacher, student, range(num_layers), seed)
    if fields or small.config.num_layers != num_layers:
        raise ValueError(
            f"`num_layers` and `config` must be those of `student`. Received: {num_layers} and {fields}. "
            f"Set num_layers={small.config.num_layers}, and leave `config` out."
        )
    return small.clone(seed=seed, config=small.config.replace(**STILL))


def losses_of(teacher, student, layer, factors, seed):
    """What layer l, from 1, of a student learns from: (losses of `distill`, layers that train for them)."""
    num_layers = student.config.num_layers
    n = teacher.config.num_layers // num_layers * layer
    width, student_width = (model.config.hidden_size for model in (teacher, student))
    heads, student_heads = teacher.config.heads[n - 1], student.config.heads[layer - 1]
    W = mix = tf.identity
    if width != student_width:
        W = keras.layers.Dense(width, kernel_initializer=keras.initializers.GlorotUniform(seed))
        W.build((None, None, student_width))
    if heads != student_heads:
        mix = HeadMix(heads, student_heads, seed)

    def of_states(loss):
        states = lambda T, S: (T["hidden_states", n], W(S["hidden_states", layer]))
        return lambda T, S, labels, mask: loss(*states(T, S), mask)

    def attention(T, S, labels, mask):
        scores = T["attention_scores", n - 1], S["attention_scores", layer - 1]
        return attention_loss(*scores, mask, mix)

    terms = {"feature": feature_loss, "mean": mean_loss, "variance": variance_loss}
    terms = {name: of_states(loss) for name, loss in terms.items()} | {"attention": attention}
    losses = {name: (factor / num_layers, terms[name]) for name, factor in factors.items()}
    return losses, [each for each in (W, mix) if each is not tf.identity]


def learn(teacher, student, dataset, answers, length, factors, rate, *, training, seed, **more):
    """Trains a student: each layer in a phase of `length` updates, then all of it on the answers.

    Args:
        answers: losses of the last stage. length, factors, rate: `steps_per_layer`, `factors`, `earlier_rate` of
            `compress`; ValueError if the phases leave no update for the answers. more: of the last stage's `distill`.
    """
    num_layers, num_steps = student.config.num_layers, training.num_steps(len(dataset.train.texts))
    length = max(1, round(TRANSFER * num_steps / num_layers)) if length is None else length
    done = length * num_layers
    if done >= num_steps:
        raise ValueError(
            "The phases, `steps_per_layer` updates for each layer, must leave updates for the answers. Received: "
            f"{length} x {num_layers} of {num_steps} updates. Lower `steps_per_layer`, or raise `epochs`."
        )
    note(phase_length=length)
    models, early = (teacher, student, dataset), training.replace(patience=None, evaluations=0)
    for layer in range(1, num_layers + 1) if length else ():
        losses, own = losses_of(teacher, student, layer, factors, seed + layer)
        others = [x for x in student.model.layers if not x.name.startswith(f"layer_{layer - 1}_")]
        slow = [v for each in others for v in each.trainable_weights] if layer > 1 else []
        phase = {"stage": f"phase-{layer}", "num_steps": length, "first_step": (layer - 1) * length}
        optimizer = functools.partial(adamw, slow=slow, rate=rate, epsilon=EPSILON)
        phase |= {"training": early, "seed": seed, "layers": own, "optimizer": optimizer}
        distill(*models, losses, any_heads=True, **phase)
    stage = {"stage": "answers", "num_steps": num_steps - done, "first_step": done}
    return distill(*models, answers, training=training, seed=seed, **stage, **more)


@compression(bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count = 3,
    config: dict = {},
    student: TaskModel | str | None = None,
    steps_per_layer: Whole | None = None,
    factors: Factors = FACTORS,
    earlier_rate: Share = 0.1,
    alpha: Share = 0.5,
    temperature: Positive = 1.0,
):
    """Distils a fine-tuned teacher into a MobileBERT: its layers in phases, then its answers.

    Args:
        task_model: the teacher, `TaskModel`.
        num_layers: L of the student, which divides the teacher's. config: fields of `BertConfig` in which it differs
            from the paper's proportions, such as {"num_ffn": 2, "attention_input": "bottleneck"} for the tiny one.
        student: start from this instead, such as a result of `mobilebert_general`.
        steps_per_layer: updates of each phase; default: a third of all updates go to the phases; 0: no phases.
        factors: of the losses in a phase, before they are divided by L; a loss that is not named is left out.
        earlier_rate: share of an update that earlier layers make; 0 freezes them.
        alpha: share of the teacher's answers against the labels. temperature: T, of both logits.
    Returns:
        `TaskModel` without the projections.
    """
    small = make_student(task_model, student, num_layers, config, seed)
    answers = {"label": (1.0 - alpha, true_labels), "soft": (alpha, soft_targets(temperature))}
    phases = steps_per_layer, factors, earlier_rate
    return learn(task_model, small, dataset, answers, *phases, training=training, seed=seed)


@compression(data="unlabelled", bert=True)
def mobilebert_general(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count = 3,
    config: dict = {},
    student: TaskModel | str | None = None,
    steps_per_layer: Whole | None = None,
    factors: Factors = FACTORS,
    earlier_rate: Share = 0.1,
    alpha: Share = 0.5,
    temperature: Positive = 1.0,
):
    """MobileBERT's pre-training: distils a masked-LM teacher on unlabelled text, in phases, then at masked pieces.

    Args:
        task_model: the teacher, a `TaskModel` of task "mlm". All settings are those of `mobilebert`.
    Returns:
        `TaskModel` of task "mlm".
    """
    if task_model.task != "mlm":
        raise ValueError(
            f"On unlabelled text the teacher must be a masked-LM model. Received: a {task_model.task} model. "
            "Train its head with the method masked_lm."
        )
    small = make_student(task_model, student, num_layers, config, seed)

    def label(T, S, labels, mask):
        return mlm.masked_loss(labels, S["logits"])

    def soft(T, S, labels, mask):
        return masked_mean(soft_label_loss(T["logits"], S["logits"], temperature))

    answers = {"label": (1.0 - alpha, label), "soft": (alpha, soft)}
    return learn(
        *(task_model, small, dataset, answers, steps_per_layer, factors, earlier_rate),
        training=training,
        seed=seed,
        batches=mlm.masked_stream(dataset, task_model.tokenizer, training, seed),
        outputs=lambda model, names: mlm.choosing_model(model),
        measure=lambda: mlm.masked_accuracy(small, dataset, training),
    )
