"""The engine of all distillation: a frozen teacher, a student, and losses between their named outputs.

    teacher -> T ──────┐
    student -> S ──────┼─> loss(T, S, labels, mask), a scalar each -> weighted sum -> update
    labels, mask ──────┘

A method writes its losses as functions of named outputs: T["logits"], S["pooled"],
T["hidden_states", 3] (0: the embeddings' output), T["hidden_states", 3, "cls"] (its [CLS] vector),
S["attention_scores", 0] (layer 0). The engine runs these functions once on symbols. From what they
read it learns which outputs to build, what to cache, and what must be comparable.
"""

import functools
import logging

from keras_compress.backend import keras, tf
from keras_compress.bert.checkpoints import with_head
from keras_compress.bert.tasks import TASKS
from keras_compress.method import check_free, check_length
from keras_compress.training.loop import fit, stream
from keras_compress.training.optimizer import adamw
from keras_compress.training.teacher_cache import cache_outputs

log = logging.getLogger(__name__)


def named_outputs(task_model, names):
    """A `keras.Model` with a task model's weights: inputs -> {name: output}, names such as "hidden_states/3/cls"."""
    outputs = task_model.features(sorted({name.split("/")[0] for name in names}))
    tensors = {}
    for name in names:
        kind, *places = name.split("/")
        output = outputs.output[kind]
        if isinstance(output, list):
            number = int(places.pop(0)) if places else len(output)
            if not 0 <= number < len(output):
                raise ValueError(
                    f"`{kind}` must be read with a number, 0 to {len(output) - 1} in this model, such as "
                    f'S["{kind}", 0]. Received: {name!r}.'
                )
            output = output[number]
        tensors[name] = output[:, 0] if places == ["cls"] else output
    return keras.Model(outputs.input, tensors)


class Outputs(dict):
    """Outputs by name: outputs["hidden_states", 3] reads "hidden_states/3"."""

    def __getitem__(self, key):
        return super().__getitem__(key if isinstance(key, str) else "/".join(map(str, key)))


class LossError(ValueError):
    """A loss reads what there is not, or gives no scalar."""


class _Symbols(Outputs):
    """Symbols in place of outputs, each made when it is first read."""

    def __init__(self, task_model, outputs):
        super().__init__()
        self.task_model, self.outputs = task_model, outputs

    def __missing__(self, name):
        try:
            shape = self.outputs(self.task_model, [name]).output[name].shape
        except ValueError as error:
            raise LossError(*error.args) from error
        return self.setdefault(name, tf.compat.v1.placeholder(tf.float32, shape))


def outputs_read(losses, teacher, student, outputs=named_outputs, any_heads=False):
    """Runs losses once on symbols, to learn which outputs they read (`any_heads`: of different numbers of heads).

    Returns:
        ([names of the teacher's], [names of the student's]).
    Raises:
        ValueError: if these losses cannot compare the two models.
    """
    check_free(student)
    T, S, problem = _Symbols(teacher, outputs), _Symbols(student, outputs), None
    of_tokens, places = TASKS[teacher.task].per_token, TASKS[teacher.task].answer == "softmax"

    @tf.function(autograph=False)
    def run():
        shape = (None,) if places and not of_tokens else (None, None)
        labels = tf.compat.v1.placeholder(tf.int32 if places else tf.float32, shape)
        mask = tf.compat.v1.placeholder(tf.int32, (None, None))
        for loss in losses:
            value = loss(T, S, labels, mask)
            if value.shape.rank:
                raise LossError(
                    f"A loss must give a scalar. Received: {loss.__name__} of shape {value.shape}. Take "
                    "`masked_mean(values, labels >= 0)` of training/losses.py."
                )

    try:
        run.get_concrete_function()
    except LossError:
        raise
    except ValueError as error:  # other shapes
        problem = error
    shapes = [symbol.shape for symbol in (*T.values(), *S.values())]
    of_tokens |= any(len(shape) > 2 for shape in shapes)
    if of_tokens and not same_pieces(teacher, student):
        ours, theirs = student.tokenizer, teacher.tokenizer
        raise ValueError(
            "Tokens can be compared only if both models cut texts alike. Received: "
            f"{len(theirs.vocab)} and {len(ours.vocab)} pieces, lowercase {theirs.lowercase} and "
            f"{ours.lowercase}. Take losses on the logits of whole texts, or the teacher's vocabulary "
            '(of a method that learns one: `vocab_size = "teacher"`).'
        )
    heads = {shape[1] for shape in shapes if len(shape) == 4}
    if len(heads) > 1 and not any_heads:  # 1 head would be broadcast
        counts = [m.config.heads_per_layer or m.config.num_heads for m in (teacher, student)]
        problem = "`num_heads` {} and {}".format(*counts)
    if problem:
        first_line = str(problem).strip().splitlines()[0]
        raise ValueError(
            "The losses must be able to compare the outputs of teacher and student. Received: "
            f"{first_line}. Take a student of the teacher's sizes, a method with a projection, or losses on logits."
        )
    return list(T), list(S)


