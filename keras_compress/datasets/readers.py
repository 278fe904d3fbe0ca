"""Reads data sets from folders, and unlabelled text.

A folder holds train, dev (or validation) and (optional) test, each in a form that `tables` reads, and labels.txt.
- The columns or keys: one of LABEL, and those of one of TEXTS; with two texts the task is matching. Without one of LABEL,
  two or more that hold 0 or 1 only are several labels a text.
- labels.txt: one name a line. What a label may be, and when labels are tags, says `labels`.
- For tagging the text is tokens separated by one space (or a JSON list of them), the label as many tags.
What is out of order is an error that names file and line; what was decided stands in the log.
"""

import itertools
import logging
import re
from pathlib import Path

from keras_compress.datasets.dataset import SPLITS, Dataset, Split
from keras_compress.datasets.kinds import has_no_label
from keras_compress.datasets.labels import Row, check_names, read_labels
from keras_compress.datasets.tables import ENDINGS, read_records, short, warn
from keras_compress.files import read_text as _text

log = logging.getLogger(__name__)

FILES = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
# In any case. Names of classes go before their numbers, pairs before single texts.
LABEL = (
    "label_desc label_des label_name label_text label labels gold_label quality is_duplicate score tags ner_tags pos_tags "
    "class category intent sentiment stance polarity target"
).split()
_TEXTS = (
    "text_a|text_b, text1|text2, sentence1|sentence2, sentence_a|sentence_b, #1 string|#2 string, question1|question2, "
    "premise|hypothesis, question|sentence, question|answer, query|title, query|passage, text|text_pair, "
    "text, sentence, tokens, words, content, review, utterance, query, comment_text, text_a"
)
TEXTS = [names.split("|") for names in _TEXTS.split(", ")]
KNOWN = {*LABEL, *itertools.chain(*TEXTS)}
REASONS = {
    "matching": "a row has two texts",
    "tagging": "a label holds a tag for each token",
    "multilabel": "a label is a set of names",
    "regression": "a label is a number",
    "classification": "a row has one text and one label",
}


def read_folder(path, task=None):
    """Reads a data set from a folder in one of the forms above.

    Args:
        path: the folder. task: "multilabel" or "regression" are how labels are read then; others say nothing.
    Returns:
        `Dataset`, named after the folder.
    Raises:
        ValueError: a file is missing or breaks a rule; the message names the file, the line, and what was read.
    """
    path, rows, columns, flags = Path(path), {}, None, []
    file = path / "labels.txt"
    names = _text(file).replace("\r\n", "\n").rstrip("\n").split("\n") if file.is_file() else None
    if names:
        check_names(path, names)
    for split in SPLITS:
        records = _split(path, split)
        flags = _flags(path, records) if split == "train" else flags
        for _, record in records if flags else ():
            _name(record, flags)
        if split == "test" and not any(_is_labelled(record, names) for _, record in records):
            warn(f"{path}: no labelled test file; results can be taken on dev only.")
            continue
        rows[split] = [_row(*record) for record in records]
        (texts, label), before = _columns(records[0][1]), columns
        others = [name for name in records[0][1] if name and name not in (*texts, label)]
        columns = texts, label, others
        if columns != before:
            about = f"{split}: texts from {', '.join(texts)}, labels from {label}"
            log.info("%s: %s%s", path, about, f"; not read: {', '.join(others)}" if others else "")
    every = [row for part in rows.values() for row in part]
    pairs = isinstance(every[0].text, tuple)
    for row in every:
        if isinstance(row.text, tuple) != pairs:
            raise ValueError(
                f"{row.where}: every row must have as many texts as the first of train. Received: "
                f"{'one text' if pairs else 'a pair'}. Give all rows one text, or all of them two."
            )
    kind, read_names, ids = read_labels(path, rows, names or flags or None, task)
    splits = {split: Split([row.text for row in part], ids[split]) for split, part in rows.items()}
    for earlier, later in itertools.combinations(splits, 2):
        seen, texts = set(splits[earlier].texts), splits[later].texts
        number = sum(text in seen for text in texts)
        if number:
            warn(
                f"{path}: {number} of {len(texts)} {later} texts also occur in {earlier}. "
                "They are kept; a result on them says little about new texts."
            )
    reason = "it was asked for" if kind == task else None
    task = "matching" if pairs and kind == "classification" else kind
    source = "labels.txt" if names else "the columns" if flags else "the labels of train"
    named = "" if kind == "regression" else f"; the names are from {source}"
    log.info("%s: %s, since %s%s", path, task, reason or REASONS[task], named)
    if kind == "multilabel":
        without = sum(not each for split in splits.values() for each in split.labels)
        log.info("%s: %d texts have no name", path, without)
    return Dataset(path.resolve().name, task, tuple(read_names), **splits, ordered=bool(names))


