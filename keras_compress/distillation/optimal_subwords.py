"""Optimal subwords and shared projections: a narrow student with few word pieces. Zhao et al., 2019, arXiv:1909.11687.

Two ways: `optimal_subwords_general` (unlabelled text: teacher and student learn masked words together; the student is
fine-tuned afterwards) and `compress` (a fine-tuned teacher, no pre-training).

Equation map
    dual training                                                             mixed_words.py
    L_down and/or L_up                                                        shared_projections.py
    L_down and/or L_up + eps L_mlm(teacher) + L_mlm(student)                  optimal_subwords_general
Departures
    The student starts as D theta_T D^T at the start of D, its word table so from table 2. The paper's: random weights.
    p_DT, eps and the factor of the projection loss are our choices.
    On a task (not in the paper) table 2 learns first, alone: on mixed words the teacher is to answer as on its own.
    The student then learns the teacher's answers, each on its own pieces. Tagging needs the teacher's vocabulary.
"""

from typing import Literal

from keras_compress import datasets
from keras_compress.backend import tf
from keras_compress.bert.checkpoints import with_head
from keras_compress.bert.layer_maps import select_layers
from keras_compress.distillation import mixed_words as words
from keras_compress.distillation.shared_projections import SharedProjections
from keras_compress.method import BelowOne, Count, NotNegative, Positive, Share, compression, note
from keras_compress.pretraining import masked_lm
from keras_compress.training.distill import Distiller, distill, named_outputs
from keras_compress.training.loop import fit
from keras_compress.training.losses import masked_mean, soft_targets
from keras_compress.training.optimizer import adamw
from keras_compress.training.settings import Training

Projection = Literal["none", "down", "up", "both"]
SIZES = "hidden_size", "num_heads", "intermediate_size"


def make_student(
    teacher, dataset, vocab_size, corpus, min_count, num_layers, *sizes, training, seed
):
    """The student: theta_S = D theta_T D^T at the start of D, the first rows and columns of each variable.

    Its vocabulary is learned on the training texts and the corpus; what it does to texts is noted.

    Args:
        sizes: hidden size, number of heads and intermediate size; None: the teacher's. Others: see `compress`.
    Returns:
        (`TaskModel`, the teacher's layers that it starts from).
    Raises:
        ValueError: if it would be wider than the teacher.
    """
    names, before, tokenizer = SIZES, teacher.config, teacher.tokenizer
    sizes = {name: size or getattr(before, name) for name, size in zip(names, sizes)}
    widths = {name: getattr(before, name) for name in (*names, "embedding_size")}
    if before.adapter_shapes or any(sizes[name] > widths[name] for name in names[::2]):
        raise ValueError(
            "A student must be as wide as its teacher or narrower, the teacher's word table as wide as its layers. "
            f"Received: {sizes} of {widths}. Lower them, or take a teacher without `embedding_size`."
        )
    kept = select_layers(before.num_layers, num_layers or before.num_layers, "last-of-block")
    note(layers=kept)
    if vocab_size != "teacher":
        texts = [part for x in dataset.train.texts for part in ([x] if isinstance(x, str) else x)]
        if corpus is not None:
            texts += datasets.load(corpus, task="unlabelled").train.texts
        tokenizer = words.learn_wordpiece(texts, vocab_size, tokenizer, min_count)
    split, length = "dev" if dataset.dev else "train", training.max_length
    note(pieces=len(tokenizer.vocab), unknown=dataset.unknown_rate(tokenizer, split, length))
    per_text = (dataset.lengths(split, x, length).mean() for x in (teacher.tokenizer, tokenizer))
    note(looked_at=split, pieces_per_text=[*map(float, per_text)])
    plain = {"num_layers": len(kept), "sharing": "none", "num_groups": 1}
    config = before.replace(vocab_size=len(tokenizer.vocab), **plain, **sizes)
    weights = teacher.keep_layers(kept).weights()
    for name in {"word_embeddings/embeddings", "mlm_bias/bias"} & weights.keys():
        weights[name] = words.spelled_rows(weights[name], teacher.tokenizer, tokenizer)
    small = teacher.rebuilt(config, {}, tokenizer=tokenizer, only=(), seed=seed)
    shapes = {name: tuple(map(slice, value.shape)) for name, value in small.weights().items()}
    small.set_weights({name: weights[name][shape] for name, shape in shapes.items()})
    return small, kept


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
    compare_every: Count = 5,
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
        compare_every: they are computed at each such update, times this number; 1 is the paper's, and slower.
        p_dt: chance that a word of the teacher's texts is cut with the student's vocabulary, while table 2 learns.
        align_share: share of the updates in which table 2 learns. temperature: T of the soft targets.
    Returns:
        `TaskModel` with a tokenizer of its own, without table 2 and projections.
    """
    sizes = num_layers, hidden_size, num_heads, intermediate_size
    about, settings = (vocab_size, corpus, min_count), {"training": training, "seed": seed}
    small, kept = make_student(task_model, dataset, *about, *sizes, **settings)
    num_steps, num_align = training.num_steps(len(dataset.train.texts)), 0
    if vocab_size != "teacher":
        num_align = min(round(align_share * num_steps), num_steps - 1)
    note(num_align=num_align)
    if num_align:
        stage = {**settings, "num_steps": num_align, "share": p_dt}
        rows, curve = align(task_model, small.tokenizer, dataset, **stage)
        small.curve += curve
        table = {"word_embeddings/embeddings": rows[:, : small.config.hidden_size]}
        small.set_weights(table, only=table)
    shared = SharedProjections(task_model, small, kept, projection, compare_every)
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
    compare_every: Count = 5,
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
    about = vocab_size, None, min_count, num_layers, hidden_size, num_heads, intermediate_size
    small, kept = make_student(teacher, dataset, *about, training=training, seed=seed)
    shared = SharedProjections(teacher, small, kept, projection, compare_every)
    both = teacher.tokenizer, small.tokenizer
    dual, _ = words.dual_model(teacher, small.tokenizer)

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
    mixed = words.mixed_stream(dataset, both, training, seed, p_dt, masked=True)
    own = masked_lm.masked_stream(dataset, small.tokenizer, training, seed, whole_word=True)

    def batches(*span):
        zipped = tf.data.Dataset.zip((own(*span), mixed(*span)))
        return zipped.map(lambda batch, others: (*batch, others[0]))

    model = Distiller(lambda read: read, masked_lm.choosing_model(small), losses, [dual, shared])
    num_steps = training.num_steps(len(dataset.train.texts))
    model.compile(adamw(training, num_steps), jit_compile=False)
    measure = lambda: masked_lm.masked_accuracy(small, dataset, training)
    settings = {"seed": seed, "stage": "dual", "batches": batches, "measure": measure}
    small.curve += fit(model, small, dataset, training, **settings)
    shared.note()
    return small
