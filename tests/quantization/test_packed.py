"""Packed weights: every value comes back, in as few bits as there are values; damaged files are refused."""

import numpy as np
import pytest

from keras_compress.quantization import few_values, packed
from tests.support import still

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_codes_take_as_many_bits_as_they_have(bits, count):
    codes = RANDOM.integers(0, 2**bits, count)
    stored = packed.pack_codes(codes, bits)
    assert stored.nbytes == -(-count * bits // 8)
    np.testing.assert_array_equal(packed.unpack_codes(stored, bits, count), codes)
    assert packed.pack_codes(np.array([1, 0, 1]), 1)[0] == 0b10100000


@pytest.mark.parametrize(
    "levels, bits",
    [
        ([-0.5, 0.5], 1),
        ([-0.3, 0.0, 0.3], 2),
        ([-0.7, -0.1, 0.1, 0.7], 2),
        (np.linspace(-1, 1, 16), 4),
    ],
)
@pytest.mark.parametrize("by", ["matrix", "rows", "columns"])
def test_weights_come_back_bit_for_bit(levels, bits, by):
    w = RANDOM.choice(np.float32(levels), (40, 60))
    scales = RANDOM.uniform(1, 2, {"matrix": (1, 1), "rows": (40, 1), "columns": (1, 60)}[by])
    w = w * np.float32(scales)
    stored = packed.packed_weight(w)
    assert stored["codes"].nbytes == 2400 * bits // 8
    assert stored["levels"].shape == ({"matrix": 1, "rows": 40, "columns": 60}[by], 2**bits)
    np.testing.assert_array_equal(packed.unpacked_weight(**stored), w)


def test_square_matrices_and_floats():
    w = RANDOM.choice(np.float32([-1, 1]), (16, 16)) * np.float32(RANDOM.uniform(1, 2, 16))
    for each in (w, w.T):  # by columns, by rows
        stored = packed.packed_weight(each)
        assert stored["codes"].nbytes == 16 * 16 / 8
        np.testing.assert_array_equal(packed.unpacked_weight(**stored), each)
    assert packed.packed_weight(np.float32(RANDOM.normal(0, 1, (40, 60)))) == {}


@pytest.fixture(scope="module")
def model():
    start = still(hidden_size=32, intermediate_size=64)
    return few_values.baked(few_values.quantized(start, start.weights(), "ternary"))


def test_a_model_comes_back_and_is_small(model, tmp_path):
    size = packed.save_packed(model, tmp_path / "packed")
    loaded = packed.load_packed(tmp_path / "packed")
    np.testing.assert_equal(loaded.weights(), model.weights())  # -0 is 0
    assert loaded.config == model.config and loaded.history == model.history
    model.save(tmp_path / "plain")
    whole = (tmp_path / "plain" / "model.safetensors").stat().st_size
    assert size == (tmp_path / "packed" / "model.packed").stat().st_size < 0.3 * whole
    with pytest.raises(ValueError, match="output folder must be new or empty"):
        packed.save_packed(model, tmp_path / "packed")


def test_every_damage_is_refused(model, tmp_path):
    packed.save_packed(model, tmp_path / "packed")
    path = tmp_path / "packed" / "model.packed"
    content = path.read_bytes()
    for place in [0, 5, 9, 39, 40, 48, len(content) - 1, *RANDOM.integers(0, len(content), 93)]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << RANDOM.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="model.packed: .*Received: "):
            packed.load_packed(path.parent)
    for length in [0, 3, 8, 40, *RANDOM.integers(0, len(content), 20)]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="model.packed: its bytes must be"):
            packed.load_packed(path.parent)
    path.write_bytes(content[:6] + b"02" + content[8:])
    with pytest.raises(ValueError, match="must be of version 01. Received: b'02'. Update"):
        packed.load_packed(path.parent)
    path.unlink()
    with pytest.raises(ValueError, match="must hold model.packed. It is missing"):
        packed.load_packed(path.parent)
