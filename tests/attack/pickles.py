"""pytorch_model.bin by hand, as torch writes it: a pickle in protocol 2 and its storages; and those that no reader should run."""

import os
import pickle
import struct
import zipfile

import numpy as np

KINDS = {"f4": "Float", "f2": "Half", "bf16": "BFloat16", "i8": "Long", "f8": "Double", "b": "Bool"}
KINDS |= {"i4": "Int", "i2": "Short", "i1": "Char", "u1": "Byte"}


def text(value):
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def number(value):
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else pickle.dumps(value, 2)[2:-1]


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def reference(key="0", kind="Float", length=4, first="storage"):
    type_ = name("torch", f"{kind}Storage")
    return tuple_of(text(first), type_, text(key), text("cpu"), number(length)) + b"Q"


def tensor(storage=reference(), offset=0, shape=(4,), strides=(1,)):
    sizes = (tuple_of(*map(number, numbers)) for numbers in (shape, strides))
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = tuple_of(storage, number(offset), *sizes, b"\x89", hooks)
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def state(*values):
    """A pickle of {"w0": value, ...}."""
    items = b"".join(text(f"w{k}") + value for k, value in enumerate(values))
    return b"\x80\x02}(" + items + b"u."


def archive(path, data, storages=(), form=zipfile.ZIP_STORED, folder="archive/"):
    with zipfile.ZipFile(path, "w", form) as file:
        file.writestr(f"{folder}data.pkl", data)
        for key, content in enumerate(storages):
            file.writestr(f"{folder}data/{key}", content)
    return path


def written(path, arrays):
    """A file of arrays in the zip form."""
    kinds = [KINDS.get(x.dtype.str[1:], "BFloat16") for x in arrays.values()]
    rows = [
        text(key) + tensor(reference(str(k), kind, x.size), 0, x.shape, strides_of(x))
        for k, ((key, x), kind) in enumerate(zip(arrays.items(), kinds))
    ]
    pickled = b"\x80\x02}(" + b"".join(rows) + b"u."
    return archive(path, pickled, [x.tobytes() for x in arrays.values()])


def strides_of(array):
    return [stride // array.itemsize for stride in array.strides]


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile():
    touch = "open('trapped', 'w')"
    yield "system", pickle.dumps(Runs(os.system, "touch trapped"), 2), "the name (posix|nt).system"
    yield (
        "eval",
        pickle.dumps({"a": [Runs(eval, touch)]}, 2),
        "the name (__builtin__|builtins).eval",
    )
    yield "newer", pickle.dumps(Runs(eval, touch), 4), "an instruction that"
    yield (
        "global by stack",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        "an instruction that",
    )
    yield "old", b"(S'touch trapped'\nios\nsystem\n.", "an instruction that"
    yield "chain", state(name("builtins", "getattr") + b")R"), "the name builtins.getattr"
    yield "inside torch", state(name("torch", "load") + b")R"), "the name torch.load"
    yield "dots", state(name("torch", "FloatStorage.__class__") + b")R"), "FloatStorage.__class__"
    yield "extension", b"\x80\x02\x82\x01.", "an instruction that"
    yield (
        "no function",
        state(text("os.system") + tuple_of(text("touch")) + b"R"),
        "not callable",
    )
    yield "type", state(name("torch", "FloatStorage") + b")R"), "not callable"
    yield "build", state(name("collections", "OrderedDict") + b"}b"), "other things than tensors"
    yield "no storage", state(tensor(text("0"))), "other things than tensors, of w0"
    yield "module", state(tensor(reference(first="module"))), "what is no storage"
    yield "path", state(tensor(reference(key="../0"))), "what is no storage"
    yield "kind", state(tensor(tuple_of(*[text("storage")] * 4, number(4)) + b"Q")), "is no storage"
    yield "word", state(tensor(text("storage") + b"Q")), "."
    yield "missing", state(tensor(reference(key="7"))), "no item named 'archive/data/7'"
    yield "longer", state(tensor(reference(length=10**12))), "4 of 1000000000000 numbers"
    yield "shorter", state(tensor(reference(length=-1))), "4 of -1 numbers"
    yield "shape", state(tensor(shape=(5,))), "not inside its storage"
    yield "huge", state(tensor(shape=(10**12,), strides=(0,))), "not inside its storage"
    yield "many", state(tensor(shape=(4,) * 40, strides=(0,) * 40)), "not inside its storage"
    yield "offset", state(tensor(offset=1)), "not inside its storage"
    yield "before", state(tensor(offset=-1)), "not inside its storage"
    yield "backwards", state(tensor(offset=3, strides=(-1,))), "not inside its storage"
    yield "step", state(tensor(shape=(2,), strides=(4,))), "not inside its storage"
    yield "text", state(tensor(shape=(4,), strides=()).replace(b"\x89", text("no"))), "."
    yield "deep", state(b")" + b"\x85" * 10**5), "other things than tensors"
    yield "deep key", b"\x80\x02}(" + b")" + b"\x85" * 10**5 + b"Nu.", "a key that is no name"
    yield "a list", b"\x80\x02].", "other things than tensors"
    yield "training", state(b"}", number(3)), "other things than tensors, of w0, w1"
    yield "empty", b"", "."
    yield "stack", b"\x80\x02.", "."
    yield "marks", b"\x80\x02t.", "."
    yield "memo", b"\x80\x02h\x05.", "."
    yield "memory", b"\x80\x02Nr\xff\xff\xff\x7f.", "other things than tensors"
    yield "long text", b"\x80\x02X\xff\xff\xff\xff.", "."


def both(folder, content):
    """Paths of the zip form and of the old form of a pickle with one storage."""
    storages = [np.float32([1, 2, 3, 4]).tobytes()]
    parts = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)]
    parts += [pickle.dumps({"little_endian": True}, 2), content, pickle.dumps(["0"], 2)]
    (folder / "old.bin").write_bytes(b"".join([*parts, struct.pack("<q", 4), *storages]))
    return archive(folder / "zip.bin", content, storages), folder / "old.bin"
