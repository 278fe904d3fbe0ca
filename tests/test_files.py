"""The atomic writer: whole or not at all, and never over another run."""

import errno
import json
import os

import pytest

from keras_compress import files, lock
from keras_compress.files import atomic_folder, atomic_write, new_folder, read_json
from keras_compress.lock import alone
from tests.support import in_new_process


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_text_and_bytes_and_makes_parents(tmp_path):
    with atomic_write(tmp_path / "a" / "b.txt") as file:
        file.write("温\nx\n")
    with atomic_write(tmp_path / "c.bin", "wb") as file:
        file.write(b"\0\1")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "温\nx\n".encode()
    assert (tmp_path / "c.bin").read_bytes() == b"\0\1"
    assert names(tmp_path) == ["a", "c.bin"]


def test_an_error_inside_the_block_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(KeyError), atomic_write(tmp_path / "x") as file:
        file.write("half")
        raise KeyError("stop")
    assert (tmp_path / "x").read_text() == "old" and names(tmp_path) == ["x"]


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_full_disk_is_one_clear_line_and_nothing_is_lost(tmp_path, monkeypatch, step):
    (tmp_path / "x").write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "fsync":
        monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(
        OSError, match=r"^Could not write `.*x`: No space left.*unchanged. Free some space.*$"
    ):
        with atomic_write(tmp_path / "x") as file:
            file.write("new")
            if step == "write":
                full()
    assert (tmp_path / "x").read_text() == "old" and names(tmp_path) == ["x"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is a Linux device")
def test_a_really_full_device(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "builtins.open", lambda path, *args, _open=open, **kw: _open("/dev/full", "w")
    )
    with pytest.raises(OSError, match="No space left"), atomic_write(tmp_path / "x") as file:
        file.write("new" * 100_000)
    assert names(tmp_path) == []


def test_a_folder_that_may_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), atomic_write(tmp_path / "file" / "x") as file:
        file.write("new")


def test_json_of_other_encodings(tmp_path):
    path, value = tmp_path / "config.json", {"id2label": {"0": "负面", "1": "正面"}}
    text = json.dumps(value, ensure_ascii=False)
    path.write_text(text, encoding="utf-8-sig")
    assert read_json(path) == value
    for encoding, received in (("gbk", "this is GBK"), ("utf-16", "UTF-16")):
        path.write_text(text, encoding=encoding)
        with pytest.raises(ValueError, match=f"json:1: .*{received}.*Save the file as UTF-8"):
            read_json(path)


def test_new_folder_refuses_files_unless_told(tmp_path):
    assert new_folder(tmp_path / "run") == (tmp_path / "run").resolve()
    (tmp_path / "run").mkdir()
    new_folder(tmp_path / "run")  # empty: fine
    (tmp_path / "run" / "report.html").write_text("old")
    with pytest.raises(ValueError, match="holds files.*--overwrite"):
        new_folder(tmp_path / "run")
    assert names(new_folder(tmp_path / "run", overwrite=True)) == ["report.html"]
    with pytest.raises(ValueError, match="is a file"):
        new_folder(tmp_path / "run" / "report.html", overwrite=True)


