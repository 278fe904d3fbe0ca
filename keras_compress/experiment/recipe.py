"""Recipes: named chains of methods in short TOML files, and how one step of them runs.

    include = "_base"       # what other recipes share: keys here go before, steps come after
    [training]              # settings of `Training` for all steps
    max_length = 48
    [[step]]
    name = "predecessor"    # each step makes one model
    role = "predecessor"    # or "baseline", "control", "helper"; default: a compressed model
    method = "finetune"     # a method (`python -m keras_compress methods`)
    from = "minilm"         # an earlier step, or a source of weights
    epochs = 2              # settings of `Training` or of the method

A setting that is a model (`student`, `mlm`) names an earlier step or a source of weights, too.
Without a step of that role the first step is the predecessor.
A helper serves other steps and is not measured; `data` gives a step unlabelled text of its own.
`size` (default: `num_layers`) pairs a model with baselines, `family` joins the sizes of a method;
a step without a name is called family-size. A step's own `formats` are compared as models, too.

`datasets` and `seeds` make a study. Its `learning_rates`, or those of a step, are tried on dev.
`compare` lists what is set against what, by names of steps or families: "a minus b", or
"a minus b or c" for the better of the two; "each" stands for every family without a role, and
"a:int8" for a file, if the step a has `formats` of its own.
"""

import dataclasses
import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keras_compress.method import Positive, Whole, method
from keras_compress.training.settings import Training

FOLDER = Path(__file__).parents[1] / "recipes"
FIELDS = {field.name for field in dataclasses.fields(Training)} - {"folder"}
# Settings of `load` that a run may be asked for, with what stands for none.
READING = {"new_head": False, "ignore_weights": []}
READING |= dict.fromkeys(["labels", "pooling", "lowercase"])
Names = Annotated[list[str], Field(min_length=1)]
Rates = Annotated[list[Positive], Field(min_length=1)]


class Step(BaseModel):
    """Keys of any step; further ones are settings of `Training` or of the method.

    `steps_of` adds what the recipe says of a step:
        role: "predecessor" for the first, where no other step is. size: default `num_layers`.
        training, settings: of `Training` (those of all steps, too) and of the method, as written.
        models: {"from" or setting: the earlier `Step` that it names}; others name sources.
        seed: the first; `of_seed` gives it another. shared: whether it is made once for all seeds, with the first.
        seeded: whether seeds change a model beside those of the predecessor, which stand for all.
        rates: learning rates to choose from on dev; None: the step's own holds.
        reading: those of `READING` that were asked for, if it starts from a source.
    """

    model_config = ConfigDict(strict=True, extra="allow")
    name: Annotated[str, Field(pattern=r"^\w[\w.-]{0,59}$")]  # of files, too
    method: str
    source: str = Field(alias="from")
    role: Literal["predecessor", "baseline", "control", "helper"] | None = None
    family: str | None = None
    size: int | None = None
    data: str | None = None
    formats: Names | None = None
    learning_rates: Rates | None = None


class Recipe(BaseModel):
    """Keys of a recipe."""

    model_config = ConfigDict(strict=True, extra="forbid")
    about: str = ""
    step: Annotated[list[Step], Field(min_length=1)]
    training: dict = {}
    data: str = "assistant"
    formats: Names = ["float32", "int8"]
    sequence_length: Annotated[int, Field(ge=4)] | None = None
    datasets: Names | None = None
    seeds: Annotated[list[Whole], Field(min_length=1)] | None = None
    learning_rates: Rates | None = None
    compare: Names | None = None
    shared: bool = True


def recipes():
    """{name: what it is about} of the recipes that come with the package."""
    return {
        path.stem: tomllib.loads(path.read_text(encoding="utf-8")).get("about", "")
        for path in sorted(FOLDER.glob("[!_]*.toml"))
    }


def find_recipe(name):
    """The path of a recipe. Raises ValueError if there is none of that name."""
    path = FOLDER / f"{name}.toml" if name in recipes() else Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise ValueError(
            f"A recipe must be one of {', '.join(recipes())}, or a TOML file. Received: {str(name)!r}."
        )
    return path


