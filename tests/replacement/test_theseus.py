import functools
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from keras_compress.backend import keras, tf
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.replacement import theseus
from keras_compress.replacement.theseus import ModuleMix, build_theseus
from keras_compress.training.loop import Training, adamw, task_loss
from tests.bert import tiny

TRAINING = Training(
    epochs=2, batch_size=4, max_length=16, learning_rate=1e-2, warmup=0.0, evaluations=1
)


def parts(
    task="classification", embeddings="shared", gate="bernoulli", granularity="batch", seed=0
):
    """A predecessor of 4 layers, a successor of 2 with other weights, and the model that mixes them; no dropout."""
    predecessor = tiny.model(task, num_layers=4, dropout=0.0, attention_dropout=0.0)
    successor = tiny.model(task, num_layers=2, dropout=0.0, attention_dropout=0.0, seed=2)
    own = successor.weights()
    successor.set_weights(
        {**predecessor.weights(), **{k: v for k, v in own.items() if k.startswith("layer_")}}
    )
    if embeddings == "separate":
        successor.model.get_layer("word_embeddings").embeddings.assign(
            own["word_embeddings/embeddings"]
        )
    mixed, mixes = build_theseus(
        predecessor,
        successor,
        [[0, 1], [2, 3]],
        embeddings=embeddings,
        gate=gate,
        granularity=granularity,
        seed=seed,
    )
    return predecessor, successor, mixed, mixes


shared_parts = functools.cache(parts)  # for tests that set the gates and train nothing


def inputs_of(model, texts=tiny.TEXTS):
    return {k: tf.constant(v) for k, v in model.pad(model.tokenizer.encode(texts, 16)).items()}


def set_gates(mixes, rate, step=0):
    for mix in mixes:
        mix.rate.assign(rate)
        mix.step.assign(step)


def compiled(mixed, mixes, task="classification"):
    optimizer = adamw(TRAINING, 100, theseus.DrawnAdamW)
    optimizer.follow(mixes)
    mixed.compile(optimizer, task_loss(task), jit_compile=False)
    return mixed


def data(task="classification", n=12):
    texts = [
        f"{a} {b} {c}"
        for a in ("the", "a")
        for b in ("cat", "dog", "mat")
        for c in ("sat", "on", "x")
    ][:n]
    if task == "matching":
        texts = [(text, text[::-1]) for text in texts]
    labels = [[k % 3, 0, 1] for k in range(n)] if task == "tagging" else [k % 2 for k in range(n)]
    split = Split(texts, labels)
    return Dataset("tiny", task, tiny.LABELS[task], split, split, split)


@pytest.mark.parametrize("embeddings", ["shared", "separate"])
def test_rate_1_is_the_successor_and_rate_0_the_predecessor(embeddings):
    predecessor, successor, mixed, mixes = parts(embeddings=embeddings)
    inputs = inputs_of(predecessor)
    ours, theirs = successor.model(inputs), predecessor.model(inputs)
    assert np.abs(ours - theirs).max() > 0.01
    for step, (gate, granularity) in enumerate(
        itertools.product(theseus.GATES, theseus.GRANULARITIES)
    ):
        for mix in mixes:
            mix.gate, mix.granularity = gate, granularity  # read when called
        set_gates(mixes, 1.0, step)
        np.testing.assert_array_equal(mixed(inputs, training=True), ours)
        set_gates(mixes, 0.0, step)
        np.testing.assert_array_equal(mixed(inputs, training=True), theirs)
        set_gates(mixes, 0.3, step)
        np.testing.assert_array_equal(mixed(inputs, training=False), ours)


@pytest.mark.parametrize("embeddings", ["shared", "separate"])
def test_a_step_at_rate_1_moves_every_successor_weight_and_nothing_else(embeddings):
    predecessor, successor, mixed, mixes = parts(embeddings=embeddings)
    before, before_ours = predecessor.weights(), successor.weights()
    set_gates(mixes, 1.0)
    compiled(mixed, mixes).train_on_batch(inputs_of(predecessor), np.array([0, 1, 2, 0]))
    assert all(np.array_equal(before[k], v) for k, v in predecessor.weights().items())
    for name, after in successor.weights().items():
        trains = name.startswith("layer_") or (embeddings == "separate" and "embeddings" in name)
        if not name.endswith("_key/bias"):  # softmax does not see it: its gradient is rounding
            assert np.array_equal(before_ours[name], after) == (not trains), name


