"""What every method keeps, whatever its paper. Methods are looked up by their place: a new file is tested here at once.

Each method runs once, for one or two updates on a tiny model; all tests look at that run.
"""

import copy
import dataclasses
import functools
import inspect
import json
import typing
from typing import Literal

import numpy as np
import pytest

from keras_compress.bert.checkpoints import with_head
from keras_compress.bert.task_model import TaskModel
from keras_compress.datasets.dataset import Dataset
from keras_compress.measure.accuracy import evaluate
from keras_compress.method import Count, check, method, methods
from keras_compress.training.settings import Training
from mobile_export.convert import export, exported_model
from tests.support import CLASSES, bilstm, data, inputs_of, masked_lm, still, unlabelled

METHODS = sorted(methods())
function_of = functools.cache(method)  # `method` reads all files anew each time
TRAINING = Training(
    epochs=2, batch_size=12, max_length=16, learning_rate=1e-2, warmup=0.0, evaluations=0
)
# What a method needs on two layers of width 8. Where nothing is said, `num_layers` is 1 and the rest the default.
SETTINGS = {
    "pkd": {"num_layers": 2, "layer_map": [1]},
    "albert": {"embedding_size": 4, "sharing": "all"},
    "define": {"embedding_size": 4, "adapter": "linear", "fit_steps": 2},
    "q8bert": {"start_step": 0, "decay": 0.9},
    "clustering": {"num_clusters": 4},
    "magnitude": {"frequency": 1},
    "movement": {"sparsity": 0.5},
    "heads": {"heads": 0.25, "neurons": 0.2, "steps": 1},
    "from_scratch": {"config": {"hidden_size": 4, "sharing": "all"}},
}
WIDE = {"num_layers": 1, "hidden_size": 32, "intermediate_size": 64}
# Where the model to start from is no BERT of two layers and width 8 with a head of three classes.
START = {
    "fold": lambda: still(embedding_size=4, adapter="mlp"),
    "teacher_assistant": lambda: still(num_layers=3),
    # The converter quantises no kernel of fewer than 1,024 values.
    "q8bert": lambda: still(**WIDE, pooling="cls"),
    "fastbert_teacher": lambda: still(
        initializer_range=0.1
    ),  # sums over 128 places, compared to 1e-4
}
BEGINS_ANEW = {"from_scratch"}  # random weights have no history


@dataclasses.dataclass
class Run:
    """A method's run: what went in, a copy of that from before, and the result."""

    declared: object
    settings: dict
    start: TaskModel
    dataset: Dataset
    before: tuple
    result: TaskModel


def state(task_model, dataset):
    """All that a method may not change, as values."""
    flags = {layer.name: layer.trainable for layer in task_model.model.layers}
    facts = (task_model.config, task_model.history, task_model.curve, task_model.metrics, flags)
    texts = [getattr(dataset, name) for name in ("task", "labels", "train", "dev", "test")]
    return task_model.weights(), copy.deepcopy((facts, texts))


def start_of(name):
    """(model, data set) that a method can start from."""
    needs_text = function_of(name).declared.data == "unlabelled"
    start = START.get(name, masked_lm if needs_text else still)()
    start.history = [{"method": "finetune", "training": {}}]
    return start, unlabelled() if needs_text else data()


@functools.cache
def run_of(name):
    declared, (start, dataset) = function_of(name).declared, start_of(name)
    default = {"num_layers": 1} if "num_layers" in declared.settings else {}
    settings, before = SETTINGS.get(name, default), state(start, dataset)
    result = function_of(name)(start, dataset, seed=3, training=TRAINING, **settings)
    return Run(declared, settings, start, dataset, before, result)


@pytest.fixture(params=METHODS)
def run(request):
    return run_of(request.param)


def with_labels(task_model):
    """A model itself, or for a masked-LM model its encoder under a head."""
    if task_model.task != "mlm":
        return task_model
    return with_head(task_model, "classification", CLASSES, seed=0)


