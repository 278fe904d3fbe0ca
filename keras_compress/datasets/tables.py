"""Files as rows of named values: tab-separated, comma-separated, JSON lines; UTF-8.

- .tsv: one header line that names the columns, tabs between fields. Quotes are text, as in GLUE's files, unless the
  file shows that a CSV writer made them: all that hold quotes stand in quotes, with their quotes doubled.
- .csv: the same with commas, semicolons or tabs, as the header has them, and quotes as the `csv` module reads them.
- .json, .jsonl: one object a line.
Empty lines, a byte order mark and Windows line ends are accepted; everything else out of order is an error that names
file and line.
"""

import csv
import io
import json
import re
import warnings

from keras_compress.files import read_text

ENDINGS = (".tsv", ".csv", ".jsonl", ".json")
# A field in quotes, of one line or several; one with a tab inside would rather be two fields with a stray quote each.
QUOTED = re.compile(r'(?:^|(?<=\t))"((?:[^"\t]++|"")*+)"(?=\t|\r?$)', re.M)
BRACKETS = re.compile(r"\[.*\]|\{.*\}", re.S)  # a list or an object as text


def read_records(path):
    """Yields (file:line, {column: value}) for every example of a file."""
    text = read_text(path)
    if path.suffix in (".jsonl", ".json"):
        for number, line in _lines(text):
            yield f"{path}:{number}", _json(f"{path}:{number}", line)
        return
    rows = _rows(path, text)
    number, names = next(rows, (1, [""]))
    if len(set(names)) < len(names):
        raise ValueError(
            f"{path}:{number}: column names must differ. Received: {short(', '.join(names))}. "
            "Rename or remove a column; if this is an example, name the columns in a line before it."
        )
    for number, fields in rows:
        if len(fields) != len(names):
            raise ValueError(
                f"{path}:{number}: a row must have {len(names)} fields, as the first line. Received: "
                f"{len(fields)}, in {short(' | '.join(fields))}. Have no separator inside a text, or, in a "
                ".csv file, that text in quotes."
            )
        yield f"{path}:{number}", dict(zip(names, fields))


def _lines(text):
    """(number, line) of all lines that hold something."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip(" \r"):
            yield number, line.rstrip("\r")


def _json(where, line):
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ValueError(
            f"{where}: a line must be one JSON object. Received: {short(line)}. "
            "Write one object a line, without a list around them."
        )
    return record


def _rows(path, text):
    """Yields (number of the first line, fields) of each row of a table, the header first."""
    header = next(_lines(text), (1, ""))[1]
    if re.fullmatch("sep=.", header):  # Excel's, for itself
        text = text.replace(header, "", 1)
        header = next(_lines(text), (1, ""))[1]
    separator = max("\t,;", key=header.count)
    if header and separator not in header:
        raise ValueError(
            f"{path}:1: fields must be separated by tabs, in a .csv file also by commas or semicolons. Received: one "
            f"column, {short(header)}. Write two or more, with their names in the first line."
        )
    if path.suffix == ".tsv":
        if separator != "\t":
            raise ValueError(
                f"{path}:1: fields must be separated by tabs. Received: one column, {short(header)}. "
                "Name the file .csv."
            )
        if not _is_quoted(path, text, header):
            yield from ((number, line.split("\t")) for number, line in _lines(text))
            return
    reader, before = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), 0
    try:
        for fields in reader:
            if "".join(fields).strip():
                yield before + 1, fields
            before = reader.line_num
    except csv.Error as error:
        raise ValueError(
            f"{path}:{before + 1}: quotes must stand around a whole field, and those inside be doubled. "
            f"Received: a row that csv does not read ({error}). Correct it, or write the file with a CSV writer."
        ) from None


def _is_quoted(path, text, header):
    """Whether a CSV writer made a tab-separated file: what holds quotes stands in quotes, with its quotes doubled."""
    if '"' not in text:
        return False
    bodies, stray = QUOTED.findall(text), '"' in QUOTED.sub("", text)
    sure = [body for body in bodies if re.search(r'""|\n', body)]
    all_rows = not QUOTED.sub("", text[text.find(header) + len(header) :]).strip("\t\r\n")
    if not sure and (stray or not (header.startswith('"') or all_rows)):
        return False
    if stray:
        warn(
            f"{path}: {len(sure)} field(s) stand in quotes as CSV writers put them, but other quotes stand "
            "alone: all were kept as text. If the file is a CSV writer's, correct those others."
        )
    else:
        warn(f"{path}: {len(bodies)} field(s) stand in quotes as CSV writers put them: taken off.")
    return not stray


def short(value, length=60):
    text = repr(value)
    return text if len(text) <= length else text[:length] + "..."


def warn(message):
    warnings.warn(message, stacklevel=3)
