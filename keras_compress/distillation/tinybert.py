"""TinyBERT: a thin student learns what happens inside, then the answers. Jiao et al., 2020, arXiv:1909.10351.

Two stages: general (`tinybert_general`: unlabelled text, a pre-trained teacher) and on the task (`compress`: a
fine-tuned teacher; augmentation.py makes more texts). On the task the inside is learned first, then the
answers alone.

Equation map (m: layer of the student, g(m): the teacher's that it learns from, from 1; 0: the embeddings)
    L_attn   (1/h) sum_i MSE(A_i^S, A_i^T), A: scores before softmax      attention_loss (losses.py)
             or after it: in the paper worse, and slower to converge      the same
    L_hidn   MSE(H^S W_h, H^T)                                            hidden_loss (losses.py)
    L_embd   MSE(E^S W_e, E^T): the same of the embeddings' output        hidden_loss
    L_pred   -softmax(z^T / t) . log_softmax(z^S / t)                     soft_cross_entropy (losses.py)
             or MSE(z^S, z^T), not in the paper                           logits_mse (losses.py)
    L        sum over m of the layers' losses, all factors 1              learn_inside
    g(m)     uniform m N / M;  top m + N - M;  bottom m                   map_layers
Departures
    A student of the teacher's sizes starts from the teacher's layers g(1) .. g(M), any other from random
    weights; the paper's starts from its general stage.
    Means are over real tokens (attention: pairs of real tokens); reduction="reference" is the authors'
    code: over padding too, scores of padded keys set to 0. L_pred is a mean over texts; theirs also over
    classes.
    One projection W with bias serves embeddings and all layers, as in the code; the paper has W_e and W_h
    (share_projection=False). Between equal widths it starts as the identity, else from Glorot's uniform
    distribution; theirs starts from a normal one of deviation .02.
    L_embd compares the embeddings' output, as the code does, not the embedding matrices.
    The teacher runs without dropout; in the authors' code its dropout is on, since it is never set to
    eval mode. The student's head keeps its dropout; theirs has a ReLU before the classifier and none.
    Both stages have warm-up, decay .01 and clipping of the global norm over what trains; the authors' inside stage
    has a constant rate and clips each parameter.
    Copies of texts leave the number of updates as it is; the paper reads full epochs of the longer set
    (updates="enlarged").
    The result is the last model; the code keeps the best on dev. So does `training.patience`.
"""

from typing import Annotated, Literal

from pydantic import Field

from keras_compress.backend import keras, tf
from keras_compress.bert.layer_maps import check_multiple, rising_layers
from keras_compress.bert.task_model import TaskModel
from keras_compress.distillation.augmentation import augmented
from keras_compress.method import Count, Positive, Share, Whole, compression, note
from keras_compress.training.distill import distill, start_student
from keras_compress.training.losses import (
    attention_loss,
    hidden_loss,
    logits_mse,
    soft_cross_entropy,
    soft_targets,
)
from keras_compress.training.settings import Training

LayerMap = Literal["uniform", "top", "bottom"] | list[int]
Losses = Annotated[list[Literal["embd", "attn", "hidn"]], Field(min_length=1)]
Reduction = Literal["masked", "reference"]
Attention = Literal["scores", "probabilities"]
PREDICTION = {"cross-entropy": soft_cross_entropy, "mse": logits_mse}


