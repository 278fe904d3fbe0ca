"""Reads data sets from folders: the TSV form of this project, CLUE's JSON lines, GLUE's TSV; and plain text.

A folder holds train, dev and (optional) test, each as .tsv, .jsonl or .json, and labels.txt.
- .tsv: UTF-8, one header line that names the columns, tabs between fields, no quoting. .json/.jsonl: one object a line.
- The columns or keys: one of LABEL, and those of one of TEXTS; with two texts the task is matching.
- labels.txt: one name a line. Without it the names are the sorted labels of train, and a warning says so.
- A label is a line number (from 0) of labels.txt or exactly one of its lines: a number, if every label is one in range.
- If the names are BIO tags (O, B-..., I-...), the task is tagging: the text is tokens separated by one space, the label
  as many tags. Otherwise it is classification.
Empty lines, a byte order mark and Windows line ends are accepted; everything else out of order is an error that names
file and line.
"""

import json
import re
import warnings
from pathlib import Path
from typing import NamedTuple

from keras_compress.datasets.dataset import SPLITS, Dataset, Split

MAX_LINE_BYTES = 1_000_000
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


class DataError(ValueError):
    """A data file breaks a rule; the message names the file, the line, what was read and the way out."""


class Row(NamedTuple):
    where: str  # file:line
    label: str  # as it is written, or None
    text: str | tuple  # a tuple for a pair


