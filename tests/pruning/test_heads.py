import numpy as np
import pytest

from keras_compress.bert.config import BertConfig
from keras_compress.bert.task_model import TaskModel
from keras_compress.distillation.tinybert import thin_student
from keras_compress.factorization import albert
from keras_compress.measure import cost
from keras_compress.pruning import heads
from keras_compress.training.finetune import task_loss
from mobile_export.convert import export
from tests.bert import tiny
from tests.support import TRAINING, data, inputs_of, shared_still, still

TEXTS, LABELS = data().train.texts[:5], np.array(data().train.labels[:5])
STILL = TRAINING.replace(evaluations=0)


def gated(model, layer, part, units, xi):
    """The model with a gate xi on heads or neurons: the rows of the output kernel that read them, times xi."""
    weights, size = model.weights(), model.config.head_size if part == "heads" else 1
    name = f"layer_{layer}_{heads.PARTS[part][1]}/kernel"
    gates = np.ones(heads.sizes_of(model.config)[part][layer], np.float32)
    gates[[*units]] = xi
    weights[name] = weights[name] * np.repeat(gates, size)[:, None]
    return model.rebuilt(model.config, weights)


def losses(model):
    logits = np.float64(model.model(inputs_of(model, TEXTS), training=False))
    return np.array(
        [task_loss(model.task)(*pair) for pair in zip(LABELS[:, None], logits[:, None])]
    )


@pytest.mark.parametrize("part, unit", [("heads", 0), ("heads", 1), ("neurons", 3)])
def test_importance_is_the_mean_of_finite_differences_of_each_text(part, unit):
    model, e = shared_still(), 1e-2
    found = heads.importance(model, [(inputs_of(model, TEXTS), LABELS)])
    for layer in (0, 1):
        more, less = (losses(gated(model, layer, part, [unit], 1 + x)) for x in (e, -e))
        slopes = (more - less) / (2 * e)
        assert {*np.sign(slopes)} == {-1, 1}  # or the absolute value would not be seen
        assert found[part][layer][unit] == pytest.approx(np.mean(np.abs(slopes)), rel=0.02)


def test_importance_knows_no_batches_and_no_padding():
    model, found = shared_still(), []
    inputs = inputs_of(model, TEXTS)
    whole = [(inputs, LABELS)]
    single = [({k: v[i : i + 1] for k, v in inputs.items()}, LABELS[i : i + 1]) for i in range(5)]
    for batches in (whole, single, [(inputs_of(model, TEXTS, 16), LABELS)]):
        for unit in ("example", "token"):
            found.append(heads.importance(model, batches, unit))
    for k, each in enumerate(found):
        for part in heads.PARTS:
            np.testing.assert_allclose(each[part], found[k % 2][part], rtol=1e-4, atol=1e-7)
    # |sum over tokens| <= sum over tokens of |.|, and in a layer whose output [CLS] alone reads the same
    (first, last), (first_token, last_token) = (each["heads"] for each in found[:2])
    assert np.all(first < first_token) and not np.allclose(first, first_token, rtol=0.05)
    np.testing.assert_allclose(last, last_token, rtol=1e-4)


def test_importance_of_a_tagger_knows_no_batches():
    model, texts = shared_still("tagging"), ["the cat sat on the mat", "a", "the cat"]
    inputs = inputs_of(model, texts)
    labels = np.full(inputs["input_mask"].shape, -1, np.int32)
    for row, text in zip(labels, texts):
        row[1 : 1 + len(text.split())] = 1
    single = [({k: v[i : i + 1] for k, v in inputs.items()}, labels[i : i + 1]) for i in range(3)]
    whole, parts = (heads.importance(model, each) for each in ([(inputs, labels)], single))
    for part in heads.PARTS:
        np.testing.assert_allclose(whole[part], parts[part], rtol=1e-4, atol=1e-7)


def test_choose_by_hand():
    # divided by their norms, 5 and 10: .6 .8 and .6 0 .8; .8 stays in both
    scores = [np.array([3.0, 4.0]), np.array([6.0, 0.0, 8.0])]

    def kept(number, **how):
        return [units.tolist() for units in heads.choose(scores, number, **how)]

    assert kept(0) == [[0, 1], [0, 1, 2]] and kept(1) == [[0, 1], [0, 2]]
    assert kept(3) == [[1], [2]]
    scores[0] = np.array([0.0, 0.1])  # a zero in each layer
    assert kept(2) == [[1], [0, 2]]
    scores = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([9.0, 8.0, 7.0, 6.0])]
    assert kept(4, even=True) == [[2, 3], [0, 1]]


@pytest.mark.parametrize(
    "part, kept, task",
    [
        ("heads", [[1], [0, 1]], "tagging"),
        ("neurons", [[0, 5], [*range(11)]], "classification"),
    ],
)
def test_what_is_cut_answers_as_what_is_masked_when_loaded_and_exported(part, kept, task, tmp_path):
    model = shared_still(task)
    masked, small = model, heads.cut(model, part, kept)
    for layer, units in enumerate(kept):
        others = {*range(heads.sizes_of(model.config)[part][layer])} - {*units}
        masked = gated(masked, layer, part, others, 0.0)
    inputs = inputs_of(model)
    real = inputs["input_mask"].numpy() > 0 if task == "tagging" else slice(None)
    answers = [each.model(inputs).numpy()[real] for each in (masked, small)]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)
    assert heads.sizes_of(small.config)[part] == [len(units) for units in kept]
    assert small.model.count_params() == cost.parameters(small.config, 3, task)
    small.save(tmp_path / "small")
    loaded = TaskModel.load(tmp_path / "small")
    assert loaded.config == small.config
    np.testing.assert_array_equal(loaded.model(inputs), small.model(inputs))
    (facts,) = export(small, tmp_path, ("float32",), sequence_length=12)
    assert facts["max_dlogit"] < 1e-4