def same_pieces(teacher, student):
    """Whether both models cut a text into the same pieces."""
    ours, theirs = (
        # A special piece that is written in a text is rare, and both get the student's ids.
        (model.tokenizer.vocab, {**model.tokenizer.switches(), "special_in_text": None})
        for model in (student, teacher)
    )
    return ours == theirs and student.tokenizer.lowercase == teacher.tokenizer.lowercase


class Distiller(keras.Model):
    """Trains a student to agree with a teacher, on batches (inputs, labels, what the teacher is given).

    Args:
        teacher: callable -> the teacher's outputs by name. It is not tracked: no checkpoint holds it, no
            optimizer sees it.
        student: `keras.Model`, inputs -> its outputs by name.
        losses, layers: see `distill`.
    """

    def __init__(self, teacher, student, losses, layers=()):
        super().__init__()
        self.student, self.own_layers = student, list(layers)
        self._teacher, self._losses = teacher, losses
        self.means = {name: keras.metrics.Mean(name=name) for name in ("loss", *losses)}

    @property
    def metrics(self):
        return list(self.means.values())

    def train_step(self, data):
        inputs, labels, asked = data
        T, terms, loss = Outputs(self._teacher(asked)), {}, 0.0
        with tf.GradientTape() as tape:
            S = Outputs(self.student(inputs, training=True))
            for name, (weight, function) in self._losses.items():
                terms[name] = function(T, S, labels, inputs["input_mask"])
                loss += terms[name] * (
                    weight(self.optimizer.iterations) if callable(weight) else weight
                )
            share = loss / tf.distribute.get_strategy().num_replicas_in_sync
        self.optimizer.minimize(share, self.trainable_variables, tape=tape)
        for name, value in {"loss": loss, **terms}.items():
            self.means[name].update_state(value)
        return {name: mean.result() for name, mean in self.means.items()}


