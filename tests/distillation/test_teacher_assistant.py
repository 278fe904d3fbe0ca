import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.distillation import soft_targets, teacher_assistant
from keras_compress.distillation.teacher_assistant import choose_assistant, sizes_between
from keras_compress.method import method
from tests.support import TRAINING, bilstm, data, masked_lm, still

ARTICLE = {2: 0.70, 4: 0.76, 6: 0.79, 8: 0.80, 10: 0.81}  # stand-alone accuracies of its example
SHORT = TRAINING.replace(epochs=1, batch_size=12, evaluations=0)


@pytest.fixture
def eager():
    """For single updates no graph pays."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def chain(teacher=None, **settings):
    return teacher_assistant.compress(
        teacher or still(num_layers=4), data(), **{"training": SHORT, "num_layers": 1, **settings}
    )


def entries(model):
    return [(entry["method"], entry.get("num_layers")) for entry in model.history]


@pytest.mark.parametrize(
    "scores, by, assistant",
    [
        (ARTICLE, "accuracy", 4),  # the mean of .70 and .81 is .755
        (ARTICLE, "size", 6),  # the mean of 2 and 10
        ({2: 0.70, 4: 0.74, 6: 0.78, 10: 0.82}, "accuracy", 4),  # .76 is equally far from both
        ({2: None, 5: None, 7: None, 10: None}, "size", 5),
        ({2: 0.70, 3: 0.90, 10: 0.80}, "accuracy", 3),  # better than the teacher, but the only one
        ({2: 0.70, 10: 0.80, 12: 0.75}, "accuracy", None),  # larger than the teacher
    ],
)
def test_choose_assistant(scores, by, assistant):
    assert choose_assistant(scores, 2, 10, by) == assistant


def test_sizes_lie_between_student_and_teacher():
    assert sizes_between(None, 2, 6) == [5, 4, 3]
    assert sizes_between([3, 5], 2, 6) == [5, 3] and sizes_between([], 2, 3) == []


@pytest.mark.parametrize(
    "candidates, num_layers, message",
    [
        ([5], 1, r"fewer layers than its teacher.*\[5\], a teacher of 4 .*from \[3, 2\]"),
        ([1], 2, r"more than its student.*\[1\], a teacher of 4 and a student of 2 .*from \[3\]"),
        ([4], 1, r"Received: candidates = \[4\]"),
        ([1], 1, r"Received: candidates = \[1\]"),
        (None, 3, r"None, a teacher of 4 and a student of 3 .*\[\]; \[\] distils without an ass"),
    ],
)
def test_an_assistant_of_a_wrong_size_is_refused(candidates, num_layers, message):
    with pytest.raises(ValueError, match=message):
        chain(candidates=candidates, num_layers=num_layers)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"loss": "magic"}, "must be one of .*Received: 'magic'"),
        ({"loss": "clustering"}, "Settings must be among .*Received: num_layers"),
        ({"loss_settings": {"beta": 1.0}}, "Received: beta. See `methods soft_targets`"),
        ({"loss_settings": {"num_layers": 2}}, "leave sizes and start to the chain. Received: {'n"),
        ({"student": bilstm()}, "bottom layers of a BERT. Received: `student`, a bilstm"),
    ],
)
def test_what_no_chain_can_be_made_of_is_refused_before_training(settings, message, monkeypatch):
    monkeypatch.setattr(teacher_assistant, "tune", None)
    with pytest.raises(ValueError, match=message):
        chain(**settings)


def test_a_chain_without_assistants_is_plain_distillation_to_the_bit(eager):
    teacher, start = still(num_layers=3), masked_lm(num_layers=2)
    settings = {"num_layers": 1, "student": start, "training": SHORT, "seed": 5}
    plain = soft_targets.compress(teacher, data(), temperature=4.0, **settings)
    same = chain(teacher, candidates=[], loss_settings={"temperature": 4.0}, **settings)
    np.testing.assert_equal(same.weights(), plain.weights())
    assert same.history[:-1] == plain.history and same.history[-1]["assistants"] == []


def test_a_chain_is_the_same_as_steps_of_a_recipe(eager):
    settings = {"training": SHORT, "alpha": 0.5}
    model = still(num_layers=3)
    for depth in (2, 1):
        model = method("spherical")(model, data(), num_layers=depth, **settings)
    same = chain(still(num_layers=3), by="all", loss="spherical", loss_settings={"alpha": 0.5})
    np.testing.assert_equal(same.weights(), model.weights())
    assert entries(same) == [("spherical", 2), ("spherical", 1), ("teacher_assistant", 1)]


@pytest.fixture
def stand_ins(monkeypatch):
    """Stand-ins for training and measuring; lists (layers, folder) of stand-alone models and of links."""
    made, links, right = [], [], {4: 0.9, 3: 0.85, 2: 0.7, 1: 0.5}

    def tune(model, dataset, *, training, **_):
        assert not training.cache_teacher  # it has none
        made.append((model.config.num_layers, training.folder))
        return model

    def link(model, dataset, *, seed, training, num_layers):
        assert training.cache_teacher
        links.append((num_layers, training.folder))
        return model.keep_layers(range(num_layers))

    link.check = dict
    monkeypatch.setattr(teacher_assistant, "tune", tune)
    monkeypatch.setattr(teacher_assistant, "method", lambda name: link)
    monkeypatch.setattr(
        teacher_assistant, "evaluate", lambda model, _: {"value": right[model.config.num_layers]}
    )
    return made, links


def test_the_choice_follows_the_accuracy_and_stand_alone_models_are_made_once(stand_ins):
    made, links = stand_ins
    training = SHORT.replace(cache_teacher=True)
    entry = chain(training=training.replace(folder="x")).history[-1]
    assert entry["assistants"] == [2]  # .7 = (.9 + .5) / 2
    assert entry["scores"] == {"4": 0.9, "3": 0.85, "2": 0.7, "1": 0.5}
    assert sorted(made) == [(1, "x/alone-1"), (2, "x/alone-2"), (3, "x/alone-3")]
    assert links == [(2, "x/link-2"), (1, "x/link-1")]
    made.clear()
    scores = {"4": 0.9, "2": 0.5, 1: 0.5}  # another chain takes what is known: .85 is nearer to .7
    entry = chain(training=training, scores=scores).history[-1]
    assert entry["assistants"] == [3] and made == [(3, None)]


@pytest.mark.parametrize(
    "settings, assistants",
    [
        ({"by": "size"}, [2]),
        ({"by": "all"}, [3, 2]),
        ({"candidates": [3]}, [3]),
        ({"candidates": []}, []),
    ],
)
def test_where_accuracy_decides_nothing_no_model_is_made_for_it(settings, assistants, stand_ins):
    made, links = stand_ins
    small = chain(training=SHORT.replace(cache_teacher=True), **settings)
    assert small.history[-1]["assistants"] == assistants
    assert [depth for depth, _ in links] == [*assistants, 1] and not made


def test_stand_alone_models_start_where_links_do_and_learn_from_labels(eager):
    teacher, start = still(num_layers=3), still(num_layers=4, seed=9)
    alone = teacher_assistant.stand_alone(teacher, start, 2, data(), seed=0, training=SHORT)
    assert alone.config.num_layers == 2 and alone.curve[-1]["stage"] == "finetune"
    for model, name in ((start, "layer_1_query/kernel"), (teacher, "layer_0_query/kernel")):
        distance = np.abs(alone.weights()[name] - model.weights()[name]).max()
        assert (distance < 0.1) == (model is start)
