"""Recipes: named chains of methods in short TOML files, and how one step of them runs.

    [training]              # settings of `Training` for all steps
    max_length = 48
    [[step]]
    name = "predecessor"    # each step makes one model
    method = "finetune"     # `finetune`, or a method (`python -m keras_compress methods`)
    from = "minilm"         # an earlier step, or a source of weights
    epochs = 2              # settings of `Training` or of the method

A study is a recipe with `datasets`, `seeds` and `learning_rates` (see study.py).
"""
import dataclasses
import tomllib
from pathlib import Path

from keras_compress.methods import method, settings_of
from keras_compress.settings import Training

FOLDER = Path(__file__).parent / "recipes"
TOP_KEYS = {"about", "data", "training", "step", "formats", "sequence_length", "datasets", "seeds", "learning_rates"}


def recipes():
    """{name: what it is about} of the recipes that come with the package."""
    return {path.stem: tomllib.loads(path.read_text(encoding="utf-8")).get("about", "")
            for path in sorted(FOLDER.glob("*.toml"))}


def read_recipe(name):
    """Reads and checks a recipe: a name from `recipes()`, or the path of a TOML file.

    Returns:
        dict of the file's keys; `steps` is the list of steps, `name` the recipe's own.
    Raises:
        ValueError: naming the file, the step and what is wrong with it.
    """
    path = FOLDER / f"{name}.toml" if name in recipes() else Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise ValueError(f"A recipe must be one of {', '.join(recipes())}, or a TOML file. Received: {str(name)!r}.")
    try:
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML ({error}).") from error
    unknown = sorted(set(recipe) - TOP_KEYS)
    if unknown or not recipe.get("step"):
        raise ValueError(f"{path}: a recipe must have [[step]]s, and may have {', '.join(sorted(TOP_KEYS))}. "
                         f"Received: {', '.join(unknown) or 'no step'}.")
    recipe |= {"name": path.stem, "steps": recipe.pop("step"), "training": recipe.get("training", {})}
    seen = set()
    for step in recipe["steps"]:
        for key in ("name", "method", "from"):
            if not isinstance(step.get(key), str):
                raise ValueError(f"{path}: each step must have `{key}`. Received: {step}.")
        if step["name"] in seen or Path(step["name"]).name != step["name"]:
            raise ValueError(f"{path}: names of steps must be different and plain. Received: {step['name']!r}.")
        seen.add(step["name"])
        try:
            split_settings(recipe["training"], step)
        except ValueError as error:
            raise ValueError(f"{path}: step {step['name']!r}: {error}") from error
    return recipe


def split_settings(common, step):
    """(settings of `Training`, settings of the method) of a step, checked by name.

    Raises:
        ValueError: on a setting that neither knows.
    """
    for_training = {field.name for field in dataclasses.fields(Training)} - {"folder"}
    for_method = settings_of(step["method"])
    own = {key: value for key, value in step.items() if key not in ("name", "method", "from")}
    unknown = sorted({*own, *common} - for_training - set(for_method))
    if unknown:
        raise ValueError(f"Settings of {step['method']} must be among {', '.join(sorted({*for_training, *for_method}))}. "
                         f"Received: {', '.join(unknown)}.")
    training = {key: value for key, value in {**common, **own}.items() if key in for_training}
    return training, {key: value for key, value in own.items() if key in for_method}


def is_step(recipe, name):
    return any(step["name"] == name for step in recipe["steps"])


def run_step(recipe, step, parent, dataset, *, seed, **changes):
    """Runs one step.

    Args:
        parent: `TaskModel` of the step or source named by `from`.
        changes: settings of `Training` that go before the recipe's (folder, strategy, learning_rate, ..).
    Returns:
        `TaskModel`.
    """
    training, settings = split_settings(recipe["training"], step)
    return method(step["method"])(parent, dataset, seed=seed, training=Training(**{**training, **changes}), **settings)
