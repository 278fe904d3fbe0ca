"""One process at a time in a folder: the lock of what is at work."""

import contextlib
import os
from pathlib import Path

try:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
except ImportError:  # Windows
    LOCK_EX = LOCK_NB = LOCK_SH = 0
    flock = lambda file, how: None


@contextlib.contextmanager
def alone(path, shared=False):
    """Keeps other processes from writing `path` meanwhile; the system forgets the lock of a process that has ended.

    Raises ValueError if another one is at work, unless both are `shared`.
    """
    path, how = Path(path).resolve(), LOCK_SH if shared else LOCK_EX
    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        try:
            flock(file, how | LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                raise BlockingIOError  # it was the lock of one that ended just now; another one has begun
        except (BlockingIOError, FileNotFoundError):
            raise ValueError(
                f"One process at a time must write a folder. Received: {path}, where another one is at work. "
                "Wait until it has ended, or choose another folder."
            ) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # others share it
                flock(file, LOCK_EX | LOCK_NB)
                lock.unlink(missing_ok=True)
