"""Writes files and folders whole or not at all, and never over the work of another run unasked."""

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path

DATA_FOLDER = (
    Path(__file__).resolve().parents[1] / "data"
)  # of the clone; data/cache and data/downloads: not in git

FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


class WriteError(OSError):
    """A file could not be written; the message is one line, and what was there before is still there."""


@contextlib.contextmanager
def _whole(path):
    """Yields a free sibling name of `path`; removes what was written there, and explains a full disk, on error."""
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temp
    except BaseException as error:
        if temp.is_dir():
            shutil.rmtree(temp, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                temp.unlink()
        if isinstance(error, OSError) and error.errno in FULL:
            raise WriteError(
                f"Could not write `{path}`: {error.strerror}. What was there before is unchanged. "
                "Free some space, or choose a folder on another disk."
            ) from error
        if isinstance(error, OSError) and error.filename == str(temp):
            raise WriteError(
                f"Could not write `{path}`: {error.strerror}. Choose another folder."
            ) from error
        raise


@contextlib.contextmanager
def atomic_write(path, mode="w"):
    """Opens a file that takes the place of `path` when the block ends without an error, and only then.

    Args:
        path: the file to write; missing parent folders are made.
        mode: "w" (UTF-8 text, lines end in "\\n" on every system) or "wb".
    Raises:
        WriteError: the disk is full or the folder is not writable. `path` is unchanged.
    """
    path = Path(path).resolve()
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with _whole(path) as temp:
        with open(temp, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)


def write_json(path, value):
    """Writes JSON by `atomic_write`."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def read_json(path):
    """The object in a JSON file. Raises ValueError, naming the file, if it holds anything else."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object. Received: {type(value).__name__}.")
    return value


def one_of(folder, *names):
    """The first of these files that a folder of weights holds. Raises ValueError if it holds none."""
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise ValueError(
            f"{folder}: the weights must come with {' or '.join(names)}. It is missing."
        )
    return found[0]


def new_folder(path, overwrite=False, sign=None):
    """The whole `path` of a folder to write; one that holds files is refused unless `overwrite`.

    With `overwrite` the files in it stay until they are replaced one by one; only a folder that holds the file `sign`
    is accepted, so that one of something else, given by mistake, stays as it is.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"The output must be a folder. Received: `{path}`, which is a file. Choose another name."
        )
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise ValueError(
                f"The output folder must be new or empty. Received: `{path}`, which holds files. "
                "Choose another folder, or pass `--overwrite` to replace its content."
            )
        if sign and not (path / sign).is_file():
            raise ValueError(
                f"`--overwrite` replaces only a folder of the same kind. Received: `{path}`, which holds "
                f"files but no {sign}. Choose another folder."
            )
    return path


@contextlib.contextmanager
def atomic_folder(path, overwrite=False):
    """Yields an empty folder that becomes `path` when the block ends without an error, and only then.

    With `overwrite` the old folder goes as a whole, but only if it shares a name with the new one: a folder of
    something else, given by mistake, is refused.
    """
    path = new_folder(path, overwrite)
    with _whole(path) as temp:
        shutil.rmtree(temp, ignore_errors=True)
        temp.mkdir()
        yield temp
        for name in temp.rglob("*"):
            if name.is_file():
                with open(name, "rb+") as file:
                    os.fsync(file.fileno())
        if not path.exists():
            os.rename(temp, path)
            return
        old = {entry.name for entry in path.iterdir()}
        if old and old.isdisjoint(entry.name for entry in temp.iterdir()):
            raise ValueError(
                f"`--overwrite` replaces only a folder of the same kind. Received: `{path}`, which holds "
                f"{', '.join(sorted(old)[:3])}. Choose another folder."
            )
        aside = temp.with_suffix(".old")
        os.rename(path, aside)
        try:
            os.rename(temp, path)
        except OSError:
            os.rename(aside, path)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def claim_folder(folder, asked, overwrite=False):
    """Writes down, in asked.json, what the checkpoints in a folder are for, so that runs are never mixed.

    Args:
        asked: all that the checkpoints depend on, as JSON has it.
        overwrite: remove the checkpoints of something else.
    Raises:
        ValueError: if they are those of something else.
    """
    asked, note = json.dumps(asked), Path(folder) / "asked.json"
    if note.is_file() and note.read_text(encoding="utf-8") != asked:
        if not overwrite:
            raise ValueError(
                f"{folder} holds the checkpoints of another command, with other data or settings. Repeat "
                "that one to go on with it, or choose another folder. On the command line: another "
                "`--out`, or `--overwrite`."
            )
        shutil.rmtree(folder)
    with atomic_write(note) as file:
        file.write(asked)
