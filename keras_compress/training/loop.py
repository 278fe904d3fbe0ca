"""Training: AdamW with warm-up and decay, evaluation on dev, checkpoints, resume, distribution.

Everything random is a stateless function of seed, epoch and step (data order, gate draws) or a variable in the
checkpoint (dropout). So a run that was killed and resumed ends with the same bits as one that was not.
"""

import logging
import math
import os
import sys

import numpy as np
from tqdm import tqdm

from keras_compress.backend import keras, tf
from keras_compress.measure.accuracy import evaluate
from keras_compress.training.checkpoints import Saver
from keras_compress.training.settings import Training

log = logging.getLogger(__name__)


_strategies = {}


def strategy(name):
    """One strategy object per process: models and training must meet the same one.

    With TF_CONFIG set, call it before TensorFlow does anything else (the command line does).
    """
    if name == "none":
        return tf.distribute.get_strategy()
    if name not in _strategies:
        if os.environ.get("TF_CONFIG"):
            _strategies[name] = tf.distribute.MultiWorkerMirroredStrategy()
        else:
            devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
            _strategies[name] = tf.distribute.MirroredStrategy([device.name for device in devices])
    return _strategies[name]


@keras.utils.register_keras_serializable(package="keras_compress")
class WarmUpLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate up linearly from 0 to `peak` in `warmup_steps`, then down to 0 at `num_steps`.

    Devlin et al., 2019, App. A.2. `first_step`: where a second stage enters a schedule that spans both.
    """

    def __init__(self, peak, warmup_steps, num_steps, first_step=0):
        self.peak, self.warmup_steps, self.num_steps, self.first_step = (
            peak,
            warmup_steps,
            num_steps,
            first_step,
        )

    def __call__(self, step):
        step = tf.cast(step, tf.float32) + self.first_step
        up = (step + 1.0) / max(self.warmup_steps, 1)
        down = (self.num_steps - step) / max(self.num_steps - self.warmup_steps, 1)
        return self.peak * tf.clip_by_value(tf.minimum(up, down), 0.0, 1.0)

    def get_config(self):
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "num_steps": self.num_steps,
            "first_step": self.first_step,
        }


@keras.utils.register_keras_serializable(package="keras_compress")
class AdamW(keras.optimizers.AdamW):
    """AdamW that updates a word table in one loop over it, by XLA, where Keras makes about ten.

    A batch meets few of a table's rows, but moments and decay move them all: a quarter of a small model's step.
    """

    def _update_step(self, gradient, variable):
        update = super()._update_step
        if isinstance(
            gradient, tf.IndexedSlices
        ):  # made dense first: XLA compiles anew for every number of rows
            gradient, update = tf.convert_to_tensor(gradient), tf.function(update, jit_compile=True)
        update(gradient, variable)


def adamw(training, num_steps, cls=AdamW, first_step=0):
    """AdamW (Loshchilov & Hutter, 2019, Alg. 2) with warm-up, decay and clipping as `training` says.

    Args:
        num_steps: updates at whose end the learning rate is 0. first_step: updates of them that went before.
        cls: an optimizer class with AdamW's arguments.
    """
    rate = WarmUpLinear(
        training.learning_rate, round(training.warmup * num_steps), num_steps, first_step
    )
    optimizer = cls(
        learning_rate=rate,
        weight_decay=training.weight_decay,
        global_clipnorm=training.clip_norm,
        epsilon=1e-6,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "_norm/"])
    return optimizer


def task_loss(task):
    """Cross-entropy in nats, mean over texts; for tagging over the words' first pieces (labels of -1 are left out)."""
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=-1 if task == "tagging" else None
    )


def untrained(task_model):
    """The weights of a model's head that were made new when it was loaded, if nothing has trained it since."""
    new = ()
    for entry in task_model.history:
        if entry["method"] == "load":
            new = entry["new"]
        elif (
            "training" in entry and entry.get("num_answers") != 0
        ):  # a TinyBERT may have learned no answers
            new = ()
    return [name for name in new if name.startswith(("classifier/", "mlm_"))]


def check_trained(task_model):
    """Raises ValueError if the model's head is new."""
    new = untrained(task_model)
    if new:
        raise ValueError(
            f"The model's head must be trained. Received: one whose {', '.join(new)} is new. Train it "
            "first with `train`: on the data of its task; for a masked-LM model that is unlabelled text."
        )


def check_fit(task_model, dataset):
    """Raises ValueError unless the data set asks for what the model answers, and its weights are free to change."""
    check_not_quantized(task_model)
    if task_model.task != dataset.task:
        way = (
            "Unlabelled text is for masked_lm and pretrain, and for distilbert and tinybert before any task."
            if dataset.task == "unlabelled"
            else "Take data that fit, or the model under a new head (`--new-head`)."
        )
        raise ValueError(
            f"Model and data must have one task. Received: a model for {task_model.task} and "
            f"{dataset.task} data ({dataset.name}). {way}"
        )
    if tuple(task_model.labels) != tuple(dataset.labels):
        raise ValueError(
            "Model and data must have the same labels in the same order. "
            f"Received: {list(task_model.labels)[:8]} and {list(dataset.labels)[:8]}. "
            "Reorder labels.txt, or load the model with a new head."
        )


