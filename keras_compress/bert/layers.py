"""The layers of a flat BERT encoder; all weights of attention live in plain `Dense` layers outside of it."""

from keras_compress.backend import keras, tf

register = keras.utils.register_keras_serializable(package="keras_compress")
_MASKED = -1e4  # finite, so that no quantiser, exporter or 0 * inf ever sees an infinity; exp(-1e4) is 0 in float32


def split_heads(x, num_heads):
    """(batch, seq, heads * head size) -> (batch, heads, seq, head size)."""
    batch, seq, width = tf.shape(x)[0], tf.shape(x)[1], x.shape[-1]
    return tf.transpose(tf.reshape(x, (batch, seq, num_heads, width // num_heads)), (0, 2, 1, 3))


@register
class AttentionBias(keras.layers.Layer):
    """Turns `input_mask` (1 = real token) into an additive bias: 0 for real tokens, -1e4 for padding."""

    def call(self, mask):  # (batch, seq)
        return (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * _MASKED  # (batch, 1, 1, seq)


@register
class WordEmbedding(keras.layers.Embedding):
    """The word table, and, read the other way, the masked-LM head's scores of all words (tied weights)."""

    def call(self, x, as_decoder=False):  # (batch, seq) int, or (..., hidden)
        if as_decoder:
            return tf.matmul(x, self.embeddings, transpose_b=True)  # (..., vocabulary)
        return super().call(x)  # (batch, seq, hidden)


@register
class Bias(keras.layers.Layer):
    """Adds one learned number per class. (..., classes) -> the same."""

    def build(self, shape):
        self.bias = self.add_weight("bias", shape[-1:], initializer="zeros")
        super().build(shape)

    def call(self, x):
        return x + self.bias


@register
class PositionEmbedding(keras.layers.Embedding):
    """Adds one learned vector per position (Devlin et al., 2019, Sec. 3.2)."""

    def call(self, x):  # (batch, seq, hidden)
        return x + self.embeddings[: tf.shape(x)[1]]


@register
class LayerNorm(keras.layers.LayerNormalization):
    """Normalises the last axis to mean 0 and variance 1, then scales and shifts (Ba et al., 2016, Eq. 4)."""

    def call(self, x):
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return centred * tf.math.rsqrt(variance + self.epsilon) * self.gamma + self.beta


@register
class AttentionScores(keras.layers.Layer):
    """Scaled dot products of queries and keys, before mask and softmax (Vaswani et al., 2017, Eq. 1)."""

    def __init__(self, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def call(self, query, key):  # (batch, seq, heads * head size) each
        query, key = split_heads(query, self.num_heads), split_heads(key, self.num_heads)
        scale = query.shape[-1] ** -0.5
        return tf.matmul(query * scale, key, transpose_b=True)  # (batch, heads, seq, seq)

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}


@register
class AttentionProbs(keras.layers.Layer):
    """Softmax of the scores over the keys, padding masked out (Vaswani et al., 2017, Eq. 1)."""

    def call(self, inputs):  # one argument, a list: what TF-MOT's wrapper hands on
        scores, bias = inputs  # (batch, heads, seq, seq), (batch, 1, 1, seq)
        return tf.nn.softmax(scores + bias, axis=-1)


@register
class AttentionContext(keras.layers.Layer):
    """Values averaged by the attention probabilities, heads joined (Vaswani et al., 2017, Eq. 1)."""

    def call(self, inputs):
        probs, value = inputs  # (batch, heads, seq, seq), (batch, seq, heads * head size)
        # (batch, heads, seq, head size)
        context = tf.matmul(probs, split_heads(value, probs.shape[1]))
        context = tf.transpose(context, (0, 2, 1, 3))
        # (batch, seq, heads * head size)
        return tf.reshape(context, (tf.shape(context)[0], tf.shape(context)[1], value.shape[-1]))


@register
class FirstToken(keras.layers.Layer):
    """The hidden state of [CLS]. (batch, seq, hidden) -> (batch, hidden)."""

    def call(self, x):
        # x[:, 0] would cut the exported graph in two partitions
        return tf.reshape(x[:, :1], (-1, x.shape[-1]))


@register
class MaskedMean(keras.layers.Layer):
    """Mean of the hidden states over real tokens. (batch, seq, hidden), (batch, seq) -> (batch, hidden)."""

    def call(self, x, mask):
        weights = tf.cast(mask, x.dtype)[:, :, None]
        return tf.reduce_sum(x * weights, axis=1) / tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)


@register
class FirstTokenKept(keras.layers.Layer):
    """The hidden state of [CLS] with its axis. (batch, seq, hidden) -> (batch, 1, hidden)."""

    def call(self, x):
        return x[:, :1]


@register
def gelu_tanh(x):
    """Gaussian error linear unit, tanh form (Hendrycks & Gimpel, 2016, Sec. 2)."""
    return tf.nn.gelu(x, approximate=True)


def is_inner_dense(layer):
    """Whether a layer is a `Dense`, but not the classifier."""
    return isinstance(layer, keras.layers.Dense) and layer.name != "classifier"


def wrapped(model, wrap, which=is_inner_dense):
    """A flat `keras.Model` with some layers wrapped, as TF-MOT does it; all layers are the model's own, not copies.

    Args:
        wrap: layer -> the layer around it. which: layer -> whether it is wrapped.
    """
    around = lambda layer: wrap(layer) if which(layer) else layer
    return keras.models.clone_model(model, clone_function=around)
