import numpy as np
import pytest
import tensorflow_model_optimization as tfmot

from keras_compress.bert.task_model import TaskModel
from keras_compress.factorization import albert
from keras_compress.pruning import magnitude
from keras_compress.training.loop import Training
from mobile_export.convert import export
from tests.bert import tiny
from tests.replacement.test_theseus import data

TRAINING = Training(
    epochs=4, batch_size=4, max_length=16, learning_rate=1e-3, warmup=0.0, evaluations=1
)  # 12 updates


def kernels(model):
    return {
        name: weight
        for name, weight in model.weights().items()
        if name.endswith("/kernel") and name != "classifier/kernel"
    }


def at(schedule, step):
    should, sparsity = schedule(np.int64(step))
    return bool(should), float(sparsity)


def test_schedule():
    found = magnitude.schedule(
        400, 0.8, 0.2, begin=0.25, end=0.75, frequency=20
    )  # updates 100 to 300
    assert at(found, 100) == (True, pytest.approx(0.2)) and at(found, 300) == (
        True,
        pytest.approx(0.8),
    )
    assert at(found, 200)[1] == pytest.approx(0.8 + (0.2 - 0.8) / 8)  # half way: (1/2)^3
    assert (
        not at(found, 110)[0]
        and at(found, 120)[0]
        and at(found, 320) == (False, pytest.approx(0.8))
    )


@pytest.mark.parametrize("num_steps", [1, 7, 23, 140, 999])
def test_the_last_mask_is_made_within_the_run(num_steps):
    found = magnitude.schedule(num_steps, 0.5)
    masks = [step for step in range(1, num_steps + 1) if at(found, step)[0]]  # TF-MOT counts from 1
    assert masks and at(found, masks[-1])[1] == pytest.approx(0.5)


@pytest.fixture(scope="module")
def pruned():
    source = tiny.model(num_layers=1)
    return (
        source,
        source.weights(),
        magnitude.compress(source, data(), training=TRAINING, sparsity=0.5),
    )


def test_each_kernel_has_its_share_of_zeros_and_nothing_else_has(pruned, tmp_path):
    source, before, small = pruned
    np.testing.assert_equal(source.weights(), before)
    for name, weight in small.weights().items():
        if name in kernels(small):
            assert abs(np.mean(weight == 0.0) - 0.5) <= 1 / weight.size, name
        else:
            assert np.all(weight != 0.0) or name.endswith(("beta", "bias")), name
        assert not np.array_equal(weight, before[name]) or name.endswith("key/bias"), name
    assert small.config == source.config and small.history[-1]["zeros"] == pytest.approx(
        0.5, abs=0.01
    )
    assert [row["stage"] for row in small.curve] and magnitude.zeros(source) == 0.0
    small.save(tmp_path / "s")
    np.testing.assert_array_equal(
        TaskModel.load(tmp_path / "s").predict(tiny.TEXTS), small.predict(tiny.TEXTS)
    )


def test_zeros_show_in_a_compressed_file_alone(pruned, tmp_path):
    _, before, small = pruned
    dense = small.rebuilt(
        small.config, small.weights() | {name: before[name] for name in kernels(small)}
    )
    whole, sparse = (
        export(model, tmp_path / str(k), ("float32",), sequence_length=12)[0]
        for k, model in enumerate((dense, small))
    )
    assert sparse["bytes"] == whole["bytes"] and sparse["max_dlogit"] < 1e-4
    assert whole["gzip_bytes"] - sparse["gzip_bytes"] > 0.25 * 4 * sum(
        k.size for k in kernels(small).values()
    )


def test_the_model_is_what_strip_pruning_gives(monkeypatch):
    kept = []
    original = magnitude.fit
    monkeypatch.setattr(
        magnitude,
        "fit",
        lambda model, *rest, **more: kept.append(model) or original(model, *rest, **more),
    )
    shared = albert.share_layers(tiny.model(num_layers=2), "all")
    small = magnitude.compress(shared, data(), training=TRAINING, sparsity=0.75)
    stripped = tfmot.sparsity.keras.strip_pruning(kept[0])
    inputs = small.pad(small.tokenizer.encode(tiny.TEXTS, 16))
    np.testing.assert_array_equal(
        stripped(inputs, training=False), small.model(inputs, training=False)
    )
    assert magnitude.zeros(small) == pytest.approx(0.75, abs=0.01)
    layer = kept[0].get_layer("prune_low_magnitude_layer_0_query")
    assert int(layer.pruning_step) == 11 + 2  # 11 updates, and two uses in the last one


def test_sparsity_0_prunes_nothing():
    small = magnitude.compress(
        tiny.model(num_layers=1), data(), training=TRAINING.replace(epochs=1), sparsity=0.0
    )
    assert magnitude.zeros(small) == 0.0


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsity": 1.0},
        {"sparsity": 0.2, "initial_sparsity": 0.3},
        {"begin": 0.5, "end": 0.5},
        {"end": 1.1},
        {"frequency": 0},
    ],
)
def test_errors(settings):
    with pytest.raises(
        ValueError, match="`initial_sparsity` must be at most `sparsity`.*Received: "
    ):
        magnitude.compress(tiny.shared(), data(), training=TRAINING, **settings)


def test_a_quantised_model_is_refused():
    from tests.bert.test_fake_quant import SETTINGS

    with pytest.raises(
        ValueError, match="must be the last of a chain. Received: quantization = {'bits': 8"
    ):
        magnitude.compress(tiny.model(num_layers=1, quantization=SETTINGS), data())


def test_patience_is_refused_since_earlier_weights_have_fewer_zeros():
    with pytest.raises(ValueError, match="`patience` must be none: .* Received: 3."):
        magnitude.compress(tiny.model(num_layers=1), data(), training=Training(patience=3))
