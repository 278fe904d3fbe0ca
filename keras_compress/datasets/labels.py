"""What a label is: the name or the number of a class, a tag for each token, a set of names, a score, or what no task fits.

- A line of labels.txt is a name, whatever it looks like. Without labels.txt the names are the sorted labels of train.
- A label is a line number (from 0) of labels.txt, or exactly one of its lines: as most labels fit, numbers first.
  Where each line holds a number of its own ("1 star"), and all labels are among these, they are meant.
- Labels are tags if each part of all of them is O, or a prefix and a type (B-time, E-time); or if most have as many
  parts as their text has tokens, and the parts repeat: parts of speech.
- They are sets of names if all are JSON lists, or lines of labels.txt with a mark between them (sets.py).
- They are scores if half are numbers, some of them no whole ones, and there is no labels.txt.
- Sets and scores may be asked for: what looks like one name or a whole number is one then.
- What is of one of kinds.KINDS is refused.
"""

import itertools
import re
from typing import NamedTuple

from keras_compress.bert.tasks import SCORE, UNSHOWN
from keras_compress.datasets.kinds import TYPED_TAG, check_kind, is_nested
from keras_compress.datasets.sets import names_of, number, score, separator_of, separators
from keras_compress.datasets.tables import short, warn


class Row(NamedTuple):
    where: str  # file:line
    label: object  # as the file has it: text, of JSON anything
    text: str | tuple  # a tuple for a pair


def _kind(rows, names, asked):
    """What labels are, by the rules above: "tagging", "multilabel", "regression" or "classification"."""
    labels = [row.label for row in rows]
    if asked in ("multilabel", "regression"):
        parts = [*itertools.chain(*map(_tags, labels))]
        if asked == "multilabel" and all(map(TYPED_TAG.fullmatch, parts)):
            raise ValueError(
                f"{rows[0].where}: the labels of multilabel must be names. Received: tags, such as {short(labels[0])}. "
                "Take them for tagging: leave out `task` (`--task`)."
            )
        return asked
    if _are_tags(rows, names):
        return "tagging"
    if all(isinstance(label, list) and not is_nested(label) for label in labels):
        return "multilabel"
    if names:
        known = {*names, *_by_number(names)}
        whole = all(str(label) in known for label in labels)
        return "classification" if whole or not separators(labels, known) else "multilabel"
    numbers = [value for value in map(number, labels) if value is not None]
    fractions = any(not value.is_integer() for value in numbers)
    return "regression" if fractions and 2 * len(numbers) >= len(labels) else "classification"


def read_labels(path, rows, names, asked=None):
    """Reads the labels of all rows, by the rules above.

    Args:
        path: the folder, for messages.
        rows: {split: list of `Row`}.
        names: the lines of labels.txt, or None. asked: the task that was asked for, or None.
    Returns:
        "classification" (or matching), "tagging", "multilabel" or "regression", names (list), {split: labels as in
        `Split`}.
    Raises:
        ValueError: a label fits no task; the message names file and line.
    """
    kind, every = _kind(rows["train"], names, asked), [*itertools.chain(*rows.values())]
    if kind == "regression":
        return kind, list(SCORE), {split: list(map(score, part)) for split, part in rows.items()}
    known = {*names, *_by_number(names)} if names else {str(row.label) for row in rows["train"]}
    several = kind == "multilabel"
    if kind == "tagging" and all(
        " " not in row.text and len(_tags(row.label)) == 1 for row in rows["train"]
    ):
        raise ValueError(
            f"{path}: a row must hold a sentence, since tags depend on their neighbours. Received: one token in each "
            "row of train, as in CoNLL's columns. Write all tokens of a sentence in one row, and as many tags."
        )
    separator = several and separator_of(path, [row.label for row in every], names and known)

    def parts(row):
        if several:
            return names_of(row, separator)
        return list(filter(None, _tags(row.label))) if kind == "tagging" else []

    for row in every:
        for label in parts(row) or [row.label] * (not several):
            if not (names and isinstance(label, str | int | float) and str(label) in known):
                check_kind(row.where, label, known)
    write = parts if several else lambda row: _written(row, kind == "tagging")
    written = {split: list(map(write, part)) for split, part in rows.items()}
    if names is None:
        used = {*itertools.chain(*written["train"])}
        names = sorted(used, key=lambda name: (name.zfill(9) if name.isdigit() else name, name))
        warn(
            f"{path}: no labels.txt; the {len(names)} sorted labels of train are the names: "
            f"{short(', '.join(names), 200)}.{_doubts(names, len(written['train']), kind)}"
        )
        check_names(path, names)
    number_of = _numbers(
        path, names, {label for part in written.values() for row in part for label in row}
    )
    ids = {
        split: [_ids(row, labels, number_of, names) for row, labels in zip(rows[split], part)]
        for split, part in written.items()
    }
    if several and not asked and all(len(part) == 1 for part in ids["train"]):
        warn(
            f"{path}: every label of train is a list of one name, read as several labels a text. If a text has always "
            "one, write the name without a list."
        )
    if kind == "classification":
        ids = {split: [label for (label,) in part] for split, part in ids.items()}
    return kind, names, ids