def read_recipe(name):
    """Reads and checks a recipe: a name from `recipes()`, or the path of a TOML file.

    Returns:
        dict of the file's keys; `steps` is the list of steps, `name` the recipe's own.
    Raises:
        ValueError: naming the file, the step and what is wrong with it.
    """
    path = find_recipe(name)
    content = read_toml(path)
    try:
        recipe = Recipe(**content).model_dump(by_alias=True, exclude_none=True)
        recipe |= {"name": path.stem, "steps": recipe.pop("step")}
        recipe.setdefault("sequence_length", recipe["training"].get("max_length", 64))
        if ("seeds" in recipe) != ("datasets" in recipe):
            raise ValueError("a study has `datasets` and `seeds`. Received: only one of them.")
        steps = steps_of(recipe)
        known = {"each", *(step.name for step in steps), *(step.family for step in steps)}
        known |= {f"{step.name}:{kind}" for step in steps for kind in step.formats or ()}
        for pair in recipe.get("compare", []):
            left, *right = compared(pair)
            if not right or not {left, *right} <= known:
                raise ValueError(
                    '`compare` must name steps or families, as in "a minus b or c". '
                    f"Received: {pair!r}."
                )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        rule, keys = first["msg"], ", ".join(Recipe.model_fields)
        if first["type"] == "extra_forbidden":
            rule = "must be a key of a recipe; others belong to a [[step]] or an option"
        raise ValueError(
            f"{path}: `{where}`: {rule}. Received: {first['input']!r:.100}. Keys are include, {keys}."
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return recipe


def read_toml(path, inside=()):
    """The content of a TOML file and of what it includes; a step of the same name adds to it."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        repr(content)  # for messages; a key of many dots is as deep as many brackets
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid TOML ({error}).") from error
    steps, training = content.get("step", []), content.get("training", {})
    named = isinstance(steps, list) and all(
        isinstance(step, dict) and isinstance(step.get("name", ""), str) for step in steps
    )
    if not named or not isinstance(training, dict):
        key, rule = (
            ("training", "a table") if named else ("step", "[[step]] tables whose `name` is text")
        )
        raise ValueError(
            f"{path}: `{key}`: must be {rule}. Received: {content[key]!r:.100}. See the keys in experiment/recipe.py."
        )
    for step in steps:
        if "family" in step:
            step.setdefault("name", f"{step['family']}-{step.get('size', step.get('num_layers'))}")
    name = content.pop("include", None)
    if name is None:
        return content
    is_name = re.fullmatch(r"[\w.-]{1,60}", str(name))
    other = path.parent / f"{name if is_name else ''}.toml"
    other = other if other.is_file() else FOLDER / other.name
    if not is_name or not other.is_file() or other in (path, *inside):
        raise ValueError(
            f"{path}: `include` must name another recipe, beside this one or of the package, that does "
            f"not include this one. Received: {name!r:.100}."
        )
    base = read_toml(other, (path, *inside))
    known = {step.get("name"): step for step in base.get("step", [])}
    new = [step for step in steps if step.get("name") not in known]
    for step in steps:
        known.get(step.get("name"), {}).update(step)
    training = base.get("training", {}) | training
    return {**base, **content, "training": training, "step": [*base.get("step", []), *new]}


def compared(pair):
    """["a", "b", "c"] of "a minus b or c"."""
    left, _, right = pair.partition(" minus ")
    return [left, *filter(None, right.split(" or "))]


def steps_of(recipe):
    """The `Step`s of a recipe.

    Raises:
        ValueError: unless they can follow each other and their settings are known.
    """
    steps, names = {}, [content["name"] for content in recipe["steps"]]
    reading = {key: recipe[key] for key in READING if recipe.get(key, READING[key]) != READING[key]}
    first = {content.get("role"): content["name"] for content in reversed(recipe["steps"])}
    for content in recipe["steps"]:
        step = Step(**content)
        if step.name == first.get("predecessor", names[0]):
            step.role = "predecessor"
        given = {**recipe["training"], **step.model_extra}
        step.training = {key: value for key, value in given.items() if key in FIELDS}
        step.settings = {key: value for key, value in given.items() if key not in FIELDS}
        if step.size is None:
            step.size = step.settings.get("num_layers")
        if names.count(step.name) > 1 or step.name in ("majority", "tfidf"):
            raise ValueError(
                "names of steps must be different, and neither majority nor tfidf. "
                f"Received: {step.name!r}."
            )
        try:
            function = method(step.method)
            function.check(step.settings)
            Training(**step.training)
            declared, named = function.declared, {"from": step.source, **step.settings}
            named = {key: named.get(key) for key in ("from", *declared.models)}
            for key, name in named.items():
                if name in names and name not in steps:
                    raise ValueError(
                        f"`{key}` must name an earlier step or a source of weights. Received: {name!r}. "
                        "Put that step first."
                    )
        except ValueError as error:
            raise ValueError(f"step {step.name!r}: {error}") from error
        step.models = {key: steps[name] for key, name in named.items() if name in steps}
        parents = step.models.values()
        untrained = bool(parents) and not declared.seeded
        step.shared = (
            step.role == "predecessor"
            or (step.role == "helper" and recipe.get("shared", True))
            or (untrained and all(parent.shared for parent in parents))
        )
        step.seed = recipe.get("seeds", [0])[0]
        step.seeded = declared.seeded or any(
            parent.seeded for parent in parents if parent.role != "predecessor"
        )
        fixed = step.shared or step.role == "helper" or not declared.trains
        step.rates = None if fixed else content.get("learning_rates", recipe.get("learning_rates"))
        step.reading = {} if "from" in step.models else reading
        steps[step.name] = step
    return [*steps.values()]


def of_seed(step, seed):
    """The step and its parents as they are with a seed; what is shared stays as it is."""
    seed = step.seed if step.shared else seed
    models = {key: of_seed(parent, seed) for key, parent in step.models.items()}
    return step.model_copy(update={"seed": seed, "models": models})


def identity(step, sha256):
    """What a step's model depends on, as JSON has it: data, the chain of settings as written, seeds.

    Args:
        sha256: name of a step's own data, or None for the recipe's -> hash of the data.
    """
    models = {key: identity(parent, sha256) for key, parent in step.models.items()}
    return {
        "method": step.method,
        "seed": step.seed,
        "data_sha256": sha256(step.data),
        "training": step.training | ({"learning_rate": step.rates} if step.rates else {}),
        **step.reading,
        "from": step.source,
        **step.settings,
        **models,
    }


def hash_of(content):
    """The short name of an identity."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def run_step(step, parent, dataset, *, models={}, **changes):
    """Runs one step.

    Args:
        parent: `TaskModel` of the step or source named by `from`. models: {setting: `TaskModel`}.
        dataset: of the step.
        changes: settings of `Training` that go before the recipe's (folder, strategy, ..).
    Returns:
        `TaskModel`.
    """
    if parent.task == "mlm" and dataset.task != "unlabelled" and step.role != "helper":
        from keras_compress.bert.checkpoints import with_head

        parent = with_head(parent, dataset.task, dataset.labels, seed=step.seed)
    training = Training(**step.training | changes)
    return method(step.method)(
        parent, dataset, seed=step.seed, training=training, **step.settings | models
    )
