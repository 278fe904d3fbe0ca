import functools
import itertools
import re
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest

from keras_compress.backend import keras, tf
from keras_compress.replacement import theseus
from keras_compress.replacement.theseus import build_theseus
from keras_compress.training.finetune import task_loss
from keras_compress.training.optimizer import adamw
from tests.bert import tiny
from tests.support import TRAINING, data, inputs_of, still

LABELS = np.array([0, 1, 2, 0])


def parts(task="classification", embeddings="shared", gate="bernoulli", granularity="batch"):
    """A predecessor of 3 layers, a successor of 2 with other weights, and the model that mixes them; no dropout."""
    predecessor, successor = still(task, num_layers=3), still(task, seed=2)
    own = successor.weights()
    layers = {k: v for k, v in own.items() if k.startswith("layer_")}
    successor.set_weights({**predecessor.weights(), **layers})
    if embeddings == "separate":
        table = successor.model.get_layer("word_embeddings").embeddings
        table.assign(own["word_embeddings/embeddings"])
    settings = {"embeddings": embeddings, "gate": gate, "granularity": granularity}
    return (
        predecessor,
        successor,
        *build_theseus(predecessor, successor, [[0], [1, 2]], **settings),
    )


shared_parts = functools.cache(parts)  # for tests that set the gates and train nothing


def set_gates(mixes, rate, step=0):
    for mix in mixes:
        mix.rate.assign(rate)
        mix.step.assign(step)


def compiled(mixed):
    mixed.compile(adamw(TRAINING, 100), task_loss("classification"), jit_compile=False)
    return mixed


@pytest.mark.parametrize("embeddings", ["shared", "separate"])
def test_rate_1_is_the_successor_and_rate_0_the_predecessor(embeddings):
    predecessor, successor, mixed, mixes = parts(embeddings=embeddings)
    inputs = inputs_of(predecessor)
    ours, theirs = successor.model(inputs), predecessor.model(inputs)
    assert np.abs(ours - theirs).max() > 0.01
    choices = itertools.product(get_args(theseus.Gate), get_args(theseus.Granularity))
    for step, (gate, granularity) in enumerate(choices):
        for mix in mixes:
            mix.gate, mix.granularity = gate, granularity  # read when called
        for rate, training, expected in (
            (1.0, True, ours),
            (0.0, True, theirs),
            (0.3, False, ours),
        ):
            set_gates(mixes, rate, step)
            np.testing.assert_array_equal(mixed(inputs, training=training), expected)


@pytest.mark.parametrize("embeddings", ["shared", "separate"])
def test_a_step_at_rate_1_moves_every_successor_weight_and_nothing_else(embeddings):
    predecessor, successor, mixed, mixes = parts(embeddings=embeddings)
    before, before_ours = predecessor.weights(), successor.weights()
    set_gates(mixes, 1.0)
    compiled(mixed).train_on_batch(inputs_of(predecessor), LABELS)
    np.testing.assert_equal(predecessor.weights(), before)
    for name, after in successor.weights().items():
        trains = name.startswith("layer_") or (embeddings == "separate" and "embeddings" in name)
        if not name.endswith("_key/bias"):  # softmax does not see it: its gradient is rounding
            assert np.array_equal(before_ours[name], after) == (not trains), name
    alone = successor.clone()  # the successor is what the mixed model infers with
    inputs = inputs_of(predecessor)
    np.testing.assert_allclose(alone.model(inputs), mixed(inputs, training=False), atol=1e-6)


def test_at_rate_0_no_gradient_reaches_a_successor():
    predecessor, _, mixed, mixes = shared_parts()
    set_gates(mixes, 0.0)
    with tf.GradientTape() as tape:
        logits = mixed(inputs_of(predecessor), training=True)
        loss = task_loss("classification")(LABELS, logits)
    gradients = tape.gradient(loss, mixed.trainable_variables)
    assert gradients and all(g is None or not np.any(tf.convert_to_tensor(g)) for g in gradients)


def test_a_module_that_is_not_drawn_rests_before_its_first_draw_and_drifts_after_it():
    """AdamW's moments of a module that was drawn once go on moving it, as in the authors' code.

    Biases have no decay, so that before the first draw nothing moves them.
    """
    predecessor, _, mixed, mixes = parts()
    train, inputs = compiled(mixed).train_on_batch, inputs_of(predecessor)
    biases = [
        [v for v in mix.successor.trainable_variables if "output/bias" in v.name] for mix in mixes
    ]

    def moved(rates):
        for mix, rate in zip(mixes, rates):
            mix.rate.assign(rate)
        before = [[v.numpy() for v in module] for module in biases]
        train(inputs, LABELS)
        return [
            any(np.any(old != v.numpy()) for old, v in zip(olds, module))
            for olds, module in zip(before, biases)
        ]

    assert moved([0.0, 1.0]) == [False, True]  # module 0 was never drawn
    assert moved([0.0, 1.0]) == [False, True]
    assert moved([1.0, 0.0]) == [True, True]  # module 1 drifts
    assert moved([0.0, 0.0]) == [True, True]  # both drift by momentum alone


