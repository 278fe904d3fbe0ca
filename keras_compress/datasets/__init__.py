"""Data sets: built-in, downloaded, or any folder in the forms that `readers` describes."""

import dataclasses
from pathlib import Path

from keras_compress.datasets import apidocs, download, readers
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.files import DATA_FOLDER

__all__ = ["Dataset", "Split", "find", "load"]
BUILT_IN = ("assistant-matching", "assistant-tagging", "assistant", "apidocs")


def load(name, *, task=None, language="en"):
    """Gives a data set by name or place.

    Args:
        name: "assistant", "apidocs", the name of a downloaded set, or the path of a folder (of a text file: its
            sentences, unlabelled). "assistant-matching" and "assistant-tagging" name a task, too: a study can
            have all three.
        task: for a built-in set the task to build (default: classification); for all others the task it must have.
            "multilabel" and "regression" also say how labels are read that look like one name or whole numbers.
        language: "en" or "zh", for assistant.
    Returns:
        `Dataset`.
    Raises:
        ValueError: there is no such set, or it has another task.
    """
    path = find(name)
    if name == "assistant":
        from keras_compress.datasets import assistant

        return assistant.load(language, task or "classification")
    if name == "apidocs":
        return apidocs.load(task or "classification")
    if name in BUILT_IN:
        data = load("assistant", task=name.removeprefix("assistant-"), language=language)
        data = dataclasses.replace(data, name=f"{data.name}-{data.task}")
    else:
        data = readers.read_folder(path, task) if path.is_dir() else readers.read_text(path)
    if task not in (None, data.task):
        raise ValueError(
            f"{path}: the data must be for the task {task}. Received: {data.task}. "
            "The task follows from columns and labels (see data/README.md)."
        )
    return data


def find(name):
    """The path of a data set; nothing is there for a built-in one. ValueError if there is no such set."""
    path = Path(name)
    if name in download.SOURCES and not path.exists():
        path = DATA_FOLDER / "downloads" / name
        if not path.is_dir():
            raise ValueError(
                f"`{name}` is not on this machine yet. "
                f"Fetch it with: python -m keras_compress data download {name}"
            )
    if name not in BUILT_IN and not path.exists():
        raise ValueError(
            f"A data set must be {', '.join((*BUILT_IN, *download.SOURCES))}, or a folder that "
            f"exists. Received: {str(name)!r}. Choose one of these, or check the path."
        )
    return path
