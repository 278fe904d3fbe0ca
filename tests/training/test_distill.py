import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert import checkpoints as weights
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import Tokenizer
from keras_compress.distillation import distilbert, pkd, tinybert
from keras_compress.pruning import layers
from keras_compress.quantization import q8bert
from keras_compress.replacement import theseus
from keras_compress.training import distill as D
from keras_compress.training.loop import Training, adamw
from tests.bert import tiny
from tests.replacement.test_theseus import data, inputs_of

TRAINING = Training(
    epochs=2, batch_size=4, max_length=16, learning_rate=1e-2, warmup=0.0, evaluations=1
)
LOGITS = tf.constant([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
OTHERS = tf.constant([[0.2, 0.1, -1.0], [2.0, 0.0, 0.0]])


def still(**changes):
    return tiny.model(dropout=0.0, attention_dropout=0.0, **changes)


def bilstm(labels=tiny.LABELS["classification"], task="classification", seed=3):
    config = tiny.config(architecture="bilstm", num_layers=1, intermediate_size=5, pooling="mean")
    return TaskModel(config, tiny.tokenizer(), task, labels, seed=seed)


def test_soft_target_loss_by_hand():
    teacher, student = tf.math.log([[0.75, 0.25]]), tf.math.log([[0.5, 0.5]])
    # .75 ln(.75/.5) + .25 ln(.25/.5) = 0.3041 - 0.1733 = 0.1308 nats; over 2 classes .0654
    np.testing.assert_allclose(D.soft_target_loss(teacher, student), 0.1308, atol=1e-4)
    np.testing.assert_allclose(
        D.soft_target_loss(teacher, student, reduction="mean"), 0.0654, atol=1e-4
    )
    # cross-entropy: -(.75 + .25) ln .5 = 0.6931
    np.testing.assert_allclose(D.soft_target_loss(teacher, student, kind="ce"), 0.6931, atol=1e-4)


@pytest.mark.parametrize("method", [distilbert, pkd, tinybert])
def test_a_teacher_that_cannot_teach_is_refused(method):
    new_head = tiny.model(num_layers=4)
    new_head.history = [
        {"method": "load", "new": ["classifier/kernel"]},
        {"method": "vocabulary"},
        {"method": "tinybert", "training": {}, "num_answers": 0},
    ]  # neither trained the head
    other_labels = TaskModel(
        tiny.config(num_layers=4), tiny.tokenizer(), "classification", ("a", "b", "c")
    )
    for teacher, dataset, message in (
        (new_head, data(), "head must be trained"),
        (other_labels, data(), "the same labels"),
        (new_head, data("matching"), "one task"),
    ):
        with pytest.raises(ValueError, match=message):
            method.compress(teacher, dataset, num_layers=2)


def test_a_saved_student_may_have_the_head_of_other_labels(tmp_path, caplog):
    TaskModel(tiny.config(num_layers=3), tiny.tokenizer(), "classification", ("a", "b")).save(
        tmp_path / "s"
    )
    student = D.start_student(tiny.model(), tmp_path / "s", [0, 1], 0)
    assert (student.labels, student.config.num_layers) == (tiny.LABELS["classification"], 2)
    assert "of the 3 layers of `student` the bottom 2 are kept" in caplog.text


@pytest.mark.parametrize("temperature", [1.0, 2.0, 20.0])
def test_equal_logits_give_no_loss_and_no_gradient(temperature):
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = D.soft_target_loss(LOGITS, logits, temperature)
    np.testing.assert_allclose(loss, 0.0, atol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, logits), 0.0, atol=1e-6)
    uniform = tf.zeros((1, 7))
    np.testing.assert_allclose(D.soft_target_loss(uniform, uniform, temperature), 0.0, atol=1e-5)
    np.testing.assert_allclose(
        D.soft_target_loss(uniform, uniform, temperature, "ce"),
        temperature**2 * np.log(7),
        rtol=1e-5,
    )


def test_a_high_temperature_gives_the_difference_of_the_logits():
    teacher, student = (x - tf.reduce_mean(x, -1, keepdims=True) for x in (LOGITS[:1], OTHERS[:1]))
    student = tf.Variable(student)
    with tf.GradientTape() as tape:  # Hinton et al., Sec. 2.1: (z_S - z_T) / V
        loss = D.soft_target_loss(teacher, student, 1000.0)
    np.testing.assert_allclose(
        tape.gradient(loss, student), (student - teacher) / 3, rtol=1e-2, atol=1e-4
    )


def test_a_constant_added_to_the_logits_changes_nothing():
    for kind in ("kl", "ce"):
        np.testing.assert_allclose(
            D.soft_target_loss(LOGITS + 5.0, OTHERS - 3.0, 2.0, kind),
            D.soft_target_loss(LOGITS, OTHERS, 2.0, kind),
            rtol=1e-5,
        )


def test_the_teacher_receives_no_gradient_and_masked_rows_count_nowhere():
    teacher, student = tf.Variable(LOGITS), tf.Variable(OTHERS)
    with tf.GradientTape() as tape:
        loss = D.soft_target_loss(teacher, student, mask=tf.constant([True, False]))
    np.testing.assert_allclose(loss, D.soft_target_loss(LOGITS[:1], OTHERS[:1]), rtol=1e-6)
    to_teacher, to_student = tape.gradient(loss, [teacher, student])
    assert to_teacher is None and not np.any(to_student[1]) and np.any(to_student[0])


@pytest.mark.parametrize("factor, expected", [(2.0, 0.0), (0.1, 0.0), (-3.0, 2.0)])
def test_cosine_loss(factor, expected):
    h = tf.constant([[1.0, 2.0, -1.0]])
    np.testing.assert_allclose(D.cosine_loss(h, factor * h), expected, atol=1e-6)
    np.testing.assert_allclose(
        D.cosine_loss(tf.constant([[1.0, 0.0]]), tf.constant([[0.0, 2.0]])), 1.0, atol=1e-6
    )


def test_label_loss_leaves_out_minus_one():
    # ln(1 + 1 + 1) for equal logits; the second row does not count
    np.testing.assert_allclose(
        D.label_loss(tf.constant([0, -1]), tf.constant([[0.0, 0, 0], [9.0, 0, 0]])),
        np.log(3),
        rtol=1e-6,
    )
    assert D.label_loss(tf.constant([-1]), tf.zeros((1, 3))) == 0.0


def test_padding_changes_no_loss():
    values = tf.constant([[1.0, 2.0, 100.0]])
    np.testing.assert_allclose(D.masked_mean(values, tf.constant([[1, 1, 0]])), 1.5)
    assert D.masked_mean(tf.zeros((0,))) == 0.0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"temperature": 0.0}, "`temperature` must be positive. Received: 0.0"),
        ({"kind": "js"}, "`kind` must be one of"),
        ({"reduction": "sum"}, "Received: 'sum'"),
    ],
)
def test_errors_of_the_loss(changes, message):
    with pytest.raises(ValueError, match=message):
        D.soft_target_loss(LOGITS, OTHERS, **changes)


