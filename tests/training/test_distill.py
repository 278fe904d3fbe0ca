import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.task_model import TaskModel
from keras_compress.training import distill as D
from keras_compress.training.finetune import tune
from keras_compress.training.losses import label_loss, masked_mean, soft_label_loss
from tests.bert import tiny
from tests.support import (
    TRAINING,
    bilstm,
    data,
    foreign,
    inputs_of,
    masked_lm,
    shared_still,
    still,
)

SHORT = TRAINING.replace(evaluations=0)
LOSSES = {
    "soft": lambda T, S, labels, mask: masked_mean(soft_label_loss(T["logits"], S["logits"])),
    "label": lambda T, S, labels, mask: label_loss(labels, S["logits"]),
    "hidden": lambda T, S, labels, mask: squares(T["hidden_states", 1], S["hidden_states", 1]),
    "cls": lambda T, S, labels, mask: squares(
        T["hidden_states", 2, "cls"], S["hidden_states", 2, "cls"]
    ),
    "attention": lambda T, S, labels, mask: squares(
        T["attention_scores", 0], S["attention_scores", 0]
    ),
}


def squares(teacher, student):
    return tf.reduce_mean(tf.square(teacher - student))


def distilled(teacher, student, weights={"soft": 1.0}, **changes):
    """Trains `student` in place on weighted losses; returns its curve."""
    losses = {name: (weight, LOSSES[name]) for name, weight in weights.items()}
    settings = {"training": SHORT, "seed": 0, "num_steps": 1, **changes}
    return D.distill(teacher, student, data(), losses, **settings).curve


def read(teacher, student, *names):
    return D.outputs_read([LOSSES[name] for name in names], teacher, student)


def test_outputs_by_name():
    model = still(num_layers=3)
    names = ["logits", "hidden_states/0", "hidden_states/3/cls", "attention_scores/2"]
    outputs = D.Outputs(D.named_outputs(model, names)(inputs_of(model)))
    features = model.features(["hidden_states", "attention_scores", "logits"])(inputs_of(model))
    assert {*outputs} == {*names}
    np.testing.assert_array_equal(outputs["hidden_states", 0], features["hidden_states"][0])
    np.testing.assert_array_equal(
        outputs["hidden_states", 3, "cls"], features["hidden_states"][3][:, 0]
    )
    np.testing.assert_array_equal(outputs["attention_scores", 2], features["attention_scores"][2])
    np.testing.assert_array_equal(outputs["logits"], features["logits"])


def test_what_the_losses_read_is_learned_from_the_losses():
    teacher, student = still(), still(seed=5)
    assert read(teacher, student, "label") == ([], ["logits"])
    assert read(teacher, student, "soft", "label") == (["logits"], ["logits"])
    theirs, ours = read(teacher, student, "cls", "attention")
    assert theirs == ours == ["hidden_states/2/cls", "attention_scores/0"]


@pytest.mark.usefixtures("eager_here")
def test_a_loss_of_weight_0_is_left_out_and_its_outputs_are_not_read():
    weights = {"soft": 1.0, "attention": 0.0, "hidden": 0}  # the student could show neither
    curve = distilled(shared_still(), bilstm(), weights)
    assert "soft" in curve[-1] and not {"attention", "hidden"} & {*curve[-1]}
    with pytest.raises(ValueError, match="A loss must have a weight above 0. Received: none"):
        distilled(shared_still(), shared_still(seed=5), {"soft": 0.0, "label": 0.0})


def test_the_loss_is_the_weighted_sum_and_a_schedule_takes_effect_with_each_update():
    weights = {"soft": lambda step: tf.gather([0.0, 0.25, 1.0], step), "label": 2.0}
    curve = distilled(shared_still(), still(seed=5), weights, num_steps=3)
    assert [row["step"] for row in curve] == [1, 2, 3]
    for row, weight in zip(curve, (0.0, 0.25, 1.0)):
        expected = weight * row["soft"] + 2.0 * row["label"]
        assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_one_step_moves_every_weight_of_the_student_and_none_of_the_teacher():
    teacher, student = still(), still(seed=5)
    before, start = teacher.weights(), student.weights()
    distilled(teacher, student)
    np.testing.assert_equal(teacher.weights(), before)
    for name, value in student.weights().items():
        rows = "embeddings" in name  # rows that no text uses stay
        # Softmax does not see a key's bias: its gradient is rounding.
        assert np.any(value != start[name]) or rows or name.endswith("key/bias"), name


