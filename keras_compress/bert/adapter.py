"""The embedding matrix, and maps from a narrow one to the encoder's width. Mehta et al., 2020, arXiv:1911.12385.

A narrow matrix with a linear map is the factorized embedding parameterization (Lan et al., 2020, Sec. 3.1); "hgt" is
the hierarchical group transformation of DeFINE.

Equation map
    linear   y = x W + b                                                        adapt
    mlp      y = gelu(x W1 + b1) W2 + b2                                        adapt
    GLT      g equal parts, each times a matrix of its own, joined again        GroupLinear
    HGT      Y1 = GLT(X), Yl = GLT(mix(X, Y(l-1)))                              adapt, GroupMix
    groups   gl = max(floor(g_max / 2^(l-1)), 1), for 4 layers and g_max 8     config.HGT_GROUPS
Departures
    As in the paper's formulas, and unlike the authors' code, no dense layer goes before or after. The last transform
    has one group, so it is dense; it reads the word vector once more. LayerNorm and GELU follow all others. There is no
    dropout, since a table is fitted, not a text. Widths grow from n to 2 n over all layers but the last.
"""

from keras_compress.backend import keras, tf
from keras_compress.bert.layers import WordEmbedding, register


def in_groups(x, groups):
    """(..., n) -> (..., groups, n / groups). Not by `tf.split`: XNNPACK joins and splits five tensors at most."""
    return tf.reshape(x, tf.concat([tf.shape(x)[:-1], [groups, x.shape[-1] // groups]], axis=0))


def joined(x, width):
    """(..., groups, n / groups) -> (..., n = width)."""
    return tf.reshape(x, tf.concat([tf.shape(x)[:-2], [width]], axis=0))


@register
class GroupLinear(keras.layers.Layer):
    """Group linear transform: equal parts of the last axis, each times a matrix of its own. (..., n) -> (..., units).

    Args:
        units, groups: width of the output and number of parts, which divides n and `units`.
    """

    def __init__(self, units, groups, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.units, self.groups = units, groups
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, shape):
        parts = self.groups, shape[-1] // self.groups, self.units // self.groups
        self.kernel = self.add_weight("kernel", parts, initializer=self.kernel_initializer)
        self.bias = self.add_weight("bias", (self.units,), initializer="zeros")
        super().build(shape)

    def call(self, x):  # (..., n)
        x = in_groups(x, self.groups)  # (..., groups, n / groups)
        x = tf.einsum("...gi,gio->...go", x, self.kernel)  # (..., groups, units / groups)
        return joined(x, self.units) + self.bias  # (..., units)

    def get_config(self):
        initializer = keras.initializers.serialize(self.kernel_initializer)
        own = {"units": self.units, "groups": self.groups, "kernel_initializer": initializer}
        return super().get_config() | own


@register
class GroupMix(keras.layers.Layer):
    """Joins two vectors group by group: [x1, y1, x2, y2, ..]. (..., n), (..., m) -> (..., n + m)."""

    def __init__(self, groups, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups

    def call(self, x, y):
        pairs = tf.concat([in_groups(x, self.groups), in_groups(y, self.groups)], axis=-1)
        return joined(pairs, x.shape[-1] + y.shape[-1])

    def get_config(self):
        return {**super().get_config(), "groups": self.groups}


def word_table(get):
    """The embedding matrix as a layer: (batch, seq) -> (batch, seq, embedding)."""
    return get.table(WordEmbedding, "word_embeddings", get.config.vocab_size, get.config.table_size)


def adapt(get, x):
    """Word vectors at the encoder's width, as `config.adapter` says. (..., embedding) -> (..., hidden).

    Every token's vector is mapped alone, so the map can be folded into the table (`factorization.define.fold`).
    """
    config, shapes, y = get.config, get.config.adapter_shapes, x
    for index, (_, units, groups) in enumerate(shapes[:-1]):
        if config.adapter == "mlp":
            y = get.dense("embedding_inner", units)(x)
        else:
            if index:
                y = get(GroupMix, f"embedding_mix_{index}", groups)(x, y)
            name = f"embedding_groups_{index}"
            y = get(GroupLinear, name, units, groups, get.normal(name))(y)
            y = get.norm(name + "_norm")(y)
        y = get(keras.layers.Activation, f"embedding_gelu_{index}", "gelu")(y)
    if len(shapes) > 2:
        y = get(GroupMix, "embedding_mix", 1)(x, y)
    return get.dense("embedding_projection", config.hidden_size)(y) if shapes else x
