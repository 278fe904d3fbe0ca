"""I-BERT: training for, and computing in, integers alone. Kim et al., 2021, arXiv:2101.01321.

`compress` is the paper's second phase: a fine-tuned model trains on, at a tiny rate, with rounded numbers and with GELU
and softmax by polynomials. `in_integers` (integer_encoder.py) then computes the whole encoder in integers.

Equation map
    Sec. 3.1   S = max|x| / (2^(b-1) - 1); weights 8 bits per output, activations 8 bits         EightBitDense, ranges_of
    Sec. 3.2   dyadic requantisation of 32-bit sums                                              IntegerEncoder
    Sec. 3.4   GELU by a polynomial: in floats, in integers                                      gelu_polynomial, i_gelu
    Sec. 3.5   softmax by a polynomial: in floats, in integers                                   PolynomialProbs, i_softmax
    Sec. 3.6   LayerNorm of 22-bit sums, its output of 32 bits requantised to 8                  i_layernorm
    bits       weights 8, bias 32, activations 8, scores 32, probabilities 8, word table 8 and sum of embeddings 16
Departures
    While training an activation's range is that of its batch, with padding; for integers it is the moving average (.95)
    of minimum and maximum over batches of texts that are given. In the code one average serves both.
    While training LayerNorm and the products of attention are float; the word table is rounded in integers alone.
    Weights are clamped to -n .. n; the code's n - 1 above would cut the largest weight of an output.
    The three embeddings are added at once with 16 bits; the code adds them one by one.
    Pooler and classifier are float, as in the authors' code: the paper has no integer tanh.
    The authors train phase two with 1e-6.
This is a simulation of what integer hardware computes: exact, and slower than floats. `export` to "int8" is what runs fast
today; its LayerNorm, GELU and softmax are float.
"""

import numpy as np

from keras_compress.backend import keras, tf
from keras_compress.bert import layers as L
from keras_compress.bert.encoder import LayerStore
from keras_compress.bert.fake_quant import fake_quantize, largest
from keras_compress.bert.task_model import TaskModel
from keras_compress.method import compression
from keras_compress.quantization import integer_functions as I
from keras_compress.training.finetune import tune
from keras_compress.training.settings import Training


@L.register
def gelu_polynomial(x):
    """x (1 + L(x / sqrt 2)) / 2, L(x) = sgn(x) (a (min(|x|, -b) + b)^2 + 1). float (...) -> the same."""
    a, b, c = I.ERF
    root = x / np.float32(np.sqrt(2.0))
    erf = tf.sign(root) * (a * tf.square(tf.minimum(tf.abs(root), -b) + b) + c)
    return x * 0.5 * (1.0 + erf)


def exp_polynomial(x):
    """2^-z (a p^2 + b p + c), p = x + z ln 2. float (...), not above 0 -> the same."""
    a, b, c = I.EXP
    z = tf.stop_gradient(tf.floor(-tf.maximum(x, -I.MAX_Z * I.LN2) / I.LN2))
    p = tf.maximum(x, -I.MAX_Z * I.LN2) + z * I.LN2
    return (a * p * p + b * p + c) * tf.pow(2.0, -z)


@L.register
class PolynomialProbs(L.AttentionProbs):
    """Softmax of the scores by `exp_polynomial`."""

    def call(self, inputs):
        scores = inputs[0] + inputs[1]  # the second is the mask's bias
        e = exp_polynomial(scores - tf.reduce_max(scores, -1, keepdims=True))
        return e / tf.reduce_sum(e, -1, keepdims=True)  # (batch, heads, seq, seq)


@L.register
class EightBitDense(keras.layers.Dense):
    """A Dense layer of 8-bit inputs, one scale, and 8-bit weights, one scale per output; straight-through."""

    def call(self, x):  # (..., inputs)
        kernel = fake_quantize(self.kernel, largest(self.kernel, 0))
        product = tf.tensordot(fake_quantize(x, largest(x)), kernel, 1)
        return self.activation(product + self.bias)  # (..., units)


class IntegerLayers(LayerStore):
    """Makes the layers that train for integers."""

    def __call__(self, cls, name, *args, **kwargs):
        cls = PolynomialProbs if cls is L.AttentionProbs else cls
        return super().__call__(cls, name, *args, **kwargs)

    def dense(self, name, units, activation=None):
        if name in ("classifier", "pooler"):
            return super().dense(name, units, activation)
        gelu = activation in (tf.nn.gelu, L.gelu_tanh)
        return self(EightBitDense, name, units, gelu_polynomial if gelu else activation)


@compression(bert=True)
def compress(task_model, dataset, *, seed=0, training=Training()):
    """Fine-tunes a model with 8-bit numbers and polynomials, for `in_integers`.

    Args:
        task_model: usually fine-tuned: trained so from the start a model learns nothing.
    Returns:
        `TaskModel` of the same shape, its kernels on their 8-bit grids.
    """
    facts = task_model.config, task_model.tokenizer, task_model.task, task_model.labels
    weights = task_model.weights()
    model = TaskModel(*facts, seed=seed, loaded=weights, store=IntegerLayers)
    model.set_weights(weights)
    model.history, model.curve = [*task_model.history], [*task_model.curve]
    tune(model, dataset, seed=seed, training=training, stage="ibert")
    weights = model.weights()
    for layer in model.model.layers:
        if isinstance(layer, EightBitDense):
            weights[f"{layer.name}/kernel"] = fake_quantize(layer.kernel, largest(layer.kernel, 0))
    return model.rebuilt(model.config, weights, seed=seed)
