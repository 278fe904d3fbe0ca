"""The engine of all distillation: a frozen teacher, a student, and losses between their named outputs.

    teacher -> T ──────┐
    student -> S ──────┼─> loss(T, S, labels, mask), a scalar each -> weighted sum -> update
    labels, mask ──────┘

A method writes its losses as functions of named outputs: T["logits"], S["pooled"],
T["hidden_states", 3] (0: the embeddings' output), T["hidden_states", 3, "cls"] (its [CLS] vector),
S["attention_scores", 0] (layer 0). The engine runs these functions once on symbols. From what they
read it learns which outputs to build, what to cache, and what must be comparable.
"""

import logging

from keras_compress.backend import keras, tf
from keras_compress.bert.checkpoints import with_head
from keras_compress.method import check_length, check_not_quantized
from keras_compress.training.loop import fit, stream
from keras_compress.training.optimizer import adamw
from keras_compress.training.teacher_cache import cache_outputs

log = logging.getLogger(__name__)


def output_name(key):
    """("hidden_states", 3, "cls") -> "hidden_states/3/cls"."""
    return key if isinstance(key, str) else "/".join(map(str, key))


def named_outputs(task_model, keys):
    """A `keras.Model` with a task model's weights: inputs -> {output name: output}.

    Raises:
        ValueError: if the model has no such output.
    """
    keys = [(key,) if isinstance(key, str) else key for key in keys]
    outputs = task_model.features(sorted({kind for kind, *_ in keys}))
    tensors = {}
    for kind, *place in keys:
        tensor = outputs.output[kind]
        if place and not place[0] < len(tensor):
            raise ValueError(
                f"A layer of `{kind}` must be below {len(tensor)}. Received: {place[0]}. "
                "Choose among the layers that the model has."
            )
        tensor = tensor[place[0]] if place else tensor
        tensors[output_name((kind, *place))] = tensor[:, 0] if place[1:] == ["cls"] else tensor
    return keras.Model(outputs.input, tensors)


class Outputs(dict):
    """Outputs by name: outputs["hidden_states", 3] reads "hidden_states/3"."""

    def __getitem__(self, key):
        return super().__getitem__(output_name(key))


class _Symbols(Outputs):
    """Symbols in place of outputs; `shapes` tells which outputs were read, by key."""

    def __init__(self, task_model, outputs):
        super().__init__()
        self.task_model, self.outputs, self.shapes = task_model, outputs, {}

    def __getitem__(self, key):
        if key not in self.shapes:
            self.shapes[key] = self.outputs(self.task_model, [key]).output[output_name(key)].shape
            self[output_name(key)] = tf.compat.v1.placeholder(tf.float32, self.shapes[key])
        return super().__getitem__(key)


def outputs_read(losses, teacher, student, outputs=named_outputs):
    """Runs losses once on symbols, to learn which outputs they read.

    Returns:
        ([teacher's keys], [student's keys]).
    Raises:
        ValueError: if these losses cannot compare the two models.
    """
    T, S = _Symbols(teacher, outputs), _Symbols(student, outputs)
    of_tokens = teacher.task in ("tagging", "mlm")

    @tf.function(autograph=False)
    def run():
        labels = tf.compat.v1.placeholder(tf.int32, (None, None) if of_tokens else (None,))
        mask = tf.compat.v1.placeholder(tf.int32, (None, None))
        for loss in losses:
            loss(T, S, labels, mask)

    for model in (teacher, student):
        check_not_quantized(model)
    if (teacher.task, teacher.labels) != (student.task, student.labels):
        raise ValueError(
            "Teacher and student must have one task and the same labels. Received: "
            f"{teacher.task} {list(teacher.labels)[:8]} and {student.task} {list(student.labels)[:8]}. "
            "Load the student under a new head."
        )
    way_out = (
        "Take a student of the teacher's sizes, a method with a projection, or losses on logits."
    )
    if of_tokens:
        check_same_pieces(teacher, student)
    problem = None
    try:
        run.get_concrete_function()
    except ValueError as error:
        problem = error
    if any(len(shape) > 2 for shape in (*S.shapes.values(), *T.shapes.values())):
        check_same_pieces(teacher, student)
    heads = {shape[1] for symbols in (T, S) for shape in symbols.shapes.values() if len(shape) == 4}
    if len(heads) > 1:
        raise ValueError(
            "Attention is compared head by head, so `num_heads` of teacher and student must be equal. "
            f"Received: {teacher.config.num_heads} and {student.config.num_heads}. {way_out}"
        )
    if problem:
        raise ValueError(
            "The losses must be able to compare the outputs of teacher and student. Received: "
            f"{str(problem).strip().splitlines()[0]}. {way_out}"
        ) from problem
    return list(T.shapes), list(S.shapes)


