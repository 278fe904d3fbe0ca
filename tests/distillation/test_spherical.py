import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.distillation import spherical
from keras_compress.distillation.spherical import mean_norm, on_one_sphere, spherical_losses
from keras_compress.training.losses import soft_targets, true_labels
from tests.support import TRAINING, data, lengths, stages_of, still, values_of, values_on

SCALES = ["norm", "layernorm", "teacher_std"]
LABELS = tf.constant([0, 1, 2, 3, 4, 0])


def logits(seed=0):
    """Logits of six texts and five classes, teacher's and student's: float64."""
    z_T, z_S = np.random.default_rng(seed).normal(1.0, 3.0, (2, 6, 5))
    return tf.constant(z_T), tf.constant(z_S)


def losses_on(z_T, z_S, labels=LABELS, **settings):
    losses = spherical_losses(**{"l_avg": 7.0, **settings})
    return values_of(losses, {"logits": z_T}, {"logits": z_S}, labels)


def test_losses_by_hand():
    z_T, z_S = tf.constant([[3.0, 4.0]]), tf.constant([[4.0, 3.0]])  # both of norm 5
    values = losses_on(z_T, z_S, tf.constant([1]), l_avg=10.0, temperature=2.0)
    # z' = (6, 8) and (8, 6), over T = 2: p = (.2689, .7311), q = (.7311, .2689).
    # T^2 KL = 4 (.2689 ln(.2689/.7311) + .7311 ln(.7311/.2689)) = 4 (-.2689 + .7311) = 1.8485
    np.testing.assert_allclose(values["soft"], 1.8485, atol=1e-4)
    # of the normalised logits: -ln(e^6 / (e^8 + e^6)) = 2 + ln(1 + e^-2) = 2.1269; of the raw ones 1.3133
    np.testing.assert_allclose(values["label"], 2.1269, atol=1e-4)


def test_scales_by_hand():
    z_T, z_S = tf.constant([[0.0, 0.0, 6.0]]), tf.constant([[1.0, 2.0, 3.0]])
    # std(z_S) = sqrt(2/3) = .8165: z~ / std = (-1.2247, 0, 1.2247); twice that
    np.testing.assert_allclose(
        on_one_sphere(z_T, z_S, "layernorm", 2.0)[1], [[-2.4495, 0, 2.4495]], atol=1e-4
    )
    # std(z_T) = sqrt(8) = 2.8284: times 2.8284 / .8165 = 3.4641; the teacher stays
    teacher, student = on_one_sphere(z_T, z_S, "teacher_std")
    np.testing.assert_array_equal(teacher, z_T)
    np.testing.assert_allclose(student, [[-3.4641, 0, 3.4641]], atol=1e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_the_students_length_changes_nothing(scale):
    z_T, z_S = logits()
    values = losses_on(z_T, z_S, scale=scale)
    shift = 0.0 if scale == "norm" else 11.0  # centred forms ignore a constant, too
    for factor in (0.01, 30.0):
        again = losses_on(z_T, factor * z_S + shift, scale=scale)
        np.testing.assert_allclose([*again.values()], [*values.values()], rtol=1e-9)
    assert values["soft"] > 0.1


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["soft", "label"])
def test_the_gradient_is_orthogonal_to_the_students_logits(scale, name):
    z_T, z_S = logits()
    with tf.GradientTape() as tape:
        tape.watch(z_S)
        value = losses_on(z_T, z_S, scale=scale)[name]
    gradient = tape.gradient(value, z_S)
    z = z_S if scale == "norm" else spherical.centred(z_S)
    assert np.abs(tf.reduce_sum(gradient * z, axis=-1)).max() < 1e-6
    assert np.abs(gradient).max() > 1e-3


def test_every_row_has_the_norm_l_avg():
    z_T, z_S = logits()
    for rows in on_one_sphere(z_T, z_S, "norm", 7.0):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 7.0)
    for rows in on_one_sphere(z_T, z_S, "layernorm", 7.0):
        np.testing.assert_allclose(np.std(rows, axis=-1), 7.0)
    _, student = on_one_sphere(z_T, z_S, "teacher_std")
    np.testing.assert_allclose(np.std(student, axis=-1), np.std(z_T, axis=-1))


@pytest.mark.parametrize("scale", SCALES)
def test_equal_directions_have_no_soft_loss(scale):
    _, z = logits()
    np.testing.assert_allclose(losses_on(4.0 * z, z, scale=scale)["soft"], 0.0, atol=1e-9)


def test_layernorm_is_norm_on_centred_logits():
    z_T, z_S = logits()
    values = losses_on(z_T, z_S, scale="layernorm", l_avg=2.0)
    centred = (spherical.centred(z) for z in (z_T, z_S))
    same = losses_on(*centred, scale="norm", l_avg=2.0 * 5**0.5)  # m sqrt(C)
    np.testing.assert_allclose([*values.values()], [*same.values()], rtol=1e-9)
    # the authors' std divides by C - 1: shorter by sqrt((C - 1) / C)
    theirs = 2.0 * spherical.centred(z_S) / np.std(z_S, axis=-1, ddof=1, keepdims=True)
    ours = on_one_sphere(z_T, z_S, "layernorm", 2.0)[1]
    np.testing.assert_allclose(theirs, ours * (4 / 5) ** 0.5)


