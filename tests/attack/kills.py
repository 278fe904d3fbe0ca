"""Commands that are stopped at a file operation, each in a process of its own, and then given again.

Survived is a try after which the same command, or `run --resume`, ends with the files of one that nobody stopped, and with
nothing beside them. The process that calls these functions must not have used TensorFlow: its children are forks.
"""

import errno
import json
import mmap
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter

import numpy as np

from keras_compress.backend import tf
from keras_compress.cli import main
from keras_compress.experiment import cells as measured
from tests import samples
from tests.support import in_this_process

SECONDS = 300  # of a command, before it counts as hanging
WRITES = "os.rename os.remove os.mkdir os.rmdir os.truncate os.link os.symlink".split()
FREE = ["--max-length", "16", "--batch-size", "8", "--learning-rate", "1e-2"]
TIMES = {
    "sha256",
    "seconds",
    "versions",
    "engines",
    "engine_notes",
}  # may differ between equal runs
TIMES_OF_FILES = {
    "seconds",
    "latency_ms_mean",
    "latency_ms_p50",
    "latency_ms_p90",
    "times_as_fast",
}
AT_WORK = "another one is at work"


class Child:
    """A command in a fork.

    Args:
        accident, at: what happens at which file operation; None: nothing. "kill", "term", "int"; "full", "read-only": the
            operation and all after it fail; "size": files of more than `at` bytes do.
    """

    def __init__(self, arguments, accident=None, at=0):
        self.count, self.said = mmap.mmap(-1, 8), tempfile.TemporaryFile("w+")
        sys.stdout.flush()
        self.process = os.fork()
        if not self.process:
            self._work([str(each) for each in arguments], accident, at)

    def _work(self, arguments, accident, at):
        status = 70
        try:
            signal.alarm(SECONDS)
            for stream in (1, 2):
                os.dup2(self.said.fileno(), stream)
            tf.config.run_functions_eagerly(True)
            measured.subprocess.check_output = in_this_process
            happens = accidents(self.count, accident, at)
            sys.addaudithook(lambda event, given: writes(event, given) and happens())
            if accident == "size":
                resource.setrlimit(resource.RLIMIT_FSIZE, (at, resource.RLIM_INFINITY))
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(status)

    def wait(self):
        """(exit status, or minus the signal that ended it; number of file operations; what it said)."""
        _, status = os.waitpid(self.process, 0)
        self.said.seek(0)
        return (
            os.waitstatus_to_exitcode(status),
            int.from_bytes(self.count[:8], "little"),
            self.said.read(),
        )


def writes(event, given):
    """Whether an event of Python's audit is a file operation that changes something."""
    if event == "open":
        return isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    return event in WRITES


def accidents(count, accident, at):
    """What is called at each file operation: counts it, and does what is to happen."""
    signals = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
    errors = {"full": errno.ENOSPC, "read-only": errno.EROFS}

    def happens():
        number = int.from_bytes(count[:8], "little") + 1
        count[:8] = number.to_bytes(8, "little")
        if accident in signals and number == at:
            os.kill(os.getpid(), signals[accident])
        if accident in errors and number >= at:
            raise OSError(errors[accident], os.strerror(errors[accident]))

    return happens


