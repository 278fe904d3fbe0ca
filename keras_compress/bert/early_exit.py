"""Early exit: a text leaves at the first layer that is sure of it, and the layers above are not computed.

Equation map (Liu et al., 2020, FastBERT, arXiv:2004.02178)
    Eq. 7       Uncertainty = sum_i p(i) log p(i) / log(1/N), in [0, 1]      uncertainty
    Sec. 3.3    leave at the first layer where Uncertainty <= Speed          in_segments, OneGraph
                (the paper writes <, the authors' code keeps what is above)

How Keras skips a layer for real
    `K.switch(condition, a, b)` and `tf.where` do not: where a and b are tensors, both were computed before one is
    chosen. A functional `keras.Model` computes all that its outputs need. A layer that shall not run must not be
    reached; there are four ways:
    1. Segments (`in_segments`): each layer is a small model, and Python calls the next one if a text is left. Between
       two segments only the rows that stay are gathered, so every text pays for its own layers. The way to take
       first, and on a device, too: one signature of a file for each segment.
    2. `tf.cond` with functions that *make* the operations, inside one custom layer (`OneGraph`): the branch that is not
       taken does not run. One decision for a batch: all rows go on until the last one leaves.
    3. `tf.while_loop` over the number of the layer: the recurrent form. The layers' weights must be stacked, (layers,
       ...), to be gathered by number, so all layers must have one shape.
    4. `tf.boolean_mask` inside of 3, which lets the batch shrink as in 1.
    A text's answer and layer are the same in each of them, and in any order of texts. The tests count the layers that ran.
"""

import numpy as np

from keras_compress.backend import keras, tf
from keras_compress.bert.branch import branch
from keras_compress.bert.encoder import LayerStore, embed, make_inputs, task_head, transformer_layer
from keras_compress.bert.layers import AttentionBias


def uncertainty(logits):
    """Normalised entropy of the answers: 0 sure, 1 all classes alike. (..., classes) -> (...), in [0, 1]."""
    log_p = tf.nn.log_softmax(logits)
    # sum_i p(i) log p(i) / log(1/N); log_softmax is finite where p is 0
    entropy = tf.reduce_sum(tf.exp(log_p) * log_p, axis=-1) / np.log(1 / logits.shape[-1])
    return tf.clip_by_value(entropy, 0.0, 1.0)  # not 1.0000001, which speed 1 would keep


def forward(task_model, encodings, batch_size, speed, skipping="segments"):
    """Logits of encoded texts, and the layers at which they left: list of float32 (classes,), int32 (n,), from 1.

    Args:
        speed: largest uncertainty, 0 to 1, with which a text leaves. skipping: "segments" or "graph".
    Raises:
        ValueError: if the model has no exits, or the speed is out of its range.
    """
    exits = task_model.config.exits
    if not exits or not 0.0 <= speed <= 1.0:
        raise ValueError(
            "`speed` must be 0 to 1, and the model must have exits. Received: "
            f"{speed} and exits {exits}. Give the model exits first, or leave `speed` out."
        )
    if skipping not in SKIPPING:
        raise ValueError(f"`skipping` must be {' or '.join(SKIPPING)}. Received: {skipping!r}.")
    if skipping not in task_model.skipping:
        task_model.skipping[skipping] = SKIPPING[skipping](task_model)
    skip = lambda inputs: zip(*task_model.skipping[skipping](inputs, speed))
    rows = task_model.forward(encodings, batch_size, skip)
    return [logits for logits, _ in rows], np.array([layer for _, layer in rows], np.int32)