def same_pieces(teacher, student):
    """Whether both models cut a text into the same pieces."""
    ours, theirs = (
        # A special piece that is written in a text is rare, and both get the student's ids.
        (model.tokenizer.vocab, {**model.tokenizer.switches(), "special_in_text": None})
        for model in (student, teacher)
    )
    return ours == theirs and student.tokenizer.lowercase == teacher.tokenizer.lowercase


def check_same_pieces(teacher, student):
    """Raises ValueError unless tokens of both models can be compared one by one."""
    if not same_pieces(teacher, student):
        teacher, student = teacher.tokenizer, student.tokenizer
        raise ValueError(
            "Tokens can be compared only if both models cut texts alike. Received: "
            f"{len(teacher.vocab)} and {len(student.vocab)} pieces, lowercase {teacher.lowercase} and "
            f"{student.lowercase}. Take losses on the logits of whole texts."
        )


class Distiller(keras.Model):
    """Trains a student to agree with a teacher.

    Args:
        teacher: callable, the teacher's side of a batch -> its outputs by name. It is not tracked: no
            checkpoint holds it, no optimizer sees it.
        student: `keras.Model`, inputs -> its outputs by name.
        losses: {name: function, see `distill`}. weights: {name: number, or `tf.Variable` of a schedule}.
        layers: layers that the losses use and that train with the student.
    """

    def __init__(self, teacher, student, losses, weights, layers=()):
        super().__init__()
        self.student, self.own_layers = student, list(layers)
        self._teacher, self._losses, self._weights = teacher, losses, dict(weights)
        self.means = {name: keras.metrics.Mean(name=name) for name in ("loss", *weights)}

    @property
    def metrics(self):
        return list(self.means.values())

    def call(self, inputs, training=None):
        return self.student(inputs["student"], training=training)

    def train_step(self, data):
        inputs, labels = data
        teacher = self._teacher(inputs["teacher"])
        T = Outputs({name: tf.stop_gradient(value) for name, value in teacher.items()})
        with tf.GradientTape() as tape:
            S = Outputs(self.student(inputs["student"], training=True))
            mask = inputs["student"]["input_mask"]
            terms = {name: loss(T, S, labels, mask) for name, loss in self._losses.items()}
            loss = tf.add_n([self._weights[name] * term for name, term in terms.items()])
            share = loss / tf.distribute.get_strategy().num_replicas_in_sync
        self.optimizer.minimize(share, self.trainable_variables, tape=tape)
        for name, value in {"loss": loss, **terms}.items():
            self.means[name].update_state(value)
        return {name: mean.result() for name, mean in self.means.items()}