def test_the_input_stays_as_it_was(run):
    (weights, facts), (weights_now, facts_now) = run.before, state(run.start, run.dataset)
    assert facts == facts_now
    np.testing.assert_equal(weights_now, weights)


def test_the_result_is_a_model_of_its_own(run):
    small = run.result
    assert isinstance(small, TaskModel) and small is not run.start
    assert not {id(v) for v in small.model.weights} & {id(v) for v in run.start.model.weights}
    assert not {id(x) for x in small.model.layers} & {id(x) for x in run.start.model.layers}
    assert all(layer.trainable for layer in small.model.layers)
    assert not any(hasattr(layer, "layers") for layer in small.model.layers)  # flat
    assert all(np.isfinite(value).all() for value in small.weights().values())


def test_the_history_tells_what_was_done(run):
    *earlier, entry = run.result.history
    before = [] if run.declared.name in BEGINS_ANEW else run.start.history
    assert earlier[: len(before)] == before
    assert (entry["method"], entry["seed"]) == (run.declared.name, 3)
    assert run.declared.settings.keys() <= entry.keys()
    assert run.settings.items() <= entry.items()
    assert entry.get("training") == (TRAINING.settings() if run.declared.trains else None)
    assert json.loads(json.dumps(run.result.history)) == run.result.history


def test_a_trained_result_has_a_curve(run):
    assert bool(run.result.curve) == run.declared.trains


def test_save_and_load_give_equal_outputs(run, tmp_path):
    small = run.result
    small.save(tmp_path / "small")
    loaded = TaskModel.load(tmp_path / "small")
    np.testing.assert_equal(loaded.weights(), small.weights())
    for name in ("config", "task", "labels", "history"):
        assert getattr(loaded, name) == getattr(small, name), name
    assert loaded.tokenizer.vocab == small.tokenizer.vocab
    np.testing.assert_array_equal(
        loaded.model(inputs_of(loaded, length=12)), small.model(inputs_of(small, length=12))
    )


def test_padding_changes_no_answer(run):
    small = run.result
    short, long = inputs_of(small), {k: v.numpy() for k, v in inputs_of(small, length=16).items()}
    width = short["input_mask"].shape[1]
    long["input_word_ids"][:, width:] = 7
    long["input_type_ids"][:, width:] = max(small.config.type_vocab_size - 1, 0)
    answers = [np.asarray(small.model(inputs)) for inputs in (short, long)]
    real = short["input_mask"].numpy() > 0
    if answers[0].ndim == 3:  # one answer for each piece
        answers = [answer[:, :width][real] for answer in answers]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


def test_the_exported_file_answers_as_the_model_does(run, tmp_path):
    name = "int8" if run.result.config.quantization else "float32"
    (facts,) = export(
        with_labels(run.result), tmp_path, (name,), sequence_length=12, allow_drift=True
    )
    if name == "float32":
        assert facts["max_dlogit"] < 1e-4 and facts["agreement"] == 1.0
    else:  # rounding: activations of 8 bits
        assert facts["mean_dp"] < 0.05


def test_the_next_method_takes_the_result_and_a_quantised_result_is_the_last(run):
    small = with_labels(run.result)
    if small.config.quantization:
        with pytest.raises(ValueError, match="must be the last of a chain. Received: quantization"):
            function_of("vocabulary")(small, data())
        return
    smaller = function_of("vocabulary")(small, data())
    names = [entry["method"] for entry in smaller.history]
    assert names[-1] == "vocabulary" and run.declared.name in names
    assert smaller.config == small.config.replace(vocab_size=smaller.config.vocab_size)
    texts = data().dev.texts  # whose pieces are all kept
    np.testing.assert_allclose(smaller.predict(texts), small.predict(texts), atol=1e-5)


ANSWERS = "finetune soft_targets theseus tinybert pkd distilbert multilevel magnitude movement heads vocabulary q8bert".split()


