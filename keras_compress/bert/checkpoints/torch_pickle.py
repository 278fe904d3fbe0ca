"""The tensors of a pytorch_model.bin. Such a file is a pickle, which could run code; here it is read without running any.

Two forms: a zip archive that holds NAME/data.pkl and a file NAME/data/KEY for each storage; and, before torch 1.6, five
pickles in a row, then the storages. In both a tensor is a call of `_rebuild_tensor_v2` on a reference to a storage.
Only the instructions and names that torch writes are followed. Nothing is imported, no attribute is set, and what a
name calls here keeps its arguments. A tensor must lie inside its storage.
"""

import io
import math
import pickle
import struct
import zipfile
from collections import namedtuple

import ml_dtypes
import numpy as np

START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9"  # the magic number, the first pickle of the old form
TYPES = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
INSTRUCTIONS = """
PROTO STOP GLOBAL MARK REDUCE BINPERSID BINPUT LONG_BINPUT BINGET LONG_BINGET EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE
TUPLE1 TUPLE2 TUPLE3 SETITEM SETITEMS NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE SHORT_BINSTRING
"""
# What reading a damaged file raises
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, EOFError, RuntimeError)
DAMAGED += (OverflowError, struct.error, pickle.UnpicklingError, zipfile.BadZipFile)


Storage = namedtuple("Storage", "type key length")
Tensor = namedtuple("Tensor", "storage offset shape strides")  # strides in numbers, not bytes


class Dict(dict):
    """Its keys are text: deep tuples as keys would end Python."""

    def __setitem__(self, key, value):
        if type(key) is not str:
            raise ValueError("a key that is no name")
        super().__setitem__(key, value)


NAMES = {
    "collections.OrderedDict": lambda: Dict(),
    "torch._utils._rebuild_tensor_v2": lambda *arguments: Tensor(*arguments[:4]),
    "torch._utils._rebuild_parameter": lambda tensor, *rest: tensor,
    **{f"torch.{name}": name for name in TYPES},
}


def refuse(reader):
    raise ValueError("an instruction that torch does not write")


class Reader(pickle._Unpickler):
    """Python's unpickler, the one that is written in Python: `dispatch` holds what each byte does."""

    dispatch = dict.fromkeys(range(256), refuse)
    for _byte in (getattr(pickle, name)[0] for name in INSTRUCTIONS.split()):
        dispatch[_byte] = pickle._Unpickler.dispatch[_byte]
    dispatch[pickle.EMPTY_DICT[0]] = lambda self: self.append(Dict())
    dispatch[pickle.BUILD[0]] = lambda self: self.stack.pop()  # attributes, such as `_metadata`

    def find_class(self, module, name):
        if f"{module}.{name}" not in NAMES:
            raise ValueError(f"the name {module}.{name:.80}")
        return NAMES[f"{module}.{name}"]

    def persistent_load(self, reference):
        kind, type_, key, _, length, *view = reference
        texts = all(type(text) is str for text in (kind, type_, key)) and kind == "storage"
        if not (texts and type_ in TYPES and key.isdigit() and type(length) is int) or any(view):
            raise ValueError("a reference to what is no storage")
        return Storage(type_, key, length)

    def tensors(self):
        """{name: `Tensor`}."""
        state = self.load()
        parts = state.values() if isinstance(state, dict) else [state]
        if not all(isinstance(part, Tensor) and isinstance(part[0], Storage) for part in parts):
            names = f", of {', '.join([*state][:5]):.80}" if isinstance(state, dict) else ""
            raise ValueError(f"other things than tensors{names}")
        return state


def read_torch(path):
    """All tensors of a pytorch_model.bin as {name: array}.

    Raises ValueError, naming the file and what was found, unless it holds tensors by name and nothing else.
    """
    try:
        if not zipfile.is_zipfile(path):
            return _read_old(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            return _read_zip(archive, path.stat().st_size)
    except DAMAGED as error:
        raise ValueError(
            f"{path}: must hold tensors by name and nothing else, as torch.save(model.state_dict(), path) writes them. "
            f"Received: {error or type(error).__name__}. Nothing of it was run. Copy it again, or, where you trust "
            "it, load it in torch and write model.save_pretrained(folder, safe_serialization=True)."
        ) from error


def _read_zip(archive, size):
    files = archive.infolist()
    if any(x.compress_type for x in files) or sum(x.file_size for x in files) > size:
        raise ValueError("compressed or overlapping files, which torch never writes")
    folders = [x.filename[:-8] for x in files if x.filename.endswith("/data.pkl")]
    if len(folders) != 1:
        raise ValueError(f"an archive with {len(folders)} files data.pkl")
    read = lambda name: archive.read(f"{folders[0]}{name}")
    is_big = f"{folders[0]}byteorder" in archive.namelist() and read("byteorder") != b"little"
    tensors = Reader(io.BytesIO(read("data.pkl"))).tensors()
    return _arrays(tensors, not is_big, lambda key: read(f"data/{key}"))


def _read_old(content):
    if not content.startswith(START):
        raise ValueError("a pickle that torch.save did not write")
    file, found = io.BytesIO(content), {}
    _, _, system = (Reader(file).load() for _ in range(3))
    tensors, keys = Reader(file).tensors(), Reader(file).load()
    types = {tensor.storage.key: TYPES[tensor.storage.type] for tensor in tensors.values()}
    for key in keys:
        (length,) = struct.unpack("<Q", file.read(8))
        found[key] = file.read(length * np.dtype(types[key]).itemsize)
    return _arrays(tensors, system["little_endian"], found.get)


def _arrays(tensors, is_little, read):
    """{name: array}; `read` gives the bytes of a storage by its key, once."""
    if not is_little:
        raise ValueError("numbers in big-endian order")
    flat = {}
    for storage in {tensor.storage for tensor in tensors.values()}:
        flat[storage] = np.frombuffer(read(storage.key), TYPES[storage.type])
        if len(flat[storage]) != storage.length:
            raise ValueError(f"{len(flat[storage])} of {storage.length} numbers of a storage")
    return {name: _view(flat[tensor.storage], *tensor[1:]) for name, tensor in tensors.items()}


def _view(flat, offset, shape, strides):
    steps = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    inside = all(type(n) is int and 0 <= n <= len(flat) for n in (offset, *shape, *strides))
    if not inside or math.prod(shape) > len(flat) or offset + sum(steps) >= len(flat):
        raise ValueError("a tensor that is not inside its storage")
    strides = [stride * flat.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, strides)
