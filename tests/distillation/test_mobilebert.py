"""MobileBERT's transfer: losses by hand, phases, rates, starts."""

import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.distillation import mobilebert
from keras_compress.distillation.mobilebert import (
    HeadMix,
    attention_loss,
    feature_loss,
    mean_loss,
    variance_loss,
)
from keras_compress.pruning import heads
from keras_compress.training.distill import distill
from tests.support import (
    TRAINING,
    data,
    inputs_of,
    masked_lm,
    shared_still,
    stages_of,
    still,
    unlabelled,
    values_on,
)

STEPS = TRAINING.replace(epochs=4)  # 12 updates
MASK = tf.constant([[1, 1, 0]])
random = np.random.default_rng(0)
STATES = tf.constant(random.normal(size=(1, 3, 8)), tf.float32)
SCORES = tf.constant(random.normal(size=(1, 2, 3, 3)), tf.float32)


def stages(monkeypatch, teacher=None, **settings):
    settings = {"num_layers": 2, "training": STEPS, **settings}
    return stages_of(mobilebert, monkeypatch, teacher or shared_still(), data(), **settings)


def test_losses_of_states_by_hand():
    teacher, student = tf.constant([[[1.0, 3.0], [9, 9]]]), tf.constant([[[6.0, 2.0], [0, 9]]])
    mask = tf.constant([[1, 0]])
    # LN: [-1, 1] and [1, -1]; (4 + 4) / 2
    np.testing.assert_allclose(feature_loss(teacher, student, mask), 4.0, rtol=1e-5)
    np.testing.assert_allclose(mean_loss(teacher, student, mask), (2.0 - 4.0) ** 2)
    np.testing.assert_allclose(variance_loss(teacher, student, mask), abs(1.0 - 4.0))


def test_attention_loss_by_hand():
    teacher = tf.math.log([[[[0.75, 0.25], [0.5, 0.5]]]])
    student = tf.math.log([[[[0.5, 0.5], [0.5, 0.5]]]])
    # of the queries .75 ln(.75/.5) + .25 ln(.25/.5) = .3041 - .1733 = .1308 nats, and 0
    value = attention_loss(teacher, student, tf.constant([[1, 1]]))
    np.testing.assert_allclose(value, 0.1308 / 2, atol=1e-4)
    # with one real key and query both are sure
    value = attention_loss(teacher, student, tf.constant([[1, 0]]))
    np.testing.assert_allclose(value, 0.0, atol=1e-6)


def test_equal_maps_give_0_and_norms_cancel_shift_and_scale():
    for loss in (feature_loss, mean_loss, variance_loss):
        np.testing.assert_allclose(loss(STATES, STATES, MASK), 0.0, atol=1e-9)
    np.testing.assert_allclose(attention_loss(SCORES, SCORES, MASK), 0.0, atol=1e-6)
    other = tf.constant(random.normal(size=(1, 3, 8)), tf.float32)
    moved = other * tf.constant([2.0, 3.0, 4.0])[:, None] + 5.0
    value = feature_loss(STATES, other, MASK)
    np.testing.assert_allclose(feature_loss(STATES, moved, MASK), value, rtol=1e-4)
    np.testing.assert_allclose(feature_loss(3.0 * STATES - 1.0, other, MASK), value, rtol=1e-4)


def test_heads_are_mixed_into_distributions():
    mix = HeadMix(5, 2, seed=1)
    probs = tf.nn.softmax(SCORES)
    np.testing.assert_allclose(tf.reduce_sum(mix(probs), -1), np.ones((1, 5, 3)), rtol=1e-5)
    mix.set_weights([np.array([[50.0, 0.0]] * 5)])  # all of the first head
    np.testing.assert_allclose(mix(probs)[:, 4], probs[:, 0], rtol=1e-5)


