"""For all tests: the CPU alone, Keras 2 chosen before anything imports TensorFlow, MiniLM loaded once."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest  # noqa: E402

import keras_compress.backend  # noqa: E402, F401


@pytest.fixture(scope="session")
def minilm():
    """The real MiniLM with a new head of two labels. Shared by all tests: train a `clone()`, never this one."""
    from keras_compress.bert import checkpoints as weights

    return weights.load("minilm", task="classification", labels=["no", "yes"], pooling="mean")
