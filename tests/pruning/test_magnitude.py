import numpy as np
import pytest
import tensorflow_model_optimization as tfmot

from keras_compress.factorization import albert
from keras_compress.pruning import magnitude
from keras_compress.training import finetune
from mobile_export.convert import export
from tests.bert import tiny
from tests.support import TRAINING as SHORT
from tests.support import data, inputs_of

TRAINING = SHORT.replace(epochs=4, learning_rate=1e-3)  # 12 updates


def is_pruned(name):
    return name.endswith("/kernel") and name != "classifier/kernel"


def at(schedule, step):
    should, sparsity = schedule(np.int64(step))
    return bool(should), pytest.approx(float(sparsity))


def test_schedule_by_hand():
    decay = magnitude.schedule(400, 0.8, 0.2, begin=0.25, end=0.75, frequency=20)  # 100 to 300
    assert at(decay, 100) == (True, 0.2) and at(decay, 300) == (True, 0.8)
    # half way: 0.8 + (0.2 - 0.8) (1 / 2)^3 = 0.725
    assert at(decay, 200) == (True, 0.725)
    assert not at(decay, 110)[0] and at(decay, 120)[0] and at(decay, 320) == (False, 0.8)


@pytest.mark.parametrize("num_steps", [1, 7, 23, 140, 999])
def test_the_last_mask_is_made_within_the_run(num_steps):
    decay = magnitude.schedule(num_steps, 0.5)
    masks = [step for step in range(1, num_steps + 1) if at(decay, step)[0]]  # TF-MOT counts from 1
    assert masks and at(decay, masks[-1])[1] == 0.5


@pytest.mark.usefixtures("eager_here")
def test_each_kernel_has_its_share_of_zeros_which_show_in_a_compressed_file_alone(tmp_path):
    source = tiny.model(num_layers=1)
    small = magnitude.compress(source, data(), training=TRAINING, sparsity=0.5)
    before, weights = source.weights(), small.weights()
    for name, weight in weights.items():
        if is_pruned(name):
            assert abs(np.mean(weight == 0.0) - 0.5) <= 1 / weight.size, name
        else:
            assert np.all(weight != 0.0) or name.endswith(("beta", "bias")), name
        moved = not np.array_equal(weight, before[name])
        assert moved or name.endswith("key/bias"), name  # softmax takes a shift of all keys out
    assert small.history[-1]["zeros"] == magnitude.zeros(small) == pytest.approx(0.5, abs=0.01)
    assert magnitude.zeros(source) == 0.0

    kernels = {name: before[name] for name in before if is_pruned(name)}
    dense = small.rebuilt(small.config, weights | kernels)
    whole, sparse = (
        export(model, tmp_path / str(k), ("float32",), sequence_length=12)[0]
        for k, model in enumerate((dense, small))
    )
    saved = 0.25 * 4 * sum(kernel.size for kernel in kernels.values())
    assert sparse["bytes"] == whole["bytes"]
    assert whole["gzip_bytes"] - sparse["gzip_bytes"] > saved


def test_the_model_is_what_strip_pruning_gives_and_shared_layers_count_updates(monkeypatch):
    kept, fit = [], finetune.fit
    monkeypatch.setattr(
        finetune, "fit", lambda model, *a, **k: kept.append(model) or fit(model, *a, **k)
    )
    shared = albert.share_layers(tiny.model(num_layers=2), "all")
    small = magnitude.compress(shared, data(), training=TRAINING, sparsity=0.75)
    stripped, inputs = tfmot.sparsity.keras.strip_pruning(kept[0]), inputs_of(small)
    np.testing.assert_array_equal(stripped(inputs, training=False), small.model(inputs))
    assert magnitude.zeros(small) == pytest.approx(0.75, abs=0.01)
    layer = kept[0].get_layer("prune_low_magnitude_layer_0_query")
    assert int(layer.pruning_step) == 11 + 2  # 11 updates, and two uses in the last


@pytest.mark.usefixtures("eager_here")
def test_sparsity_0_prunes_nothing():
    training = TRAINING.replace(epochs=1)
    small = magnitude.compress(tiny.model(num_layers=1), data(), training=training, sparsity=0.0)
    assert magnitude.zeros(small) == 0.0


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"sparsity": 0.2, "initial_sparsity": 0.3}, "must be at most `sparsity`.*: 0.3, 0.2"),
        ({"begin": 0.5, "end": 0.5}, "`begin` below `end`. Received: "),
        ({"training": TRAINING.replace(patience=3)}, "`patience` must be none: .* Received: 3."),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        magnitude.compress(tiny.shared(), data(), **{"training": TRAINING, **settings})
