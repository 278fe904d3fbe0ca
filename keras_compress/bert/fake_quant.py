"""Fake quantisation: numbers rounded to a grid of few levels while training, and the TF-MOT parts that put it in.

    integer  q = clamp(round(x S), -M, M),  S = M / max|x|,  M = 2^(bits - 1) - 1               quantize
    float    q / S, with the gradient of x itself (straight-through estimator)                  fake_quantize

`quantized_layers` annotates the flat encoder layer by layer and lets TF-MOT wrap what is annotated. What is quantised:

    layer                    "static"                                       "dynamic"
    Dense                    weight (one scale), product, output            weight (one scale per output)
    the classifier           -                                              as any Dense
    word table               8 bits, one scale                              one scale; 4 and 2 bits: one per row
    LayerNorm, attention,
    an adapter's GELU        output                                         -
    softmax                  output (256 levels)                            -

"static" fixes the ranges of activations in training: every FULLY_CONNECTED then reads and gives int8. Without ranges on
the outputs of LayerNorm and attention, which feed the Dense layers, the converter leaves most of them float.
Inside, LayerNorm and softmax compute in float; GELU, too, while training, and in the file by a table from int8 to int8.
Padded places count in a range as others do, and once training is over they change nothing.
"""

import tensorflow_model_optimization as tfmot

from keras_compress.backend import keras, tf
from keras_compress.bert import layers as L

quantization = tfmot.quantization.keras
EPSILON = 1e-8  # the smallest range: a tensor of zeros stays zeros


def levels(bits):
    """M, the largest integer: 127 for 8 bits, 7 for 4, 1 for 2. Weights leave -M - 1 out: their grid is symmetric."""
    return 2 ** (bits - 1) - 1


def table_bits(bits):
    """Bits of a "dynamic" word table whose Dense layers have `bits`: 4 or more; a row of 2 bits has three values."""
    return max(bits, 4)


def has_row_scales(settings):
    """Whether each row of the word table has its scale, as ai-edge-quantizer stores it; the converter stores one."""
    return settings["activations"] == "dynamic" and settings["bits"] < 8


def largest(x, axis=None):
    """max|x| over `axis` (None: all), kept as axes of 1 so that it divides `x`; at least 1e-8."""
    return tf.maximum(tf.reduce_max(tf.abs(x), axis=axis, keepdims=axis is not None), EPSILON)


def quantize(x, largest, bits=8, wide=False):
    """Integers, as floats, of x on the grid of `largest`: clamp(round(x S), -M, M); `wide`: from -M - 1 on."""
    top = levels(bits)
    return tf.clip_by_value(tf.round(x * (top / largest)), -top - wide, top)


def fake_quantize(x, largest, bits=8, wide=False):
    """The values of x on the grid of `largest`; the gradient is that of x, inside and outside of the range."""
    return x + tf.stop_gradient(quantize(x, largest, bits, wide) * (largest / levels(bits)) - x)


class Quantizer(quantization.quantizers.Quantizer):
    """A TF-MOT quantiser whose attributes are its settings; it has no variables unless `build` makes some."""

    def build(self, tensor_shape, name, layer):
        return {}

    def get_config(self):
        return dict(vars(self))


@L.register
class WeightQuantizer(Quantizer):
    """Quantises a weight by its largest value now. axis: None, one scale; 0, one per column; -1, one per row."""

    def __init__(self, bits, axis=None):
        self.bits, self.axis = bits, axis

    def __call__(self, inputs, training, weights, **kwargs):
        on_grid = fake_quantize if training or self.axis is not None else marked
        return on_grid(inputs, largest(inputs, self.axis), self.bits)


@L.register
class ActivationQuantizer(Quantizer):
    """Quantises an activation to 8 bits by a moving average of its largest value: ema - (1 - d) (ema - max|x|).

    The first value seen sets the average; ranges are collected from the first update on and used from `start_step` on.
    Outside of training they are used and never change. Values below the range become -128, as in TFLite's int8.
    """

    def __init__(self, decay, start_step):
        self.decay, self.start_step = decay, start_step

    def build(self, tensor_shape, name, layer):
        mean = tf.VariableAggregation.MEAN
        settings = {"shape": (), "initializer": "zeros", "trainable": False, "aggregation": mean}
        return {"ema": layer.add_weight(f"{name}_range", **settings), "step": layer.optimizer_step}

    def __call__(self, inputs, training, weights, **kwargs):
        ema = weights["ema"]
        if not training:
            return marked(inputs, tf.maximum(ema, EPSILON), wide=True)
        now = largest(inputs)
        ema.assign(tf.where(ema > 0.0, ema - (1.0 - self.decay) * (ema - now), now))
        rounded = fake_quantize(inputs, tf.maximum(ema, EPSILON), wide=True)
        return tf.where(weights["step"] >= self.start_step, rounded, inputs)


