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
"a minus b or c" for the better of the two; "each" stands for every family without a role.
"""

import dataclasses
import functools
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keras_compress.method import method
from keras_compress.training.settings import Training

FOLDER = Path(__file__).parents[1] / "recipes"
Names = Annotated[list[str], Field(min_length=1)]
Rates = Annotated[list[float], Field(min_length=1)]


class Step(BaseModel):
    """Keys of any step; further ones are settings of `Training` or of the method."""

    model_config = ConfigDict(strict=True, extra="allow")
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
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
    data: str | None = None
    formats: Names = ["float32", "int8"]
    sequence_length: int | None = None
    datasets: Names | None = None
    seeds: Annotated[list[int], Field(min_length=1)] | None = None
    learning_rates: Rates | None = None
    compare: Names | None = None
    shared: bool = True


method_of = functools.cache(method)  # finding a method by its place reads all of their files
FIXED = {field.alias or name for name, field in Step.model_fields.items()}


def recipes():
    """{name: what it is about} of the recipes that come with the package."""
    return {
        path.stem: tomllib.loads(path.read_text(encoding="utf-8")).get("about", "")
        for path in sorted(FOLDER.glob("[!_]*.toml"))
    }


def read_recipe(name):
    """Reads and checks a recipe: a name from `recipes()`, or the path of a TOML file.

    Returns:
        dict of the file's keys; `steps` is the list of steps, `name` the recipe's own.
    Raises:
        ValueError: naming the file, the step and what is wrong with it.
    """
    path = FOLDER / f"{name}.toml" if name in recipes() else Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise ValueError(
            f"A recipe must be one of {', '.join(recipes())}, or a TOML file. Received: {str(name)!r}."
        )
    content = read_toml(path)
    try:
        Recipe(**content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{path}: `{where}`: {first['msg']}. Received: {first['input']!r:.100}. See the keys in "
            "experiment/recipe.py."
        ) from None
    steps = content.pop("step")
    recipe = {"training": {}, "formats": ["float32", "int8"], **content, "name": path.stem}
    recipe |= {"steps": steps}
    recipe.setdefault("sequence_length", recipe["training"].get("max_length", 64))
    try:
        _check(recipe)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return recipe


def read_toml(path, inside=()):
    """The content of a TOML file and of what it includes; a step of the same name adds to it."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML ({error}).") from error
    steps = content.get("step")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict) and "family" in step:
            step.setdefault("name", f"{step['family']}-{size_of(step)}")
    name = content.pop("include", None)
    if name is None:
        return content
    other = path.with_name(f"{name}.toml")
    other = other if other.is_file() else FOLDER / other.name
    if not other.is_file() or other in (path, *inside):
        raise ValueError(
            f"{path}: `include` must name another recipe, beside this one or of the package, that does "
            f"not include this one. Received: {name!r}."
        )
    base = read_toml(other, (path, *inside))
    own = {step.get("name"): step for step in steps or ()}
    known = [step["name"] for step in base["step"]]
    return {
        **base,
        **content,
        "training": {**base.get("training", {}), **content.get("training", {})},
        "step": [
            *({**step, **own.get(step["name"], {})} for step in base["step"]),
            *(step for step in steps or () if step.get("name") not in known),
        ],
    }


def _check(recipe):
    """Raises ValueError unless the steps can follow each other and their settings are known."""
    names = [step["name"] for step in recipe["steps"]]
    if ("seeds" in recipe) != ("datasets" in recipe):
        raise ValueError("a study has `datasets` and `seeds`. Received: only one of them.")
    for position, step in enumerate(recipe["steps"]):
        if step["name"] in (*names[:position], "majority", "tfidf"):
            raise ValueError(
                "names of steps must be different, and neither majority nor tfidf. "
                f"Received: {step['name']!r}."
            )
        for key in links(step):
            if step[key] in names[position:]:
                raise ValueError(
                    f"step {step['name']!r}: `{key}` must name an earlier step or a source of weights. "
                    f"Received: {step[key]!r}. Put that step first."
                )
        try:
            split_settings(recipe["training"], step)
        except ValueError as error:
            raise ValueError(f"step {step['name']!r}: {error}") from error
    known = {"each", *names, *(step.get("family") for step in recipe["steps"])}
    for pair in recipe.get("compare", []):
        left, *right = compared(pair)
        if not right or not {left, *right} <= known:
            raise ValueError(
                '`compare` must name steps or families, as in "a minus b or c". '
                f"Received: {pair!r}."
            )


def compared(pair):
    """["a", "b", "c"] of "a minus b or c"."""
    left, _, right = pair.partition(" minus ")
    return [left, *filter(None, right.split(" or "))]


def size_of(step):
    return step.get("size", step.get("num_layers"))


def predecessor_of(recipe):
    """The step of that role; the first step where no step has it."""
    steps = recipe["steps"]
    return next((step for step in steps if step.get("role") == "predecessor"), steps[0])


def role_of(recipe, step):
    first = predecessor_of(recipe)["name"] == step["name"]
    return "predecessor" if first else step.get("role")


def links(step):
    """The keys of a step that name a model, `from` first."""
    models = method_of(step["method"]).declared.models
    return ["from", *(key for key in models if step.get(key) is not None)]


