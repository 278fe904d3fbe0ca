"""The command line: results on stdout, progress on stderr; exit 0 done, 1 failed, 2 wrong usage.

The functions of verbs.py and exported.py are the verbs. Their options are read from signatures and docstrings, those
of groups (options.py) and of `Training` among them.
"""

import argparse
import contextlib
import functools
import inspect
import json
import logging
import os
import re
import signal
import sys
import typing
import warnings
from dataclasses import is_dataclass

from pydantic import ValidationError, validate_call

from keras_compress.cli.verbs import VERBS
from keras_compress.experiment.recipe import find_recipe
from keras_compress.training.settings import Training

FLAGS = {"source": "--from", "settings": "--set"}
OPPOSITES = {"lowercase": "--cased"}
NAMED = ("minilm", "bilstm")  # sources that are no paths
LONGEST = 3000  # characters of an error
OBEYED = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f]")  # by a terminal
# What wrong input or a full machine raises, with the names of TensorFlow, which need not be imported here.
EXPECTED = {"ValueError", "OSError", "ImportError", "ResourceExhaustedError", "OutOfRangeError"}


def parser():
    """All verbs with the options that their signatures declare.

    out: folder to write
    overwrite: replace what the folder holds
    seed: of initial weights, data order, dropout and draws
    allow_drift: write int8 files that drift too far from Keras, marked
    """
    top = argparse.ArgumentParser(
        prog="keras_compress", description="BERT compression, paper by paper."
    )
    verbs = top.add_subparsers(required=True, metavar="VERB")
    for function in VERBS:
        text = inspect.getdoc(function).partition("\n")[0]
        verb = verbs.add_parser(function.__name__, help=text, description=text)
        _add_options(verb, function)
        verb.add_argument("--json", action="store_true", help="print the result as JSON")
        verb.set_defaults(function=function, wrong_usage=verb.error)
    return top


