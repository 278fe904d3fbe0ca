"""Magnitude pruning: the smallest weights become zeros, more and more of them. Zhu & Gupta, 2017, arXiv:1710.01878.

Equation map
    s(t) = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3        TF-MOT's PolynomialDecay (schedule)
    mask: the round((1 - s) n) largest |w| of each kernel stay,
    anew at each of the schedule's updates                          TF-MOT's PruneLowMagnitude
    after every update of the weights, w becomes w * mask           the same
Pruned are the kernels of all Dense layers but the classifier.
Biases, norms and embeddings stay whole.

Zeros alone make nothing faster, and the file no smaller. Dense kernels multiply them like other
numbers, and the file stores them. They show only where the file is compressed (`gzip_bytes` of an
export). What makes a model faster is to take whole parts out: layers, heads.
"""

import numpy as np
import tensorflow_model_optimization as tfmot

from keras_compress.backend import tf
from keras_compress.bert.layers import is_inner_dense, wrapped
from keras_compress.method import BelowOne, Count, Share, compression, note
from keras_compress.training.finetune import tune
from keras_compress.training.settings import Training

api = tfmot.sparsity.keras


def schedule(num_steps, sparsity, initial_sparsity=0.0, begin=0.0, end=0.75, frequency=50):
    """The polynomial schedule over a training run.

    Args:
        num_steps: updates of the run. sparsity, initial_sparsity: shares of zeros, s_f and s_i.
        begin, end: shares of the run, t_0 and t_1.
        frequency: updates between new masks; fewer in a short run.
    """
    first, last = round(begin * num_steps), max(round(end * num_steps), 1)
    frequency = max(1, min(frequency, (last - first) // 10))
    # A mask is made only where frequency divides t - t_0: another t_1 would never bring the last mask.
    last = first + max(1, (last - first) // frequency) * frequency
    return api.PolynomialDecay(initial_sparsity, sparsity, first, last, 3, frequency)


def zeros(task_model):
    """Share of zeros in the kernels that are pruned, 0-1."""
    kernels = [layer.kernel for layer in task_model.model.layers if is_inner_dense(layer)]
    return 1.0 - sum(map(np.count_nonzero, kernels)) / sum(map(np.size, kernels))


class CountUpdates(api.UpdatePruningStep):
    """Sets TF-MOT's step to the optimizer's. TF-MOT's own count adds each use of a shared layer."""

    def on_train_batch_begin(self, batch, logs=None):
        for layer in self.prunable_layers:
            layer.pruning_step.assign(tf.cast(self.model.optimizer.iterations, tf.int64))


@compression(trained_head=False, bert=True, keeps_best=False)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    sparsity: BelowOne = 0.5,
    initial_sparsity: BelowOne = 0.0,
    begin: BelowOne = 0.0,
    end: Share = 0.75,
    frequency: Count = 50,
):
    """Fine-tunes a model while its smallest weights are set to zero.

    Args:
        sparsity, initial_sparsity, begin, end, frequency: see `schedule`.
    Returns:
        `TaskModel` of the same shape and size; its history tells the share of zeros.
    """
    if initial_sparsity > sparsity or begin >= end:
        raise ValueError(
            "`initial_sparsity` must be at most `sparsity`, `begin` below `end`. Received: "
            f"{initial_sparsity}, {sparsity}, {begin} and {end}. Exchange them."
        )
    num_steps = training.num_steps(len(dataset.train.texts))
    decay = schedule(num_steps, sparsity, initial_sparsity, begin, end, frequency)
    small = task_model.clone(seed=seed)
    # The wrappers hold the very layers of `small`: it is what `strip_pruning` would give.
    pruned = wrapped(small.model, lambda layer: api.prune_low_magnitude(layer, decay))
    settings = {"model": pruned, "stage": "magnitude", "callbacks": [CountUpdates()]}
    tune(small, dataset, seed=seed, training=training, **settings)
    note(zeros=zeros(small))
    return small
