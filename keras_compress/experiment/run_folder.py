"""The folder of a run: what was asked for stands in its run.json; what happened, in its log.txt."""

import contextlib
import logging
import os
import platform
import shutil
import time
from importlib.metadata import version
from pathlib import Path

from keras_compress.experiment.recipe import READING, changed, read_recipe
from keras_compress.files import DATA_FOLDER, new_folder, read_json, write_json

# What a run may be asked for, with what stands for "not asked".
ANEW = {"seeds": None, "only": None, "resume": False, "overwrite": False, "allow_drift": False}
FREE = {"recipe": "theseus", "data": None, "fixed_lr": False, "strategy": "none"}
DATA = {"task": None, "language": "en", "quick": False, "seed": 0}
MODEL = {"source": None, "length": None, "num_layers": None, "learning_rate": None, **READING}
DEFAULTS = {**ANEW, **FREE, **DATA, **MODEL}
# A resumed run may be asked for ANEW anew. ANEW and FREE leave the cells of a study what they are.

PARTS = (  # what `overwrite` removes
    "models checkpoints tensorboard cells pictures log.txt run.json report.html report.md report.json"
)
PACKAGES = (
    "tensorflow tf-keras numpy ai-edge-litert ai-edge-quantizer tokenizers "
    "tensorflow-model-optimization"
)


def versions():
    """Versions of what a number depends on."""
    packages = {name: version(name) for name in PACKAGES.split()}
    return {"python": platform.python_version(), **packages}


def open_run(out, options):
    """(folder, content of run.json) of a run that is new, or goes on.

    Raises:
        ValueError: if the folder must not be written, or the run was asked for something else.
        TypeError: if there is no such option.
    """
    asked = {key: str(v) if isinstance(v, Path) else v for key, v in options.items()}
    unknown = {*asked} - {*DEFAULTS}
    if unknown:
        raise TypeError(f"Options must be among {', '.join(DEFAULTS)}. Received: {unknown}.")
    asked = DEFAULTS | asked
    grows = not out and "seeds" in read_recipe(asked["recipe"])
    if asked["resume"] and not grows:
        folder = Path(out or last_folder())
        return folder, _asked_before(folder, asked)
    return new_run(asked, out, grows)


def new_run(asked, out, grows):
    """(folder, content of run.json) of a run that begins; the folder of a study `grows`."""
    recipe, runs = changed(read_recipe(asked["recipe"]), **asked), DATA_FOLDER.parent / "runs"
    known = recipe.get("datasets", [recipe.get("data", "assistant")])
    recipe["datasets"] = [asked["data"]] if asked["data"] else known
    recipe.setdefault("seeds", asked["seeds"] or [asked["seed"]])
    if grows:
        folder = runs / recipe["name"]
        own = {*recipe["datasets"]} <= {*known}
        own = own and all(asked[key] == none for key, none in {**DATA, **MODEL}.items())
        cells = DATA_FOLDER / "results" / recipe["name"] if own else folder / "results"
    else:
        folder = out or runs / f"{recipe['name']}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder = new_folder(folder, overwrite=asked["overwrite"], sign="run.json")
        cells = folder / "cells"
    return folder, {
        **asked,
        "content": recipe,
        "cells": os.path.relpath(cells, folder),
        "versions": versions(),
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "spent": 0,
    }


def last_folder():
    """The run under runs/ that was last at work. Raises ValueError if there is none."""
    runs = [*(DATA_FOLDER.parent / "runs").glob("*/run.json")]
    if not runs:
        raise ValueError(
            "`--resume` needs a run to go on with. Received: none under runs/. Name it with --out."
        )
    return max(runs, key=os.path.getmtime).parent


def _asked_before(folder, asked):
    """What run.json holds, if it is what is asked for now."""
    path = folder / "run.json"
    before = DEFAULTS | (read_json(path) if path.is_file() else {})
    if "content" not in before:
        raise ValueError(
            f"`--resume` needs the folder of a run. Received: {folder}, which holds no run.json of one."
        )
    for key, value in asked.items():
        if key in ANEW:
            before[key] = value or before[key]
        elif value not in (before[key], DEFAULTS[key]):
            raise ValueError(
                f"A resumed run must be asked for what it was. `{key}` was {before[key]!r}. "
                f"Received: {value!r}. Leave it out, or start a new run."
            )
    return before


@contextlib.contextmanager
def at_work(folder, settings):
    """Keeps run.json and log.txt while a run is at work; `overwrite` removes an earlier run first."""
    for part in PARTS.split() if settings["overwrite"] else ():
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).unlink(missing_ok=True)
    settings["overwrite"] = False  # done
    write_json(folder / "run.json", settings)
    started, before, root = time.time(), settings["spent"], logging.getLogger()
    lines = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    lines.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    lines.handleError = lambda record: None  # a full disk is told once, by what cannot go on
    root.addHandler(lines)
    try:
        yield
    except BaseException as error:
        lines.handle(logging.makeLogRecord({"msg": f"stopped: {type(error).__name__}: {error}"}))
        raise
    finally:
        root.removeHandler(lines)
        lines.close()
        settings["spent"] = before + time.time() - started
        write_json(folder / "run.json", settings)