def test_a_module_that_is_not_drawn_keeps_its_bits_and_its_moments():
    predecessor, successor, mixed, mixes = parts()
    compiled(mixed, mixes)
    inputs, labels, seen = inputs_of(predecessor), np.array([0, 1, 2, 0]), set()
    for step in range(12):
        set_gates(mixes, 0.5, step)
        drawn = [bool(mix.draw()) for mix in mixes]
        seen.add(tuple(drawn))
        before = [v.numpy() for mix in mixes for v in mix.successor.trainable_variables]
        moments = {v.name: v.numpy() for v in mixed.optimizer.variables if "layer_" in v.name}
        mixed.train_on_batch(inputs, labels)
        after = [v.numpy() for mix in mixes for v in mix.successor.trainable_variables]
        half = len(before) // 2
        for module, took_part in enumerate(drawn):
            part = slice(module * half, (module + 1) * half)
            assert all(np.array_equal(a, b) for a, b in zip(before[part], after[part])) == (
                not took_part
            )
            for v in mixed.optimizer.variables:
                if f"layer_{module}_" in v.name and step and not took_part:
                    assert np.array_equal(moments[v.name], v.numpy())
    assert len(seen) == 4  # all four outcomes of two draws were met


def test_when_all_is_drawn_the_optimizer_is_adamw():
    mix = shared_parts()[3][0]
    kernel = mix.successor.trainable_variables[0]
    set_gates([mix], 1.0)
    ours = adamw(TRAINING, 10, theseus.DrawnAdamW)
    ours.follow([mix])
    copy, theirs, start = (
        tf.Variable(kernel, name=kernel.name[:-2]),
        adamw(TRAINING, 10),
        kernel.numpy(),
    )
    for step in range(4):
        gradient = tf.random.stateless_normal(kernel.shape, (step, 1))
        ours.apply_gradients([(gradient, kernel)])
        theirs.apply_gradients([(gradient, copy)])
    assert np.abs(kernel - start).max() > 0.01
    np.testing.assert_allclose(kernel, copy, rtol=1e-4, atol=1e-6)
    kernel.assign(start)


def test_at_rate_0_no_gradient_reaches_a_successor():
    predecessor, successor, mixed, mixes = shared_parts()
    set_gates(mixes, 0.0)
    with tf.GradientTape() as tape:
        loss = task_loss("classification")(
            np.array([0, 1, 2, 0]), mixed(inputs_of(predecessor), training=True)
        )
    gradients = tape.gradient(loss, mixed.trainable_variables)
    assert gradients and all(g is None or not np.any(tf.convert_to_tensor(g)) for g in gradients)


def test_the_branch_that_is_not_drawn_is_not_computed():
    predecessor, successor, mixed, mixes = parts()
    predecessor.set_weights(
        {
            k: np.full_like(v, np.nan)
            for k, v in predecessor.weights().items()
            if k.startswith("layer_")
        },
        only=[k for k in predecessor.weights() if k[:6] == "layer_"],
    )
    set_gates(mixes, 1.0)
    loss = compiled(mixed, mixes).train_on_batch(inputs_of(successor), np.array([0, 1, 2, 0]))
    assert np.isfinite(loss) and all(np.isfinite(v).all() for v in successor.weights().values())


