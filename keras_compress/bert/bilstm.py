"""A bidirectional LSTM under the encoder's contract: the smallest student. Tang et al., 2019, arXiv:1903.12136.

Of a `BertConfig` it takes: `hidden_size`, width of the word vectors; `num_layers`; `intermediate_size`, units per
direction; `dropout`. It has neither positions nor token types nor attention.
"""

from keras_compress.backend import keras, tf
from keras_compress.bert import layers as L


def build(config, task, num_labels, get, sequence_length=None, batch_size=None, cls_only=False):
    """Builds the model; arguments and outputs as `encoder.build`, without `attention_scores`; the mean is pooled."""
    from keras_compress.bert.encoder import make_inputs, word_table

    if task == "mlm" or cls_only:
        raise ValueError(
            "A BiLSTM serves classification, matching and tagging, with mean pooling. "
            f"Received: task {task!r}, cls_only {cls_only}."
        )
    inputs = make_inputs(sequence_length, batch_size)
    hidden_states = [
        get(keras.layers.Dropout, "embeddings_dropout", config.dropout)(
            word_table(get)(inputs["input_word_ids"])
        )
    ]
    for index in range(config.num_layers):
        both = [
            _lstm(
                get,
                f"lstm_{index}_{way}",
                hidden_states[-1],
                inputs["input_mask"],
                way == "backward",
            )
            for way in ("forward", "backward")
        ]
        hidden_states.append(
            get(keras.layers.Concatenate, f"lstm_{index}_both")(both)
        )  # (batch, seq, 2 units)
    pooled = (
        None
        if task == "tagging"
        else get(L.MaskedMean, "pooled_mean")(hidden_states[-1], inputs["input_mask"])
    )
    last = hidden_states[-1] if pooled is None else pooled
    logits = get(keras.layers.Dense, "classifier", num_labels)(
        get(keras.layers.Dropout, "classifier_dropout", config.dropout)(last)
    )
    outputs = {"hidden_states": hidden_states, "logits": logits}
    return inputs, outputs if pooled is None else {**outputs, "pooled": pooled}


def _lstm(get, name, x, mask, backward):
    x = get(
        keras.layers.LSTM,
        name,
        get.config.intermediate_size,
        return_sequences=True,
        go_backwards=backward,
    )(x, mask=get(AsBool, "as_bool")(mask))
    return get(Reverse, name + "_reverse")(x) if backward else x


@L.register
class AsBool(keras.layers.Layer):
    """`input_mask` as bool. (batch, seq) -> the same."""

    def call(self, mask):
        return tf.cast(mask, tf.bool)


@L.register
class Reverse(keras.layers.Layer):
    """The sequence from its end to its start. (batch, seq, width) -> the same."""

    def call(self, x):
        return tf.reverse(x, axis=[1])
