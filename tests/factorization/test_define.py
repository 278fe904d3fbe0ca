import numpy as np
import pytest

from keras_compress.factorization import albert, define
from keras_compress.factorization.table import factorize_table
from tests.bert import tiny
from tests.support import TRAINING, data, inputs_of, still

KINDS = ("linear", "mlp", "hgt")
TABLE = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32) ** 3
QUICK = {"learning_rate": 1e-2, "batch_size": 40}


def config(adapter):
    return tiny.config(vocab_size=40, hidden_size=16, embedding_size=8, adapter=adapter)


def wide(**changes):
    return still(hidden_size=16, **changes)


def fitted(adapter, weights):
    """The matrix that the weights of an adapter stand for."""
    model = define.table_model(config(adapter))
    for layer in model.layers:
        layer.set_weights([weights[key] for key in weights if key.startswith(layer.name + "/")])
    return define.whole_table(model, 40)


@pytest.mark.parametrize("adapter", KINDS)
def test_all_adapters_start_from_the_svd(adapter):
    weights, errors = define.fit_adapter(config(adapter), TABLE, 0)
    narrow, projection, error = factorize_table(TABLE, 8)
    np.testing.assert_allclose([*errors.values()], error, rtol=1e-4)
    assert 0.1 < error < 0.9
    np.testing.assert_allclose(fitted(adapter, weights), narrow @ projection, atol=1e-4)


@pytest.mark.parametrize("adapter", KINDS)
def test_important_rows_lose_less_and_a_fit_comes_closer_than_the_svd(adapter):
    importance, lost = np.where(np.arange(40) < 10, 50.0, 1.0), []
    for weights_of_rows in (None, importance):
        weights, errors = define.fit_adapter(config(adapter), TABLE, 60, weights_of_rows, **QUICK)
        lost.append(np.square(fitted(adapter, weights) - TABLE).sum(axis=1))
    assert lost[1][:10].sum() < 0.5 * lost[0][:10].sum()
    squares = np.square(TABLE).sum(axis=1)
    for key, weights in (("table_error", np.ones(40)), ("fit_error", importance)):
        error = np.sqrt(weights @ lost[1] / (weights @ squares))
        np.testing.assert_allclose(errors[key], error, rtol=1e-5)
    gain = 1 + 1e-6 if adapter == "linear" else 0.95
    assert errors["fit_error"] <= gain * errors["svd_error"]


def test_a_fit_is_a_function_of_its_seed():
    a, b, c = (define.fit_adapter(config("mlp"), TABLE, 5, seed=seed)[0] for seed in (1, 1, 2))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert any(not np.array_equal(a[name], c[name]) for name in a)


def test_a_linear_adapter_needs_no_fit_and_is_albert_s():
    model = wide()
    small = define.compress(model, data(), embedding_size=8, adapter="linear", fit_steps=50)
    factorised = albert.compress(model, data(), embedding_size=8)
    assert small.config == factorised.config
    np.testing.assert_equal(small.weights(), factorised.weights())


@pytest.mark.parametrize("adapter", KINDS)
def test_a_folded_model_computes_the_same(adapter):
    small = define.compress(wide(), data(), embedding_size=8, adapter=adapter, fit_steps=0)
    # Weights away from their start: each part of an adapter must count.
    moved = {
        name: value + 0.3 * np.random.default_rng(len(name)).normal(size=value.shape)
        for name, value in small.weights().items()
        if name.startswith("embedding_")
    }
    small.set_weights(moved, only=moved)
    whole = define.fold(small, None)
    assert whole.config == wide().config and {*whole.weights()} == {*wide().weights()}
    before, after = (m.features(["hidden_states", "logits"])(inputs_of(m)) for m in (small, whole))
    np.testing.assert_allclose(
        after["hidden_states"][0], before["hidden_states"][0], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(after["logits"], before["logits"], atol=1e-5)


@pytest.mark.parametrize("adapter", KINDS)
def test_a_matrix_of_that_rank_comes_back_padding_included(adapter):
    model, random = wide(), np.random.default_rng(0)
    table = random.normal(size=(len(tiny.VOCAB), 8)) @ random.normal(size=(8, 16))
    model.set_weights({define.TABLE: table.astype(np.float32)}, only=[define.TABLE])
    small = define.compress(model, data(), embedding_size=8, adapter=adapter, fit_steps=0)
    again = define.fold(small, None).weights()[define.TABLE]
    np.testing.assert_allclose(again, table, atol=1e-4)
    assert np.abs(again[0]).max() > 0.1  # [PAD], which a bias must not hide


@pytest.mark.usefixtures("eager_here")
def test_recovery_trains_every_part_of_an_adapter():
    from keras_compress.training.finetune import finetune

    small = define.compress(wide(), data(), embedding_size=8, adapter="hgt", fit_steps=0)
    tuned = finetune(small, data(), training=TRAINING.replace(epochs=1)).weights()
    parts = [name for name in tuned if name.startswith(("embedding_", "word_"))]
    assert len(parts) > 10
    assert all(not np.array_equal(tuned[name], small.weights()[name]) for name in parts)


@pytest.mark.parametrize(
    "method, changes, settings, message",
    [
        ("compress", {}, {"embedding_size": 16}, "must be below the hidden size, 16.*: 16"),
        ("compress", {}, {"embedding_size": 9}, "`embedding_size` of an hgt .*Received: 9"),
        ("fold", {}, {}, "A narrow word table can be folded .*Received: width 16"),
        (
            "fold",
            {"embedding_size": 8, "embedding_norm": "embedding"},
            {},
            "`embedding_norm` = 'embedding'",
        ),
    ],
)
def test_errors(method, changes, settings, message):
    with pytest.raises(ValueError, match=message):
        getattr(define, method)(wide(**changes), data(), **settings)
