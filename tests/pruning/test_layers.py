import numpy as np
import pytest

from keras_compress.bert.checkpoints import load
from keras_compress.bert.task_model import TaskModel
from keras_compress.pruning.layers import compress, select_layers
from keras_compress.training.loop import Training
from mobile_export.convert import export
from mobile_export.litert import Runner
from tests.bert import tiny
from tests.replacement.test_theseus import data

TRAINING = Training(
    epochs=1, batch_size=12, max_length=16, learning_rate=1e-2, warmup=0.0, evaluations=1
)


@pytest.fixture
def untrained(monkeypatch):
    """Leaves out the fine-tuning, so that every weight must still be the source's."""
    monkeypatch.setattr("keras_compress.pruning.layers.finetune", lambda model, dataset, **_: model)


@pytest.mark.parametrize(
    "num_layers, keep, how, kept",
    [
        (6, 3, "bottom", [0, 1, 2]),
        (6, 3, "top", [3, 4, 5]),
        (6, 3, "alternate", [0, 2, 4]),
        (6, 6, "top", [0, 1, 2, 3, 4, 5]),
        (12, 6, "alternate", [0, 2, 4, 6, 8, 10]),
        (12, 4, "alternate", [0, 3, 6, 9]),
        (6, 4, "alternate", [0, 1, 3, 4]),
        (6, 1, "alternate", [0]),
        (12, 6, "top", [6, 7, 8, 9, 10, 11]),
        (6, 1, "bottom", [0]),
        (6, 3, [0, 2, 5], [0, 2, 5]),
    ],
)
def test_select_layers(num_layers, keep, how, kept):
    assert select_layers(num_layers, keep, how) == kept


@pytest.mark.parametrize(
    "keep, how, message",
    [
        (7, "bottom", "`num_layers` must be 1 to 6, the model's own. Received: 7"),
        (0, "top", "Received: 0"),
        (3, "middle", "The layers kept must be bottom, .* or a list.*'middle'"),
        (3, 5, "The layers kept must be .*Received: 5"),
        (3, [0, 1], "must be 3 different ones among 0 to 5, rising. Received: \\[0, 1\\]"),
        (2, [1, 0], "rising"),
        (2, [1, 1], "different"),
        (2, [0, 6], "among 0 to 5"),
        (2, [-1, 0], "among 0 to 5"),
    ],
)
def test_errors(keep, how, message):
    with pytest.raises(ValueError, match=message):
        select_layers(6, keep, how)


@pytest.fixture(scope="module")
def large():
    model = tiny.model(num_layers=3, dropout=0.0, attention_dropout=0.0)
    model.history = [{"method": "load"}]
    return model


def test_layers_come_from_the_right_place(large, untrained):
    before = large.weights()
    small = compress(large, data(), seed=3, num_layers=2, how=[0, 2])
    assert small.config == large.config.replace(num_layers=2)
    after = small.weights()
    assert {name for name in before if not name.startswith("layer_2")} == set(after)
    for name, array in after.items():
        source = name.replace("layer_1_", "layer_2_")
        np.testing.assert_array_equal(array, before[source], err_msg=name)
    assert small.history == [
        {"method": "load"},
        {"method": "layers", "seed": 3, "num_layers": 2, "how": [0, 2], "kept": [0, 2]},
    ]


def test_all_weights_train_and_the_input_stays(large):
    before = large.weights()
    small = compress(large, data(), seed=1, training=TRAINING, num_layers=1)
    np.testing.assert_equal(large.weights(), before)
    assert [step["method"] for step in small.history] == ["load", "layers", "finetune"]
    assert large.history == [{"method": "load"}] and large.curve == []
    for name, array in small.weights().items():
        if not name.endswith("key/bias"):  # softmax takes the same shift of all keys out again
            assert np.abs(array - before[name]).max() > 1e-4, name
    assert len(small.curve) == 1 and 0 <= small.curve[0]["dev"] <= 1


def test_keeping_all_layers_changes_nothing(large, untrained):
    for how in ("bottom", "top", "alternate"):
        np.testing.assert_equal(
            compress(large, data(), num_layers=3, how=how).weights(), large.weights()
        )


def test_dropped_layers_act_as_identity(large):
    """A large model whose last layers pass on what they get gives what the truncated one gives."""
    weights = large.weights()
    silent = large.clone()
    for layer in (
        1,
        2,
    ):  # norm(x + 0) of an x that a norm with gamma 1 and beta 0 gave is x, up to epsilon
        for part in ("attention_output", "output"):
            for name in ("kernel", "bias"):
                weights[f"layer_{layer}_{part}/{name}"] = np.zeros_like(
                    weights[f"layer_{layer}_{part}/{name}"]
                )
    silent.set_weights(weights)
    np.testing.assert_allclose(
        silent.predict(tiny.TEXTS), large.keep_layers([0]).predict(tiny.TEXTS), atol=1e-4
    )


def test_plain_from_pretrained_weights_and_truncated_from_fine_tuned(untrained, tmp_path):
    """The two baselines differ in where head and layers come from, in nothing else."""
    tiny.model(num_layers=3).save(tmp_path / "bert")
    ours = TaskModel.load(tmp_path / "bert")
    pretrained = load(
        tmp_path / "bert", task="classification", labels=ours.labels, new_head=True, seed=5
    )
    plain, truncated = (
        compress(source, data(), num_layers=2).weights() for source in (pretrained, ours)
    )
    assert plain.keys() == truncated.keys()
    for name in plain:
        same = np.array_equal(plain[name], truncated[name])
        assert same == (not name.startswith("classifier/kernel")), name
    assert "classifier/kernel" in pretrained.history[0]["new"]


@pytest.mark.parametrize("task", ["tagging", "matching"])
def test_other_tasks_and_files(task, untrained, tmp_path):
    small = compress(tiny.model(task), data(task), num_layers=1, how="top")
    small.save(tmp_path / "small")
    again = TaskModel.load(tmp_path / "small")
    np.testing.assert_equal(again.weights(), small.weights())
    assert (again.history, again.task, again.config) == (small.history, task, small.config)
    path = export(again, tmp_path / "small.tflite", ("float32",), sequence_length=16)[0]["path"]
    encode = small.tokenizer.encode_words if task == "tagging" else small.tokenizer.encode
    texts = data(task).dev.texts
    encodings = encode(texts, 16)
    for found, logits in zip(
        Runner(path).forward(encodings), small.forward(encodings)
    ):  # by signature name
        expected = np.exp(logits - logits.max(-1, keepdims=True))
        expected = expected / expected.sum(-1, keepdims=True)
        np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5)