def test_atomic_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{")
        raise RuntimeError("killed")
    assert names(tmp_path) == []
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{}")
        (folder / "sub").mkdir()
        assert not (tmp_path / "model").exists()
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["config.json", "sub"]


def test_atomic_folder_overwrites_only_its_own_kind(tmp_path):
    for number in "01":
        with atomic_folder(tmp_path / "model", True, sign="config.json") as folder:
            (folder / "config.json").write_text(number)
    assert (tmp_path / "model" / "config.json").read_text() == "1" and names(tmp_path) == ["model"]
    with pytest.raises(ValueError, match="--overwrite"), atomic_folder(tmp_path / "model"):
        pass
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.doc").write_text("years of work")
    with pytest.raises(ValueError, match="same kind.*no config.json"):
        with atomic_folder(tmp_path / "home", True, sign="config.json"):
            pass
    assert names(tmp_path / "home") == ["thesis.doc"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("old")
    rename = os.rename

    def refuse(source, target):  # as Windows does while a scanner reads the new folder
        if ".model." in str(source) and not str(source).endswith(".old"):
            raise PermissionError("in use")
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", refuse)
    with pytest.raises(PermissionError):
        with atomic_folder(tmp_path / "model", True, sign="config.json") as folder:
            (folder / "config.json").write_text("new")
    assert (
        names(tmp_path) == ["model"] and (tmp_path / "model" / "config.json").read_text() == "old"
    )


KILLED = """
import os, signal, sys
from keras_compress import files
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
place, when = sys.argv[1:]
if when == "file":
    files.os.fsync = kill
    with files.atomic_write(f"{place}/run.json") as file:
        file.write("{")
if when == "replaced":
    rename = os.rename
    files.os.rename = lambda old, new: kill() if str(new).endswith("model") else rename(old, new)
with files.atomic_folder(f"{place}/model", True, "config.json") as folder:
    (folder / "config.json").write_text("new")
    if when == "folder":
        kill()
"""


@pytest.mark.parametrize("when", ["file", "folder", "replaced"])
def test_the_next_call_clears_what_a_kill_left_and_restores_what_had_no_successor(tmp_path, when):
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("old")
    other = tmp_path / f".run.json.{os.getpid()}.x.part"  # of a process that is at work
    other.mkdir()
    assert in_new_process(KILLED, tmp_path, when).returncode == -9
    assert len(names(tmp_path)) == 3 and ("model" in names(tmp_path)) == (when != "replaced")
    with pytest.raises(ValueError, match="model`, which holds files"):  # not replaced unasked
        new_folder(tmp_path / "model")
    new_folder(tmp_path, overwrite=True)
    assert names(tmp_path) == [other.name, "model"]
    assert (tmp_path / "model" / "config.json").read_text() == "old"


def test_overwrite_keeps_what_others_wrote(tmp_path):
    own = ["config.json", "labels.txt"]
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("old")
    (tmp_path / "model" / "notes.txt").write_text("a month of work")
    with pytest.raises(ValueError, match="holds notes.txt, too. Move that away"):
        with atomic_folder(tmp_path / "model", True, "config.json", own):
            pass
    assert names(tmp_path / "model") == ["config.json", "notes.txt"]
    (tmp_path / "model" / "notes.txt").unlink()
    with atomic_folder(tmp_path / "model", True, "config.json", own) as folder:
        (folder / "labels.txt").write_text("new")
    assert names(tmp_path / "model") == ["labels.txt"]


def test_one_process_at_a_time(tmp_path):
    refused = pytest.raises(ValueError, match="run, where another one is at work")
    with alone(tmp_path / "run"):
        for shared in (False, True):
            with refused, alone(tmp_path / "run", shared):
                pass
    with alone(tmp_path / "run", shared=True):
        with alone(tmp_path / "run", shared=True):
            pass
        with refused, alone(tmp_path / "run"):
            pass
    assert names(tmp_path) == []
    code = "import os, sys; from keras_compress.lock import alone\nwith alone(sys.argv[1]):\n    os.kill(os.getpid(), 9)"
    assert in_new_process(code, tmp_path / "run").returncode == -9
    with alone(tmp_path / "run"):  # what a dead process left is no lock
        pass
    assert names(tmp_path) == []


def test_the_lock_of_one_that_ended_is_no_lock(tmp_path, monkeypatch):
    path, flock = tmp_path / ".run.lock", lock.flock

    def late(
        file, how
    ):  # meanwhile the one before removed its lock, and a third process made another
        flock(file, how)
        path.unlink()
        path.touch()

    monkeypatch.setattr(lock, "flock", late)
    with pytest.raises(ValueError, match="another one is at work"), alone(tmp_path / "run"):
        pass
