"""A bidirectional LSTM in the encoder's place: the smallest student. Tang et al., 2019, arXiv:1903.12136.

Of a `BertConfig` it takes: `hidden_size`, width of the word vectors; `num_layers`; `intermediate_size`, units per
direction; `dropout`. It has neither positions nor token types nor attention, and its pooling is the mean.
"""

from keras_compress.backend import keras, tf
from keras_compress.bert import layers as L
from keras_compress.bert.adapter import word_table
from keras_compress.bert.tasks import TASKS


def bilstm(get, task, num_labels, inputs, cls_only=False):
    """Outputs of the model (see `encoder.build`), without `attention_scores`; hidden states after the first are
    (batch, seq, 2 units)."""
    if task == "mlm":
        raise ValueError("A BiLSTM serves tasks with labels. Received: task 'mlm'. Take a BERT.")
    mask, embedded = inputs["input_mask"], get.dropout("embeddings_dropout")
    hidden_states = [embedded(word_table(get)(inputs["input_word_ids"]))]
    for index in range(get.config.num_layers):
        both = [
            _lstm(get, f"lstm_{index}_forward", hidden_states[-1], mask),
            _lstm(get, f"lstm_{index}_backward", hidden_states[-1], mask, go_backwards=True),
        ]
        hidden_states.append(get(keras.layers.Concatenate, f"lstm_{index}_both")(both))
    last, pooled = hidden_states[-1], None
    if not TASKS[task].per_token:
        last = pooled = get(L.MaskedMean, "pooled_mean")(last, mask)
    classifier = get.dense("classifier", num_labels)  # first, as its seed was drawn
    logits = classifier(get.dropout("classifier_dropout")(last))
    return {"hidden_states": hidden_states, "pooled": pooled, "logits": logits}


def _lstm(get, name, x, mask, **settings):
    lstm = get(
        keras.layers.LSTM,
        name,
        get.config.intermediate_size,
        kernel_initializer=keras.initializers.GlorotUniform(get.seed + 1),
        recurrent_initializer=keras.initializers.Orthogonal(seed=get.seed + 1),
        return_sequences=True,
        **settings,
    )
    x = lstm(x, mask=get(AsBool, "as_bool")(mask))
    return get(Reverse, name + "_reverse")(x) if settings else x


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