def test_outputs_by_name():
    model = still(num_layers=3)
    found = D.outputs(
        model,
        [
            "logits",
            "pooled",
            "hidden_states/0",
            "hidden_states/3",
            "hidden_states/3/cls",
            "attention_scores/2",
        ],
    )(inputs_of(model))
    features = model.features(["hidden_states", "attention_scores", "logits"])(inputs_of(model))
    np.testing.assert_allclose(found["hidden_states/3"], features["hidden_states"][3])
    np.testing.assert_allclose(found["hidden_states/3/cls"], features["hidden_states"][3][:, 0])
    np.testing.assert_allclose(found["attention_scores/2"], features["attention_scores"][2])
    np.testing.assert_allclose(found["logits"], features["logits"])
    with pytest.raises(ValueError, match="below 4. Received: hidden_states/4"):
        D.outputs(model, ["hidden_states/4"])


def distilled(teacher, student, weights={"soft": 1.0}, **changes):
    """Two epochs on the logits alone; what trains is `student`."""

    def objective(theirs, ours, labels, mask):
        return {
            "soft": D.soft_target_loss(theirs["logits"], ours["logits"]),
            "label": D.label_loss(labels, ours["logits"]),
        }

    settings = {"training": TRAINING, "seed": 0, "stage": "distill", "num_steps": 6, **changes}
    return D.distill(
        teacher,
        student,
        labelled(),
        objective,
        weights,
        teacher_outputs=["logits"],
        student_outputs=["logits"],
        **settings,
    )


def labelled():
    return data()


