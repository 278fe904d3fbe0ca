"""The BERT encoder as a flat functional Keras model. Devlin et al., 2019, arXiv:1810.04805.

Equation map
    Sec. 3.2   word + position + type embedding, LayerNorm          embed
    Sec. 3     post-norm Transformer layer                          transformer_layer
    Vaswani et al., 2017, Eq. 1   softmax(QK^T / sqrt(d)) V         transformer_layer (layers.py)
    Sec. 3     [CLS] -> dense + tanh -> classifier                  pool, task_head
    Sec. 3.1   Task 1, scores of the masked words                   mlm_head

Every function takes `get`, which makes a layer by name or returns the layer of that name that exists already. So the
same code builds a model, cuts modules out of one (Theseus), and rewires one for export, always on the same weights.
A block that BERT does not have is a function like `bert` in the table `BLOCKS`, and its fields in `BertConfig`.
"""

from keras_compress.backend import keras, tf
from keras_compress.bert import layers as L
from keras_compress.bert.adapter import adapt, word_table
from keras_compress.bert.bilstm import bilstm
from keras_compress.bert.tasks import TASKS

ATTENTION = "query key value attention_output attention_norm".split()  # other parts: "ffn"
ACTIVATIONS = {
    "gelu": tf.nn.gelu,
    "gelu_tanh": L.gelu_tanh,
    "relu": tf.nn.relu,
    "tanh": keras.activations.tanh,
}
INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")


def split_name(weight):
    """(layer, its "attention" or "ffn", the rest of the name) of a layer's weight: "layer_3_query/kernel"."""
    layer, _, rest = weight.removeprefix("layer_").partition("_")
    return int(layer), "attention" if rest.split("/")[0] in ATTENTION else "ffn", rest


class LayerStore(dict):
    """Layers by name: `store(cls, name, ...)` returns the layer of that name, made at its first use.

    Each new layer gets a seed of its own (two layers with one seeded initialiser would start equal). Weights named in
    `loaded` are set afterwards: they start at zero, because drawing a large table takes seconds.
    """

    def __init__(self, config, seed=0, existing=(), loaded=()):
        super().__init__({layer.name: layer for layer in existing})
        self.config, self.seed, self.loaded = config, seed, {name.split("/")[0] for name in loaded}

    def __call__(self, cls, name, *args, **kwargs):
        if name not in self:
            self.seed += 1
            self[name] = cls(*args, name=name, **kwargs)
        return self[name]

    def normal(self, name):
        """The initialiser of a new layer's kernel or table."""
        if name in self.loaded:
            return "zeros"
        stddev = self.config.initializer_range
        return keras.initializers.TruncatedNormal(0.0, stddev, self.seed + 1)

    def dense(self, name, units, activation=None):
        start = self.normal(name)
        return self(keras.layers.Dense, name, units, activation, kernel_initializer=start)

    def table(self, cls, name, num_rows, width):
        return self(cls, name, num_rows, width, embeddings_initializer=self.normal(name))

    def dropout(self, name, rate=None):
        rate = self.config.dropout if rate is None else rate
        return self(keras.layers.Dropout, name, rate, seed=self.seed + 1)

    def norm(self, name):
        return self(L.LayerNorm, name, epsilon=self.config.layer_norm_eps)


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
        sizes = config.type_vocab_size, x.shape[-1]
        types = get.table(keras.layers.Embedding, "type_embeddings", *sizes)(type_ids)
        x = get(keras.layers.Add, "embeddings_add")([x, types])
    sizes = config.max_position_embeddings, x.shape[-1]
    x = get.table(L.PositionEmbedding, "position_embeddings", *sizes)(x)
    x = get.norm("embeddings_norm")(x)
    if config.embedding_norm == "embedding":
        x = adapt(get, x)
    return get.dropout("embeddings_dropout")(x)


def transformer_layer(get, index, x, bias, cls_only=False):
    """One post-norm layer: attention, add & norm, feed-forward, add & norm.

    Args:
        index: which layer, from 0. x: float, (batch, seq, hidden).
        bias: float, (batch, 1, 1, seq), added to the scores.
        cls_only: compute the outputs of [CLS] alone; exact, and enough for the last layer under [CLS] pooling.
    Returns:
        (hidden states (batch, seq or 1, hidden), attention scores before mask and softmax (batch, heads, seq, seq)).
    """
    config, hidden = get.config, get.config.hidden_size
    name = f"layer_{config.owner(index, 'attention')}_"
    reader = get(L.FirstTokenKept, "cls_only")(x) if cls_only else x
    width = config.heads[index] * config.head_size
    query = get.dense(name + "query", width)(reader)
    key = get.dense(name + "key", width)(x)
    value = get.dense(name + "value", width)(x)
    scores = get(L.AttentionScores, name + "attention_scores", config.heads[index])(query, key)
    probs = get(L.AttentionProbs, name + "attention_probs")([scores, bias])
    dropout = get.dropout(name + "attention_probs_dropout", config.attention_dropout)
    context = get(L.AttentionContext, name + "attention_context")([dropout(probs), value])
    context = get.dense(name + "attention_output", hidden)(context)
    x = add_and_norm(get, name + "attention", reader, context)
    name = f"layer_{config.owner(index, 'ffn')}_"
    act = ACTIVATIONS[config.activation]
    inner = get.dense(name + "intermediate", config.ffn_sizes[index], act)(x)
    inner = get.dense(name + "output", hidden)(inner)
    return add_and_norm(get, name + "output", x, inner), scores


