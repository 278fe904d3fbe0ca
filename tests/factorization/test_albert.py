import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.config import BertConfig
from keras_compress.factorization import albert
from keras_compress.measure.cost import encoder_parameters, flops, parameters
from keras_compress.training.finetune import task_loss
from mobile_export.convert import export
from tests.bert import tiny
from tests.support import TRAINING, data, inputs_of, masked_lm, still

PAPER = {"vocab_size": 30000, "embedding_norm": "embedding"}


@pytest.mark.parametrize(
    "hidden, layers, heads, inner, count, millions",
    [
        (768, 12, 12, 3072, 11_683_584, 12),
        (1024, 24, 16, 4096, 17_683_968, 18),
        (2048, 24, 16, 8192, 58_724_864, 60),
        (4096, 12, 64, 16384, 222_595_584, 235),  # the paper's count differs
    ],
)
def test_parameters_of_the_released_sizes(hidden, layers, heads, inner, count, millions):
    config = BertConfig(
        **PAPER,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        intermediate_size=inner,
        embedding_size=128,
        sharing="all",
    )
    assert parameters(config) == count and abs(count / 1e6 - millions) <= 0.06 * millions


@pytest.mark.parametrize(
    "size, sharing, count",
    [
        (64, "all", 9_681_408),  # the paper's Tables 3 and 4, after rounding
        (128, "attention", 63_647_232),
        (128, "ffn", 37_686_528),
        (128, "none", 89_650_176),
        (256, "all", 15_687_936),
        (768, "none", 109_081_344),
        (768, "ffn", 57_117_696),
    ],
)
def test_parameters_of_widths_and_sharing_modes(size, sharing, count):
    assert parameters(BertConfig(**PAPER, embedding_size=size, sharing=sharing)) == count


def test_nothing_shared_and_nothing_narrow_is_a_bert():
    model = tiny.model(embedding_size=8, embedding_norm="embedding")
    assert {*model.weights()} == {*tiny.model().weights()}


def test_sharing_saves_bytes_and_no_time():
    deep, deeper = (BertConfig(num_layers=n, sharing="all") for n in (4, 8))
    sizes = {encoder_parameters(c) for c in (deep, deeper, BertConfig(num_layers=1))}
    assert len(sizes) == 1
    pooler = 2 * 768 * 768
    assert flops(deeper, 64) - pooler == 2 * (flops(deep, 64) - pooler)
    assert flops(deep, 64) == flops(BertConfig(num_layers=4), 64)


def test_groups():
    config = BertConfig(num_layers=12, sharing="all", num_groups=4)  # floor(l / 12 * 4) * 3
    assert [config.owner(layer, "ffn") for layer in range(12)] == [0] * 3 + [3] * 3 + [6] * 3 + [
        9
    ] * 3
    assert [config.replace(sharing="attention").owner(k, "ffn") for k in range(3)] == [0, 1, 2]


def test_a_factorised_model_computes_with_the_nearest_matrix():
    model = still(adapter="mlp")  # a name that a whole table leaves unused
    small, error = albert.factorize(model, 5)
    assert small.config.adapter == "linear" and 0 < error < 1
    weights, name = small.weights(), "word_embeddings/embeddings"
    wide = model.clone()
    wide.set_weights({name: weights[name] @ weights["embedding_projection/kernel"]}, only=[name])
    outputs = small.model(inputs_of(small)), wide.model(inputs_of(wide))
    np.testing.assert_allclose(*outputs, atol=1e-5)


@pytest.mark.parametrize("sharing, groups", [("all", 1), ("attention", 1), ("ffn", 2), ("all", 2)])
def test_an_unshared_copy_computes_the_same(sharing, groups):
    shared = albert.share_layers(still(num_layers=4), sharing, groups)
    copy = shared.keep_layers(range(4))
    assert copy.config.sharing == "none" and copy.model.count_params() > shared.model.count_params()
    outputs = shared.model(inputs_of(shared)), copy.model(inputs_of(copy))
    np.testing.assert_allclose(*outputs, atol=1e-6)


