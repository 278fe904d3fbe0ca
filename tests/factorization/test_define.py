import numpy as np
import pytest

from keras_compress.bert.task_model import TaskModel
from keras_compress.factorization import albert, define
from keras_compress.factorization.table import factorize_table, row_importance
from keras_compress.measure.cost import parameters
from tests.bert import tiny
from tests.replacement.test_theseus import data, inputs_of
from tests.training.test_distill import TRAINING, still

KINDS = ("linear", "mlp", "hgt")
TABLE = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32) ** 3


def config(adapter, **changes):
    return tiny.config(
        **{**dict(vocab_size=40, hidden_size=16, embedding_size=8, adapter=adapter), **changes}
    )


def wide(**changes):
    return still(hidden_size=16, **changes)


@pytest.mark.parametrize("adapter", KINDS)
def test_all_adapters_start_from_the_svd(adapter):
    weights, errors = define.fit_adapter(config(adapter), TABLE, 0)
    np.testing.assert_allclose([*errors.values()], factorize_table(TABLE, 8)[2], rtol=1e-4)
    assert 0.1 < errors["svd_error"] < 0.9
    narrow, projection, _ = factorize_table(TABLE, 8)
    model = define.table_model(config(adapter))
    for layer in model.layers:
        names = [name for name in weights if name.startswith(layer.name + "/")]
        layer.set_weights([weights[name] for name in names])
    np.testing.assert_allclose(define.whole_table(model, 40), narrow @ projection, atol=1e-4)


@pytest.mark.parametrize("adapter", ["mlp", "hgt"])
def test_fitting_comes_closer_than_the_svd(adapter):
    errors = [
        define.fit_adapter(config(adapter), TABLE, steps, learning_rate=1e-2, batch_size=40)[1][
            "fit_error"
        ]
        for steps in (0, 60)
    ]
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("adapter", KINDS)
def test_important_rows_lose_less(adapter):
    importance = np.where(np.arange(40) < 10, 50.0, 1.0)
    lost = {}
    for name, of_rows in (("alike", None), ("weighted", importance)):
        weights, errors = define.fit_adapter(
            config(adapter), TABLE, 60, of_rows, learning_rate=1e-2, batch_size=40
        )
        model = define.table_model(config(adapter))
        for layer in model.layers:
            layer.set_weights([weights[key] for key in weights if key.startswith(layer.name + "/")])
        lost[name] = np.square(define.whole_table(model, 40) - TABLE).sum(axis=1)
    assert lost["weighted"][:10].sum() < 0.5 * lost["alike"][:10].sum()
    squares = np.square(TABLE).sum(axis=1)
    for key, weights in (("table_error", np.ones(40)), ("fit_error", importance)):
        np.testing.assert_allclose(
            errors[key], np.sqrt(weights @ lost["weighted"] / (weights @ squares)), rtol=1e-5
        )
    assert (
        errors["fit_error"] <= errors["svd_error"] + 1e-6
        and errors["fit_error"] < errors["table_error"]
    )


def test_a_linear_adapter_needs_no_fit_and_is_albert_s():
    model = wide()
    ours = define.compress(model, data(), embedding_size=8, adapter="linear", recover="none")
    theirs = albert.compress(model, data(), embedding_size=8, recover="none")
    assert ours.config == theirs.config
    for name, value in theirs.weights().items():
        np.testing.assert_array_equal(ours.weights()[name], value)
    assert (
        define.fit_adapter(config("linear"), TABLE, 50)[1]
        == define.fit_adapter(config("linear"), TABLE, 0)[1]
    )


def test_a_fit_is_a_function_of_its_seed():
    a, b = (define.fit_adapter(config("mlp"), TABLE, 5, seed=1)[0] for _ in range(2))
    assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("adapter", KINDS)
def test_a_folded_model_computes_the_same(adapter):
    small = define.compress(
        wide(), data(), embedding_size=8, adapter=adapter, fit_steps=0, recover="none"
    )
    # Weights away from their start: each part of an adapter must count.
    moved = {
        name: value
        + 0.3 * np.random.default_rng(len(name)).normal(size=value.shape).astype(np.float32)
        for name, value in small.weights().items()
        if name.startswith("embedding_")
    }
    small.set_weights(moved, only=moved)
    whole = define.fold(small)
    assert whole.config == wide().config
    assert {*whole.weights()} == {*wide().weights()}
    ours, theirs = (m.features(["hidden_states", "logits"])(inputs_of(m)) for m in (whole, small))
    np.testing.assert_allclose(ours["hidden_states"][0], theirs["hidden_states"][0], atol=1e-5)
    np.testing.assert_allclose(ours["logits"], theirs["logits"], atol=1e-5)


