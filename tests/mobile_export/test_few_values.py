"""Models of three and of four values in "int2" files: what is stored, and that it is what the model computes."""

import itertools
import sys
from ctypes.util import find_library

import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.fake_quant import fake_quantize, largest
from keras_compress.quantization import binarybert, few_values
from mobile_export.convert import export, exported_model
from mobile_export.litert import Runner
from tests.mobile_export.conftest import INT2, LENGTH, constants, converted, split_of, texts, tiny

pytest.importorskip("ai_edge_quantizer")


def made(kind):
    """A plain model with the values of a ternary one, or of a split one that has trained on a little."""
    start, random = tiny(pooling="pooler"), np.random.default_rng(0)
    weights = start.weights()
    for name in [name for name in weights if name.endswith("/bias")]:  # to be added once
        weights[name] = random.normal(0, 0.3, weights[name].shape)
    start = start.rebuilt(start.config, weights)
    ternary = few_values.quantized(start, start.weights(), "ternary")
    if kind == "ternary":
        return few_values.baked(ternary)
    weights = binarybert.split(ternary)
    for name in [name for name in weights if "kernel" in name or "word" in name]:
        moved = random.normal(0, 0.1, weights[name].shape)
        weights[name] = weights[name] + (moved if "classifier" not in name else 0)
    binary = few_values.quantized(start, weights, "binary", split=True)
    return few_values.baked(binary)


@pytest.fixture(scope="module", params=["ternary", "binary"])
def file(request):
    model = made(request.param)
    return request.param, model, converted(model, "int2")


def stored_values(content):
    """float32 weights of all 2-bit constants, with their scales; each stands for (outputs or words, inputs or width)."""
    model, found = constants(content)
    tensors = [t for t in model.subgraphs[0].tensors if t.type == INT2]
    codes = [values for kind, values in found if kind == INT2]
    scales = [np.array(t.quantization.scale, np.float32).reshape(-1, 1) for t in tensors]
    assert all(np.abs(each).max() <= 1 for each in codes)
    return [each * scale for each, scale in zip(codes, scales)]


def test_every_matrix_is_stored_exactly(file):
    kind, model, content = file
    stored, matrices = stored_values(content), {}
    for name, weight in model.weights().items():
        if name == few_values.TABLE:
            matrices[name] = weight
        elif name.endswith("/kernel") and name != "classifier/kernel":  # 8 bits
            # the converter multiplies 1 / sqrt(head size) of the scores into the queries' weights
            matrices[name] = weight.T * (8**-0.5 if "query" in name else 1.0)
    assert len(stored) == len(matrices) * (1 if kind == "ternary" else 2)
    if kind == "binary":
        stored = [a + b for a, b in itertools.combinations(stored, 2) if a.shape == b.shape]
    for name, matrix in matrices.items():
        same = [s for s in stored if s.shape == matrix.shape and np.allclose(s, matrix, 1e-6, 1e-7)]
        assert len(same) == 1, name


def test_the_file_runs_in_one_part_and_answers_as_the_model_does(file):
    _, model, content = file
    runner = Runner(content)
    assert runner.num_partitions == 1 and runner.vocab_size == 30
    encodings = model.tokenizer.encode(texts(), LENGTH)
    expected = tf.nn.softmax(np.stack(model.forward(encodings)))
    np.testing.assert_allclose(runner.forward(encodings), expected, atol=5e-2)


def test_export_compares_it(file, tmp_path):
    _, model, _ = file
    (int2,) = export(model, tmp_path, ("int2",), sequence_length=LENGTH, dev=split_of(model))
    assert int2["agreement"] == 1.0 and int2["mean_dp"] < 0.02 and int2["drift"] is None


@pytest.mark.skipif(
    sys.platform == "linux" and not (find_library("EGL") and find_library("GLESv2")),
    reason="needs EGL and GLES (bash .ci/system installs them)",
)
def test_mediapipe_runs_it_unmodified(file, tmp_path):
    from mediapipe.tasks.python import BaseOptions
    from mediapipe.tasks.python.text import TextClassifier, TextClassifierOptions

    _, model, _ = file
    (facts,) = export(model, tmp_path, ("int2",), sequence_length=LENGTH, dev=split_of(model))
    options = TextClassifierOptions(base_options=BaseOptions(model_asset_path=facts["path"]))
    short = [text[:20] for text in texts()]
    wanted = exported_model(facts["path"], model).predict(short)
    with TextClassifier.create_from_options(options) as classifier:
        for text, row in zip(short, wanted):
            found = classifier.classify(text).classifications[0].categories
            scores = {category.category_name: category.score for category in found}
            np.testing.assert_allclose([scores[name] for name in model.labels], row, atol=1e-5)


def test_weights_on_another_grid_stay_as_they_were():
    """A model that q8bert trained for 2 bits keeps 4 bits for its word table, and 2 for its classifier."""
    model = tiny()
    weights = model.weights()
    for name in weights:
        if name.endswith("/kernel"):
            w = tf.constant(weights[name])
            weights[name] = fake_quantize(w, largest(w, 0), 2).numpy()
    _, found = constants(converted(model.rebuilt(model.config, weights), "int2"))
    kinds = [kind for kind, _ in found]
    assert (kinds.count(INT2), len(kinds)) == (13, 14)