@pytest.mark.usefixtures("eager_here")
def test_labels_alone_are_plain_training():
    """Without a weight on the teacher the update is fine-tuning's, but for the order of sums."""
    student, plain = still(seed=5), still(seed=5)
    distilled(shared_still(), student, {"label": 1.0}, num_steps=3)
    tune(plain, data(), seed=0, training=SHORT, num_steps=3)
    for name, value in plain.weights().items():
        np.testing.assert_allclose(student.weights()[name], value, atol=2e-5, err_msg=name)


@pytest.mark.usefixtures("eager_here")
def test_the_teacher_answers_without_dropout_and_the_student_learns_with_its_own():
    teacher = tiny.model(dropout=0.5, attention_dropout=0.5)
    same = teacher.clone(config=teacher.config.replace(dropout=0.0, attention_dropout=0.0))
    assert distilled(teacher, same)[0]["soft"] < 1e-6
    assert distilled(teacher, teacher.clone())[0]["soft"] > 1e-3


@pytest.mark.parametrize("make", [foreign, bilstm])
def test_a_student_learns_also_with_another_vocabulary_or_as_a_bilstm(make):
    training = SHORT.replace(learning_rate=3e-2)
    curve = distilled(shared_still(), make(), training=training, num_steps=40)
    assert curve[-1]["soft"] < 0.3 * curve[0]["soft"]


def test_with_other_pieces_whole_texts_can_be_compared_and_tokens_cannot():
    assert read(shared_still(), foreign(), "soft", "cls")[0] == ["logits", "hidden_states/2/cls"]
    for teacher, student, name in (
        (shared_still(), foreign(), "hidden"),
        (shared_still(), foreign(), "attention"),
        (shared_still("tagging"), foreign("tagging", tiny.LABELS["tagging"]), "soft"),
        (masked_lm(), foreign("mlm", ()), "soft"),
    ):
        sizes = f"{len(tiny.VOCAB)} and {len(tiny.VOCAB) + 1} pieces, lowercase True and True"
        with pytest.raises(ValueError, match=f"cut texts alike. Received: {sizes}. Take losses on"):
            read(teacher, student, name)


