import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.bert.config import BertConfig
from keras_compress.bert.task_model import TaskModel
from keras_compress.distillation import pkd, tinybert
from keras_compress.measure.cost import parameters
from keras_compress.training.distill import outputs
from mobile_export.convert import export
from tests.bert import tiny
from tests.distillation.test_distilbert import masked_lm, unlabelled
from tests.replacement.test_theseus import data, inputs_of
from tests.training.test_distill import TRAINING, bilstm, still


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


def test_parameters_of_the_paper_s_students():
    assert (
        parameters(BertConfig(hidden_size=312, num_layers=4, num_heads=12, intermediate_size=1200))
        == 14_350_248
    )
    assert parameters(BertConfig(num_layers=6)) == 66_955_008


def test_attention_loss_by_hand():
    # one head, two tokens; differences 1, 2, 3, 4: squares 1, 4, 9, 16
    teacher, student = tf.zeros((1, 1, 2, 2)), tf.constant([[[[1.0, 2.0], [3.0, 4.0]]]])
    np.testing.assert_allclose(
        tinybert.attention_loss(teacher, student, tf.constant([[1, 1]])), 30 / 4
    )
    np.testing.assert_allclose(
        tinybert.attention_loss(teacher, student, tf.constant([[1, 0]])), 1.0
    )
    # the authors' code: the padded key is 0, its query row counts, all four entries divide: (1 + 9) / 4
    np.testing.assert_allclose(
        tinybert.attention_loss(teacher, student, tf.constant([[1, 0]]), "reference"), 10 / 4
    )


def test_hidden_loss_by_hand():
    teacher, student = tf.zeros((1, 2, 2)), tf.constant([[[1.0, 3.0], [2.0, 2.0]]])
    np.testing.assert_allclose(
        tinybert.hidden_loss(teacher, student, tf.constant([[1, 1]])), (5 + 4) / 2
    )
    np.testing.assert_allclose(tinybert.hidden_loss(teacher, student, tf.constant([[1, 0]])), 5.0)
    np.testing.assert_allclose(
        tinybert.hidden_loss(teacher, student, tf.constant([[1, 0]]), "reference"), (5 + 4) / 2
    )


def test_padding_changes_no_loss():
    """The same texts, padded further: scores and hidden states of padding are whatever they are."""
    teacher, student = still(), still(seed=5)
    values = []
    for length in (12, 16):
        inputs = {
            k: tf.constant(v)
            for k, v in teacher.pad(teacher.tokenizer.encode(tiny.TEXTS, 12), length).items()
        }
        theirs, ours = (
            m.features(["hidden_states", "attention_scores"])(inputs) for m in (teacher, student)
        )
        values.append(
            [
                tinybert.attention_loss(
                    theirs["attention_scores"][1], ours["attention_scores"][1], inputs["input_mask"]
                ),
                tinybert.hidden_loss(
                    theirs["hidden_states"][2], ours["hidden_states"][2], inputs["input_mask"]
                ),
            ]
        )
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4)


def stages(monkeypatch, teacher, dataset, **settings):
    """What `compress` hands to the engine, stage by stage, without training."""
    found = []
    monkeypatch.setattr(
        tinybert,
        "distill",
        lambda *a, **k: (
            found.append({"student": a[1], "data": a[2], "objective": a[3], "weights": a[4], **k})
            or []
        ),
    )
    tinybert.compress(teacher, dataset, **settings)
    return found