def check_not_quantized(task_model):
    """Raises ValueError if a model quantises while it computes: its weights are no longer free to change."""
    if task_model.config.quantization:
        raise ValueError(
            "A model that quantises while it computes must be the last of a chain. Received: "
            f"quantization = {task_model.config.quantization}. Start from the model that it was made of."
        )


def check_length(task_model, training):
    """Raises ValueError if texts may be longer than the model can read."""
    longest = task_model.config.max_position_embeddings
    if training.max_length > longest:
        raise ValueError(
            f"`max_length` must be at most {longest}, the positions that the model has. "
            f"Received: {training.max_length}. Lower it: what is longer will be cut off."
        )


def stream(dataset, tokenizer, training, seed, first, last, **settings):
    """Training batches `first` to `last` - 1 of an endless run through the epochs, as a `tf.data.Dataset`.

    `settings` are further ones of `Dataset.batches`.
    """
    per_epoch = math.ceil(len(dataset.train.texts) / training.batch_size)
    parts = []
    for epoch in range(first // per_epoch, (last - 1) // per_epoch + 1):
        begin = epoch * per_epoch
        parts.append(
            dataset.batches(
                "train",
                tokenizer,
                training.batch_size,
                training.max_length,
                shuffle_seed=seed * 1000 + epoch,
                first=max(first - begin, 0),
                last=min(last - begin, per_epoch),
                **settings,
            )
        )
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.concatenate(part)
    return whole.prefetch(2)


def fit(
    model,
    task_model,
    dataset,
    training,
    *,
    seed,
    stage,
    num_steps=None,
    callbacks=(),
    batches=None,
    measure=None,
    asked=(),
):
    """Trains a compiled `model` and returns what was measured on the way.

    Runs `keras.Model.fit` piece by piece between evaluations and checkpoints. If `training.folder` holds a
    checkpoint of this stage, goes on from there; one that was made with other data or settings is refused.

    Args:
        model: compiled `keras.Model` that trains; for most methods `task_model.model`.
        task_model: `TaskModel` whose dev metric is followed; its history tells all settings of the method.
        stage: name of the stage, for logs and checkpoints.
        num_steps: updates; default: what `training` gives for the data.
        callbacks: `keras.callbacks.Callback`s.
        batches: (first, last) -> tf.data of these training batches; default: `stream`.
        measure: () -> what is followed, or a dict of it as "dev" and more; default: the metric on dev.
        asked: what else a checkpoint depends on, as JSON has it.
    Returns:
        list of dicts with stage, step, loss, learning_rate, whatever the callbacks put into the logs, and dev.
    Raises:
        ValueError: if a loss or a weight stops being finite, naming the update and the loss; the last weights, of those
            looked at every 50 updates or more often, that gave a finite loss are kept under `training.folder`. If that
            holds checkpoints of another run.
    """
    check_length(task_model, training)
    if training.cache_teacher:
        raise ValueError(
            f"`cache_teacher` needs a teacher. Received: stage {stage}, which has none. Leave it out."
        )
    num_steps = training.num_steps(len(dataset.train.texts)) if num_steps is None else num_steps
    batches = batches or (
        lambda first, last: stream(dataset, task_model.tokenizer, training, seed, first, last)
    )
    measure = measure or (lambda: evaluate(task_model, dataset.dev)["value"])
    with model.distribute_strategy.scope():
        model.optimizer.build(
            model.trainable_variables
        )  # before its slots are restored, and before the first trace
    evaluations = training.evaluations if dataset.dev else 0
    evaluate_at = {round(num_steps * k / evaluations) for k in range(1, evaluations + 1)}
    piece = max(1, min(50, num_steps // 10))
    state = {"step": 0, "rows": [], "best": -1.0, "best_step": 0, "worse": 0}
    saver = Saver(
        training.folder and f"{training.folder}/{stage}",
        model,
        state,
        lambda: [
            num_steps,
            seed,
            training.settings(),
            dataset.summary(),
            task_model.history,
            asked,
        ],
    )
    saver.restore()
    writer = (
        tf.summary.create_file_writer(f"{training.folder}/{stage}/log") if training.folder else None
    )
    bar = tqdm(
        total=num_steps,
        initial=state["step"],
        desc=stage,
        file=sys.stderr,
        disable=None,
        unit="step",
    )
    good = None  # (updates, weights) whose own loss was finite: the next update's tells
    while state["step"] < num_steps and not _is_stopped(state, training):
        first = state["step"]
        last = min(
            stop
            for stop in (
                num_steps,
                *evaluate_at,
                (first // piece + 1) * piece,
                (first // training.checkpoint_every + 1) * training.checkpoint_every,
            )
            if stop > first
        )
        begin, progress = (first, model.get_weights()), _Progress(bar, first)
        try:
            logs = model.fit(
                batches(first, last), verbose=0, callbacks=[progress, *callbacks]
            ).history
            if not all(np.isfinite(value).all() for value in model.get_weights()):
                raise FloatingPointError(f"a weight that is not finite after update {last}")
        except FloatingPointError as error:
            kept = _keep(
                begin if progress.step > first else good, model, task_model, training, stage
            )
            raise ValueError(
                f"The loss must stay finite. Received: {error} of stage {stage}. Lower `learning_rate` "
                f"(now {training.learning_rate}). {kept}"
            ) from error
        good = begin
        row = {
            "stage": stage,
            "step": last,
            **{name: float(values[-1]) for name, values in logs.items()},
            "learning_rate": float(model.optimizer.learning_rate.numpy()),
        }
        state["step"] = last
        if last in evaluate_at:
            found = measure()
            row |= found if isinstance(found, dict) else {"dev": found}
            _note_best(state, row["dev"], last, task_model, saver, training.patience)
        state["rows"].append(row)
        _write_summary(writer, row)
        log.info(
            "%s %d/%d  %s",
            stage,
            last,
            num_steps,
            "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("stage", "step")),
        )
        if (
            last % training.checkpoint_every == 0
            or last == num_steps
            or _is_stopped(state, training)
        ):
            saver.save()
    bar.close()
    if training.patience is not None and state["best_step"]:
        saver.restore_best(task_model)
    return state["rows"]


def _is_stopped(state, training):
    return training.patience is not None and state["worse"] >= training.patience


def _note_best(state, dev, step, task_model, saver, patience):
    if dev > state["best"]:
        state.update(best=dev, best_step=step, worse=0)
        if patience is not None:
            saver.save_best(task_model)
    else:
        state["worse"] += 1


def _write_summary(writer, row):
    if writer is not None:
        with writer.as_default(step=row["step"]):
            for name, value in row.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value)
        writer.flush()


def _keep(good, model, task_model, training, stage):
    """Goes back to the last good weights and saves them; tells where they are."""
    if good is None:
        return "No weights of this stage gave a finite loss."
    model.set_weights(good[1])
    if not training.folder:
        return ""
    folder = f"{training.folder}/{stage}/before-{good[0]}"
    task_model.save(folder, overwrite=True)
    return f"The weights after update {good[0]} are in {folder}: give the next run another folder."


class _Progress(keras.callbacks.Callback):
    """Moves the bar, and stops at the first loss that is not finite: its parts before their sum."""

    def __init__(self, bar, step):
        super().__init__()
        self.bar, self.step = bar, step  # step: updates whose loss was finite

    def on_train_batch_end(self, batch, logs=None):
        bad = [name for name, value in (logs or {}).items() if not math.isfinite(value)]
        if bad:
            name = next((name for name in bad if name != "loss"), "loss")
            raise FloatingPointError(f"{name} = {logs[name]} at update {self.step + 1}")
        self.step += 1
        self.bar.update(1)
        self.bar.set_postfix({k: f"{v:.3f}" for k, v in (logs or {}).items()}, refresh=False)


def finetune(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    num_steps=None,
    first_step=0,
    only=None,
    in_place=False,
):
    """Trains a model on a task (Devlin et al., 2019, Sec. 4). Returns a new `TaskModel`.

    Args:
        task_model: `TaskModel`; left as it is, unless `in_place`: then it must have been made in `training.scope()`
            with `seed`.
        dataset: `Dataset` of the same task and labels.
        seed: of data order and dropout.
        num_steps: updates; default: what `training` gives for the data. first_step: updates of earlier stages, after
            which the learning rate goes on.
        only: train only the layers whose name starts so; default: all.
    Raises:
        ValueError: if data and model do not fit; see `fit`.
    """
    check_fit(task_model, dataset)
    num_steps = training.num_steps(len(dataset.train.texts)) if num_steps is None else num_steps
    with training.scope():
        tuned = task_model if in_place else task_model.clone(seed=seed)
        for layer in tuned.model.layers:
            layer.trainable = only is None or layer.name.startswith(only)
        optimizer = adamw(training, first_step + num_steps, first_step=first_step)
        tuned.model.compile(optimizer, task_loss(tuned.task), jit_compile=False)
    tuned.history.append(
        {
            "method": "finetune",
            "seed": seed,
            "num_steps": num_steps,
            "first_step": first_step,
            "only": only,
            "training": training.settings(),
        }
    )
    tuned.curve += fit(
        tuned.model, tuned, dataset, training, seed=seed, stage="finetune", num_steps=num_steps
    )
    tuned.model.trainable = True
    return tuned
