"""The boundary of a method: what is checked, written down and listed is said here, for all methods.

A method is a function `compress(task_model, dataset, *, seed=0, training=Training(), **settings)`
that gives back a smaller `TaskModel` and never changes its input. It lives in a file of its own,
`keras_compress/<family>/<name>.py`, and is listed because it stands there under `@compression`:

    @compression()
    def compress(task_model, dataset, *, seed=0, training=Training(), num_layers: Count = 3):

A decorated function of another name is a method of that name (`finetune`, `masked_lm`).
Settings are declared once, as annotations of the keyword arguments; Python, TOML and the command
line meet the same declaration and get the same message.
"""

import ast
import contextvars
import copy
import dataclasses
import functools
import importlib
import inspect
import typing
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError, create_model

FAMILIES = ("replacement", "distillation", "factorization", "quantization", "pruning")
ROOMS = ("training", "pretraining", *FAMILIES)

# Kinds and ranges of settings. Literal["a", "b"] declares a choice, TaskModel | str | None a model.
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]

_STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
_entry = contextvars.ContextVar("history entry of the method at work", default=None)


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What a method needs and takes; `method(name).declared` holds it.

    Attributes:
        name: of the method. data: "labelled" (task and labels of the model), "unlabelled" or "any".
        trained_head: whether the model's head must be trained. bert: whether it must be a BERT.
        trains: whether the method reads `training`: learning rate, length and the rest.
        seeded: whether `seed` changes the model.
        settings: {name: default}. models: {name: task that it is loaded for, None for the model's own}.
    A method's attribute `check` checks settings without running it.
    """

    name: str
    data: str
    trained_head: bool
    bert: bool
    trains: bool
    seeded: bool
    settings: dict
    models: dict


def compression(*, data="labelled", trained_head=True, bert=False, trains=True, seeded=None):
    """Makes a function a method: checks its input, runs it, and writes its history entry.

    The function runs under `training.scope()`. It may add facts to its entry with `note`.

    Args:
        data, trained_head, bert, trains, seeded: see `Declaration`; `seeded`: by default as `trains`.
    """

    def decorate(function):
        parameters = inspect.signature(function).parameters
        hints = typing.get_type_hints(function, include_extras=True)
        settings = {
            name: p.default
            for name, p in parameters.items()
            if p.kind is p.KEYWORD_ONLY and name not in ("seed", "training")
        }
        models = {
            name: _model_task(hints.get(name)) for name in settings if _model_type(hints.get(name))
        }
        name = (
            function.__module__.rpartition(".")[2]
            if function.__name__ == "compress"
            else function.__name__
        )
        random = trains if seeded is None else seeded
        declared = Declaration(name, data, trained_head, bert, trains, random, settings, models)

        def check_settings(given):
            return check(function, {**settings, **given}, f"See `methods {name}`.")

        @functools.wraps(function)
        def method(
            task_model, dataset, *, seed=0, training=parameters["training"].default, **given
        ):
            values = check_settings(given)
            check_input(declared, task_model, dataset, training)
            for setting, task in models.items():
                if isinstance(values[setting], str):
                    wanted = ("mlm", ()) if task == "mlm" else (task_model.task, task_model.labels)
                    from_source = _model_type(hints[setting]).from_source
                    values[setting] = from_source(values[setting], *wanted, seed=seed)
            entry = {"method": name, "seed": seed, **{k: _plain(v) for k, v in values.items()}}
            if trains:
                entry["training"] = training.settings()
            token = _entry.set(entry)
            try:
                with training.scope():
                    result = function(
                        copy.copy(task_model), dataset, seed=seed, training=training, **values
                    )
            finally:
                _entry.reset(token)
            result.model.trainable = True
            result.history = [*result.history, entry]
            return result

        method.declared, method.check = declared, check_settings
        return method

    return decorate


def note(**facts):
    """Adds facts to the history entry of the method at work, such as the layers that it chose."""
    if _entry.get() is not None:
        _entry.get().update(facts)


def entry_at_work():
    """The history entry of the method at work; checkpoints belong to it. None outside of a method."""
    return _entry.get()


def check(declaration, values, way_out=""):
    """Checks values by the annotations of a function or a dataclass, strictly: True is no number.

    Args:
        declaration: function (its keyword-only arguments) or dataclass (its fields).
        values: {name: value}. Tuples count as lists, paths as text. way_out: last sentence of the message.
    Returns:
        dict of the checked values.
    Raises:
        ValueError: naming the first setting that breaks its declaration, the rule and the value.
    """
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    plain |= {name: str(v) for name, v in values.items() if isinstance(v, Path)}
    model = _declared_model(declaration)
    try:
        return dict(model(**plain))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        setting = first["loc"][0]
        if first["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            raise ValueError(
                f"Settings must be among {known}. Received: {setting}. {way_out}".strip()
            ) from None
        rules = [e["msg"] for e in error.errors(include_url=False) if e["loc"][0] == setting]
        rule = " or ".join(dict.fromkeys(rule.removeprefix("Input should be ") for rule in rules))
        raise ValueError(
            f"`{setting}` must be {rule}. Received: {values[setting]!r:.200}. {way_out}".strip()
        ) from None


def check_fields(instance):
    """Checks the fields of a dataclass by their annotations; for `__post_init__`."""
    check(type(instance), {f.name: getattr(instance, f.name) for f in dataclasses.fields(instance)})


@functools.cache
def _declared_model(declaration):
    hints = typing.get_type_hints(declaration, include_extras=True)
    if dataclasses.is_dataclass(declaration):
        names = [field.name for field in dataclasses.fields(declaration)]
    else:
        parameters = inspect.signature(declaration).parameters.values()
        names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        names = [name for name in names if name not in ("seed", "training")]
    fields = {name: (hints.get(name, typing.Any), ...) for name in names}
    return create_model(declaration.__name__, __config__=_STRICT, **fields)


def _parts(hint):
    """The types that an annotation is made of."""
    return [hint, *(part for inner in typing.get_args(hint) for part in _parts(inner))]


def _model_type(hint):
    return next((part for part in _parts(hint) if hasattr(part, "from_source")), None)


def _model_task(hint):
    return next((part for part in _parts(hint) if part == "mlm"), None)


def _plain(value):
    """A setting as JSON has it: a model as its history."""
    if hasattr(value, "history"):
        return value.history
    return (
        value if isinstance(value, (str, int, float, bool, list, dict, type(None))) else str(value)
    )


def check_input(declared, task_model, dataset, training):
    """Raises ValueError unless a method can start from this model on these data."""
    check_not_quantized(task_model)
    if declared.bert and task_model.config.architecture != "bert":
        raise ValueError(
            f"{declared.name} needs a BERT. Received: a {task_model.config.architecture}. Start from a BERT."
        )
    if declared.data == "unlabelled" and dataset.task != "unlabelled":
        raise ValueError(
            f"{declared.name} reads running text. Received: {dataset.task} data ({dataset.name}). Take "
            "apidocs, or a text file with one sentence a line and an empty line between documents."
        )
    if declared.data == "labelled":
        check_fit(task_model, dataset)
    if declared.trained_head:
        check_trained(task_model)
    if declared.trains:
        check_length(task_model, training)


def check_length(task_model, training):
    """Raises ValueError if texts would be longer than a model can read."""
    longest = task_model.config.max_position_embeddings
    if training.max_length > longest:
        raise ValueError(
            f"`max_length` must be at most {longest}, the positions that the model has. "
            f"Received: {training.max_length}. Lower it: what is longer will be cut off."
        )


def check_not_quantized(task_model):
    """Raises ValueError if a model quantises while it computes: its weights are not free to change."""
    if task_model.config.quantization:
        raise ValueError(
            "A model that quantises while it computes must be the last of a chain. Received: "
            f"quantization = {task_model.config.quantization}. Start from the model that it was made of."
        )


def check_fit(task_model, dataset):
    """Raises ValueError unless model and data have one task and the same labels."""
    if task_model.task != dataset.task:
        raise ValueError(
            f"Model and data must have one task. Received: a model for {task_model.task} and {dataset.task} "
            f"data ({dataset.name}). Take data that fit, or the model under a new head (`--new-head`)."
        )
    if tuple(task_model.labels) != tuple(dataset.labels):
        raise ValueError(
            "Model and data must have the same labels in the same order. Received: "
            f"{list(task_model.labels)[:8]} and {list(dataset.labels)[:8]}. Reorder labels.txt, or load the "
            "model with a new head."
        )


def untrained(task_model):
    """The weights of a model's head that were made new when it was loaded and never trained since."""
    new = ()
    for entry in task_model.history:
        if "new" in entry:
            new = entry["new"]
        elif (
            "training" in entry and entry.get("num_answers") != 0
        ):  # a TinyBERT may learn no answers
            new = ()
    return [name for name in new if name.startswith(("classifier/", "mlm_"))]


def check_trained(task_model):
    """Raises ValueError if the model's head is new."""
    new = untrained(task_model)
    if new:
        raise ValueError(
            f"The model's head must be trained. Received: a model whose {', '.join(new)} is new. Train it first "
            "with `train`: on the data of its task; for a masked-LM model that is unlabelled text."
        )


def compress(name, task_model, dataset, **settings):
    """Compresses a model with the method of this name; `settings` are `seed`, `training` and its own."""
    return method(name)(task_model, dataset, **settings)


def methods():
    """{name: (family, first docstring line)} of all methods, read with `ast`: nothing is imported.

    `family` is the folder; "training" and "pretraining" hold what is used like a method.
    """
    return {name: (room, about) for name, (room, _, _, about) in _listed().items()}


def method(name):
    """The function of a method.

    Raises:
        ValueError: if there is no method of that name.
    """
    known = _listed()
    if name not in known:
        raise ValueError(f"`method` must be one of {', '.join(known)}. Received: {name!r}.")
    room, path, function, _ = known[name]
    return getattr(importlib.import_module(f"keras_compress.{room}.{path.stem}"), function)


def _listed():
    """{name: (room, path, function, first docstring line)}."""
    methods = {}
    for room in ROOMS:
        for folder in importlib.import_module(f"keras_compress.{room}").__path__:
            for path in sorted(Path(folder).glob("*.py")):
                for name, function, about in _methods_of(path, path.stat().st_mtime_ns):
                    methods[name] = room, path, function, about
    return methods


@functools.cache
def _methods_of(path, changed):
    """[(name, function, first docstring line)] of the methods in a file as it is since `changed`."""
    tree, methods = ast.parse(path.read_text(encoding="utf-8")), []
    for node in tree.body:
        decorators = getattr(node, "decorator_list", ())
        if any(getattr(getattr(d, "func", d), "id", "") == "compression" for d in decorators):
            main = node.name == "compress"
            about = (ast.get_docstring(tree if main else node) or "").split("\n")[0]
            methods.append((path.stem if main else node.name, node.name, about))
    return methods