def test_the_branch_that_is_not_drawn_is_not_computed():
    predecessor, successor, mixed, mixes = parts()
    names = [name for name in predecessor.weights() if name.startswith("layer_")]
    nans = {name: np.full_like(predecessor.weights()[name], np.nan) for name in names}
    predecessor.set_weights(nans, only=names)
    set_gates(mixes, 1.0)
    loss = compiled(mixed).train_on_batch(inputs_of(successor), LABELS)
    assert np.isfinite(loss) and all(np.isfinite(v).all() for v in successor.weights().values())


def test_draws_have_the_rate_as_mean_and_modules_draw_independently():
    *_, mixes = shared_parts()
    set_gates(mixes, 0.5)

    @tf.function
    def draws(steps):
        def draw(step):
            for mix in mixes:
                mix.step.assign(step)
            return tf.stack([mix.draw() for mix in mixes])

        return tf.map_fn(draw, steps, fn_output_signature=tf.float32)

    drawn = draws(tf.range(10_000, dtype=tf.int64)).numpy()
    assert np.all(np.abs(drawn.mean(0) - 0.5) < 0.02)  # four standard errors of 0.005
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.04  # four standard errors of 1 / sqrt(10,000)
    assert np.array_equal(drawn, draws(tf.range(10_000, dtype=tf.int64)).numpy())  # stateless


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.8])
def test_uniform_gates_have_the_rate_as_mean(rate):
    *_, mixes = shared_parts(gate="uniform", granularity="sample")
    set_gates(mixes, rate)
    draws = mixes[0].draw((20_000,)).numpy()
    assert abs(draws.mean() - rate) < 4 * draws.std() / 20_000**0.5
    assert 0 <= draws.min() and draws.max() <= 1
    if rate == 0.5:  # U[0, 1]
        np.testing.assert_allclose(np.quantile(draws, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.015)


def test_per_sample_gates_give_each_row_one_of_the_two_branches():
    mix = shared_parts(granularity="sample")[3][0]
    x, bias = tf.random.stateless_normal((40, 5, 8), (1, 2)), tf.zeros((40, 1, 1, 5))
    set_gates([mix], 0.5)
    mixed = mix([x, bias], training=True).numpy()
    ours, theirs = mix.successor([x, bias]).numpy(), mix.predecessor([x, bias]).numpy()
    is_ours, is_theirs = (np.abs(mixed - branch).max((1, 2)) == 0 for branch in (ours, theirs))
    assert np.all(is_ours != is_theirs)
    assert 8 <= is_ours.sum() <= 32  # 20 +- 4 standard deviations of 3.2


def test_annealed_gates_blend():
    mix = shared_parts(gate="anneal")[3][1]
    x, bias = tf.random.stateless_normal((2, 5, 8), (1, 2)), tf.zeros((2, 1, 1, 5))
    set_gates([mix], 0.25)
    expected = 0.25 * mix.successor([x, bias]) + 0.75 * mix.predecessor([x, bias])
    np.testing.assert_allclose(mix([x, bias], training=True), expected, atol=1e-6)


def test_replicas_share_the_draw_of_a_batch_and_have_their_own_for_each_text(monkeypatch):
    def draws(granularity, replica):
        context = SimpleNamespace(replica_id_in_sync_group=replica)
        monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: context)
        *_, mixes = shared_parts(granularity=granularity)
        set_gates(mixes, 0.5)
        return mixes[0].draw((40,)).numpy()

    np.testing.assert_array_equal(draws("batch", 0), draws("batch", 1))
    np.testing.assert_array_equal(draws("sample", 1), draws("sample", 1))
    assert 5 <= np.sum(draws("sample", 0) != draws("sample", 1)) <= 35


def test_schedules():
    linear = theseus.linear_rate(0.3, 0.0006)
    # .3 + .0006 * 1000 = .9; .3 + .0006 * 1167 = 1.0002 -> 1
    np.testing.assert_allclose([linear(t) for t in (0, 1000, 1167, 5000)], [0.3, 0.9, 1.0, 1.0])
    assert linear(1166) < 1.0 and linear(1167) == 1.0
    constant = theseus.constant_rate(0.5, 2500)
    assert [constant(t) for t in (0, 2499, 2500)] == [0.5, 0.5, 1.0]
    assert theseus.constant_rate(0.5)(10**6) == 0.5
    cosine = theseus.cosine_rate(0.2, 100)
    np.testing.assert_allclose([cosine(t) for t in (0, 50, 100, 200)], [0.2, 0.6, 1.0, 1.0])


