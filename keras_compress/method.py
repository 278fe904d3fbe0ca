"""The boundary of a method: what is checked, written down and listed is said here, for all methods.

A method is a function `compress(task_model, dataset, *, seed=0, training=Training(), **settings)`
that gives back a smaller `TaskModel` and never changes its input. It lives in a file of its own,
`keras_compress/<family>/<name>.py`, and is listed because it stands there under `@compression`:

    @compression()
    def compress(task_model, dataset, *, seed=0, training=Training(), num_layers: Count = 3):

A decorated function of another name is a method of that name (`finetune`, `masked_lm`). What it
annotates are its settings; Python, TOML and the command line get the same message about them.
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

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

FAMILIES = ("replacement", "distillation", "factorization", "quantization", "pruning")
ROOMS = ("training", "pretraining", *FAMILIES)

# Kinds and ranges of settings. Literal["a", "b"] declares a choice, TaskModel | str | None a model.
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)
_entry = contextvars.ContextVar("history entry of the method at work", default=None)


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What a method takes and needs; `method(name).declared` holds it.

    Attributes:
        name: of the method. settings: {name: default}.
        models: {name of a setting: task that it is loaded for, None for the model's own}.
        data: "labelled" (task and labels of the model), "classes" (the same, with one name for a text or word),
            "unlabelled" or "any".
        trained_head: whether the model's head must be trained. bert: whether it must be a BERT.
        trains: whether the method reads `training`. seeded: whether `seed` changes the model; by default as `trains`.
        keeps_best: whether training may go back to its best evaluation on dev (`patience`).
    A method's attribute `check` checks settings without running it.
    """

    name: str
    settings: dict
    models: dict
    data: str = "labelled"
    trained_head: bool = True
    bert: bool = False
    trains: bool = True
    seeded: bool = True
    keeps_best: bool = True


def compression(**needs):
    """Makes a function a method: checks its input, runs it, and writes its history entry.

    The function runs under `training.scope()`. It may add facts to its entry with `note`.

    Args:
        needs: `data` and what follows it in `Declaration`, where a method differs from what stands there.
    """
    needs.setdefault("seeded", needs.get("trains", True))

    def decorate(function):
        name, defaults = function.__name__, function.__kwdefaults__
        if name == "compress":
            name = function.__module__.rpartition(".")[2]
        hints = typing.get_type_hints(function, include_extras=True)
        _, _, *own = inspect.signature(function).parameters.values()
        for one in own:
            if one.kind != one.KEYWORD_ONLY or one.name not in (*hints, "seed", "training"):
                raise TypeError(
                    "A method's settings must stand behind `*`, each with an annotation, such as "
                    f"`epsilon: BelowOne = 0.1`. Received: {one} in {name}."
                )
        models = {
            setting: "mlm" if "mlm" in typing.get_args(hints[setting]) else None
            for setting, hint in typing.get_type_hints(function).items()
            if any(hasattr(kind, "from_source") for kind in typing.get_args(hint))
        }
        declared = Declaration(name, {each: defaults[each] for each in hints}, models, **needs)

        def check_settings(given):
            if given.get("student") is not None and "layers" in given:
                raise ValueError(
                    "Either `layers` or `student` says what the student starts from. Received: both. "
                    "Leave one out."
                )
            return check(function, {**declared.settings, **given}, f"See `methods {name}`.")

        @functools.wraps(function)
        def method(task_model, dataset, *, seed=0, training=defaults["training"], **given):
            values = check_settings(given)
            check_input(declared, task_model, dataset, training)
            for setting, task in models.items():
                if isinstance(values[setting], str):
                    wanted = (task, ()) if task else (task_model.task, task_model.labels)
                    values[setting] = task_model.from_source(values[setting], *wanted, seed=seed)
            told = {key: getattr(value, "history", value) for key, value in values.items()}
            entry = {"method": name, "seed": seed, **told}
            if declared.trains:
                entry["training"] = training.settings()
            context = contextvars.copy_context()
            context.run(_entry.set, entry)
            values |= {"seed": seed, "training": training}
            with training.scope():
                result = context.run(function, copy.copy(task_model), dataset, **values)
            result.model.trainable = True
            result.history = [*result.history, entry]
            return result

        method.declared, method.check = declared, check_settings
        return method

    return decorate


def note(**facts):
    """Adds facts to the history entry of the method at work, such as the layers that it chose."""
    (entry_at_work() or {}).update(facts)


def entry_at_work():
    """The history entry of the method at work; checkpoints belong to it. None outside of a method."""
    return _entry.get()


def check(declaration, values, way_out=""):
    """Checks values by the annotations of a function or a dataclass, strictly: True is no number.

    Args:
        declaration: function or dataclass; what it annotates are the settings.
        values: {name: value}. Tuples count as lists, paths as text. way_out: last sentence of the message.
    Returns:
        dict of the checked values. ValueError names the first that breaks its declaration, the rule and the value.
    """
    kinds, checked = _kinds(declaration), {}
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(
                f"Settings must be among {', '.join(kinds)}. Received: {name}. {way_out}".strip()
            )
        value = list(value) if isinstance(value, tuple) else value
        value = str(value) if isinstance(value, Path) else value
        try:
            checked[name] = kinds[name].validate_python(value)
        except ValidationError as error:
            rules = [each["msg"].removeprefix("Input should be ") for each in error.errors()]
            rule = " or ".join(dict.fromkeys(rules))
            raise ValueError(
                f"`{name}` must be {rule}. Received: {value!r:.200}. {way_out}".strip()
            ) from None
    return checked