def _add_options(verb, function, texts={}):
    """Adds what a verb, or a group of options, declares; what a verb takes by place is an argument.

    `texts` are the verb's own words about options of the group.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    texts = _help_of(parser) | _help_of(function) | texts
    for name, parameter in inspect.signature(function).parameters.items():
        hint, default = hints.get(name, str), parameter.default
        if is_dataclass(hint):
            _add_options(verb, hint, _help_of(function))
            continue
        if function is Training and name in ("folder", "checkpoint_every"):
            continue
        required, several = default is parameter.empty, hint == list[str]
        settings = {"help": texts.get(name) or hint.__metadata__[-1]}
        settings["default"] = [] if several else default
        if type(default) in (int, float, str):
            settings["help"] += f" (default: {default})"
        if default is False or name in OPPOSITES:
            settings["action"] = "store_true"
        if parameter.kind is parameter.KEYWORD_ONLY or is_dataclass(function):
            if several:
                settings["action"] = "append"
            flag = FLAGS.get(name, "--" + name.replace("_", "-"))
            place = verb.add_mutually_exclusive_group() if name in OPPOSITES else verb
            place.add_argument(flag, dest=name, required=required, **settings)
            if name in OPPOSITES:
                settings |= {"help": f"the opposite of {flag}", "action": "store_false"}
                place.add_argument(OPPOSITES[name], dest=name, **settings)
        elif required:
            verb.add_argument(name, nargs="+" if several else None, **settings)
        else:
            verb.add_argument(name, nargs="*" if several else "?", **settings)


def _help_of(place):
    """{name: text} of the options that a docstring tells about."""
    return dict(re.findall(r"^(\w+): (.+(?:\n {4}.+)*)", inspect.getdoc(place), re.M))


def _answer(function, options):
    """Yields what a verb gives for the options, as text or JSON: (lines, what failed in it)."""

    @functools.wraps(function)
    def verb(**given):
        _look(options)
        if options.get("strategy") == "mirrored":
            from keras_compress.training.optimizer import strategy

            strategy("mirrored")  # workers must meet before TensorFlow does anything else
        return function(**given)

    # A group is no option itself: it takes its own out of all.
    groups = {name for name, hint in typing.get_type_hints(function).items() if is_dataclass(hint)}
    names = inspect.signature(function).parameters
    given = {name: options if name in groups else options[name] for name in names}
    answer = validate_call(verb)(**given)
    if inspect.isgenerator(answer) and not options["json"]:
        yield from (("\n".join(lines), "") for _, lines in answer)
        return
    if inspect.isgenerator(answer):
        answer = [row for rows, _ in answer for row in rows], []
    result, lines, *failed = answer
    text = json.dumps(result, ensure_ascii=False) if options["json"] else "\n".join(lines)
    yield text, "".join(failed)


def _look(options):
    """Raises an error at once if there is nothing at a path: TensorFlow takes long to import."""
    given = options.get
    if given("recipe"):
        find_recipe(given("recipe"))
    if given("data"):
        from keras_compress import datasets

        datasets.find(given("data"))
    for path in (*given("files", ()), *filter(None, map(given, ("tflite", "old", "new")))):
        os.stat(path)
    source = given("source")
    there = source and (os.path.exists(source) or os.path.exists(f"{source}.index"))
    if source and source not in NAMED and not there:
        is_name = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", source)
        hub = f" If it is a name of the Hugging Face Hub, fetch it: `hf download {source}`."
        raise ValueError(
            f"`--from` must be {', '.join(NAMED)}, or a folder or file. Received: {source}, which does "
            f"not exist. Check the path.{hub if is_name else ''}"
        )


def shown(text):
    """Text, or JSON, with what a terminal would obey written as \\u001b."""
    return OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _show(record):
    record.msg, record.args = shown(record.getMessage()), ()
    return True


@contextlib.contextmanager
def _as_ctrl_c():
    """Within it SIGTERM is an interrupt, so that a process that was started ends, too."""
    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not in the main thread
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def main(arguments=None):
    """Runs one command; returns the exit status. Expected errors become one line on stderr."""
    options = vars(parser().parse_args(arguments))
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger().handlers[0].addFilter(_show)
    for room in ("keras_compress", "mobile_export"):
        logging.getLogger(room).setLevel(logging.INFO)
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):  # the system's own encoding may be another
            stream.reconfigure(encoding="utf-8", errors="replace")
    warn = logging.getLogger("py.warnings").warning
    try:
        with warnings.catch_warnings(), _as_ctrl_c():
            warnings.showwarning = lambda message, *rest: warn("warning: %s", message)
            status = 0
            for text, failed in _answer(options["function"], options):
                if text:
                    print(shown(text), flush=True)
                if failed:
                    print("error:", shown(" ".join(failed.splitlines())), file=sys.stderr)
                    status = 1
        return status
    except BrokenPipeError:  # the reader, `head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        message = "stopped. `run --resume` goes on; the same `train` or `compress` does, too"
        print(message, file=sys.stderr)
    except ValidationError as error:
        first = error.errors()[0]
        rule = first["msg"].removeprefix("Input should be ")
        names = [name for name in first["loc"] if name in options]
        options["wrong_usage"](
            f"{names[-1]} must be {rule}. Received: {first['input']!r:.200}" if names else rule
        )
    except Exception as error:
        if not EXPECTED & {kind.__name__ for kind in type(error).__mro__}:
            raise  # a bug keeps its traceback
        text = " ".join(re.sub("{{.*?}} ", "", str(error)).splitlines())
        if isinstance(error, FileNotFoundError) and error.filename:
            text = f"A file must exist. Received: {error.filename}. Check the path."
        if "No space left" in text and "Free some" not in text:  # TensorFlow's, of a checkpoint
            text += ". Free some space, then go on: `run --resume`, or the same command again."
        text = shown(text)
        cut = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
        print("error:", text if len(text) <= LONGEST else cut, file=sys.stderr)
    return 1
