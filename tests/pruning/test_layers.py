import numpy as np
import pytest

from keras_compress.bert.checkpoints import load
from keras_compress.bert.layer_maps import select_layers
from keras_compress.pruning import layers
from tests.bert import tiny
from tests.support import TRAINING, data, still


@pytest.fixture
def untrained(monkeypatch):
    """Leaves out the fine-tuning, so that every weight must still be the source's."""
    monkeypatch.setattr(layers, "tune", lambda model, dataset, **_: model)


@pytest.fixture(scope="module")
def large():
    return still(num_layers=3)


@pytest.mark.parametrize(
    "num_layers, keep, how, kept",
    [
        (6, 3, "bottom", [0, 1, 2]),
        (6, 3, "top", [3, 4, 5]),
        (6, 3, "alternate", [0, 2, 4]),
        (12, 4, "alternate", [0, 3, 6, 9]),
        (6, 4, "alternate", [0, 1, 3, 4]),
        (6, 1, "alternate", [0]),
        (6, 3, [0, 2, 5], [0, 2, 5]),
    ],
)
def test_select_layers(num_layers, keep, how, kept):
    assert select_layers(num_layers, keep, how) == kept


def test_layers_come_from_where_they_stood(large, untrained):
    before = large.weights()
    small = layers.compress(large, data(), training=TRAINING, num_layers=2, how=[0, 2])
    assert small.config == large.config.replace(num_layers=2)
    assert small.history[-1]["kept"] == [0, 2]
    assert {name for name in before if not name.startswith("layer_2")} == {*small.weights()}
    for name, array in small.weights().items():
        source = name.replace("layer_1_", "layer_2_")
        np.testing.assert_array_equal(array, before[source], err_msg=name)


@pytest.mark.parametrize("how", ["bottom", "top", "alternate"])
def test_keeping_all_layers_changes_nothing(large, untrained, how):
    small = layers.compress(large, data(), training=TRAINING, num_layers=3, how=how)
    np.testing.assert_equal(small.weights(), large.weights())


def test_dropped_layers_act_as_identity(large):
    """A large model whose last layers pass on what they get gives what the truncated one gives."""
    weights, silent = large.weights(), large.clone()
    for layer in (1, 2):  # norm(x + 0) of an x from a norm with gamma 1 and beta 0 is x
        for part in ("attention_output/kernel", "attention_output/bias", "output/kernel"):
            weights[f"layer_{layer}_{part}"] *= 0
        weights[f"layer_{layer}_output/bias"] *= 0
    silent.set_weights(weights)
    small = large.keep_layers([0])
    np.testing.assert_allclose(silent.predict(tiny.TEXTS), small.predict(tiny.TEXTS), atol=1e-4)


def test_pretrained_and_fine_tuned_starts_differ_in_the_head_alone(large, untrained, tmp_path):
    large.save(tmp_path / "bert")
    tuned, pretrained = (
        load(tmp_path / "bert", task="classification", labels=large.labels, new_head=new, seed=5)
        for new in (False, True)
    )
    small, plain = (
        layers.compress(start, data(), training=TRAINING, num_layers=2).weights()
        for start in (tuned, pretrained)
    )
    different = [name for name in small if not np.array_equal(small[name], plain[name])]
    assert different == ["classifier/kernel"]