def test_phases_go_from_layer_to_layer_with_the_factors_of_the_code(monkeypatch):
    teacher = still(num_layers=4)
    first, second, answers = stages(monkeypatch, teacher, steps_per_layer=3)
    assert [x["stage"] for x in (first, second, answers)] == ["phase-1", "phase-2", "answers"]
    assert [x["num_steps"] for x in (first, second, answers)] == [3, 3, 6]
    assert [x["first_step"] for x in (first, second, answers)] == [0, 3, 6]
    factors = {name: factor for name, (factor, _) in second["losses"].items()}
    assert factors == {"feature": 50.0, "mean": 2500.0, "variance": 2.5, "attention": 0.5}
    per_24 = [factor / 24 for factor in mobilebert.FACTORS.values()]
    np.testing.assert_allclose(per_24, [4.17, 208, 0.21, 0.042], rtol=1e-2)
    assert {name: weight for name, (weight, _) in answers["losses"].items()} == {
        "label": 0.5,
        "soft": 0.5,
    }
    (stage,) = stages(monkeypatch, steps_per_layer=0)  # no phases
    assert stage["stage"] == "answers"


def test_a_phase_reads_its_layer_alone(monkeypatch):
    """Layer l of 2 learns from layer 2 l of 4."""
    read = {}

    class Names(dict):
        def __getitem__(self, key):
            read.setdefault(self["who"], set()).add(key) if key != "who" else None
            return dict.__getitem__(self, "who") if key == "who" else SOME[key[0]]

    SOME = {"hidden_states": STATES, "attention_scores": SCORES}
    for layer, stage in zip((1, 2), stages(monkeypatch, still(num_layers=4))):
        read.clear()
        for _, loss in stage["losses"].values():
            loss(Names(who="T"), Names(who="S"), None, MASK)
        assert read["T"] == {("hidden_states", 2 * layer), ("attention_scores", 2 * layer - 1)}
        assert read["S"] == {("hidden_states", layer), ("attention_scores", layer - 1)}


def moved_in(stage):
    """{part of the student: largest change of a weight} by one update."""
    student = stage["student"]
    before = student.weights()
    distill(**{**stage, "num_steps": 1, "training": stage["training"].replace(weight_decay=0.0)})
    largest = {}
    for name, value in student.weights().items():
        part = name[:7] if name.startswith("layer_") else name.split("_")[0].split("/")[0]
        change = np.abs(value - before[name]).max()
        largest[part] = max(largest.get(part, 0.0), change)
    return largest


def test_the_phase_gate_and_the_rates_of_layers(monkeypatch):
    """Later layers rest; AdamW's first update is the rate itself, of earlier layers a tenth of it."""
    rate = TRAINING.learning_rate
    for phase, layers in ((0, {"layer_0": 1.0}), (1, {"layer_0": 0.1, "layer_1": 1.0})):
        stage = stages(monkeypatch)[phase]
        moved = moved_in(stage)
        embeddings = 1.0 if phase == 0 else 0.1
        for part in ("layer_0", "layer_1", "classifier", "word", "position"):
            share = layers.get(part, embeddings if part in ("word", "position") else 0.0)
            np.testing.assert_allclose(moved[part], share * rate, rtol=0.02, err_msg=part)


def test_queries_and_keys_move_although_clipping_leaves_them_little(monkeypatch):
    """AdamW's first update is the rate times g / (|g| + epsilon): far below epsilon, a hundredth of it moves 100 times."""
    middle = {}
    for epsilon in (mobilebert.EPSILON, 1e-6):
        monkeypatch.setattr(mobilebert, "EPSILON", epsilon)
        stage = stages(monkeypatch, config={"initializer_range": 0.05})[0]
        before, training = stage["student"].weights(), stage["training"].replace(weight_decay=0.0)
        after = distill(**{**stage, "num_steps": 1, "training": training}).weights()
        names = ("layer_0_query/kernel", "layer_0_key/kernel")
        moved = np.concatenate([np.abs(after[name] - before[name]).ravel() for name in names])
        middle[epsilon] = np.median(moved) / TRAINING.learning_rate
    assert middle[1e-8] > 50 * middle[1e-6] > 0.0