def distill(
    teacher,
    student,
    dataset,
    losses,
    *,
    training,
    seed,
    stage="distill",
    num_steps=None,
    first_step=0,
    layers=(),
    outputs=named_outputs,
    batches=None,
    optimizer=adamw,
    any_heads=False,
    **settings,
):
    """Trains a student in place.

    Args:
        teacher, student: `TaskModel`s; the teacher stays as it is.
        losses: {name: (weight, function)}. A weight is a number or a schedule, update (int64 tensor) ->
            number; a loss of weight 0 is left out. A function takes (T, S, labels, mask) to a scalar;
            mask, int32 (batch, seq), is the student's.
        training, seed, stage, num_steps, settings: see `loop.fit`. With `training.cache_teacher` the
            teacher runs once per text (teacher_cache.py).
        first_step: batches that an earlier stage has seen; this stage goes on after them.
        layers: layers that the losses use and that train with the student, such as projections.
        outputs: (task model, names) -> `keras.Model` of these outputs, where others than
            `named_outputs` are compared.
        batches: (first, last) -> tf.data of (student's inputs, labels), if texts are changed on the way;
            both models then read the same ids, so they need one vocabulary.
        optimizer: (training, number of updates) -> the optimizer. any_heads: see `outputs_read`.
    Returns:
        The student, its curve longer by what `fit` measured.
    Raises:
        ValueError: if the losses cannot compare the two models; see `fit`.
    """
    losses = {name: pair for name, pair in losses.items() if pair[0]}
    if not losses:
        raise ValueError(
            "A loss must have a weight above 0. Received: none. Raise one of the weights."
        )
    if batches and training.cache_teacher:
        raise ValueError(
            "`cache_teacher` needs the same texts in every epoch. Received: texts that are masked anew. "
            "Leave it out."
        )
    check_length(student, training)
    num_steps = num_steps or training.num_steps(len(dataset.train.texts))
    read = outputs_read([f for _, f in losses.values()], teacher, student, outputs, any_heads)
    frozen, learning = (outputs(*pair) for pair in zip((teacher, student), read))
    theirs, ours = teacher.tokenizer, student.tokenizer
    same = same_pieces(teacher, student)
    if not same:
        unknown = dataset.unknown_rate(ours, "train", training.max_length)
        log.warning(
            "the student's vocabulary is another than the teacher's; %.1f %% of the pieces of its "
            "training texts are unknown to it",
            100 * unknown,
        )

    @functools.cache  # made at the first batch: a finished stage asks for none
    def answers():
        reads = ours if same else theirs  # as without a cache
        return cache_outputs(frozen, dataset, reads, ours, training, seed, num_steps)

    batches = batches or functools.partial(stream, dataset, ours, training, seed)

    def triples(first, last):
        span = first + first_step, last + first_step
        if training.cache_teacher:
            asked = answers()(*span)
        elif same:
            return batches(*span).map(lambda inputs, labels: (inputs, labels, inputs))
        else:
            asked = stream(dataset, theirs, training, seed, *span, order_by=ours)
            asked = asked.map(lambda inputs, labels: inputs)
        zipped = tf.data.Dataset.zip((batches(*span), asked))
        return zipped.map(lambda batch, asked: (*batch, asked))

    ask = lambda asked: asked if training.cache_teacher else frozen(asked, training=False)
    model = Distiller(ask, learning, losses, layers)
    model.compile(optimizer(training, num_steps), jit_compile=False)
    student.curve += fit(
        model,
        student,
        dataset,
        # What the cache holds was made here; `fit` refuses it where no loss reads the teacher.
        training.replace(cache_teacher=training.cache_teacher and not read[0]),
        seed=seed,
        stage=stage,
        num_steps=num_steps,
        batches=triples,
        **settings,
        made_from=[teacher.history, sorted(losses), first_step],
    )
    return student


def start_student(teacher, student, layers, seed):
    """The model that a student starts from.

    Args:
        teacher: `TaskModel`. student: None: the teacher's own `layers`, with its embeddings and head.
            Else a `TaskModel`, which gets a head for the teacher's task; of a BERT with more layers the
            bottom layers are kept.
        layers: list of the teacher's layers, as many as the student has.
    Returns:
        `TaskModel` of its own, with the teacher's task and labels.
    Raises:
        ValueError: if `student` has fewer layers.
    """
    if student is None:
        return teacher.keep_layers(layers, seed=seed)
    check_free(student, trained=True)
    student, wanted = with_head(student, teacher.task, teacher.labels, seed=seed), len(layers)
    depth = student.config.num_layers
    if student.config.architecture != "bert" or depth == wanted:  # shared layers stay shared
        return student
    if depth < wanted:
        raise ValueError(
            f"`student` must have `num_layers` layers or more. Received: {depth} and {wanted}. Set "
            f"num_layers={depth}, or give a deeper student."
        )
    log.warning("warning: of the %d layers of `student` the bottom %d are kept", depth, wanted)
    return student.keep_layers(range(wanted), seed=seed)
