"""Separators, quotes and encodings, as spreadsheets, pandas and editors write them."""

import csv
import io
import warnings

import pytest

from keras_compress.datasets.readers import read_folder

ROWS = [["neg", 'He said "bad film", twice'], ["pos", 'a "good" film'], ["pos", "good; cat"]]
HEADER = ["label", "text"]


def written(rows=ROWS, **dialect):
    stream = io.StringIO()
    csv.writer(stream, **dialect).writerows([HEADER, *rows])
    return stream.getvalue()


def read(path, content, ending="tsv", encoding="utf-8"):
    """Reads a folder whose train file holds this content; warnings are errors."""
    content = content if isinstance(content, bytes) else content.encode(encoding)
    (path / f"train.{ending}").write_bytes(content)
    for split in ("dev", "test"):
        (path / f"{split}.tsv").write_text(f"label\ttext\nneg\t{split}\n")
    (path / "labels.txt").write_text("neg\npos\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_folder(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_csv(tmp_path, delimiter, quoting, ends):
    rows = [*ROWS, ["neg", "two\nlines, and a\ttab"]]
    content = written(rows, delimiter=delimiter, quoting=quoting, lineterminator=ends)
    data = read(tmp_path, content, "csv", encoding="utf-8-sig")
    assert data.train.texts == [text for _, text in rows] and data.train.labels == [0, 1, 1, 0]


def test_line_ends_of_old_macs(tmp_path):
    assert read(tmp_path, "label\ttext\rneg\tbad\rpos\tgood\r").train.texts == ["bad", "good"]


def test_csv_with_an_index_as_pandas_writes_it(tmp_path):
    assert read(tmp_path, ",label,text\n0,neg,bad\n1,pos,good\n", "csv").train.texts == [
        "bad",
        "good",
    ]


def test_the_line_that_excel_writes_for_itself(tmp_path):
    content = "sep=;\n" + written(delimiter=";")
    assert read(tmp_path, content, "csv").train.texts == [text for _, text in ROWS]
    with pytest.raises(ValueError, match=r"train\.csv:4: a row must have 2 fields"):
        read(tmp_path, "sep=;\nlabel;text\npos;good\nneg;bad;film\n", "csv")


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_quoted_tsv_is_unquoted_with_a_warning(tmp_path, quoting):
    rows = [*ROWS, ["neg", "two\nlines"]]
    content = written(rows, delimiter="\t", quoting=quoting)
    number = 3 if quoting == csv.QUOTE_MINIMAL else 10
    with pytest.raises(UserWarning, match=rf"train\.tsv: {number} field\(s\) .* taken off"):
        read(tmp_path, content)
    with pytest.warns(UserWarning, match="taken off"):
        assert read_folder(tmp_path).train.texts == [text for _, text in rows]


@pytest.mark.parametrize(
    "texts",
    [
        ['a "quote'],
        [
            '"quoted whole"'
        ],  # a CSV writer that doubles quotes would not write this beside others without quotes
        ['"begins', 'ends"'],
        ['"whole"', 'a "stray" one'],
        ['""'],
    ],
)
def test_quotes_of_a_plain_tsv_are_text(tmp_path, texts):
    content = "\n".join(["label\ttext", *(f"neg\t{text}" for text in texts)])
    assert read(tmp_path, content).train.texts == texts


def test_quotes_around_every_field_below_a_header_are_taken_off(tmp_path):
    content = 'label\ttext\n"neg"\t"bad"\n"pos"\t"good"\n'
    with pytest.raises(UserWarning, match=r"train\.tsv: 4 field\(s\) .* taken off"):
        read(tmp_path, content)


def test_a_tsv_with_both_kinds_of_quotes_is_kept_and_said_so(tmp_path):
    content = 'label\ttext\nneg\t"a ""b"" c"\nneg\ta "b" c\n'
    with pytest.raises(UserWarning, match=r"1 field\(s\) .* all were kept as text"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    "ending, content, message",
    [
        (
            "tsv",
            written(),
            r"train\.tsv:1: .*tabs. Received: one column, 'label,text'. Name the file",
        ),
        ("tsv", "label|text\nneg|bad\n", "tsv:1: .*tabs.*one column, 'label|text'. Write two"),
        ("csv", "label|text\nneg|bad\n", "csv:1: .*commas or semicolons. Received: one column"),
        ("tsv", written(delimiter=";"), "one column, 'label;text'"),
        (
            "csv",
            "label,text\nneg,bad\nneg,bad, very bad\n",
            r"train\.csv:3: .*2 fields.* Received: 3",
        ),
        (
            "csv",
            'label,text\nneg,bad\nneg,"a\nb\n',
            r"train\.csv:3: quotes must .* \(unexpected end",
        ),
        ("csv", 'label,text\nneg,"a"b\n', r"train\.csv:2: quotes must"),
        ("csv", "neg,bad\n0,good\n", r"train\.csv:2: columns must be .*'neg, bad'"),
        ("csv", "label,text\n", r"train\.csv: a data set must have a train file with examples"),
    ],
)
def test_separators_and_quotes_that_are_refused(tmp_path, ending, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content, ending)


CHINESE = "label\ttext\nneg\t这部电影很差，我不喜欢\n"


@pytest.mark.parametrize(
    "content, message",
    [
        (
            CHINESE.encode("gbk"),
            r"tsv:2: text must be UTF-8. Received: .*; this is GBK, or GB 18030",
        ),
        (CHINESE.encode("gb18030"), "this is GBK"),
        ("label\ttext\nneg\t這部電影很差我不喜歡\n".encode("big5"), r"tsv:2: .*\)\. Save"),
        (CHINESE.encode("utf-16"), r"tsv:1: .* Received: UTF-16\. Save"),
        (b"\xfe\xff" + CHINESE.encode("utf-16-be"), "Received: UTF-16"),
        ("label\ttext\n".encode("utf-16-le"), r"tsv:1: .*a NUL byte; UTF-16 looks like this"),
        ("label\ttext\nneg\ta\0b\n", r"tsv:2: .*a NUL byte"),
        (
            "label\ttext\nneg\tun caf\xe9 a\xe7a\n".encode("latin-1"),
            r"tsv:2: .*b'\\xe9' \([^)]*\)\. Save",
        ),
    ],
)
def test_encodings_are_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize("file", ["dev.tsv", "test.tsv", "labels.txt"])
def test_a_byte_order_mark_in_any_file(tmp_path, file):
    expected = read(tmp_path, written(delimiter="\t", rows=ROWS[2:]))
    (tmp_path / file).write_bytes(b"\xef\xbb\xbf" + (tmp_path / file).read_bytes())
    assert read_folder(tmp_path).summary() == expected.summary()


@pytest.mark.parametrize(
    "name", ["train.txt", "train.TSV", "Train.tsv", "train-00000-of-00001.parquet", "all.csv"]
)
def test_a_file_that_is_there_and_not_read_is_named(tmp_path, name):
    (tmp_path / name).write_text("label\ttext\n")
    with pytest.raises(
        ValueError, match=rf"must have a train file.* Received: only {name}\. Write"
    ):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", ["validation", "valid", "val"])
def test_other_names_of_dev(tmp_path, name):
    read(tmp_path, written(delimiter="\t", rows=ROWS[2:]))
    (tmp_path / "dev.tsv").rename(tmp_path / f"{name}.tsv")
    assert read_folder(tmp_path).dev.texts == ["dev"]


def test_a_second_file_of_a_split_is_named(tmp_path):
    read(tmp_path, written(delimiter="\t", rows=ROWS[2:]))
    (tmp_path / "validation.csv").write_text("label,text\nneg,other\n")
    with pytest.warns(UserWarning, match=r"validation\.csv is not read, since dev\.tsv is there"):
        assert read_folder(tmp_path).dev.texts == ["dev"]
