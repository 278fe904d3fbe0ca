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
    """The word table, and, read the other way, the masked-LM head's scores of all words (tied weights).

    Of vectors that are wider than the table the first units are read.
    """

    def call(self, x, as_decoder=False):  # (batch, seq) int, or (..., hidden)
        if as_decoder:
            x = x if x.shape[-1] == self.output_dim else x[..., : self.output_dim]
            return tf.matmul(x, self.embeddings, transpose_b=True)  # (..., vocabulary)
        return super().call(x)  # (batch, seq, hidden)


@register
class Trigram(keras.layers.Layer):
    """Vectors of the next, of its own and of the previous piece, joined (Sun et al., 2020, Sec. 3.4, MobileBERT).

    Before the first and after the last real piece stand zeros, so that padding changes nothing.
    """

    def call(self, x, mask):  # (batch, seq, embedding), (batch, seq)
        x = x * tf.cast(mask, x.dtype)[:, :, None]
        after, before = tf.pad(x, [[0, 0], [0, 1], [0, 0]]), tf.pad(x, [[0, 0], [1, 0], [0, 0]])
        return tf.concat([after[:, 1:], x, before[:, :-1]], axis=-1)  # (batch, seq, 3 embedding)


@register
class ExtraScores(keras.layers.Layer):
    """Adds scores from a table for those units that the word table is too narrow for (MobileBERT's masked-LM head)."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shapes):
        self.kernel = self.add_weight("kernel", (shapes[0][-1], self.width), initializer="zeros")
        super().build(shapes)

    def call(self, inputs):
        scores, x = inputs  # (..., vocabulary), (..., hidden)
        return scores + tf.matmul(x[..., -self.width :], self.kernel, transpose_b=True)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


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
class NoNorm(keras.layers.Layer):
    """Scales and shifts each unit, h * gamma + beta; no statistics (Sun et al., 2020, Sec. 3.3). (..., units) -> the same."""

    def build(self, shape):
        self.gamma = self.add_weight("gamma", shape[-1:], initializer="ones")
        self.beta = self.add_weight("beta", shape[-1:], initializer="zeros")
        super().build(shape)

    def call(self, x):
        return x * self.gamma + self.beta


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


ACTIVATIONS = {
    "gelu": tf.nn.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": tf.nn.relu,
    "tanh": keras.activations.tanh,
}


def attention(get, name, query, key, value, bias, heads):
    """Multi-head attention (Vaswani et al., 2017, Eq. 1) at width `config.inner_size`.

    Args:
        get: see `encoder.LayerStore`. name: what the layers' names begin with.
        query, key, value: what these read, float (batch, seq, any width).
        bias: float, (batch, 1, 1, seq), added to the scores. heads: how many.
    Returns:
        (its output (batch, seq of the query, inner), scores before mask and softmax (batch, heads, seq, seq)).
    """
    config, width = get.config, heads * get.config.head_size
    query = get.dense(name + "query", width)(query)
    key = get.dense(name + "key", width)(key)
    value = get.dense(name + "value", width)(value)
    scores = get(AttentionScores, name + "attention_scores", heads)(query, key)
    probs = get(AttentionProbs, name + "attention_probs")([scores, bias])
    dropout = get.dropout(name + "attention_probs_dropout", config.attention_dropout)
    context = get(AttentionContext, name + "attention_context")([dropout(probs), value])
    return get.dense(name + "attention_output", config.inner_size)(context), scores


def add_and_norm(get, name, x, y, dropout=True):
    """Norm(x + dropout(y)), or without dropout. (batch, seq, hidden) twice -> the same."""
    y = get.dropout(name + "_dropout")(y) if dropout else y
    y = get(keras.layers.Add, name + "_add")([x, y])
    return get.norm(name + "_norm")(y)


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
