"""The branch classifier of FastBERT: a small classifier after any layer. Liu et al., 2020, arXiv:2004.02178, Sec. 3.1.

    h  (batch, seq, hidden)
    -> tanh(Dense 128) -> self-attention of 2 heads over the real pieces -> the first place -> tanh(Dense 128) -> Dense C

The attention has a Dense with bias for q, k, v and its output, and neither residual connection nor LayerNorm, as in the
authors' code. The first place alone is read, so its query alone is computed; that is exact.
"""

from keras_compress.backend import keras
from keras_compress.bert import layers as L

WIDTH, HEADS = 128, 2
DROPOUT = 0.1  # of attention probabilities, whatever the encoder's own is


def branch(get, name, x, mask, num_labels):
    """Logits of one classifier.

    Args:
        get: `LayerStore`. name: of its last layer, and the beginning of the other layers' names.
        x: hidden states, float (batch, seq, hidden). mask: int32 (batch, seq), 1 for real pieces.
    Returns:
        float, (batch, num_labels).
    """
    tanh, bias = keras.activations.tanh, get(L.AttentionBias, "attention_bias")(mask)
    x = get.dense(f"{name}_narrow", WIDTH, tanh)(x)  # (batch, seq, 128)
    query = get.dense(f"{name}_query", WIDTH)(get(L.FirstTokenKept, f"{name}_first")(x))
    key = get.dense(f"{name}_key", WIDTH)(x)
    value = get.dense(f"{name}_value", WIDTH)(x)
    scores = get(L.AttentionScores, f"{name}_attention_scores", HEADS)(query, key)
    probs = get(L.AttentionProbs, f"{name}_attention_probs")([scores, bias])
    probs = get.dropout(f"{name}_attention_probs_dropout", DROPOUT)(probs)
    context = get(L.AttentionContext, f"{name}_attention_context")([probs, value])
    context = get.dense(f"{name}_attention_output", WIDTH)(context)  # (batch, 1, 128)
    pooled = get(L.FirstToken, f"{name}_pooled_cls")(context)  # (batch, 128)
    pooled = get.dense(f"{name}_pooler", WIDTH, tanh)(pooled)
    return get.dense(name, num_labels)(pooled)
