"""int8 files of models with narrow, pruned or shared weights, beside the same model without: no drift of their own."""

import functools

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_compress.bert.config import BertConfig
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.factorization import albert, define
from keras_compress.pruning import vocabulary
from mobile_export.convert import export
from tests.mobile_export.conftest import LABELS, LENGTH

WORDS = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
MAKERS = {
    "linear": lambda model: define.compress(model, data(), embedding_size=64, adapter="linear"),
    "hgt": lambda model: moved(
        define.compress(model, data(), embedding_size=80, adapter="hgt", fit_steps=0)
    ),
    "shared": lambda model: albert.compress(model, data(), sharing="all"),
    "vocabulary": lambda model: vocabulary.compress(model, data()),
}


@functools.cache
def data():
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS[:80], random.integers(1, 12))) for _ in range(60)]
    split = Split(texts, [0] * len(texts))
    return Dataset("tiny", "classification", LABELS["classification"], split, split, split)


@functools.cache
def original():
    """2 layers, hidden 96. The smallest kernel of an hgt from a table of width 80 has 1,120 values."""
    config = BertConfig(
        vocab_size=len(WORDS) + len(SPECIAL_PIECES),
        hidden_size=96,
        num_layers=2,
        num_heads=4,
        intermediate_size=128,
        pooling="cls",
        max_position_embeddings=24,
        initializer_range=0.3,
    )
    return TaskModel(
        config,
        Tokenizer([*SPECIAL_PIECES, *WORDS]),
        "classification",
        LABELS["classification"],
        seed=1,
    )


def moved(model):
    """An hgt starts as the linear adapter; here all its inputs count."""
    random = np.random.default_rng(2)
    weights = {
        name: value + 0.1 * random.normal(size=value.shape).astype(np.float32)
        for name, value in model.weights().items()
        if name.startswith("embedding_")
    }
    model.set_weights(weights, only=weights)
    return model


def int8_file(model, folder):
    (row,) = export(
        model,
        folder / "int8.tflite",
        ("int8",),
        sequence_length=LENGTH,
        dev=data().dev,
        allow_drift=True,
    )
    return row


@pytest.mark.parametrize("name", MAKERS)
def test_int8_is_as_near_to_keras_as_the_same_function_with_a_plain_table_and_layers(
    name, tmp_path
):
    model = MAKERS[name](original())
    plains = {
        "shared": lambda model: model.keep_layers(range(2)),
        "vocabulary": lambda model: original(),
    }
    plain = plains.get(name, lambda model: define.fold(model, None))(model)
    ours, theirs = int8_file(model, tmp_path / "ours"), int8_file(plain, tmp_path / "plain")
    assert ours["drift"] is None and ours["agreement"] > 0.9 and ours["partitions"] == 1
    assert ours["mean_dp"] < 2 * theirs["mean_dp"] + 1e-3
    if name == "hgt":
        tensors = Interpreter(ours["path"]).get_tensor_details()
        in_int8 = {
            int(np.prod(tensor["shape"])) for tensor in tensors if tensor["dtype"] == np.int8
        }
        sizes = {inputs * units // groups for inputs, units, groups in model.config.adapter_shapes}
        assert min(sizes) > 1024 and sizes <= in_int8  # the converter leaves small ones alone