@pytest.mark.parametrize("share", [True, False])
def test_a_student_equal_to_its_teacher_has_no_inner_loss_and_the_least_outer_one(
    monkeypatch, share
):
    teacher = still()
    inside, answers = stages(monkeypatch, teacher, data(), num_layers=2, share_projection=share)
    inputs, labels = inputs_of(teacher), tf.constant([0, 1, 2, 0])
    assert inside["weights"] == {"embd": 1.0, "attn": 1.0, "hidn": 1.0} and answers["weights"] == {
        "pred": 1.0
    }
    assert (inside["stage"], answers["stage"]) == ("inside", "answers")  # first what happens inside
    theirs, ours = (
        outputs(teacher, inside["teacher_outputs"])(inputs),
        outputs(inside["student"], inside["student_outputs"])(inputs),
    )
    for name, value in inside["objective"](theirs, ours, labels, inputs["input_mask"]).items():
        np.testing.assert_allclose(value, 0.0, atol=1e-6, err_msg=name)
    logits = tf.Variable(teacher.model(inputs))
    with tf.GradientTape() as tape:
        loss = answers["objective"](
            {"logits": tf.constant(logits)}, {"logits": logits}, labels, None
        )["pred"]
    probs = tf.nn.softmax(logits)
    np.testing.assert_allclose(
        loss, -tf.reduce_mean(tf.reduce_sum(probs * tf.math.log(probs), -1)), rtol=1e-5
    )  # entropy
    np.testing.assert_allclose(tape.gradient(loss, logits), 0.0, atol=1e-6)


def test_each_setting_reaches_its_loss(monkeypatch):
    inside, answers = stages(
        monkeypatch,
        tiny.model(),
        data(),
        num_layers=2,
        temperature=2.0,
        reduction="reference",
        training=TRAINING,
    )
    p, q = [np.exp(z) / np.exp(z).sum() for z in (np.array([1.0, 0.0]), np.array([0.0, 0.5]))]
    loss = answers["objective"](
        {"logits": tf.constant([[2.0, 0.0]])},
        {"logits": tf.constant([[0.0, 1.0]])},
        tf.constant([0]),
        None,
    )["pred"]
    np.testing.assert_allclose(
        loss, -np.sum(p * np.log(q)), rtol=1e-5
    )  # the paper has no factor t^2
    mask, scores = (
        tf.constant([[1, 0]]),
        {f"attention_scores/{k}": tf.zeros((1, 2, 2, 2)) for k in range(2)},
    )
    states = {f"hidden_states/{k}": tf.zeros((1, 2, 8)) for k in range(3)}
    ones = {name: value + 1 for name, value in {**scores, **states}.items()}
    losses = inside["objective"]({**scores, **states}, ones, None, mask)
    # over all: of 2 x 2 pairs the keys of the first column count 1, the padded ones 0; hidden states of padding count 1
    np.testing.assert_allclose(
        [losses["attn"], losses["hidn"], losses["embd"]], [2 * 0.5, 2, 1], rtol=1e-6
    )


def test_each_stage_has_an_update_and_a_head_that_learned_nothing_is_known(monkeypatch):
    small = TRAINING.replace(epochs=1, batch_size=6)  # two updates
    assert [
        stage["num_steps"]
        for stage in stages(
            monkeypatch, tiny.model(), data(), num_layers=2, inside_share=0.01, training=small
        )
    ] == [1, 1]
    thin = tinybert.compress(
        tiny.model(), data(), num_layers=2, hidden_size=6, num_heads=2, inside_share=1.0
    )
    assert thin.history[-1]["num_answers"] == 0 and thin.history[-1]["hidden_size"] == 6


def test_which_layer_learns_from_which(monkeypatch):
    inside, _ = stages(monkeypatch, tiny.model(num_layers=4), data(), num_layers=2)
    pairs = dict(zip(inside["student_outputs"], inside["teacher_outputs"]))
    assert pairs == {
        "hidden_states/0": "hidden_states/0",
        "hidden_states/1": "hidden_states/2",
        "hidden_states/2": "hidden_states/4",
        "attention_scores/0": "attention_scores/1",
        "attention_scores/1": "attention_scores/3",
    }
    student, teacher = inside["student"].weights(), tiny.model(num_layers=4).weights()
    np.testing.assert_array_equal(student["layer_1_query/kernel"], teacher["layer_3_query/kernel"])