class _WeightSchedules(keras.callbacks.Callback):
    """Sets scheduled weights of losses before each update. They are variables, so nothing is traced again."""

    def __init__(self, schedules, variables):
        super().__init__()
        self.schedules, self.variables = schedules, variables

    def on_train_batch_begin(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.numpy())
        for name, schedule in self.schedules.items():
            self.variables[name].assign(schedule(step))


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
    callbacks=(),
    batches=None,
    measure=None,
):
    """Trains a student in place.

    Args:
        teacher, student: `TaskModel`s; the teacher stays as it is.
        losses: {name: (weight, function)}. A weight is a number or a schedule, update -> number; a loss
            of weight 0 is left out. A function takes (T, S, labels, mask) to a scalar; mask, int32
            (batch, seq), is the student's.
        training, seed, stage, num_steps, callbacks, measure: see `loop.fit`. With
            `training.cache_teacher` the teacher runs once per text that is read (teacher_cache.py).
        first_step: batches that an earlier stage has seen; this stage goes on after them.
        layers: layers that the losses use and that train with the student, such as projections.
        outputs: (task model, keys) -> `keras.Model` of these outputs, where others than
            `named_outputs` are compared.
        batches: (first, last) -> tf.data of (student's inputs, labels), if texts are changed on the way;
            both models then read the same ids, so they need one vocabulary.
    Returns:
        The student, its curve longer by what `fit` measured.
    Raises:
        ValueError: if the losses cannot compare the two models; see `fit`.
    """
    weights = {name: weight for name, (weight, _) in losses.items() if callable(weight) or weight}
    if not weights:
        raise ValueError(
            "A loss must have a weight above 0. Received: none. Raise one of the weights."
        )
    losses = {name: losses[name][1] for name in weights}
    num_steps = num_steps or training.num_steps(len(dataset.train.texts))
    check_length(student, training)
    teacher_keys, student_keys = outputs_read(losses.values(), teacher, student, outputs)
    same = same_pieces(teacher, student)
    if batches:
        check_same_pieces(teacher, student)
    if batches and training.cache_teacher:
        raise ValueError(
            "`cache_teacher` needs the same texts in every epoch. Received: texts that are masked anew. "
            "Leave it out."
        )
    if not same:
        unknown = dataset.unknown_rate(student.tokenizer, "train", training.max_length)
        log.log(
            logging.WARNING if unknown > 0.1 else logging.INFO,
            "the student's vocabulary is another than the teacher's; %.1f %% of the pieces of its "
            "training texts are unknown to it",
            100 * unknown,
        )
    schedules = {name: weight for name, weight in weights.items() if callable(weight)}
    variables = {
        name: tf.Variable(schedule(0), dtype=tf.float32) for name, schedule in schedules.items()
    }
    if schedules:
        callbacks = [_WeightSchedules(schedules, variables), *callbacks]
    frozen, learning = outputs(teacher, teacher_keys), outputs(student, student_keys)
    run_teacher = frozen if not training.cache_teacher else lambda inputs, training: inputs
    model = Distiller(
        lambda inputs: run_teacher(inputs, training=False),
        learning,
        losses,
        weights | variables,
        layers,
    )
    model.compile(adamw(training, num_steps), jit_compile=False)
    batches = batches or (lambda *span: stream(dataset, student.tokenizer, training, seed, *span))
    cached = None

    def paired(first, last):
        nonlocal cached
        first, last = first + first_step, last + first_step
        texts = batches(first, last)
        if training.cache_teacher:  # made at the first batch: a finished stage asks for none
            cached = cached or cache_outputs(
                frozen,
                dataset,
                teacher.tokenizer,
                student.tokenizer,
                training,
                seed,
                first_step,
                first_step + num_steps,
            )
            answers = cached(first, last)
        elif same:
            return texts.map(
                lambda inputs, labels: ({"student": inputs, "teacher": inputs}, labels)
            )
        else:
            answers = stream(
                dataset, teacher.tokenizer, training, seed, first, last, order_by=student.tokenizer
            ).map(lambda inputs, labels: inputs)
        return tf.data.Dataset.zip((texts, answers)).map(
            lambda batch, teacher: ({"student": batch[0], "teacher": teacher}, batch[1])
        )

    student.curve += fit(
        model,
        student,
        dataset,
        training.replace(cache_teacher=False),
        seed=seed,
        stage=stage,
        num_steps=num_steps,
        callbacks=callbacks,
        batches=paired,
        measure=measure,
        made_from=[teacher.history, sorted(weights), first_step],
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
    student = with_head(student, teacher.task, teacher.labels, seed=seed)
    depth = student.config.num_layers
    if student.config.architecture != "bert" or depth == len(layers):  # shared layers stay shared
        return student
    if depth < len(layers):
        raise ValueError(
            f"`student` must have `num_layers` layers or more. Received: {depth} and {len(layers)}. Set "
            f"num_layers={depth}, or give a deeper student."
        )
    log.warning(
        "warning: of the %d layers of `student` the bottom %d are kept, as `num_layers` asks for",
        depth,
        len(layers),
    )
    return student.keep_layers(range(len(layers)), seed=seed)
