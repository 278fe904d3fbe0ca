"""The BERT encoder as a flat functional Keras model. Devlin et al., 2019, arXiv:1810.04805.

Equation map
    Sec. 3.2   word + position + type embedding, LayerNorm          embed
    Sec. 3     post-norm Transformer layer                          transformer_layer
    Vaswani et al., 2017, Eq. 1   softmax(QK^T / sqrt(d)) V         attention (layers.py)
    Sec. 3     [CLS] -> dense + tanh -> classifier                  pool, task_head
    Sec. 3.1   Task 1, scores of the masked words                   mlm_head
    Liu et al., 2020, arXiv:2004.02178   branch classifiers         branch.py

Every function takes `get`, which makes a layer by name or returns the layer of that name that exists already. So the
same code builds a model, cuts modules out of one (Theseus), and rewires one for export, always on the same weights.
A block that BERT does not have is a function like `bert` in the table `BLOCKS`, and its fields in `BertConfig`.
"""

from keras_compress.backend import keras
from keras_compress.bert import layers as L
from keras_compress.bert.adapter import adapt, word_table
from keras_compress.bert.bilstm import bilstm
from keras_compress.bert.branch import branch
from keras_compress.bert.layers import ACTIVATIONS, add_and_norm, attention
from keras_compress.bert.mobilebert import mobilebert_layer
from keras_compress.bert.tasks import TASKS

ATTENTION = "query key value attention_output attention_norm".split()  # other parts: "ffn"
MLM_ROWS = ("mlm_bias/bias", "mlm_extra/kernel")  # of the masked-LM head, one row a piece
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
        if self.config.norm == "none":
            return self(L.NoNorm, name)
        return self.layer_norm(name)

    def layer_norm(self, name):
        return self(L.LayerNorm, name, epsilon=self.config.layer_norm_eps)


def make_inputs(sequence_length=None, batch_size=None):
    """The three int32 inputs, (batch, seq) each, by name."""
    return {
        name: keras.Input((sequence_length,), batch_size, name=name, dtype="int32")
        for name in INPUT_NAMES
    }


def embed(get, word_ids, type_ids, mask=None):
    """Sum of word, type and position embeddings, normalised. (batch, seq) twice -> (batch, seq, hidden).

    `mask`, `input_mask`, is needed where `config.trigram` is set.
    """
    config = get.config
    x = word_table(get)(word_ids)
    if config.trigram:
        x = get(L.Trigram, "trigram")(x, mask)
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
    context, scores = attention(get, name, reader, x, x, bias, config.heads[index])
    x = add_and_norm(get, name + "attention", reader, context)
    name = f"layer_{config.owner(index, 'ffn')}_"
    act = ACTIVATIONS[config.activation]
    inner = get.dense(name + "intermediate", config.ffn_sizes[index], act)(x)
    inner = get.dense(name + "output", hidden)(inner)
    return add_and_norm(get, name + "output", x, inner), scores


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
    """Scores of all words: dense, activation, LayerNorm, the embedding matrix. (..., hidden) -> (..., vocabulary).

    A MobileBERT's stays at `hidden_size`; a matrix for this head alone widens its narrow word table.
    """
    config = get.config
    width = config.hidden_size if config.architecture == "mobilebert" else config.table_size
    x = get.dense("mlm_transform", width, ACTIVATIONS[config.activation])(x)
    x = get.layer_norm("mlm_norm")(x)
    scores = word_table(get)(x, as_decoder=True)
    if width > config.table_size:
        scores = get(L.ExtraScores, "mlm_extra", width - config.table_size)([scores, x])
    return get(L.Bias, "mlm_bias")(scores)


def task_head(get, task, num_labels, x, mask):
    """What a task reads from the last hidden states: a classifier per text, per token (tagging), or all words (mlm).

    Returns:
        (pooled (batch, hidden) or None, logits (batch, classes), (batch, seq, labels) or (batch, seq, vocabulary)).
    """
    if task == "mlm":
        return None, mlm_head(get, x)
    if get.config.classifier == "branch":
        return None, branch(get, "classifier", x, mask, num_labels)
    pooled = None if TASKS[task].per_token else pool(get, x, mask)
    dropped = get.dropout("classifier_dropout")(x if pooled is None else pooled)
    return pooled, get.dense("classifier", num_labels)(dropped)


def bert(get, task, num_labels, inputs, cls_only=False):
    """Outputs of a BERT or MobileBERT (see `build`)."""
    layer = mobilebert_layer if get.config.architecture == "mobilebert" else transformer_layer
    bias = get(L.AttentionBias, "attention_bias")(inputs["input_mask"])
    mask, exits = inputs["input_mask"], []
    x = embed(get, inputs["input_word_ids"], inputs["input_type_ids"], mask)
    outputs, last = {"hidden_states": [x], "attention_scores": []}, get.config.num_layers - 1
    for index in range(last + 1):
        x, scores = layer(get, index, x, bias, cls_only and index == last)
        outputs["hidden_states"].append(x)
        outputs["attention_scores"].append(scores)
    pooled, logits = task_head(get, task, num_labels, x, mask)
    # After the head, whose seeds are those of a model without exits.
    for last in get.config.exits or ():
        h = outputs["hidden_states"][last]
        exits.append(branch(get, f"exit_{last}", h, mask, num_labels))
    return {**outputs, "logits": logits, "pooled": pooled, "exit_logits": exits or None}


BLOCKS = {"bert": bert, "bilstm": bilstm, "mobilebert": bert}


def build(config, task, num_labels, get, sequence_length=None, batch_size=None, cls_only=False):
    """Builds the flat model of a task.

    Args:
        config: `BertConfig`. task: one of `TASKS`. num_labels: width of the classifier.
        get: `LayerStore`; layers that it holds are used, others are made.
        sequence_length, batch_size: fixed sizes for export; None = any.
        cls_only: compute the last layer for [CLS] alone.
    Returns:
        (inputs, outputs): dicts of symbolic tensors. Outputs: `hidden_states` (list: embeddings, then each layer;
        (batch, seq, hidden)), `attention_scores` (list), `pooled` (for tasks that pool), `logits`, `exit_logits` (list of
        (batch, labels), with exits).
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
    if task == "matching":
        check_pairs(config)
    one_name = TASKS[task].answer == "softmax" and not TASKS[task].per_token
    if not one_name and (config.exits or config.classifier == "branch"):
        raise ValueError(
            "Branch classifiers must give one name for a text. Received: task "
            f"{task!r}. Take data for classification or matching."
        )
    inputs = make_inputs(sequence_length, batch_size)
    outputs = BLOCKS[config.architecture](get, task, num_labels, inputs, cls_only)
    return inputs, {name: output for name, output in outputs.items() if output is not None}


def check_pairs(config):
    """Raises ValueError if a model cannot tell the two texts of a pair apart."""
    if config.architecture != "bilstm" and config.type_vocab_size == 1:
        raise ValueError(
            "A BERT that reads pairs must have two token types, or none. Received: `type_vocab_size` = 1. "
            "Choose a BERT that was trained on pairs."
        )


def can_be_cls_only(config, task):
    """Whether the logits depend on the last layer's [CLS] vector alone."""
    pools = not TASKS[task].per_token and config.pooling != "mean"
    return config.architecture != "bilstm" and pools and config.classifier == "dense"