def test_one_step_moves_every_weight_of_the_student_and_none_of_the_teacher():
    teacher, student = still(), still(seed=5)
    before, start = teacher.weights(), student.weights()
    curve = distilled(teacher, student, num_steps=1)
    for name, value in teacher.weights().items():
        np.testing.assert_array_equal(value, before[name])
    unused = (
        "position_embeddings",
        "word_embeddings",
        "type_embeddings",
    )  # rows that no text uses stay
    for name, value in student.weights().items():
        assert (
            np.any(value != start[name]) or name.startswith(unused) or name.endswith("key/bias")
        ), name
    assert curve[-1]["soft"] == pytest.approx(curve[-1]["loss"]) and "label" not in curve[-1]


def test_the_loss_is_the_weighted_sum():
    curve = distilled(still(), still(seed=5), {"soft": 0.25, "label": 2.0}, num_steps=1)
    assert curve[0]["loss"] == pytest.approx(
        0.25 * curve[0]["soft"] + 2.0 * curve[0]["label"], rel=1e-5
    )


def test_labels_alone_are_plain_training():
    """With no weight on the teacher the update is fine-tuning's, to the last bit of the sums' order."""
    from keras_compress.training.loop import fit, task_loss

    student = still(seed=5)
    plain = student.clone()
    distilled(still(), student, {"label": 1.0}, num_steps=3)
    plain.model.compile(adamw(TRAINING, 3), task_loss("classification"), jit_compile=False)
    fit(plain.model, plain, labelled(), TRAINING, seed=0, stage="finetune", num_steps=3)
    for name, value in plain.weights().items():
        np.testing.assert_allclose(student.weights()[name], value, atol=2e-5, err_msg=name)


def test_the_student_learns_and_dropout_is_its_own():
    teacher, student = tiny.model(dropout=0.5, attention_dropout=0.5), still(seed=5)
    curve = distilled(teacher, student, training=TRAINING.replace(epochs=10), num_steps=60)
    assert curve[-1]["soft"] < 0.2 * curve[0]["soft"]
    # the teacher's answers are those of inference: one batch, student = teacher, no loss
    same = teacher.clone(config=teacher.config.replace(dropout=0.0, attention_dropout=0.0))
    assert distilled(teacher, same, num_steps=1)[0]["soft"] < 1e-6
    assert (
        distilled(teacher, teacher.clone(), num_steps=1)[0]["soft"] > 1e-3
    )  # the student drops out


def foreign(task="classification", labels=tiny.LABELS["classification"]):
    """A model with another vocabulary."""
    vocab = [*tiny.VOCAB[:5], *reversed(tiny.VOCAB[5:]), "extra"]
    config = tiny.config(vocab_size=len(vocab), dropout=0.0, attention_dropout=0.0, pooling="cls")
    return TaskModel(config, Tokenizer(vocab, True), task, labels, seed=7)


def test_a_student_with_another_vocabulary_reads_the_same_texts():
    curve = distilled(still(), foreign(), num_steps=60, training=TRAINING.replace(epochs=10))
    assert curve[-1]["soft"] < 0.3 * curve[0]["soft"]


def test_a_bilstm_learns_and_comes_back_from_disk(tmp_path):
    student = bilstm()
    curve = distilled(
        still(), student, num_steps=60, training=TRAINING.replace(epochs=10, learning_rate=3e-2)
    )
    assert curve[-1]["soft"] < 0.3 * curve[0]["soft"]
    student.save(tmp_path / "s")
    np.testing.assert_array_equal(
        TaskModel.load(tmp_path / "s").predict(tiny.TEXTS), student.predict(tiny.TEXTS)
    )


def test_a_killed_distillation_goes_on_with_the_same_weights(tmp_path):
    """The checkpoint holds the student alone, and the run that stopped half way ends like the one that did not."""
    teacher = tiny.model(seed=4)
    whole, half = tiny.model(seed=5), tiny.model(seed=5)
    distilled(teacher, whole, num_steps=6)
    folder = TRAINING.replace(folder=str(tmp_path), checkpoint_every=2, evaluations=2)
    with pytest.MonkeyPatch.context() as patch:

        def die(*_):
            raise KeyboardInterrupt

        patch.setattr(
            "keras_compress.training.loop._note_best", die
        )  # at the evaluation after update 3
        with pytest.raises(KeyboardInterrupt):
            distilled(teacher, half, training=folder, num_steps=6)
    (checkpoint,) = tmp_path.rglob("*.index")
    names = [name for name, _ in tf.train.list_variables(str(checkpoint)[:-6])]
    num_weights = len(
        [name for name in names if name.startswith("model/") and "OPTIMIZER_SLOT" not in name]
    )
    assert 0 < num_weights < 1.5 * len(half.model.weights)  # one model, not two
    fresh = tiny.model(seed=5)
    distilled(teacher, fresh, training=folder, num_steps=6)
    for name, value in whole.weights().items():
        np.testing.assert_allclose(fresh.weights()[name], value, atol=1e-6, err_msg=name)


