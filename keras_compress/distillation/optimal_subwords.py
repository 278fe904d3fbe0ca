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
from keras_compress.training.distill import Distiller, distill, outputs_read
from keras_compress.training.loop import fit
from keras_compress.training.losses import masked_mean, soft_targets
from keras_compress.training.optimizer import adamw
from keras_compress.training.settings import Training

WORDS = "word_embeddings/embeddings"
Projection = Literal["none", "down", "up", "both"]


def student_tokenizer(teacher, dataset, length, vocab_size, corpus, min_count):
    """The student's tokenizer, learned on the training texts and a corpus; see `compress`.

    Notes the share of unknown words, and the pieces of a text before and after, on dev where there is one.
    """
    tokenizer, split = teacher.tokenizer, "dev" if dataset.dev else "train"
    if vocab_size != "teacher":
        texts = [x if isinstance(x, str) else " ".join(x) for x in dataset.train.texts]
        if corpus is not None:
            texts += datasets.load(corpus, task="unlabelled").train.texts
        tokenizer = words.learn_wordpiece(texts, vocab_size, teacher.tokenizer, min_count)
    elif corpus is not None or min_count > 1:
        raise ValueError(
            "`corpus` and `min_count` are for a vocabulary that is learned. Received: "
            f'{corpus!r} and {min_count} with `vocab_size = "teacher"`. Leave them out, or give a number of pieces.'
        )
    lengths = (dataset.lengths(split, x, length) for x in (teacher.tokenizer, tokenizer))
    note(pieces_per_text=[float(each.mean()) for each in lengths])
    note(unknown=dataset.unknown_rate(tokenizer, split, length))
    return tokenizer


def make_student(teacher, tokenizer, num_layers, *sizes, seed):
    """The student: theta_S = D theta_T D^T at the start of D, the first rows and columns of each variable.

    Args:
        sizes: hidden size, number of heads and intermediate size; None: the teacher's.
    Returns:
        (`TaskModel`, the teacher's layers that it starts from).
    Raises:
        ValueError: if it would be wider than the teacher.
    """
    before, names = teacher.config, ("hidden_size", "num_heads", "intermediate_size")
    own = {name: getattr(before, name) for name in names}
    sizes = {name: size or own[name] for name, size in zip(names, sizes)}
    if before.adapter_shapes or any(sizes[name] > own[name] for name in names[::2]):
        raise ValueError(
            "A student must be as wide as its teacher or narrower, the teacher's word table as wide as its layers. "
            f"Received: {sizes} of {own} and `embedding_size` {before.embedding_size}. Lower them, or take a teacher "
            "without `embedding_size`."
        )
    kept = select_layers(before.num_layers, num_layers or before.num_layers, "last-of-block")
    note(layers=kept)
    start = teacher.keep_layers(kept)
    weights = start.weights()
    if tokenizer is not teacher.tokenizer:
        for name in {WORDS, "mlm_bias/bias"} & weights.keys():
            weights[name] = words.spelled_rows(weights[name], teacher.tokenizer, tokenizer)
    config = start.config.replace(vocab_size=len(tokenizer.vocab), **sizes)
    small = start.rebuilt(config, {}, tokenizer=tokenizer, only=(), seed=seed)
    first = {name: tuple(map(slice, value.shape)) for name, value in small.weights().items()}
    small.set_weights({name: weights[name][rows] for name, rows in first.items()})
    return small, kept


