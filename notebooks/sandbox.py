"""Runs students' code, each exercise in a forked process with limits, and tries its checks.

The limits are for accidents and pranks. Who knows Python well can break out: grade where a notebook can do no harm.
"""

import ctypes
import errno
import json
import os
import secrets
import signal
import sys
import tempfile
import time

import numpy as np

MEMORY_BYTES, OUTPUT_BYTES = 2 * 2**30, 2**20  # memory: on top of what the imports take
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # of unshare(2)
REFUSED = (  # audit events that start with one of these
    "os.fork os.exec os.posix_spawn os.spawn os.system os.kill subprocess. pty. socket. ctypes. signal.pthread_kill"
).split()
REFUSED_OUTSIDE = (
    "os.remove os.rename os.rmdir os.mkdir os.link os.symlink os.truncate shutil.".split()
)


def run(tasks, seconds, workers=os.cpu_count()):
    """Calls each task in a process of its own.

    Args:
        tasks: {key: function of `send`, which takes what JSON can hold, 64 kB in all}.
        seconds: what a task may last by the clock.
    Returns:
        {key: (list of what was sent, "" or why the process was stopped)}.
    """
    waiting, running, results = list(tasks), {}, {}
    token = secrets.token_hex().encode()  # other writers to the pipe do not count
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < workers:
                key = waiting.pop(0)
                started = start(tasks[key], os.path.realpath(folder), token)
                running[key] = (*started, time.monotonic() + seconds)
            for key, (process, reader, deadline) in list(running.items()):
                late = time.monotonic() > deadline
                if late:
                    os.killpg(process, signal.SIGKILL)
                if os.waitpid(process, 0 if late else os.WNOHANG)[0]:
                    why = f"stopped after {seconds:g} seconds" if late else ""
                    results[key] = received(reader, token), why
                    del running[key]
            time.sleep(0.01)
    return results


def start(task, folder, token):
    """Forks a process that calls the task: (its id, the end of a pipe to read from)."""
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        os.set_blocking(reader, False)
        return process, reader
    try:
        os.setpgid(0, 0)
        confine(folder)
        task(lambda message: os.write(writer, token + json.dumps(message).encode() + b"\n"))
    finally:
        os._exit(0)


def received(reader, token):
    try:
        sent = os.read(reader, 2**16)
    except BlockingIOError:
        sent = b""
    os.close(reader)
    lines = [line for line in sent.splitlines() if line.startswith(token)]
    return [json.loads(line.removeprefix(token)) for line in lines]


def confine(folder):
    """Takes from this process what an answer does not need."""
    import resource  # which Windows does not have

    os.chdir(folder)
    tempfile.tempdir, sys.dont_write_bytecode = folder, True
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(os.open(f"{folder}/{os.getpid()}", os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(1, 2)
    limits = {resource.RLIMIT_FSIZE: OUTPUT_BYTES}
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        limits[resource.RLIMIT_AS] = used + MEMORY_BYTES
        ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK)  # may be refused; `watch` is not
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))

    def watch(event, arguments):
        outside = not str(next(iter(arguments), "")).startswith(folder)
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event.startswith(tuple(REFUSED)) or (
            outside and (writes or event.startswith(tuple(REFUSED_OUTSIDE)))
        ):
            raise PermissionError(f"an answer may not do this: {event}")

    sys.addaudithook(watch)


def plain(value, tensor):
    """A value as numbers, texts, arrays and lists of them, none of which compares as it likes.

    A tensor stays, since gradients run through it.
    """
    if value is None or type(value) in (bool, int, float, str, tensor):
        return value
    if type(value) in (list, tuple):
        return type(value)(plain(entry, tensor) for entry in value)
    if type(value) is dict:
        return {plain(key, tensor): plain(entry, tensor) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        return np.array(value)[()]
    raise TypeError(f"must be numbers, arrays, texts, or lists of them. Received: {type(value)}.")


def dead_canaries(tensor_of):
    """Assertions that should fail, and do not: list of str."""
    zero, one = tensor_of(0.0), tensor_of(1.0)
    canaries = {
        "assert": lambda: exec("assert zero == one", {"zero": zero, "one": one}),
        "assert_allclose": lambda: np.testing.assert_allclose(0.0, 1.0),
        "assert_allclose of tensors": lambda: np.testing.assert_allclose(zero, one),
        "assert_array_equal": lambda: np.testing.assert_array_equal([0, 1], [0, 2]),
    }
    dead = []
    for name, canary in canaries.items():
        try:
            canary()
            dead.append(name)
        except AssertionError:
            pass
    return dead


def summary(error, code=""):
    """An exception in one line: its message without NumPy's statistics, or the line of `code` that raised it."""
    if getattr(error, "errno", None) == errno.EFBIG:
        return f"more than {OUTPUT_BYTES:,} bytes of output"
    lines = [line.strip() for line in str(error)[:2000].splitlines() if line.strip()]
    told = " / ".join(line for line in lines if not line.startswith(("Mismatch", "Max ", "First ")))
    place = error.__traceback__
    while place and place.tb_frame.f_code.co_filename != "check":
        place = place.tb_next
    told = told or (code.splitlines()[place.tb_lineno - 1].strip() if place else "")
    return (told if isinstance(error, AssertionError) else f"{type(error).__name__}: {told}")[:300]


def examine(names, answer, function, items, seed, tensor_of):
    """A task for `run`: defines an answer, and tries the items of its check, each from a fresh start.

    Args:
        names: what the lesson imports. answer: source of the student's cell. function: what it defines.
        items: [(number, code)]. seed: of hidden values. tensor_of: makes a tensor of a number.
    Returns:
        function of `send`, which sends {"flag": str} and {"item": number, "error": str, "" if it passed}.
    """

    def task(send):
        own, tensor = dict(names), type(tensor_of(0.0))
        try:
            exec(compile(answer, "answer", "exec"), own)
        except BaseException as error:  # lines below a function may need the rest of the lesson
            send({"flag": f"the cell raises {summary(error)}"})

        def asked(*arguments, **settings):
            return plain(own[function](*arguments, **settings), tensor)

        for number, code in items:
            error = "" if function in own else f"`{function}` is not defined"
            try:
                exec(compile(code, "check", "exec"), {**names, function: asked, "SEED": seed})
            except BaseException as failure:
                error = error or summary(failure, code)
                if isinstance(failure, OSError | MemoryError):
                    send({"flag": error})
            if dead := dead_canaries(tensor_of):
                send({"flag": f"assertions no longer fail: {', '.join(dead)}"})
                error = error or "this check could not fail"
            send({"item": number, "error": error})

    return task
