"""I-BERT: a trained encoder in integers alone, and the training before it."""

import numpy as np
import pytest
from scipy.special import erf

from keras_compress.backend import tf
from keras_compress.bert.encoder import INPUT_NAMES
from keras_compress.bert.fake_quant import fake_quantize, largest
from keras_compress.bert.layers import AttentionProbs
from keras_compress.factorization import albert
from keras_compress.measure.accuracy import evaluate
from keras_compress.quantization import ibert
from keras_compress.quantization import integer_functions as I
from keras_compress.quantization.integer_encoder import in_integers
from keras_compress.training.finetune import finetune
from tests.bert import tiny
from tests.support import TRAINING, data, inputs_of, still

SIZES = {"hidden_size": 16, "intermediate_size": 32, "initializer_range": 0.2, "pooling": "cls"}


class Watched(np.ndarray):
    """An array that lets no float be computed from it; what is computed from it is watched, too."""

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        plain = [np.asarray(x) for x in inputs]
        result = np.asarray(getattr(ufunc, method)(*plain, **kwargs))
        for array in (*plain, result):
            assert array.dtype.kind in "iub", (ufunc, array.dtype)
        return result.view(Watched)

    def __array_function__(self, function, types, arguments, settings):
        result = super().__array_function__(function, types, arguments, settings)
        return result.view(Watched) if isinstance(result, np.ndarray) else result


def integers_of(model, length=None):
    """The inputs of an `IntegerEncoder`."""
    return [inputs_of(model, length=length)[name].numpy().astype(np.int64) for name in INPUT_NAMES]


@pytest.fixture(scope="module")
def trained():
    """A tiny BERT that was fine-tuned, then by I-BERT's second phase."""
    training = TRAINING.replace(epochs=40, learning_rate=3e-3, evaluations=0)
    start = finetune(still(**SIZES), data(), training=training)
    return ibert.compress(start, data(), training=TRAINING.replace(learning_rate=1e-4))


def test_an_encoder_in_integers_agrees_with_the_float_one(trained):
    whole, texts = in_integers(trained, data().train.texts), [*data().dev.texts, *tiny.TEXTS]
    floats, integers = trained.predict(texts), whole.predict(texts)
    assert np.abs(floats - integers).max() < 0.03
    assert (floats.argmax(-1) == integers.argmax(-1)).all()
    assert evaluate(trained, data().dev)["value"] == evaluate(whole, data().dev)["value"] == 1.0
    q, S = whole.encoder(*integers_of(trained))
    states = trained.features(["hidden_states"])(inputs_of(trained))["hidden_states"][-1]
    apart = np.abs(q * S - states)[inputs_of(trained)["input_mask"].numpy() > 0]
    assert q.dtype == np.int64 and np.abs(q).max() <= 128 and 2 < np.abs(states).max()
    assert apart.max() < 0.2 and apart.mean() < 0.05  # of texts of which half the words are new


def test_every_operation_on_data_is_one_of_integers(trained, monkeypatch):
    encoder = in_integers(trained, data().train.texts).encoder
    inputs = integers_of(trained)
    wanted, _ = encoder(*inputs)
    quantize = I.quantize
    monkeypatch.setattr(I, "quantize", lambda *a, **k: quantize(*a, **k).view(Watched))
    found, _ = encoder(*(array.view(Watched) for array in inputs))
    assert type(found) is Watched
    np.testing.assert_array_equal(np.asarray(found), wanted)
    with pytest.raises(AssertionError):
        found * 0.5


def test_a_tensorflow_graph_of_it_has_no_float_operator(trained):
    encoder = in_integers(trained, data().train.texts).encoder
    inputs = integers_of(trained)
    spec = tf.TensorSpec(inputs[0].shape, tf.int64)
    graph = tf.function(lambda *ids: encoder(*ids)[0]).get_concrete_function(spec, spec, spec)
    np.testing.assert_array_equal(graph(*map(tf.constant, inputs)), encoder(*inputs)[0])
    operations = graph.graph.get_operations()
    assert len(operations) > 100
    assert not [op for op in operations for t in op.outputs if t.dtype.is_floating]