def _split(path, split):
    """The records of the first file of a split; none where there is no test file."""
    files = [path / (name + ending) for name in FILES[split] for ending in ENDINGS]
    files = list(filter(Path.is_file, files))
    for other in files[1:]:
        warn(f"{other} is not read, since {files[0].name} is there.")
    records = [(x, _lower(record)) for x, record in read_records(files[0])] if files else []
    if not records and (files or split != "test"):
        others = sorted(file.name for file in path.iterdir())
        others = [x for x in others if x.casefold().startswith(FILES[split])] or others
        received = f"only {', '.join(others[:5])}" if others and not files else "none"
        raise ValueError(
            f"{files[0] if files else path}: a data set must have a {split} file with examples. Received: "
            f"{received}. Write {split}.tsv, {split}.csv, {split}.jsonl or {split}.json."
        )
    return records


def read_text(path):
    """Reads unlabelled text: one sentence a line, an empty line between documents. It becomes the train split."""
    path = Path(path)
    if path.suffix in ENDINGS:
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


def _columns(record):
    """([names of a record's texts], name of its label); None for what it does not hold."""
    texts = next((names for names in TEXTS if record.keys() >= {*names}), None)
    return texts, next((name for name in LABEL if name in record), None)


def _flags(path, records):
    """The columns that hold 0 or 1 in all rows, for several labels a text; none where one column is the label."""
    names = [] if _columns(records[0][1])[1] else filter(None, records[0][1])
    flags = [name for name in names if all(str(x.get(name)) in ("0", "1") for _, x in records)]
    if len(flags) < 2:
        return []
    listed = short(", ".join(flags), 200)
    warn(f"{path}: no column is `label`; these of 0 and 1 are several labels a text: {listed}.")
    return flags


def _name(record, flags):
    """Lists the columns that hold 1 as the label; None, which is refused, if one holds neither 0 nor 1."""
    held = {name: str(record.pop(name, None)) for name in flags}
    names = [name for name, value in held.items() if value == "1"]
    record["label"] = names if {*held.values()} <= {"0", "1"} else None


def _label(record):
    return record.get(_columns(record)[1])


def _lower(record):
    """A record with the known names in lower case."""
    lower = {name: name.strip().casefold() for name in record}
    return {lower[x] if lower[x] in KNOWN else x.strip(): value for x, value in record.items()}


def _is_labelled(record, names):
    return not has_no_label(_label(record)) or str(_label(record)) in (names or ())


def _row(where, record):
    columns, label = _columns(record)
    if None in (columns, label):
        raise ValueError(
            f"{where}: columns must be `label` and `text`, or `label`, `text_a` and `text_b`. "
            f"Received: {short(', '.join(record), 200)}. Name the columns in the first line."
        )
    texts = tuple(record[key] for key in columns)
    if isinstance(texts[0], list) and all(isinstance(token, str) for token in texts[0]):
        texts = (" ".join(texts[0]), *texts[1:])
    for text in texts:
        if not isinstance(text, str) or not text.strip() or re.search("[\ud800-\udfff]", text):
            raise ValueError(
                f"{where}: a text must be a string of valid characters and not empty. Received: "
                f"{short(text)}. Remove the row or write its text."
            )
    return Row(where, record[label], texts if len(texts) > 1 else texts[0])
