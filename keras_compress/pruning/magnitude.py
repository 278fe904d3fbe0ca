"""Magnitude pruning: the smallest weights become zeros, more and more of them. Zhu & Gupta, 2017, arXiv:1710.01878.

Equation map
    s(t) = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^3        schedule (sparsity.py)
    mask: the round((1 - s) n) largest |w| of each kernel stay,
    anew at each of the schedule's updates                          TF-MOT's PruneLowMagnitude
    after every update of the weights, w becomes w * mask           the same
Pruned are the kernels of all Dense layers but the classifier.
Biases, norms and embeddings stay whole.

Zeros alone make nothing faster, and the file no smaller. Dense kernels multiply them like other
numbers, and the file stores them. They show only where the file is compressed (`gzip_bytes` of an
export). What makes a model faster is to take whole parts out: layers, heads.
"""

import tensorflow_model_optimization as tfmot

from keras_compress.backend import tf
from keras_compress.bert.layers import wrapped
from keras_compress.method import BelowOne, Count, Share, compression, note
from keras_compress.pruning.sparsity import schedule, zeros
from keras_compress.training.finetune import tune
from keras_compress.training.settings import Training

api = tfmot.sparsity.keras


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
    num_steps = training.num_steps(len(dataset.train.texts))
    decay = schedule(num_steps, sparsity, initial_sparsity, begin, end, frequency)
    small = task_model.clone(seed=seed)
    # The wrappers hold the very layers of `small`: it is what `strip_pruning` would give.
    pruned = wrapped(small.model, lambda layer: api.prune_low_magnitude(layer, decay))
    settings = {"model": pruned, "stage": "magnitude", "callbacks": [CountUpdates()]}
    tune(small, dataset, seed=seed, training=training, **settings)
    note(zeros=zeros(small))
    return small
