"""The tensors of a pytorch_model.bin. Such a file is a pickle, which could run code; here it is read without running any.

Two forms: a zip archive that holds NAME/data.pkl and a file NAME/data/KEY for each storage; and, before torch 1.6, five
pickles in a row, then the storages. In both a tensor is a call of `_rebuild_tensor_v2` on a reference to a storage.

`_unpickle` follows the instructions that torch writes, and no others. A name is a word here, one of NAMES; a call of it
keeps arguments, and nothing is imported. A tensor is a view that must lie inside its storage.
"""

import io
import math
import pickletools
import struct
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np

START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9"  # the magic number, the first pickle of the old form
TYPES = {
    "torch FloatStorage": np.float32,
    "torch HalfStorage": np.float16,
    "torch BFloat16Storage": ml_dtypes.bfloat16,
    "torch DoubleStorage": np.float64,
    "torch LongStorage": np.int64,
    "torch IntStorage": np.int32,
    "torch ByteStorage": np.uint8,
    "torch BoolStorage": np.bool_,
}
DICT, TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
PARAMETER = "torch._utils _rebuild_parameter"
NAMES = {DICT, TENSOR, PARAMETER, *TYPES}
# Instructions of a pickle
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
COUNTS = {
    "TUPLE1": 1,
    "TUPLE2": 2,
    "TUPLE3": 3,
    "APPEND": 1,
    "SETITEM": 2,
}  # of values on the stack
# What reading a damaged file raises
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, EOFError, RuntimeError)
DAMAGED += (OverflowError, struct.error, zipfile.BadZipFile)


class Storage(NamedTuple):
    type: str
    key: str
    length: int


class Tensor(NamedTuple):
    storage: Storage
    offset: int
    shape: tuple
    strides: tuple  # in numbers, not bytes


def read_torch(path):
    """All tensors of a pytorch_model.bin as {name: array}.

    Raises ValueError, naming the file and what was found, unless it holds tensors by name and nothing else.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _arrays(*_read_zip(archive, path.stat().st_size))
        return _arrays(*_read_old(path.read_bytes()))
    except DAMAGED as error:
        raise ValueError(
            f"{path}: must hold tensors by name and nothing else, as torch.save(model.state_dict(), path) writes them. "
            f"Received: {error or type(error).__name__}. Nothing of it was run. Copy it again, or, where you trust "
            "it, load it in torch and write model.save_pretrained(folder, safe_serialization=True)."
        ) from error


def _read_zip(archive, size):
    """(what data.pkl holds, `Storage` -> its bytes)."""
    files = archive.infolist()
    if any(x.compress_type for x in files) or sum(x.file_size for x in files) > size:
        raise ValueError("compressed or overlapping files, which torch never writes")
    names = [x.filename for x in files if x.filename.rpartition("/")[2] == "data.pkl"]
    if len(names) != 1:
        raise ValueError(f"an archive with {len(names)} files data.pkl")
    folder = names[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist():
        _check_order(archive.read(f"{folder}byteorder") == b"little")
    state = _unpickle(io.BytesIO(archive.read(names[0])), {})
    return state, lambda storage: archive.read(f"{folder}data/{storage.key}")


def _read_old(content):
    """The same of a file from before torch 1.6."""
    if not content.startswith(START):
        raise ValueError("a pickle that torch.save did not write")
    file, storages, found = io.BytesIO(content), {}, {}
    _, _, system, state, keys = (_unpickle(file, storages) for _ in range(5))
    _check_order(system["little_endian"])
    for key in keys:
        (length,) = struct.unpack("<Q", file.read(8))
        found[key] = file.read(length * np.dtype(TYPES[storages[key].type]).itemsize)
    return state, lambda storage: found[storage.key]


def _check_order(is_little):
    if not is_little:
        raise ValueError("numbers in big-endian order")


def _unpickle(file, storages):
    """What a pickle holds, made of text, numbers, containers and `Tensor`; `storages` collects these by key."""
    stack, marks, memo = [], [], {}
    for instruction, value, _ in pickletools.genops(file):
        name = instruction.name
        if name in COUNTS or name in ("TUPLE", "APPENDS", "SETITEMS"):
            place = len(stack) - COUNTS[name] if name in COUNTS else marks.pop()
            values = stack[place:]
            del stack[place:]
        if name == "STOP":
            return stack.pop()
        elif name == "GLOBAL":
            if value not in NAMES:
                raise ValueError(f"the name {value.replace(' ', '.')}")
            stack.append(value)
        elif name == "BINPERSID":
            stack.append(_storage(*stack.pop()))
            storages[stack[-1].key] = stack[-1]
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_called(stack.pop(), *arguments))
        elif name == "BUILD":
            stack.pop()  # attributes of the dict, such as `_metadata`
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[value] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[value])
        elif name.startswith("TUPLE"):
            stack.append(tuple(values))
        elif name.startswith("APPEND"):
            stack[-1].extend(values)
        elif name.startswith("SETITEM"):
            stack[-1].update(_pairs(zip(values[::2], values[1::2], strict=True)))
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in VALUES or name in CONSTANTS:
            stack.append(CONSTANTS.get(name, value))
        elif name != "PROTO":
            raise ValueError(f"the instruction {name}")


def _pairs(pairs):
    """{name: value}. No other keys: to hash deep tuples would end Python."""
    pairs = [*pairs]
    if not all(type(key) is str for key, _ in pairs):
        raise ValueError("a key that is no name")
    return dict(pairs)


def _storage(kind, type_, key, device, length, view=None):
    kinds = [type(value) for value in (kind, type_, key, length, view)]
    is_one = kinds == [str, str, str, int, type(None)] and kind == "storage"
    if not (is_one and type_ in TYPES and key.isdigit()):
        raise ValueError("a reference to what is no storage")
    return Storage(type_, key, length)


def _called(name, *arguments):
    if name == DICT:
        return _pairs(*arguments or [()])
    if name == PARAMETER:
        return arguments[0]
    if name != TENSOR or type(arguments[0]) is not Storage:
        raise ValueError("a call of what is no function")
    return Tensor(*arguments[:4])


def _arrays(state, bytes_of):
    """The tensors of a state dict as arrays; the bytes of a storage are read once."""
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        names = f" of {', '.join([*state][:5])}" if isinstance(state, dict) else ""
        raise ValueError(f"a {type(state).__name__}{names}, not of tensors alone")
    flat = {}
    for storage in {tensor.storage for tensor in state.values()}:
        flat[storage] = np.frombuffer(bytes_of(storage), TYPES[storage.type])
        if len(flat[storage]) != storage.length:
            raise ValueError(f"{len(flat[storage])} of {storage.length} numbers of a storage")
    return {name: _view(flat[tensor.storage], *tensor[1:]) for name, tensor in state.items()}


def _view(flat, offset, shape, strides):
    steps = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    inside = all(type(n) is int and 0 <= n <= len(flat) for n in (offset, *shape, *strides))
    if not inside or math.prod(shape) > len(flat) or offset + sum(steps) >= len(flat):
        raise ValueError("a tensor that is not inside its storage")
    strides = [stride * flat.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, strides)
