"""The words of a report, which stand in report.toml, filled with its figures."""

import re
import string
from pathlib import Path

from keras_compress.experiment.recipe import read_toml

WORDS = read_toml(Path(__file__).with_name("report.toml"))
NONE = "–"
PAIR = "{difference:+.1%} [{low:+.1%}, {high:+.1%}]"


class _Form(string.Formatter):
    """Formats as report.toml says; a list without brackets, a paired difference as PAIR."""

    def format_field(self, value, spec):
        if value in (None, []):
            raise ValueError
        if isinstance(value, dict):
            return fill(PAIR, value)
        if isinstance(value, list):
            return str(value)[1:-1]
        if spec.endswith(("M", "G")):
            value, spec = value / {"M": 1e6, "G": 1e9}[spec[-1]], spec[:-1] + "f"
        return format(value, spec).rstrip("%" if spec else "")


def fill(form, row):
    """A format string with the values of a row; NONE where a value is missing."""
    try:
        return _Form().vformat(form, (), row)
    except (TypeError, KeyError, ValueError, OverflowError):
        return NONE


def markdown(text):
    """Text as Markdown, which shows it as it is; a "|" is left to the table. Marks that turn the direction go."""
    text = re.sub("[\u202a-\u202e\u2066-\u2069]", "\ufffd", " ".join(str(text).split()))
    return re.sub(r"[\\<`$*]|\](?=\()|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
