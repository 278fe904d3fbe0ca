"""pytorch_model.bin: equal to torch's own files, and every hostile or damaged one refused before anything of it runs."""

import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from keras_compress.bert import checkpoints as weights
from keras_compress.bert.checkpoints.torch_pickle import read_torch

HERE = Path(__file__).parents[1]
FINE_TUNED = HERE / "huggingface"
# torch.save(state_dict) of the same model with torch 2.15, in both forms
TORCH = [HERE / "torch" / name for name in ("zip.bin", "old.bin")]


def folder_of(tmp_path, **files):
    copy = shutil.copytree(FINE_TUNED, tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    return copy


@pytest.mark.parametrize("path", TORCH, ids=lambda path: path.stem)
def test_both_forms_equal_safetensors(tmp_path, path):
    found, expected = read_torch(path), load_file(FINE_TUNED / "model.safetensors")
    np.testing.assert_array_equal(found.pop("bert.embeddings.position_ids"), [range(16)])
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    folder = folder_of(tmp_path)
    shutil.copy(path, folder / "pytorch_model.bin")
    model, before = weights.load(folder), weights.load(FINE_TUNED)
    np.testing.assert_array_equal(model.predict(["the cats"]), before.predict(["the cats"]))
    assert model.history[0]["left_out"] == ["bert.embeddings.position_ids"]


def test_safetensors_are_preferred(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02no tensors")
    with pytest.raises(ValueError, match="pytorch_model.bin: must hold tensors by name"):
        weights.load(folder)
    shutil.copy(FINE_TUNED / "model.safetensors", folder)
    assert weights.load(folder).labels == ("neg", "neu", "pos")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs(tmp_path, name):
    folder = folder_of(tmp_path)
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        ValueError, match=f"{name}: .*Received: a pointer of Git LFS. .*git lfs pull"
    ):
        weights.load(folder)


def test_shards(tmp_path):
    folder, stored = folder_of(tmp_path), load_file(FINE_TUNED / "model.safetensors")
    names = sorted(stored)
    shards = {"pytorch_model-1.bin": names[:20], "pytorch_model-2.bin": names[20:]}
    for shard, inside in shards.items():
        written(folder / shard, {name: stored[name] for name in inside})
    places = {name: shard for shard, inside in shards.items() for name in inside}
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    before = weights.load(FINE_TUNED)
    np.testing.assert_array_equal(
        weights.load(folder).predict(["the cats"]), before.predict(["the cats"])
    )
    index.write_text(json.dumps({"weight_map": {name: f"../{x}" for name, x in places.items()}}))
    assert weights.load(folder).labels == ("neg", "neu", "pos")  # of this folder, not the one above
    (folder / "pytorch_model-2.bin").unlink()
    with pytest.raises(ValueError, match="must come with pytorch_model-2.bin"):
        weights.load(folder)


# --- files as torch writes them, by hand: a pickle in protocol 2 and its storages ---

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


def test_kinds_of_numbers(tmp_path):
    kinds = (np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.float64)
    kinds += (np.int32, np.int16, np.int8, np.uint8)
    arrays = {str(k): np.arange(6).reshape(2, 3).astype(kind) for k, kind in enumerate(kinds)}
    found = read_torch(written(tmp_path / "x.bin", arrays))
    for key, array in arrays.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)


def test_views_of_one_storage(tmp_path):
    turned, part = tensor(shape=(2, 2), strides=(1, 2)), tensor(offset=1, shape=(2,))
    parameter = name("torch._utils", "_rebuild_parameter") + tuple_of(part, b"\x88", b"}") + b"R"
    content = np.float32([1, 2, 3, 4]).tobytes()
    found = read_torch(archive(tmp_path / "x.bin", state(turned, parameter), [content]))
    np.testing.assert_array_equal(found["w0"], [[1, 3], [2, 4]])
    np.testing.assert_array_equal(found["w1"], [2, 3])


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


CASES = list(hostile())


@pytest.mark.parametrize("content, message", [x[1:] for x in CASES], ids=[x[0] for x in CASES])
def test_hostile_pickles(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    storages = [np.float32([1, 2, 3, 4]).tobytes()]
    zipped = archive(tmp_path / "zip.bin", content, storages)
    parts = [pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)]
    parts += [pickle.dumps({"little_endian": True}, 2), content, pickle.dumps(["0"], 2)]
    (tmp_path / "old.bin").write_bytes(b"".join([*parts, struct.pack("<q", 4), *storages]))
    with pytest.raises(ValueError, match=f"zip.bin: must hold tensors .*Received: .*{message}"):
        read_torch(zipped)
    with pytest.raises(ValueError, match="old.bin: must hold tensors .*Nothing of it was run"):
        read_torch(tmp_path / "old.bin")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("path", TORCH, ids=lambda path: path.stem)
def test_truncated_files(tmp_path, path):
    content, cut = path.read_bytes(), tmp_path / "pytorch_model.bin"
    for size in (0, 3, 12, 40, 500, len(content) // 2, len(content) - 30):
        cut.write_bytes(content[:size])
        with pytest.raises(
            ValueError, match="pytorch_model.bin: must hold tensors .*Copy it again"
        ):
            read_torch(cut)


def test_a_damaged_storage(tmp_path):
    content = bytearray(TORCH[0].read_bytes())
    content[content.index(b"archive/data/3".replace(b"archive", b"zip")) + 200] ^= 1
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(ValueError, match="x.bin: must hold tensors .*CRC"):
        read_torch(tmp_path / "x.bin")


def test_archives_that_torch_never_writes(tmp_path):
    pickled, content = state(tensor()), [bytes(16)]
    bomb = archive(tmp_path / "bomb.bin", pickled, [bytes(10**7)], zipfile.ZIP_DEFLATED)
    other = archive(tmp_path / "other.bin", pickled, content, folder="../../x/")
    assert read_torch(other)["w0"].shape == (4,)  # no path is ever written
    with zipfile.ZipFile(other, "a") as file:
        file.writestr("y/data.pkl", pickled)
    big = archive(tmp_path / "big.bin", pickled, content)
    with zipfile.ZipFile(big, "a") as file:
        file.writestr("archive/byteorder", "big")
    claims = tmp_path / "claims.bin"
    claims.write_bytes(
        archive(tmp_path / "x.bin", pickled, content)
        .read_bytes()
        .replace(struct.pack("<II", 16, 16), struct.pack("<II", 2**31, 2**31))
    )
    for path, message in (
        (bomb, "compressed or overlapping files"),
        (claims, "compressed or overlapping files"),
        (other, "an archive with 2 files data.pkl"),
        (big, "numbers in big-endian order"),
    ):
        with pytest.raises(ValueError, match=f"{path.name}: .*Received: {message}"):
            read_torch(path)
