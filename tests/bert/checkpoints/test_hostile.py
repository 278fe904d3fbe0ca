"""A file decides neither what else is read, nor how much is built."""

import json
import time

import h5py
import numpy as np
import pytest

from keras_compress.bert.checkpoints import load
from keras_compress.bert.config import BertConfig
from keras_compress.files import check_memory, read_json
from tests import samples
from tests.bert import tiny

WEIGHT = "Embedding-Token/embeddings:0"


@pytest.fixture
def elsewhere(tmp_path):
    """A file of numbers that no model should read."""
    with h5py.File(tmp_path / "secret", "w") as file:
        file["x"] = np.ones((30, 8), np.float32)
    return tmp_path / "secret"


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


@pytest.mark.parametrize(
    "hide",
    [
        *(external_link, soft_link, external_storage, virtual),
        *(never_written, written_in_part, link_of_a_group),
    ],
)
def test_numbers_of_an_h5_file_are_its_own(tmp_path, elsewhere, hide):
    with h5py.File(tmp_path / "bert.h5", "w") as file:
        group = file.create_group("Embedding-Token")
        hide(group, elsewhere)
        group.attrs["weight_names"] = [WEIGHT.encode()]
    before = time.monotonic()
    with pytest.raises(ValueError, match="bert.h5: .*(a link to elsewhere|are not in this file)"):
        load(tmp_path / "bert.h5", task="classification", labels=("a", "b"))
    assert time.monotonic() - before < 5


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"hidden_size": 2**20, "intermediate_size": 2**22}, "fit into the memory.*Received: 105,"),
        ({"max_position_embeddings": 2**40}, "fit into the memory"),
        ({"num_layers": 100_000}, "`num_layers` must be less than or equal to 512"),
        *(
            ({"quantization": {**tiny_settings, "bits": bits}}, f"`bits` must be 8, 4 or 2.*{bits}")
            for tiny_settings in [{"activations": "dynamic", "decay": 0.9, "start_step": 0}]
            for bits in (-1, 1.5, 33, True)
        ),
    ],
)
def test_a_config_asks_for_what_can_be(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny.config(**changes)


def test_layers_that_share_weights_need_their_memory_once():
    sizes = {"hidden_size": 4096, "num_heads": 64, "intermediate_size": 16384, "num_layers": 512}
    assert BertConfig(**sizes, embedding_size=128, sharing="all").num_layers == 512
    with pytest.raises(ValueError, match="It must fit"):
        check_memory(1e18, "It")


@pytest.mark.parametrize(
    "changes",
    [{"history": [1]}, {"history": "x"}, {"lowercase": [3]}, {"threshold": "x"}, "[" * 100_000],
)
def test_a_config_file_is_refused_in_one_line(tmp_path, changes):
    path = samples.model(tmp_path / "model") / "config.json"
    if isinstance(changes, dict):
        changes = json.dumps(read_json(path) | changes)
    path.write_text(changes)
    with pytest.raises(ValueError, match="model.*Received|config.json: not valid JSON") as error:
        load(tmp_path / "model")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
