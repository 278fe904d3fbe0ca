"""For all tests: the CPU alone, Keras 2 chosen before anything imports TensorFlow, MiniLM loaded once."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# MediaPipe's client would tell play.googleapis.com of its use; it asks this proxy, where nobody listens, instead.
os.environ["https_proxy"] = "http://127.0.0.1:9"

import pytest  # noqa: E402

from keras_compress.backend import tf  # noqa: E402

# Each process takes whole files, in this order: the longest first, so that both end together.
FIRST = ("tests/notebooks", "tests/experiment", "tests/test_contract", "tests/training")
LAST = ("tests/bert", "tests/datasets", "tests/measure")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda test: test.nodeid.startswith(LAST) - test.nodeid.startswith(FIRST))


@pytest.fixture(scope="session")
def minilm():
    """The real MiniLM with a new head of two labels. Shared by all tests: train a `clone()`, never this one."""
    from keras_compress.bert import checkpoints as weights

    return weights.load("minilm", task="classification", labels=["no", "yes"], pooling="mean")


def _eagerly():
    """Trains without a graph, whose making takes longer than a handful of updates on a tiny model.

    For tests of what stands around a training: files, records, commands. test_contract.py trains every
    method in a graph, and so do those of a method's own tests that are about the steps themselves.
    """
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


eagerly = pytest.fixture(_eagerly, scope="module", name="eagerly")  # for whole files
eager_here = pytest.fixture(_eagerly, name="eager_here")  # for one test
