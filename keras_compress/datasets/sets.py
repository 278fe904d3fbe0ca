"""Labels that are sets of names, or scores.

Names of a text stand in a JSON list, or in a field with one of SEPARATORS between them; a text may have none.
"""

import math

from keras_compress.datasets.tables import BRACKETS, short

SEPARATORS = ",;|，；、#"


def number(label):
    """A finite number, None if a label is none."""
    try:
        value = math.nan if isinstance(label, bool) else float(label)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def score(row):
    """The number that a row has as label; ValueError if it has none."""
    value = number(row.label)
    if value is None:
        raise ValueError(
            f"{row.where}: a score must be a finite number. Received: {short(row.label)}. Correct or remove the row "
            "(if labels are names, write labels.txt)."
        )
    return value


def separators(labels, known):
    """Those of SEPARATORS that stand in labels, and have nothing but known names around them (known: None: anything)."""
    texts = [label for label in labels if isinstance(label, str)]
    found = [mark for mark in SEPARATORS if any(mark in text for text in texts)]
    return [mark for mark in found if not known or all({*_cut(t, mark)} <= known for t in texts)]


def separator_of(path, labels, known):
    """What stands between the names of a text; ValueError if there are several such marks."""
    found = separators(labels, known) or separators(labels, None)
    if len(found) > 1:
        raise ValueError(
            f"{path}: one mark must stand between the names of a text. Received: {' '.join(found)}. Write JSON lists, or "
            "all names into labels.txt."
        )
    return "".join(found) or SEPARATORS[0]


def names_of(row, separator):
    """The names of a text. What is none stays as it is. ValueError if one is empty or stands twice."""
    label = row.label
    if isinstance(label, str) and BRACKETS.fullmatch(label):
        names = [label]  # a list as text: its brackets must not become parts of names
    elif isinstance(label, str | int | float):
        names = _cut(str(label), separator)
    else:
        parts = label if isinstance(label, list) else [label]
        names = [str(part) if isinstance(part, str | int | float) else part for part in parts]
    if len({*map(str, names)}) < len(names) or "" in names:
        raise ValueError(
            f"{row.where}: the names of a text must differ, and none be empty. Received: {short(label)}. Write each "
            "name once (neither a tag for each word, nor a 0 or 1 for each class)."
        )
    return names


def _cut(text, separator):
    return [part.strip() for part in text.split(separator)] if text.strip() else []
