"""The folder of a run: what was asked for stands in its run.json; what happened, in its log.txt."""

import contextlib
import logging
import os
import platform
import shutil
import time
from fnmatch import fnmatch
from glob import escape
from importlib.metadata import version
from pathlib import Path

from keras_compress.bert.stored import FILES
from keras_compress.experiment.recipe import READING, identity, read_recipe, steps_of
from keras_compress.files import DATA_FOLDER, new_folder, read_json, sha256_of, write_sealed
from keras_compress.method import method
from mobile_export import contract

log = logging.getLogger(__name__)
# What a run may be asked for, with what stands for "not asked".
ANEW = {"seeds": None, "only": None, "resume": False, "overwrite": False, "allow_drift": False}
FREE = {"recipe": "theseus", "data": None, "fixed_lr": False, "strategy": "none"}
DATA = {"task": None, "language": "en", "quick": False, "seed": 0}
MODEL = {"source": None, "length": None, "num_layers": None, "learning_rate": None, **READING}
DEFAULTS = {**ANEW, **FREE, **DATA, **MODEL}
# A resumed run may be asked for ANEW anew. ANEW and FREE leave the cells of a study what they are.

EVALUATIONS = 4  # on dev, where the best is kept
PARTS = (  # what `overwrite` removes
    "models checkpoints tensorboard cells phones pictures log.txt run.json report.html report.md report.json"
)
EXPORTED = (contract.MODEL, contract.VECTORS)  # beside the files of `export`
OWN = [f"models/*/{name}" for name in (*FILES, *EXPORTED, "*.tflite", "*.onnx")]
OWN += "checkpoints/* tensorboard/* cells/*.json phones/*.json pictures/*.png".split()
MAY_CHANGE = {"steps", "training", "compare", "about"}  # of a recipe, when a run goes on
NO_FILE = "name method family role data".split()  # keys of a step that name no file of weights
READ = "*.json *.txt *.safetensors *.bin *.h5 *.index *.data-*".split()  # of a folder of weights
BESIDE = "bert_config.json config.json vocab.txt tokenizer.json tokenizer_config.json".split()
PACKAGES = (
    "tensorflow tf-keras numpy ai-edge-litert ai-edge-quantizer tokenizers "
    "tensorflow-model-optimization"
)


def versions():
    """Versions of what a number depends on."""
    packages = {name: version(name) for name in PACKAGES.split()}
    return {"python": platform.python_version(), **packages}


def sources_of(recipe):
    """{path: SHA-256} of the files outside of the run that its steps start from: weights, vocabularies, vectors."""
    inside = {"minilm", "bilstm", *(step["name"] for step in recipe["steps"])}
    found = set()
    for step in recipe["steps"]:
        given = {value for key, value in step.items() if key not in NO_FILE and type(value) is str}
        for path in map(Path, given - inside):
            if path.is_dir():
                found |= {
                    file for end in READ for file in (*path.glob(end), *path.glob(f"*/{end}"))
                }
            elif path.is_file() or path.with_name(f"{path.name}.index").is_file():
                found |= {*path.parent.glob(f"{escape(path.name)}*"), *map(path.with_name, BESIDE)}
    # `export` may have added its own since
    found = {file for file in found if file.is_file() and file.name not in EXPORTED}
    return {str(file): sha256_of(file) for file in sorted(found)}


def check_same(settings, sets):
    """Raises ValueError if a run would go on with other data or weights than before; tells of other versions."""
    now = {"sets": sets, "sources": sources_of(settings["content"]), "versions": versions()}
    before = {key: settings.setdefault(key, value) for key, value in now.items()}
    if before["sets"] != sets:
        raise ValueError(
            "A resumed run must have the same data. Received: other content than before. Restore it, or "
            "start a new run."
        )
    other = {key: _differing(before[key], now[key]) for key in ("sources", "versions")}
    if other["sources"]:
        raise ValueError(
            "A resumed run must start from the same files. Received: other content than before of "
            f"{', '.join(other['sources'][:5])}. Restore it, or start a new run."
        )
    if other["versions"]:
        told = (f"{name} {before['versions'].get(name)}" for name in other["versions"])
        log.warning("warning: the run began with other versions: %s", ", ".join(told))


def _differing(before, now):
    return sorted(key for key in {**before, **now} if before.get(key) != now.get(key))


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
    known = recipe.get("datasets", [recipe["data"]])
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
        _check_own(folder)
        cells = folder / "cells"
    before = {}
    if grows and not asked["overwrite"] and (folder / "run.json").is_file():
        before = {"sources": read_json(folder / "run.json").get("sources", {})}
    return folder, {
        **asked,
        **before,
        "content": recipe,
        "cells": os.path.relpath(cells, folder),
        "versions": versions(),
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "spent": 0,
    }