def test_what_a_head_and_a_neuron_of_bert_base_cost():
    whole = BertConfig()
    fewer = whole.replace(heads_per_layer=[11, *[12] * 11])
    # 64 columns of q, k, v with their biases, 64 rows of o: 4 * 768 * 64 + 3 * 64 = 196,800
    assert cost.encoder_parameters(whole) - cost.encoder_parameters(fewer) == 196_800
    # 8 n h 64 + 4 n^2 64 at 128 tokens: 50,331,648 + 4,194,304
    assert cost.flops(whole, 128) - cost.flops(fewer, 128) == 54_525_952
    fewer = whole.replace(ffn_per_layer=[3071, *[3072] * 11])
    assert cost.encoder_parameters(whole) - cost.encoder_parameters(fewer) == 2 * 768 + 1
    assert cost.flops(whole, 128) - cost.flops(fewer, 128) == 4 * 128 * 768


@pytest.mark.parametrize("steps", [1, 3])
def test_shares_go_in_steps_and_importance_is_computed_anew(steps, monkeypatch):
    seen, compute = [], heads.importance
    monkeypatch.setattr(heads, "importance", lambda m, *a: seen.append(m.config) or compute(m, *a))
    model = still(num_heads=4)
    settings = {"heads": 0.5, "neurons": 0.25, "steps": steps, "tune_after": False}
    small = heads.compress(model, data(), training=TRAINING, **settings)
    assert [sum(config.heads) for config in seen] == [8, 7, 6][:steps]
    assert [sum(config.ffn_sizes) for config in seen] == [24, 22, 20][:steps]
    assert (sum(small.config.heads), sum(small.config.ffn_sizes)) == (4, 18)
    entry = small.history[-1]
    assert [row["step"] for row in small.curve] == [*range(1, steps + 1)]
    weights, before = small.weights(), model.weights()
    for layer, kept in enumerate(entry["kept_heads"]):
        columns = [2 * head + k for head in kept for k in (0, 1)]
        whole = before[f"layer_{layer}_query/kernel"][:, columns]
        np.testing.assert_array_equal(weights[f"layer_{layer}_query/kernel"], whole)
        assert len(entry["importance"][layer]) == 4
    assert entry["kept_neurons"] == small.config.ffn_sizes
    if steps == 1:
        lowest = heads.choose(entry["importance"] and [*map(np.array, entry["importance"])], 4)
        assert [units.tolist() for units in lowest] == entry["kept_heads"]


def test_nothing_cut_changes_nothing_and_what_is_left_is_trained():
    model = still()
    settings = {"training": STILL, "steps": 1}
    same = heads.compress(model, data(), heads=0.0, tune_after=False, **settings)
    np.testing.assert_equal(same.weights(), model.weights())
    assert same.config == model.config
    tuned = heads.compress(model, data(), heads=0.25, **settings)
    small = heads.cut(model, "heads", tuned.history[-1]["kept_heads"])
    assert tuned.config == small.config and tuned.curve
    for name, new in tuned.weights().items():
        assert np.any(new != small.weights()[name]) or name.endswith("key/bias"), name


def test_other_methods_take_what_is_left():
    small = heads.cut(heads.cut(still(), "heads", [[1], [0, 1]]), "neurons", [[0, 5], [1]])
    last = small.keep_layers([1])
    assert (last.config.heads_per_layer, last.config.ffn_per_layer) == ([2], [1])
    thin = thin_student(small, 1, hidden_size=4)
    assert (thin.config.heads, thin.config.ffn_sizes) == ([2], [12])
    with pytest.raises(ValueError, match=r"share weights must have no `heads_per_layer`.*\[1, 2\]"):
        albert.share_layers(small, "all")
    shared = albert.share_layers(still(), "all")
    cut = heads.compress(shared, data(), training=STILL, heads=0.25, steps=1, tune_after=False)
    assert cut.config.sharing == "none" and sum(cut.config.heads) == 3


def test_errors():
    with pytest.raises(
        ValueError, match=r"one of its heads. Received: none for layers \[1\]. Keep"
    ):
        heads.cut(tiny.shared(), "heads", [[0], []])
    with pytest.raises(
        ValueError, match="one in each layer. Received: 0.8, 3 of 4. Lower it to 0.5"
    ):
        heads.compress(tiny.shared(), data(), training=TRAINING, heads=0.8)
    with pytest.raises(
        ValueError, match="`heads_per_layer` must be none, or one number from 1 to 12"
    ):
        BertConfig(num_layers=2, heads_per_layer=[1, 13])
    with pytest.raises(ValueError, match=r"each of the 2 layers. Received: \[7\]. Start from"):
        BertConfig(num_layers=2, ffn_per_layer=[7])
