"""Reads data sets from folders: the TSV form of this project, CLUE's JSON lines, GLUE's TSV; and plain text.

A folder holds train, dev and (optional) test, each as .tsv, .jsonl or .json, and labels.txt.
- .tsv: UTF-8, one header line that names the columns, tabs between fields, no quoting. .json/.jsonl: one object a line.
- The columns or keys: one of LABEL, and those of one of TEXTS; with two texts the task is matching.
- labels.txt: one name a line. Without it the names are the sorted labels of train, and a warning says so.
- A label is a line number (from 0) of labels.txt, or exactly one of its lines: as most labels fit, numbers first.
- If the names are BIO tags (O, B-..., I-...), the task is tagging: the text is tokens separated by one space, the label
  as many tags. Otherwise it is classification.
Empty lines, a byte order mark and Windows line ends are accepted; everything else out of order is an error that names
file and line.
"""

import itertools
import json
import re
import warnings
from pathlib import Path
from typing import NamedTuple

from keras_compress.datasets.dataset import SPLITS, Dataset, Split

ENDINGS = (".tsv", ".jsonl", ".json")
LABEL = ("label_desc", "label_des", "label", "gold_label", "Quality", "is_duplicate")
TEXTS = (
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("#1 String", "#2 String"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text",),
    ("sentence",),
)
BIO = re.compile(r"O|[BI]-\S+")


class Row(NamedTuple):
    where: str  # file:line
    label: str  # as it is written
    text: str | tuple  # a tuple for a pair


def read_folder(path):
    """Reads a data set from a folder in one of the forms above.

    Args:
        path: the folder.
    Returns:
        `Dataset`, named after the folder.
    Raises:
        ValueError: a file is missing or breaks a rule; the message names the file, the line, and what was read.
    """
    path, rows = Path(path), {}
    for split in SPLITS:
        files = [path / f"{split}{ending}" for ending in ENDINGS]
        file = next(filter(Path.is_file, files), None)
        records = list(_records(file)) if file else []
        if split == "test" and all(_label(record) is None for _, record in records):
            _warn(f"{path}: no labelled test file; results can be taken on dev only.")
        elif records:
            rows[split] = [_row(*record) for record in records]
        else:
            raise ValueError(
                f"{file or path}: a data set must have a {split} file with examples. Received: none. "
                f"Write {split}.tsv, {split}.jsonl or {split}.json."
            )
    every = list(itertools.chain.from_iterable(rows.values()))
    pairs = isinstance(every[0].text, tuple)
    for row in every:
        if isinstance(row.text, tuple) != pairs:
            raise ValueError(
                f"{row.where}: every row must have as many texts as the first of train. Received: "
                f"{'one text' if pairs else 'a pair'}. Give all rows one text, or all of them two."
            )
    names = _names(path, [row.label for row in rows["train"]])
    tagging = not pairs and all(map(BIO.fullmatch, names))
    ids = _label_ids(path, names, {tag for row in every for tag in _tags(row.label, tagging)})
    splits = {
        split: Split(
            [row.text for row in part], [_read_label(row, ids, names, tagging) for row in part]
        )
        for split, part in rows.items()
    }
    for earlier, later in itertools.combinations(splits, 2):
        seen, texts = set(splits[earlier].texts), splits[later].texts
        number = sum(text in seen for text in texts)
        if number:
            _warn(
                f"{path}: {number} of {len(texts)} {later} texts also occur in {earlier}. "
                "They are kept; a result on them says little about new texts."
            )
    task = "matching" if pairs else "tagging" if tagging else "classification"
    ordered = (path / "labels.txt").is_file()
    return Dataset(path.resolve().name, task, tuple(names), **splits, ordered=ordered)


def read_text(path):
    """Reads unlabelled text: one sentence a line, an empty line between documents. It becomes the train split."""
    path = Path(path)
    if path.suffix in (*ENDINGS, ".csv"):
        raise ValueError(
            f"{path}: unlabelled text must be a plain text file. Received: one that looks like a table. "
            "For labelled data give the folder that holds train, dev, test and labels.txt."
        )
    train = Split([], [])
    for document, block in enumerate(re.split(r"\n\s*\n", _text(path).strip())):
        for line in filter(None, block.split("\n")):
            train.texts.append(line.strip())
            train.labels.append(document)
    if not train.texts:
        raise ValueError(
            f"{path}: a text file must hold text. Received: an empty file. Write one sentence a line."
        )
    return Dataset(path.stem, "unlabelled", (), train)


def _text(path):
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{line}: text must be UTF-8. Received: {error.object[error.start : error.end]!r} "
            f"({error.reason}). Save the file as UTF-8."
        ) from None