def test_the_losses_are_sums_over_layers(monkeypatch):
    inside, _ = stages(monkeypatch, tiny.model(num_layers=4), data(), num_layers=2)
    ones, zeros = tf.ones((1, 3, 8)), tf.zeros((1, 3, 8))
    scores = {f"attention_scores/{k}": tf.zeros((1, 2, 3, 3)) for k in range(4)}
    theirs = {
        **scores,
        "hidden_states/0": zeros,
        "hidden_states/2": ones,
        "hidden_states/4": 2 * ones,
    }
    ours = {
        "attention_scores/0": 1 + scores["attention_scores/0"],
        "attention_scores/1": 2 + scores["attention_scores/0"],
        "hidden_states/0": ones,
        "hidden_states/1": zeros,
        "hidden_states/2": zeros,
    }
    losses = inside["objective"](
        theirs, ours, None, tf.ones((1, 3), tf.int32)
    )  # the projection is the identity
    np.testing.assert_allclose(
        [losses["embd"], losses["attn"], losses["hidn"]], [1, 1 + 4, 1 + 4], rtol=1e-6
    )


def test_a_student_with_other_heads_learns_all_but_attention():
    small = tinybert.compress(
        still(), data(), training=TRAINING, num_layers=2, num_heads=1, losses=["embd", "hidn"]
    )
    inside = [row for row in small.curve if row["stage"] == "inside"]
    assert (
        small.config.num_heads == 1
        and {"embd", "hidn"} <= {*inside[-1]}
        and "attn" not in inside[-1]
    )


@pytest.mark.parametrize("task", ["classification", "matching", "tagging"])
def test_a_thin_student_learns_and_its_projection_is_not_kept(task, tmp_path):
    teacher = still(task=task, num_layers=4)
    before = teacher.weights()
    small = tinybert.compress(
        teacher,
        data(task),
        training=TRAINING,
        num_layers=2,
        hidden_size=6,
        num_heads=2,
        intermediate_size=10,
    )
    assert small.config.hidden_size == 6 and not any(
        "projection" in name for name in small.weights()
    )
    inside = [row for row in small.curve if row["stage"] == "inside"]
    assert {"embd", "attn", "hidn"} <= set(inside[-1]) and small.curve[-1]["stage"] == "answers"
    assert all(np.array_equal(before[name], value) for name, value in teacher.weights().items())
    small.save(tmp_path / "s")
    assert TaskModel.load(tmp_path / "s").config == small.config
    whole, int8 = export(small, tmp_path, sequence_length=12, dev=data(task).dev)
    assert (
        whole["max_dlogit"] < 1e-4
        and int8["mean_dp"] < 0.05
        and int8["agreement"] > 0.9
        and not int8["drift"]
    )


def test_projections_train_with_the_student(monkeypatch):
    layers, real = [], tinybert.distill
    monkeypatch.setattr(
        tinybert,
        "distill",
        lambda *a, **k: (layers.extend(k.get("projections", ())), real(*a, **k))[1],
    )
    tinybert.compress(
        still(),
        data(),
        training=TRAINING,
        num_layers=1,
        hidden_size=6,
        num_heads=2,
        inside_share=1.0,
        share_projection=False,
    )
    assert len(layers) == 2
    for layer in layers:
        assert layer.kernel.shape == (6, 8) and np.any(layer.bias.numpy())  # a bias starts at 0


def test_patience_does_not_end_what_is_learned_inside_and_the_second_stage_goes_on_in_the_texts(
    monkeypatch,
):
    found = stages(
        monkeypatch, tiny.model(), data(), num_layers=1, training=TRAINING.replace(patience=1)
    )
    assert [stage["training"].patience for stage in found] == [None, 1]
    assert found[1]["first_step"] == found[0]["num_steps"] == 3


def test_inner_losses_fall():
    small = tinybert.compress(
        still(num_layers=4),
        data(),
        training=TRAINING.replace(epochs=30),
        num_layers=2,
        hidden_size=6,
        num_heads=2,
        inside_share=1.0,
    )
    first, last = small.curve[0], small.curve[-1]
    assert all(last[name] < 0.7 * first[name] for name in ("embd", "attn", "hidn")), (first, last)


