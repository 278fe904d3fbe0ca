"""Movement pruning: weights that training moves towards zero become zeros. Sanh et al., 2020, arXiv:2005.07683.

Each weight has a score that learns with it. Magnitude keeps what is far from zero; this keeps what moves away from it.

Equation map
    Sec. 3     a = x (W * M(S)), a score S per weight                            MaskedDense.call
    Sec. 4     dL/dS = dL/dW' * W, W' = W * M: straight through M                MaskedDense.call
    Sec. 4     hard: M = 1 for the v % highest scores of each kernel             mask_of
    Sec. 4     soft: M = (sigmoid(S) > tau), penalty lambda mean sigmoid(S)      mask_of, penalty
    Sec. 5     v(t) and tau(t), cubic between a warm-up and a cool-down          schedule (sparsity.py)
    Sec. 6     (1 - w) CE + w T^2 KL(teacher || student)                         compress
    Lagunas et al., 2021, arXiv:2109.04838, Sec. 3: a score per block            block
As in the authors' code: embeddings are frozen; S starts at 0, without decay and with a learning rate of its own; soft
compares sigmoid(S) with tau (the paper S) and keeps at least .5 % of a kernel; tau ends at .1, lambda rises with it.
Departures
    Warm-up and cool-down are shares of the run, about those of the authors' updates.
    The zeros stay in plain kernels: dense files are no smaller and no faster, see magnitude.py.
"""

from typing import Literal

import numpy as np
from scipy.special import expit

from keras_compress.backend import keras, tf
from keras_compress.bert.layer_maps import divisors
from keras_compress.bert.layers import wrapped
from keras_compress.bert.task_model import TaskModel
from keras_compress.method import (
    BelowOne,
    Count,
    NotNegative,
    Positive,
    Share,
    check_fit,
    check_trained,
    compression,
    note,
)
from keras_compress.pruning.sparsity import schedule, zeros
from keras_compress.training.distill import distill, named_outputs
from keras_compress.training.losses import soft_targets, true_labels
from keras_compress.training.settings import Training

THRESHOLD = 0.1  # tau at the end
LEAST = 0.005  # share of a kernel that soft pruning keeps


def is_pruned(layer):
    """Whether a layer is a `Dense` inside the encoder's layers."""
    return isinstance(layer, keras.layers.Dense) and layer.name.startswith("layer_")


def mask_of(scores, how, level):
    """M(S) of a kernel, 0 or 1 per score; `level` is the share of zeros (hard) or tau (soft)."""
    if how == "hard":
        kept = max(round((1.0 - level) * scores.size), 1)
    else:  # the sigmoid rises: what is above tau are the highest scores
        kept = max(np.count_nonzero(expit(scores) > level), int(LEAST * scores.size) + 1)
    mask = np.zeros(scores.size, np.float32)
    mask[np.argpartition(scores, -kept, axis=None)[-kept:]] = 1.0
    return mask.reshape(scores.shape)


