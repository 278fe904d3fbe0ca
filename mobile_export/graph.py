"""The graph that is exported, with the model's own weights.

It has three int32 inputs (1, seq) by name, one signature, and one output `probabilities`: (1, labels), for tagging
(1, seq, labels), for regression the number (1, 1). The softmax, or sigmoid, is in the graph because a client such as
MediaPipe's TextClassifier shows the single output tensor as it is.
"""

from typing import Any, NamedTuple

from keras_compress.backend import keras, tf
from keras_compress.bert.encoder import LayerStore, build, can_be_cls_only
from keras_compress.bert.tasks import TASKS
from mobile_export.litert import OUTPUT_NAME

ANSWERS = {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid, "number": tf.identity}


class ExportError(ValueError):
    """Files would not do what the Keras model does, and were not written.

    Attributes:
        files: what `convert.export` gives, of the files that were written beside them.
        failures: {format: why it was not written}.
    """

    def __init__(self, message, files=(), failures=()):
        super().__init__(message)
        self.files, self.failures = [*files], dict(failures)


class Graph(NamedTuple):
    """Two forms of one graph: `model` gives logits, `function` {"probabilities": tensor}."""

    config: Any
    cls_only: bool
    model: keras.Model
    function: Any


def exported_graph(task_model, sequence_length, cls_only=None):
    """Builds the `Graph` of a `TaskModel`; arguments as in `convert.export`."""
    config, task = task_model.config.replace(exits=None), task_model.task
    if cls_only is None:
        cls_only = can_be_cls_only(config, task)
    store = LayerStore(config, existing=task_model.model.layers)
    num_labels = len(task_model.labels)
    inputs, outputs = build(config, task, num_labels, store, sequence_length, 1, cls_only)
    # The name is part of every tensor's name in the file.
    model = keras.Model(inputs, outputs["logits"], name=config.architecture)
    specs = {name: tf.TensorSpec(tensor.shape, tf.int32, name) for name, tensor in inputs.items()}
    answer = ANSWERS[TASKS[task].answer]
    function = tf.function(
        lambda **ids: {OUTPUT_NAME: answer(model(ids, training=False))}, autograph=False
    )
    return Graph(config, cls_only, model, function.get_concrete_function(**specs))
