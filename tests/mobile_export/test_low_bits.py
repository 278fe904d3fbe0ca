"""4- and 2-bit files: what is stored in them, and that they run. Needs ai-edge-quantizer."""

import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.fake_quant import fake_quantize, largest, quantize
from mobile_export.convert import export
from mobile_export.flatbuffer import edited
from mobile_export.litert import Runner
from tests.mobile_export.conftest import (
    INT2,
    INT4,
    LENGTH,
    constants,
    converted,
    split_of,
    texts,
    tiny,
)

pytest.importorskip("ai_edge_quantizer")


def on_grid(task_model, bits):
    """A copy whose weights lie on the grid of `bits`, as quantization/q8bert.py bakes them; and their integers."""
    weights, integers = task_model.weights(), {}
    for name, weight in weights.items():
        if name.endswith("/kernel"):
            axis, width = 0, bits
        elif name == "word_embeddings/embeddings":
            axis, width = -1, 4
        else:
            continue
        integers[name] = quantize(weight, largest(weight, axis), width).numpy().astype(np.int8)
        weights[name] = fake_quantize(tf.constant(weight), largest(weight, axis), width).numpy()
    return task_model.rebuilt(task_model.config, weights), integers


@pytest.fixture(scope="module", params=[4, 2])
def made(request):
    model, integers = on_grid(tiny(), request.param)
    return request.param, model, integers, converted(model, f"int{request.param}")


def test_the_stored_integers_are_those_of_the_model(made):
    bits, model, integers, content = made
    _, stored = constants(content)
    assert len(stored) == len(integers) == 14  # 12 kernels, the classifier, the word table
    for name, wanted in integers.items():
        kind = INT4 if bits == 4 or name.startswith("word") else INT2
        wanted = wanted if name.startswith("word") else wanted.T
        assert any(k == kind and np.array_equal(values, wanted) for k, values in stored), name


def test_the_file_is_whole_versioned_and_runs_in_one_part(made):
    _, task_model, _, content = made
    model, _ = constants(content)
    assert all(
        not buffer.offset for buffer in model.buffers
    )  # nothing is kept outside the flatbuffer
    versions = {code.builtinCode: code.version for code in model.operatorCodes}
    assert versions[9] == 12 and 7 in versions  # FULLY_CONNECTED, EMBEDDING_LOOKUP
    assert edited(content, lambda model: None)[4:8] == b"TFL3" and content[4:8] == b"TFL3"
    runner = Runner(content)
    assert runner.num_partitions == 1 and runner.vocab_size == 30
    encodings = task_model.tokenizer.encode(texts(), LENGTH)
    expected = tf.nn.softmax(np.stack(task_model.forward(encodings)))
    np.testing.assert_allclose(
        runner.forward(encodings), expected, atol=5e-2
    )  # activations have 8 bits


def test_export_checks_it_and_it_is_smaller(tmp_path):
    model, _ = on_grid(tiny(), 4)
    int8, int4 = export(
        model, tmp_path, ("int8", "int4"), sequence_length=LENGTH, dev=split_of(model)
    )
    assert int4["agreement"] > 0.9 and int4["accuracy_keras"] == 1.0 and int4["drift"] is None
    assert int4["bytes"] < int8["bytes"]