@functools.cache
def _kinds(declaration):
    """{name: what checks a value} of the annotated settings."""
    hints = typing.get_type_hints(declaration, include_extras=True)
    return {name: TypeAdapter(hint, config=_STRICT) for name, hint in hints.items()}


def check_input(declared, task_model, dataset, training):
    """Raises ValueError unless a method can start from this model on these data."""
    check_free(task_model, declared.trains)
    if declared.bert and task_model.config.architecture != "bert":
        raise ValueError(
            f"{declared.name} needs a BERT. Received: a {task_model.config.architecture}. Start from a BERT."
        )
    if declared.data == "unlabelled" and dataset.task != "unlabelled":
        raise ValueError(
            f"{declared.name} reads running text. Received: {dataset.task} data ({dataset.name}). Take "
            "apidocs, or a text file with one sentence a line and an empty line between documents."
        )
    if declared.data == "classes" and dataset.task in ("multilabel", "regression"):
        raise ValueError(
            f"{declared.name} needs one name for a text or word. Received: {dataset.task} data "
            f"({dataset.name}). Take another method: `methods` lists them."
        )
    if declared.data in ("labelled", "classes"):
        check_fit(task_model, dataset)
    if declared.trained_head:
        check_trained(task_model)
    if declared.trains:
        check_length(task_model, training)
    if not declared.keeps_best and training and training.patience is not None:
        raise ValueError(
            f"`patience` must be none: what {declared.name} makes belongs to the last update. Received: "
            f"{training.patience}. Leave it out."
        )


def check_length(task_model, training):
    """Raises ValueError if texts would be longer than a model can read."""
    longest = task_model.config.max_position_embeddings
    if training.max_length > longest:
        raise ValueError(
            f"`max_length` must be at most {longest}, the positions that the model has. "
            f"Received: {training.max_length}. Lower it: what is longer will be cut off."
        )


def check_free(task_model, trained=False):
    """Raises ValueError if the weights are not free to change: the model quantises, or has exits and would be trained."""
    name = "exits" if trained and task_model.config.exits else "quantization"
    if value := getattr(task_model.config, name):
        raise ValueError(
            "A model that has exits or quantises while it computes must be the last of a chain. "
            f"Received: {name} = {value}. Start from the model that it was made of."
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
            f"{list(task_model.labels)[:8]} and {list(dataset.labels)[:8]}. Where the names are the same, "
            "`dataset.with_labels(model.labels)` orders them; else load the model with a new head."
        )


def untrained(task_model):
    """The weights of a model's head that were made new when it was loaded and never trained since."""
    new = ()
    for entry in task_model.history:
        trained = "training" in entry and entry.get("num_answers") != 0  # some train no head
        new = entry.get("new", () if trained else new)
    return [name for name in new if name.startswith(("classifier/", "mlm_"))]


def check_trained(task_model):
    """Raises ValueError if the model's head is new."""
    if new := untrained(task_model):
        raise ValueError(
            f"The model's head must be trained. Received: a model whose {', '.join(new)} is new. Train it first "
            "with `train`: on the data of its task; for a masked-LM model that is unlabelled text."
        )


def compress(name, task_model, dataset, **settings):
    """Compresses a model with the method of this name; `settings` are `seed`, `training` and its own."""
    return method(name)(task_model, dataset, **settings)


def methods():
    """{name: (family or other folder, first docstring line)} of all methods; none is imported, `ast` reads them."""
    return {name: facts[:2] for name, facts in _listed().items()}


def method(name):
    """The function of a method. ValueError if there is no method of that name."""
    known = _listed()
    if name not in known:
        raise ValueError(f"`method` must be one of {', '.join(known)}. Received: {name!r}.")
    room, _, file, function = known[name]
    return getattr(importlib.import_module(f"keras_compress.{room}.{file}"), function)


def _listed():
    """{name: (room, first docstring line, file, function)} of all functions under `@compression`."""
    listed = {}
    for room in ROOMS:
        for folder in importlib.import_module(f"keras_compress.{room}").__path__:
            for path in sorted(Path(folder).glob("*.py")):
                for name, *facts in _methods_in(path.stem, path.read_text(encoding="utf-8")):
                    listed[name] = room, *facts
    return listed


@functools.cache
def _methods_in(file, code):
    tree, found = ast.parse(code), []
    for node in tree.body:
        decorators = map(ast.unparse, getattr(node, "decorator_list", ()))
        if any(each.startswith("compression(") for each in decorators):
            name, described = (file, tree) if node.name == "compress" else (node.name, node)
            about = ast.get_docstring(described).partition("\n")[0]
            found.append((name, about, file, node.name))
    return found
