import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.config import BertConfig
from keras_compress.distillation import tinybert
from keras_compress.measure.cost import parameters
from keras_compress.training.distill import outputs_read
from tests.support import (
    TRAINING,
    data,
    inputs_of,
    masked_lm,
    shared_still,
    stages_of,
    still,
    unlabelled,
    values_of,
    values_on,
)

THIN = {"num_layers": 2, "hidden_size": 6, "num_heads": 2}


def stages(monkeypatch, teacher=None, dataset=None, **settings):
    settings = {"num_layers": 2, **settings}
    return stages_of(
        tinybert, monkeypatch, teacher or shared_still(), dataset or data(), **settings
    )


@pytest.mark.parametrize(
    "n, m, how, g",
    [
        (12, 4, "uniform", [0, 3, 6, 9, 12]),
        (12, 4, "top", [0, 9, 10, 11, 12]),
        (12, 4, "bottom", [0, 1, 2, 3, 4]),
        (6, 3, "uniform", [0, 2, 4, 6]),
        (6, 2, [1, 6], [0, 1, 6]),
    ],
)
def test_layer_map(n, m, how, g):
    assert tinybert.map_layers(n, m, how) == g


@pytest.mark.parametrize(
    "m, how, message",
    [
        (3, "uniform", "uniform map. Received: 4 and 3. Choose 1, 2, 4"),
        (2, [1], "must be 2 different .*among 1 to 4, rising"),
        (5, "top", "must be 1 to 4, the teacher's. Received: 5"),
    ],
)
def test_layers_that_do_not_fit(m, how, message):
    with pytest.raises(ValueError, match=message):
        tinybert.map_layers(4, m, how)


def test_parameters_of_the_papers_students():
    config = BertConfig(hidden_size=312, num_layers=4, num_heads=12, intermediate_size=1200)
    assert parameters(config) == 14_350_248
    assert parameters(BertConfig(num_layers=6)) == 66_955_008


def test_attention_loss_by_hand():
    # one head, two tokens; differences 1, 2, 3, 4: squares 1, 4, 9, 16
    teacher, student = tf.zeros((1, 1, 2, 2)), tf.constant([[[[1.0, 2.0], [3.0, 4.0]]]])
    both, first = tf.constant([[1, 1]]), tf.constant([[1, 0]])
    np.testing.assert_allclose(tinybert.attention_loss(teacher, student, both), 30 / 4)
    np.testing.assert_allclose(tinybert.attention_loss(teacher, student, first), 1.0)
    # the authors' code: the padded key is 0, its query row counts, all four entries divide: (1 + 9) / 4
    reference = tinybert.attention_loss(teacher, student, first, "reference")
    np.testing.assert_allclose(reference, 10 / 4)


def test_attention_loss_of_probabilities_by_hand():
    # One head, two tokens and a padded one, which nobody sees. Rows of probabilities: 1/4, 3/4 against 1/2, 1/2,
    # squares 1/16 twice; then two rows alike.
    row, far = [0.0, np.log(3.0), 50.0], [0.0, 0.0, 50.0]
    teacher, student = tf.constant([[[row, far, row]]], tf.float32), tf.zeros((1, 1, 3, 3))
    mask = tf.constant([[1, 1, 0]])
    loss = tinybert.attention_loss(teacher, student, mask, attention="probabilities")
    np.testing.assert_allclose(loss, (1 / 16 + 1 / 16) / 4, rtol=1e-5)
    # "reference": the padded token's row counts, 1/16 twice, and all nine entries divide
    loss = tinybert.attention_loss(teacher, student, mask, "reference", "probabilities")
    np.testing.assert_allclose(loss, 4 / 16 / 9, rtol=1e-5)