@pytest.mark.parametrize(
    "student, name, message",
    [
        (
            lambda: still(num_heads=4),
            "attention",
            "able to compare .*Received: `num_heads` 2 and 4",
        ),
        (
            lambda: still(num_heads=1),
            "attention",
            "able to compare .*Received: `num_heads` 2 and 1",
        ),
        (lambda: still(hidden_size=4), "hidden", "Received: Dimensions .*a method with a projec"),
        (lambda: still(hidden_size=4), "cls", "must be able to compare .*losses on logits"),
        (
            lambda: still(num_layers=1),
            "cls",
            "`hidden_states` must be read with a number, 0 to 1 in this model.*Received: 'hidden_states/2",
        ),
        (bilstm, "attention", "Outputs must be among .*Received: attention_scores"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(student, name, message):
    with pytest.raises(ValueError, match=message):
        read(tiny.shared(), student(), name)


@pytest.mark.parametrize(
    "loss, message",
    [
        (lambda T, S, labels, mask: S["logit"][0, 0], "^Outputs must be among .*Received: logit"),
        (
            lambda T, S, labels, mask: S["hidden_states"],
            "^`hidden_states` must be read with a number",
        ),
        (lambda T, S, labels, mask: S["logits"][:, 0], "^A loss must give a scalar.*masked_mean"),
    ],
)
def test_a_wrong_loss_is_told_what_is_wrong(loss, message):
    with pytest.raises(ValueError, match=message):
        D.outputs_read([loss], shared_still(), shared_still())


def test_a_student_that_quantises_or_reads_less_than_the_texts_is_refused():
    quantized = still()
    quantized.config = quantized.config.replace(
        quantization={"bits": 8, "activations": "dynamic", "decay": 0.9, "start_step": 0}
    )
    with pytest.raises(ValueError, match="must be the last of a chain"):
        distilled(shared_still(), quantized)
    with pytest.raises(ValueError, match="`max_length` must be at most 8.*Received: 16"):
        distilled(shared_still(), still(max_position_embeddings=8))


def test_start_student(tmp_path, caplog):
    teacher = still(num_layers=3)
    own = D.start_student(teacher, None, [0, 2], seed=0)
    np.testing.assert_array_equal(
        own.weights()["layer_1_query/kernel"], teacher.weights()["layer_2_query/kernel"]
    )
    other = still("matching", num_layers=3, seed=9)  # gets a head for the teacher's task
    student = D.start_student(teacher, other, [0, 1], seed=0)
    assert (student.task, student.labels) == ("classification", teacher.labels)
    assert student.config.num_layers == 2
    assert "of the 3 layers of `student` the bottom 2 are kept" in caplog.text
    np.testing.assert_array_equal(
        student.weights()["layer_1_query/kernel"], other.weights()["layer_1_query/kernel"]
    )
    same = still(num_layers=2)
    copy = D.start_student(teacher, same, [0, 1], seed=0)
    assert not {id(v) for v in copy.model.weights} & {id(v) for v in same.model.weights}
    with pytest.raises(ValueError, match="`num_layers` layers or more. Received: 2 and 3. Set num"):
        D.start_student(teacher, same, [0, 1, 2], seed=0)


@pytest.mark.usefixtures("eager_here")
def test_a_checkpoint_holds_the_student_alone_and_a_finished_stage_is_not_run_again(tmp_path):
    student, training = still(seed=5), SHORT.replace(folder=str(tmp_path))
    distilled(shared_still(), student, training=training)
    (checkpoint,) = tmp_path.rglob("*.index")
    names = [name for name, _ in tf.train.list_variables(str(checkpoint)[:-6])]
    weights = [name for name in names if name.startswith("model/") and "SLOT" not in name]
    assert 0 < len(weights) < 1.5 * len(student.model.weights)  # one model, not two
    again = still(seed=5)
    distilled(shared_still(), again, training=training)
    np.testing.assert_equal(again.weights(), student.weights())
    with pytest.raises(ValueError, match="distill holds the checkpoints of another command"):
        distilled(shared_still(), still(seed=5), {"soft": 1.0, "label": 1.0}, training=training)


def broken(hidn, folder, num_steps=8, student=None):
    """Trains on a loss `hidn` that breaks down: the message, the student, and what was kept."""
    student, losses = student or still(seed=5), {"soft": (1.0, LOSSES["soft"]), "hidn": (1.0, hidn)}
    training = SHORT.replace(folder=str(folder), epochs=num_steps)
    with pytest.raises(ValueError, match="must stay finite. Received: ") as error:
        D.distill(
            shared_still(),
            student,
            data(n=4),
            losses,
            training=training,
            seed=0,
            num_steps=num_steps,
        )
    kept = [TaskModel.load(path).weights() for path in folder.glob("distill/before-*")]
    return str(error.value), student, kept


@pytest.mark.usefixtures("eager_here")
def test_a_nan_names_the_update_and_the_loss_and_keeps_weights_whose_loss_was_finite(tmp_path):
    student = still(seed=5)
    start = tf.reduce_sum(student.model(inputs_of(student, data(n=4).train.texts)))
    before = student.weights()

    def hidn(T, S, labels, mask):  # NaN from the second update on
        total = tf.reduce_sum(S["logits"])
        return tf.where(tf.abs(total - start) > 1e-3, np.nan, 1.0) * total

    message, student, (kept,) = broken(hidn, tmp_path, student=student)
    assert "hidn = nan at update 2 of stage distill" in message
    assert "after update 0 are in" in message
    np.testing.assert_equal(kept, before)  # update 1 made the weights that gave the NaN
    np.testing.assert_equal(student.weights(), before)


@pytest.mark.parametrize("num_steps", [1, 40])
def test_an_update_that_breaks_the_weights_is_noticed_though_its_loss_was_finite(
    num_steps, tmp_path
):
    update = tf.Variable(-1)  # the losses run once on symbols, too

    def hidn(T, S, labels, mask):
        last = update.assign_add(1) == num_steps
        total = tf.reduce_sum(S["logits"])
        return tf.sqrt(tf.where(last, 0.0, 1.0) * tf.square(total))  # slope at 0: NaN

    update.assign(0)
    message, student, (kept,) = broken(hidn, tmp_path, num_steps)
    assert f"a weight that is not finite after update {num_steps}" in message
    for weights in (kept, student.weights()):
        assert all(np.isfinite(value).all() for value in weights.values())


@pytest.mark.usefixtures("eager_here")
def test_a_stage_that_begins_with_broken_weights_keeps_none(tmp_path):
    student = still(seed=5)
    student.set_weights({"classifier/bias": np.full(3, 1e38, np.float32)}, only=["classifier/bias"])
    message, _, kept = broken(
        lambda T, S, labels, mask: tf.reduce_sum(S["logits"] * 1e10), tmp_path, student=student
    )
    assert "hidn = inf at update 1" in message and not kept
    assert "No weights of this stage gave a finite loss" in message