def broken(objective, folder, num_steps=8, student=None):
    """Runs an objective that breaks down; the message, the student, and the weights that were kept, if any."""
    student = student or still(seed=5)
    with pytest.raises(ValueError, match="must stay finite. Received: ") as error:
        D.distill(
            still(),
            student,
            data(n=4),
            objective,
            {"soft": 1.0, "hidn": 1.0},
            teacher_outputs=["logits"],
            student_outputs=["logits"],
            training=TRAINING.replace(folder=str(folder), epochs=num_steps),
            seed=0,
            stage="distill",
            num_steps=num_steps,
        )
    kept = [TaskModel.load(path).weights() for path in folder.glob("distill/before-*")]
    return str(error.value), student, kept


def test_a_nan_names_the_update_and_the_part_and_keeps_weights_whose_loss_was_finite(tmp_path):
    student = still(seed=5)
    start, weights = (
        tf.reduce_sum(student.model(inputs_of(student, data(n=4).train.texts))),
        student.weights(),
    )

    def objective(theirs, ours, labels, mask):
        total = tf.reduce_sum(ours["logits"])
        return {
            "soft": D.soft_target_loss(theirs["logits"], ours["logits"]),
            "hidn": tf.where(tf.abs(total - start) > 1e-3, np.nan, 1.0) * total,
        }  # NaN from the second update on

    message, student, (kept,) = broken(objective, tmp_path, student=student)
    assert (
        "hidn = nan at update 2 of stage distill" in message and "after update 0 are in" in message
    )
    for name, value in weights.items():  # update 1 made the weights that gave the NaN
        np.testing.assert_array_equal(kept[name], value)
        np.testing.assert_array_equal(student.weights()[name], value)


@pytest.mark.parametrize("num_steps", [1, 40])
def test_an_update_that_breaks_the_weights_is_noticed_though_its_loss_was_finite(
    num_steps, tmp_path
):
    update = tf.Variable(0)

    def objective(theirs, ours, labels, mask):
        last = update.assign_add(1) == num_steps
        root = tf.sqrt(
            tf.where(last, 0.0, 1.0) * tf.square(tf.reduce_sum(ours["logits"]))
        )  # slope at 0: NaN
        return {"soft": D.soft_target_loss(theirs["logits"], ours["logits"]), "hidn": root}

    message, student, (kept,) = broken(objective, tmp_path, num_steps)
    assert f"a weight that is not finite after update {num_steps}" in message
    assert all(
        np.isfinite(value).all()
        for weights in (kept, student.weights())
        for value in weights.values()
    )


def test_a_stage_that_begins_with_broken_weights_keeps_none(tmp_path):
    student = still(seed=5)
    student.set_weights({"classifier/bias": np.full(3, 1e38, np.float32)}, only=["classifier/bias"])
    message, _, kept = broken(
        lambda theirs, ours, labels, mask: {
            "soft": tf.reduce_sum(ours["logits"] * 1e10),
            "hidn": 0.0,
        },
        tmp_path,
        student=student,
    )
    assert (
        "soft = inf at update 1" in message
        and "No weights of this stage gave a finite loss" in message
        and not kept
    )


@pytest.mark.parametrize("name", ["minilm", "bilstm"])
def test_a_folder_that_is_called_like_a_built_in_model_does_not_hide_it(
    name, tmp_path, monkeypatch
):
    tiny.model().save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "load", lambda source, **settings: (source, settings))
    assert weights.load_for(name, "classification", ("a", "b"), seed=3) == (
        name,
        {"task": "classification", "labels": ("a", "b"), "seed": 3},
    )
    assert weights.load_for(f"./{name}", "classification", ("a", "b")) == (f"./{name}", {"seed": 0})


