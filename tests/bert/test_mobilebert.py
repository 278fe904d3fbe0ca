"""MobileBERT's block: sizes, identities, padding, files."""

import numpy as np
import pytest

from keras_compress.backend import keras, tf
from keras_compress.bert import layers as L
from keras_compress.bert.config import BertConfig
from keras_compress.bert.encoder import LayerStore, build
from keras_compress.bert.task_model import TaskModel
from keras_compress.measure import cost
from keras_compress.pruning.vocabulary import slice_vocabulary
from mobile_export.convert import export
from mobile_export.graph import exported_graph
from tests.bert import tiny
from tests.support import data, inputs_of

THIN = {
    "architecture": "mobilebert",
    "embedding_size": 4,
    "bottleneck_size": 4,
    "num_ffn": 3,
    "attention_input": "shared",
    "norm": "none",
    "activation": "relu",
    "trigram": True,
    "pooling": "cls",
}
FORMS = {
    "mobilebert": {},
    "tiny": {"attention_input": "bottleneck", "num_ffn": 2},
    "ib-bert": {"attention_input": "hidden", "num_ffn": 1, "bottleneck_size": 12, "norm": "layer"},
    "no bottleneck": {"attention_input": "hidden", "bottleneck_size": None, "trigram": False},
}
# The sizes of the released models (24 blocks)
WHOLE = {
    "architecture": "mobilebert",
    "hidden_size": 512,
    "num_layers": 24,
    "num_heads": 4,
    "intermediate_size": 512,
    "embedding_size": 128,
    "bottleneck_size": 128,
    "num_ffn": 4,
    "attention_input": "shared",
    "norm": "none",
    "trigram": True,
    "pooling": "cls",
}
TINY = {"num_ffn": 2, "attention_input": "bottleneck"}
IB_BERT = {
    "num_ffn": 1,
    "attention_input": "hidden",
    "bottleneck_size": 1024,
    "intermediate_size": 4096,
}


def mobilebert(task="classification", **changes):
    return tiny.model(task, **THIN | changes)


def masked_lm(**changes):
    return TaskModel(tiny.config(**THIN | changes), tiny.tokenizer(), "mlm", (), seed=1)


@pytest.mark.parametrize(
    "changes, number", [({}, 24_581_888), (TINY, 15_485_696), (IB_BERT, 294_205_184)]
)
def test_parameters_of_the_papers_models(changes, number):
    assert cost.parameters(BertConfig(**WHOLE | changes)) == number


def test_parameters_of_the_model_itself():
    """Two blocks of the released width; all 24 take 14 s to build, and have been counted once."""
    config = BertConfig(**WHOLE | {"num_layers": 2})
    every = LayerStore(config, loaded=["word_embeddings/embeddings"])
    inputs, outputs = build(config, "classification", 2, every)
    encoder = keras.Model(inputs, outputs["pooled"])
    assert encoder.count_params() == cost.parameters(config)
    (extra,) = {"mlm_extra/kernel"} & masked_lm().weights().keys()
    assert masked_lm().weights()[extra].shape == (len(tiny.VOCAB), 4)
    assert not any("mlm" in name for name in mobilebert().weights())  # not in a classifier's file


@pytest.mark.parametrize("form", FORMS)
def test_costs_are_those_of_the_built_model(form):
    model = mobilebert(**FORMS[form])
    assert cost.parameters(model.config, 3) == model.model.count_params()
    products = [
        layer.kernel.shape
        for layer in model.model.layers
        if isinstance(layer, keras.layers.Dense) and layer.name != "classifier"
    ]
    inner, n = model.config.inner_size, 16
    matrices = sum(2 * n * inputs * outputs for inputs, outputs in products)
    assert cost.flops(model.config, n) == matrices + 2 * 4 * n * n * inner


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_padding_changes_nothing(form, task):
    model = mobilebert(task, **FORMS[form])
    short, long = inputs_of(model, tiny.TEXTS[:1]), inputs_of(model, tiny.TEXTS[:1], 16)
    length = short["input_mask"].shape[1]
    long["input_word_ids"] = tf.where(long["input_mask"] > 0, long["input_word_ids"], 9)
    states = [model.features(["hidden_states", "logits"])(x) for x in (short, long)]
    for before, after in zip(*(x["hidden_states"] for x in states)):
        np.testing.assert_allclose(after[:, :length], before, atol=1e-5)
    logits = [x["logits"].numpy()[:, :length] for x in states]
    np.testing.assert_allclose(*logits, atol=1e-5)