def _records(path):
    """Yields (file:line, {column: value}) for every example of a file."""
    lines = enumerate(_text(path).split("\n"), start=1)
    lines = [(f"{path}:{number}", line.rstrip("\r")) for number, line in lines if line.strip(" \r")]
    if path.suffix == ".tsv":
        header = lines.pop(0)[1] if lines else ""
        names = header.split("\t")
        if len(set(names)) < len(names):
            raise ValueError(
                f"{path}:1: column names must differ. Received: {_short(header)}. Rename or remove a column."
            )
    for where, line in lines:
        if path.suffix == ".tsv":
            fields = line.split("\t")
            if len(fields) != len(names):
                raise ValueError(
                    f"{where}: a row must have {len(names)} fields, as the first line. Received: "
                    f"{len(fields)}, in {_short(line)}. Separate fields by tabs, and have none inside a text."
                )
            yield where, dict(zip(names, fields))
        else:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                raise ValueError(
                    f"{where}: a line must be one JSON object. Received: {_short(line)}. "
                    "Write one object a line, without a list around them."
                )
            yield where, record


def _label(record):
    return next((record[key] for key in LABEL if key in record), None)


def _row(where, record):
    label = _label(record)
    columns = next((keys for keys in TEXTS if record.keys() >= {*keys}), None)
    if columns is None or label is None:
        raise ValueError(
            f"{where}: columns must be `label` and `text`, or `label`, `text_a` and `text_b`. "
            f"Received: {_short(', '.join(record), 200)}. Name the columns in the first line."
        )
    texts = tuple(record[key] for key in columns)
    for text in texts:
        if not isinstance(text, str) or not text.strip() or re.search("[\ud800-\udfff]", text):
            raise ValueError(
                f"{where}: a text must be a string of valid characters and not empty. Received: "
                f"{_short(text)}. Remove the row or write its text."
            )
    return Row(where, str(label), texts if len(texts) > 1 else texts[0])


def _names(path, train_labels):
    """The label names, from labels.txt or else from the labels of train."""
    file = path / "labels.txt"
    if file.is_file():
        names = _text(file).replace("\r\n", "\n").rstrip("\n").split("\n")
    else:
        tags = {tag for label in train_labels for tag in label.split(" ")}
        used = tags if all(map(BIO.fullmatch, tags)) else set(train_labels)
        names = sorted(used, key=lambda name: (name.zfill(9) if name.isdigit() else name, name))
        _warn(
            f"{path}: no labels.txt; the {len(names)} sorted labels of train are the names: "
            f"{_short(', '.join(names), 200)}."
        )
    if len(set(names)) < max(2, len(names)) or "" in names:
        raise ValueError(
            f"{file}: there must be at least two names, all different and none empty. Received: "
            f"{_short(', '.join(names), 200)}. Write one name a line."
        )
    return names


def _tags(label, tagging):
    return label.split(" ") if tagging else [label]


def _label_ids(path, names, used):
    """{label as it is written: id}: all are numbers, or all are names."""
    by_name = {name: index for index, name in enumerate(names)}
    by_number = {str(index): index for index in range(len(names))}
    if len(used & by_number.keys()) < len(used & by_name.keys()):
        return by_name
    if any(by_name.get(label, index) != index for label, index in by_number.items()):
        _warn(
            f"{path}: labels and the names in labels.txt are numbers; each label was read as a line number from 0."
        )
    return by_number


def _read_label(row, ids, names, tagging):
    """The id of a row's label; for tagging, a list of ids, one for each token."""
    tags = _tags(row.label, tagging)
    unknown = [tag for tag in tags if tag not in ids]
    if unknown:
        raise ValueError(
            f"{row.where}: a label must be a line number from 0, or a line of labels.txt, the same "
            f"in all rows. Received: {_short(unknown[0])}. Known: {_short(', '.join(names), 200)}."
        )
    if not tagging:
        return ids[row.label]
    tokens = row.text.split(" ")
    if len(tags) != len(tokens) or "" in tokens:
        raise ValueError(
            f"{row.where}: a label must hold one tag for each token, both separated by exactly one space. "
            f"Received: {len(tokens)} tokens and {len(tags)} tags, in {_short(row.text)}."
        )
    return [ids[tag] for tag in tags]


def _short(value, length=60):
    text = repr(value)
    return text if len(text) <= length else text[:length] + "..."


def _warn(message):
    warnings.warn(message, stacklevel=3)
