"""A trained BERT encoder in integers alone, from ids to hidden states (ibert.py has the paper and the departures)."""

import copy

import numpy as np

from keras_compress.backend import keras
from keras_compress.bert.encoder import INPUT_NAMES, LayerStore, task_head
from keras_compress.bert.tasks import encoding
from keras_compress.method import check_free
from keras_compress.quantization import integer_functions as I

DECAY, BATCH = 0.95, 32
MASKED = np.int64(-(2**40))  # as a score: below every sum of products


def ranges_of(task_model, names, texts):
    """What floats the outputs of layers take, over real tokens.

    Args:
        names: of layers. texts: at least one, as `TaskModel.predict` takes them.
    Returns:
        ({name: max(|min|, |max|), of moving averages over batches}, {name: largest sum of squares about a token's mean}).
    """
    model, longest = task_model.model, task_model.config.max_position_embeddings
    outputs = keras.Model(model.input, {name: model.get_layer(name).output for name in names})
    encodings = encoding(task_model.task, task_model.tokenizer)(list(texts), longest)
    averages, squares = {}, dict.fromkeys(names, 0.0)
    for first in range(0, len(encodings), BATCH):
        inputs = task_model.pad(encodings[first : first + BATCH])
        for name, values in outputs(inputs, training=False).items():
            values = values.numpy()[inputs["input_mask"] > 0]  # (tokens, width)
            now = np.array([values.min(), values.max()])
            averages[name] = DECAY * averages.get(name, now) + (1.0 - DECAY) * now
            squares[name] = max(squares[name], (values.var(-1) * values.shape[-1]).max())
    return {name: max(np.abs(averages[name]).max(), 1e-8) for name in names}, squares


class IntegerEncoder:
    """An encoder whose constants are integers and scales; called, it computes on integers alone.

    Args:
        task_model: `TaskModel` of a plain BERT without shared layers. texts: that show the ranges of activations.
    """

    def __init__(self, task_model, texts):
        self.config, self.weights = task_model.config, task_model.weights()
        parts = "query key value attention_context attention_add attention_norm intermediate output_add output_norm"
        names = ["position_embeddings", "embeddings_norm"]
        names += [
            f"layer_{k}_{part}" for k in range(self.config.num_layers) for part in parts.split()
        ]
        self.ranges, self.squares = ranges_of(task_model, names, texts)

    def __call__(self, input_word_ids, input_mask, input_type_ids):
        """int64 (batch, seq) three times, arrays or tensors -> (int64 (batch, seq, hidden), scale)."""
        x = self.embed(input_word_ids, input_type_ids)
        for layer in range(self.config.num_layers):
            x = self.layer(f"layer_{layer}_", x, input_mask)
        return x

    def rescaled(self, x, name, bits=8):
        """(q, S) at the scale of an activation: S = max|x| / (2^(bits - 1) - 1)."""
        S = self.ranges[name] / I.largest_code(bits)
        return I.requantize(x[0], x[1] / S, bits), S

    def embed(self, word_ids, type_ids):
        """Word, type and position embeddings of 8 bits, added with 16, normalised."""
        xp, total = I.arrays(word_ids), 0
        positions = np.arange(word_ids.shape[1])
        S_out = self.ranges["position_embeddings"] / I.largest_code(16)
        for table, ids in {"word": word_ids, "type": type_ids, "position": positions}.items():
            if f"{table}_embeddings/embeddings" in self.weights:
                floats = self.weights[f"{table}_embeddings/embeddings"]
                S = np.abs(floats).max() / I.largest_code(8)
                rows = xp.take(I.quantize(floats, S), ids, axis=0)
                # not clamped before the sum: an embedding may be larger than what it adds up to
                total = total + I.requantize(rows, S / S_out, 22)
        total = I.requantize(total, 1.0, 16)
        return self.norm((total, S_out), "position_embeddings", "embeddings_norm")

    def dense(self, name, x):
        """x W + b: 8-bit x and W, 32-bit b and sums. Returns (int64 (..., outputs), scale (outputs,))."""
        (q, S), kernel = x, self.weights[f"{name}/kernel"]
        S_W = np.maximum(np.abs(kernel).max(0), 1e-8) / I.largest_code(8)
        bias = I.quantize(self.weights[f"{name}/bias"], S * S_W, 32)
        return I.arrays(q).matmul(q, I.quantize(kernel, S_W)) + bias, S * S_W

    def norm(self, x, summed, name):
        """LayerNorm of a sum, its output with 8 bits."""
        gamma, beta = (
            self.weights[f"{name}/{part}"].astype(np.float64) for part in ("gamma", "beta")
        )
        shift = I.norm_shift(self.squares[summed] / x[1] ** 2)
        return self.rescaled(I.i_layernorm(x[0], gamma, beta, shift), name)

    def add_and_norm(self, x, y, name):
        """LayerNorm of x + y, both with 22 bits."""
        (x, S), (y, _) = (self.rescaled(each, f"{name}_add", 22) for each in (x, y))
        return self.norm((x + y, S), f"{name}_add", f"{name}_norm")

    def layer(self, name, x, mask):
        """One Transformer layer. (int64 (batch, seq, hidden), scale) -> the same."""
        xp, head_size = I.arrays(x[0]), self.config.hidden_size // self.config.num_heads

        def projected(part):
            q, S = self.rescaled(self.dense(name + part, x), name + part)
            q = xp.reshape(q, (*q.shape[:2], -1, head_size))
            return xp.transpose(q, (0, 2, 1, 3)), S  # (batch, heads, seq, head size)

        (query, S_q), (key, S_k), (value, S_v) = map(projected, ("query", "key", "value"))
        scores = xp.matmul(query, xp.swapaxes(key, -1, -2))  # (batch, heads, seq, seq)
        scores = xp.where(mask[:, None, None, :] > 0, scores, MASKED)
        probs, S_p = I.i_softmax(scores, S_q * S_k / np.sqrt(query.shape[-1]))
        context = xp.transpose(xp.matmul(probs, value), (0, 2, 1, 3))
        context = xp.reshape(context, (*x[0].shape[:2], -1)), S_p * S_v  # (batch, seq, hidden)
        context = self.rescaled(context, name + "attention_context")
        x = self.add_and_norm(x, self.dense(name + "attention_output", context), name + "attention")
        inner, S = self.dense(name + "intermediate", x)
        if self.config.activation == "relu":
            inner = xp.maximum(inner, np.int64(0)), S
        else:
            inner = I.i_gelu(inner, S, shift=14)
        inner = self.rescaled(inner, name + "intermediate")
        return self.add_and_norm(x, self.dense(name + "output", inner), name + "output")


