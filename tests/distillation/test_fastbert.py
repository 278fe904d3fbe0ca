import logging

import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert import early_exit, layers
from keras_compress.bert.branch import WIDTH
from keras_compress.bert.checkpoints import with_head
from keras_compress.bert.config import BertConfig
from keras_compress.bert.early_exit import uncertainty
from keras_compress.bert.task_model import TaskModel
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.distillation import fastbert
from keras_compress.distillation.fastbert import all_logits, choose_speed, divergence, sweep
from keras_compress.measure.accuracy import evaluate
from keras_compress.measure.cost import flops, parameters
from keras_compress.method import method
from mobile_export.convert import export
from tests.bert import tiny
from tests.support import (
    CLASSES,
    LENGTHS,
    TRAINING,
    data,
    foreign,
    inputs_of,
    lengths,
    shared_still,
    stages_of,
    still,
    unlabelled,
    values_of,
)


def with_exits(exits=(1, 2, 3), **changes):
    """A tiny model of four layers; its exits are random, so texts are sure at different layers."""
    return still(num_layers=4, exits=[*exits], **changes)


@pytest.fixture(scope="module")
def model():
    return with_exits()


def test_uncertainty_by_hand():
    # one-hot: 0, also where p is 0 to the last bit; uniform: 1 for any number of classes
    np.testing.assert_array_equal(uncertainty(tf.constant([[0.0, 1e4], [200.0, 0.0]])), 0.0)
    for classes in (2, 3, 119):
        found = uncertainty(tf.zeros((1, classes))).numpy()
        assert found <= 1.0 and found == pytest.approx(1.0, abs=1e-6)
    # -(.75 ln .75 + .25 ln .25) / ln 2 = .5623 / .6931 = .8113
    logits = tf.math.log([[0.75, 0.25]])
    np.testing.assert_allclose(uncertainty(logits), [0.8113], atol=1e-4)


def test_losses_by_hand(monkeypatch):
    T = {"logits": tf.math.log([[0.75, 0.25]])}
    S = {f"exit_logits/{place}": tf.math.log([[0.5, 0.5]]) for place in (0, 1, 2)}
    start = shared_still(num_layers=4), unlabelled()
    values = {}
    for direction in ("teacher-student", "student-teacher"):
        settings = {"direction": direction, "training": TRAINING}
        (stage,) = stages_of(fastbert, monkeypatch, *start, **settings)
        values[direction] = values_of(
            stage["losses"], T, S, tf.constant([-1])
        )  # labels do not count
        assert [weight for weight, _ in stage["losses"].values()] == [1.0] * 3
        equal = values_of(stage["losses"], T, dict.fromkeys(S, T["logits"]), tf.constant([0]))
        np.testing.assert_allclose([*equal.values()], 0.0, atol=1e-6)
    # .75 ln(.75/.5) + .25 ln(.25/.5) = .3041 - .1733 = .1308; .5 ln(.5/.75) + .5 ln(.5/.25) = -.2027 + .3466 = .1438
    assert values["teacher-student"].keys() == {"exit_1", "exit_2", "exit_3"}
    np.testing.assert_allclose([*values["teacher-student"].values()], 0.1308, atol=1e-4)
    np.testing.assert_allclose([*values["student-teacher"].values()], 0.1438, atol=1e-4)
    with tf.GradientTape() as tape:
        tape.watch(S["exit_logits/0"])
        value = divergence(S["exit_logits/0"], T["logits"])
    assert np.any(tape.gradient(value, S["exit_logits/0"]))


def test_a_branch_by_hand(model):
    inputs, weights = inputs_of(model), model.weights()
    outputs = model.features(["hidden_states", "exit_logits"])(inputs)
    dense = lambda name, x: x @ weights[f"exit_2{name}/kernel"] + weights[f"exit_2{name}/bias"]
    for row, mask in enumerate(inputs["input_mask"].numpy().astype(bool)):
        h = outputs["hidden_states"][2][row].numpy()[mask]  # padding counts nowhere
        x = np.tanh(dense("_narrow", h))
        query, key, value = (dense(f"_{name}", x) for name in ("query", "key", "value"))
        heads = []
        for part in (slice(0, 64), slice(64, 128)):
            scores = query[:, part] @ key[:, part].T / 8.0
            probs = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(probs / probs.sum(-1, keepdims=True) @ value[:, part])
        first = dense("_attention_output", np.concatenate(heads, axis=-1))[0]
        expected = dense("", np.tanh(dense("_pooler", first)))
        np.testing.assert_allclose(outputs["exit_logits"][1][row], expected, rtol=1e-3, atol=1e-3)