@L.register
class ProbabilityQuantizer(Quantizer):
    """Rounds probabilities to k / 256, k = 0 .. 255: what TFLite does to a softmax that is read as int8.

    The converter makes the product of probabilities and values an integer one, because its other sides are int8.
    """

    def __call__(self, inputs, training, weights, **kwargs):
        rounded = tf.quantization.fake_quant_with_min_max_args(inputs, 0.0, 255 / 256)
        return inputs + tf.stop_gradient(rounded - inputs) if training else rounded


def marked(x, largest, bits=8, wide=False):
    """`fake_quantize` as TensorFlow's own operator: the same values, and the converter reads scale and bits from it."""
    lowest = -largest * ((levels(bits) + wide) / levels(bits))
    return tf.quantization.fake_quant_with_min_max_vars(
        x, lowest, largest, num_bits=bits, narrow_range=not wide
    )


@L.register
class LayerQuantizers(quantization.QuantizeConfig):
    """Which tensors of one layer are quantised (see the module's table); `settings` as in `BertConfig.quantization`."""

    def __init__(self, settings):
        self.settings, self.static = settings, settings["activations"] == "static"

    def _activations(self):
        return [ActivationQuantizer(self.settings["decay"], self.settings["start_step"])]

    def get_weights_and_quantizers(self, layer):
        if isinstance(layer, keras.layers.Dense):
            quantizer = WeightQuantizer(self.settings["bits"], None if self.static else 0)
            return [(layer.kernel, quantizer)]
        if isinstance(layer, L.WordEmbedding) and not has_row_scales(self.settings):
            return [(layer.embeddings, WeightQuantizer(8))]
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        name = "kernel" if isinstance(layer, keras.layers.Dense) else "embeddings"
        for weight in quantize_weights:
            setattr(layer, name, weight)

    def get_activations_and_quantizers(self, layer):
        """The product x W + b is quantised before the activation, as FULLY_CONNECTED gives it."""
        if not isinstance(layer, keras.layers.Dense) or not self.static:
            return []
        self.activation = layer.activation
        return [(keras.activations.linear, quantizer) for quantizer in self._activations()]

    def set_quantize_activations(self, layer, quantize_activations):
        for product in quantize_activations:
            layer.activation = lambda x, product=product: self.activation(product(x))

    def get_output_quantizers(self, layer):
        if isinstance(layer, L.WordEmbedding):  # the rows that are looked up, and only these
            row = WeightQuantizer(table_bits(self.settings["bits"]), -1)
            return [row] if has_row_scales(self.settings) else []
        if not self.static or getattr(layer, "activation", None) is keras.activations.linear:
            return []  # the product of a linear Dense is quantised already
        if isinstance(layer, L.AttentionProbs):
            return [ProbabilityQuantizer()]
        return self._activations()

    def get_config(self):
        return {"settings": self.settings}


class AsAnnotated(quantization.QuantizeScheme):
    """TF-MOT's scheme, layout transform and registry in one: wraps what is annotated, and changes nothing else.

    The default scheme would also quantise the inputs, which are ids here, and what LayerNorm reads.
    """

    def get_layout_transformer(self):
        return self

    def get_quantize_registry(self):
        return self

    def apply(self, model, layer_quantize_map):
        return model, layer_quantize_map

    def supports(self, layer):
        return False


def is_quantized(layer, settings):
    """Whether a layer of the flat model is quantised (see the module's table)."""
    kinds = (keras.layers.Dense, L.WordEmbedding)
    if settings["activations"] == "dynamic":
        return isinstance(layer, kinds)
    kinds += (L.LayerNorm, L.AttentionProbs, L.AttentionContext, keras.layers.Activation)
    return isinstance(layer, kinds) and layer.name != "classifier"


def quantized_layers(model, settings):
    """The layers of a flat model, those to be quantised wrapped by TF-MOT, under the names that they had.

    TF-MOT copies them: GELU, read by its name, becomes bert4keras' form (1e-7 from TensorFlow's), and the variables of a
    LayerNorm lose the layer's name, by which the optimiser leaves them out of weight decay.

    Args:
        model: `keras.Model`. settings: `BertConfig.quantization`.
    Returns:
        list of layers; a layer that `model` calls several times is one layer still.
    """
    wrap = lambda layer: quantization.quantize_annotate_layer(layer, LayerQuantizers(settings))
    annotated = L.wrapped(model, wrap, lambda layer: is_quantized(layer, settings))
    with quantization.quantize_scope():
        whole = quantization.quantize_apply(
            annotated, AsAnnotated(), quantized_layer_name_prefix=""
        )
    return whole.layers