def test_the_rate_follows_its_schedule_inside_fit_without_new_traces():
    _, successor, mixed, mixes = parts()
    compiled(mixed)
    traces, seen, train_step = [], [], mixed.train_step
    mixed.train_step = lambda batch: traces.append(1) or train_step(batch)
    batches = data().batches("train", successor.tokenizer, 4, 16).take(1).repeat(5)
    rates = theseus.ReplacingRate(mixes, theseus.linear_rate(0.2, 0.3))
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_: seen.append([(int(m.step), float(m.rate)) for m in mixes])
    )
    logs = mixed.fit(batches, verbose=0, callbacks=[rates, spy]).history
    assert len(traces) <= 2  # the first call traces twice: it makes the moments
    assert all(first == second for first, second in seen) and logs["replacing_rate"] == [1.0]
    np.testing.assert_allclose(
        [row[0] for row in seen], [(0, 0.2), (1, 0.5), (2, 0.8), (3, 1.0), (4, 1.0)], rtol=1e-6
    )


def test_padding_changes_nothing_while_training():
    predecessor, _, mixed, mixes = shared_parts()
    set_gates(mixes, 0.5, step=3)
    short, long = (inputs_of(predecessor, tiny.TEXTS[:2], length) for length in (None, 16))
    long["input_word_ids"] += 7 * (1 - long["input_mask"])
    np.testing.assert_allclose(mixed(short, training=True), mixed(long, training=True), atol=1e-5)


def test_both_stages_with_their_updates_and_rates():
    small = theseus.compress(tiny.model(), data(), num_layers=1, training=TRAINING, seed=3)
    assert small.config.num_layers == 1 and small.history[-1]["module_map"] == [[0, 1]]
    stages = [row["stage"] for row in small.curve]
    assert stages == ["replace"] * 4 + ["finetune"] * 2  # 6 updates: 4 + 2
    assert small.curve[3]["replacing_rate"] == 1.0
    rates = [row["learning_rate"] for row in small.curve]  # one schedule for both
    np.testing.assert_allclose(rates, [0.01 * (6 - k) / 6 for k in range(6)], rtol=1e-5)


@pytest.mark.parametrize("start, layers", [("own", (1, 3)), ("bottom", (0, 1))])
def test_where_the_successors_start_and_that_the_head_may_rest(start, layers, monkeypatch):
    monkeypatch.setattr(theseus, "fit", lambda *args, **settings: [])  # trains nothing
    given = {}
    monkeypatch.setattr(theseus, "tune", lambda model, *a, **k: given.update(k) or model)
    predecessor = tiny.model(num_layers=4)
    settings = {"num_layers": 2, "start": start, "train_head_last": False}
    small = theseus.compress(predecessor, data(), training=TRAINING, **settings).weights()
    before = predecessor.weights()
    for name, value in small.items():
        layer = re.match("layer_([01])", name)
        old = name.replace(layer[0], f"layer_{layers[int(layer[1])]}") if layer else name
        np.testing.assert_array_equal(value, before[old])
    assert (given["only"], given["first_step"], given["num_steps"]) == ("layer_", 4, 2)


def test_other_gates_and_schedules_train_in_a_graph():
    settings = {"gate": "uniform", "granularity": "sample", "embeddings": "separate"}
    settings |= {"module_map": [[0], [1]], "schedule": "cosine", "rate": 0.0}
    training = TRAINING.replace(evaluations=0)
    small = theseus.compress(
        tiny.model(), data(), training=training, finetune_share=0.0, **settings
    )
    assert small.config.num_layers == 2 and {row["stage"] for row in small.curve} == {"replace"}
    assert small.curve[0]["replacing_rate"] == 0.0 and small.curve[-1]["replacing_rate"] == 1.0


def test_modules():
    assert theseus.cut_into_modules(6, 3) == [[0, 1], [2, 3], [4, 5]]
    assert theseus.cut_into_modules(4, 2, [[0], [1, 2, 3]]) == [[0], [1, 2, 3]]
    for number, module_map, message in (
        (3, None, "must be a multiple.*Received: 4 and 3. Choose 1, 2"),
        (2, [[0, 1], [3]], "every layer from 0 to 3 once.*Received"),
        (4, [[0, 1], [2], [], [3]], "none empty"),
        (2, [[0], [1], [2, 3]], r"and 2. For example \[\[0\], \[1, 2, 3\]\]"),
    ):
        with pytest.raises(ValueError, match=message):
            theseus.cut_into_modules(4, number, module_map)
