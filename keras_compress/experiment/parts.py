"""The parts of a run's folder, which `overwrite` removes: only files that a run wrote."""

import re
from collections import defaultdict

from keras_compress.files import read_json
from keras_compress.own import CHECKPOINTS, LEFT, MODEL, files_in, remove_own

PARTS = (
    "models checkpoints tensorboard cells phones pictures log.txt run.json report.html report.md report.json"
).split()
OWN = (
    rf"models/[^/]+/(?:{MODEL}|model\.json|parity\.json)",
    r"models/[^/]+/(?:float32|float16|int8|int8_per_tensor|int4|int2)\.(?:tflite|onnx)",
    rf"checkpoints/{CHECKPOINTS}|tensorboard/.+/events\.out\.tfevents\.[^/]+",
    r"pictures/(?:accuracy_size|accuracy_latency|intervals|curves|replacing_rate|pretraining|confusion)(?:-[^/]+)?\.png",
    LEFT,
)


def check_parts(folder):
    """Raises ValueError if parts of a run hold what no run wrote, or what was changed since."""
    others = [
        f"{part}/{name}"
        for part in PARTS
        for path, name in files_in(folder / part)
        if not _own(path, f"{part}/{name}")
    ]
    if others:
        raise ValueError(
            f"`--overwrite` removes only what a run wrote. Received: {folder}, which holds "
            f"{', '.join(sorted(others)[:5])}, too, of others or changed since. Move that away, or choose another folder."
        )


def remove_parts(folder):
    """Removes what a run wrote; what came after `check_parts` stays, too."""
    for part in PARTS:
        if (folder / part).is_dir():
            remove_own(folder / part, lambda path, name: _own(path, f"{part}/{name}"))
        else:
            (folder / part).unlink(missing_ok=True)


def _own(path, name):
    """Whether a run wrote a file, whose `name` begins in its folder; what a cell holds tells its name."""
    if not name.startswith(("cells/", "phones/")):
        return any(re.fullmatch(own, name) for own in OWN)
    try:
        value = read_json(path)
    except (ValueError, OSError):
        return bool(re.fullmatch(LEFT, name))
    if name.startswith("phones/"):
        return [*value] == ["rows"]
    return name == "cells/{data}-{method}-{seed}.json".format_map(defaultdict(str, value))
