"""Finds methods by their place, `keras_compress/<family>/<file>.py`: there is no registry to edit."""

import ast
import importlib
from pathlib import Path

FAMILIES = ("replacement", "distillation", "factorization", "quantization", "pruning")
TRAININGS = {
    "finetune": "training.loop",
    "masked_lm": "pretraining.masked_lm",
    "pretrain": "pretraining.masked_lm",
    "from_scratch": "pretraining.masked_lm",
}
INNER = (
    "seed",
    "training",
    "num_steps",
    "first_step",
    "only",
    "in_place",
)  # arguments that no recipe sets
PACKAGE = Path(__file__).parent


def methods():
    """{name: (family, first docstring line)} of all methods, read with `ast`: nothing is imported."""
    found = {}
    for family in FAMILIES:
        for path in sorted((PACKAGE / family).glob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if any(
                isinstance(node, ast.FunctionDef) and node.name == "compress" for node in tree.body
            ):
                found[path.stem] = (family, (ast.get_docstring(tree) or "").split("\n")[0])
    return found


def method(name):
    """The `compress` function of a method; those of `TRAININGS` are plain training.

    Raises:
        ValueError: if there is no method of that name.
    """
    if name in TRAININGS:
        return getattr(importlib.import_module(f"keras_compress.{TRAININGS[name]}"), name)
    known = methods()
    if name not in known:
        raise ValueError(
            f"`method` must be one of {', '.join([*TRAININGS, *known])}. Received: {name!r}."
        )
    return importlib.import_module(f"keras_compress.{known[name][0]}.{name}").compress


def settings_of(name):
    """{setting: default} that a method takes beside the model, the data, seed and training."""
    import inspect

    parameters = inspect.signature(method(name)).parameters.values()
    return {
        p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in INNER
    }
