"""For all tests: the CPU alone, Keras 2 chosen before anything imports TensorFlow, MiniLM loaded once."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest  # noqa: E402

from keras_compress.backend import tf  # noqa: E402


@pytest.fixture(scope="session")
def minilm():
    """The real MiniLM with a new head of two labels. Shared by all tests: train a `clone()`, never this one."""
    from keras_compress.bert import checkpoints as weights

    return weights.load("minilm", task="classification", labels=["no", "yes"], pooling="mean")


@pytest.fixture(scope="module")
def eagerly():
    """Trains without a graph, whose making takes longer than a handful of updates on a tiny model.

    For tests of what stands around a method: command line, runs, files. The methods themselves are
    trained in a graph by their own tests and by test_contract.py.
    """
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