@pytest.fixture
def counters(monkeypatch):
    """How often a layer ran, and on how many texts: counted inside of its attention, while it computes."""
    calls, rows = tf.Variable(0), tf.Variable(0)
    original = layers.AttentionScores.call

    def call(self, query, key):
        if query.shape[-1] != WIDTH:  # no branch
            calls.assign_add(1)
            rows.assign_add(tf.shape(query)[0])
        return original(self, query, key)

    monkeypatch.setattr(layers.AttentionScores, "call", call)
    return calls, rows


@pytest.mark.parametrize("exits", [(1, 2, 3), (2,)])
@pytest.mark.parametrize("skipping", ["segments", "graph"])
def test_layers_are_really_skipped(skipping, exits, counters):
    model, seen = with_exits(exits), set()
    for speed in (0.0, 0.2, 0.5, 0.8, 1.0):
        for counter in counters:
            counter.assign(0)
        _, left_at = model.predict(LENGTHS, speed=speed, skipping=skipping)
        calls, rows = (int(counter) for counter in counters)
        if skipping == "segments":
            assert rows == sum(left_at)
        assert calls == max(left_at) and calls <= rows
        seen |= {*left_at.tolist()}
    assert seen == {*exits, 4}


@pytest.mark.parametrize("skipping", early_exit.SKIPPING)
def test_each_text_gets_the_answer_of_its_layer_in_any_order(model, skipping):
    logits, order = all_logits(model, LENGTHS, 16), np.random.default_rng(0).permutation(8)
    full = model.predict(LENGTHS)
    for speed in (0.0, 0.2, 0.5, 0.8, 1.0):
        answers, left_at = model.predict(LENGTHS, speed=speed, skipping=skipping)
        sure = np.c_[uncertainty(logits[:, :3]) <= speed, np.ones(8, bool)]
        np.testing.assert_array_equal(left_at, 1 + sure.argmax(axis=1))
        expected = tf.nn.softmax(logits[np.arange(8), left_at - 1])
        np.testing.assert_allclose(answers, expected, atol=1e-5)
        shuffled = [LENGTHS[k] for k in order]
        for batch_size in (1, 3):
            again, at = model.predict(shuffled, batch_size, speed=speed, skipping=skipping)
            np.testing.assert_allclose(again, answers[order], atol=1e-5)
            np.testing.assert_array_equal(at, left_at[order])
    assert {*left_at} == {1}  # speed 1: all leave at once
    answers, left_at = model.predict(LENGTHS, speed=0.0, skipping=skipping)
    np.testing.assert_allclose(answers[left_at == 4], full[left_at == 4], atol=1e-5)
    assert 4 in left_at and model.predict([], speed=0.5)[0].shape == (0, 3)


def test_only_exits_learn_and_text_needs_no_labels(monkeypatch):
    start = tiny.model(num_layers=3)
    before, dev = start.weights(), data().dev.texts
    (stage,) = stages_of(fastbert, monkeypatch, start, unlabelled())
    rates = {layer.rate for layer in stage["student"].model.layers if hasattr(layer, "rate")}
    assert start.config.dropout == 0.1 and rates == {0.0}  # the backbone is in inference mode
    small = fastbert.compress(start, unlabelled(), training=TRAINING)
    after, new = small.weights(), {"exit_1", "exit_2"}
    for name, weight in before.items():
        np.testing.assert_array_equal(after[name], weight, err_msg=name)
    assert {name[:6] for name in after.keys() - before.keys()} == new
    assert small.config == start.config.replace(exits=[1, 2])
    untrained = start.rebuilt(small.config, before, only=before).weights()
    kernels = [name for name in after if name[:6] in new and name.endswith("kernel")]
    assert all(np.any(after[name] != untrained[name]) for name in kernels) and len(kernels) == 14
    np.testing.assert_array_equal(small.predict(dev), start.predict(dev))
    assert 0.0 <= small.curve[-1]["dev"] <= 1.0 and "exit_2" in small.curve[-1]