def segments(task_model):
    """A model with exits, cut after each of them, on the model's own layers.

    Returns:
        list of (last layer, from 1; `keras.Model`). The first reads the usual inputs, the others a dict of
        `hidden_states` (batch, seq, hidden) and `input_mask`; each gives `hidden_states` and `logits` (batch, classes).
    """
    config, num_labels, parts = task_model.config, len(task_model.labels), []
    get, first = LayerStore(config, existing=task_model.whole.layers), 0
    for last in [*config.exits, config.num_layers]:
        inputs = make_inputs()
        mask = inputs["input_mask"]
        if first == 0:
            x = embed(get, inputs["input_word_ids"], inputs["input_type_ids"])
        else:
            x = keras.Input((None, config.hidden_size), name="hidden_states")
            inputs = {"hidden_states": x, "input_mask": mask}
        bias = get(AttentionBias, "attention_bias")(mask)
        for index in range(first, last):
            x, _ = transformer_layer(get, index, x, bias)
        if last < config.num_layers:
            logits = branch(get, f"exit_{last}", x, mask, num_labels)
        else:
            _, logits = task_head(get, task_model.task, num_labels, x, mask)
        outputs = {"hidden_states": x, "logits": logits}
        parts.append((last, keras.Model(inputs, outputs, name=f"to_layer_{last}")))
        first = last
    return parts


def in_segments(task_model):
    """Way 1. Returns a function (inputs, speed) -> (logits (batch, classes), layers (batch,), from 1)."""

    def compiled(part):
        def run(inputs, rows):  # gathered here, where it takes no time of its own
            inputs = {name: tf.gather(tensor, rows) for name, tensor in inputs.items()}
            outputs = part(inputs, training=False)
            unsure = uncertainty(outputs["logits"])
            kept = {"input_mask": inputs["input_mask"], "hidden_states": outputs["hidden_states"]}
            return kept, outputs["logits"], unsure

        specs = {name: tensor.type_spec for name, tensor in part.input.items()}
        return tf.function(run, input_signature=[specs, tf.TensorSpec((None,), tf.int64)])

    parts = [(last, compiled(part)) for last, part in segments(task_model)]

    def run(inputs, speed):
        texts = stay = np.arange(len(inputs["input_mask"]))  # those on their way, and their rows
        answers = np.zeros((len(texts), len(task_model.labels)), np.float32)
        layers = np.zeros(len(texts), np.int32)
        for last, part in parts:
            inputs, logits, unsure = part(inputs, stay)
            answers[texts], layers[texts] = logits.numpy(), last
            stay = np.flatnonzero(unsure.numpy() > speed)
            texts = texts[stay]
            if not len(texts):
                break
        return answers, layers

    return run


class OneGraph(keras.layers.Layer):
    """Way 2: all segments in one layer, each in a `tf.cond` that runs it while a text of the batch is left.

    (inputs, speed) -> (logits (batch, classes), layers (batch,), from 1). `parts` are what `segments` gives.
    """

    def __init__(self, parts):
        super().__init__()
        self.lasts, self.models = zip(*parts)

    def call(self, inputs, speed):
        mask, first = inputs["input_mask"], self.models[0](inputs, training=False)
        x, logits = first["hidden_states"], first["logits"]
        layers = tf.fill(tf.shape(mask)[:1], self.lasts[0])
        for last, model in zip(self.lasts[1:], self.models[1:]):
            left = uncertainty(logits) <= speed  # now or at a lower layer, whose answer is kept

            def go_on():
                new = model({"hidden_states": x, "input_mask": mask}, training=False)
                kept = tf.where(left[:, None], logits, new["logits"])
                return new["hidden_states"], kept, tf.where(left, layers, last)

            as_it_is = lambda: (x, logits, layers)
            x, logits, layers = tf.cond(tf.reduce_all(left), as_it_is, go_on)
        return logits, layers


def in_one_graph(task_model):
    """`OneGraph` of a model, as a function like that of `in_segments`."""
    graph = tf.function(OneGraph(segments(task_model)), reduce_retracing=True)

    def run(inputs, speed):
        inputs = {name: tf.constant(array) for name, array in inputs.items()}
        return [each.numpy() for each in graph(inputs, tf.constant(speed, tf.float32))]

    return run


SKIPPING = {"segments": in_segments, "graph": in_one_graph}
