"""TinyBERT: a thin student learns what happens inside, then the answers. Jiao et al., 2020, arXiv:1909.10351.

Two stages: general (unlabelled text, a pre-trained teacher) and on the task (a fine-tuned teacher; see augmentation.py
for more texts). On the task first what happens inside is learned, then the answers alone.

Equation map (m: layer of the student, g(m): the teacher's that it learns from, counted from 1; 0: the embeddings)
    L_attn   (1/h) sum_i MSE(A_i^S, A_i^T), A: scores before softmax        attention_loss
    L_hidn   MSE(H^S W_h, H^T)                                              hidden_loss
    L_embd   MSE(E^S W_e, E^T): the same of the embeddings' output          hidden_loss
    L_pred   -softmax(z^T / t) . log_softmax(z^S / t)           soft_target_loss (distiller.py), kind "ce", over t^2
    L        sum over m of the layers' losses, all factors 1                compress
    g(m)     uniform m N / M;  top m + N - M;  bottom m                     map_layers
Departures
    A student of the teacher's sizes starts from the teacher's layers g(1) .. g(M), any other one from random weights;
    the paper's starts from its general stage.
    Means are over real tokens (attention: pairs of real tokens); reduction="reference" is the authors' code: over
    padding too, scores of padded keys set to 0.
    One projection W with bias serves embeddings and all layers, as in the code; the paper has W_e and W_h
    (share_projection=False). Between equal widths it starts as the identity.
    L_embd compares the embeddings' output, as the code does, not the word tables.
    The result is the last model; the code keeps the best on dev. Ours does, too, with `training.patience`.
"""

from keras_compress.backend import keras, tf
from keras_compress.bert.layer_maps import check_multiple, rising_layers
from keras_compress.bert.task_model import TaskModel
from keras_compress.distillation.augmentation import augmented
from keras_compress.training.distill import (
    check_pair,
    check_soft_targets,
    distill,
    masked_mean,
    soft_target_loss,
    start_student,
)
from keras_compress.training.loop import Training, check_fit, check_trained
from keras_compress.training.settings import check_choice, is_whole

MAPS, PARTS, REDUCTIONS = (
    ("uniform", "top", "bottom"),
    ("embd", "attn", "hidn"),
    ("masked", "reference"),
)


