"""Runs students' code: one forked process per exercise, with limits, and with checks that cannot be talked to.

The limits are for accidents and for pranks: time, memory, output, no network, no other processes, no files but in a
temporary folder. Who knows Python's insides can get out of them. So grade where a notebook can do no harm.
"""

import builtins
import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
import time
import types

import numpy as np

MEMORY_BYTES = 2 * 2**30  # on top of what the imports take
OUTPUT_BYTES = 2**20
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # of unshare(2)
FORBIDDEN = (
    "os.fork os.exec os.posix_spawn os.spawn os.system os.kill os.putenv pty. subprocess. socket. ctypes. "
    "signal.pthread_kill webbrowser. ftplib. http. urllib. smtplib."
).split()
FILES = (
    "os.remove os.rename os.rmdir os.mkdir os.link os.symlink os.truncate os.ch shutil."
).split()
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def run(tasks, seconds, workers=os.cpu_count()):
    """Calls each task in a process of its own.

    Args:
        tasks: {key: function of one argument, `send`, which takes what JSON can hold}.
        seconds: what a task may last by the clock.
    Returns:
        {key: (list of what was sent, "" or why the process ended early)}.
    """
    waiting, running, results = list(tasks.items()), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < workers:
                key, task = waiting.pop(0)
                running[key] = (*start(task, folder), time.monotonic() + seconds)
            for key, (process, reader, deadline) in list(running.items()):
                ended, status = os.waitpid(process, os.WNOHANG)
                late = not ended and time.monotonic() > deadline
                if not ended and not late:
                    continue
                try:
                    os.killpg(process, signal.SIGKILL)  # and what it may have started
                except (ProcessLookupError, PermissionError):
                    pass
                if late:
                    os.waitpid(process, 0)
                why = f"stopped after {seconds:g} seconds" if late else ""
                why = why or (f"died of signal {status}" if os.WIFSIGNALED(status) else "")
                results[key] = received(reader), why
                del running[key]
            time.sleep(0.01)
    return results


def start(task, folder):
    """Forks a process that calls the task. (its id, the end of a pipe to read what it sends)."""
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        os.set_blocking(reader, False)
        return process, reader
    try:
        os.setpgid(0, 0)
        send = lambda message: os.write(writer, json.dumps(message).encode() + b"\n")
        confine(os.path.realpath(folder))
        task(send)
    finally:
        os._exit(0)


def received(reader):
    """What was sent. A pipe holds 64 kB, and a task sends less: nobody needs to read while it runs."""
    try:
        lines = os.read(reader, 2**16).split(b"\n")[:-1]
    except BlockingIOError:
        lines = []
    os.close(reader)
    return [json.loads(line) for line in lines]


def confine(folder):
    """Takes from this process what an answer does not need."""
    os.chdir(folder)
    tempfile.tempdir, sys.dont_write_bytecode = folder, True
    for name, stream in (("/dev/null", 0), (f"{folder}/{os.getpid()}", 1)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), stream)
    os.dup2(1, 2)
    limits = {resource.RLIMIT_FSIZE: OUTPUT_BYTES, resource.RLIMIT_CORE: 0}
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + MEMORY_BYTES
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    if (
        sys.platform == "linux"
    ):  # where the kernel allows it; the hook below refuses sockets in any case
        ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK)

    def watch(event, arguments):
        inside = str(next(iter(arguments), "")).startswith(folder)
        writes = event == "open" and bool(arguments[2] and arguments[2] & WRITING)
        outside = not inside and (writes or event.startswith(tuple(FILES)))
        if outside or event.startswith(tuple(FORBIDDEN)):
            raise PermissionError(f"an answer may not do this: {event}")

    sys.addaudithook(watch)


def plain(value, tensor):
    """A value as numbers, texts, arrays and lists of them, none of which can compare as it likes.

    Tensors stay what they are, since gradients run through them.
    """
    if value is None or type(value) in (bool, int, float, complex, str, tensor):
        return value
    if type(value) in (list, tuple):
        return type(value)(plain(entry, tensor) for entry in value)
    if type(value) is dict:
        return {plain(key, tensor): plain(entry, tensor) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        return np.array(value)[()]
    raise TypeError(
        f"An answer must be numbers, arrays, texts, or lists of them. Received: {type(value).__name__}."
    )


def snapshot(names):
    """{(module, name): object} of what checks rely on."""
    modules = [builtins, np.testing, np.linalg, *names.values()]
    modules = {module for module in modules if isinstance(module, types.ModuleType)}
    return {(module, name): value for module in modules for name, value in vars(module).items()}


def changed(before):
    """Puts back what was changed since, and returns its names."""
    found = [
        (module, name, value)
        for (module, name), value in before.items()
        if vars(module).get(name) is not value and name not in ("_", "__warningregistry__")
    ]
    for module, name, value in found:
        setattr(module, name, value)
    return sorted(f"{module.__name__}.{name}" for module, name, _ in found)


def dead_canaries(tensor_of):
    """Assertions that should fail and do not: a list of str."""
    zero, one = tensor_of(0.0), tensor_of(1.0)
    canaries = {
        "assert": lambda: exec("assert 1 == 2"),
        "assert_allclose": lambda: np.testing.assert_allclose(0.0, 1.0),
        "assert_array_equal": lambda: np.testing.assert_array_equal([0, 1], [0, 2]),
        "assert_allclose of tensors": lambda: np.testing.assert_allclose(zero, one),
        "== of tensors": lambda: exec("assert zero == one", {"zero": zero, "one": one}),
    }
    dead = []
    for name, canary in canaries.items():
        try:
            canary()
        except AssertionError:
            continue
        dead.append(name)
    return dead


def summary(error):
    """An exception in two lines at most, without the padding of NumPy's reports."""
    lines = [line.strip() for line in str(error)[:2000].splitlines() if line.strip()]
    if isinstance(error, AssertionError):
        return " / ".join(lines[:5])[:400] or "a condition does not hold"
    return f"{type(error).__name__}: {' / '.join(lines[:2])}"[:400]


def examine(names, answer, function, items, seed, tensor_of):
    """The task of `run`: defines an answer, and runs the checks one by one.

    Args:
        names: what the lesson imports. answer: source of the student's cell. function: the name that it defines.
        items: [(id, code)]. seed: of the hidden values. tensor_of: makes a tensor.
    Returns:
        a function of `send`, which sends {"flag": str} or {"item": id, "error": "" if it passed}.
    """

    def task(send):
        before, tensor = snapshot(names), type(tensor_of(0.0))
        own, trouble = dict(names), ""
        try:
            exec(compile(answer, "answer", "exec"), own)
        except (
            BaseException
        ) as error:  # what stands below the function may fail without the lesson's state
            trouble = summary(error)
            send({"flag": f"the cell raises {trouble}"})
        for name in changed(before):
            send({"flag": f"changes {name}"})
        answered = own.get(function)

        def wrapped(*arguments, **settings):
            if answered is None:
                raise NameError(f"`{function}` is not defined. {trouble}")
            return plain(answered(*arguments, **settings), tensor)

        for number, code in items:
            scope = {**names, function: wrapped, "SEED": seed}
            try:
                exec(compile(code, "check", "exec"), scope)
                error = ""
            except BaseException as failure:
                error = summary(failure)
            dead = dead_canaries(tensor_of)
            if dead:
                send({"flag": f"assertions no longer fail: {', '.join(dead)}"})
                error = error or "the check could not fail"
            send({"item": number, "error": error})
        for name in changed(before):
            send({"flag": f"changes {name}"})

    return task