def test_frozen_earlier_layers_stay_to_the_last_bit(monkeypatch):
    stage = stages(monkeypatch, earlier_rate=0.0)[1]
    before = stage["student"].weights()
    distill(**stage)
    after = stage["student"].weights()
    assert all((before[x] == after[x]).all() for x in before if not x.startswith("layer_1_"))
    assert any((before[x] != after[x]).any() for x in before if x.startswith("layer_1_"))


def test_any_bert_teaches_through_projections_which_train(monkeypatch):
    config = {"hidden_size": 12, "bottleneck_size": 4, "num_heads": 4}
    stage = stages(monkeypatch, config=config)[0]
    assert stage["student"].config.hidden_size == 12 and len(stage["layers"]) == 2
    W, mix = stage["layers"]
    before = W.get_weights() + mix.get_weights()
    distill(**stage)
    after = W.get_weights() + mix.get_weights()
    assert all((a != b).any() for a, b in zip(after, before))
    short, long = (values_on(stage, length=n) for n in (12, 16))  # padding changes nothing
    for name in short:
        np.testing.assert_allclose(short[name], long[name], rtol=1e-4, atol=1e-6)


def test_a_teacher_that_lost_heads_is_mixed_layer_by_layer(monkeypatch):
    teacher = heads.cut(shared_still(), "heads", [[1], [0, 1]])
    first, second = stages(monkeypatch, teacher)[:2]
    (mix,) = first["layers"]
    assert mix.M.shape == (1, 2) and not second["layers"]  # equal numbers need none
    assert first["student"].config.heads == [2, 2]


