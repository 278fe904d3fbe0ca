"""Recipes: named chains of methods in short TOML files, and how one step of them runs.

    [training]              # settings of `Training` for all steps
    max_length = 48
    [[step]]
    name = "predecessor"    # each step makes one model
    method = "finetune"     # `finetune`, or a method (`python -m keras_compress methods`)
    from = "minilm"         # an earlier step, or a source of weights
    epochs = 2              # settings of `Training` or of the method

A setting that is a model (`student`, `mlm`) names an earlier step or a source of weights, too. A step with `data` works
on unlabelled text of its own, such as "apidocs". What it makes serves other steps and is not measured, and so does what
`masked_lm`, `pretrain` and `from_scratch` make. `formats` of a step, such as ["int8", "int4"], go before the recipe's;
in a study they ask for the size and the accuracy of the step's exported files.

A study is a recipe with `datasets`, `seeds`, `learning_rates` and `shared` (see study.py); a step of a study may have
`learning_rates` of its own. `compare` is what its table sets against each other: ["some-step minus another", ..].
"""

import dataclasses
import re
import sys
import tomllib
from pathlib import Path

from keras_compress.method import method, settings_of
from keras_compress.training.settings import Training

MODELS = ("student", "mlm")  # settings that name a model
SERVING = ("masked_lm", "pretrain", "from_scratch")  # methods whose models no one measures
OF_DATA = ("vocabulary",)  # methods whose models' sizes the data decide
FIXED = ("name", "method", "from", "data", "learning_rates", "formats")  # keys of any step
FOLDER = Path(__file__).parents[1] / "recipes"
KINDS = {
    "about": str,
    "data": str,
    "training": dict,
    "step": [dict],
    "formats": [str],
    "sequence_length": int,
    "datasets": [str],
    "seeds": [int],
    "learning_rates": [float],
    "compare": [str],
    "shared": bool,
}  # [kind]: a list of these, not empty


