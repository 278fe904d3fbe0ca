"""pytorch_model.bin: equal to torch's own files, and every hostile or damaged one refused before anything of it runs."""

import json
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
from tests.attack import pickles
from tests.attack.pickles import archive, name, state, tensor, tuple_of, written

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
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array)
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


CASES = list(pickles.hostile())


@pytest.mark.parametrize("content, message", [x[1:] for x in CASES], ids=[x[0] for x in CASES])
def test_hostile_pickles(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    zipped, old = pickles.both(tmp_path, content)
    with pytest.raises(ValueError, match=f"zip.bin: must hold tensors .*Received: .*{message}"):
        read_torch(zipped)
    with pytest.raises(ValueError, match="old.bin: must hold tensors .*Nothing of it was run"):
        read_torch(old)
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