def map_layers(num_layers, num_student_layers, how="uniform"):
    """g(0), .., g(M): the teacher's layers that the student's embeddings (0) and layers learn from.

    Args:
        how: "uniform", "top", "bottom", or a list of M of the teacher's layers, from 1, rising.
    Raises:
        ValueError: if that is not possible.
    """
    n, m = num_layers, num_student_layers
    if not is_whole(m, 1, n):
        raise ValueError(
            f"`num_layers` of the student must be 1 to {n}, the teacher's. Received: {m!r}."
        )
    if isinstance(how, (list, tuple)):
        return [0, *rising_layers("The layers of `layer_map`", how, m, 1, n)]
    if how not in MAPS:
        raise ValueError(
            f"`layer_map` must be one of {', '.join(MAPS)}, or a list. Received: {how!r}."
        )
    if how == "uniform":
        check_multiple(n, m, "a uniform map", "give a list")
    return [0] + [
        {"uniform": layer * n // m, "top": layer + n - m, "bottom": layer}[how]
        for layer in range(1, m + 1)
    ]


def check_layers(depth, *, num_layers=3, layer_map="uniform", **_):
    """How many layers the student has. Raises ValueError if a teacher of `depth` layers cannot teach it."""
    return len(map_layers(depth, num_layers, layer_map)) - 1


def attention_loss(teacher, student, mask, reduction="masked"):
    """Mean squared difference of the attention scores.

    Args:
        teacher, student: float (batch, heads, seq, seq), scaled by 1 / sqrt(head size), before mask and softmax.
        mask: int32 (batch, seq).
        reduction: "masked": over heads and pairs of real tokens; "reference": over everything, with scores of padded
            keys set to 0.
    Returns:
        float scalar.
    """
    mask = tf.cast(mask, teacher.dtype)
    if reduction == "reference":
        keys = mask[:, None, None, :]
        return masked_mean(tf.square((student - teacher) * keys))
    pairs = mask[:, None, :, None] * mask[:, None, None, :]  # (batch, 1, seq, seq)
    return masked_mean(tf.square(student - teacher), tf.broadcast_to(pairs, tf.shape(teacher)))


def hidden_loss(teacher, student, mask, reduction="masked"):
    """Mean squared difference of hidden states, (batch, seq, hidden), over real tokens ("reference": over all)."""
    values = tf.reduce_mean(tf.square(student - teacher), axis=-1)  # (batch, seq)
    return masked_mean(values, mask if reduction == "masked" else None)


def thin_student(teacher, num_layers, seed=0, **sizes):
    """A student of other sizes with random weights; sizes left out are the teacher's. No narrow table, none shared."""
    config = teacher.config.replace(
        num_layers=num_layers,
        embedding_size=None,
        adapter="linear",
        embedding_norm="hidden",
        sharing="none",
        num_groups=1,
        **sizes,
    )
    return TaskModel(config, teacher.tokenizer, teacher.task, teacher.labels, seed=seed)


def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_layers=3,
    hidden_size=None,
    num_heads=None,
    intermediate_size=None,
    student=None,
    layer_map="uniform",
    losses=PARTS,
    reduction="masked",
    share_projection=True,
    temperature=1.0,
    inside_share=0.5,
    copies=0,
    mlm=None,
    vectors=None,
):
    """Distils a teacher into a thin student.

    Args:
        task_model: the teacher: a `TaskModel` of the data's task; with unlabelled data any encoder (general stage, no
            loss on answers: the student's head is not trained).
        num_layers, hidden_size, num_heads, intermediate_size: of the student. If all sizes are the teacher's it starts
            from the teacher's layers g(1) .. g(M), else from random weights.
        student: start from this instead, such as the result of the general stage (see `start_student`).
        layer_map: see `map_layers`. losses: of the inner ones "embd", "attn", "hidn". reduction: see `attention_loss`.
        share_projection: one projection for embeddings and layers, or one each.
        temperature: t of the answers.
        inside_share: share of the updates in which what happens inside is learned; the rest is for the answers. With
            0 and 1 one of the two is left out.
        copies: changed copies of each training text that are added; needs `mlm`, a `TaskModel` of task "mlm" or a
            source of one. vectors: word vectors for words of several pieces, {word: vector} or the path of a text file
            in GloVe's form; None: the masked-LM model's own. The augmentation's other settings stay the paper's. The
            number of updates stays that of the plain texts: n epochs read n texts for each, so 2 copies want 3 epochs.
    Returns:
        `TaskModel`, without the projection.
    Raises:
        ValueError: if teacher and student cannot be compared, or a setting is out of range.
    """
    general = dataset.task == "unlabelled"
    num_steps = training.num_steps(len(dataset.train.texts))
    if general and (temperature, inside_share) != (1.0, 0.5):
        raise ValueError(
            "`temperature` and `inside_share` are for answers, which unlabelled text does not have. "
            f"Received: {temperature} and {inside_share}. Leave them out."
        )
    if not general:
        check_fit(task_model, dataset)
        if num_steps < 2 and 0.0 < inside_share < 1.0:
            raise ValueError(
                f"Both stages need an update. Received: {num_steps} in all. Take more `epochs`, or "
                "`inside_share` 0 or 1."
            )
    if (
        not isinstance(losses, (list, tuple))
        or not losses
        or not all(part in PARTS for part in losses)
    ):
        raise ValueError(
            f'`losses` must be a list of some of {", ".join(PARTS)}, such as ["attn"]. '
            f"Received: {losses!r}."
        )
    check_choice("reduction", reduction, REDUCTIONS)
    if not 0.0 <= inside_share <= 1.0:
        raise ValueError(f"`inside_share` must be in [0, 1]. Received: {inside_share}.")
    if not is_whole(copies, 0) or not copies and (mlm, vectors) != (None, None):
        raise ValueError(
            "`copies` must be a whole number of 0 or more, and `mlm` and `vectors` need it. Received: "
            f"{copies!r}, {'no' if mlm is None else 'an'} mlm, {'no' if vectors is None else 'some'} "
            "vectors."
        )
    check_soft_targets(temperature)
    if training.cache_teacher and reduction == "reference":
        raise ValueError(
            '`cache_teacher` keeps nothing of padding, over which reduction="reference" averages. '
            "Received: both. Leave one out."
        )
    if not general and inside_share < 1.0:
        check_trained(task_model)
    check_pair(task_model, task_model, inside=True)  # the teacher is a BERT
    learned_from = map_layers(task_model.config.num_layers, num_layers, layer_map)
    sizes = {
        "hidden_size": hidden_size,
        "num_heads": num_heads,
        "intermediate_size": intermediate_size,
    }
    asked = {name: size for name, size in sizes.items() if size is not None}
    if not all(is_whole(size, 1) for size in asked.values()):
        raise ValueError(
            f"Sizes of the student must be whole numbers of 1 or more. Received: {asked}."
        )
    other = {name: size for name, size in asked.items() if size != getattr(task_model.config, name)}
    with training.scope():
        if student is None and other:
            small = thin_student(task_model, num_layers, **other, seed=seed)
        else:
            small = start_student(
                task_model, student, [layer - 1 for layer in learned_from[1:]], seed
            )
    check_pair(task_model, small, inside=True, same_heads="attn" in losses)
    wrong = {name: size for name, size in asked.items() if size != getattr(small.config, name)}
    if wrong:
        raise ValueError(
            f"Sizes asked for must be those of the `student` given. Received: {wrong}. Leave them out."
        )
    if copies:
        dataset = augmented(
            dataset,
            mlm,
            copies=copies,
            vectors=vectors,
            seed=seed,
            folder=training.folder and f"{training.folder}/augmented",
        )
    num_inside = num_steps if general else round(inside_share * num_steps)
    if 0.0 < inside_share < 1.0 and not general:
        num_inside = min(max(num_inside, 1), num_steps - 1)  # each stage has an update
    small.history.append(
        {
            "method": "tinybert",
            "seed": seed,
            "learned_from": learned_from,
            "losses": list(losses),
            "reduction": reduction,
            "temperature": temperature,
            "num_inside": num_inside,
            "student": getattr(student, "history", student and str(student)),
            **sizes,
            "share_projection": share_projection,
            "copies": copies,
            "mlm": getattr(mlm, "history", mlm and str(mlm)),
            "vectors": vectors and str(vectors)[:200],
            "num_answers": 0 if general else num_steps - num_inside,
            "training": training.settings(),
        }
    )
    if num_inside:  # dev says little of a head that is not trained yet
        inside = training.replace(patience=None, evaluations=0 if general else training.evaluations)
        small.curve += _learn_inside(
            task_model,
            small,
            dataset,
            learned_from,
            losses,
            reduction,
            share_projection,
            num_steps=num_inside,
            training=inside,
            seed=seed,
        )
    if num_steps > num_inside:
        small.curve += distill(
            task_model,
            small,
            dataset,
            lambda teacher, student, labels, mask: {
                "pred": soft_target_loss(
                    teacher["logits"], student["logits"], temperature, "ce", mask=labels >= 0
                )
                / temperature**2
            },  # no T^2
            {"pred": 1.0},  # L_pred
            teacher_outputs=["logits"],
            student_outputs=["logits"],
            stage="answers",
            num_steps=num_steps - num_inside,
            first_step=num_inside,
            training=training,
            seed=seed,
        )
    return small


