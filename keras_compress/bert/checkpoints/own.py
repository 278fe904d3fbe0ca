"""A folder that `TaskModel.save` wrote: config.json says "keras_compress"."""

from pathlib import Path

from keras_compress.bert.checkpoints.published import Checkpoint
from keras_compress.bert.task_model import TaskModel
from keras_compress.files import read_json


def recognises(source):
    path = Path(source) / "config.json"
    return path.is_file() and "keras_compress" in read_json(path)


def read(source, num_labels=0):
    """Reads all weights with task and labels. Raises ValueError if the folder is damaged."""
    return checkpoint(TaskModel.load(source))


def checkpoint(model):
    """A `TaskModel` as a `Checkpoint`."""
    return Checkpoint(model.config, model.tokenizer, model.weights(), [], model.task, model.labels)