def test_exits_learn_the_answers_and_labels_change_nothing():
    start, training = still(), TRAINING.replace(epochs=30)
    small = fastbert.compress(start, data(), training=training)
    losses = [row["loss"] for row in small.curve]
    assert losses[-1] < losses[0] / 2
    texts = data().train.texts
    other = Dataset("two", "classification", ("a", "b"), Split(texts, [1] * 12), data().dev)
    again = fastbert.compress(start, other, training=training)
    np.testing.assert_equal(again.weights(), small.weights())


def test_operations_are_those_of_the_authors():
    base = BertConfig(classifier="branch")
    count = {"include_attention": False}
    # 2 (12 (4 768^2 + 2 768 3072) 128 + (768 128 + 4 128^2) 128 + 128^2)
    assert flops(base, 128, 2, **count) == 21_785_247_744
    layer, branch = 2 * (4 * 768**2 + 2 * 768 * 3072) * 128, 2 * 163_840 * 128 + 2 * 128**2
    exits = base.replace(exits=[*range(1, 12)])
    for k in (1, 5, 12):
        assert flops(exits, 128, 2, exit_layer=k, **count) == k * (layer + branch)
    assert flops(exits, 128, 2) == flops(base, 128, 2)  # of the plain model
    # 4 128^2 768 in each layer, 4 128^2 128 in a branch and 2 128 2 in its last layer
    honest = 12 * 50_331_648 + 8_388_608 + 512
    assert flops(base, 128, 2) == 21_785_247_744 + honest
    for found in (with_exits((2, 3)), still(classifier="branch", pooling="cls")):
        assert parameters(found.config, 3) == found.whole.count_params()


def test_speed_is_chosen_on_dev(model, caplog):
    rows = sweep(model, lengths(), 16)
    speeds, costs = ([row[name] for row in rows] for name in ("speed", "cost"))
    assert speeds[0] == 0.0 and speeds[-1] == 1.0 and sorted(costs, reverse=True) == costs
    for row in (rows[20], rows[80]):
        found = evaluate(model, lengths().dev, speed=row["speed"])
        assert found["value"] == pytest.approx(row["accuracy"])
        assert found["layers"].mean() == pytest.approx(row["layer"])
    assert "accuracy" not in sweep(model, unlabelled(), 16)[0]
    rows = [
        {"speed": speed, "cost": cost, "accuracy": accuracy}
        for speed, cost, accuracy in (
            (0.0, 1.1, 0.9),
            (0.4, 0.7, 0.8),
            (0.7, 0.5, 0.85),
            (1.0, 0.3, 0.6),
        )
    ]
    assert choose_speed(rows, min_accuracy=0.8)["speed"] == 0.7  # the fastest
    assert choose_speed(rows, max_cost=0.7)["speed"] == 0.4  # the slowest
    assert "nearest" not in caplog.text
    assert choose_speed(rows, min_accuracy=0.95)["speed"] == 0.0
    assert choose_speed(rows, max_cost=0.2)["speed"] == 1.0
    assert caplog.text.count("no speed reaches what was asked for; this is the nearest") == 2


def test_a_chosen_speed_stands_in_the_history():
    short = TRAINING.replace(epochs=1, evaluations=0)
    small = fastbert.compress(still(), data(), training=short, min_accuracy=0.1)
    chosen = small.history[-1]["chosen"]
    assert chosen.keys() == {"speed", "layer", "cost", "agreement", "accuracy"}
    assert chosen["accuracy"] >= 0.1
    for texts, settings in (
        (data(), {"min_accuracy": 0.5, "max_cost": 0.5}),
        (type(data())("no dev", "unlabelled", (), unlabelled().train), {"max_cost": 0.5}),
    ):
        with pytest.raises(
            ValueError, match="Speed is chosen on dev, by .* Received: .* Leave one"
        ):
            fastbert.compress(shared_still(), texts, training=short, **settings)
    with pytest.raises(ValueError, match="must have one task"):
        fastbert.compress(shared_still(), unlabelled(), training=short, min_accuracy=0.5)


