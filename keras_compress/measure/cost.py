"""What a model costs: parameters, floating point operations, bytes.

Formulas for the flat BERT of `keras_compress.bert`, with V, P, T the sizes of the three embedding tables, h the hidden
size, f the feed-forward size, L layers, n tokens, C labels.

    embeddings   (V + P + T) h + 2 h                      parameters
    one layer    4 (h^2 + h) + (h f + f) + (f h + h) + 4 h
    pooler       h^2 + h        (pooling = "pooler" only; a tagger has none)
    classifier   h C + C
    BiLSTM       per layer 8 (in + u + 1) u parameters and 16 n (in + u) u flops; u units per direction
    flops        L (8 n h^2 + 4 n^2 h + 4 n h f) + 2 h^2 (pooler) + 2 h C (classifier; n times that for tagging)

One multiply-add is 2 flops. Only matrix products are counted: q, k, v, o (8 n h^2), scores and weighted values
(4 n^2 h), feed-forward (4 n h f). Table look-ups multiply nothing; biases, softmax, normalisation and activation are
under 1 % of the whole. The count is that of the fixed (1, n) graph, padding included, every layer in full.
"""

from pathlib import Path


def encoder_parameters(config):
    """Parameters of the layers alone: no embeddings, pooler or classifier."""
    if config.architecture == "bilstm":
        units = config.intermediate_size
        return sum(8 * (width + units + 1) * units for width in _widths(config))
    hidden, inner = config.hidden_size, config.intermediate_size
    layer = 4 * (hidden * hidden + hidden) + (hidden * inner + inner) + (inner * hidden + hidden) + 4 * hidden
    return config.num_layers * layer


def parameters(config, num_labels=0, task="classification"):
    """All parameters of a BERT; `num_labels` = 0 leaves out the classifier."""
    hidden = config.hidden_size
    tables = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    pooler = hidden * hidden + hidden if _has_pooler(config, task) else 0
    classifier = (hidden + 1) * num_labels
    return tables * hidden + 2 * hidden + encoder_parameters(config) + pooler + classifier


def flops(config, sequence_length, num_labels=0, task="classification"):
    """Floating point operations of one forward pass over one sequence (module docstring)."""
    if config.architecture == "bilstm":
        units, tokens = config.intermediate_size, sequence_length if task == "tagging" else 1
        return sum(2 * sequence_length * 8 * (width + units) * units for width in _widths(config)) + (
            2 * 2 * units * num_labels * tokens)
    hidden, inner, n = config.hidden_size, config.intermediate_size, sequence_length
    layer = 8 * n * hidden * hidden + 4 * n * n * hidden + 4 * n * hidden * inner
    pooler = 2 * hidden * hidden if _has_pooler(config, task) else 0
    classifier = 2 * hidden * num_labels * (n if task == "tagging" else 1)
    return config.num_layers * layer + pooler + classifier


def _widths(config):
    """What each layer of a BiLSTM reads."""
    return [config.hidden_size] + [2 * config.intermediate_size] * (config.num_layers - 1)


def _has_pooler(config, task):
    return config.pooling == "pooler" and task != "tagging"


def file_bytes(path):
    """Bytes on disk of a file, or of all files in a folder."""
    path = Path(path)
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