@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("name", ANSWERS)
def test_methods_take_sets_of_names_and_numbers(name, task, tmp_path):
    takes_depth = "num_layers" in function_of(name).declared.settings
    settings = SETTINGS.get(name, {"num_layers": 1} if takes_depth else {})
    start = still(task, pooling="cls", **(WIDE if name == "q8bert" else {}))
    dataset = data(task)
    training = TRAINING.replace(evaluations=1)
    small = function_of(name)(start, dataset, training=training, **settings)
    result = evaluate(small, dataset.dev)
    assert np.isfinite([result["value"], result["se"]]).all()
    if small.curve:
        assert small.curve[-1]["dev"] == result["value"]
    small.save(tmp_path / "small")
    loaded = TaskModel.load(tmp_path / "small")
    assert loaded.threshold == small.threshold
    answers = small.predict(dataset.dev.texts)
    np.testing.assert_array_equal(loaded.predict(dataset.dev.texts), answers)
    if name in ("finetune", "q8bert"):
        made = "int8" if small.config.quantization else "float32"
        (facts,) = export(small, tmp_path, (made,), sequence_length=12, allow_drift=True)
        file = exported_model(facts["path"], small)
        atol = 0.1 if small.config.quantization else 1e-5
        np.testing.assert_allclose(file.predict(dataset.dev.texts), answers, atol=atol)


# What the boundary refuses


def changed(task_model, **fields):
    """The same model with other facts about it; nothing is built."""
    other = copy.copy(task_model)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


shared_bilstm = functools.cache(bilstm)


def refused(name, message, model=None, texts=None, **settings):
    run = run_of(name)
    settings = {"training": TRAINING, **run.settings, **settings}
    with pytest.raises(ValueError, match=message):
        function_of(name)(model or run.start, texts or run.dataset, **settings)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_cannot_start_from_is_refused(name):
    declared, start = run_of(name).declared, run_of(name).start
    quantization = {"bits": 8, "activations": "dynamic", "decay": 0.9, "start_step": 0}
    quantized = changed(start, config=start.config.replace(quantization=quantization))
    refused(name, "must be the last of a chain. Received: quantization", quantized)
    if declared.bert:
        refused(name, f"{name} needs a BERT. Received: a bilstm", shared_bilstm())
    if declared.data == "unlabelled":
        refused(name, f"{name} reads running text. Received: classification", texts=data())
    if declared.data == "labelled":
        refused(name, "one task. Received: a model for classification and", texts=data("tagging"))
        other = changed(start, labels=("a", "b", "c"))
        refused(name, "same labels in the same order. Received: .'a', 'b', 'c'", other)
    if declared.trained_head:
        head = next(key for key in start.weights() if key.startswith(("classifier/", "mlm_")))
        new = changed(start, history=[{"method": "load", "new": [head]}])
        refused(name, f"head must be trained. Received: a model whose {head} is new", new)
    if declared.trains:
        training = TRAINING.replace(max_length=17)
        refused(name, "`max_length` must be at most 16.* Received: 17", training=training)


WRONG = {
    int: 3,
    float: 1.5,
    bool: True,
    str: "no such value",
    list: [[1.5]],
    dict: {"a": {0: object()}},
    type(None): None,
    object: object(),
}


