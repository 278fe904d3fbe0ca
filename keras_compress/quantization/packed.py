"""Packed storage: weights of few values as codes of 1, 2, 4 or 8 bits, without any loss.

A saved model keeps 32 bits a weight, however few values there are. Packed, a binary matrix takes 1 bit a weight, a
ternary one 2, a sum of two binary ones 2 (1 bit for each), and clustered kernels (clustering.py) their codebook: what
no .tflite file can hold. It is for storage and transport; to compute, weights are unpacked to floats.

The folder is that of `TaskModel.save`, with model.packed in place of model.safetensors. model.packed, version 1:

    bytes 0 .. 7     the letters KCPACK and the version in two digits, "KCPACK01"
    bytes 8 .. 39    SHA-256 of all that follows
    from byte 40     safetensors. Of a packed weight NAME there are
        NAME:codes   uint8 (ceil(n bits / 8),), group after group, the first in the highest bits of a byte
        NAME:levels  float32 (groups, 2^bits), the values that codes 0, 1, .. of a group stand for
        NAME:shape   int64: rows, columns, and what is a group: 0 the matrix, 1 a row, 2 a column
    All others are float32 under their own names.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from keras_compress.bert.task_model import TaskModel
from keras_compress.files import atomic_folder, read_json, write_json, write_sealed

MAGIC, VERSION = b"KCPACK", b"01"
START = len(MAGIC + VERSION) + hashlib.sha256().digest_size


def pack_codes(codes, bits):
    """Integers 0 .. 2^bits - 1 as bytes. int (n,) -> uint8 (ceil(n bits / 8),)."""
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits((codes[:, None] >> shifts & 1).astype(np.uint8))


def unpack_codes(packed, bits, count):
    """What `pack_codes` packed. uint8 -> int64 (count,)."""
    each = np.unpackbits(packed, count=count * bits).reshape(count, bits)
    return each @ (1 << np.arange(bits - 1, -1, -1))


def in_groups(matrix, kind):
    """(rows, columns) as (groups, members): the whole matrix (kind 0), its rows (1), or its columns (2)."""
    return (matrix.reshape(1, -1), matrix, matrix.T)[kind]


def packed_weight(weight):
    """{"codes", "levels", "shape"} in the fewest bytes; {} where floats take no more. float32 (rows, columns)."""
    best, best_bytes = {}, weight.nbytes
    for kind in range(3):
        groups = in_groups(weight, kind)
        different = [np.unique(group) for group in groups]
        bits = next((b for b in (1, 2, 4, 8) if max(map(len, different)) <= 2**b), None)
        if bits:
            levels = np.stack(
                [np.pad(each, (0, 2**bits - len(each)), "edge") for each in different]
            )
            codes = np.stack([np.searchsorted(*pair) for pair in zip(different, groups)])
            codes = pack_codes(codes.ravel(), bits)
            if codes.nbytes + levels.nbytes < best_bytes:
                best_bytes = codes.nbytes + levels.nbytes
                shape = np.array([*weight.shape, kind])
                best = {"codes": codes, "levels": levels, "shape": shape}
    return best


def unpacked_weight(codes, levels, shape):
    """float32 (rows, columns) of what `packed_weight` gives."""
    rows, columns, kind = shape.tolist()
    codes = unpack_codes(codes, levels.shape[1].bit_length() - 1, rows * columns)
    values = np.take_along_axis(levels, codes.reshape(len(levels), -1), 1)
    return values.T if kind == 2 else values.reshape(rows, columns)


def save_packed(task_model, folder):
    """Writes a model with packed weights to a new folder, whole or not at all. Returns the bytes of model.packed."""
    tensors = {}
    for name, weight in task_model.weights().items():
        packed = packed_weight(weight) if weight.ndim == 2 else {}
        tensors |= {f"{name}:{part}": array for part, array in packed.items()} or {name: weight}
    content = save(tensors)
    with atomic_folder(folder) as part:
        task_model.save(part, overwrite=True)
        (part / "model.safetensors").unlink()
        others = [path for path in part.iterdir() if path.name != "config.json"]
        write_sealed(part / "config.json", read_json(part / "config.json"), others)
        whole = MAGIC + VERSION + hashlib.sha256(content).digest() + content
        (part / "model.packed").write_bytes(whole)
    return len(whole)


def load_packed(folder):
    """The `TaskModel` of a folder that `save_packed` wrote: equal values; a zero may have lost its sign.

    Raises:
        ValueError: if model.packed is missing, damaged, or of another version.
    """
    path = Path(folder) / "model.packed"
    if not path.is_file():
        raise ValueError(
            f"{folder}: must hold model.packed. It is missing. Use `load` for other models."
        )
    content = path.read_bytes()
    if content[: len(MAGIC)] == MAGIC and content[len(MAGIC) : len(MAGIC) + 2] != VERSION:
        raise ValueError(
            f"{path}: must be of version {VERSION.decode()}. Received: {content[len(MAGIC) : len(MAGIC) + 2]}. "
            "Update keras_compress to the version that wrote it."
        )
    start, body = content[:START], content[START:]
    if start != MAGIC + VERSION + hashlib.sha256(body).digest():
        raise ValueError(
            f"{path}: its bytes must be those that were written. Received: a damaged file. Copy it again."
        )
    stored, tensors = read_json(Path(folder) / "config.json", beside=True), load(body)
    for name in [name.removesuffix(":codes") for name in tensors if name.endswith(":codes")]:
        parts = (tensors.pop(f"{name}:{part}") for part in ("codes", "levels", "shape"))
        tensors[name] = unpacked_weight(*parts)
    with tempfile.TemporaryDirectory() as place:
        plain = shutil.copytree(
            folder, Path(place, "model"), ignore=shutil.ignore_patterns("*.packed")
        )
        (plain / "model.safetensors").write_bytes(
            save({name: np.ascontiguousarray(w) for name, w in tensors.items()})
        )
        write_json(plain / "config.json", stored)  # its seal is of other files
        return TaskModel.load(plain)
