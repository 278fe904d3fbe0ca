import numpy as np
import pytest

from keras_compress.backend import keras, tf
from keras_compress.bert.checkpoints import from_bert4keras
from keras_compress.bert.config import BertConfig
from keras_compress.bert.encoder import LayerStore, build, can_be_cls_only
from keras_compress.measure import cost
from tests.bert import tiny

pytestmark = pytest.mark.filterwarnings("ignore:The initializer TruncatedNormal")  # bert4keras' own
HEADS = [
    ("classification", "pooler"),
    ("classification", "cls"),
    ("matching", "mean"),
    ("tagging", "cls"),
]


def run(task_model, inputs, names=("logits",)):
    return task_model.features(list(names))(
        {name: tf.constant(value) for name, value in inputs.items()}
    )


@pytest.mark.parametrize("task, pooling", HEADS)
def test_padding_changes_nothing(task, pooling):
    model = tiny.shared(task, pooling)
    encodings = model.tokenizer.encode(tiny.TEXTS[:1], 16)
    length = len(encodings[0].ids)
    short = run(model, model.pad(encodings))["logits"]
    long = run(model, model.pad(encodings, 16))["logits"]
    np.testing.assert_allclose(long[:, :length] if task == "tagging" else long, short, atol=2e-6)


@pytest.mark.parametrize("task, pooling", HEADS)
def test_padded_ids_change_nothing(task, pooling):
    model = tiny.shared(task, pooling)
    inputs = model.pad(model.tokenizer.encode(tiny.TEXTS, 16))
    padded = inputs["input_mask"] == 0
    assert padded.any()
    other = {
        **inputs,
        "input_word_ids": np.where(padded, 9, inputs["input_word_ids"]),
        "input_type_ids": np.where(padded, 1, inputs["input_type_ids"]),
    }
    before, after = run(model, inputs)["logits"].numpy(), run(model, other)["logits"].numpy()
    if task == "tagging":
        before, after = before[~padded], after[~padded]
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("pooling", ["pooler", "cls"])
def test_cls_only_gives_the_same_logits(pooling):
    model = tiny.shared("classification", pooling)
    store = LayerStore(model.config, existing=model.model.layers)
    inputs, outputs = build(
        model.config, "classification", 3, store, sequence_length=16, cls_only=True
    )
    short = keras.Model(inputs, outputs["logits"])
    assert {id(v) for v in short.weights} == {id(v) for v in model.model.weights}
    assert outputs["hidden_states"][-1].shape == (None, 1, 8)
    data = model.pad(model.tokenizer.encode(tiny.TEXTS, 16), 16)
    np.testing.assert_allclose(short(data), model.model(data), atol=1e-6)


def test_cls_only_needs_a_head_that_reads_cls_alone():
    for task, pooling in (("classification", "mean"), ("tagging", "cls")):
        config = tiny.config(pooling=pooling)
        assert not can_be_cls_only(config, task)
        with pytest.raises(ValueError, match="needs a head that reads .CLS. alone. Received: task"):
            build(config, task, 3, LayerStore(config), cls_only=True)
    with pytest.raises(
        ValueError,
        match="`task` must be one of classification, matching, tagging, multilabel, regression, mlm. Received: 'x'",
    ):
        build(config, "x", 3, LayerStore(config))


@pytest.mark.parametrize("task", [*tiny.LABELS])
def test_features(task):
    model = tiny.shared(task)
    names = ["hidden_states", "attention_scores", "logits"] + ["pooled"] * (task != "tagging")
    found = run(model, model.pad(model.tokenizer.encode(tiny.TEXTS, 16), 16), names)
    assert [x.shape for x in found["hidden_states"]] == [
        (4, 16, 8)
    ] * 3  # embeddings, then each layer
    assert [x.shape for x in found["attention_scores"]] == [(4, 2, 16, 16)] * 2
    assert found["logits"].shape == ((4, 16, 3) if task == "tagging" else (4, len(model.labels)))
    if task == "tagging":
        with pytest.raises(
            ValueError, match="Outputs must be among hidden_states, .* Received: pooled, x"
        ):
            model.features(["pooled", "x"])
    else:
        assert found["pooled"].shape == (4, 8)


def test_every_initial_kernel_is_another():
    """bert4keras passes one initialiser to q, k, v and o, and on Keras 2 they start equal."""
    weights = tiny.model(num_layers=3, intermediate_size=8).weights()
    kernels = [w for name, w in weights.items() if name.endswith("/kernel") and w.shape == (8, 8)]
    assert len(kernels) == 3 * 6 + 1  # q k v o, feed-forward; the pooler
    for i, first in enumerate(kernels):
        assert all(
            abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.6 for other in kernels[:i]
        )