def test_where_the_scales_agree_it_is_soft_targets():
    z_T, z_S = logits()
    on_7 = on_one_sphere(z_T, z_S, "norm", 7.0)
    like_teacher = z_T, on_one_sphere(z_T, z_S, "teacher_std")[1]
    for pair, scale in ((on_7, "norm"), (like_teacher, "teacher_std")):
        T, S = ({"logits": z} for z in pair)
        values = losses_on(*pair, scale=scale, temperature=3.0)
        np.testing.assert_allclose(values["soft"], soft_targets(3.0)(T, S, LABELS, None))
        np.testing.assert_allclose(values["label"], true_labels(T, S, LABELS, None))


@pytest.mark.parametrize("scale", SCALES)
def test_logits_of_zero_give_finite_losses_and_gradients(scale):
    z_T, z_S = logits()[0], tf.zeros((6, 5), tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(z_S)
        value = tf.add_n([*losses_on(z_T, z_S, scale=scale).values()])
    assert np.isfinite(value) and np.isfinite(tape.gradient(value, z_S)).all()


def test_l_avg_is_measured_once_on_train(monkeypatch):
    teacher, texts = still(), lengths()
    rows = np.stack(teacher.forward(teacher.tokenizer.encode(texts.train.texts, 16)))
    norm, std = np.linalg.norm(rows, axis=-1).mean(), rows.std(axis=-1).mean()
    assert mean_norm(teacher, texts, TRAINING) == pytest.approx(norm, rel=1e-5)
    assert mean_norm(teacher, texts, TRAINING, "layernorm") == pytest.approx(std, rel=1e-5)
    monkeypatch.setattr(spherical, "distill", lambda *_, **__: None)
    small = spherical.compress(teacher, texts, training=TRAINING, num_layers=1)
    assert small.history[-1]["l_avg"] == pytest.approx(norm, rel=1e-5)
    monkeypatch.setattr(spherical, "mean_norm", None)  # who gives it, or needs none, measures none
    for settings, l_avg in (({"l_avg": 3.0}, 3.0), ({"scale": "teacher_std"}, None)):
        small = spherical.compress(teacher, texts, training=TRAINING, num_layers=1, **settings)
        assert small.history[-1]["l_avg"] == l_avg


def test_pieces_without_a_label_count_neither_in_l_avg_nor_in_the_losses(monkeypatch):
    teacher, texts = still("tagging"), data("tagging")
    inputs, labels = next(iter(texts.batches("train", teacher.tokenizer, 12, 16)))
    z = teacher.model(inputs).numpy()[labels.numpy() >= 0]
    norm = np.linalg.norm(z, axis=-1).mean()
    assert mean_norm(teacher, texts, TRAINING) == pytest.approx(norm, rel=1e-5)
    z_T, z_S = logits()
    values = losses_on(z_T, z_S, tf.constant([0, 1, 2, -1, -1, -1]))
    first = losses_on(z_T[:3], z_S[:3], LABELS[:3])
    np.testing.assert_allclose([*values.values()], [*first.values()])


def test_weights_and_padding(monkeypatch):
    (stage,) = stages_of(spherical, monkeypatch, still(), data(), num_layers=1, alpha=0.75)
    assert {name: weight for name, (weight, _) in stage["losses"].items()} == {
        "soft": 0.75,
        "label": 0.25,
    }
    short, long = (values_on(stage, length=length) for length in (12, 16))
    np.testing.assert_allclose([*long.values()], [*short.values()], rtol=1e-4)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"scale": "layernorm"}, "two centred logits .* no gradient.*Received: 'layernorm'"),
        ({"scale": "teacher_std"}, "Received: 'teacher_std'. Take scale=\"norm\""),
    ],
)
def test_centred_forms_need_three_labels(settings, message):
    with pytest.raises(ValueError, match=message):
        spherical.compress(
            still("matching"), data("matching"), training=TRAINING, num_layers=1, **settings
        )
    # why: whatever the student says, its centred answer has one of two values, and no gradient
    z_S = tf.constant([[1.0, 0.5], [100.0, -3.0]])
    with tf.GradientTape() as tape:
        tape.watch(z_S)
        student = on_one_sphere(z_S, z_S, "layernorm", 2.0)[1]
        first = student[:, 0]
    np.testing.assert_allclose(student[0], student[1], rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(first, z_S), 0.0, atol=1e-5)


def test_a_scale_of_its_own_takes_no_l_avg():
    with pytest.raises(ValueError, match="Received: l_avg = 2.0. Leave it out"):
        spherical.compress(
            still(), data(), training=TRAINING, num_layers=1, scale="teacher_std", l_avg=2.0
        )


def test_the_student_learns_the_directions():
    training = TRAINING.replace(epochs=8, evaluations=0)
    small = spherical.compress(still(), data(), training=training, num_layers=1, alpha=1.0)
    assert small.curve[-1]["soft"] < 0.5 * small.curve[0]["soft"]
    assert "label" not in small.curve[-1] and small.history[-1]["layers"] == [0]
