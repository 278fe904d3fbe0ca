"""Magnitude pruning: the smallest weights become zeros, more and more of them. Zhu & Gupta, 2017, arXiv:1710.01878.

Equation map
    s(t) = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3                  TF-MOT's PolynomialDecay
    mask: the round((1 - s) n) largest |w| of each kernel stay; at each of the schedule's updates, anew
    after every update of the weights, w becomes w * mask                     TF-MOT's PruneLowMagnitude
Through TF-MOT (`prune_low_magnitude`). Pruned are the kernels of all Dense layers but the classifier; biases, norms
and embeddings stay whole.

Zeros alone make nothing faster, and the file no smaller: dense kernels multiply them like other numbers, and the file
stores them. They show only where the file is compressed (`gzip_bytes` of an export). What makes a model faster is to
take whole parts out: layers, heads.
"""

import numpy as np
import tensorflow_model_optimization as tfmot

from keras_compress.backend import tf
from keras_compress.bert.layers import check_bert, is_inner_dense, wrapped
from keras_compress.training.loop import Training, adamw, check_fit, fit, task_loss

sparsity_api = tfmot.sparsity.keras


def schedule(num_steps, sparsity, initial_sparsity=0.0, begin=0.0, end=0.75, frequency=50):
    """The polynomial schedule over a training run.

    Args:
        num_steps: updates of the run. sparsity, initial_sparsity: shares of zeros, s_f and s_i.
        begin, end: shares of the run, t_0 and t_1. frequency: updates between new masks; fewer in a short run.
    Raises:
        ValueError: if a share is out of range.
    """
    if (
        not 0.0 <= initial_sparsity <= sparsity < 1.0
        or not 0.0 <= begin < end <= 1.0
        or frequency < 1
    ):
        raise ValueError(
            "`initial_sparsity` must be at most `sparsity` and both in [0, 1), `begin` below `end` and "
            f"both in [0, 1], `frequency` 1 or more. Received: {initial_sparsity}, {sparsity}, {begin}, "
            f"{end}, {frequency}."
        )
    first, last = round(begin * num_steps), max(round(end * num_steps), 1)
    frequency = max(1, min(frequency, (last - first) // 10))
    # A mask is made only where frequency divides t - t_0: another t_1 would never bring the last one.
    last = first + max(1, (last - first) // frequency) * frequency
    return sparsity_api.PolynomialDecay(
        initial_sparsity, sparsity, first, last, power=3, frequency=frequency
    )


def zeros(task_model):
    """Share of zeros in the kernels that are pruned, 0-1."""
    kernels = [layer.kernel for layer in task_model.model.layers if is_inner_dense(layer)]
    return 1.0 - sum(np.count_nonzero(kernel) for kernel in kernels) / sum(
        np.size(kernel) for kernel in kernels
    )


class TellStep(sparsity_api.UpdatePruningStep):
    """TF-MOT's callback, but the step is the optimizer's: a layer that is shared would count each of its uses."""

    def on_train_batch_begin(self, batch, logs=None):
        for layer in self.prunable_layers:
            layer.pruning_step.assign(tf.cast(self.model.optimizer.iterations, tf.int64))


def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    sparsity=0.5,
    initial_sparsity=0.0,
    begin=0.0,
    end=0.75,
    frequency=50,
):
    """Fine-tunes a model while its smallest weights are set to zero.

    Args:
        task_model: `TaskModel`; left as it is.
        sparsity, initial_sparsity, begin, end, frequency: see `schedule`.
    Returns:
        `TaskModel` of the same shape and size; its history tells the share of zeros.
    Raises:
        ValueError: if model and data do not fit, a setting is out of range, or the model is quantised.
    """
    check_fit(task_model, dataset)
    check_bert(task_model)
    if training.patience is not None:
        raise ValueError(
            "`patience` must be none: the weights of an earlier update have fewer zeros than asked for. "
            f"Received: {training.patience}."
        )
    num_steps = training.num_steps(len(dataset.train.texts))
    decay = schedule(num_steps, sparsity, initial_sparsity, begin, end, frequency)
    with training.scope():
        small = task_model.clone(seed=seed)
        # The wrappers hold the very layers of `small`, which is therefore what `strip_pruning` would give.
        pruned = wrapped(small.model, lambda layer: sparsity_api.prune_low_magnitude(layer, decay))
        pruned.compile(adamw(training, num_steps), task_loss(small.task), jit_compile=False)
    small.history.append(
        {
            "method": "magnitude",
            "seed": seed,
            "sparsity": sparsity,
            "initial_sparsity": initial_sparsity,
            "begin": begin,
            "end": end,
            "frequency": frequency,
            "training": training.settings(),
        }
    )
    small.curve += fit(
        pruned, small, dataset, training, seed=seed, stage="magnitude", callbacks=[TellStep()]
    )
    small.history[-1]["zeros"] = zeros(small)
    return small