def test_draws_have_the_rate_as_mean_and_modules_draw_independently():
    *_, mixes = shared_parts()
    set_gates(mixes, 0.5)

    @tf.function
    def draws(steps):
        def one(step):
            for mix in mixes:
                mix.step.assign(step)
            return tf.stack([mix.draw() for mix in mixes])

        return tf.map_fn(one, steps, fn_output_signature=tf.bool)

    found = draws(tf.range(10_000, dtype=tf.int64)).numpy().astype(float)
    assert np.all(np.abs(found.mean(0) - 0.5) < 0.02)  # four standard errors of 0.005
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.04  # four standard errors of 1 / sqrt(10,000)
    assert np.array_equal(found, draws(tf.range(10_000, dtype=tf.int64)).numpy())  # stateless


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.8])
def test_uniform_gates_have_the_rate_as_mean(rate):
    *_, mixes = shared_parts(gate="uniform", granularity="sample")
    set_gates(mixes, rate)
    draws = mixes[0].draw((20_000,)).numpy()
    assert (
        abs(draws.mean() - rate) < 4 * draws.std() / 20_000**0.5
        and 0 <= draws.min()
        and draws.max() <= 1
    )
    if rate == 0.5:
        np.testing.assert_allclose(
            np.quantile(draws, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.015
        )  # U[0, 1]


def test_per_sample_gates_give_each_row_one_of_the_two_branches():
    predecessor, successor, mixed, mixes = shared_parts(granularity="sample")
    x, bias = tf.random.stateless_normal((40, 5, 8), (1, 2)), tf.zeros((40, 1, 1, 5))
    set_gates(mixes, 0.5)
    mix = mixes[0]
    found = mix([x, bias], training=True).numpy()
    ours, theirs = mix.successor([x, bias]).numpy(), mix.predecessor([x, bias]).numpy()
    is_ours, is_theirs = (np.abs(found - branch).max((1, 2)) == 0 for branch in (ours, theirs))
    assert (
        np.all(is_ours != is_theirs) and 8 <= is_ours.sum() <= 32
    )  # 20 +- 4 standard deviations of 3.2


def test_replicas_share_the_draw_of_a_batch_and_have_their_own_for_each_text(monkeypatch):
    def draws(granularity, replica):
        monkeypatch.setattr(
            tf.distribute,
            "get_replica_context",
            lambda: SimpleNamespace(replica_id_in_sync_group=replica),
        )
        *_, mixes = shared_parts(granularity=granularity)
        set_gates(mixes, 0.5)
        return mixes[0].draw((40,)).numpy()

    np.testing.assert_array_equal(draws("batch", 0), draws("batch", 1))
    np.testing.assert_array_equal(draws("sample", 1), draws("sample", 1))
    assert 5 <= np.sum(draws("sample", 0) != draws("sample", 1)) <= 35


def test_the_rate_follows_its_schedule_inside_fit_without_new_traces():
    _, successor, mixed, mixes = parts()
    compiled(mixed, mixes)
    traces, seen, train_step = [], [], mixed.train_step
    mixed.train_step = lambda batch: traces.append(1) or train_step(batch)
    stream = data().batches("train", successor.tokenizer, 4, 16).take(1).repeat(5)
    mixed.fit(
        stream,
        verbose=0,
        callbacks=[
            theseus.ReplacingRate(mixes, theseus.linear_rate(0.2, 0.3)),
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda *_: seen.append(
                    [(int(mix.step), float(mix.rate)) for mix in mixes]
                )
            ),
        ],
    )
    assert len(traces) <= 2  # the first call traces twice: it makes the moments
    assert [row[0] for row in seen] == [row[1] for row in seen]
    np.testing.assert_allclose(
        [row[0] for row in seen], [(0, 0.2), (1, 0.5), (2, 0.8), (3, 1.0), (4, 1.0)], rtol=1e-6
    )


def test_annealed_and_uniform_gates_blend():
    predecessor, successor, mixed, mixes = parts(gate="anneal")
    x, bias = tf.random.stateless_normal((2, 5, 8), (1, 2)), tf.zeros((2, 1, 1, 5))
    set_gates(mixes, 0.25)
    mix = mixes[1]
    expected = 0.25 * mix.successor([x, bias]) + 0.75 * mix.predecessor([x, bias])
    np.testing.assert_allclose(mix([x, bias], training=True), expected, atol=1e-6)


def test_schedules():
    linear = theseus.linear_rate(0.3, 0.0006)
    # .3 + .0006 * 1000 = .9; .3 + .0006 * 1167 = 1.0002 -> 1
    np.testing.assert_allclose([linear(t) for t in (0, 1000, 1167, 5000)], [0.3, 0.9, 1.0, 1.0])
    assert linear(1166) < 1.0 and linear(1167) == 1.0
    constant = theseus.constant_rate(0.5, 2500)
    assert [constant(t) for t in (0, 2499, 2500)] == [0.5, 0.5, 1.0] and theseus.constant_rate(0.5)(
        10**6
    ) == 0.5
    cosine = theseus.cosine_rate(0.2, 100)
    np.testing.assert_allclose([cosine(t) for t in (0, 50, 100, 200)], [0.2, 0.6, 1.0, 1.0])


def test_changing_the_rate_does_not_trace_again():
    predecessor, successor, mixed, mixes = shared_parts()
    traces = []

    @tf.function
    def run(inputs):
        traces.append(1)
        return mixed(inputs, training=True)

    for step, rate in enumerate((0.0, 0.5, 1.0)):
        set_gates(mixes, rate, step)
        run(inputs_of(predecessor))
    assert len(traces) == 1


