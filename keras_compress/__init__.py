"""BERT compression, paper by paper, in Keras. Importing the package does not import TensorFlow.

import keras_compress as kc
model = kc.load("minilm", task="classification", labels=data.labels)
"""

import importlib
import os
import sys

if "tensorflow" not in sys.modules:  # else backend.py says what to do
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_KERAS"] = "1"  # bert4keras reads this one

__version__ = "0.1.0"
_PUBLIC = {  # name: (module, name there), imported at its first use
    "load": ("bert.checkpoints", "load"),
    "load_data": ("datasets", "load"),
    "compress": ("method", "compress"),
    "methods": ("method", "methods"),
    "TaskModel": ("bert.task_model", "TaskModel"),
    "Training": ("training.settings", "Training"),
}
__all__ = [*_PUBLIC]


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