def contents(folder):
    """{name: content} of all files; of cells without what a clock says, and of a run only cells and models."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            not path.is_file()
            or "run.json" in os.listdir(folder)
            and not name.startswith(("cells/", "models/"))
        ):
            continue
        found[name] = path.read_bytes()
        if name.startswith("cells/"):
            cell = {key: x for key, x in json.loads(found[name]).items() if key not in TIMES}
            for file in cell.get("files", ()):
                for key in TIMES_OF_FILES:
                    file.pop(key)
            found[name] = cell
        if path.name in ("model.json", "parity.json"):  # its facts of time
            found[name] = json.loads(found[name]).keys()
    return found


class Command:
    """A command to stop and to repeat, in a folder that `place` prepares.

    Args:
        first: its arguments. again: those to go on with, once `sign` is there. out: the name of what it writes.
    """

    def __init__(self, first, again=None, sign=None, out="out", before=None):
        self.first, self.again, self.sign, self.out, self.before = (
            first,
            again or first,
            sign,
            out,
            before,
        )

    def start(self, place, *accident):
        there = self.sign and (place / self.out / self.sign).is_file()
        return Child([*(self.again if there else self.first), "--out", place / self.out], *accident)

    def prepared(self, place):
        place.mkdir()
        if self.before:
            shutil.copytree(self.before, place / self.out)
        return place

    def whole(self, place):
        """(contents of an undisturbed run, its number of file operations)."""
        status, number, said = self.start(self.prepared(place)).wait()
        assert status == 0, said[-3000:]
        return contents(place / self.out), number


def attacked(command, place, stops):
    """Yields what became of each of several series of stops: None, or what was lost.

    Args:
        stops: number of operations of the undisturbed command -> list of series, each a list of (accident, at).
    """
    whole, number = command.whole(place / "whole")
    for series in stops(number):
        trial = command.prepared(place / "trial")
        yield from _one(command, trial, series, whole)
        shutil.rmtree(trial)


def _one(command, trial, series, whole):
    lost = []
    for accident, at in series:
        status, _, said = command.start(trial, accident, at).wait()
        fine = status == -signal.SIGKILL if accident == "kill" else status == 1
        if status and (not fine or "Traceback" in said):
            lost.append(f"{accident} at {at}: status {status}, {said[-300:]}")
        if status == 0:
            break
    status, _, said = command.start(trial).wait()
    there = contents(trial / command.out) if (trial / command.out).is_dir() else {}
    beside = sorted(os.listdir(trial))
    if status and "must be new or empty" not in said:
        lost.append(f"after {series}: status {status}, {said[-300:]}")
    elif there != whole:
        other = [name for name in {**there, **whole} if there.get(name) != whole.get(name)]
        lost.append(f"after {series}: other content of {other[:5]}")
    elif beside != [command.out]:
        lost.append(f"after {series}: left {beside}")
    yield from lost[:1] * len(series) or [None] * len(series)


def at_operations(tries):
    """One kill a series, at `tries` operations from the first to the last."""
    return lambda number: [
        [("kill", 1 + round(k * (number - 1) / max(tries - 1, 1)))] for k in range(tries)
    ]


def in_series(tries, length, seed=0):
    """`tries` kills, `length` in each series, at operations drawn at random."""
    random = np.random.default_rng(seed)

    def stops(number):
        draws = random.integers(1, max(2, number // (length // 2)), tries)
        return [
            [("kill", int(at)) for at in draws[k : k + length]] for k in range(0, tries, length)
        ]

    return stops


def all_kinds(tries, seed=0):
    """One stop a series, of each kind that is no kill."""
    random = np.random.default_rng(seed)

    def stops(number):
        kinds = [
            ("term", number),
            ("int", number),
            ("full", number),
            ("read-only", number),
            ("size", 200_000),
        ]
        series = []
        for k in range(tries):
            kind, most = kinds[k % len(kinds)]
            series.append([(kind, int(random.integers(1, most)))])
        return series

    return stops


def counted(results):
    return Counter("survived" if lost is None else f"LOST: {lost}" for lost in results)


def tuned(place, verb):
    """`train`, or `compress`, of a tiny model on tiny data, with checkpoints and best weights."""
    data, model = place / "data", place / "bert"
    if not data.is_dir():
        samples.data(data)
        _made(lambda: samples.model(model))
    settings = [
        "--from",
        model,
        "--data",
        data,
        *FREE,
        "--epochs",
        "2",
        "--evaluations",
        "2",
        "--patience",
        "2",
    ]
    method = ["compress", "theseus", "--set", "num_layers=1"] if verb == "compress" else [verb]
    return Command([*method, *settings])


def _made(make):
    """Runs Python in a fork, whose TensorFlow does not become this process's."""
    process = os.fork()
    if not process:
        status = 1
        try:
            make()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def recipe(place, head="", **more):
    """`run` of three steps."""
    command = tuned(place, "train")
    head = f'formats = ["float32"]\nsequence_length = 16\ndatasets = [{head}"{place / "data"}"]\nseeds = [3]'
    steps = [
        ("predecessor", "finetune", "minilm"),
        ("theseus-1", "theseus", "predecessor", "num_layers = 1"),
    ]
    steps += [("layers-1", "layers", "predecessor", 'num_layers = 1\nrole = "baseline"')]
    samples.recipe(
        place / "small.toml", *steps, training="epochs = 1\ncheckpoint_every = 1", head=head
    )
    model = command.first[command.first.index("--from") + 1]
    return Command(["run", place / "small.toml", "--from", model], ["run", "--resume"], "run.json")


def study(place):
    """`run` of two data sets."""
    samples.data(place / "other", numbers=(20, 16, 24))
    return recipe(place, head=f'"{place / "other"}", ')


def exported(place):
    """`export --overwrite` over the files of another model."""
    old, new = place / "old", place / "new"
    _made(lambda: samples.model(new, tuned=True, seed=5))
    export = ["export", "--formats", "float32,int8", "--length", "16", "--allow-drift"]
    _made(lambda: samples.model(place / "first", tuned=True))
    status, _, said = Child([*export, "--from", place / "first", "--out", old]).wait()
    assert status == 0, said
    return Command([*export, "--from", new, "--overwrite"], before=old)


def together(command, place, tries):
    """Yields what became of two processes with one command at once."""
    whole, _ = command.whole(place / "whole")
    for number in range(tries):
        trial = command.prepared(place / "trial")
        first = command.start(trial)
        time.sleep(0.02 * number)
        second = command.start(trial)
        both = sorted((first.wait(), second.wait()), key=lambda row: row[0])
        refused = both[1][0] == 1 and (
            AT_WORK in both[1][2] or "must be new or empty" in both[1][2]
        )
        fine = both[0][0] == 0 and refused and contents(trial / command.out) == whole
        fine = fine and os.listdir(trial) == [command.out]
        yield None if fine else f"two processes: {[(row[0], row[2][-200:]) for row in both]}"
        shutil.rmtree(trial)


def kind(command, stops, *arguments):
    """Counts what becomes of a command of this module, made in `place`, that is stopped."""

    def attack(place, tries):
        return counted(attacked(command(place), place, stops(tries, *arguments)))

    return attack


def two(place, tries):
    return counted(together(tuned(place, "train"), place, tries))


KINDS = {
    "kills of train": (kind(lambda place: tuned(place, "train"), at_operations), 40),
    "kills of compress": (kind(lambda place: tuned(place, "compress"), at_operations), 40),
    "kills of run": (kind(recipe, in_series, 7), 21),
    "kills of a study": (kind(study, in_series, 10), 10),
    "kills of export": (kind(exported, at_operations), 30),
    "stops of train": (kind(lambda place: tuned(place, "train"), all_kinds), 40),
    "two processes": (two, 10),
}