def test_replacing_rate_callback_follows_the_optimizer():
    predecessor, successor, mixed, mixes = parts()
    callback = theseus.ReplacingRate(mixes, theseus.linear_rate(0.25, 0.25))
    inputs = inputs_of(predecessor)
    seen = []
    spy = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda b, logs: seen.append(
            (float(mixes[0].rate.numpy()), int(mixes[1].step.numpy()))
        )
    )
    rows = tf.data.Dataset.from_tensor_slices((inputs, np.array([0, 1, 2, 0], np.int32))).batch(2)
    logs = compiled(mixed, mixes).fit(rows, epochs=2, verbose=0, callbacks=[callback, spy]).history
    assert seen == [(0.25, 0), (0.5, 1), (0.75, 2), (1.0, 3)] and logs["replacing_rate"] == [
        0.5,
        1.0,
    ]


def test_padding_changes_nothing_while_training():
    predecessor, successor, mixed, mixes = shared_parts()
    set_gates(mixes, 0.5, step=3)
    short = inputs_of(predecessor, tiny.TEXTS[:2])
    long = {k: tf.pad(v, [(0, 0), (0, 3)]) for k, v in short.items()}
    long["input_word_ids"] += tf.constant([[0] * short["input_mask"].shape[1] + [7] * 3])
    np.testing.assert_allclose(mixed(short, training=True), mixed(long, training=True), atol=1e-5)


@pytest.mark.parametrize("task", ["classification", "matching", "tagging"])
def test_compress(task, tmp_path):
    from mobile_export.convert import export

    dataset, predecessor = data(task), tiny.model(task)
    before = predecessor.weights()
    small = theseus.compress(predecessor, dataset, num_layers=1, training=TRAINING, seed=3)
    assert all(np.array_equal(before[k], v) for k, v in predecessor.weights().items())
    assert all(layer.trainable for layer in predecessor.model.layers + small.model.layers)
    assert small.config.num_layers == 1 and not any(
        "layer_1" in layer.name for layer in small.model.layers
    )
    assert {layer.name for layer in small.model.layers} <= {
        layer.name for layer in predecessor.model.layers
    }  # flat
    for name in ("classifier/kernel", "pooler/kernel", "word_embeddings/embeddings"):
        assert name not in before or not np.array_equal(
            before[name], small.weights()[name]
        )  # the last stage
    assert [row["stage"] for row in small.curve] == ["replace"] * 4 + [
        "finetune"
    ] * 2  # 6 updates: 4 + 2
    assert small.curve[3]["replacing_rate"] == 1.0 and {"loss", "dev"} <= set(small.curve[-1])
    assert [step["method"] for step in small.history] == ["theseus", "finetune"]
    small.save(tmp_path / "small")
    loaded = type(small).load(tmp_path / "small")
    assert all(np.array_equal(v, loaded.weights()[k]) for k, v in small.weights().items())
    files = export(small, tmp_path / "small", ("float32",), sequence_length=12, dev=dataset.dev)
    assert files[0]["max_dlogit"] <= 1e-4 and files[0]["agreement"] == 1.0


def test_the_seed_decides():
    predecessor = tiny.model()
    first, same, different = (
        theseus.compress(
            predecessor, data(), num_layers=1, training=TRAINING, seed=seed, finetune_share=0.0
        ).weights()["layer_0_output/kernel"]
        for seed in (3, 3, 4)
    )
    np.testing.assert_allclose(first, same, atol=1e-6)
    assert np.abs(first - different).max() > 1e-4


@pytest.mark.parametrize("start, layers", [("own", (1, 3)), ("bottom", (0, 1))])
def test_where_the_successors_start(start, layers):
    predecessor, still = (
        tiny.model(num_layers=4),
        TRAINING.replace(learning_rate=1e-12, weight_decay=0.0),
    )
    small = theseus.compress(
        predecessor, data(), num_layers=2, training=still, start=start
    ).weights()
    for new, old in enumerate(layers):
        np.testing.assert_allclose(
            small[f"layer_{new}_output/kernel"],
            predecessor.weights()[f"layer_{old}_output/kernel"],
            atol=1e-8,
        )