def test_the_papers_two_phases():
    pretrained = still(num_layers=2, pooling="pooler")
    short = TRAINING.replace(evaluations=0)
    teacher = fastbert.fastbert_teacher(pretrained, data(), training=short)
    names = {name.split("/")[0] for name in teacher.weights()}
    assert (
        "pooler" not in names and {"classifier_narrow", "classifier_value", "classifier"} <= names
    )
    assert np.any(
        teacher.weights()["layer_0_query/kernel"] != pretrained.weights()["layer_0_query/kernel"]
    )
    small = fastbert.compress(teacher, data(), training=short)
    assert small.config.exits == [1] and small.config.classifier == "branch"
    assert [entry["method"] for entry in small.history] == ["fastbert_teacher", "fastbert"]
    np.testing.assert_array_equal(small.predict(LENGTHS), teacher.predict(LENGTHS))
    answers, left_at = small.predict(LENGTHS, speed=0.5)
    graph, same = small.predict(LENGTHS, speed=0.5, skipping="graph")
    np.testing.assert_allclose(answers, graph, atol=1e-5)
    np.testing.assert_array_equal(left_at, same)


def test_exits_are_saved_and_leave_with_their_layers(model, tmp_path, caplog):
    model.save(tmp_path / "model")
    loaded = TaskModel.load(tmp_path / "model")
    assert loaded.config == model.config and loaded.config.exits == [1, 2, 3]
    for ours, theirs in zip(loaded.predict(LENGTHS, speed=0.5), model.predict(LENGTHS, speed=0.5)):
        np.testing.assert_array_equal(ours, theirs)
    for other in (model.keep_layers([0, 3]), with_head(model, "classification", ("a", "b"))):
        assert other.config.exits is None and not any("exit" in name for name in other.weights())
    caplog.set_level(logging.INFO)
    (exported,) = export(model, tmp_path, ("float32",), sequence_length=16)
    (plain,) = export(model.keep_layers(range(4)), tmp_path, ("float32",), sequence_length=16)
    assert exported["bytes"] == plain["bytes"]
    assert "exits after layers [1, 2, 3] are left out: the files compute all layers" in caplog.text


@pytest.mark.parametrize(
    "speed, exits", [(1.1, (1,)), (-0.1, (1,)), (float("nan"), (1,)), (0.5, None)]
)
def test_a_speed_out_of_range_or_without_exits(speed, exits):
    model = with_exits(exits) if exits else shared_still()
    rule = (
        "`speed` must be 0 to 1, and the model must have exits. Received: .* Give the model exits"
    )
    with pytest.raises(ValueError, match=rule):
        model.predict(LENGTHS, speed=speed)


def test_what_cannot_have_exits(model):
    for task in ("tagging", "multilabel", "regression"):
        with pytest.raises(ValueError, match="one name for a text. Received: task '" + task):
            fastbert.compress(shared_still(task), data(task), training=TRAINING)
    last = "must be the last of a chain. Received: exits = .1, 2, 3.. Start from the model"
    for name in ("finetune", "layers", "q8bert", "fastbert"):
        with pytest.raises(ValueError, match=last):
            method(name)(model, data(), training=TRAINING)
    with pytest.raises(ValueError, match=last):
        method("soft_targets")(foreign(labels=CLASSES), data(), student=model, training=TRAINING)
    with pytest.raises(ValueError, match="`exits` must be 1 different ones among 1 to 1, rising"):
        fastbert.compress(shared_still(), data(), exits=[2], training=TRAINING)


def test_a_way_that_is_none_is_told(model):
    with pytest.raises(ValueError, match="must be segments or graph. Received: 'layers'"):
        model.predict(LENGTHS, speed=0.5, skipping="layers")