class MaskedDense(keras.layers.Layer):
    """Trains behind a mask in place of a frozen `Dense`, and is never saved; `write` gives that one what is left.

    Args:
        dense: `keras.layers.Dense`. block: see `compress`. score_rate: in units of the weights' learning rate.
    """

    def __init__(self, dense, block, score_rate):
        super().__init__(name=f"masked_{dense.name}")
        self.dense, self.block, self.score_rate = dense, block, score_rate
        dense.trainable = False
        as_in = lambda value: keras.initializers.Constant(value.numpy())
        self.kernel = self.add_weight("kernel", dense.kernel.shape, None, as_in(dense.kernel))
        self.bias = self.add_weight("bias", dense.bias.shape, None, as_in(dense.bias))
        grid = [size // block for size in dense.kernel.shape]
        self.raw_scores = self.add_weight("scores", grid, initializer="zeros")
        self.mask = self.add_weight("mask", grid, initializer="ones", trainable=False)

    @property
    def scores(self):
        """S. Its gradient is that of `raw_scores`, and it moves `score_rate` times as far."""
        return self.raw_scores + tf.stop_gradient((self.score_rate - 1.0) * self.raw_scores)

    def masked(self, mask):
        """W * M. (rows, columns) of blocks -> the kernel's shape."""
        rows, columns = mask.shape
        blocks = tf.reshape(self.kernel, (rows, self.block, columns, self.block))
        return tf.reshape(blocks * mask[:, None, :, None], self.kernel.shape)

    def call(self, x):
        # M + (S - S): the value of M, the gradient of S
        kernel = self.masked(self.mask + (self.scores - tf.stop_gradient(self.scores)))
        return self.dense.activation(tf.tensordot(x, kernel, 1) + self.bias)

    def write(self):
        self.dense.kernel.assign(self.masked(self.mask))
        self.dense.bias.assign(self.bias)


class Masks(keras.callbacks.Callback):
    """Makes the masks before each update, and writes the plain layers before each look at dev."""

    def __init__(self, gates, how, levels):
        super().__init__()
        self.gates, self.how, self.levels = gates, how, levels

    def on_train_batch_begin(self, batch, logs=None):
        _, level = self.levels(self.model.optimizer.iterations)
        for gate in self.gates:
            gate.mask.assign(mask_of(gate.scores.numpy(), self.how, float(level)))

    def on_train_end(self, logs=None):
        self.on_train_batch_begin(None)
        for gate in self.gates:
            gate.write()

    def on_epoch_end(self, epoch, logs=None):
        masks = [gate.mask.numpy() for gate in self.gates]
        logs["kept"] = float(sum(map(np.sum, masks)) / sum(map(np.size, masks)))


@compression(trained_head=False, bert=True, keeps_best=False)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    how: Literal["hard", "soft"] = "hard",
    sparsity: BelowOne = 0.85,
    penalty_weight: NotNegative = 400.0,
    begin: BelowOne = 0.1,
    end: Share = 0.8,
    score_rate: Positive = 1e-2,
    block: Count = 1,
    teacher: TaskModel | str | None = None,
    soft_weight: Share = 0.9,
    temperature: Positive = 2.0,
):
    """Fine-tunes a model while weights that move towards zero are set to zero.

    Args:
        how, sparsity, penalty_weight: "hard" ends with this share of zeros in each kernel; "soft" with as many
            zeros as its penalty, lambda, makes.
        begin, end: shares of the run between which the share of zeros, or tau, rises from 0.
        score_rate: peak learning rate of the scores.
        block: rows and columns of a kernel that share a score; 1: each weight has its own.
        teacher: model of the same task and labels that is distilled with w = `soft_weight` and T = `temperature`.
    Returns:
        `TaskModel` of the same shape and size; its history tells the share of `zeros`.
    """
    if teacher:
        check_fit(teacher, dataset)
        check_trained(teacher)
    num_steps = training.num_steps(len(dataset.train.texts))
    levels = schedule(num_steps, sparsity if how == "hard" else THRESHOLD, 0.0, begin, end, 1)
    small = task_model.clone(seed=seed)
    for layer in small.model.layers:
        layer.trainable = "embedding" not in layer.name
    dense = [layer for layer in small.model.layers if is_pruned(layer)]
    sizes = np.gcd.reduce([size for layer in dense for size in layer.kernel.shape])
    if sizes % block:
        raise ValueError(
            f"`block` must divide the sizes of all kernels. Received: {block}. Choose {divisors(sizes)}."
        )
    rate = score_rate / training.learning_rate
    gates = {layer.name: MaskedDense(layer, block, rate) for layer in dense}
    masked = wrapped(named_outputs(small, ["logits"]), lambda layer: gates[layer.name], is_pruned)

    def penalty(T, S, labels, mask):
        # mean sigmoid(S) of each kernel, mean over the kernels
        return sum(tf.reduce_mean(tf.sigmoid(g.scores)) for g in gates.values()) / len(gates)

    w = soft_weight if teacher else 0.0
    losses = {"label": (1.0 - w, true_labels), "soft": (w, soft_targets(temperature))}
    if how == "soft" and penalty_weight:
        losses["penalty"] = lambda step: penalty_weight * levels(step)[1] / THRESHOLD, penalty
    masks = Masks([*gates.values()], how, levels)
    outputs = lambda model, names: masked if model is small else named_outputs(model, names)
    settings = {"seed": seed, "stage": "movement", "outputs": outputs, "callbacks": [masks]}
    distill(teacher or task_model, small, dataset, losses, training=training, **settings)
    note(zeros=zeros(small))
    return small