def kinds_and_limits(hint):
    """The types of Python that an annotation lets through, and values just outside of its limits."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        kinds, wrong = kinds_and_limits(inner[0])
        for fact in [fact for field in inner[1:] for fact in getattr(field, "metadata", ())]:
            for name, below in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
                limit = getattr(fact, name, None)
                wrong = [*wrong, limit + below] if limit is not None else wrong
        return kinds, [float("nan"), *wrong] if float in kinds else wrong
    if origin is typing.Literal:
        return {type(value) for value in inner}, ["no such value"]
    if origin in (list, dict):
        return {origin}, []
    if inner:  # a union: a value is wrong if no other part takes its type
        parts = [kinds_and_limits(part) for part in inner]
        wrong = [
            value
            for part, (_, values) in enumerate(parts)
            for value in values
            if not any(type(value) in kinds for k, (kinds, _) in enumerate(parts) if k != part)
        ]
        return set.union(*(kinds for kinds, _ in parts)), wrong
    return {hint}, []


def wrong_values(hint):
    kinds, wrong = kinds_and_limits(hint)
    allowed = kinds | ({int} if float in kinds else set())
    return wrong + [value for kind, value in WRONG.items() if kind not in allowed]


def test_wrong_values_are_derived_from_an_annotation():
    number, choice = (wrong_values(hint) for hint in (Count | None, Literal["a"] | list[int]))
    assert {0, 1.5, True, "no such value"} <= {v for v in number if not isinstance(v, list | dict)}
    assert None not in number and "no such value" in choice and [[1.5]] not in choice


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_checked_by_their_declaration(name):
    hints = typing.get_type_hints(function_of(name), include_extras=True)
    for setting in function_of(name).declared.settings:
        values = wrong_values(hints[setting])
        assert len(values) >= 3, setting
        for value in values:
            message = f"`{setting}` must be .*Received: .*See `methods {name}`"
            refused(name, message, **{setting: value})
    refused(name, "Settings must be among .*Received: dropout. See `methods", dropout=0.1)


@pytest.mark.parametrize("name", METHODS)
def test_the_signature_is_that_of_a_function_of(name):
    function = function_of(name)
    (model, dataset), others = (
        list(inspect.signature(function).parameters.values())[:2],
        list(inspect.signature(function).parameters.values())[2:],
    )
    assert (model.name, dataset.name) == ("task_model", "dataset")
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in others)
    defaults = {p.name: p.default for p in others}
    assert defaults.pop("seed") == 0 and isinstance(defaults.pop("training"), Training)
    assert defaults == function.declared.settings and function.declared.name == name
    check(inspect.unwrap(function), defaults)  # a default keeps its own declaration
    # A recipe's step and `--set` could not tell them apart.
    fields = {field.name for field in dataclasses.fields(Training)}
    assert not defaults.keys() & (fields | {"name", "method", "from", "data", "role", "seed"})


def test_a_file_in_a_familys_folder_is_a_method(tmp_path, monkeypatch):
    """No other edit: it is listed, runs on the boundary, and its settings are checked."""
    import keras_compress.pruning

    (tmp_path / "brand_new.py").write_text('''
"""Label smoothing of nothing. A., B., 2026.

More."""
from keras_compress.method import Share, compression, note
from keras_compress.training.settings import Training

@compression(trains=False)
def compress(task_model, dataset, *, seed=0, training=Training(), share: Share = 0.5):
    """Gives back a copy."""
    note(half=share / 2)
    return task_model.clone(seed=seed)

def helper():
    """No method."""

@compression(data="any", trains=False)
def brand_new_general(task_model, dataset, *, seed=0, training=Training()):
    """A second use."""
    return task_model.clone(seed=seed)
''')
    before = methods()
    monkeypatch.setattr(
        keras_compress.pruning, "__path__", [*keras_compress.pruning.__path__, str(tmp_path)]
    )
    assert {name: row for name, row in methods().items() if name not in before} == {
        "brand_new": ("pruning", "Label smoothing of nothing. A., B., 2026."),
        "brand_new_general": ("pruning", "A second use."),
    }
    small = method("brand_new")(still(), data(), seed=2, share=0.25)
    assert small.history == [{"method": "brand_new", "seed": 2, "share": 0.25, "half": 0.125}]
    with pytest.raises(ValueError, match="`share` must be .*Received: 2. See `methods brand_new`"):
        method("brand_new")(still(), data(), share=2)
    assert method("brand_new_general")(still(), None).history[-1]["method"] == "brand_new_general"