def test_shared_weights_start_as_the_mean_or_the_first():
    model = still(num_layers=4)
    before = model.weights()
    mean, first = (albert.share_layers(model, "ffn", 2, how).weights() for how in ("mean", "first"))
    second, third = (before[f"layer_{layer}_output/kernel"] for layer in (2, 3))
    np.testing.assert_allclose(mean["layer_2_output/kernel"], (second + third) / 2, atol=1e-6)
    np.testing.assert_array_equal(first["layer_2_output/kernel"], second)
    attention = "layer_3_query/kernel"  # attention is not shared
    np.testing.assert_array_equal(mean[attention], before[attention])
    assert "layer_3_output/kernel" not in mean


def test_a_shared_gradient_is_the_sum_over_its_uses():
    shared = albert.share_layers(still(num_layers=3), "all")
    copy, labels, gradients = shared.keep_layers(range(3)), tf.constant([0, 1, 2, 0]), []
    for model in (shared, copy):
        queries = [layer for layer in model.model.layers if layer.name.endswith("_query")]
        with tf.GradientTape() as tape:
            loss = task_loss("classification")(labels, model.model(inputs_of(model)))
        gradients.append(tape.gradient(loss, [layer.kernel for layer in queries]))
    assert [len(kernels) for kernels in gradients] == [1, 3]
    np.testing.assert_allclose(gradients[0][0], sum(gradients[1]), atol=1e-6)
    assert not np.allclose(gradients[1][0], gradients[1][2], atol=1e-6)  # the uses do differ


@pytest.mark.parametrize("sharing, groups, form", [("all", 1, "int8"), ("ffn", 2, "float32")])
def test_the_file_stores_shared_weights_once(tmp_path, sharing, groups, form):
    wide = {"hidden_size": 64, "intermediate_size": 256, "initializer_range": 0.05}
    models = [tiny.model(num_layers=n, sharing=sharing, num_groups=groups, **wide) for n in (2, 4)]
    small, large = (
        export(m, tmp_path / str(k), (form,), sequence_length=12)[0] for k, m in enumerate(models)
    )
    own = models[1].model.count_params() - models[0].model.count_params()  # what is not shared
    alone = models[1].config.replace(num_layers=2, sharing="none", num_groups=1)
    width = {"int8": 1, "float32": 4}[form]
    grown = large["bytes"] - small["bytes"] - own * width
    # Two more layers of graph, and 0.6 of the weights of a layer at most.
    assert 0 < grown < 0.15 * (encoder_parameters(alone) - own) * width


def test_weighted_factors_keep_the_pieces_of_the_data():
    model, name = tiny.model(), "word_embeddings/embeddings"
    seen, lost = data().piece_counts(model.tokenizer) > 0, {}
    for how in ("none", "counts"):
        small = albert.compress(model, data(), embedding_size=4, row_weights=how)
        weights = small.weights()
        near = weights[name] @ weights["embedding_projection/kernel"]
        lost[how] = ((near - model.weights()[name]) ** 2)[seen].sum()
        assert 0 < small.history[-1]["table_error"] < 1
    assert lost["counts"] < 0.9 * lost["none"]


BELONGS = "`embedding_size` or `sharing` must be given; .*Received: "
NARROW = "The embedding matrix must be as wide as the layers, .*Received: width "


@pytest.mark.parametrize(
    "changes, settings, message",
    [
        ({}, {}, BELONGS + "None, none, counts, 1 and mean"),
        ({}, {"embedding_size": 4, "num_groups": 2}, BELONGS),
        ({}, {"sharing": "all", "row_weights": "none"}, BELONGS),
        ({}, {"embedding_size": 8}, "`embedding_size` must be below the hidden size, 8.*: 8"),
        ({"embedding_size": 4}, {"embedding_size": 2}, NARROW + "4 in layers of 8"),
        ({"embedding_norm": "embedding"}, {"embedding_size": 2}, NARROW + "8"),
        ({"sharing": "all"}, {"sharing": "ffn"}, "Layers can be shared .*Received: sharing all"),
        ({}, {"sharing": "all", "num_groups": 2}, "`num_groups` 2 of 2 layers"),
        ({}, {"sharing": "all", "num_groups": 3}, "`num_groups` must divide"),
    ],
)
def test_errors(changes, settings, message):
    with pytest.raises(ValueError, match=message):
        albert.compress(tiny.model(**changes), data(), training=TRAINING, **settings)
    with pytest.raises(ValueError, match="score no words. .*task mlm"):
        albert.factorize(masked_lm(), 4)
