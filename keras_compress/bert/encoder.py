"""The BERT encoder as a flat functional Keras model. Devlin et al., 2019, arXiv:1810.04805.

Equation map
    Sec. 3.2   word + position + type embedding, LayerNorm          embed
    Sec. 3     post-norm Transformer layer                          transformer_layer
    Vaswani et al., 2017, Eq. 1   softmax(QK^T / sqrt(d)) V         transformer_layer (layers.py)
    Sec. 3     [CLS] -> dense + tanh -> classifier                  pool, task_head
    Sec. 3.1   Task 1, scores of the masked words                   mlm_head

Every function takes `get`, which makes a layer by name or returns the one that already exists. So the same code
builds a model, cuts modules out of one (Theseus), and rewires one for export, always on the same weights.
"""

from keras_compress.backend import keras, tf
from keras_compress.bert import bilstm
from keras_compress.bert import layers as L
from keras_compress.bert.adapter import GroupLinear, adapt
from keras_compress.training.settings import check_choice

TASKS = ("classification", "matching", "tagging", "mlm")
ATTENTION_PARTS = (
    "query",
    "key",
    "value",
    "attention_output",
    "attention_norm",
)  # a layer's other weights: "ffn"
INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")


def split_name(weight):
    """(layer, its "attention" or "ffn", the rest of the name) of a layer's weight: "layer_3_query/kernel"."""
    layer, _, rest = weight.removeprefix("layer_").partition("_")
    return int(layer), "attention" if rest.split("/")[0] in ATTENTION_PARTS else "ffn", rest


class LayerStore(dict):
    """Layers by name: `store(cls, name, ...)` returns the layer of that name, made at its first use.

    Each new layer gets a seed of its own (two layers with one seeded initialiser would start equal). Layers named in
    `loaded` get their weights afterwards: they start at zero, because drawing a large table takes seconds.
    """

    def __init__(self, config, seed=0, existing=(), loaded=()):
        super().__init__({layer.name: layer for layer in existing})
        self.config, self.seed, self.loaded = config, seed, frozenset(loaded)

    def __call__(self, cls, name, *args, **kwargs):
        if name not in self:
            self.seed += 1
            stddev = self.config.initializer_range
            truncated_normal = keras.initializers.TruncatedNormal(stddev=stddev, seed=self.seed)
            initializer = "zeros" if name in self.loaded else truncated_normal
            if cls in (keras.layers.Dense, GroupLinear):
                kwargs["kernel_initializer"] = initializer
            elif issubclass(cls, keras.layers.Embedding):
                kwargs["embeddings_initializer"] = initializer
            elif cls is L.PositionEmbedding:
                kwargs["initializer"] = initializer
            elif cls is keras.layers.LSTM:
                kwargs |= {
                    "kernel_initializer": keras.initializers.GlorotUniform(self.seed),
                    "recurrent_initializer": keras.initializers.Orthogonal(seed=self.seed),
                }
            elif cls is keras.layers.Dropout:
                kwargs["seed"] = self.seed
            self[name] = cls(*args, name=name, **kwargs)
        return self[name]


def make_inputs(sequence_length=None, batch_size=None):
    """The three int32 inputs, (batch, seq) each, by name."""
    return {
        name: keras.Input((sequence_length,), batch_size, name=name, dtype="int32")
        for name in INPUT_NAMES
    }


def embed(get, word_ids, type_ids):
    """Sum of word, type and position embeddings, normalised. (batch, seq) twice -> (batch, seq, hidden)."""
    config = get.config
    x = word_table(get)(word_ids)
    if config.embedding_norm == "hidden":
        x = adapt(get, x)
    if config.type_vocab_size:
        types = get(keras.layers.Embedding, "type_embeddings", config.type_vocab_size, x.shape[-1])(
            type_ids
        )
        x = get(keras.layers.Add, "embeddings_add")([x, types])
    x = get(L.PositionEmbedding, "position_embeddings", config.max_position_embeddings)(x)
    x = get(L.LayerNorm, "embeddings_norm", config.layer_norm_eps)(x)
    if config.embedding_norm == "embedding":
        x = adapt(get, x)
    return get(keras.layers.Dropout, "embeddings_dropout", config.dropout)(x)


def word_table(get):
    """The word embeddings' layer: (batch, seq) -> (batch, seq, embedding)."""
    return get(L.WordEmbedding, "word_embeddings", get.config.vocab_size, get.config.table_size)


def activation(name):
    return {"gelu": tf.nn.gelu, "gelu_tanh": L.gelu_tanh, "relu": tf.nn.relu}[name]