def test_seed_decides_the_initial_weights():
    one, same, other = (tiny.model(seed=seed).weights() for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert all(
        not np.array_equal(one[name], other[name]) for name in one if name.endswith("/kernel")
    )
    assert np.std(one["word_embeddings/embeddings"]) == pytest.approx(
        0.5 * 0.88, rel=0.2
    )  # truncated at 2 sigma


def test_the_model_is_flat():
    model = tiny.shared().model
    names = {type(layer).__name__ for layer in model.layers}
    assert not names & {"Lambda", "TFOpLambda", "SlicingOpLambda", "Functional", "Model"}
    with_weights = {
        type(layer).__name__
        for layer in model.layers
        if any(v.dtype.is_floating for v in layer.weights)
    }
    assert with_weights == {"Dense", "Embedding", "WordEmbedding", "PositionEmbedding", "LayerNorm"}
    assert all(not list(layer._flatten_layers(include_self=False)) for layer in model.layers)
    assert {i.name: i.dtype for i in model.inputs} == dict.fromkeys(
        ("input_word_ids", "input_mask", "input_type_ids"), tf.int32
    )


def test_dropout_falls_in_training_alone():
    model = tiny.shared()
    data = {
        name: tf.constant(x)
        for name, x in model.pad(model.tokenizer.encode(tiny.TEXTS, 16)).items()
    }
    first, second = model.model(data, training=True), model.model(data, training=True)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(model.model(data, training=False), model.model(data))


@pytest.mark.parametrize(
    "vocab_size, num_layers, count",
    [
        (30522, 12, 109_482_240),
        (30522, 6, 66_955_008),
        (30522, 3, 45_691_392),
        (21128, 12, 102_267_648),
        (21128, 6, 59_740_416),
        (21128, 3, 38_476_800),
    ],
)
def test_parameter_counts_of_bert_base(vocab_size, num_layers, count):
    assert cost.parameters(BertConfig(vocab_size=vocab_size, num_layers=num_layers)) == count


@pytest.mark.parametrize("pooling", ["pooler", "cls"])
def test_the_counting_formula_is_the_model(pooling):
    model = tiny.shared("classification", pooling)
    assert sum(w.size for w in model.weights().values()) == cost.parameters(model.config, 3)


# --- against bert4keras, with equal weights ---


@pytest.fixture(scope="module", params=["gelu", "relu", "gelu_tanh"])
def pair(request):
    """A bert4keras model with every weight random, its attention scores, and what the bridge makes of it."""
    from bert4keras.layers import MultiHeadAttention
    from bert4keras.models import BERT

    class WithScores(BERT):
        scores = ()

        def apply(self, inputs=None, layer=None, arguments=None, **kwargs):
            if layer is not MultiHeadAttention:
                return super().apply(inputs, layer, arguments, **kwargs)
            x, scores = super().apply(
                inputs, layer, arguments, return_attention_scores=True, **kwargs
            )
            self.scores = [*self.scores, scores]
            return x

    bert = WithScores(
        vocab_size=len(tiny.VOCAB),
        hidden_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=12,
        hidden_act=request.param,
        max_position=16,
        dropout_rate=0.1,
        attention_dropout_rate=0.2,
        with_pool=True,
    )
    bert.build()
    logits = keras.layers.Dense(3, activation="softmax", name="dense_72")(bert.model.output)
    model = keras.Model(bert.model.input, logits)
    rng = np.random.default_rng(4)
    for weight in model.weights:
        if weight.dtype.is_floating:
            mean = 1.0 if "gamma" in weight.name else 0.0
            weight.assign(rng.normal(mean, 0.5 if len(weight.shape) == 2 else 0.1, weight.shape))
    names = ["Embedding-Dropout"] + [f"Transformer-{i}-FeedForward-Norm" for i in range(3)]
    reference = keras.Model(
        model.input,
        {
            "hidden_states": [model.get_layer(name).output for name in names],
            "attention_scores": bert.scores,
            "pooled": bert.model.output,
            "probabilities": logits,
        },
    )
    return (
        model,
        reference,
        from_bert4keras(model, tiny.tokenizer(), "classification", ("a", "b", "c")),
    )


def test_equal_to_bert4keras(pair):
    _, reference, ours = pair
    encodings = ours.tokenizer.encode([*tiny.TEXTS, ("the cat", "the dog sat")], 16)
    inputs = ours.pad(encodings)
    theirs = reference(
        [inputs["input_word_ids"].astype("float32"), inputs["input_type_ids"].astype("float32")]
    )
    found = run(ours, inputs, ["hidden_states", "attention_scores", "pooled", "logits"])
    real = inputs["input_mask"] == 1  # bert4keras masks by id 0, which is [PAD] here
    worst = 0.0
    for a, b in zip(found["hidden_states"], theirs["hidden_states"]):
        worst = max(worst, np.abs(a.numpy()[real] - b.numpy()[real]).max())
    for a, b in zip(found["attention_scores"], theirs["attention_scores"]):
        both = np.broadcast_to((real[:, None, :, None] & real[:, None, None, :]), a.shape)
        worst = max(worst, np.abs(a.numpy()[both] - b.numpy()[both]).max())
    worst = max(worst, np.abs(found["pooled"] - theirs["pooled"]).max())
    worst = max(worst, np.abs(tf.nn.softmax(found["logits"]) - theirs["probabilities"]).max())
    assert worst < 1e-5
    assert np.ptp(theirs["probabilities"].numpy(), axis=0).max() > 0.02  # the texts do differ


def test_bridge_reads_the_settings(pair):
    model, _, ours = pair
    assert (ours.config.dropout, ours.config.attention_dropout, ours.config.layer_norm_eps) == (
        0.1,
        0.2,
        1e-12,
    )
    assert (ours.config.num_layers, ours.config.num_heads, ours.config.pooling) == (3, 2, "pooler")
    assert ours.config.activation == model.get_layer("Transformer-0-FeedForward").activation[
        0
    ].__name__.replace("_erf", "")
    assert ours.history == [
        {
            "method": "load",
            "source": "bert4keras",
            "loaded": 5 + 16 * 3 + 4,
            "new": [],
            "left_out": [],
            "seed": 0,
        }
    ]
