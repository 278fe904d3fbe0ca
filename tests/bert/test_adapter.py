import numpy as np
import pytest

from keras_compress.backend import keras, tf
from keras_compress.bert.adapter import GroupLinear, GroupMix
from keras_compress.bert.config import HGT_GROUPS, BertConfig
from keras_compress.bert.task_model import TaskModel
from keras_compress.measure.cost import flops, parameters
from mobile_export.convert import export
from tests.bert import tiny
from tests.replacement.test_theseus import inputs_of


def adapted(adapter, **changes):
    return tiny.model(hidden_size=16, embedding_size=8, adapter=adapter, **changes)


def test_one_group_is_a_dense_layer():
    x = tf.random.stateless_normal((2, 3, 6), (1, 2))
    layer, dense = GroupLinear(4, 1), keras.layers.Dense(4)
    layer.build(x.shape)
    dense.build(x.shape)
    layer.bias.assign([1.0, 2.0, 3.0, 4.0])
    dense.set_weights([layer.kernel[0].numpy(), layer.bias.numpy()])
    np.testing.assert_allclose(layer(x), dense(x), atol=1e-6)


def test_group_linear_by_hand_and_its_parameters():
    layer = GroupLinear(4, 2)
    layer.build((None, 6))
    assert layer.count_params() == 6 * 4 // 2 + 4
    layer.kernel.assign([[[1, 0], [0, 1], [0, 1]], [[2, 0], [0, 0], [0, 1]]])
    # first part 1 2 3 -> 1, 2 + 3; second part 4 5 6 -> 2 * 4, 6
    np.testing.assert_allclose(layer(tf.constant([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])), [[1, 5, 8, 6]])
    again = GroupLinear.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_a_group_reads_no_other_group_s_inputs():
    layer, x = GroupLinear(6, 3), tf.ones((1, 6))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    blocks = (
        tape.jacobian(y, x).numpy()[0, :, 0].reshape(3, 2, 3, 2)
    )  # group out, out, group in, in
    for out in range(3):
        for into in range(3):
            assert blocks[out, :, into].any() == (out == into)


def test_mix_by_hand():
    np.testing.assert_array_equal(
        GroupMix(2)(tf.constant([[1, 2, 3, 4]]), tf.constant([[5, 6]])), [[1, 2, 5, 3, 4, 6]]
    )


def test_groups_and_widths():
    assert HGT_GROUPS == (8, 4, 2, 1) == tuple(max(8 // 2**layer, 1) for layer in range(4))
    config = BertConfig(hidden_size=384, num_heads=12, embedding_size=128, adapter="hgt")
    # 128 * (1 + l / 3): 170.7, 213.3, 256, each rounded up to a multiple of 8; each layer reads the 128 once more
    assert config.adapter_shapes == [(128, 176, 8), (304, 216, 4), (344, 256, 2), (384, 384, 1)]
    assert config.replace(adapter="mlp").adapter_shapes == [(128, 256, 1), (256, 384, 1)]
    assert config.replace(adapter="linear").adapter_shapes == [(128, 384, 1)]
    assert config.replace(embedding_size=None).adapter_shapes == []


def test_parameters_of_the_specification():
    config = BertConfig(vocab_size=21128, embedding_size=128)
    wide = config.replace(embedding_size=None)
    table = parameters(config) - parameters(wide) + 21128 * 768
    assert table == 21128 * 128 + 128 * 768 + 768 == 2_803_456  # instead of 16.2 million


@pytest.mark.parametrize("adapter", ["linear", "mlp", "hgt"])
def test_a_model_has_as_many_parameters_as_the_formula_says(adapter):
    model = adapted(adapter)
    assert model.model.count_params() == parameters(model.config, num_labels=3)
    assert flops(model.config, 4) - flops(
        model.config.replace(embedding_size=None), 4
    ) == 2 * 4 * sum(
        int(np.prod(v.shape))
        for layer in model.model.layers
        if layer.name.startswith("embedding_")
        for v in layer.trainable_weights
        if "kernel" in v.name
    )


def test_save_load_and_export(tmp_path):
    model = adapted("hgt", num_layers=1)
    model.save(tmp_path / "m")
    again = TaskModel.load(tmp_path / "m")
    np.testing.assert_array_equal(again.model(inputs_of(again)), model.model(inputs_of(model)))
    assert export(model, tmp_path, ("float32",), sequence_length=12)[0]["max_dlogit"] < 1e-4