@pytest.mark.parametrize("adapter", KINDS)
def test_a_table_of_that_rank_comes_back_padding_included(adapter):
    model, random = wide(), np.random.default_rng(0)
    table = (random.normal(size=(len(tiny.VOCAB), 8)) @ random.normal(size=(8, 16))).astype(
        np.float32
    )
    model.set_weights({"word_embeddings/embeddings": table}, only=["word_embeddings/embeddings"])
    small = define.compress(
        model, data(), embedding_size=8, adapter=adapter, fit_steps=0, recover="none"
    )
    again = define.fold(small).weights()["word_embeddings/embeddings"]
    np.testing.assert_allclose(again, table, atol=1e-4)
    assert np.abs(again[0]).max() > 0.1  # [PAD], which a bias must not hide


@pytest.mark.parametrize(
    "adapter, recover, folded", [("hgt", "finetune", False), ("mlp", "distil", True)]
)
def test_compress(adapter, recover, folded, tmp_path):
    model = tiny.model(hidden_size=16, num_layers=1)
    before = model.weights()
    small = define.compress(
        model,
        data(),
        training=TRAINING.replace(epochs=1),
        embedding_size=8,
        adapter=adapter,
        fit_steps=0,
        recover=recover,
        folded=folded,
    )
    assert all(np.array_equal(before[name], value) for name, value in model.weights().items())
    entry = next(step for step in small.history if step["method"] == "define")
    assert 0 < entry["table_error"] < 1 and entry["adapter"] == adapter and small.curve
    assert small.model.count_params() == parameters(small.config, num_labels=3)
    assert (small.config == model.config) == folded
    started, _ = define.fit_adapter(
        small.config.replace(embedding_size=8, adapter=adapter),
        before[define.TABLE],
        0,
        row_importance("counts", data(), model.tokenizer),
    )
    for name in started if not folded else ():  # recovery trains every part of the adapter
        assert not np.array_equal(started[name], small.weights()[name]), name
    small.save(tmp_path / "s")
    again = TaskModel.load(tmp_path / "s")
    np.testing.assert_array_equal(again.predict(tiny.TEXTS), small.predict(tiny.TEXTS))


def test_it_chains_with_other_methods():
    from keras_compress.pruning import vocabulary

    small = define.compress(
        tiny.model(hidden_size=16),
        data(),
        embedding_size=8,
        adapter="hgt",
        fit_steps=0,
        recover="none",
    )
    fewer = vocabulary.compress(small, data())
    assert fewer.config.adapter == "hgt" and fewer.config.vocab_size < small.config.vocab_size
    shared = albert.compress(fewer, data(), sharing="all", recover="none")
    assert define.fold(shared).config.sharing == "all"


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: define.compress(wide(), data(), embedding_size=16),
            "must be 1 to 15.*Received: 16",
        ),
        (
            lambda: define.compress(wide(embedding_size=8), data(), embedding_size=4),
            "a bert with a table of width 8",
        ),
        (
            lambda: define.compress(wide(), data(), embedding_size=9),
            "`embedding_size` of an hgt .* Received: 9",
        ),
        (
            lambda: define.compress(wide(), data(), embedding_size=8, adapter="deep"),
            "`adapter` must be one of linear, mlp",
        ),
        (
            lambda: define.compress(wide(), data(), embedding_size=8, fit_steps=-1),
            "`fit_steps` a whole number of 0 or more.*and -1",
        ),
        (
            lambda: define.compress(wide(), data(), embedding_size=8, fit_steps=1.5),
            "`fit_steps` a whole number.*and 1.5",
        ),
        (
            lambda: define.compress(wide(), data(), embedding_size=8, recover="hope"),
            "`recover` must be one of distil",
        ),
        (
            lambda: define.compress(wide(), data(), embedding_size=8, row_weights="tf"),
            "`row_weights` must be one of counts",
        ),
        (
            lambda: define.fold(wide()),
            "Only a narrow word table can be folded.*Received: a table of width 16",
        ),
        (
            lambda: define.fold(wide(embedding_size=8, embedding_norm="embedding")),
            "`embedding_norm` = 'embedding'",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