def test_one_feed_forward_layer_without_bottleneck_is_a_bert():
    bert = tiny.model(activation="relu", pooling="cls")
    config = bert.config.replace(architecture="mobilebert")
    same = TaskModel(config, bert.tokenizer, bert.task, bert.labels)
    same.set_weights(bert.weights())
    assert same.weights().keys() == bert.weights().keys()
    inputs = inputs_of(bert)
    np.testing.assert_array_equal(same.model(inputs), bert.model(inputs))


def test_no_norm_by_hand():
    layer, x = L.NoNorm(), tf.constant([[1.0, -2.0]])
    np.testing.assert_array_equal(layer(x), x)  # gamma 1, beta 0
    layer.set_weights([np.array([2.0, 3.0]), np.array([0.5, 1.0])])
    np.testing.assert_array_equal(layer(x), [[2.5, -5.0]])


def test_trigram_by_hand():
    x, mask = tf.reshape(tf.range(1.0, 5.0), (1, 4, 1)), tf.constant([[1, 1, 1, 0]])
    # next, own, last; the third is the last real piece
    want = [[2, 1, 0], [3, 2, 1], [0, 3, 2], [0, 0, 3]]
    np.testing.assert_array_equal(L.Trigram()(x, mask)[0], want)


def test_without_attention_a_position_sees_its_neighbours_alone():
    model = mobilebert("tagging")
    silent = {name: 0 * x for name, x in model.weights().items() if "attention_output" in name}
    model.set_weights(model.weights() | silent)
    inputs = inputs_of(model, ["the cat sat on the mat"])
    other = inputs["input_word_ids"].numpy()
    other[0, 3] = 13
    changed = model.model({**inputs, "input_word_ids": tf.constant(other)}) - model.model(inputs)
    moved = np.abs(changed[0]).max(-1) > 1e-6
    np.testing.assert_array_equal(np.flatnonzero(moved), [2, 3, 4])


def test_cls_only_gives_the_same_logits():
    for form in FORMS.values():
        model = mobilebert(**form)
        graph = exported_graph(model, 16)
        assert graph.cls_only
        inputs = {k: v[:1] for k, v in inputs_of(model, length=16).items()}
        np.testing.assert_allclose(graph.model(inputs), model.model(inputs)[:1], atol=1e-5)


def test_saved_loaded_and_with_fewer_pieces(tmp_path):
    model = masked_lm()
    model.set_weights(model.weights() | {"mlm_extra/kernel": np.random.rand(len(tiny.VOCAB), 4)})
    model.save(tmp_path / "model")
    loaded, inputs = TaskModel.load(tmp_path / "model"), inputs_of(model)
    assert loaded.config == model.config
    np.testing.assert_array_equal(loaded.model(inputs), model.model(inputs))
    kept = np.arange(30)
    fewer = slice_vocabulary(model, kept)
    np.testing.assert_allclose(
        fewer.model(inputs), model.model(inputs).numpy()[..., kept], atol=1e-5
    )


def test_no_norm_leaves_neither_mean_nor_variance_in_the_graph():
    operators = {}
    for norm in ("none", "layer"):
        graph = exported_graph(mobilebert(norm=norm), 16).function.graph
        definition = graph.as_graph_def()
        bodies = [definition.node, *(body.node_def for body in definition.library.function)]
        operators[norm] = {node.op for nodes in bodies for node in nodes}
    assert {"Mean", "Rsqrt"} <= operators["layer"]
    assert not {"Mean", "Rsqrt", "Square", "SquaredDifference"} & operators["none"]


def test_exported_in_one_partition(tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 64, "bottleneck_size": 32}
    model = mobilebert(**sizes, initializer_range=0.1)
    formats = "float32", "int8"
    float32, int8 = export(model, tmp_path, formats, sequence_length=16, dev=data().dev)
    assert float32["max_dlogit"] < 1e-4 and float32["partitions"] == int8["partitions"] == 1
    assert int8["bytes"] < 0.8 * float32["bytes"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architecture": "bert"}, "belong to a mobilebert. Received: a bert .*Set `architecture`"),
        ({"bottleneck_size": 5}, "`bottleneck_size` must be a multiple of `num_heads`.*: 5 and 2"),
        ({"bottleneck_size": None}, "without a bottleneck. Received: 'shared'. Set `bottleneck"),
        ({"sharing": "all"}, "A mobilebert must leave sharing, .*Received: .'sharing': 'all'"),
    ],
)
def test_configs_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny.config(**THIN | changes)