@pytest.mark.parametrize("attention", ["scores", "probabilities"])
def test_attention_at_padding_never_counts(attention):
    random = np.random.default_rng(0)
    teacher, student = random.normal(size=(2, 2, 3, 5, 5)).astype(np.float32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    value = tinybert.attention_loss(teacher, student, mask, attention=attention)
    pairs = (mask[:, None, :, None] * mask[:, None, None, :]) > 0
    changed = np.where(pairs, student, 100 * random.normal(size=student.shape))
    wide = [(0, 0), (0, 0), (0, 2), (0, 2)]
    longer = [np.pad(each, wide, constant_values=7.0) for each in (teacher, student)]
    others = [(teacher, changed.astype(np.float32), mask), (*longer, np.pad(mask, wide[1:3]))]
    assert value > 1e-3
    for arguments in others:
        same = tinybert.attention_loss(*arguments, attention=attention)
        np.testing.assert_allclose(same, value, rtol=1e-5)


def test_hidden_loss_by_hand():
    teacher, student = tf.zeros((1, 2, 2)), tf.constant([[[1.0, 3.0], [2.0, 2.0]]])
    both, first = tf.constant([[1, 1]]), tf.constant([[1, 0]])
    np.testing.assert_allclose(tinybert.hidden_loss(teacher, student, both), (5 + 4) / 2)
    np.testing.assert_allclose(tinybert.hidden_loss(teacher, student, first), 5.0)
    reference = tinybert.hidden_loss(teacher, student, first, "reference")
    np.testing.assert_allclose(reference, (5 + 4) / 2)


@pytest.mark.parametrize("attention, least", [("scores", 1e-3), ("probabilities", 1e-7)])
def test_padding_changes_no_loss(monkeypatch, attention, least):
    inside, answers = stages(monkeypatch, attention=attention, **THIN)
    for stage in (inside, answers):
        short, long = (values_on(stage, length=length) for length in (12, 16))
        assert min(short.values()) > least
        for name, value in short.items():
            np.testing.assert_allclose(long[name], value, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "share, attention", [(True, "scores"), (False, "scores"), (True, "probabilities")]
)
def test_a_student_equal_to_its_teacher_has_no_inner_loss_and_the_least_outer_loss(
    monkeypatch, share, attention
):
    teacher = still()
    inside, answers = stages(monkeypatch, teacher, share_projection=share, attention=attention)
    assert (inside["stage"], answers["stage"]) == ("inside", "answers")  # first what happens inside
    assert [weight for weight, _ in inside["losses"].values()] == [1.0, 1.0, 1.0]
    for name, value in values_on(inside).items():
        np.testing.assert_allclose(value, 0.0, atol=1e-6, err_msg=name)
    logits = tf.Variable(teacher.model(inputs_of(teacher)))
    with tf.GradientTape() as tape:
        T, S = {"logits": tf.constant(logits)}, {"logits": logits}
        loss = values_of(answers["losses"], T, S, tf.constant([0, 1, 2, 0]))["pred"]
    probs = tf.nn.softmax(logits)
    entropy = -tf.reduce_mean(tf.reduce_sum(probs * tf.math.log(probs), -1))
    np.testing.assert_allclose(loss, entropy, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, logits), 0.0, atol=1e-6)


def test_the_mean_squared_error_of_logits_has_no_temperature(monkeypatch):
    *_, answers = stages(monkeypatch, prediction="mse", temperature=2.0)
    T, S = {"logits": tf.constant([[2.0, 0.0]])}, {"logits": tf.constant([[0.0, 1.0]])}
    # (2^2 + 1^2) / 2 classes
    np.testing.assert_allclose(values_of(answers["losses"], T, S, tf.constant([0]))["pred"], 2.5)
    assert values_of(answers["losses"], T, T, tf.constant([0]))["pred"] == 0.0


def test_which_layer_learns_from_which(monkeypatch):
    teacher = still(num_layers=4)
    inside, answers = stages(monkeypatch, teacher)
    functions = [loss for _, loss in inside["losses"].values()]
    theirs, ours = outputs_read(functions, teacher, inside["student"])
    assert dict(zip(ours, theirs)) == {
        "hidden_states/0": "hidden_states/0",
        "hidden_states/1": "hidden_states/2",
        "hidden_states/2": "hidden_states/4",
        "attention_scores/0": "attention_scores/1",
        "attention_scores/1": "attention_scores/3",
    }
    student = inside["student"].weights()
    np.testing.assert_array_equal(
        student["layer_1_query/kernel"], teacher.weights()["layer_3_query/kernel"]
    )


def test_each_setting_reaches_its_loss_and_losses_are_sums_over_layers(monkeypatch):
    inside, answers = stages(
        monkeypatch, shared_still(num_layers=4), temperature=2.0, reduction="reference"
    )
    p, q = (np.exp(z) / np.exp(z).sum() for z in (np.array([1.0, 0.0]), np.array([0.0, 0.5])))
    T, S = {"logits": tf.constant([[2.0, 0.0]])}, {"logits": tf.constant([[0.0, 1.0]])}
    pred = values_of(answers["losses"], T, S, tf.constant([0]))["pred"]
    # No factor t^2, as in the paper; a sum over classes, of which the authors' code takes the mean.
    np.testing.assert_allclose(pred, -np.sum(p * np.log(q)), rtol=1e-5)
    states, scores = tf.ones((1, 2, 8)), tf.ones((1, 2, 2, 2))
    T = {f"hidden_states/{n}": 0.5 * n * states for n in (0, 2, 4)}  # 0, 1, 2
    T |= {f"attention_scores/{n}": 0.0 * scores for n in (1, 3)}
    S = {"hidden_states/0": states, "hidden_states/1": 0 * states, "hidden_states/2": 0 * states}
    S |= {"attention_scores/0": scores, "attention_scores/1": 2 * scores}
    values = values_of(inside["losses"], T, S, mask=tf.constant([[1, 0]]))
    # The projection is the identity. hidn: 1 + 4. attn: 1 + 4, of which the padded keys, half, are 0.
    np.testing.assert_allclose(
        [values["embd"], values["hidn"], values["attn"]], [1, 1 + 4, (1 + 4) / 2], rtol=1e-6
    )
    inside, _ = stages(monkeypatch, shared_still(num_layers=4), attention="probabilities")
    values = values_of(inside["losses"], T, S, mask=tf.constant([[1, 1]]))
    assert (values["attn"], values["embd"]) == (0.0, 1.0)  # probabilities of equal scores are equal


