"""Weights of three or two values: quantisers, a model that computes with them, the teacher's losses.

Ternary weight networks (TWN): Li & Liu, 2016, arXiv:1605.04711. Binary weights (BWN): Rastegari et al., 2016,
arXiv:1603.05279. TernaryBERT and BinaryBERT (ternarybert.py, binarybert.py) use both on BERT.

Equation map
    TWN, Sec. 2.2   Delta = 0.7 / n sum |w|,  I = {|w| > Delta},  alpha = mean of |w| over I      ternarize
                    w^ = alpha sign(w) on I, else 0                                               ternarize
    BWN, Sec. 3.1   B(w) = alpha sign(w),  alpha = mean |w|                                       binarize
    both            d w^ / dw = 1 (straight-through)                                              latent
A group of weights that has one alpha is a whole matrix, in the word table a row.
"""

from keras_compress.backend import keras, tf
from keras_compress.bert import layers as L
from keras_compress.bert.encoder import LayerStore
from keras_compress.bert.fake_quant import fake_quantize, largest
from keras_compress.bert.task_model import TaskModel
from keras_compress.training.losses import (
    attention_loss,
    hidden_loss,
    soft_cross_entropy,
    soft_targets,
)

SECOND = "second_"  # begins the name of the second matrix of a split layer
TABLE = "word_embeddings/embeddings"
THRESHOLD = 0.7  # of mean |w|


def ternarize(w, axis=None):
    """The nearest of -alpha, 0, alpha by TWN's threshold. float (...) -> the same shape.

    Args:
        axis: None, one alpha for all; -1, one per row.
    """
    magnitude, kept = tf.abs(w), {"axis": axis, "keepdims": axis is not None}
    # Delta = 0.7 / n sum |w|
    chosen = tf.cast(magnitude > THRESHOLD * tf.reduce_mean(magnitude, **kept), w.dtype)
    # alpha = mean of |w| over I; a group of zeros has no I
    total, count = (tf.reduce_sum(x, **kept) for x in (magnitude * chosen, chosen))
    return tf.math.divide_no_nan(total, count) * tf.sign(w) * chosen


def binarize(w, axis=None):
    """alpha sign(w) with alpha = mean |w|; a zero counts as positive. Arguments as in `ternarize`."""
    alpha = tf.reduce_mean(tf.abs(w), axis=axis, keepdims=axis is not None)
    return tf.where(w < 0, -alpha, alpha)


QUANTIZERS = {"ternary": ternarize, "binary": binarize}


def clipped(w, kind):
    """Float weights as TernaryBERT's code reads them: at most 2.5 in size, with no gradient beyond; binary ones as they are."""
    return tf.clip_by_value(w, -2.5, 2.5) if kind == "ternary" else w


def few_values(w, kind, axis=None):
    """The values that a layer computes with: w^ of the float weights w."""
    return QUANTIZERS[kind](clipped(w, kind), axis)


def latent(w, kind, axis=None):
    """The same, with the gradient of the float weights themselves."""
    w_c = clipped(w, kind)
    # w^ + 0, not w + (w^ - w): that would round, in an order that TensorFlow chooses anew in each run
    return tf.stop_gradient(few_values(w, kind, axis)) + (w_c - tf.stop_gradient(w_c))


@L.register
class FewValuesDense(keras.layers.Dense):
    """A Dense layer on 8-bit inputs and quantised weights: x Q(W) + b, or, split, x Q(W1) + x Q(W2) + b.

    Inputs have one scale per token, as the .tflite file's kernels have.
    """

    def __init__(self, units, activation=None, kind="ternary", split=False, **kwargs):
        super().__init__(units, activation, **kwargs)
        self.kind, self.split = kind, split

    def build(self, shape):
        super().build(shape)
        self.parts = [self.kernel]
        if self.split:
            self.parts.append(self.add_weight(SECOND + "kernel", self.kernel.shape))

    def call(self, x):  # (..., inputs)
        x = fake_quantize(x, largest(x, -1))
        w = tf.add_n([latent(part, self.kind) for part in self.parts])
        return self.activation(tf.tensordot(x, w, 1) + self.bias)  # (..., units)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind, "split": self.split}


@L.register
class FewValuesEmbedding(keras.layers.Embedding):
    """A word table whose rows are quantised as they are looked up; split, the sum of two rows."""

    def __init__(self, rows, width, kind="ternary", split=False, **kwargs):
        super().__init__(rows, width, **kwargs)
        self.kind, self.split = kind, split

    def build(self, shape=None):
        super().build(shape)
        self.parts = [self.embeddings]
        if self.split:
            self.parts.append(self.add_weight(SECOND + "embeddings", self.embeddings.shape))

    def call(self, x):  # (batch, seq)
        rows = [latent(tf.gather(part, x), self.kind, -1) for part in self.parts]
        return tf.add_n(rows)  # (batch, seq, hidden)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind, "split": self.split}


def quantized(task_model, weights, kind, split=False, *, seed=0):
    """A model that trains float weights and computes with few values, in all but biases, norms, head and small tables.

    Args:
        task_model: `TaskModel` of the same shape. weights: {"layer/variable": array}. kind: "ternary" or "binary".
        split: every matrix is the sum of two.
    Returns:
        `TaskModel` with weights of its own.
    """
    how = {"kind": kind, "split": split}

    class Store(LayerStore):
        def dense(self, name, units, activation=None):
            if name == "classifier":
                return super().dense(name, units, activation)
            return self(FewValuesDense, name, units, activation, **how)

        def table(self, cls, name, num_rows, width):
            if cls is not L.WordEmbedding:
                return super().table(cls, name, num_rows, width)
            return self(FewValuesEmbedding, name, num_rows, width, **how)

    facts = task_model.config, task_model.tokenizer, task_model.task, task_model.labels
    model = TaskModel(*facts, seed=seed, loaded=weights, store=Store)
    model.set_weights(weights)
    model.history, model.curve = [*task_model.history], [*task_model.curve]
    return model


def baked(model, *, seed=0):
    """The plain model with the weights that a `quantized` one computes with; its inputs stay float. `TaskModel`."""
    weights = model.weights()
    for layer in model.model.layers:
        if isinstance(layer, FewValuesDense | FewValuesEmbedding):
            axis = -1 if isinstance(layer, FewValuesEmbedding) else None
            name = TABLE if axis else f"{layer.name}/kernel"
            weights[name] = tf.add_n([few_values(part, layer.kind, axis) for part in layer.parts])
    return model.rebuilt(model.config, weights, seed=seed)


def teacher_losses(num_layers):
    """Losses between layers of the same number: {"hidn", "attn", "pred": (1.0, function)} for `distill`.

    hidn: MSE of the hidden states, the embeddings' among them; attn: MSE of attention scores before softmax, each
    summed over layers; pred: cross-entropy with the teacher's answers (TernaryBERT, Sec. 3.2).
    """

    def hidn(T, S, labels, mask):
        pairs = ((T["hidden_states", n], S["hidden_states", n]) for n in range(num_layers + 1))
        return tf.add_n([hidden_loss(*pair, mask) for pair in pairs])

    def attn(T, S, labels, mask):
        pairs = ((T["attention_scores", n], S["attention_scores", n]) for n in range(num_layers))
        return tf.add_n([attention_loss(*pair, mask) for pair in pairs])

    pred = soft_targets(1.0, soft_cross_entropy)
    return {name: (1.0, loss) for name, loss in {"hidn": hidn, "attn": attn, "pred": pred}.items()}