def test_both_stages_chain_and_copies_leave_the_number_of_updates(monkeypatch):
    teacher, mlm = still(), masked_lm()
    general = tinybert.compress(
        mlm, unlabelled(), training=TRAINING, num_layers=1, hidden_size=6, num_heads=2
    )
    assert general.task == "mlm" and {row["stage"] for row in general.curve} == {"inside"}
    small = tinybert.compress(
        teacher, data(), training=TRAINING, num_layers=1, student=general, copies=3, mlm=mlm
    )
    assert small.config.hidden_size == 6 and small.labels == teacher.labels
    assert sum(row["step"] for row in small.curve if "dev" in row) == TRAINING.num_steps(12)
    found = stages(monkeypatch, teacher, data(), num_layers=1, copies=3, mlm=mlm)
    assert len(found[0]["data"].train.texts) > 12 and found[0]["data"].dev == data().dev


@pytest.mark.parametrize("settings", [{"temperature": 7.0}, {"inside_share": 0.0}])
def test_answers_have_no_settings_without_labels(settings):
    with pytest.raises(
        ValueError, match="are for answers, which unlabelled text does not have. Received: "
    ):
        tinybert.compress(masked_lm(), unlabelled(), training=TRAINING, num_layers=1, **settings)


@pytest.mark.parametrize("method", [pkd, tinybert])
def test_a_bilstm_cannot_teach_what_happens_inside(method):
    with pytest.raises(ValueError, match="between two BERTs only. Received: bilstm and bilstm"):
        method.compress(bilstm(), data(), training=TRAINING, num_layers=1)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_layers": 3}, "uniform map. Received: 4 and 3. Choose 1, 2, 4"),
        ({"layer_map": [1]}, "must be 2 different ones"),
        ({"layer_map": ["a", "b"]}, "must be 2 different ones among 1 to 4, rising"),
        ({"losses": "attn"}, "Received: 'attn'"),
        ({"mlm": masked_lm}, "`mlm` and `vectors` need it. Received: 0, an mlm, no vectors"),
        ({"copies": -1}, "Received: -1"),
        (
            {"training": TRAINING.replace(epochs=0.1)},
            "Both stages need an update. Received: 1 in all",
        ),
        (
            {"training": TRAINING.replace(cache_teacher=True), "reduction": "reference"},
            "keeps nothing of padding",
        ),
        ({"layer_map": "even"}, "`layer_map` must be one of uniform"),
        ({"num_heads": 4}, "`num_heads`.*2 and 4"),
        ({"losses": ("attention",)}, "`losses` must be a list of some of embd, attn, hidn"),
        ({"losses": [["attn"]]}, "such as"),
        ({"inside_share": 2.0}, "`inside_share` must be in"),
        ({"reduction": "sum"}, "`reduction` must be one of masked, reference"),
        ({"copies": 2}, "needs a masked-LM model"),
        ({"student": bilstm}, "between two BERTs only"),
        ({"num_layers": 5}, "must be 1 to 4"),
        (
            {"student": lambda: tiny.model(num_layers=1)},
            "`student` must have `num_layers` layers or more. Received: 1 and 2",
        ),
        (
            {"hidden_size": 0},
            "Sizes of the student must be whole numbers of 1 or more. Received: {'hidden_size': 0}",
        ),
        ({"temperature": 0.0}, "`temperature` must be positive"),
        (
            {"student": lambda: tiny.model(num_layers=2), "hidden_size": 6},
            "must be those of the `student` given.*6",
        ),
    ],
)
def test_errors(settings, message):
    settings = {key: value() if callable(value) else value for key, value in settings.items()}
    with pytest.raises(ValueError, match=message):
        tinybert.compress(
            tiny.model(num_layers=4), data(), **{"num_layers": 2, "training": TRAINING, **settings}
        )