def read_folder(path):
    """Reads a data set from a folder in one of the forms above.

    Args:
        path: the folder.
    Returns:
        `Dataset`, named after the folder.
    Raises:
        DataError: a file is missing or breaks a rule.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(
            f"A data set must be a folder that holds train.tsv, dev.tsv, test.tsv and labels.txt. "
            f"Received: `{path}`, which is not a folder."
        )
    files = {  # of two files for one split the later ending counts
        split: path / f"{split}{ending}"
        for split in SPLITS
        for ending in (".json", ".jsonl", ".tsv")
        if (path / f"{split}{ending}").is_file()
    }
    for split in ("train", "dev"):
        if split not in files:
            raise DataError(
                f"{path}: a data set must have a {split} file. Received: none. "
                f"Add {split}.tsv, {split}.jsonl or {split}.json."
            )
    rows = {split: _rows(file, need_label=split != "test") for split, file in files.items()}
    if "test" not in rows or rows["test"][0].label is None:
        _warn(f"{path}: no labelled test file; results can be taken on dev only.")
        rows.pop("test", None)
    pairs = isinstance(rows["train"][0].text, tuple)
    for split in rows:
        if isinstance(rows[split][0].text, tuple) != pairs:
            raise DataError(
                f"{files[split]}:1: every split must have the columns of train. Received: "
                f"{'one text' if pairs else 'pairs'}. Give all of them one text, or all of them two."
            )
    names = _names(path, [row.label for row in rows["train"]])
    tagging = not pairs and all(map(BIO.fullmatch, names))
    ids = _label_ids(path, names, {tag for part in rows.values() for tag in _tags(part, tagging)})
    splits = {}
    for split, part in rows.items():
        labels = [_read_label(row, ids, names, tagging) for row in part]
        splits[split] = Split([row.text for row in part], labels)
    for earlier, later in (("train", "dev"), ("train", "test"), ("dev", "test")):
        seen, texts = set(splits[earlier].texts), splits[later].texts if later in splits else []
        number = sum(text in seen for text in texts)
        if number:
            _warn(
                f"{path}: {number} of {len(texts)} {later} texts also occur in {earlier}. "
                "They are kept; a result on them says little about new texts."
            )
    task = "matching" if pairs else "tagging" if tagging else "classification"
    return Dataset(path.resolve().name, task, tuple(names), **splits)


def read_text(path):
    """Reads unlabelled text: one sentence a line, an empty line between documents. It becomes the train split."""
    path, texts, documents, document = Path(path), [], [], 0
    if path.suffix in (".tsv", ".csv", ".json", ".jsonl"):
        raise DataError(
            f"{path}: unlabelled text must be a plain text file. Received: one that looks like a table. "
            "For labelled data give the folder that holds train, dev, test and labels.txt."
        )
    for _, line in _lines(path):
        if line.strip():
            texts.append(line.strip())
            documents.append(document)
        elif documents:
            document = documents[-1] + 1
    if not texts:
        raise DataError(
            f"{path}:1: a text file must hold text. Received: an empty file. Write one sentence a line."
        )
    return Dataset(path.stem, "unlabelled", (), Split(texts, documents))


def _lines(path):
    """Yields (file:line, line) with lines counted from 1; checks what every text file must keep."""
    try:
        file = open(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: could not be read ({error.strerror}).") from error
    with file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise DataError(
                    f"{where}: a line must not be longer than {MAX_LINE_BYTES:,} bytes. Received: more, "
                    f"beginning {_short(line.decode('utf-8', 'replace'))}. Break it up or remove it."
                )
            if b"\0" in line:
                raise DataError(
                    f"{where}: a line must not hold NUL bytes. Received: one at byte {line.index(0)}. "
                    "Save the file as UTF-8 text (UTF-16 looks like this), or remove the byte."
                )
            try:
                line = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{where}: text must be UTF-8. Received: {line[error.start : error.end]!r} at byte "
                    f"{error.start} ({error.reason}). Save the file as UTF-8."
                ) from None
            yield where, line.rstrip("\r\n")


def _rows(path, need_label):
    """All examples of one file: a list of `Row`."""
    rows = []
    for where, record in (_tsv_records if path.suffix == ".tsv" else _json_records)(path):
        label = next((record[key] for key in LABEL if key in record), None)
        columns = next((keys for keys in TEXTS if record.keys() >= {*keys}), None)
        need_label |= bool(rows) and rows[0].label is not None
        if columns is None or (label is None and need_label):
            raise DataError(
                f"{where}: columns must be `label` and `text`, or `label`, `text_a` and `text_b`. "
                f"Received: {_short(', '.join(record), 200)}. Name the columns in the first line."
            )
        texts = tuple(record[key] for key in columns)
        for text in texts:
            if not isinstance(text, str) or not text.strip() or re.search("[\ud800-\udfff]", text):
                raise DataError(
                    f"{where}: a text must be a string of valid characters and not empty. Received: "
                    f"{_short(text)}. Remove the row or write its text."
                )
        label = None if label is None else str(label)
        rows.append(Row(where, label, texts if len(texts) > 1 else texts[0]))
    if not rows:
        raise DataError(
            f"{path}:1: a data file must hold examples. Received: an empty file. "
            "Write a header line and rows."
        )
    if len({(row.label is None, type(row.text)) for row in rows}) > 1:
        raise DataError(
            f"{path}: all rows must have the same keys. Give every row a label and the same text keys."
        )
    return rows


def _tsv_records(path):
    lines = ((where, line) for where, line in _lines(path) if line)
    _, header = next(lines, ("", ""))
    names = header.split("\t")
    if len(set(names)) < len(names):
        raise DataError(
            f"{path}:1: column names must differ. Received: {_short(header)}. Rename or remove a column."
        )
    for where, line in lines:
        fields = line.split("\t")
        if len(fields) != len(names):
            raise DataError(
                f"{where}: a row must have {len(names)} fields, as the first line. Received: "
                f"{len(fields)}, in {_short(line)}. Separate fields by tabs, and have none inside a text."
            )
        yield where, dict(zip(names, fields))


def _json_records(path):
    for where, line in _lines(path):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                raise DataError(
                    f"{where}: a line must be one JSON object. Received: {_short(line)}. "
                    "Write one object a line, without a list around them."
                )
            yield where, record


def _names(path, train_labels):
    """The label names, from labels.txt or else from the labels of train."""
    file = path / "labels.txt"
    if file.is_file():
        names = [line for _, line in _lines(file)]
        while names and not names[-1]:
            names.pop()
    else:
        tags = {tag for label in train_labels for tag in label.split(" ")}
        used = tags if all(map(BIO.fullmatch, tags)) else set(train_labels)
        names = sorted(used, key=lambda name: (name.zfill(9) if name.isdigit() else name, name))
        _warn(
            f"{path}: no labels.txt; the {len(names)} sorted labels of train are the names: "
            f"{_short(', '.join(names), 200)}."
        )
    if len(set(names)) < max(2, len(names)) or "" in names:
        raise DataError(
            f"{file}: there must be at least two names, all different and none empty. Received: "
            f"{_short(', '.join(names), 200)}. Write one name a line."
        )
    return names


def _tags(rows, tagging):
    return [tag for row in rows for tag in (row.label.split(" ") if tagging else [row.label])]


def _label_ids(path, names, used):
    """{label as it is written: id}: all are numbers, or all are names."""
    by_name = {name: index for index, name in enumerate(names)}
    by_number = {
        label: int(label)
        for label in used
        if re.fullmatch("[0-9]{1,9}", label) and int(label) < len(names)
    }
    if len(by_number) < len(used & by_name.keys()):
        return by_name
    if any(by_name.get(label, index) != index for label, index in by_number.items()):
        _warn(
            f"{path}: labels and the names in labels.txt are numbers; each label was read as a line number from 0."
        )
    return by_number


def _read_label(row, ids, names, tagging):
    """The id of a row's label; for tagging, a list of ids, one for each token."""
    tags, tokens = _tags([row], tagging), row.text.split(" ") if tagging else [row.text]
    if len(tags) != len(tokens):
        raise DataError(
            f"{row.where}: a label must hold one tag for each token. Received: {len(tokens)} "
            f"tokens and {len(tags)} tags. Separate both by exactly one space."
        )
    for tag in tags:
        if tag not in ids:
            raise DataError(
                f"{row.where}: a label must be a line number from 0, or a line of labels.txt, the same "
                f"in all rows. Received: {_short(tag)}. Known: {_short(', '.join(names), 200)}."
            )
    if "" in tokens:
        raise DataError(
            f"{row.where}: tokens must be separated by exactly one space. Received: {_short(row.text)}."
        )
    return [ids[tag] for tag in tags] if tagging else ids[row.label]


def _short(value, length=60):
    text = repr(value)
    return text if len(text) <= length else text[:length] + "..."


def _warn(message):
    warnings.warn(message, stacklevel=3)