def align(teacher, small, dataset, num_steps, share, *, training, seed):
    """Trains table 2, so that a teacher answers mixed words as its own; the student gets its first columns."""
    still = teacher.clone(config=teacher.config.replace(dropout=0.0, attention_dropout=0.0))
    still.model.trainable = False
    dual, table = words.dual_model(still, small.tokenizer)
    frozen, losses = still.features(["logits"]), {"align": (1.0, soft_targets(1.0))}
    model = Distiller(lambda own: frozen(own, training=False), dual, losses)
    model.compile(adamw(training, num_steps), jit_compile=False)
    both = teacher.tokenizer, small.tokenizer
    batches = words.mixed_stream(dataset, both, training, seed, share)
    settings = {"seed": seed, "stage": "align", "num_steps": num_steps, "batches": batches}
    quiet = training.replace(patience=None, evaluations=0, cache_teacher=False)
    small.curve += fit(model, still, dataset, quiet, **settings)
    rows = table.embeddings.numpy()[:, : small.config.hidden_size]
    small.set_weights({WORDS: rows}, only=[WORDS])


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
            "teacher": the teacher's own, so that no table 2 learns. min_count: see `learn_wordpiece`.
        num_layers, hidden_size, num_heads, intermediate_size: of the student; None: the teacher's.
        projection: which of L_down and L_up there are. projection_weight: their factor.
        compare_every: they are computed at each such update, times this number; 1 is the paper's, and slower.
        p_dt: chance that a word of the teacher's texts is cut with the student's vocabulary, while table 2 learns.
        align_share: share of the updates in which table 2 learns. temperature: T of the soft targets.
    Returns:
        `TaskModel` with a tokenizer of its own, without table 2 and projections.
    """
    about = training.max_length, vocab_size, corpus, min_count
    tokenizer = student_tokenizer(task_model, dataset, *about)
    sizes = num_layers, hidden_size, num_heads, intermediate_size
    small, kept = make_student(task_model, tokenizer, *sizes, seed=seed)
    losses = {"soft": (1.0, soft_targets(temperature))}
    outputs_read([losses["soft"][1]], task_model, small)  # refuses tagging before table 2 learns
    num_steps = training.num_steps(len(dataset.train.texts))
    num_align = min(round(align_share * num_steps), num_steps - 1)
    num_align = 0 if vocab_size == "teacher" else num_align
    if num_align:
        align(task_model, small, dataset, num_align, p_dt, training=training, seed=seed)
    shared = SharedProjections(task_model, small, kept, projection, compare_every)
    losses |= shared.losses(projection_weight)
    settings = {"num_steps": num_steps - num_align, "first_step": num_align, "layers": [shared]}
    distill(task_model, small, dataset, losses, training=training, seed=seed, **settings)
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
    about = training.max_length, vocab_size, None, min_count
    tokenizer = student_tokenizer(teacher, dataset, *about)
    sizes = num_layers, hidden_size, num_heads, intermediate_size
    small, kept = make_student(teacher, tokenizer, *sizes, seed=seed)
    shared = SharedProjections(teacher, small, kept, projection, compare_every)
    dual, _ = words.dual_model(teacher, tokenizer)
    # L = L_down and/or L_up + eps L_mlm(teacher) + L_mlm(student); T: the mixed words that the teacher reads
    teacher_loss = lambda T, S, labels, mask: masked_mean(dual(dict(T), training=True))
    student_loss = lambda T, S, labels, mask: masked_lm.masked_loss(labels, S["logits"])
    losses = {"teacher": (teacher_weight, teacher_loss), "student": (1.0, student_loss)}
    losses |= shared.losses(projection_weight)
    both = teacher.tokenizer, tokenizer
    mixed = words.mixed_stream(dataset, both, training, seed, p_dt, masked=True)
    own = masked_lm.masked_stream(dataset, tokenizer, training, seed, whole_word=True)

    def batches(*span):
        zipped = tf.data.Dataset.zip((own(*span), mixed(*span)))
        return zipped.map(lambda batch, others: (*batch, others[0]))

    model = Distiller(lambda read: read, masked_lm.choosing_model(small), losses, [dual, shared])
    model.compile(adamw(training, training.num_steps(len(dataset.train.texts))), jit_compile=False)
    measure = lambda: masked_lm.masked_accuracy(small, dataset, training)
    settings = {"seed": seed, "stage": "dual", "batches": batches, "measure": measure}
    small.curve += fit(model, small, dataset, training, **settings)
    shared.note()
    return small
