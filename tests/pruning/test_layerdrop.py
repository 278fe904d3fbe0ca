import numpy as np
import pytest

from keras_compress.backend import keras, tf
from keras_compress.bert.layer_maps import select_layers
from keras_compress.pruning import layerdrop
from keras_compress.training import finetune
from tests.support import TRAINING, data, inputs_of, masked_lm, shared_still, still, unlabelled

SHORT = TRAINING.replace(evaluations=0)


def doubled(rate, seed=0, index=0):
    """A `LayerDrop` around a layer that doubles."""
    ends = keras.Input((None, 2)), keras.Input((1, 1, None))
    return layerdrop.LayerDrop(keras.Model(ends, 2.0 * ends[0]), index, rate, seed)


INPUTS = [tf.ones((1, 1, 2)), tf.zeros((1, 1, 1, 1))]


def test_a_layer_left_out_passes_its_input_on_and_nothing_is_rescaled():
    assert [float(doubled(0.0)(INPUTS, training=True)[0, 0, 0]) for _ in range(3)] == [2.0] * 3
    assert float(doubled(1.0)(INPUTS, training=True)[0, 0, 0]) == 1.0
    assert float(doubled(1.0)(INPUTS)[0, 0, 0]) == 2.0  # in evaluation all layers run


def test_the_mean_depth_is_that_of_the_rate_and_draws_depend_on_seed_layer_and_update():
    draws, layers = 1000, [doubled(0.3, seed, index) for seed, index in ((1, 0), (1, 1), (2, 0))]
    run = tf.function(lambda: tf.stack([layer(INPUTS, training=True)[0, 0, 0] for layer in layers]))
    ran = np.array([run().numpy() for _ in range(draws)]) == 2.0
    # 3 layers that run with chance .7: standard error of the mean depth sqrt(3 * .7 * .3 / 1000)
    assert ran.sum(axis=1).mean() == pytest.approx(2.1, abs=4 * np.sqrt(0.63 / draws))
    assert 0.4 < np.mean(ran[:, 0] == ran[:, 1]) < 0.8 > np.mean(ran[:, 0] == ran[:, 2]) > 0.4
    again, first = doubled(0.3, 1, 0), ran[:20, 0]
    assert [bool(again(INPUTS, training=True)[0, 0, 0] == 2.0) for _ in range(20)] == first.tolist()


@pytest.mark.parametrize("num_layers", [12, 6])
def test_every_other_is_the_papers_rule_where_that_keeps_so_many(num_layers):
    assert select_layers(12, 6, "alternate") == [0, 2, 4, 6, 8, 10]
    assert select_layers(12, 4, "alternate") == [0, 3, 6, 9]
    for goes in range(1, num_layers // 2 + 1):
        every = num_layers // goes  # floor(1 / p*); layers count from 1
        paper = [d - 1 for d in range(1, num_layers + 1) if d % every]
        if len(paper) == num_layers - goes:
            assert select_layers(num_layers, len(paper), "alternate") == paper


def trained_model(monkeypatch, start, **settings):
    """The `keras.Model` that trains."""
    seen, fit = [], finetune.fit
    monkeypatch.setattr(finetune, "fit", lambda m, *a, **k: seen.append(m) or fit(m, *a, **k))
    return layerdrop.compress(start, data(), training=SHORT, **settings), seen[0]


def test_rate_0_is_fine_tuning_and_another_rate_trains_all_layers(monkeypatch):
    start = still()
    plain = finetune.finetune(start, data(), training=SHORT)
    same, _ = trained_model(monkeypatch, start, rate=0.0)
    for name, weight in plain.weights().items():
        np.testing.assert_allclose(same.weights()[name], weight, atol=1e-5, err_msg=name)
    small, model = trained_model(monkeypatch, start, rate=0.5, seed=2)
    for name, weight in small.weights().items():
        assert np.any(weight != start.weights()[name]) or name.endswith("key/bias"), name
    np.testing.assert_allclose(model(inputs_of(small)), small.model(inputs_of(small)), atol=1e-6)
    steps = [int(v) for v in model.weights if "step" in v.name]
    assert steps == [SHORT.num_steps(12)] * 2


def test_a_stopped_run_draws_as_one_that_went_through(tmp_path):
    whole = layerdrop.compress(still(), data(), training=SHORT, rate=0.5)
    folder = SHORT.replace(folder=str(tmp_path), checkpoint_every=2)
    stop = pytest.MonkeyPatch()
    with stop.context() as patch, pytest.raises(KeyboardInterrupt):
        run, pieces = keras.Model.fit, []

        def fit(self, *args, **kwargs):
            if len(pieces) == 4:
                raise KeyboardInterrupt
            return pieces.append(1) or run(self, *args, **kwargs)

        patch.setattr(keras.Model, "fit", fit)
        layerdrop.compress(still(), data(), training=folder, rate=0.5)
    small = layerdrop.compress(still(), data(), training=folder, rate=0.5)
    np.testing.assert_equal(small.weights(), whole.weights())


def test_masked_words_meet_fewer_layers_too():
    start = masked_lm()
    small = layerdrop.layerdrop_mlm(start, unlabelled(), training=TRAINING, rate=0.5)
    assert small.task == "mlm" and small.config == start.config and small.curve[-1]["dev"] >= 0.0
    moved = {
        name for name, weight in small.weights().items() if np.any(weight != start.weights()[name])
    }
    assert {f"layer_{n}_output/kernel" for n in (0, 1)} | {"mlm_bias/bias"} <= moved


def test_every_depth_comes_from_one_model():
    model = still(num_layers=4)
    for depth, kept in ((4, [0, 1, 2, 3]), (2, [0, 2]), (1, [0])):
        small = layerdrop.layerdrop_depth(model, data(), num_layers=depth)
        assert small.history[-1]["kept"] == kept and small.config.num_layers == depth
        for new, old in enumerate(kept):
            name = "layer_{}_query/kernel"
            np.testing.assert_array_equal(
                small.weights()[name.format(new)], model.weights()[name.format(old)]
            )


def test_errors():
    with pytest.raises(ValueError, match="`rate` must be less than 1. Received: 1.0"):
        layerdrop.compress(shared_still(), data(), training=SHORT, rate=1.0)
    with pytest.raises(ValueError, match="`num_layers` must be 1 to 2, .* Received: 3"):
        layerdrop.layerdrop_depth(shared_still(), data(), num_layers=3)
