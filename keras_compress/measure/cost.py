"""What a model costs: parameters, floating point operations, bytes.

Formulas for the flat BERT of `keras_compress.bert`, with V, P, T the sizes of the three embedding tables, h the hidden
size, f the feed-forward size, L layers, n tokens, C labels.

    embeddings   (V + P + T) h + 2 h                      parameters
    one layer    4 (h^2 + h) + (h f + f) + (f h + h) + 4 h
    pooler       h^2 + h        (pooling = "pooler" only; a tagger has none)
    classifier   h C + C
    flops        L (8 n h^2 + 4 n^2 h + 4 n h f) + 2 h^2 (pooler) + 2 h C (classifier; n times that for tagging)

One multiply-add is 2 flops. Only matrix products are counted: q, k, v, o (8 n h^2), scores and weighted values
(4 n^2 h), feed-forward (4 n h f). Table look-ups multiply nothing; biases, softmax, normalisation and activation are
under 1 % of the whole. The count is that of the fixed (1, n) graph, padding included, every layer in full.
"""

from pathlib import Path


def encoder_parameters(config):
    """Parameters of the transformer layers alone: no embeddings, pooler or classifier."""
    hidden, inner = config.hidden_size, config.intermediate_size
    layer = 4 * (hidden * hidden + hidden) + (hidden * inner + inner) + (inner * hidden + hidden) + 4 * hidden
    return config.num_layers * layer


def parameters(config, num_labels=0, task="classification"):
    """All parameters; `num_labels` = 0 leaves out the classifier."""
    hidden = config.hidden_size
    tables = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    pooler = hidden * hidden + hidden if _has_pooler(config, task) else 0
    classifier = (hidden + 1) * num_labels
    return tables * hidden + 2 * hidden + encoder_parameters(config) + pooler + classifier


def flops(config, sequence_length, num_labels=0, task="classification"):
    """Floating point operations of one forward pass over one sequence (module docstring)."""
    hidden, inner, n = config.hidden_size, config.intermediate_size, sequence_length
    layer = 8 * n * hidden * hidden + 4 * n * n * hidden + 4 * n * hidden * inner
    pooler = 2 * hidden * hidden if _has_pooler(config, task) else 0
    classifier = 2 * hidden * num_labels * (n if task == "tagging" else 1)
    return config.num_layers * layer + pooler + classifier


def _has_pooler(config, task):
    return config.pooling == "pooler" and task != "tagging"


def file_bytes(path):
    """Bytes on disk of a file, or of all files in a folder."""
    path = Path(path)
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
