import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.config import BertConfig
from keras_compress.bert.task_model import TaskModel
from keras_compress.distillation.distilbert import without_token_types
from keras_compress.factorization import albert
from keras_compress.measure.cost import encoder_parameters, flops, parameters
from keras_compress.quantization import q8bert
from keras_compress.training.distill import start_student
from keras_compress.training.loop import task_loss
from mobile_export.convert import export
from tests.bert import tiny
from tests.distillation.test_distilbert import masked_lm as mlm_model
from tests.quantization.test_q8bert import WIDE
from tests.replacement.test_theseus import data, inputs_of
from tests.training.test_distill import TRAINING, still

PAPER = {"vocab_size": 30000, "embedding_norm": "embedding"}
STATIC = {"bits": 8, "activations": "static", "decay": 0.9, "start_step": 0}


@pytest.mark.parametrize(
    "hidden, layers, heads, inner, count, millions, paper",
    [
        (768, 12, 12, 3072, 11_683_584, 12, 12),
        (1024, 24, 16, 4096, 17_683_968, 18, 18),
        (2048, 24, 16, 8192, 58_724_864, 59, 60),
        (4096, 12, 64, 16384, 222_595_584, 223, 235),
    ],
)  # xxlarge differs
def test_parameters_of_the_released_sizes(hidden, layers, heads, inner, count, millions, paper):
    assert round(count / 1e6) == millions and abs(millions - paper) <= 0.06 * paper
    assert (
        parameters(
            BertConfig(
                **PAPER,
                hidden_size=hidden,
                num_layers=layers,
                num_heads=heads,
                intermediate_size=inner,
                embedding_size=128,
                sharing="all",
            )
        )
        == count
    )


@pytest.mark.parametrize(
    "size, sharing, count, millions",
    [
        (64, "all", 9_681_408, 9.7),
        (64, "none", 87_648_000, 87.6),
        (128, "all", 11_683_584, 11.7),
        (128, "attention", 63_647_232, 63.6),
        (128, "ffn", 37_686_528, 37.7),
        (128, "none", 89_650_176, 89.7),
        (256, "all", 15_687_936, 15.7),
        (256, "none", 93_654_528, 93.7),
        (768, "all", 31_114_752, 31.1),
        (768, "attention", 83_078_400, 83.1),
        (768, "ffn", 57_117_696, 57.1),
        (768, "none", 109_081_344, 109.1),
    ],
)
def test_parameters_of_four_widths_and_sharing_modes(size, sharing, count, millions):
    assert parameters(BertConfig(**PAPER, embedding_size=size, sharing=sharing)) == count
    assert round(count / 1e6, 1) == millions


def test_nothing_shared_and_nothing_narrow_is_a_bert():
    same = [
        BertConfig(**PAPER, **changes)
        for changes in ({}, {"embedding_size": 768}, {"adapter": "mlp"})
    ]
    assert {parameters(config) for config in same} == {109_081_344}
    model = tiny.model(embedding_size=8, embedding_norm="embedding")
    assert {*model.weights()} == {*tiny.model().weights()}


def test_sharing_all_leaves_one_layer_whatever_the_depth():
    shallow, deep = ({*tiny.model(num_layers=layers, sharing="all").weights()} for layers in (1, 5))
    assert shallow == deep == {*tiny.model(num_layers=1).weights()}


def test_all_uses_are_equal_after_training_too():
    model = tiny.model(num_layers=4)
    start = albert.share_layers(model, "all").weights()
    small = albert.compress(model, data(), training=TRAINING, sharing="all", recover="finetune")
    assert sum("query/kernel" in weight.name for weight in small.model.trainable_weights) == 1
    assert not np.array_equal(
        small.weights()["layer_0_query/kernel"], start["layer_0_query/kernel"]
    )
    copy = small.keep_layers(range(4))  # four layers with weights of their own
    np.testing.assert_allclose(
        small.model(inputs_of(small)), copy.model(inputs_of(copy)), atol=1e-6
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"embedding_size": 4},
        {"embedding_size": 4, "embedding_norm": "embedding"},
        {"sharing": "all"},
        {"sharing": "attention"},
        {"sharing": "ffn", "num_groups": 2},
        {"embedding_size": 8},
    ],
)
def test_a_model_has_as_many_parameters_as_the_formula_says(changes):
    model = tiny.model(num_layers=4, **changes)
    assert model.model.count_params() == parameters(model.config, num_labels=3)


