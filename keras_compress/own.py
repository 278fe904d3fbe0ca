"""Which files of a folder are ours, and their removal: what a user put among them stays."""

import contextlib
import logging
import os
import re
from pathlib import Path

from keras_compress.bert.stored import FILES

log = logging.getLogger(__name__)
MODEL = "|".join(map(re.escape, FILES))
# In a folder of checkpoints, by training/checkpoints.py, loop.py and teacher_cache.py, and augmentation.py; then what a
# killed writer left, of TensorFlow's and of ours (files.py)
CHECKPOINTS = (
    r"(?:.+/)?(?:asked\.json|ckpt-\d+\.(?:json|(?:index|data-\d+-of-\d+)(?:\.tempstate\d+)?)|ckpt-\d+_temp/.+|"
    rf"best-\d+/(?:{MODEL})|log/events\.out\.tfevents\.[^/]+|teacher-\w+/outputs\.npy|augmented/\w{{16}}\.jsonl)"
)
LEFT = r"(?:.+/)?\.[^/]+\.\d+\.\w+\.part(?:\.old)?/.+"


def of_training(path, name):
    """Whether a training wrote a file, whose `name` begins in the folder of its checkpoints."""
    return bool(re.fullmatch(f"{CHECKPOINTS}|{LEFT}", name))


def files_in(folder):
    """Yields (path, name from the folder on) of all that a folder holds but folders."""
    for place, folders, names in os.walk(folder, topdown=False):
        for path in map(Path(place).joinpath, (*names, *folders)):
            if path.is_symlink() or not path.is_dir():
                yield path, path.relative_to(folder).as_posix()


def remove_own(folder, is_own=of_training):
    """Removes the files for which `is_own(path, name)` holds, and the folders that are empty then; tells what stays."""
    others = []
    for path, name in files_in(folder):
        if is_own(path, name):
            path.unlink(missing_ok=True)
        else:
            others.append(name)
    for place, *_ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # it is not empty
            os.rmdir(place)
    if others:
        log.warning("warning: %s stays: %s is not of ours", folder, ", ".join(sorted(others)[:5]))