@pytest.mark.parametrize(
    "task, changes",
    [
        ("tagging", {}),
        ("classification", {"pooling": "pooler", "activation": "relu"}),
        ("matching", {"pooling": "mean"}),
    ],
)
def test_other_tasks_heads_and_activations(task, changes):
    model = still(task, **{**SIZES, **changes})
    whole, dataset = in_integers(model, data(task).train.texts), data(task)
    floats, integers = (m.forward(model.tokenizer.encode(tiny.TEXTS, 16)) for m in (model, whole))
    for a, b, text in zip(floats, integers, model.tokenizer.encode(tiny.TEXTS, 16)):
        a, b = (np.asarray(x)[: len(text.ids)] if task == "tagging" else x for x in (a, b))
        assert np.abs(a - b).max() < 0.15 * max(1.0, np.abs(a).max())
    assert evaluate(whole, dataset.dev)["value"] >= 0


def test_padding_changes_no_integer(trained):
    encoder = in_integers(trained, data().train.texts).encoder
    short = integers_of(trained)
    long = integers_of(trained, length=16)
    long[0][:, short[0].shape[1] :] = 7
    real, width = short[1] > 0, short[0].shape[1]
    (a, _), (b, _) = encoder(*short), encoder(*long)
    np.testing.assert_array_equal(a[real], b[:, :width][real])


def test_embeddings_that_are_larger_than_their_sum_are_not_clamped():
    start, weights = still(**SIZES), still(**SIZES).weights()
    weights["word_embeddings/embeddings"][:, 0] += 2.0
    weights["type_embeddings/embeddings"][:, 0] -= 2.0  # the sum stays below 1.3
    model, texts = start.rebuilt(start.config, weights), data().train.texts
    inputs = inputs_of(model, texts)
    q, S = in_integers(model, texts).encoder.embed(
        *(inputs[name].numpy().astype(np.int64) for name in ("input_word_ids", "input_type_ids"))
    )
    wanted = model.features(["hidden_states"])(inputs)["hidden_states"][0]
    # both tables are rounded to 2 / 127: .016 at most in the sum, whose standard deviation is .35
    assert np.abs(q * S - wanted)[inputs["input_mask"].numpy() > 0].max() < 0.15


def test_shared_layers_run_in_integers():
    shared = albert.share_layers(still(**SIZES), "all")
    whole = in_integers(shared, data().train.texts)
    assert np.abs(whole.predict(tiny.TEXTS) - shared.predict(tiny.TEXTS)).max() < 0.1


def test_polynomials_of_the_training_by_hand():
    x = np.linspace(-6, 6, 2001, dtype=np.float32)
    gelu = x * 0.5 * (1 + erf(x / np.sqrt(2)))
    assert 0.018 < np.abs(ibert.gelu_polynomial(x) - gelu).max() < 0.019
    scores = tf.constant(np.random.default_rng(0).normal(0, 3, (2, 2, 5, 5)), tf.float32)
    bias = tf.constant([[0.0] * 5, [0.0] * 3 + [-1e4] * 2])[:, None, None, :]
    found, exact = ibert.PolynomialProbs()([scores, bias]), AttentionProbs()([scores, bias])
    assert 1e-5 < np.abs(found - exact).max() < 0.0022
    np.testing.assert_allclose(tf.reduce_sum(found, -1), 1.0, atol=1e-6)
    assert np.abs(found[1, ..., 3:]).max() < 1e-6


def test_training_rounds_and_moves_all_weights(trained):
    source = still(**SIZES)
    small = ibert.compress(source, data(), training=TRAINING.replace(epochs=1, learning_rate=1e-3))
    for name, weight in small.weights().items():
        moved = not np.array_equal(weight, source.weights()[name])
        assert moved or name.endswith("key/bias"), name
        if name.endswith("/kernel") and not name.startswith("classifier"):
            same = fake_quantize(tf.constant(weight), largest(weight, 0))
            np.testing.assert_allclose(same, weight, atol=1e-6)
            assert max(len(np.unique(column.round(5))) for column in weight.T) <= 255


@pytest.mark.parametrize(
    "changes, texts, message",
    [
        (
            {"embedding_size": 4},
            ["a"],
            "plain word table .*`embedding_size` 4. Use the method `fold`",
        ),
        ({}, [], "texts that show the ranges. Received: none"),
        (
            {"quantization": {"bits": 8, "activations": "static", "decay": 0.9, "start_step": 0}},
            ["a"],
            "must be the last of a chain",
        ),
    ],
)
def test_errors(changes, texts, message):
    with pytest.raises(ValueError, match=message):
        in_integers(still(**changes), texts)