def test_sharing_saves_bytes_and_no_time():
    deep, deeper = (BertConfig(num_layers=n, sharing="all") for n in (4, 8))
    assert (
        encoder_parameters(deep)
        == encoder_parameters(deeper)
        == encoder_parameters(BertConfig(num_layers=1))
    )
    pooler = 2 * 768 * 768
    assert flops(deeper, 64) - pooler == 2 * (flops(deep, 64) - pooler)
    assert flops(deep, 64) == flops(BertConfig(num_layers=4), 64)


def test_groups():
    config = BertConfig(num_layers=12, sharing="all", num_groups=4)
    assert [config.owner(layer, "ffn") for layer in range(12)] == [
        0,
        0,
        0,
        3,
        3,
        3,
        6,
        6,
        6,
        9,
        9,
        9,
    ]
    assert [config.replace(sharing="attention").owner(layer, "ffn") for layer in range(3)] == [
        0,
        1,
        2,
    ]
    assert {config.replace(num_groups=1).owner(layer, "attention") for layer in range(12)} == {0}


def test_a_factorised_model_computes_with_the_nearest_table():
    model = still()
    small, _ = albert.factorize(model, 5)
    weights = small.weights()
    near = weights["word_embeddings/embeddings"] @ weights["embedding_projection/kernel"]
    wide = model.clone()
    wide.set_weights({"word_embeddings/embeddings": near}, only=["word_embeddings/embeddings"])
    np.testing.assert_allclose(
        small.model(inputs_of(small)), wide.model(inputs_of(wide)), atol=1e-5
    )


@pytest.mark.parametrize("sharing, groups", [("all", 1), ("attention", 1), ("ffn", 2), ("all", 2)])
def test_an_unshared_copy_computes_the_same(sharing, groups):
    shared = albert.share_layers(still(num_layers=4), sharing, groups)
    copy = shared.keep_layers(range(4))
    assert copy.config.sharing == "none" and copy.model.count_params() > shared.model.count_params()
    np.testing.assert_allclose(
        shared.model(inputs_of(shared)), copy.model(inputs_of(copy)), atol=1e-6
    )


def test_shared_weights_start_as_the_mean_or_the_first():
    model = still(num_layers=4)
    ours = model.weights()
    mean, first = (albert.share_layers(model, "ffn", 2, how).weights() for how in ("mean", "first"))
    np.testing.assert_allclose(
        mean["layer_2_output/kernel"],
        (ours["layer_2_output/kernel"] + ours["layer_3_output/kernel"]) / 2,
        atol=1e-6,
    )
    np.testing.assert_array_equal(first["layer_2_output/kernel"], ours["layer_2_output/kernel"])
    np.testing.assert_array_equal(
        mean["layer_3_query/kernel"], ours["layer_3_query/kernel"]
    )  # attention is not shared
    assert "layer_3_output/kernel" not in mean


def test_a_shared_gradient_is_the_sum_over_its_uses():
    shared = albert.share_layers(still(num_layers=3), "all")
    copy, labels, found = shared.keep_layers(range(3)), tf.constant([0, 1, 2, 0]), []
    for model in (shared, copy):
        with tf.GradientTape() as tape:
            loss = task_loss("classification")(labels, model.model(inputs_of(model)))
        found.append(
            tape.gradient(
                loss,
                [layer.kernel for layer in model.model.layers if layer.name.endswith("_query")],
            )
        )
    assert [len(gradients) for gradients in found] == [1, 3]
    np.testing.assert_allclose(found[0][0], sum(found[1]), atol=1e-6)
    assert not np.allclose(found[1][0], found[1][2], atol=1e-6)  # the uses do differ


def test_a_shared_student_stays_shared_and_a_cut_one_says_that_it_does_not(caplog):
    shared = albert.share_layers(tiny.model(num_layers=4), "all")
    assert start_student(tiny.model(num_layers=4), shared, [0, 1, 2, 3], 0).config == shared.config
    assert "weights of their own" not in caplog.text
    assert start_student(shared, None, [0, 2], 0).config.sharing == "none"
    assert "layers that shared weights have weights of their own now" in caplog.text


