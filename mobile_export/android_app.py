"""The Android app of android/ as a folder of the user's own, with the files of exported models in it.

The project is copied once, and then the user's: only app/src/main/assets/models/NAME is written again.
"""

import re
import shlex
import shutil
from pathlib import Path

from keras_compress.files import atomic_folder
from mobile_export.contract import LABELS, MODEL, VECTORS, VOCABULARY, read_model

PROJECT = Path(__file__).parent / "android"
SETTINGS, STRINGS = "settings.gradle.kts", "app/src/main/res/values/strings.xml"
MARK = "// The app of keras_compress\n"  # begins SETTINGS
MODELS = "app/src/main/assets/models"
LEFT_OUT = shutil.ignore_patterns("build", ".gradle", ".idea", "local.properties")  # of a build


def is_app(folder):
    """Whether a folder holds a project that `write_app` made."""
    settings = Path(folder) / SETTINGS
    return settings.is_file() and settings.read_text("utf-8", "replace").startswith(MARK)


def check_app(folder, exported, overwrite=False):
    """Raises ValueError if `write_app` would have to touch what is not its own.

    Args:
        folder: new, empty, or a project that `write_app` made. exported: folder that `export` writes.
        overwrite: replace the files of the model of this name.
    Returns:
        the folder of the model's files, in the project.
    """
    folder = Path(folder)
    full = folder.is_dir() and any(folder.iterdir()) and not is_app(folder)
    if full or folder.is_file() or folder.resolve() == Path(exported).resolve():
        raise ValueError(
            f"An app needs a new folder, or one that `export --android` wrote. Received: {folder}, which holds "
            "something else, or is to hold the exported files. Choose another folder."
        )
    # Android's packager leaves out names that begin with a dot or an underscore.
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(exported).resolve().name).strip(".-")
    place = folder / MODELS / (name or "model")
    if place.exists() and not overwrite:
        raise ValueError(
            f"A model in an app is not replaced without `--overwrite`. Received: {place}. Export to a folder of "
            "another name (of A to Z and digits), which the app then offers beside it, or pass `--overwrite`."
        )
    return place


def write_app(folder, exported, overwrite=False):
    """Writes the project, unless it is there, and puts the .tflite files of an exported folder into it.

    Args:
        folder, overwrite: as in `check_app`; a new project gets the folder's name.
        exported: folder with model.json and what stands beside it.
    Returns:
        the folder of the model's files, in the project.
    """
    folder, exported = Path(folder), Path(exported)
    place, about = check_app(folder, exported, overwrite), read_model(exported)
    names = [row["path"] for row in about["files"] if row["path"].endswith(".tflite")]
    if not is_app(folder):
        plain = re.sub(r"[^\w.()+-]+", " ", folder.resolve().name)  # as XML and Kotlin take it
        name = plain.strip(" .") or "keras_compress"
        with atomic_folder(folder) as new:
            shutil.copytree(PROJECT, new, ignore=LEFT_OUT, dirs_exist_ok=True)
            _replace(new / STRINGS, ">keras_compress<", f">{name}<")
            _replace(new / SETTINGS, '"keras-compress"', f'"{name}"')
    names += [name for name in (MODEL, VOCABULARY, LABELS, VECTORS) if (exported / name).is_file()]
    with atomic_folder(place, overwrite, sign=MODEL) as new:
        for name in names:
            shutil.copyfile(exported / name, new / name)
    return place


def next_commands(folder):
    """The shell's commands from a project to the app on a phone. ValueError if the folder holds none."""
    if not is_app(folder):
        raise ValueError(
            f"The folder must be one that `export --android` wrote. Received: {folder}. Check the path."
        )
    place = shlex.quote(str(folder))
    gradle = shlex.quote(str(Path(folder).resolve() / "gradlew"))
    return [
        f"gradle -p {place} wrapper",
        f"{gradle} -p {place} installDebug",
        "adb shell am start -n kerascompress.app/.MainActivity",
    ]


def _replace(path, old, new):
    path.write_text(path.read_text("utf-8").replace(old, new, 1), "utf-8", newline="\n")
