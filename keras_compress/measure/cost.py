"""What a model costs: parameters, floating point operations.

Formulas for the flat BERT of `keras_compress.bert`, with V, P, T the sizes of the three embedding tables, h the hidden
size, w = heads * head size the width of attention (h, unless heads were taken out), f the feed-forward size, L layers,
n tokens, C labels. Layers may differ in w and f.

    embeddings   (V + P + T) h + 2 h                      parameters; with a word table of width E < h
                 V E + (P + T + 2) (h or E) + adapter, which is E h + h, or of each transform (in out / groups + out),
                 and of each LayerNorm of an hgt 2 out
    one layer    3 (h w + w) + (w h + h) + (h f + f) + (f h + h) + 4 h
    MobileBERT   per layer of width m, F feed-forward layers: the matrices and norms of `_mobilebert_layer`
    pooler       h^2 + h        (pooling = "pooler" only; a tagger has none)
    classifier   h C + C
    branch       (h b + b) + 4 (b^2 + b) + (b^2 + b) + b C + C, b = 128; in place of pooler and classifier, and at each exit
    BiLSTM       per layer 8 (in + u + 1) u parameters and 16 n (in + u) u flops; u units per direction
    flops        L (8 n h w + 4 n^2 w + 4 n h f) + 2 n E h (narrow table; 2 n in out / groups) + 2 h^2 (pooler)
                 + 2 h C (classifier; n times that for tagging)
                 a branch 2 n (h b + 4 b^2) + 2 b^2 + 4 n^2 b + 2 b C; what leaves at an exit pays for the layers and
                 branches up to it. That counts every place, as its authors do; branch.py makes one query, so fewer

One multiply-add is 2 flops. Only matrix products are counted: q, k, v, o (8 n h w), scores and weighted values
(4 n^2 w), feed-forward (4 n h f). Table look-ups multiply nothing; biases, softmax, normalisation and activation are
under 1 % of the whole. The count is that of the fixed (1, n) graph, padding included, every layer in full.
The authors of FastBERT count neither n^2 terms nor the last Dense layers: `include_attention=False`. So they count
21,785,247,744 for BERT-base under a branch classifier, 128 tokens, 2 classes.
"""

from keras_compress.bert.branch import WIDTH
from keras_compress.bert.tasks import TASKS


def encoder_parameters(config):
    """Parameters of the layers alone, shared ones counted once: no embeddings, pooler or classifier."""
    hidden, inner = config.hidden_size, config.intermediate_size
    if config.architecture == "bilstm":
        return sum(8 * (width + inner + 1) * inner for width in _widths(config))

    if config.architecture == "mobilebert":
        shapes, norms = _mobilebert_layer(config)
        return config.num_layers * (sum(i * o + o for i, o in shapes) + 2 * sum(norms))

    def own(part, sizes):
        return [sizes[n] for n in range(len(sizes)) if config.owner(n, part) == n]

    total = 0
    for heads in own("attention", config.heads):
        width = heads * config.head_size
        total += 3 * (hidden * width + width) + (width * hidden + hidden) + 2 * hidden
    for inner in own("ffn", config.ffn_sizes):
        total += (hidden * inner + inner) + (inner * hidden + hidden) + 2 * hidden
    return total


def parameters(config, num_labels=0, task="classification"):
    """All parameters of a BERT; `num_labels` = 0 leaves out the classifier."""
    hidden, table, shapes = config.hidden_size, config.table_size, config.adapter_shapes
    normed = table if config.embedding_norm == "embedding" else hidden
    small_rows = config.max_position_embeddings + config.type_vocab_size + 2
    embeddings = config.vocab_size * table + small_rows * normed
    adapter = sum(inputs * outputs // groups + outputs for inputs, outputs, groups in shapes)
    if config.adapter == "hgt":
        adapter += sum(2 * outputs for _, outputs, _ in shapes[:-1])
    pooler = hidden * hidden + hidden if _has_pooler(config, task) else 0
    dense = (hidden + 1) * num_labels
    branch = (hidden + 1) * WIDTH + 5 * (WIDTH + 1) * WIDTH + (WIDTH + 1) * num_labels
    head = branch if config.classifier == "branch" else pooler + dense
    exits = len(config.exits or ()) * branch
    return embeddings + adapter + encoder_parameters(config) + head + exits


def flops(
    config,
    sequence_length,
    num_labels=0,
    task="classification",
    exit_layer=None,
    include_attention=True,
):
    """Floating point operations of one forward pass over one sequence (module docstring).

    Args:
        exit_layer: after which the text leaves, one of `config.exits`, or the last for all layers and all branches. None:
            all layers, without exits. include_attention: count the n^2 terms and the last Dense layers.
    """
    hidden, inner, n = config.hidden_size, config.intermediate_size, sequence_length
    labels = num_labels * (n if TASKS[task].per_token else 1)
    if config.architecture == "bilstm":
        layers = sum(16 * n * (width + inner) * inner for width in _widths(config))
        return layers + 4 * inner * labels
    widths = [heads * config.head_size for heads in config.heads]
    layers = [
        8 * n * hidden * width + 4 * n * hidden * inner
        for width, inner in zip(widths, config.ffn_sizes)
    ]
    if config.architecture == "mobilebert":
        matrices = sum(inputs * outputs for inputs, outputs in _mobilebert_layer(config)[0])
        layers = [2 * n * matrices] * config.num_layers
    branch = 2 * n * (hidden * WIDTH + 4 * WIDTH**2) + 2 * WIDTH**2
    dense = 2 * hidden * labels
    if include_attention:
        layers = [layer + 4 * n * n * width for layer, width in zip(layers, widths)]
        branch += 4 * n * n * WIDTH + 2 * WIDTH * labels
    else:
        dense = 0
    shapes = config.adapter_shapes
    adapter = sum(2 * n * inputs * outputs // groups for inputs, outputs, groups in shapes)
    pooler = 2 * hidden * hidden if _has_pooler(config, task) else 0
    head = branch if config.classifier == "branch" else pooler + dense
    if exit_layer is None:
        return adapter + sum(layers) + head
    passed = sum(each <= exit_layer for each in config.exits) * branch
    last = head if exit_layer == config.num_layers else 0
    return adapter + sum(layers[:exit_layer]) + passed + last


def _mobilebert_layer(config):
    """([(inputs, outputs) of each dense], [width of each norm]) of a block (bert/mobilebert.py)."""
    h, m, f, read = (
        config.hidden_size,
        config.inner_size,
        config.intermediate_size,
        config.attention_input,
    )
    narrow = 0 if not config.bottleneck_size else 2 if read == "shared" else 1  # bottlenecks
    key, value = h if read == "hidden" else m, m if read == "bottleneck" else h
    shapes = narrow * [(h, m)] + [(key, m), (key, m), (value, m), (m, m)]
    shapes += config.num_ffn * [(m, f), (f, m)]
    up = [(m, h)] if narrow else []
    return shapes + up, (narrow + 1 + config.num_ffn) * [m] + [h for _ in up]


def _widths(config):
    """What each layer of a BiLSTM reads."""
    return [config.hidden_size] + [2 * config.intermediate_size] * (config.num_layers - 1)


def _has_pooler(config, task):
    return config.pooling == "pooler" and not TASKS[task].per_token