def transformer_layer(get, index, x, bias, cls_only=False):
    """One post-norm layer: attention, add & norm, feed-forward, add & norm.

    Args:
        index: which layer, from 0.
        x: float, (batch, seq, hidden).
        bias: float, (batch, 1, 1, seq), added to the scores.
        cls_only: compute the outputs of [CLS] alone; exact, and enough for the last layer under [CLS] pooling.
    Returns:
        (hidden states (batch, seq or 1, hidden), attention scores before mask and softmax (batch, heads, seq, seq)).
    """
    config, dense = get.config, keras.layers.Dense
    name = f"layer_{config.owner(index, 'attention')}_"
    asking = get(L.FirstTokenKept, "cls_only")(x) if cls_only else x
    query = get(dense, name + "query", config.hidden_size)(asking)
    key = get(dense, name + "key", config.hidden_size)(x)
    value = get(dense, name + "value", config.hidden_size)(x)
    scores = get(L.AttentionScores, name + "attention_scores", config.num_heads)(query, key)
    probs = get(L.AttentionProbs, name + "attention_probs")([scores, bias])
    probs = get(keras.layers.Dropout, name + "attention_probs_dropout", config.attention_dropout)(
        probs
    )
    context = get(L.AttentionContext, name + "attention_context")([probs, value])
    context = get(dense, name + "attention_output", config.hidden_size)(context)
    context = get(keras.layers.Dropout, name + "attention_dropout", config.dropout)(context)
    x = get(keras.layers.Add, name + "attention_add")([asking, context])
    x = get(L.LayerNorm, name + "attention_norm", config.layer_norm_eps)(x)
    name = f"layer_{config.owner(index, 'ffn')}_"
    inner = get(
        dense, name + "intermediate", config.intermediate_size, activation(config.activation)
    )(x)
    inner = get(dense, name + "output", config.hidden_size)(inner)
    inner = get(keras.layers.Dropout, name + "output_dropout", config.dropout)(inner)
    x = get(keras.layers.Add, name + "output_add")([x, inner])
    return get(L.LayerNorm, name + "output_norm", config.layer_norm_eps)(x), scores


def pool(get, x, mask):
    """One vector per text, as `config.pooling` says. (batch, seq, hidden), (batch, seq) -> (batch, hidden)."""
    config = get.config
    if config.pooling == "mean":
        return get(L.MaskedMean, "pooled_mean")(x, mask)
    first = get(L.FirstToken, "pooled_cls")(x)
    return (
        get(keras.layers.Dense, "pooler", config.hidden_size, "tanh")(first)
        if config.pooling == "pooler"
        else first
    )


def mlm_head(get, x):
    """Scores of all words: dense, activation, LayerNorm, the word table itself. (..., hidden) -> (..., vocabulary)."""
    config = get.config
    x = get(keras.layers.Dense, "mlm_transform", config.table_size, activation(config.activation))(
        x
    )
    x = get(L.LayerNorm, "mlm_norm", config.layer_norm_eps)(x)
    return get(L.Bias, "mlm_bias")(word_table(get)(x, as_decoder=True))


def task_head(get, task, num_labels, x, mask):
    """What a task reads from the last hidden states: a classifier per text, per token (tagging), or all words (mlm).

    Returns:
        (pooled (batch, hidden) or None, logits (batch, classes), (batch, seq, labels) or (batch, seq, vocabulary)).
    """
    if task == "mlm":
        return None, mlm_head(get, x)
    pooled = None if task == "tagging" else pool(get, x, mask)
    dropped = get(keras.layers.Dropout, "classifier_dropout", get.config.dropout)(
        x if pooled is None else pooled
    )
    return pooled, get(keras.layers.Dense, "classifier", num_labels)(dropped)


def build(
    config, task, num_labels, get=None, sequence_length=None, batch_size=None, cls_only=False
):
    """Builds the flat model of a task.

    Args:
        config: `BertConfig`.
        task: one of `TASKS`.
        num_labels: width of the classifier.
        get: `LayerStore`; layers that it holds are used, others are made.
        sequence_length, batch_size: fixed sizes for export; None = any.
        cls_only: compute the last layer for [CLS] alone.
    Returns:
        (inputs, outputs): dicts of symbolic tensors. Outputs: `hidden_states` (list: embeddings, then each layer;
        (batch, seq, hidden)), `attention_scores` (list), `pooled` (for tasks that pool), `logits`.
    Raises:
        ValueError: if the task is unknown, or `cls_only` does not fit task and pooling.
    """
    check_choice("task", task, TASKS)
    get = LayerStore(config) if get is None else get
    if config.architecture == "bilstm":
        return bilstm.build(config, task, num_labels, get, sequence_length, batch_size, cls_only)
    if cls_only and not can_be_cls_only(config, task):
        raise ValueError(
            "`cls_only` needs a head that reads [CLS] alone. "
            f"Received: task {task!r}, pooling {config.pooling!r}."
        )
    inputs = make_inputs(sequence_length, batch_size)
    bias = get(L.AttentionBias, "attention_bias")(inputs["input_mask"])
    hidden_states = [embed(get, inputs["input_word_ids"], inputs["input_type_ids"])]
    attention_scores = []
    for index in range(config.num_layers):
        last = index == config.num_layers - 1
        x, scores = transformer_layer(
            get, index, hidden_states[-1], bias, cls_only=cls_only and last
        )
        hidden_states.append(x)
        attention_scores.append(scores)
    pooled, logits = task_head(get, task, num_labels, hidden_states[-1], inputs["input_mask"])
    outputs = {
        "hidden_states": hidden_states,
        "attention_scores": attention_scores,
        "logits": logits,
    }
    return inputs, outputs if pooled is None else {**outputs, "pooled": pooled}


def can_be_cls_only(config, task):
    """Whether the logits depend on the last layer's [CLS] vector alone."""
    return (
        config.architecture == "bert"
        and task in ("classification", "matching")
        and config.pooling in ("pooler", "cls")
    )