def in_integers(task_model, texts):
    """A model whose encoder computes in integers alone; pooler and classifier are float.

    Args:
        task_model: `TaskModel` of a BERT, best one that `ibert` made. texts: some hundred of the training texts; they
            show which ranges activations have.
    Returns:
        `TaskModel` with the same `predict`; `evaluate` of measure/accuracy.py takes it. It cannot be trained or saved.
        Its `encoder` is an `IntegerEncoder`.
    Raises:
        ValueError: if the model is another, quantises already, or there are no texts.
    """
    check_free(task_model)
    config, task = task_model.config, task_model.task
    if config.architecture != "bert" or config.adapter_shapes:
        raise ValueError(
            "Only a BERT with a plain word table runs in integers. Received: a "
            f"{config.architecture} with `embedding_size` {config.embedding_size}. Use the method `fold` first."
        )
    if not texts:
        raise ValueError(
            "There must be texts that show the ranges. Received: none. Give training texts."
        )
    view = copy.copy(task_model)
    view.encoder = IntegerEncoder(task_model.keep_layers(range(config.num_layers)), texts)
    states, mask = keras.Input((None, config.hidden_size)), keras.Input((None,), dtype="int32")
    store = LayerStore(config, existing=task_model.model.layers)
    _, logits = task_head(store, task, len(task_model.labels), states, mask)
    head = keras.Model([states, mask], logits)

    def forward(encodings, batch_size=BATCH):
        rows = []
        for first in range(0, len(encodings), batch_size):
            inputs = task_model.pad(encodings[first : first + batch_size])
            q, S = view.encoder(*(inputs[name].astype(np.int64) for name in INPUT_NAMES))
            rows.extend(head([np.float32(q * S), inputs["input_mask"]]).numpy())
        return rows

    view.forward = forward  # what `predict` asks
    return view
