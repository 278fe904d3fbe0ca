import numpy as np
import pytest

from keras_compress.factorization import albert
from keras_compress.measure.accuracy import evaluate
from keras_compress.quantization import clustering
from mobile_export.convert import export
from tests.bert import tiny
from tests.support import TRAINING, data


@pytest.mark.usefixtures("eager_here")
def test_each_kernel_has_few_values_which_show_in_a_compressed_file_alone(tmp_path):
    source = albert.share_layers(tiny.model(num_layers=2), "all")
    training = TRAINING.replace(epochs=1, learning_rate=1e-3)
    small = clustering.compress(source, data(), training=training, num_clusters=4)
    before, weights = source.weights(), small.weights()
    assert weights.keys() == before.keys()
    for name, weight in weights.items():
        clustered = name.endswith("/kernel") and name != "classifier/kernel"
        assert (len(np.unique(weight)) <= 4) == (clustered or weight.size <= 4), name
        moved = not np.array_equal(weight, before[name])
        assert moved or name.endswith("key/bias"), name  # softmax takes a shift of all keys out
    # What was measured is what comes back.
    assert evaluate(small, data().dev)["value"] == small.curve[-1]["dev"]

    kernels = {name: before[name] for name in before if name.endswith("/kernel")}
    many = small.rebuilt(small.config, weights | kernels)
    whole, few = (
        export(model, tmp_path / str(k), ("float32",), sequence_length=12)[0]
        for k, model in enumerate((many, small))
    )
    saved = 0.5 * 4 * sum(kernel.size for kernel in kernels.values())
    assert few["bytes"] == whole["bytes"] and whole["gzip_bytes"] - few["gzip_bytes"] > saved


def test_patience_is_refused():
    with pytest.raises(ValueError, match="`patience` must be none: .*Received: 2"):
        clustering.compress(tiny.shared(), data(), training=TRAINING.replace(patience=2))
