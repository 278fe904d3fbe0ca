import numpy as np
import pytest

from keras_compress.bert.task_model import TaskModel
from keras_compress.factorization import albert
from keras_compress.quantization import clustering
from keras_compress.training.loop import Training
from mobile_export.convert import export
from tests.bert import tiny
from tests.replacement.test_theseus import data

TRAINING = Training(
    epochs=1, batch_size=4, max_length=16, learning_rate=1e-3, warmup=0.0, evaluations=1
)


@pytest.fixture(scope="module")
def made():
    source = albert.share_layers(tiny.model(num_layers=2), "all")
    return (
        source,
        source.weights(),
        clustering.compress(source, data(), training=TRAINING, num_clusters=4),
    )


def test_each_kernel_has_few_values(made, tmp_path):
    source, before, small = made
    np.testing.assert_equal(source.weights(), before)
    assert small.weights().keys() == before.keys() and small.config == source.config
    for name, weight in small.weights().items():
        clustered = name.endswith("/kernel") and name != "classifier/kernel"
        assert (len(np.unique(weight)) <= 4) == (clustered or weight.size <= 4), name
        assert not np.array_equal(weight, before[name]) or name.endswith("key/bias"), name
    small.save(tmp_path / "s")
    np.testing.assert_array_equal(
        TaskModel.load(tmp_path / "s").predict(tiny.TEXTS), small.predict(tiny.TEXTS)
    )
    assert small.history[-1]["num_clusters"] == 4 and 0.0 <= small.curve[-1]["dev"] <= 1.0


def test_what_was_measured_is_what_comes_back(made):
    from keras_compress.measure.accuracy import evaluate

    assert evaluate(made[2], data().dev)["value"] == made[2].curve[-1]["dev"]


def test_few_values_show_in_a_compressed_file_alone(made, tmp_path):
    _, before, small = made
    kernels = {name for name in before if name.endswith("/kernel")}
    many = small.rebuilt(small.config, small.weights() | {name: before[name] for name in kernels})
    whole, few = (
        export(model, tmp_path / str(k), ("float32",), sequence_length=12)[0]
        for k, model in enumerate((many, small))
    )
    saved = 0.5 * 4 * sum(before[name].size for name in kernels)
    assert few["bytes"] == whole["bytes"] and whole["gzip_bytes"] - few["gzip_bytes"] > saved


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_clusters": 1}, "`num_clusters` must be 2 or more, .* Received: 1 and None"),
        ({"training": TRAINING.replace(patience=2)}, "Received: 16 and 2"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        clustering.compress(tiny.shared(), data(), **settings)


def test_other_models_are_refused():
    from tests.training.test_distill import bilstm

    with pytest.raises(
        ValueError, match="Only a BERT can be pruned, clustered or quantised. Received: a bilstm"
    ):
        clustering.compress(bilstm(), data())