def test_a_model_that_quantises_while_it_computes_is_no_student():
    quantized = q8bert.quantized(
        tiny.model(), {"bits": 8, "activations": "static", "decay": 0.9, "start_step": 0}
    )
    with pytest.raises(ValueError, match="must be the last of a chain"):
        distilbert.compress(
            tiny.model(), data(), num_layers=2, student=quantized, training=TRAINING
        )


def test_a_distilled_model_goes_on_to_truncation_and_theseus():
    small = distilbert.compress(still(num_layers=4), data(), training=TRAINING, num_layers=2)
    for method, name in ((layers, "layers"), (theseus, "theseus")):
        found = method.compress(small, data(), training=TRAINING, num_layers=1)
        assert found.config.num_layers == 1 and [
            entry["method"] for entry in found.history if entry["method"] in ("distilbert", name)
        ] == ["distilbert", name]


def test_start_student():
    teacher = tiny.model(num_layers=4)
    own = D.start_student(teacher, None, [1, 3], seed=0).weights()
    np.testing.assert_array_equal(
        own["layer_1_query/kernel"], teacher.weights()["layer_3_query/kernel"]
    )
    other = tiny.model("matching", num_layers=3, seed=9)
    student = D.start_student(teacher, other, [0, 1], seed=0)
    assert (student.task, student.labels, student.config.num_layers) == (
        "classification",
        teacher.labels,
        2,
    )
    np.testing.assert_array_equal(
        student.weights()["layer_1_query/kernel"], other.weights()["layer_1_query/kernel"]
    )


@pytest.mark.parametrize(
    "student, needs, message",
    [
        (lambda: tiny.model("matching"), {}, "one task and the same labels"),
        (lambda: bilstm(), {"same_hidden": True}, "between two BERTs only.*bilstm.*distilbert"),
        (
            lambda: tiny.model(hidden_size=4),
            {"same_hidden": True},
            "`hidden_size`.*8 and 4. Choose tinybert",
        ),
        (
            lambda: tiny.model(num_heads=4),
            {"same_heads": True},
            "`num_heads`.*2 and 4. Leave out the attention",
        ),
    ],
)
def test_pairs_that_cannot_be_compared(student, needs, message):
    with pytest.raises(ValueError, match=message):
        D.check_pair(tiny.shared(), student(), **needs)


@pytest.mark.parametrize("vocab, lowercase", [([*tiny.VOCAB, "new"], True), (tiny.VOCAB, False)])
def test_models_that_cut_texts_otherwise_cannot_be_compared_token_by_token(vocab, lowercase):
    def other(task):
        return TaskModel(
            tiny.config(vocab_size=len(vocab)), Tokenizer(vocab, lowercase), task, tiny.LABELS[task]
        )

    D.check_pair(tiny.shared(), other("classification"))
    for teacher, student, needs in (
        (tiny.shared(), other("classification"), {"inside": True}),
        (tiny.shared("tagging"), other("tagging"), {}),
    ):
        with pytest.raises(
            ValueError,
            match=f"cut texts alike. Received: {len(tiny.VOCAB)} and {len(vocab)} pieces",
        ):
            D.check_pair(teacher, student, **needs)


@pytest.mark.parametrize("short", ["teacher", "student"])
def test_texts_longer_than_one_of_the_models_can_read_are_refused(short):
    models = {
        name: still(seed=k, max_position_embeddings=8 if name == short else 16)
        for k, name in enumerate(("teacher", "student"))
    }
    with pytest.raises(ValueError, match="`max_length` must be at most 8, .* Received: 16"):
        distilled(models["teacher"], models["student"])


def test_a_new_head_is_no_teacher():
    model = tiny.model()
    model.history = [{"method": "load", "new": ["classifier/bias", "classifier/kernel"]}]
    with pytest.raises(
        ValueError,
        match="head must be trained. Received: one whose classifier/bias, classifier/kernel",
    ):
        D.check_trained(model)
    model.history.append({"method": "finetune", "training": {}})
    D.check_trained(model)


def test_a_student_of_fewer_layers_is_refused():
    with pytest.raises(
        ValueError, match="`student` must have `num_layers` layers or more. Received: 1 and 2. Set"
    ):
        D.start_student(tiny.model(), tiny.model(num_layers=1), [0, 1], seed=0)