def test_stages_share_the_updates_and_patience_is_the_answers_alone(monkeypatch):
    both = stages(monkeypatch, training=TRAINING.replace(patience=1))
    assert [stage["training"].patience for stage in both] == [None, 1]
    assert both[1]["first_step"] == both[0]["num_steps"] == both[1]["num_steps"] == 3
    two = TRAINING.replace(epochs=1, batch_size=6)  # updates
    least = stages(monkeypatch, inside_share=0.01, training=two)
    assert [stage["num_steps"] for stage in least] == [1, 1]
    alone = stages(monkeypatch, inside_share=1.0)
    assert [stage["stage"] for stage in alone] == ["inside"]
    (answers,) = stages(monkeypatch, training=TRAINING.replace(epochs=0.1))  # one update
    assert (answers["stage"], answers["num_steps"]) == ("answers", 1)


def test_inner_losses_fall_and_the_projections_train_and_are_not_kept(monkeypatch):
    layers, distill = [], tinybert.distill
    monkeypatch.setattr(
        tinybert, "distill", lambda *a, **k: (layers.extend(k["layers"]), distill(*a, **k))[1]
    )
    training = TRAINING.replace(epochs=6, evaluations=0)
    settings = {"inside_share": 1.0, "share_projection": False, **THIN}
    small = tinybert.compress(shared_still(num_layers=4), data(), training=training, **settings)
    first, last = small.curve[0], small.curve[-1]
    assert all(last[name] < 0.8 * first[name] for name in ("embd", "attn", "hidn")), (first, last)
    assert len(layers) == 2 and not any("projection" in name for name in small.weights())
    for layer in layers:
        assert layer.kernel.shape == (6, 8) and np.any(layer.bias.numpy())  # a bias starts at 0
    assert small.config.hidden_size == 6 and small.history[-1]["num_answers"] == 0


def test_other_heads_learn_all_but_attention(monkeypatch):
    inside, _ = stages(monkeypatch, num_heads=1, losses=["embd", "hidn"])
    assert inside["losses"].keys() == {"embd", "hidn"}
    assert inside["student"].config.num_heads == 1
    with pytest.raises(ValueError, match="Received: `num_heads` 2 and 1"):
        tinybert.compress(shared_still(), data(), training=TRAINING, num_layers=2, num_heads=1)


def test_a_student_of_the_general_stage_goes_on_and_copies_leave_the_number_of_updates(monkeypatch):
    mlm = masked_lm()
    (stage,) = stages_of(
        tinybert, monkeypatch, mlm, unlabelled(), "tinybert_general", **{**THIN, "num_layers": 1}
    )
    general = stage["student"]
    assert stage["losses"].keys() == {"embd", "attn", "hidn"}  # no masked-LM loss
    assert general.task == "mlm" and stage["training"].evaluations == 0
    plain = stages(monkeypatch, num_layers=1, student=general)
    more = stages(monkeypatch, num_layers=1, student=general, copies=3, mlm=mlm)
    assert plain[0]["student"].config.hidden_size == 6
    assert plain[0]["student"].labels == shared_still().labels
    assert len(more[0]["dataset"].train.texts) > 12 and more[0]["dataset"].dev == data().dev
    assert [s["num_steps"] for s in more] == [s["num_steps"] for s in plain]
    enlarged = stages(
        monkeypatch, num_layers=1, student=general, copies=3, mlm=mlm, updates="enlarged"
    )
    assert len(texts := enlarged[0]["dataset"].train.texts) == len(more[0]["dataset"].train.texts)
    assert sum(s["num_steps"] for s in enlarged) == TRAINING.num_steps(len(texts)) > 6
    assert enlarged[1]["first_step"] == enlarged[0]["num_steps"]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"mlm": masked_lm}, "`mlm`, `vectors` and `updates` need `copies` of 1 or more. Received"),
        ({"updates": "enlarged"}, "`updates` need `copies` of 1 or more. Received: 0"),
        ({"copies": 2}, "needs a masked-LM model"),
        (
            {"training": TRAINING.replace(cache_teacher=True), "reduction": "reference"},
            "keeps nothing of padding",
        ),
        ({"student": lambda: still(num_layers=1)}, "`num_layers` layers or more. Received: 1 and"),
        ({"student": still, "hidden_size": 6}, "must be those of the `student` given.*6"),
    ],
)
def test_errors(settings, message, monkeypatch):
    settings = {key: value() if callable(value) else value for key, value in settings.items()}
    with pytest.raises(ValueError, match=message):
        stages(monkeypatch, **settings)
