"""A user's own files in folders that are written anew, or cleaned up: they stay, whether the command is refused or not."""

import contextlib
import io
import shutil
from collections import Counter

from keras_compress.bert.task_model import TaskModel
from keras_compress.cli import main
from keras_compress.experiment.run_folder import at_work, open_run
from keras_compress.files import write_sealed
from keras_compress.own import remove_own
from keras_compress.training.finetune import finetune
from mobile_export.android_app import write_app
from tests import samples
from tests.attack import damage
from tests.bert import tiny
from tests.experiment.cells import cell
from tests.support import TRAINING, data

NAMES = (
    "notes.txt|.notes|mine.json|mine.png|mine.tflite|deeper/notes.txt|config.json.bak|labels (1).txt|"
    "ckpt-4 (copy).json|ckpt-4.notes|model.h5|report.md.orig|link"
).split("|")


def a_model(place):
    samples.model(place / "x")
    return (
        place / "x",
        ["."],
        lambda: TaskModel.load(place / "bert").save(place / "x", overwrite=True),
    )


def an_export(place):
    damage.exported(place)
    command = [
        "export",
        "--from",
        place / "bert",
        "--out",
        place / "files",
        "--formats",
        "float32",
        "--overwrite",
    ]
    return place / "files", ["."], lambda: main([*map(str, command), "--length", "16", "--vectors"])


def an_app(place):
    (place / "app").mkdir()
    damage.exported(place)
    write_app(place / "project", place / "files")
    models = next((place / "project").rglob("model.json")).parent
    return models, ["."], lambda: write_app(place / "project", place / "files", overwrite=True)


def checkpoints(place):
    folder = place / "checkpoints"
    training = TRAINING.replace(
        epochs=3, evaluations=3, patience=3, checkpoint_every=1, folder=str(folder)
    )

    def act():
        finetune(tiny.model(), data(), training=training)
        remove_own(folder)

    act()
    finetune(tiny.model(), data(), training=training.replace(epochs=3))
    return folder, [".", "finetune", "finetune/log"], act


def a_run(place):
    folder = place / "run"
    _, settings = open_run(folder, {"recipe": "theseus"})
    for name in (
        "cells",
        "phones",
        "pictures",
        "checkpoints/x/finetune",
        "tensorboard/x/finetune",
        "models",
    ):
        (folder / name).mkdir(parents=True)
    write_sealed(folder / "run.json", settings)
    write_sealed(folder / "cells/x-predecessor-0.json", cell("x", "predecessor", 0, [1, 0]))
    write_sealed(folder / "phones/1.json", {"rows": []})
    (folder / "pictures/intervals.png").touch()
    (folder / "checkpoints/x/finetune/asked.json").touch()
    samples.model(folder / "models/x")

    def act():
        _, settings = open_run(folder, {"recipe": "theseus", "overwrite": True})
        with at_work(folder, settings):
            pass

    parts = [path.relative_to(folder) for path in folder.rglob("*") if path.is_dir()]
    return folder, [".", *parts], act


FOLDERS = (a_model, an_export, an_app, checkpoints, a_run)


def attack(place, tries):
    """Counter of "survived" and of what was lost: each name in each folder, one at a time."""
    counts = Counter()
    for make in FOLDERS:
        here = place / make.__name__
        here.mkdir()
        samples.model(here / "bert", tuned=True, seed=5)
        folder, parts, act = make(here)
        shutil.copytree(folder, here / "backup", symlinks=True)
        for part in parts:
            for name in NAMES:
                if counts.total() < tries:
                    counts[_stays(folder / part / name, act, here)] += 1
                    shutil.rmtree(folder, ignore_errors=True)
                    shutil.copytree(here / "backup", folder)
    return counts


def _stays(path, act, here):
    path.parent.mkdir(parents=True, exist_ok=True)
    mine, elsewhere = b"a month of work", here / "elsewhere"
    if path.name == "link":
        elsewhere.mkdir(exist_ok=True)
        path.symlink_to(elsewhere)
        path = path / "asked.json"
    path.write_bytes(mine)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            act()
    except ValueError as error:
        if path.name not in str(error) and path.parent.name not in str(error):
            return f"LOST: refused without the name: {error!s:.150}"
    except Exception as error:
        return f"LOST: {error!r:.150}, {path.relative_to(here)}"
    stays = path.is_file() and path.read_bytes() == mine
    return "survived" if stays else f"LOST: {path.relative_to(here)}"