def add_and_norm(get, name, x, y):
    """LayerNorm(x + dropout(y)). (batch, seq, hidden) twice -> the same."""
    y = get.dropout(name + "_dropout")(y)
    y = get(keras.layers.Add, name + "_add")([x, y])
    return get.norm(name + "_norm")(y)


def pool(get, x, mask):
    """One vector per text, as `config.pooling` says. (batch, seq, hidden), (batch, seq) -> (batch, hidden)."""
    if get.config.pooling == "mean":
        return get(L.MaskedMean, "pooled_mean")(x, mask)
    first = get(L.FirstToken, "pooled_cls")(x)
    if get.config.pooling == "cls":
        return first
    act = ACTIVATIONS[get.config.pooler_activation]
    return get.dense("pooler", get.config.hidden_size, act)(first)


def mlm_head(get, x):
    """Scores of all words: dense, activation, LayerNorm, the embedding matrix. (..., hidden) -> (..., vocabulary)."""
    act = ACTIVATIONS[get.config.activation]
    x = get.dense("mlm_transform", get.config.table_size, act)(x)
    x = get.norm("mlm_norm")(x)
    return get(L.Bias, "mlm_bias")(word_table(get)(x, as_decoder=True))


def task_head(get, task, num_labels, x, mask):
    """What a task reads from the last hidden states: a classifier per text, per token (tagging), or all words (mlm).

    Returns:
        (pooled (batch, hidden) or None, logits (batch, classes), (batch, seq, labels) or (batch, seq, vocabulary)).
    """
    if task == "mlm":
        return None, mlm_head(get, x)
    pooled = None if TASKS[task].per_token else pool(get, x, mask)
    dropped = get.dropout("classifier_dropout")(x if pooled is None else pooled)
    return pooled, get.dense("classifier", num_labels)(dropped)


def bert(get, task, num_labels, inputs, cls_only=False):
    """Outputs of a BERT (see `build`)."""
    bias = get(L.AttentionBias, "attention_bias")(inputs["input_mask"])
    x = embed(get, inputs["input_word_ids"], inputs["input_type_ids"])
    outputs, last = {"hidden_states": [x], "attention_scores": []}, get.config.num_layers - 1
    for index in range(last + 1):
        x, scores = transformer_layer(get, index, x, bias, cls_only and index == last)
        outputs["hidden_states"].append(x)
        outputs["attention_scores"].append(scores)
    pooled, logits = task_head(get, task, num_labels, x, inputs["input_mask"])
    return {**outputs, "logits": logits, "pooled": pooled}


BLOCKS = {"bert": bert, "bilstm": bilstm}


def build(config, task, num_labels, get, sequence_length=None, batch_size=None, cls_only=False):
    """Builds the flat model of a task.

    Args:
        config: `BertConfig`. task: one of `TASKS`. num_labels: width of the classifier.
        get: `LayerStore`; layers that it holds are used, others are made.
        sequence_length, batch_size: fixed sizes for export; None = any.
        cls_only: compute the last layer for [CLS] alone.
    Returns:
        (inputs, outputs): dicts of symbolic tensors. Outputs: `hidden_states` (list: embeddings, then each layer;
        (batch, seq, hidden)), `attention_scores` (list), `pooled` (for tasks that pool), `logits`.
    Raises:
        ValueError: if the task is unknown, or config or `cls_only` do not fit it.
    """
    of_models = [name for name in TASKS if TASKS[name].answer]
    if task not in of_models:
        raise ValueError(f"`task` must be one of {', '.join(of_models)}. Received: {task!r}.")
    if cls_only and not can_be_cls_only(config, task):
        raise ValueError(
            "`cls_only` needs a head that reads [CLS] alone. "
            f"Received: task {task!r}, pooling {config.pooling!r}, a {config.architecture}."
        )
    if (task, config.architecture, config.type_vocab_size) == ("matching", "bert", 1):
        raise ValueError(
            "A BERT that reads pairs must have two token types, or none. Received: `type_vocab_size` = 1. "
            "Choose a BERT that was trained on pairs."
        )
    inputs = make_inputs(sequence_length, batch_size)
    outputs = BLOCKS[config.architecture](get, task, num_labels, inputs, cls_only)
    return inputs, {name: output for name, output in outputs.items() if output is not None}


def can_be_cls_only(config, task):
    """Whether the logits depend on the last layer's [CLS] vector alone."""
    pools = not TASKS[task].per_token and config.pooling != "mean"
    return config.architecture == "bert" and pools