def split_settings(common, step):
    """(settings of `Training`, settings of the method) of a step.

    Args:
        common: settings of `Training` for all steps; those of the step itself go before.
    Raises:
        ValueError: on a setting that neither knows, or a value of the wrong kind.
    """
    fields = {field.name for field in dataclasses.fields(Training)} - {"folder"}
    own = {key: value for key, value in step.items() if key not in FIXED}
    training = {**common, **{key: value for key, value in own.items() if key in fields}}
    settings = {key: value for key, value in own.items() if key not in fields}
    if not {*common} <= fields:
        raise ValueError(
            f"[training] may hold {', '.join(sorted(fields))}. Received: {', '.join(common)}."
        )
    method_of(step["method"]).check(settings)
    Training(**training)
    return training, settings


def parents(recipe, step):
    """The steps that a step needs models of, `from` first."""
    wanted = [step[key] for key in links(step)]
    return [other for name in wanted for other in recipe["steps"] if other["name"] == name]


def is_seeded(recipe, step):
    """Whether seeds change a model beside those of the predecessor, which stand for all."""
    return method_of(step["method"]).declared.seeded or any(
        is_seeded(recipe, parent)
        for parent in parents(recipe, step)
        if role_of(recipe, parent) != "predecessor"
    )


def is_shared(recipe, step):
    """Whether a step is made once for all seeds."""
    role = role_of(recipe, step)
    made_of = parents(recipe, step)
    return (
        role == "predecessor"
        or (role == "helper" and recipe.get("shared", True))
        or (bool(made_of) and not method_of(step["method"]).declared.seeded)
        and all(is_shared(recipe, parent) for parent in made_of)
    )


def seed_of(recipe, step, seed):
    """The first seed for what is made once for all."""
    return recipe["seeds"][0] if is_shared(recipe, step) else seed


def training_of(recipe, step):
    """`Training` of a step."""
    return Training(**split_settings(recipe["training"], step)[0])


def rates_of(recipe, step):
    """The learning rates to choose from on dev; None: the step's own holds."""
    fixed = is_shared(recipe, step) or role_of(recipe, step) == "helper"
    if fixed or not method_of(step["method"]).declared.trains:
        return None
    return step.get("learning_rates", recipe.get("learning_rates"))


def identity(recipe, step, seed, sha256):
    """What a step's model depends on, as JSON has it: data, the chain of settings as written, seeds.

    Args:
        sha256: name of a step's own data, or None for the recipe's -> hash of the data.
    """
    rates, by_name = rates_of(recipe, step), {one["name"]: one for one in parents(recipe, step)}
    seed = seed_of(recipe, step, seed)
    training, settings = split_settings(recipe["training"], step)
    if rates:
        training = {**training, "learning_rate": rates}
    models = {
        key: identity(recipe, by_name[step[key]], seed, sha256)
        if step[key] in by_name
        else step[key]
        for key in links(step)
    }
    own = {"method": step["method"], "seed": seed, "data_sha256": sha256(step.get("data"))}
    if recipe.get("new_head") and step["from"] not in by_name:
        own["new_head"] = True
    return {**own, "training": training, **settings, **models}


def hash_of(content):
    """The short name of an identity."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def changed(
    recipe,
    num_layers=None,
    learning_rate=None,
    length=None,
    source=None,
    new_head=False,
    fixed_lr=False,
):
    """The recipe with another number of layers, learning rate, length or source in every step.

    A step whose name was made of family and size gets the name of its new size.
    """
    steps, names = [dict(step) for step in recipe["steps"]], {}
    by_name, training = {step["name"] for step in steps}, dict(recipe["training"])
    for step in steps:
        if num_layers is not None and "num_layers" in step:
            step["num_layers"] = num_layers
            if "family" in step and "size" not in step:
                names[step["name"]] = f"{step['family']}-{num_layers}"
        if learning_rate is not None:
            step["learning_rate"] = learning_rate
        if fixed_lr:
            step["learning_rates"] = None  # instead of a choice on dev
        if source is not None and step["from"] not in by_name:
            step["from"] = str(Path(source).resolve()) if Path(source).exists() else source
    for step in steps:
        keys = ("name", *links(step))
        step.update({key: names.get(step[key], step[key]) for key in keys})
    if length is not None:
        training["max_length"] = length
        recipe = {**recipe, "sequence_length": length}
    recipe = {**recipe, "steps": steps, "training": training, "new_head": new_head}
    _check(recipe)
    return recipe


def run_step(recipe, step, parent, dataset, *, seed, models={}, **changes):
    """Runs one step.

    Args:
        parent: `TaskModel` of the step or source named by `from`.
        dataset: of the step. models: {name: `TaskModel`} of the steps that other settings name.
        changes: settings of `Training` that go before the recipe's (folder, strategy, ..).
    Returns:
        `TaskModel`.
    """
    training, settings = split_settings(recipe["training"], step)
    settings |= {key: models.get(step[key], step[key]) for key in links(step)[1:]}
    if parent.task == "mlm" and dataset.task != "unlabelled" and step.get("role") != "helper":
        from keras_compress.bert.checkpoints import with_head

        parent = with_head(parent, dataset.task, dataset.labels, seed=seed)
    training = Training(**{**training, **changes})
    return method(step["method"])(parent, dataset, seed=seed, training=training, **settings)
