"""Kinds of labels that no task fits, each with its way out; the first that holds is told."""

import re
from collections.abc import Callable
from typing import NamedTuple

from keras_compress.bert.tasks import UNSHOWN
from keras_compress.datasets.tables import BRACKETS, short

TYPED_TAG = re.compile(r"O|[BIESMLU]-\S+")
NO_LABEL = ("", "-", "?", "-1", "-1.0", "-100", "-100.0", "nan", "null", "<na>")
BETWEEN_NAMES = re.compile(r"\s*[,;|，；、#]\s*|\s+")
COMMA = re.compile(r"[+-]?\d+(,\d+)?")
DECIMALS = re.compile(r"[+-]?\d*\.\d+(e[+-]?\d+)?", re.I)


def has_no_label(label):
    return label is None or str(label).strip().lower() in NO_LABEL


def is_nested(label):
    parts = label if isinstance(label, list) else []
    return isinstance(label, dict) or any(isinstance(part, dict | list) for part in parts)


def _parts(label):
    return BETWEEN_NAMES.split(str(label))


def _is_several(label, known):
    parts = _parts(label)
    return len(parts) > 1 and known.issuperset(parts)


class Kind(NamedTuple):
    name: str
    holds: Callable  # (label, the set of names and numbers that are labels) -> bool
    way_out: str


KINDS = (
    Kind(
        "no label (null, or a mark for none)",
        lambda label, known: has_no_label(label),
        "Remove the row, or give it a label (a class of such a name must stand in labels.txt).",
    ),
    Kind(
        "an object (entities by place, as in CLUENER)",
        lambda label, known: is_nested(label),
        "Write `text` as tokens separated by spaces, and as many tags, such as O B-PER I-PER.",
    ),
    Kind(
        "a list of names",
        lambda label, known: isinstance(label, list),
        "Write a list in every row, if a text may have several labels; else one name in each.",
    ),
    Kind(
        "several tags",
        lambda label, _: {"O"} < {*_parts(label)} and all(map(TYPED_TAG.fullmatch, _parts(label))),
        "Separate tags by one space, as the tokens of their text, in every row.",
    ),
    Kind(
        "several names",
        _is_several,
        "If a text may have several labels, pass `task` (`--task multilabel`); if it is one name, write labels.txt; if "
        "it is a number with decimals, write a point for the comma.",
    ),
    Kind(
        "a number with a comma for the decimals, as are all",
        lambda label, known: "," in str(label) and all(map(COMMA.fullmatch, known)),
        "Write a point for the comma; or, if a text may have several labels, pass `task` (`--task multilabel`).",
    ),
    Kind(
        "true or false beside others",
        lambda label, known: isinstance(label, bool) and not known <= {"True", "False"},
        "Write all labels as names, or all as whole numbers.",
    ),
    Kind(
        "a name with characters that do not show",
        lambda label, known: UNSHOWN.search(str(label)),
        "Write a name of one line, without control characters.",
    ),
    Kind(
        "a list or an object as text",
        lambda label, known: BRACKETS.fullmatch(str(label)),
        "Write one name, several with commas between them, or tags separated by spaces (if it is one name, write "
        "labels.txt).",
    ),
    Kind(
        "a number with decimals",
        lambda label, known: isinstance(label, float) or DECIMALS.fullmatch(str(label)),
        "Write classes as whole numbers, or pass `task` for scores (`--task regression`); if it is a name, write labels.txt.",
    ),
)


def check_kind(where, label, known):
    """Raises ValueError if a label, or a tag, is of one of KINDS."""
    for kind in KINDS:
        if kind.holds(label, known):
            raise ValueError(
                f"{where}: a label must be one name or one whole number. Received: "
                f"{short(label)}, {kind.name}. {kind.way_out}"
            )
