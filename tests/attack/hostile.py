"""Files of weights that reach out, run code or ask for terabytes: refused in one line, in seconds, with nothing run."""

import os
import time
from collections import Counter

import h5py
import numpy as np

from keras_compress.bert.checkpoints import load
from keras_compress.bert.checkpoints.torch_pickle import read_torch
from keras_compress.files import read_json, write_json
from tests import samples
from tests.attack import pickles

SECONDS = 10
WEIGHT = "Embedding-Token/embeddings:0"
CONFIGS = [
    {"hidden_size": 2**20, "intermediate_size": 2**22},
    *(
        {name: 2**40}
        for name in ("max_position_embeddings", "vocab_size", "num_layers", "num_heads")
    ),
    *(
        {name: value}
        for name in ("num_layers", "hidden_size", "quantization")
        for value in (-1, 1.5, "x", [], {}, None)
    ),
]


def secret(path):
    """A file of numbers that no model should read."""
    with h5py.File(path, "w") as file:
        file["x"] = np.ones((30, 8), np.float32)
    return path


def h5(path, hide, elsewhere):
    with h5py.File(path, "w") as file:
        group = file.create_group("Embedding-Token")
        hide(group, elsewhere)
        group.attrs["weight_names"] = [WEIGHT.encode()]
    return path


def external_link(group, secret):
    group[WEIGHT] = h5py.ExternalLink(str(secret), "x")


def soft_link(group, secret):
    external_link(group.create_group("hidden"), secret)
    group[WEIGHT] = h5py.SoftLink(f"/Embedding-Token/hidden/{WEIGHT}")


def external_storage(group, secret):
    group.create_dataset(WEIGHT, (30, 8), np.float32, external=[(str(secret), 0, 960)])


def virtual(group, secret):
    layout = h5py.VirtualLayout((30, 8), np.float32)
    layout[:] = h5py.VirtualSource(str(secret), "x", (30, 8))
    group.create_virtual_dataset(WEIGHT, layout)


def never_written(group, secret):
    group.create_dataset(WEIGHT, (2**31, 384), np.float32, chunks=(1024, 384))


def written_in_part(group, secret):
    dataset = group.create_dataset(WEIGHT, (2**31, 8), np.float32, chunks=(64, 8), compression=9)
    dataset[:64] = 1


def link_of_a_group(group, secret):
    group.create_group("Embedding-Token")
    group["Embedding-Token"].attrs["x"] = 1
    del group["Embedding-Token"]
    group["Embedding-Token"] = h5py.ExternalLink(str(secret), "/")


H5 = (
    external_link,
    soft_link,
    external_storage,
    virtual,
    never_written,
    written_in_part,
    link_of_a_group,
)


def reads(place):
    """Yields functions that read a hostile file, which each makes first."""
    elsewhere = secret(place / "secret")
    for hide in H5:
        path = h5(place / "bert.h5", hide, elsewhere)
        yield lambda: load(path, task="classification", labels=("a", "b"))
    for _, content, _ in pickles.hostile():
        for path in pickles.both(place, content):
            yield lambda: read_torch(path)
    folder = samples.model(place / "model")
    whole = read_json(folder / "config.json")
    for changes in CONFIGS:
        write_json(folder / "config.json", whole | {"config": whole["config"] | changes})
        if changes != {"quantization": None}:  # there is none
            yield lambda: load(folder)


def attack(place, tries):
    """Counter of "survived" and of what was lost."""
    counts, home = Counter(), os.getcwd()
    os.chdir(place)
    for _, read in zip(range(tries), reads(place)):
        begun = time.monotonic()
        try:
            read()
            result = "LOST: was read"
        except ValueError as error:
            result = "survived" if "\n" not in str(error) else f"LOST: {error!r:.150}"
        except BaseException as error:
            result = f"LOST: {error!r:.150}"
        late = time.monotonic() - begun > SECONDS or (place / "trapped").exists()
        counts["LOST: late, or it was run" if late else result] += 1
    os.chdir(home)
    return counts
