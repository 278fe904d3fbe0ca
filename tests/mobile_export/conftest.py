"""Tiny models with lively weights (standard deviation 0.3), and one set of exported files shared by the tests."""

import numpy as np
import pytest

from keras_compress.bert.config import BertConfig
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer
from keras_compress.datasets.dataset import Split
from mobile_export.convert import FORMATS, export
from mobile_export.graph import exported_graph

LENGTH = 16
INT4, INT2 = 17, 19  # TensorType of the schema
TFLITE = ("float32", "float16", "int8", "int8_per_tensor")  # those of TFLite's own converter
WORDS = [f"w{chr(97 + i)}" for i in range(26)]
LABELS = {
    "classification": ("red", "green", "blue"),
    "matching": ("0", "1"),
    "tagging": ("O", "B-x", "I-x"),
}


def tiny(task="classification", pooling="cls"):
    """2 layers, hidden 32: the smallest whose weights (1,024 values) the converter quantises."""
    config = BertConfig(
        vocab_size=30,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=64,
        pooling=pooling,
        max_position_embeddings=24,
        initializer_range=0.3,
    )
    return TaskModel(config, Tokenizer([*SPECIAL_PIECES, *WORDS]), task, LABELS[task], seed=1)


def texts(task="classification", number=24):
    random = np.random.default_rng(0)
    rows = [
        " ".join(random.choice(WORDS, random.integers(1, 20))) for _ in range(number)
    ]  # some longer than LENGTH
    return [(row[:20], row[-20:]) for row in rows] if task == "matching" else rows


def split_of(task_model, number=24):
    """Texts labelled as the model itself sees them at the exported length."""
    found = task_model.predict(texts(task_model.task, number), max_length=LENGTH)
    if task_model.task == "tagging":
        return Split(
            texts("tagging", number),
            [[task_model.labels.index(tag) for tag in tags] for _, tags in found],
        )
    return Split(texts(task_model.task, number), found.argmax(-1).tolist())


def converted(task_model, name, cls_only=None, length=LENGTH):
    """The bytes of a file, before metadata."""
    return FORMATS[name].write(exported_graph(task_model, length, cls_only), False)


def constants(content):
    """[(type, integers)] of the packed constants of a file; the first value stands in the lowest bits of a byte."""
    from ai_edge_litert.schema_py_generated import Model, ModelT

    model, found = ModelT.InitFromObj(Model.GetRootAsModel(content)), []
    for tensor in model.subgraphs[0].tensors:
        if tensor.type in (INT4, INT2):
            width = {INT4: 4, INT2: 2}[tensor.type]
            packed = np.array(model.buffers[tensor.buffer].data, np.uint8)
            values = (packed[:, None] >> np.arange(0, 8, width) & (2**width - 1)).ravel()[
                : np.prod(tensor.shape)
            ]
            values = np.where(values >= 2 ** (width - 1), values.astype(int) - 2**width, values)
            found.append((tensor.type, values.reshape(tensor.shape)))
    return model, found


def blow_up(task_model, value):
    """Puts a huge weight where Keras multiplies it by zero, so that only a coarser number format notices."""
    weights = task_model.weights()
    weights["layer_0_attention_norm/gamma"][0] = weights["layer_0_attention_norm/beta"][0] = 0.0
    weights["layer_0_intermediate/kernel"][0] = value
    task_model.set_weights(weights)
    return task_model


@pytest.fixture(scope="session")
def task_model():
    return tiny()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="session")
def facts(task_model, folder):
    found = export(task_model, folder, TFLITE, sequence_length=LENGTH, dev=split_of(task_model))
    return {row["format"]: row for row in found}