def test_the_successor_is_what_the_mixed_model_infers_with():
    predecessor, successor, mixed, mixes = parts()
    set_gates(mixes, 0.5)
    compiled(mixed, mixes).train_on_batch(inputs_of(predecessor), np.array([0, 1, 2, 0]))
    inputs = inputs_of(predecessor)
    alone = successor.clone()
    np.testing.assert_allclose(alone.model(inputs), mixed(inputs, training=False), atol=1e-6)
    assert {name.split("_")[1] for name in alone.weights() if name.startswith("layer_")} == {
        "0",
        "1",
    }
    assert alone.model.count_params() == tiny.model().model.count_params()


def test_train_head_last_false_leaves_embeddings_and_head_as_they_were():
    predecessor = tiny.model()
    small = theseus.compress(
        predecessor, data(), num_layers=1, training=TRAINING, train_head_last=False
    )
    before, after = predecessor.weights(), small.weights()
    for name, value in after.items():
        assert name.startswith("layer_") or np.array_equal(before[name], value)


@pytest.mark.parametrize(
    "settings",
    [
        {"gate": "uniform", "schedule": "constant", "rate": 0.5, "finetune_share": 0.0},
        {
            "gate": "anneal",
            "schedule": "cosine",
            "rate": 0.0,
            "embeddings": "separate",
            "finetune_share": 0.0,
        },
        {"granularity": "sample", "module_map": [[0], [1, 2]], "finetune_share": 0.0},
    ],
)
def test_settings_run(settings):
    predecessor = tiny.model(num_layers=3 if "module_map" in settings else 2)
    small = theseus.compress(
        predecessor,
        data(),
        training=TRAINING,
        **({} if "module_map" in settings else {"num_layers": 1}),
        **settings,
    )
    assert (
        small.config.num_layers == len(settings.get("module_map", [0]))
        and np.isfinite(small.predict(tiny.TEXTS)).all()
    )
    assert settings.items() <= small.history[0].items()


def test_module_mix_round_trip():
    *_, mixes = parts(gate="uniform", granularity="sample", seed=5)
    config = mixes[1].get_config()
    again = ModuleMix.from_config(config)
    assert (again.index, again.gate, again.granularity, again.seed) == (1, "uniform", "sample", 5)
    assert again.get_config().keys() == config.keys()
    for name in ("predecessor", "successor"):
        layers = [[layer.name for layer in getattr(mix, name).layers] for mix in (again, mixes[1])]
        assert layers[0] == layers[1]
    x = [tf.ones((2, 3, 8)), tf.zeros((2, 1, 1, 3))]
    again.successor.set_weights(mixes[1].successor.get_weights())
    np.testing.assert_allclose(again(x), mixes[1](x), atol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_layers": 3}, "must be a multiple.*Received: 4 and 3. Choose 1, 2"),
        ({"module_map": [[0, 1], [3]]}, "every layer from 0 to 3 once.*Received"),
        ({"module_map": [[0, 1], [2], [], [3]]}, "none of them empty"),
        ({"module_map": [0, 1]}, r"Received: \[0, 1\]. For example \[\[0\], \[1, 2, 3\]\]"),
        ({"module_map": 3}, "`module_map` must be lists"),
        ({"module_map": []}, "`module_map` must be lists"),
        ({"module_map": [[0.0, 1.0], [2.0, 3.0]]}, "`module_map` must be lists"),
        (
            {"module_map": [[0], [1], [2, 3]]},
            "must be the number of modules in `module_map`. Received: 2 and 3",
        ),
        ({"gate": "dice"}, "`gate` must be one of bernoulli, uniform, anneal. Received: 'dice'"),
        ({"granularity": "word"}, "`granularity` must be"),
        ({"embeddings": "none"}, "`embeddings` must be"),
        ({"schedule": "step"}, "`schedule` must be"),
        ({"rate": 1.5}, r"`rate` must be in \[0, 1\].*1.5"),
    ],
)
def test_errors(change, message):
    with pytest.raises(ValueError, match=message):
        theseus.compress(
            shared_parts()[0], data(), training=TRAINING, **{"num_layers": 2, **change}
        )


def test_a_model_for_other_labels_is_refused():
    with pytest.raises(ValueError, match="same labels.*Received.*new head"):
        theseus.compress(
            shared_parts()[0],
            Dataset("other", "classification", ("a", "b", "c"), *[data().train] * 3),
            num_layers=2,
        )
    with pytest.raises(ValueError, match="one task"):
        theseus.compress(tiny.shared("tagging"), data(), num_layers=2)
