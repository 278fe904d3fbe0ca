"""A file decides neither what else is read, nor how much is built."""

import json
import time

import pytest

from keras_compress.bert.checkpoints import load
from keras_compress.bert.config import BertConfig
from keras_compress.files import check_memory, read_json
from tests import samples
from tests.attack import hostile
from tests.bert import tiny


@pytest.fixture
def elsewhere(tmp_path):
    """A file of numbers that no model should read."""
    return hostile.secret(tmp_path / "secret")


@pytest.mark.parametrize(
    "hide",
    hostile.H5,
)
def test_numbers_of_an_h5_file_are_its_own(tmp_path, elsewhere, hide):
    hostile.h5(tmp_path / "bert.h5", hide, elsewhere)
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