def test_the_student_starts_from_the_teachers_embeddings_and_head(monkeypatch):
    teacher = still(pooling="cls")
    config = {"embedding_size": 8, "trigram": True}
    student = stages(monkeypatch, teacher, config=config)[0]["student"]
    ours, theirs = student.weights(), teacher.weights()
    # at full rank the factors give the whole table back; the neighbours' parts are 0
    table, kernel = ours["word_embeddings/embeddings"], ours["embedding_projection/kernel"]
    np.testing.assert_allclose(
        table @ kernel[8:16], theirs["word_embeddings/embeddings"], atol=1e-5
    )
    assert not kernel[:8].any() and not kernel[16:].any()
    for name in ("position_embeddings/embeddings", "classifier/kernel"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert student.config.pooling == "cls" and student.config.norm == "none"
    # without neighbours the NoNorm gives what the LayerNorm gives on average: 1 per unit for gamma 1, beta 0
    rows = theirs["word_embeddings/embeddings"] + theirs["position_embeddings/embeddings"].mean(0)
    rows += theirs["type_embeddings/embeddings"][0]
    normed = rows * ours["embeddings_norm/gamma"] + ours["embeddings_norm/beta"]
    np.testing.assert_allclose([normed.mean(), normed.var(-1).mean()], [0, 1], atol=1e-4)
    pooled = stages(monkeypatch)[0]["student"]  # of a teacher with a pooler: a raw [CLS]
    assert pooled.config.pooling == "cls" and "pooler/kernel" not in pooled.weights()


@pytest.mark.parametrize(
    "task, changes", [("tagging", {}), ("classification", {"classifier": "branch"})]
)
def test_a_head_that_reads_the_states_themselves_is_the_teachers(monkeypatch, task, changes):
    """Whatever `pooling` says: nothing pools here."""
    teacher = still(task, **changes)
    (stage,) = stages_of(
        *(mobilebert, monkeypatch, teacher, data(task)), num_layers=2, steps_per_layer=0
    )
    ours, theirs = stage["student"].weights(), teacher.weights()
    for name in [name for name in theirs if name.startswith("classifier")]:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_a_start_without_the_teachers_factors(monkeypatch):
    """A whole table is copied; a NoNorm takes nothing from a LayerNorm in front of which other vectors stand."""
    gamma, table = "embeddings_norm/gamma", "word_embeddings/embeddings"
    teacher = still(pooling="cls")
    scaled = {gamma: 3.0 * teacher.weights()[gamma]}
    teacher.set_weights(teacher.weights() | scaled)
    whole = stages(monkeypatch, teacher, config={"embedding_size": 8, "trigram": False})[0]
    ours = whole["student"].weights()
    np.testing.assert_array_equal(ours[table], teacher.weights()[table])
    np.testing.assert_array_equal(ours[gamma], mobilebert.no_norm(teacher.weights())[0])
    narrow = still(embedding_size=4)
    narrow.set_weights(narrow.weights() | scaled)
    for norm, want in (("none", 1.0), ("layer", 3.0)):
        student = stages(monkeypatch, narrow, config={"norm": norm})[0]["student"]
        np.testing.assert_array_equal(student.weights()[gamma], want)
    thinner = {"hidden_size": 4, "bottleneck_size": 2}  # as wide as the teacher's table
    assert stages(monkeypatch, narrow, config=thinner)[0]["student"].config.hidden_size == 4


def test_the_general_stage_and_then_a_task(monkeypatch):
    teacher = masked_lm()
    general = mobilebert.mobilebert_general(
        teacher, unlabelled(), training=TRAINING, num_layers=1, config={"embedding_size": 4}
    )
    assert general.task == "mlm" and "mlm_extra/kernel" in general.weights()
    assert {row["stage"] for row in general.curve} == {"phase-1", "answers"}
    (stage, *_) = stages(monkeypatch, still(pooling="cls"), student=general, num_layers=1)
    student = stage["student"]
    assert student.config.replace(pooling="cls") == general.config
    np.testing.assert_array_equal(
        student.weights()["layer_0_up/kernel"], general.weights()["layer_0_up/kernel"]
    )
    with pytest.raises(ValueError, match="must be a masked-LM model. Received: a classification"):
        mobilebert.mobilebert_general(still(), unlabelled(), training=STEPS, num_layers=2)


def test_the_general_answers_by_hand(monkeypatch):
    *_, stage = stages_of(
        *(mobilebert, monkeypatch, masked_lm(), unlabelled(), "mobilebert_general"),
        num_layers=1,
        temperature=2.0,
    )
    z_T, z_S = tf.math.log([[0.75, 0.25]]), tf.math.log([[0.5, 0.5]])
    (_, label), (_, soft) = stage["losses"].values()
    labels = tf.constant([[-1, 1]])
    np.testing.assert_allclose(label({}, {"logits": z_S}, labels, None), np.log(2), rtol=1e-5)
    p = np.array([0.75, 0.25]) ** 0.5
    p /= p.sum()
    # T^2 KL(softmax(z_T / 2) || (.5, .5))
    want = 4 * (p * np.log(p / 0.5)).sum()
    value = soft({"logits": z_T}, {"logits": z_S}, labels, None)
    np.testing.assert_allclose(value, want, rtol=1e-4)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps_per_layer": 6}, "must leave updates .*Received: 6 x 2 of 12.*Lower `steps_per"),
        (
            {"training": TRAINING.replace(epochs=0.5)},
            "Received: 1 x 2 of 2 updates.*raise `epochs`",
        ),
        (
            {"num_layers": 3},
            "multiple of the small one's for phases. Received: 2 and 3. Choose 1, 2",
        ),
        ({"student": still(), "config": {"num_ffn": 2}}, "must be those of `student`. Received: 2"),
        ({"config": {"width": 3}}, "`config` must be fields of BertConfig.*Received: .*width"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    settings = {"num_layers": 2, "training": STEPS, **settings}
    with pytest.raises(ValueError, match=message):
        mobilebert.compress(shared_still(), data(), **settings)


def test_in_the_last_stage_all_trains_and_nothing_drops_out():
    small = mobilebert.compress(still(), data(), training=STEPS, num_layers=1)
    assert small.history[-1]["phase_length"] == 4  # a third of 12 updates
    assert (small.config.dropout, small.config.attention_dropout) == (0.0, 0.0)
    start = mobilebert.new_student(still(), 1, {}, seed=0).weights()
    for name, weight in small.weights().items():
        assert np.any(weight != start[name]) or name.endswith("key/bias"), name
    assert small.model(inputs_of(small)).shape == (4, 3)
