"""Shared projections: weights of teacher and student compared at one size. Zhao et al., 2019, arXiv:1909.11687.

Equation map (theta: a variable of the layers; S: student, T: teacher)
    L_down   sum ||D theta_T D^T - theta_S||^2, of a 1-D variable ||D theta_T - theta_S||^2
    L_up     sum ||theta_T - U theta_S U^T||^2
Departures
    Feed-forward layers have an axis of their own width, with a second pair D, U. All layers share both pairs.
    Position and type tables are compared, too; word tables and heads are not: their rows are pieces and classes.
    Of fewer layers each is compared with the teacher's that it starts from.
    D starts as the identity cut to size, U as its transpose.
    The sum is computed at every fifth update, times five; at each, it would make an update 1.4 times as long.
"""

import numpy as np

from keras_compress.backend import keras, tf
from keras_compress.bert.encoder import split_name
from keras_compress.method import note

# The axes of a kernel or table; None stays as it is. All others: hidden, hidden.
AXES = {
    "intermediate": ("hidden", "intermediate"),
    "output": ("intermediate", "hidden"),
    "position_embeddings": (None, "hidden"),
    "type_embeddings": (None, "hidden"),
}


def pairs_of(teacher, student, kept):
    """[(theta_T, theta_S, its axes)] of what is compared; an axis is "hidden", "intermediate" or None."""
    pairs, theirs = [], {layer.name: layer for layer in teacher.model.layers}
    for layer in student.model.layers:
        name = rest = layer.name
        if name.startswith(("word_embeddings", "classifier", "mlm_")):
            continue
        if name.startswith("layer_"):
            number, part, rest = split_name(name)
            name = f"layer_{teacher.config.owner(kept[number], part)}_{rest}"
        axes = AXES.get(rest, ("hidden", "hidden"))
        for theta_T, theta_S in zip(theirs[name].weights, layer.trainable_weights):
            pairs.append((theta_T, theta_S, axes[-len(theta_S.shape) :]))
    return pairs


def projected(theta, matrices, axes):
    """P theta P^T, each axis with its own P, an axis of None as it is; of a 1-D variable P theta."""
    *rows, columns = (matrices.get(axis) for axis in axes)
    if not rows:
        return tf.linalg.matvec(columns, theta)
    theta = theta if rows[0] is None else tf.matmul(rows[0], theta)
    return tf.matmul(theta, columns, transpose_b=True)


class SharedProjections(keras.layers.Layer):
    """D and U of each axis, the same for all layers, and their loss.

    Args:
        teacher, student: `TaskModel`s. kept: see `pairs_of`.
        projection: which of D and U there are. every: the loss is computed at each `every`-th update.
    """

    def __init__(self, teacher, student, kept, projection, every=1):
        super().__init__()
        pairs = pairs_of(teacher, student, kept)
        # Not an attribute: they would be weights of this layer, and a frozen teacher would learn.
        self.pairs = lambda: pairs
        self.D, self.U = {}, {}
        for axis in ("hidden", "intermediate"):
            wide, thin = (getattr(x.config, f"{axis}_size") for x in (teacher, student))
            if projection in ("down", "both"):
                self.D[axis] = self.add_weight(f"D_{axis}", (thin, wide), None, "identity")
            if projection in ("up", "both"):
                self.U[axis] = self.add_weight(f"U_{axis}", (wide, thin), None, "identity")
        once = {"trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
        self.every, self.turn = every, self.add_weight("turn", (), tf.int32, "zeros", **once)

    def differences(self):
        """[(kind of variable, D theta_T D^T - theta_S), .., (kind, theta_T - U theta_S U^T), ..], those that there are."""
        found = []
        for theta_T, theta_S, axes in self.pairs():
            kind = theta_S.name.split("/")[-1].split(":")[0]
            if self.D:
                found.append((f"down {kind}", projected(theta_T, self.D, axes) - theta_S))
            if self.U:
                found.append((f"up {kind}", theta_T - projected(theta_S, self.U, axes)))
        return found

    def losses(self, weight):
        """L_down and/or L_up as a loss of `distill`, with its factor; it reads weights alone. In the mean as at each."""

        def total():
            # sum ||D theta_T D^T - theta_S||^2, sum ||theta_T - U theta_S U^T||^2
            squares = [tf.reduce_sum(tf.square(value)) for _, value in self.differences()]
            return self.every * tf.add_n(squares)

        def projection(T, S, labels, mask):
            due = self.turn % self.every == 0
            self.turn.assign_add(1)
            return tf.cond(due, total, lambda: 0.0)

        return {"projection": (weight, projection)} if self.D or self.U else {}

    def note(self):
        """Notes the norms of D and U, and the mean square of the differences of each kind of variable."""
        found, means = self.differences(), {}
        for kind in dict(found):
            squares = [tf.reduce_mean(tf.square(value)) for other, value in found if other == kind]
            means[kind] = float(np.mean(squares))
        norms = {w.name.split(":")[0]: float(tf.norm(w)) for w in self.trainable_weights}
        note(mean_squares=means, projection_norms=norms)