def projection(width, student_width, seed):
    """W: a Dense from the student's width to the teacher's, the identity where both are equal."""
    start = "identity" if student_width == width else keras.initializers.GlorotUniform(seed)
    layer = keras.layers.Dense(width, kernel_initializer=start, name=f"projection_{seed}")
    layer.build((None, None, student_width))
    return layer


def _learn_inside(
    teacher,
    small,
    dataset,
    learned_from,
    losses,
    reduction,
    share_projection,
    *,
    seed,
    training,
    num_steps,
):
    widths, pairs = (
        (teacher.config.hidden_size, small.config.hidden_size),
        list(enumerate(learned_from)),
    )
    with training.scope():
        inner = projection(*widths, seed=seed)  # W_h
        outer = inner if share_projection else projection(*widths, seed=seed + 1)  # W_e

    def objective(theirs, ours, labels, mask):
        parts = {}
        if "embd" in losses:
            parts["embd"] = hidden_loss(
                theirs["hidden_states/0"], outer(ours["hidden_states/0"]), mask, reduction
            )
        if "attn" in losses:
            parts["attn"] = tf.add_n(
                [
                    attention_loss(
                        theirs[f"attention_scores/{n - 1}"],
                        ours[f"attention_scores/{m - 1}"],
                        mask,
                        reduction,
                    )
                    for m, n in pairs[1:]
                ]
            )  # sum over m
        if "hidn" in losses:
            parts["hidn"] = tf.add_n(
                [
                    hidden_loss(
                        theirs[f"hidden_states/{n}"],
                        inner(ours[f"hidden_states/{m}"]),
                        mask,
                        reduction,
                    )
                    for m, n in pairs[1:]
                ]
            )
        return parts

    kinds = {
        "embd": ("hidden_states", pairs[:1], 0),
        "attn": ("attention_scores", pairs[1:], 1),
        "hidn": ("hidden_states", pairs[1:], 0),
    }  # output, places, counted from
    theirs, ours = (
        [
            f"{kind}/{pair[side] - start}"
            for kind, places, start in map(kinds.get, losses)
            for pair in places
        ]
        for side in (1, 0)
    )
    used = {"embd": outer, "hidn": inner}
    return distill(
        teacher,
        small,
        dataset,
        objective,
        dict.fromkeys(losses, 1.0),
        teacher_outputs=theirs,
        student_outputs=ours,
        projections=list(dict.fromkeys(used[name] for name in losses if name in used)),
        training=training,
        seed=seed,
        stage="inside",
        num_steps=num_steps,
    )
