"""The training loop: `keras.Model.fit` between evaluations on dev and checkpoints.

Everything random is a stateless function of seed, epoch and step (data order, gate draws) or a
variable in the checkpoint (dropout). So a run that was killed ends with the same bits as any other.
"""

import functools
import logging
import math
import time

import numpy as np
from tqdm import tqdm

from keras_compress.backend import keras, tf
from keras_compress.bert.tasks import TASKS
from keras_compress.measure.accuracy import evaluate
from keras_compress.method import entry_at_work, note
from keras_compress.training.checkpoints import Saver
from keras_compress.training.settings import rehearsed

log = logging.getLogger(__name__)
QUIET = 10  # seconds between lines that stand for the bar, where stderr is no terminal


def stream(dataset, tokenizer, training, seed, first, last, **settings):
    """Training batches `first` to `last` - 1 of an endless run through the epochs, as a `tf.data.Dataset`.

    `settings` are further ones of `Dataset.batches`.
    """
    dataset.check_unknown(tokenizer, training)
    per_epoch = math.ceil(len(dataset.train.texts) / training.batch_size)
    parts = [
        dataset.batches(
            "train",
            tokenizer,
            training.batch_size,
            training.max_length,
            shuffle_seed=seed * 1000 + epoch,
            first=max(first - epoch * per_epoch, 0),
            last=min(last - epoch * per_epoch, per_epoch),
            **settings,
        )
        for epoch in range(first // per_epoch, (last - 1) // per_epoch + 1)
    ]
    return functools.reduce(tf.data.Dataset.concatenate, parts).prefetch(2)


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
    made_from=(),
):
    """Trains a compiled `model` and returns what was measured on the way.

    If `training.folder` holds a checkpoint of this stage, training goes on from there. A checkpoint
    that was made with other data or settings is refused.

    Args:
        model: compiled `keras.Model` that trains; for most methods `task_model.model`.
        task_model: `TaskModel` whose metric on dev is followed.
        stage: name of the stage, for logs and checkpoints.
        num_steps: updates; default: what `training` gives for the data.
        callbacks: `keras.callbacks.Callback`s.
        batches: (first, last) -> tf.data of these training batches; default: `stream`.
        measure: () -> the number that is followed, or a dict with it as "dev"; default: the metric on dev.
        made_from: what a checkpoint depends on beside the method's settings, as JSON has it.
    Returns:
        list of dicts with stage, step, loss, learning_rate, the logs of the callbacks, and dev.
    Raises:
        ValueError: if a loss or a weight stops being finite, naming the update and the loss. The last
            good weights (looked at every 50 updates or more often) are kept under `training.folder`.
            Also if that folder holds checkpoints of another run.
    """
    if training.cache_teacher:
        raise ValueError(
            f"`cache_teacher` needs a teacher. Received: stage {stage}, which has none. Leave it out."
        )
    if dataset.tags_characters():
        note(words="characters")  # as `predict` reads texts, too
    num_steps = asked = num_steps or training.num_steps(len(dataset.train.texts))
    if rehearsed() is not None:
        num_steps = min(asked, 2)
    batches = batches or functools.partial(stream, dataset, task_model.tokenizer, training, seed)
    on_dev = lambda: evaluate(task_model, dataset.dev, choose_threshold=True)["value"]
    measure = measure or on_dev
    with model.distribute_strategy.scope():
        # The slots must be there before they are restored, and before the first trace.
        model.optimizer.build(model.trainable_variables)
    evaluations = min(training.evaluations, num_steps) if dataset.dev else 0
    evaluate_at = {round(num_steps * k / evaluations) for k in range(1, evaluations + 1)}
    state = {"step": 0, "rows": [], "best": -1.0, "best_step": 0, "worse": 0}
    settings = [num_steps, seed, training.settings(), dataset.summary(), task_model.history]
    folder = training.folder and f"{training.folder}/{stage}"
    saver = Saver(folder, model, state, [*settings, entry_at_work(), made_from])
    saver.restore(with_best=training.patience is not None)
    summary = tf.summary
    writer = summary.create_file_writer(f"{folder}/log") if folder else summary.create_noop_writer()
    bar = tqdm(total=num_steps, initial=state["step"], desc=stage, disable=None, unit="step")
    progress = _Progress(bar, stage)
    good = None  # (step, weights) that gave a finite loss: known one piece later
    pieces = max(1, min(50, num_steps // 10)), training.checkpoint_every
    ends = {num_steps, *evaluate_at}.union(*(range(n, num_steps, n) for n in pieces))
    for last in sorted(ends):
        first, patience = state["step"], training.patience
        stopped = patience is not None and state["worse"] >= patience
        if last <= first or stopped:
            continue
        before = first, model.get_weights()
        try:
            fitted = model.fit(batches(first, last), verbose=0, callbacks=[progress, *callbacks])
            if not all(np.isfinite(value).all() for value in model.get_weights()):
                raise FloatingPointError(f"a weight that is not finite after update {last}")
        except FloatingPointError as error:
            good = before if progress.step > first else good
            raise ValueError(
                f"The loss must stay finite. Received: {error} of stage {stage}. Lower `learning_rate` "
                f"(now {training.learning_rate}). {_keep(good, model, task_model, folder)}"
            ) from error
        good, state["step"] = before, last
        numbers = {name: float(values[-1]) for name, values in fitted.history.items()}
        numbers["learning_rate"] = float(model.optimizer.learning_rate.numpy())
        if last in evaluate_at:
            measured = measure()
            numbers |= measured if isinstance(measured, dict) else {"dev": measured}
            if numbers["dev"] > state["best"]:
                state.update(best=numbers["dev"], best_step=last, worse=0)
                if patience is not None:
                    saver.save_best(task_model)
            else:
                state["worse"] += 1
        state["rows"].append({"stage": stage, "step": last, **numbers})
        with writer.as_default(step=last):
            for name, value in numbers.items():
                summary.scalar(name, value)
        writer.flush()
        figures = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        log.info("%s %d/%d  %s", stage, last, num_steps, figures)
        if last % training.checkpoint_every == 0 or last == num_steps or state["worse"] == patience:
            saver.save()
    bar.close()
    if rehearsed() is not None:
        rehearsed().append((asked, progress.seconds))
    if training.patience is not None and state["best_step"]:
        saver.restore_best(task_model)
    if dataset.dev and TASKS[task_model.task].answer == "sigmoid":
        value = on_dev()
        note(threshold=task_model.threshold)
        log.info("%s: a name holds from %g on, dev %.4g", stage, task_model.threshold, value)
    return state["rows"]


def _keep(good, model, task_model, folder):
    """Goes back to the last good weights and saves them; says where they are."""
    if good is None:
        return "No weights of this stage gave a finite loss."
    step, weights = good
    model.set_weights(weights)
    if not folder:
        return ""
    task_model.save(f"{folder}/before-{step}", overwrite=True)
    return f"The weights after update {step} are in {folder}/before-{step}: give the next run another folder."


class _Progress(keras.callbacks.Callback):
    """Moves the bar, and stops at the first loss that is not finite; names a term before the sum.

    Where there is no terminal, and so no bar, a line of the log tells every tenth of the updates.
    """

    def __init__(self, bar, stage):
        super().__init__()
        self.bar, self.stage, self.first = bar, stage, bar.n
        self.step = self.first  # updates whose loss was finite
        self.started = self.told = time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        self.began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        for name in sorted(logs, key="loss".__eq__):  # the sum comes last
            if not math.isfinite(logs[name]):
                raise FloatingPointError(f"{name} = {logs[name]} at update {self.step + 1}")
        self.step += 1
        self.bar.update(1)
        self.bar.set_postfix(logs, refresh=False)
        now, total = time.monotonic(), self.bar.total
        self.seconds = now - self.began
        tenth = self.step * 10 // total > (self.step - 1) * 10 // total
        if self.bar.disable and tenth and now - self.told >= QUIET and self.step < total:
            left = (now - self.started) / (self.step - self.first) * (total - self.step)
            log.info("%s %d/%d, about %s left", self.stage, self.step, total, duration(left))
            self.told = now


def duration(seconds):
    """A time in words, rounded to what an estimate can tell."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{max(1, round(seconds))} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
