"""Reads data sets from folders: the TSV form of this project, CLUE's JSON lines, GLUE's TSV; and plain text.

A folder holds train, dev and (optional) test, each as .tsv, .jsonl or .json, and labels.txt.
- .tsv: UTF-8, one header line that names the columns, tabs between fields, no quoting. .json/.jsonl: one object a line.
- The columns or keys: one of LABEL, and one of PAIRS (the task is matching) or one of SINGLE.
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

from keras_compress.datasets.dataset import Dataset, Split

MAX_LINE_BYTES = 1_000_000
LABEL = ("label_desc", "label_des", "label", "gold_label", "Quality", "is_duplicate")
PAIRS = (
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("#1 String", "#2 String"),
    ("question1", "question2"),
    ("question", "sentence"),
)
SINGLE = ("text", "sentence")
BIO = re.compile(r"O|[BI]-\S+")


class DataError(ValueError):
    """A data file breaks a rule; the message names the file, the line, what was found and the way out."""


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
    files = {
        split: next(
            (
                path / f"{split}{end}"
                for end in (".tsv", ".jsonl", ".json")
                if (path / f"{split}{end}").is_file()
            ),
            None,
        )
        for split in ("train", "dev", "test")
    }
    for split in ("train", "dev"):
        if files[split] is None:
            raise DataError(
                f"{path}: a data set must have a {split} file. Received: none. "
                f"Add {split}.tsv, {split}.jsonl or {split}.json."
            )
    rows = {split: _rows(file, need_label=split != "test") for split, file in files.items() if file}
    if "test" not in rows or rows["test"][0][1] is None:
        _warn(f"{path}: no labelled test file; results can be taken on dev only.")
        rows.pop("test", None)

    pairs = isinstance(rows["train"][0][2], tuple)
    for split in rows:
        if isinstance(rows[split][0][2], tuple) != pairs:
            raise DataError(
                f"{files[split]}:1: every split must have the columns of train. Received: "
                f"{'one text' if pairs else 'pairs'}. Give all of them one text, or all of them two."
            )
    names = _names(path, [label for _, label, _ in rows["train"]])
    tagging = not pairs and all(map(BIO.fullmatch, names))
    labels = {
        split: [label.split(" ") if tagging else [label] for _, label, _ in rows[split]]
        for split in rows
    }
    every = {label for split in labels.values() for row in split for label in row}
    numbers = {
        label: int(label)
        for label in every
        if re.fullmatch("[0-9]{1,9}", label) and int(label) < len(names)
    }
    ids = (
        numbers
        if len(numbers) >= len(every.intersection(names))
        else {name: i for i, name in enumerate(names)}
    )
    if ids is numbers and any(
        names[place] != label and label in names for label, place in numbers.items()
    ):
        _warn(
            f"{path}: labels and the names in labels.txt are numbers; each label was read as a line number from 0."
        )

    splits = {}
    for split in rows:
        found = []
        for (line, _, text), row in zip(rows[split], labels[split]):
            where = f"{files[split]}:{line}"
            if tagging and len(row) != len(text.split(" ")):
                raise DataError(
                    f"{where}: a label must hold one tag for each token. Received: {len(text.split(' '))} "
                    f"tokens and {len(row)} tags. Separate both by exactly one space."
                )
            for label in row:
                if label not in ids:
                    raise DataError(
                        f"{where}: a label must be a line number from 0, or a line of labels.txt, the same "
                        f"in all rows. Received: {_short(label)}. Known: {_short(', '.join(names), 200)}."
                    )
            if tagging and "" in text.split(" "):
                raise DataError(
                    f"{where}: tokens must be separated by exactly one space. Received: {_short(text)}."
                )
            found.append([ids[label] for label in row] if tagging else ids[row[0]])
        splits[split] = Split([text for _, _, text in rows[split]], found)
    for earlier, later in (("train", "dev"), ("train", "test"), ("dev", "test")):
        seen = set(splits[earlier].texts)
        number = sum(text in seen for text in splits[later].texts) if later in splits else 0
        if number:
            _warn(
                f"{path}: {number} of {len(splits[later].texts)} {later} texts also occur in {earlier}. "
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
        elif documents and documents[-1] == document:
            document += 1
    if not texts:
        raise DataError(
            f"{path}:1: a text file must hold text. Received: an empty file. Write one sentence a line."
        )
    return Dataset(path.stem, "unlabelled", (), Split(texts, documents))


def _lines(path):
    """Yields (number from 1, line); checks what every text file must keep."""
    try:
        file = open(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: could not be read ({error.strerror}).") from error
    with file:
        for number, line in enumerate(
            iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1
        ):
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
            yield number, line.rstrip("\r\n")


def _rows(path, need_label):
    """All examples of one file: a list of (line number, label or None, text or pair)."""
    read = _tsv_records if path.suffix == ".tsv" else _json_records
    rows = []
    for line, record in read(path):
        where = f"{path}:{line}"
        label = next((record[key] for key in LABEL if key in record), None)
        pair = next((pair for pair in PAIRS if pair[0] in record and pair[1] in record), None)
        single = next((key for key in SINGLE if key in record), None)
        if not (pair or single) or (
            label is None and (need_label or (rows and rows[0][1] is not None))
        ):
            raise DataError(
                f"{where}: columns must be `label` and `text`, or `label`, `text_a` and `text_b`. "
                f"Received: {_short(', '.join(record), 200)}. Name the columns in the first line."
            )
        texts = [record[key] for key in pair or (single,)]
        for text in texts:
            if (
                not isinstance(text, str)
                or not text.strip()
                or text.encode("utf-8", "ignore").decode() != text
            ):
                raise DataError(
                    f"{where}: a text must be a string of valid characters and not empty. Received: "
                    f"{_short(text)}. Remove the row or write its text."
                )
        label = None if label is None else str(label)
        rows.append((line, label, tuple(texts) if pair else texts[0]))
    if not rows:
        raise DataError(
            f"{path}:1: a data file must hold examples. Received: an empty file. "
            "Write a header line and rows."
        )
    if len({(label is None, type(text)) for _, label, text in rows}) > 1:
        raise DataError(
            f"{path}: all rows must have the same keys. Give every row a label and the same text keys."
        )
    return rows


def _tsv_records(path):
    lines = ((number, line) for number, line in _lines(path) if line)
    _, header = next(lines, (1, ""))
    names = header.split("\t")
    if len(set(names)) < len(names):
        raise DataError(
            f"{path}:1: column names must differ. Received: {_short(header)}. Rename or remove a column."
        )
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(names):
            raise DataError(
                f"{path}:{number}: a row must have {len(names)} fields, as the first line. Received: "
                f"{len(fields)}, in {_short(line)}. Separate fields by tabs, and have none inside a text."
            )
        yield number, dict(zip(names, fields))


def _json_records(path):
    for number, line in _lines(path):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                raise DataError(
                    f"{path}:{number}: a line must be one JSON object. Received: {_short(line)}. "
                    "Write one object a line, without a list around them."
                )
            yield number, record


def _names(path, train_labels):
    """The label names, from labels.txt or else from the labels of train."""
    file = path / "labels.txt"
    if file.is_file():
        names = [line for _, line in _lines(file)]
        while names and not names[-1]:
            names.pop()
    else:
        tags = {tag for label in train_labels for tag in label.split(" ")}
        found = tags if all(map(BIO.fullmatch, tags)) else set(train_labels)
        names = sorted(found, key=lambda name: (name.zfill(9) if name.isdigit() else name, name))
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


def _short(value, length=60):
    text = repr(value)
    return text if len(text) <= length else text[:length] + "..."


def _warn(message):
    warnings.warn(message, stacklevel=3)