def _check_own(folder):
    """Raises ValueError if parts of a run, which `overwrite` removes, hold what no run writes."""
    parts = [
        path for part in PARTS.split() for path in (folder / part).rglob("*") if not path.is_dir()
    ]
    names = [path.relative_to(folder).as_posix() for path in parts]
    if others := [name for name in names if not any(fnmatch(name, own) for own in OWN)]:
        raise ValueError(
            f"`--overwrite` removes only what a run wrote. Received: {folder}, which holds {', '.join(others[:5])}, too. "
            "Move that away, or choose another folder."
        )


def changed(recipe, /, **asked):
    """The recipe with what a run was asked for: `num_layers`, `learning_rate`, `length`, `source`,
    `fixed_lr`, `data` or one of `READING`, as in `DEFAULTS`; other keys do not matter.

    A step whose name was made of family and size gets the name of its new size. A learning rate that is
    asked for is not chosen on dev. On data of the user's own, where nobody tried how long to train, each
    step keeps its best of EVALUATIONS or more on dev; `last` names those that cannot (see
    `method.Declaration`). A study stays as it is written.
    """
    asked = {key: value for key, value in asked.items() if value is not None}
    recipe, steps, renamed = dict(recipe), [dict(step) for step in recipe["steps"]], {}
    if asked.get("data", recipe["data"]) != recipe["data"] and "seeds" not in recipe:
        recipe["last"] = [step["name"] for step in steps if not _keeps_best(recipe, step)]
    for step in steps:
        if "num_layers" in asked and "num_layers" in step:
            step["num_layers"] = asked["num_layers"]
            if "family" in step and "size" not in step:
                renamed[step["name"]] = f"{step['family']}-{asked['num_layers']}"
        if "learning_rate" in asked:
            step["learning_rate"] = asked["learning_rate"]
        if asked.get("fixed_lr") or "learning_rate" in asked:
            step["learning_rates"] = None
        if "source" in asked and step["from"] == recipe["steps"][0]["from"]:
            source = Path(asked["source"])
            step["from"] = str(source.resolve()) if source.exists() else asked["source"]
    for step in steps:
        step.update({key: renamed[value] for key, value in step.items() if value in [*renamed]})
    if "length" in asked:
        recipe["sequence_length"] = asked["length"]
        recipe["training"] = {**recipe["training"], "max_length": asked["length"]}
    recipe |= {"steps": steps, **READING, **{key: asked[key] for key in READING if key in asked}}
    steps_of(recipe)
    return recipe


def _keeps_best(recipe, step):
    """Has a step go back to its best weights; False if its method cannot."""
    given = {"evaluations": 0, **recipe["training"], **step}
    evaluations = max(given["evaluations"], EVALUATIONS)
    able = method(step["method"]).declared.keeps_best
    if able:  # so much patience never ends the training
        step |= {"evaluations": evaluations, "patience": given.get("patience", evaluations)}
    return able


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
    if before["recipe"].endswith(".toml") and Path(before["recipe"]).is_file():
        _take_corrections(folder, before)
    return before


def _take_corrections(folder, before):
    """Goes on with a recipe's file as it stands now; ValueError if it says other things of what ran already."""
    was, now = before["content"], changed(read_recipe(before["recipe"]), **before)
    now |= {key: was[key] for key in ("datasets", "seeds")}
    told = [{step.name: identity(step, str) for step in steps_of(recipe)} for recipe in (was, now)]
    for steps, recipe in zip(told, (was, now)):
        steps.update({step["name"]: (step, steps[step["name"]]) for step in recipe["steps"]})
    other = _differing(*told)
    ran = [name for name in other if _ran(folder, name)]
    ran += [key for key in was if key not in MAY_CHANGE and was[key] != now.get(key)]
    if ran:
        raise ValueError(
            "A resumed run may have corrected steps where these have not run. Received: a recipe with another "
            f"{', '.join(ran[:5])}. Restore {before['recipe']}, or start a new run."
        )
    if other:
        log.info("the recipe was corrected since: %s", ", ".join(other))
    before |= {"content": now, "corrected": other}


def _ran(folder, step):
    """Whether a run holds a step's model or cells."""
    made = (f"models/{escape(step)}/config.json", f"cells/*-{escape(step)}-[0-9]*.json")
    return any(path for pattern in made for path in folder.glob(pattern))


@contextlib.contextmanager
def at_work(folder, settings):
    """Keeps run.json and log.txt while a run is at work; `overwrite` removes an earlier run first."""
    for part in PARTS.split() if settings["overwrite"] else ():
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).unlink(missing_ok=True)
    settings["overwrite"] = False  # done
    for step in settings.pop("corrected", ()):  # its checkpoints are of another training
        shutil.rmtree(folder / "checkpoints" / step, ignore_errors=True)
    write_sealed(folder / "run.json", settings)
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
        write_sealed(folder / "run.json", settings)
