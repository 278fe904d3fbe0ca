"""Absurd values for every option of every verb: one clear error, or a command that they do not harm, within seconds."""

import contextlib
import io
import os
import signal
from collections import Counter
from pathlib import Path

from keras_compress import cli
from tests import samples

SECONDS = 20
ABSURD = [
    "",
    "-1",
    "nan",
    "1e400",
    "9" * 5000,
    "💥 \x1b[31m",
    "../" * 1500,
    "a" * 300,
    "[" * 3000,
    "\n",
    "0x",
    "=",
]


def commands(place):
    """Yields a command for each verb, option and absurd value, beside options with which the verb would work."""
    data, model = samples.data(place / "data"), samples.model(place / "bert", tuned=True)
    recipe = samples.recipe(place / "own.toml", ("predecessor", "finetune", "minilm"))
    usual = {
        "--from": model,
        "--data": data,
        "--out": place / "out",
        "--epochs": 0.5,
        "--max-length": 16,
    }
    arguments = {
        "compress": ["layers"],
        "run": [recipe],
        "predict": ["the cat"],
        "methods": [],
        "table": [place / "no"],
    }
    arguments |= {
        "android": [place / "no"],
        "benchmark": [place / "no"],
        "diff": [place / "no"] * 2,
        "serve": [place / "no"],
    }
    arguments |= {"data": ["show"]}
    device = place / "device"
    os.mkfifo(device)  # no link to a device of the system, whose place an error could take
    verbs = next(action for action in cli.parser()._actions if action.choices)
    for verb, parser in verbs.choices.items():
        options = [
            a for a in parser._actions if a.option_strings and a.nargs != 0 and a.dest != "help"
        ]
        known = [a.option_strings[0] for a in options]
        for option in (None, *known):
            for value in (*ABSURD, str(device)):
                given = {key: x for key, x in usual.items() if key in known and key != option}
                words = [str(word) for pair in given.items() for word in pair]
                place_values = [value] if option is None else [*map(str, arguments.get(verb, []))]
                if verb == "serve" and option:
                    place_values = [str(place / "no")]
                yield [verb, *place_values, *words, *([f"{option}={value}"] if option else [])]


def outcome(arguments):
    """ "survived", or how the command did not end as it must."""
    said = io.StringIO()

    def late(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            status = cli.main(arguments)
    except SystemExit as stop:
        status = stop.code
    except BaseException as error:
        return f"LOST: {error!r:.150}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    last = said.getvalue().strip().rpartition("\n")[2]
    if "TimeoutError" in last or len(last) > 4000 or "\x1b" in last:
        return f"LOST: {last[:150]!r}"
    clear = (
        status == 0
        or (status == 2 and "error: " in last)
        or (status == 1 and last.startswith("error: "))
    )
    return "survived" if clear else f"LOST: status {status}, {last[:150]!r}"


def attack(place, tries):
    """Counter of "survived" and of what was lost; nothing is written but in `place`, nor over what is there."""
    place, counts, home = Path(place), Counter(), os.getcwd()
    every = [*commands(place)]
    kept = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    (place / "empty").mkdir()
    os.chdir(place / "empty")
    for arguments in every[:: max(1, len(every) // tries)]:
        result = outcome(arguments)
        if result != "survived":
            result += f" of {[word[:60] for word in arguments]}"
        elif not (place / "device").is_fifo() or any(
            not path.is_file() or path.read_bytes() != content for path, content in kept.items()
        ):
            result = f"LOST: files, by {[word[:60] for word in arguments]}"
        counts[result] += 1
    os.chdir(home)
    return counts