def test_save_load_features_and_masked_lm(tmp_path):
    model = TaskModel(
        tiny.config(embedding_size=4, embedding_norm="embedding", sharing="all", pooling="cls"),
        tiny.tokenizer(),
        "mlm",
        (),
        seed=1,
    )
    assert model.weights()["mlm_transform/kernel"].shape == (8, 4)
    model.save(tmp_path / "m")
    again = TaskModel.load(tmp_path / "m")
    np.testing.assert_array_equal(again.model(inputs_of(again)), model.model(inputs_of(model)))
    assert len(model.features(["hidden_states"]).output["hidden_states"]) == 3


@pytest.mark.parametrize(
    "sharing, groups, formats", [("all", 1, ("float32", "int8")), ("ffn", 2, ("float32",))]
)
def test_the_file_stores_shared_weights_once(tmp_path, sharing, groups, formats):
    sizes, parameters = {}, {}
    for layers in (2, 6):
        model = tiny.model(
            num_layers=layers,
            hidden_size=64,
            num_heads=2,
            intermediate_size=256,
            sharing=sharing,
            num_groups=groups,
            initializer_range=0.05,
        )
        parameters[layers] = model.model.count_params()
        sizes[layers] = export(model, tmp_path / str(layers), formats, sequence_length=12)
    unshared = encoder_parameters(model.config.replace(num_layers=4, sharing="none", num_groups=1))
    own = parameters[6] - parameters[2]  # of the four further layers, what is not shared
    for small, large, width in zip(sizes[2], sizes[6], (4, 1)):
        grown = large["bytes"] - small["bytes"] - own * width
        assert (
            0 < grown < 0.15 * (unshared - own) * width
        )  # four more layers of graph, 0.6 of the weights of one
        assert large["agreement"] == 1.0


@pytest.mark.parametrize("recover", ["distil", "finetune", "none"])
def test_compress(recover, tmp_path):
    model = tiny.model(num_layers=4)
    before = model.weights()
    small = albert.compress(
        model,
        data(),
        training=TRAINING,
        embedding_size=4,
        sharing="all",
        num_groups=2,
        recover=recover,
    )
    assert all(np.array_equal(before[name], value) for name, value in model.weights().items())
    assert small.model.count_params() < model.model.count_params()
    entry = next(step for step in small.history if step["method"] == "albert")
    assert 0 < entry["table_error"] < 1 and entry["recover"] == recover
    assert bool(small.curve) == (recover != "none") == ("training" in small.history[-1])
    small.save(tmp_path / "s")
    assert TaskModel.load(tmp_path / "s").config == small.config
    assert export(small, tmp_path, ("float32",), sequence_length=12)[0]["max_dlogit"] < 1e-4


def test_factors_are_linear_whatever_adapter_a_whole_table_names():
    small, _ = albert.factorize(tiny.model(adapter="mlp"), 4)
    assert small.config.adapter == "linear"


def test_weighted_factors_keep_the_pieces_of_the_data():
    model = tiny.model()
    seen = data().piece_counts(model.tokenizer) > 0
    tables = {}
    for row_weights in ("none", "counts"):
        small = albert.compress(
            model, data(), embedding_size=4, row_weights=row_weights, recover="none"
        )
        weights = small.weights()
        tables[row_weights] = (
            weights["word_embeddings/embeddings"] @ weights["embedding_projection/kernel"]
        )
        assert small.history[-1]["row_weights"] == row_weights
    lost = {
        how: ((found - model.weights()["word_embeddings/embeddings"]) ** 2)[seen].sum()
        for how, found in tables.items()
    }
    assert lost["counts"] < 0.9 * lost["none"]


def test_it_chains_with_fixed_ranges(tmp_path):
    model = tiny.model(**{**WIDE, "num_layers": 2, "hidden_size": 64})
    small = albert.compress(model, data(), recover="none", sharing="all", embedding_size=16)
    quantized = q8bert.compress(small, data(), training=TRAINING, start_step=0)
    (facts,) = export(quantized, tmp_path, ("int8",), sequence_length=12)
    assert (
        facts["agreement"] > 0.95 and facts["mean_dp"] < 0.02
    )  # 0.004 without sharing and narrow table