def check_names(path, names):
    """Raises ValueError, with the line, unless there are names, all of them differ, and all show."""
    first = {name: line for line, name in reversed([*enumerate(names, 1)])}
    wrong = [line for line, x in enumerate(names, 1) if first[x] < line or UNSHOWN.search(x)]
    if wrong or len(names) < 2:
        line, received = (f":{wrong[0]}", names[wrong[0] - 1]) if wrong else ("", ", ".join(names))
        raise ValueError(
            f"{path / 'labels.txt'}{line}: there must be at least two names, all different, none empty, in characters "
            f"that show. Received: {short(received, 200)}. Write one name a line."
        )


def _doubts(names, num_rows, kind):
    """What lets one doubt that these are the names of classes, in sentences."""
    first, alike = {}, []
    for name in names:
        if first.setdefault(name.strip().casefold(), name) != name:
            alike.append(f"{first[name.strip().casefold()]!r} and {name!r}")
    doubts = f" Alike but for case or spaces: {', '.join(alike)}." if alike else ""
    if 2 * len(names) > num_rows > 20:
        doubts += f" These are many for {num_rows} rows."
    if kind == "classification" and (marks := separators(names, None)):
        doubts += f" Some hold {' '.join(marks)}: if a text may have several labels, pass `task` (`--task multilabel`)."
    return doubts


def _are_tags(rows, names):
    """Whether labels hold a tag for each token."""
    if isinstance(rows[0].text, tuple):
        return False
    tags = [_tags(row.label) for row in rows]
    every = [*itertools.chain(*tags)]
    if all(map(TYPED_TAG.fullmatch, names or every or [""])):
        return True
    if names and all(str(row.label) in names for row in rows):
        return False
    # One name of one token tells nothing. Characters without spaces count, too: the row is an error then, no class.
    telling = [
        (len(row_tags), (len(row.text.split(" ")), len(row.text)))
        for row_tags, row in zip(tags, rows)
        if len(row_tags) > 1 or " " in row.text
    ]
    fitting = sum(num_tags in lengths for num_tags, lengths in telling)
    repeat = names or isinstance(rows[0].label, list) or 2 * len({*every}) <= len(every)
    return bool(repeat and 2 * fitting > len(telling))


def _tags(label):
    """The parts of a label as text; none of a label that cannot be tags."""
    if isinstance(label, list):
        return [] if is_nested(label) else list(map(str, label))
    return [] if isinstance(label, dict | None) else str(label).split(" ")


def _written(row, tagging):
    """What stands in a row as label: [name or number], or its tags."""
    if not tagging:
        return [str(row.label)]
    tags, tokens = _tags(row.label), row.text.split(" ")
    if len(tags) != len(tokens) or "" in [*tags, *tokens]:
        raise ValueError(
            f"{row.where}: a label must hold one tag for each token, both separated by exactly one space. "
            f"Received: {len(tokens)} tokens and {len(tags)} tags, in {short(row.text)}. "
            "Correct the row (if names with a space are meant, write labels.txt)."
        )
    return tags


def _by_number(names):
    return {str(index): index for index in range(len(names))}


def _numbers(path, names, used):
    """{label as it is written: id}: all are numbers, or all are names."""
    by_name, by_number = {name: index for index, name in enumerate(names)}, _by_number(names)
    if len(used & by_number.keys()) < len(used & by_name.keys()):
        return by_name
    found = [re.findall(r"\d+", name) for name in names]
    inside = {x[0]: index for index, x in enumerate(found) if len(x) == 1}  # "1 star": 1
    is_whole = len(inside) == len(names) and not inside.keys() & by_name.keys()
    if is_whole and inside != by_number and used <= inside.keys():
        warn(
            f"{path}: each label was read as the name in labels.txt that holds its number, such as {names[0]!r}, and "
            "not as a line number from 0. If lines are meant, write the names as labels."
        )
        return inside
    numbered = {*used} <= by_number.keys() and "0" not in used  # from 1, perhaps
    if numbered or any(by_name.get(x, index) != index for x, index in by_number.items()):
        about = "each label was read as a line number from 0 of labels.txt"
        warn(f"{path}: {about}, so that 1 stands for {names[1]!r}. If not, write names as labels.")
    return by_number


def _ids(row, labels, number_of, names):
    unknown = [label for label in labels if label not in number_of]
    if unknown:
        raise ValueError(
            f"{row.where}: a label must be a line number from 0, or a line of labels.txt, the same "
            f"in all rows. Received: {short(unknown[0])}. Known: {short(', '.join(names), 200)}."
        )
    return [number_of[label] for label in labels]