def recipes():
    """{name: what it is about} of the recipes that come with the package."""
    return {
        path.stem: tomllib.loads(path.read_text(encoding="utf-8")).get("about", "")
        for path in sorted(FOLDER.glob("*.toml"))
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
    try:
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML ({error}).") from error
    wrong = [
        key for key, value in recipe.items() if key not in KINDS or not _is_kind(value, KINDS[key])
    ]
    if wrong or "step" not in recipe or ("seeds" in recipe) != ("datasets" in recipe):
        raise ValueError(
            f"{path}: a recipe must have [[step]]s, a study also `datasets` and `seeds`, and may have "
            f"{', '.join(KINDS)}, of the kinds in recipe.py. "
            f"Received: {', '.join(f'{key} = {recipe[key]!r:.60}' for key in wrong) or list(recipe)}."
        )
    recipe |= {
        "name": path.stem,
        "steps": recipe.pop("step"),
        "training": recipe.get("training", {}),
    }
    names = [step.get("name") for step in recipe["steps"]]
    for place, step in enumerate(recipe["steps"]):
        for key in ("name", "method", "from"):
            if not isinstance(step.get(key), str):
                raise ValueError(f"{path}: each step must have `{key}`. Received: {step}.")
        if "learning_rates" in step and not (
            "seeds" in recipe and _is_kind(step["learning_rates"], [float])
        ):
            raise ValueError(
                f"{path}: step {step['name']!r}: `learning_rates` must be numbers with a point, in a "
                f"study. Received: {step['learning_rates']!r}."
            )
        if not _is_kind(step.get("formats", ["int8"]), [str]):
            raise ValueError(
                f"{path}: step {step['name']!r}: `formats` must be a list of names. "
                f"Received: {step['formats']!r}."
            )
        if step["name"] in names[:place] or not re.fullmatch(r"\w[\w.-]*", step["name"]):
            raise ValueError(
                f"{path}: names of steps must be different and plain. Received: {step['name']!r}."
            )
        for key in ("from", *MODELS):
            if step.get(key) in names[place:]:
                raise ValueError(
                    f"{path}: step {step['name']!r}: `{key}` must name an earlier step or a source of "
                    f"weights. Received: {step[key]!r}. Put that step first."
                )
        try:
            Training(**split_settings(recipe["training"], step)[0])
        except ValueError as error:
            raise ValueError(f"{path}: step {step['name']!r}: {error}") from error
    for pair in recipe.get("compare", []):
        if len(pair.split(" minus ")) != 2 or not {*pair.split(" minus ")} <= {*names}:
            raise ValueError(
                f'{path}: `compare` must name two steps, as in "one minus other". Received: {pair!r}.'
            )
    return recipe


def _is_kind(value, kind):
    if isinstance(kind, list):
        return (
            isinstance(value, list)
            and value != []
            and all(isinstance(item, kind[0]) for item in value)
        )
    return isinstance(value, kind)


def split_settings(common, step):
    """(settings of `Training`, settings of the method) of a step, checked by name and kind.

    Args:
        common: settings of `Training` for all steps; those of the step itself go before.
    Raises:
        ValueError: on a setting that neither knows, or anything but a number where a number is the default.
    """
    for_training = {
        field.name: field.default
        for field in dataclasses.fields(Training)
        if field.name != "folder"
    }
    for_method = settings_of(step["method"])
    own = {key: value for key, value in step.items() if key not in FIXED}
    unknown = sorted({*own} - {*for_training, *for_method} | {*common} - {*for_training})
    if unknown:
        known = ", ".join(sorted({*for_training, *for_method}))
        raise ValueError(
            f"Settings of {step['method']} must be among {known}. Received: {', '.join(unknown)}."
        )
    for key in {*MODELS, "vectors"} & {*own}:
        if not isinstance(own[key], str):
            raise ValueError(f"`{key}` must be a name or a path. Received: {own[key]!r}.")
    for key, value in {**common, **own}.items():
        kind = (
            int
            if key == "patience" and value is not None
            else type({**for_training, **for_method}[key])
        )
        if kind in (bool, int, float) and type(value) not in (kind, int if kind is float else kind):
            name = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            raise ValueError(f"`{key}` must be {name}. Received: {value!r}.")
    training = {key: value for key, value in {**common, **own}.items() if key in for_training}
    return training, {key: value for key, value in own.items() if key in for_method}


def parents(recipe, step):
    """The steps that a step needs models of, `from` first."""
    wanted = [step["from"], *(step[key] for key in MODELS if key in step)]
    return [other for name in wanted for other in recipe["steps"] if other["name"] == name]


def is_trained(step):
    """Whether a step trains, so that seed and learning rate make a difference."""
    return step.get("recover") != "none" and (
        step["method"] not in OF_DATA or step.get("tune", False)
    )


def is_measured(step):
    """Whether a step's model solves the task, or only serves other steps."""
    return "data" not in step and step["method"] not in SERVING


def is_step(recipe, name):
    return any(step["name"] == name for step in recipe["steps"])


def changed(recipe, num_layers, learning_rate):
    """The recipe with another number of layers, or another learning rate, in every step that has one."""
    steps, names = [dict(step) for step in recipe["steps"]], {}
    for step in steps:
        if num_layers is not None and "num_layers" in step:
            names[step["name"]] = re.sub(rf"-{step['num_layers']}$", f"-{num_layers}", step["name"])
            step["num_layers"] = num_layers
        if learning_rate is not None:
            step["learning_rate"] = learning_rate
    for step in steps:
        step.update(
            {
                key: names.get(step[key], step[key])
                for key in ("name", "from", *MODELS)
                if key in step
            }
        )
    return {**recipe, "steps": steps}


def check_layers(steps, depth):
    """Raises ValueError if a step asks for layers that its parent cannot give. depth: {source: layers}.

    A method that has a `check_layers` (depth, settings -> layers of its model) is asked.
    """
    for step in steps:
        whole, wanted = depth[step["from"]], step.get("num_layers", depth[step["from"]])
        if not 1 <= wanted <= whole:
            raise ValueError(
                f"Step {step['name']}: `num_layers` must be 1 to {whole}, the layers that {step['from']} "
                f"has. Received: {wanted}. Choose with `--num-layers`."
            )
        check = getattr(sys.modules[method(step["method"]).__module__], "check_layers", None)
        try:
            depth[step["name"]] = check(whole, **step) if check else wanted
        except ValueError as error:
            raise ValueError(f"Step {step['name']}: {error}") from error


def check_data(dataset, *splits):
    """Raises ValueError unless the data are labelled and have these splits."""
    there = [name for name in ("train", "dev", "test") if getattr(dataset, name)]
    if dataset.task == "unlabelled" or not {*splits} <= {*there}:
        raise ValueError(
            f"The data must have labels and the splits {', '.join(splits)}. Received: {dataset.name}, "
            f"{dataset.task}, with {', '.join(there)}. Add the file that is missing, with labels, or take "
            "other data."
        )


def run_step(recipe, step, parent, dataset, *, seed, models=(), **changes):
    """Runs one step.

    Args:
        parent: `TaskModel` of the step or source named by `from`.
        dataset: the recipe's; a step with `data` loads its own.
        models: {name: `TaskModel`} of the steps that other settings name.
        changes: settings of `Training` that go before the recipe's (folder, strategy, learning_rate, ..).
    Returns:
        `TaskModel`.
    """
    from keras_compress.training.loop import check_length

    common, settings = split_settings(recipe["training"], step)
    settings |= {
        key: dict(models).get(settings[key], settings[key]) for key in MODELS if key in settings
    }
    if "data" in step:
        from keras_compress import datasets

        dataset = datasets.load(step["data"], task="unlabelled")
    training = Training(**{**common, **changes})
    check_length(parent, training)
    if parent.task == "mlm" and dataset.task != "unlabelled" and is_measured(step):
        from keras_compress.bert.checkpoints import with_head

        parent = with_head(parent, dataset.task, dataset.labels, seed=seed)
    return method(step["method"])(parent, dataset, seed=seed, training=training, **settings)