def test_it_chains_with_other_methods():
    from keras_compress.pruning import layers, vocabulary
    from keras_compress.replacement import theseus

    training = TRAINING.replace(epochs=1)
    small = albert.compress(
        tiny.model(num_layers=4), data(), embedding_size=4, sharing="ffn", recover="none"
    )
    assert vocabulary.compress(small, data()).config.table_size == 4
    assert without_token_types(small).config.type_vocab_size == 0
    cut = layers.compress(small, data(), training=training, num_layers=2)
    assert cut.config.num_layers == 2 and cut.config.table_size == 4
    assert theseus.compress(small, data(), training=training, num_layers=2).config.sharing == "none"


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: albert.compress(tiny.model(), data(), embedding_size=9),
            "`embedding_size` must be 1 to 7.*Received: 9",
        ),
        (
            lambda: albert.compress(tiny.model(), data(), embedding_size=8),
            "must be 1 to 7.*Received: 8",
        ),
        (
            lambda: albert.compress(tiny.model(), data(), embedding_size=4.5),
            "must be 1 to 7.*Received: 4.5",
        ),
        (
            lambda: albert.compress(tiny.model(), data(), embedding_size="big"),
            "must be 1 to 7.*Received: 'big'",
        ),
        (
            lambda: albert.compress(tiny.model(embedding_size=4), data(), embedding_size=2),
            "Only a BERT .*table of width 4",
        ),
        (
            lambda: albert.compress(
                tiny.model(embedding_norm="embedding"), data(), embedding_size=2
            ),
            "Only a BERT has",
        ),
        (lambda: albert.factorize(mlm_model(), 4), "Only a BERT .*task mlm"),
        (
            lambda: albert.compress(tiny.model(), data(), embedding_size=4, num_groups=2),
            "`num_groups` and `how` belong to",
        ),
        (
            lambda: albert.compress(tiny.model(architecture="bilstm"), data(), sharing="all"),
            "Received: a bilstm, sharing none",
        ),
        (
            lambda: albert.share_layers(tiny.model(num_layers=4), "all", 4),
            "below the number of layers.*4 and 4. Choose 1, 2",
        ),
        (
            lambda: albert.share_layers(tiny.model(num_layers=1), "all"),
            "1 and 1. One layer cannot share",
        ),
        (
            lambda: albert.share_layers(q8bert.quantized(tiny.model(), STATIC), "all"),
            "must be the last of a chain",
        ),
        (
            lambda: albert.factorize(q8bert.quantized(tiny.model(), STATIC), 4),
            "must be the last of a chain",
        ),
        (
            lambda: albert.share_layers(tiny.model(num_layers=4), "all", 2.0),
            "`num_groups` must .*2.0",
        ),
        (
            lambda: albert.compress(tiny.model(), data(), sharing="all", row_weights="none"),
            "`row_weights` belongs to",
        ),
        (
            lambda: albert.compress(tiny.model(), data(), embedding_size=4, row_weights="tf"),
            "`row_weights` must be one of",
        ),
        (
            lambda: albert.compress(tiny.model(), data(), sharing="heads"),
            "`sharing` must be one of all, attention, ffn",
        ),
        (
            lambda: albert.compress(tiny.model(), data(), sharing="all", recover="hope"),
            "`recover` must be one of",
        ),
        (
            lambda: albert.compress(tiny.model(), data()),
            "`embedding_size` or `sharing` must be given",
        ),
        (
            lambda: albert.share_layers(tiny.model(num_layers=4), "all", 3),
            "must divide.*3 and 4. Choose 1, 2, 4",
        ),
        (
            lambda: albert.share_layers(tiny.model(sharing="all"), "ffn"),
            "shares none yet.*Take a BERT",
        ),
        (lambda: tiny.config(embedding_size=9), "`embedding_size` must be 1 to 8"),
        (
            lambda: tiny.config(num_groups=3),
            "`num_groups` must divide the number of layers. Received: 3 and 2. Choose 1, 2",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