def map_layers(num_layers, num_student_layers, how="uniform"):
    """g(0), .., g(M): the teacher's layers that the student's embeddings (0) and layers learn from.

    Args:
        how: "uniform", "top", "bottom", or a list of M of the teacher's layers, from 1, rising.
    Raises:
        ValueError: if that is not possible.
    """
    n, m = num_layers, num_student_layers
    if m > n:
        raise ValueError(
            f"`num_layers` of the student must be 1 to {n}, the teacher's. Received: {m}."
        )
    if how == "uniform":
        check_multiple(n, m, "a uniform map", "give a list")
        return [layer * n // m for layer in range(m + 1)]
    if isinstance(how, str):
        return [0, *(layer + (n - m if how == "top" else 0) for layer in range(1, m + 1))]
    return [0, *rising_layers("The layers of `layer_map`", how, m, 1, n)]


def projection(width, student_width, seed):
    """W: a Dense from the student's width to the teacher's, the identity where both are equal."""
    start = "identity" if student_width == width else keras.initializers.GlorotUniform(seed)
    layer = keras.layers.Dense(width, kernel_initializer=start, name=f"projection_{seed}")
    layer.build((None, None, student_width))
    return layer


def make_student(teacher, student, learned_from, seed, *sizes):
    """The student: the given model, the teacher's layers, or a thin model with random weights.

    Args:
        sizes: hidden size, number of heads and intermediate size; None: the teacher's.
    """
    names = "hidden_size", "num_heads", "intermediate_size"
    sizes = {name: size for name, size in zip(names, sizes) if size is not None}
    config = (student or teacher).config
    if all(size == getattr(config, name) for name, size in sizes.items()):
        return start_student(teacher, student, [layer - 1 for layer in learned_from[1:]], seed)
    if student:
        raise ValueError(
            f"Sizes must be those of the `student` given. Received: {sizes}. Leave them out."
        )
    return thin_student(teacher, len(learned_from) - 1, **sizes, seed=seed)


def thin_student(teacher, num_layers, seed=0, **sizes):
    """A student of other sizes with random weights; nothing in it is factorized or shared."""
    plain = {"embedding_size": None, "adapter": "linear", "embedding_norm": "hidden"}
    plain |= {"sharing": "none", "num_groups": 1, "num_layers": num_layers}
    plain |= {"heads_per_layer": None, "ffn_per_layer": None}
    config = teacher.config.replace(**plain, **sizes)
    return TaskModel(config, teacher.tokenizer, teacher.task, teacher.labels, seed=seed)


def learn_inside(
    teacher, small, dataset, learned_from, losses, how, share_projection, *, seed, **settings
):
    """Trains a student on the teacher's embeddings, attention and hidden states.

    Args:
        how: reduction and attention, see `attention_loss`. settings: of `distill`.
    """
    reduction, _ = how
    if settings["training"].cache_teacher and reduction == "reference":
        raise ValueError(
            '`cache_teacher` keeps nothing of padding, over which reduction="reference" averages. '
            "Received: both. Leave one out."
        )
    widths = teacher.config.hidden_size, small.config.hidden_size
    W_h = projection(*widths, seed=seed)
    W_e = W_h if share_projection else projection(*widths, seed=seed + 1)
    pairs = list(enumerate(learned_from))[1:]  # (m, g(m))

    def embd(T, S, labels, mask):  # L_embd = MSE(E^S W_e, E^T)
        return hidden_loss(T["hidden_states", 0], W_e(S["hidden_states", 0]), mask, reduction)

    def attn(T, S, labels, mask):  # sum over m of L_attn
        scores = ((T["attention_scores", n - 1], S["attention_scores", m - 1]) for m, n in pairs)
        return tf.add_n([attention_loss(*pair, mask, *how) for pair in scores])

    def hidn(T, S, labels, mask):  # sum over m of L_hidn = MSE(H^S W_h, H^T)
        states = ((T["hidden_states", n], W_h(S["hidden_states", m])) for m, n in pairs)
        return tf.add_n([hidden_loss(*pair, mask, reduction) for pair in states])

    terms, projections = {"embd": embd, "attn": attn, "hidn": hidn}, {"embd": W_e, "hidn": W_h}
    return distill(
        teacher,
        small,
        dataset,
        {name: (1.0, terms[name]) for name in losses},  # L
        stage="inside",
        layers=[projections[name] for name in losses if name in projections],
        seed=seed,
        **settings,
    )


@compression(bert=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count = 3,
    hidden_size: Count | None = None,
    num_heads: Count | None = None,
    intermediate_size: Count | None = None,
    student: TaskModel | str | None = None,
    layer_map: LayerMap = "uniform",
    losses: Losses = ["embd", "attn", "hidn"],
    reduction: Reduction = "masked",
    attention: Attention = "scores",
    share_projection: bool = True,
    prediction: Literal[tuple(PREDICTION)] = "cross-entropy",
    temperature: Positive = 1.0,
    inside_share: Share = 0.5,
    copies: Whole = 0,
    updates: Literal["plain", "enlarged"] = "plain",
    mlm: Annotated[TaskModel | str | None, "mlm"] = None,
    vectors: str | dict | None = None,
):
    """Distils a fine-tuned teacher into a thin student.

    Args:
        task_model: the teacher, `TaskModel`.
        num_layers, hidden_size, num_heads, intermediate_size: of the student. If all sizes are the teacher's it
            starts from the teacher's layers g(1) .. g(M), else from random weights.
        student: start from this instead, such as the result of the general stage.
        layer_map: see `map_layers`. losses: of the inner losses "embd", "attn", "hidn". reduction,
            attention: see `attention_loss`. share_projection: one projection for embeddings and layers, or one each.
        prediction: how answers are compared: soft "cross-entropy" at `temperature`, t, or "mse" of the logits.
        inside_share: share of the updates in which the inside is learned; the rest is for the answers.
        copies: changed copies of each training text that are added; needs `mlm`, a `TaskModel` of task
            "mlm" or a source of weights. vectors: word vectors for words of several pieces, {word: vector}
            or the path of a text file in GloVe's form; None: the masked-LM model's own embedding matrix.
        updates: epochs are counted in "plain" texts, so that copies leave the number of updates as it is, or
            in those of the "enlarged" set, as in the paper: 4 copies make up to 5 times as many.
    Returns:
        `TaskModel`, without the projection.
    """
    learned_from = map_layers(task_model.config.num_layers, num_layers, layer_map)
    sizes = hidden_size, num_heads, intermediate_size
    small = make_student(task_model, student, learned_from, seed, *sizes)
    texts = dataset.train.texts
    if copies:
        folder = training.folder and f"{training.folder}/augmented"
        dataset = augmented(dataset, mlm, copies=copies, vectors=vectors, seed=seed, folder=folder)
    elif (mlm, vectors, updates) != (None, None, "plain"):
        raise ValueError(
            "`mlm`, `vectors` and `updates` need `copies` of 1 or more. Received: 0. Set `copies`."
        )
    num_steps = training.num_steps(len(dataset.train.texts if updates == "enlarged" else texts))
    num_inside = round(inside_share * num_steps)
    if 0.0 < inside_share < 1.0:
        num_inside = min(max(num_inside, 1), num_steps - 1)  # each stage has an update
    num_answers = num_steps - num_inside
    note(learned_from=learned_from, num_inside=num_inside, num_answers=num_answers)
    if num_inside:
        inner = learned_from, losses, (reduction, attention), share_projection
        early = training.replace(patience=None)  # dev says little of a head that is not trained yet
        stage = {"training": early, "num_steps": num_inside, "seed": seed}
        learn_inside(task_model, small, dataset, *inner, **stage)

    if not num_answers:
        return small
    return distill(
        task_model,
        small,
        dataset,
        {"pred": (1.0, soft_targets(temperature, PREDICTION[prediction]))},  # L_pred
        stage="answers",
        num_steps=num_answers,
        first_step=num_inside,
        training=training,
        seed=seed,
    )


@compression(data="unlabelled", trained_head=False, bert=True)
def tinybert_general(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers: Count = 3,
    hidden_size: Count | None = None,
    num_heads: Count | None = None,
    intermediate_size: Count | None = None,
    student: TaskModel | str | None = None,
    layer_map: LayerMap = "uniform",
    losses: Losses = ["embd", "attn", "hidn"],
    reduction: Reduction = "masked",
    attention: Attention = "scores",
    share_projection: bool = True,
):
    """TinyBERT's general stage: a student learns the inside of a pre-trained teacher on unlabelled text.

    Args:
        task_model: any encoder. The other settings are those of `tinybert`.
    Returns:
        `TaskModel` of the teacher's task; its head is not trained.
    """
    learned_from = map_layers(task_model.config.num_layers, num_layers, layer_map)
    note(learned_from=learned_from, num_answers=0)
    sizes = hidden_size, num_heads, intermediate_size
    small = make_student(task_model, student, learned_from, seed, *sizes)
    inner = learned_from, losses, (reduction, attention), share_projection
    training = training.replace(patience=None, evaluations=0)
    return learn_inside(task_model, small, dataset, *inner, training=training, seed=seed)
