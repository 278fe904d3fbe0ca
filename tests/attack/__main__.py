"""Attacks, counted: python -m tests.attack [--tries N] [KIND ...], where KIND begins the name of kinds.

A line for each kind: how much was tried, how much of it survived, and what was lost. Survived: after a kill or a stop
nothing but the same command is needed; what is damaged, absurd, hostile or foreign is told in one line, or changes nothing.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from tests import test_fuzz
from tests.attack import arguments, damage, foreign, hostile, kills, threads


def damages(target):
    def attack(place, tries):
        counts = damage.attack(target, tries)
        survived = counts.pop("refused", 0) + counts.pop("same", 0)
        return counts + Counter(survived=survived)

    return attack


def of_threads(place, tries):
    return threads.attack(damage.exported(place)[0] / "float32.tflite", tries)


def fuzzed(place, tries):
    """Edited files and requests, in the proportions of the slow test."""
    whole, counts = sum(number for _, number in test_fuzz.TARGETS.values()), Counter()
    for target, (_, number) in test_fuzz.TARGETS.items():
        number, here = number * tries // whole, place / target.__name__
        here.mkdir()
        try:
            test_fuzz.fuzz(target, here, number)
            counts["survived"] += number
        except Exception as error:
            counts[f"LOST: {error!r:.150}"] += 1
    return counts


KINDS = {
    **kills.KINDS,
    **{
        f"damage: {name}": (damages(target), tries)
        for name, (target, tries) in damage.TARGETS.items()
    },
    "arguments": (arguments.attack, 1000),
    "threads": (of_threads, 12_000),
    "hostile files": (hostile.attack, 1000),
    "foreign files": (foreign.attack, 1000),
    "fuzzing": (fuzzed, 10_000),
}


def main():
    parser = argparse.ArgumentParser(prog="tests.attack", description=f"Kinds: {', '.join(KINDS)}.")
    parser.add_argument(
        "kinds",
        nargs="*",
        metavar="KIND",
        default=[""],
        help="what its name begins with (default: all)",
    )
    parser.add_argument("--tries", type=int, help="of each kind (default: its own)")
    options = parser.parse_args()
    chosen = [name for name in KINDS if name.startswith(tuple(options.kinds))]
    if not chosen:
        parser.error(f"a kind must begin as one of {', '.join(KINDS)}. Received: {options.kinds}.")
    return max([_attack(name, options.tries) for name in chosen])


def _attack(name, tries):
    """Makes one kind in a fork, since TensorFlow that was used cannot be forked; 1 if something was lost."""
    sys.stdout.flush()
    if process := os.fork():
        return int(os.waitpid(process, 0)[1] != 0)
    status = 1
    try:
        logging.disable()
        warnings.simplefilter("ignore")
        attack, usual = KINDS[name]
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            counts = attack(Path(place), tries or usual)
        survived = counts.pop("survived", 0)
        seconds = time.monotonic() - begun
        print(
            f"{name}: tried {survived + counts.total():,}, survived {survived:,}, lost {counts.total():,} ({seconds:.0f} s)"
        )
        for lost, number in counts.most_common():
            print(f"    {number} x {lost}")
        status = int(counts.total() > 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
