"""MobileBERT's block: wide between the blocks, thin inside of them. Sun et al., 2020, arXiv:2004.02984.

Equation map (x: the block's input, of width `hidden_size`; the rest has width `bottleneck_size`)
    Sec. 3.1   b = Norm(x W_b)                  the bottleneck                                 bottleneck
               s = Norm(x W_s)                  what query and key read                        bottleneck
               y = Norm(b + MHA(s, s, x))       attention                                      attention (layers.py)
    Sec. 3.2   y = Norm(y + W_2 relu(W_1 y))    `num_ffn` times, stacked                       mobilebert_layer
    Sec. 3.1   Norm(x + y W_u)                  the output, of width `hidden_size`             mobilebert_layer
    Sec. 3.3   Norm(h) = gamma h + beta, instead of LayerNorm                                  NoNorm (layers.py)
    Sec. 3.4   narrow word table, [e(t+1), e(t), e(t-1)], a map to `hidden_size`               Trigram (layers.py)
MobileBERT-tiny: MHA(b, b, b), so that value reads the bottleneck, too; IB-BERT, the teacher: MHA(x, x, x).
Departures
    Keys of padding get no attention; the authors set their scores to -6, so that each keeps a share of about exp(-6).
    The piece after the last real one is zero, as at the end of a text without padding. In the authors' code it is the
    vector of [PAD] where padding follows: there the last piece of a text tells whether it was padded.
"""

from keras_compress.bert import layers as L


def bottleneck(get, name, x):
    """Norm(x W). (batch, seq, hidden) -> (batch, seq, bottleneck)."""
    return get.norm(name + "_norm")(get.dense(name, get.config.bottleneck_size)(x))


def mobilebert_layer(get, index, x, bias, cls_only=False):
    """One block; without `bottleneck_size` and with one feed-forward layer a Transformer's.

    Arguments and results are those of `encoder.transformer_layer`. Dropout as in the authors' code: on attention and
    the way up, or, without bottleneck, on attention and where a Transformer has it.
    """
    config, name = get.config, f"layer_{index}_"
    first = get(L.FirstTokenKept, "cls_only") if cls_only else lambda states: states
    wide, thin = x, x
    if config.bottleneck_size:
        thin = bottleneck(get, name + "bottleneck", wide)  # b
    value = thin if config.attention_input == "bottleneck" else wide
    key = value
    if config.attention_input == "shared":
        key = bottleneck(get, name + "shared_bottleneck", wide)  # s
    context, scores = L.attention(get, name, first(key), key, value, bias, config.num_heads)
    plain = not config.bottleneck_size
    y = L.add_and_norm(get, name + "attention", first(thin), context, dropout=plain)
    act, last = L.ACTIVATIONS[config.activation], config.num_ffn - 1
    for number in range(config.num_ffn):
        part = name if number == last else f"{name}ffn_{number}_"
        inner = get.dense(part + "intermediate", config.intermediate_size, act)(y)
        inner = get.dense(part + "output", config.inner_size)(inner)
        y = L.add_and_norm(get, part + "output", y, inner, dropout=plain and number == last)
    if plain:
        return y, scores
    up = get.dense(name + "up", config.hidden_size)(y)  # y W_u
    return L.add_and_norm(get, name + "up", first(wide), up), scores
