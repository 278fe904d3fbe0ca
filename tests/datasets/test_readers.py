"""Every form that is read, and every error with file and line."""

import json
import re
import warnings

import pytest

from keras_compress.datasets.dataset import Split
from keras_compress.datasets.readers import read_folder, read_text

GOOD = {
    "train.tsv": "label\ttext\n0\tlights on\n1\tlights off\n",
    "dev.tsv": "label\ttext\n1\tdark please\n",
    "test.tsv": "label\ttext\n0\tbright please\n",
    "labels.txt": "on\noff\n",
}


def folder(path, **changes):
    for name, content in {
        **GOOD,
        **{key.replace("_", "."): value for key, value in changes.items()},
    }.items():
        if content is not None:
            (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, **changes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_folder(folder(path, **changes))


def test_the_project_form(tmp_path):
    data = read(tmp_path)
    assert (data.name, data.task, data.labels) == (tmp_path.name, "classification", ("on", "off"))
    assert data.train == Split(["lights on", "lights off"], [0, 1]) and data.test == Split(
        ["bright please"], [0]
    )


def test_names_as_labels_bom_windows_line_ends_and_empty_lines(tmp_path):
    data = read(
        tmp_path,
        train_tsv=b'\xef\xbb\xbflabel\ttext\r\non\tlights on\r\n\r\noff\t"quoted, \r\n',
        dev_tsv="label\ttext\noff\tx\n",
        test_tsv="label\ttext\non\ty\n",
        labels_txt="on\r\noff\r\n\r\n",
    )
    assert data.train == Split(["lights on", '"quoted, '], [0, 1])


def test_one_name_among_the_labels_means_that_all_are_names(tmp_path):
    data = read(
        tmp_path,
        labels_txt="2\n1\nmany\n",
        train_tsv="label\ttext\n2\ta\nmany\tb\n",
        dev_tsv="label\ttext\n1\tc\n",
        test_tsv="label\ttext\n2\td\n",
    )
    assert data.train.labels == [0, 2] and data.dev.labels == [1] and data.test.labels == [0]


def test_numbers_that_could_also_be_names_are_line_numbers_and_said_so(tmp_path):
    with pytest.warns(UserWarning, match="each label was read as a line number from 0"):
        data = read_folder(folder(tmp_path, labels_txt="1\n0\n"))
    assert data.train.labels == [0, 1]


def test_numbers_that_may_count_from_1_are_said(tmp_path):
    """AG News and Yelp count classes from 1; where the highest does not occur, all would be one off."""
    rows = {f"{split}_tsv": "label\ttext\n1\ta\n2\tb\n" for split in ("train", "dev", "test")}
    with pytest.warns(UserWarning, match="number from 0 of labels.txt, so that 1 stands for 'so'"):
        data = read_folder(folder(tmp_path, **rows, labels_txt="bad\nso\ngood\n"))
    assert data.train.labels == [1, 2]


STARS = "1 star\n2 stars\n3 stars\n"


@pytest.mark.parametrize("rows, expected", [("12", [0, 1]), ("13", [0, 2]), ("01", [0, 1])])
def test_numbers_that_the_names_hold_are_no_line_numbers(tmp_path, recwarn, rows, expected):
    """By hand: 1 is "1 star", the first line, unless a 0 tells that lines are counted."""
    table = "label\ttext\n{}\tlights on\n{}\tlights off\n".format(*rows)
    changes = {"train_tsv": table, "dev_tsv": table.replace("lights", "dim"), "test_tsv": None}
    data = read_folder(folder(tmp_path, **changes, labels_txt=STARS))
    assert data.train.labels == data.dev.labels == expected
    told = any("such as '1 star'" in str(each.message) for each in recwarn)
    assert told == ("0" not in rows)


@pytest.mark.parametrize("names", ["covid-19\nother\n", "a 1\nb 1\n", "a 2 of 3\nb\n"])
def test_other_numbers_in_names_change_nothing(tmp_path, names):
    assert read(tmp_path, labels_txt=names).train.labels == [0, 1]


JIGSAW = "id,Comment_text,toxic,Insult\na1,you there,1,1\na2,hello,0,0\na3,oh no,0,1\n"


@pytest.mark.filterwarnings("ignore:.*(no labels.txt|also occur)")
def test_columns_of_0_and_1_are_several_labels(tmp_path, caplog):
    (tmp_path / "train.csv").write_text(JIGSAW)
    (tmp_path / "dev.csv").write_text(JIGSAW.replace("0,0", "0,1"))
    (tmp_path / "test.csv").write_text(re.sub(r",\d,\d", ",-1,-1", JIGSAW))
    caplog.set_level("INFO")
    with pytest.warns(UserWarning) as told:
        data = read_folder(tmp_path)
    assert (data.task, data.labels) == ("multilabel", ("toxic", "Insult"))
    assert [*map(sorted, data.train.labels)] == [[0, 1], [], [1]] and not data.test
    assert not data.ordered  # how the columns stand says nothing of a model's order
    assert "of 0 and 1 are several labels a text: 'toxic, Insult'" in str(told[0].message)
    assert "labels from label; not read: id" in caplog.text
    (tmp_path / "train.csv").write_text(JIGSAW.replace(",1\n", ",0\n"))  # none is an insult
    with pytest.warns(UserWarning):
        assert read_folder(tmp_path).labels == ("toxic", "Insult")
    (tmp_path / "dev.csv").write_text(JIGSAW.replace("0,1", "0,-1"))
    with pytest.raises(ValueError, match="dev.csv:4: a label must .*no label"), pytest.warns():
        read_folder(tmp_path)


def test_pairs(tmp_path):
    pair = "text_b\tlabel\ttext_a\nb\t1\ta\n"
    data = read(
        tmp_path,
        train_tsv=pair,
        dev_tsv=pair.replace("b\t1", "c\t0"),
        test_tsv=pair.replace("b\t1", "d\t0"),
    )
    assert data.task == "matching" and data.train == Split([("a", "b")], [1])


def test_tagging(tmp_path):
    changes = {
        "train_tsv": "label\ttext\nO B-time I-time\twake at seven\n",
        "labels_txt": "O\nB-time\nI-time\n",
        "dev_tsv": "label\ttext\nO O\tgo on\n",
        "test_tsv": "label\ttext\nO\t好\n",
    }
    data = read(tmp_path, **changes)
    assert data.task == "tagging" and data.train == Split(["wake at seven"], [[0, 1, 2]])
    for text, label, message in (
        ("wake at", "O O O", "2 tokens and 3 tags"),
        ("wake  at", "O O O", "exactly one space"),
        ("wake at", "O B-place", "Received: 'B-place'. Known: 'O, B-time, I-time'"),
    ):
        with pytest.raises(ValueError, match=rf"dev\.tsv:2: .*{message}"):
            read(tmp_path, **{**changes, "dev_tsv": f"label\ttext\n{label}\t{text}\n"})


def test_clue_json_lines(tmp_path):
    rows = [
        {"label": "102", "label_desc": "news_b", "sentence": "江疏影", "keywords": ""},
        {"label": "101", "label_desc": "news_a", "sentence": "甜甜圈\\自拍"},
    ]
    train, dev = ("\n".join(json.dumps(row) for row in part) + "\n" for part in (rows, rows[1:]))
    with pytest.warns(UserWarning) as caught:
        data = read_folder(
            folder(
                tmp_path,
                train_json=train,
                dev_json=dev,
                test_json='{"id": 0, "sentence": "好"}',
                train_tsv=None,
                dev_tsv=None,
                test_tsv=None,
                labels_txt=None,
            )
        )
    messages = " ".join(str(warning.message) for warning in caught)
    assert "no labels.txt; the 2 sorted labels of train are the names: 'news_a, news_b'" in messages
    assert (
        "no labelled test file" in messages and "1 of 1 dev texts also occur in train" in messages
    )
    assert data.labels == ("news_a", "news_b") and data.test is None
    assert data.train == Split(["江疏影", "甜甜圈\\自拍"], [1, 0])


@pytest.mark.filterwarnings("ignore:.*(also occur|no labelled)")
@pytest.mark.parametrize(
    "header, row, text, task",
    [
        ("sentence\tlabel", 'a "quote\t{}', 'a "quote', "classification"),
        ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "{}\t1\t2\ta\tb", ("a", "b"), "matching"),
        (
            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            "1\t2\t3\ta\tb\t{}",
            ("a", "b"),
            "matching",
        ),
        ("index\tquestion\tsentence\tlabel", "0\ta\tb\t{}", ("a", "b"), "matching"),
        ("index\tsentence1\tsentence2\tlabel", "0\ta\tb\t{}", ("a", "b"), "matching"),
        ("Text\tLabel", "a\t{}", "a", "classification"),
        ("text\tlabel\tlabel_name", "a\t9\t{}", "a", "classification"),
        ("text\tlabel\tlabel_text", "a\t9\t{}", "a", "classification"),
        ("title\treview\tsentiment", "b\ta\t{}", "a", "classification"),
        ("\tutterance\tintent", "7\ta\t{}", "a", "classification"),
        ("premise\thypothesis\tlabel", "a\tb\t{}", ("a", "b"), "matching"),
        ("text1\ttext2\tlabel", "a\tb\t{}", ("a", "b"), "matching"),
    ],
)
def test_glue_headers(tmp_path, header, row, text, task):
    train = f"{header}\n{row.format(1)}\n{row.format(0)}\n"
    with pytest.warns(UserWarning, match="no labels.txt"):
        data = read_folder(
            folder(tmp_path, train_tsv=train, dev_tsv=train, test_tsv=None, labels_txt=None)
        )
    assert (
        data.task == task
        and data.train == Split([text, text], [1, 0])
        and data.labels == ("0", "1")
    )


def test_pandas_and_datasets_exports(tmp_path, caplog):
    """validation.csv with an index column, and JSON lines of `datasets`; the log says which columns."""
    rows = [
        {"text": t, "label": k, "label_name": n} for t, k, n in (("a", 1, "yes"), ("b", 0, "no"))
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    none = dict.fromkeys(("train_tsv", "dev_tsv", "test_tsv", "labels_txt"))
    table = ',text,label,label_name\n0,"c, d",0,no\n1,e,1,yes\n'
    with pytest.warns(UserWarning, match="no labels.txt"), caplog.at_level("INFO"):
        data = read_folder(folder(tmp_path, **none, train_jsonl=lines, validation_csv=table))
    assert (data.labels, data.train.labels, data.dev) == (
        ("no", "yes"),
        [1, 0],
        Split(["c, d", "e"], [0, 1]),
    )
    assert "train: texts from text, labels from label_name; not read: label" in caplog.text


@pytest.mark.parametrize(
    "columns, task, text, label",
    [
        ("id\tquery\ttitle\tlabel", "matching", ("b", "c"), "d"),  # QBQTC
        ("label\tquery\tpassage\tid", "matching", ("b", "c"), "a"),
        ("text\ttext_pair\tid\tlabel", "matching", ("a", "b"), "d"),
        ("question\tanswer\tid\tlabel", "matching", ("a", "b"), "d"),
        ("qid\tlabel\ttext_a\tx", "classification", "c", "b"),  # ChnSentiCorp
        ("id\ttext\ttarget\tstance", "classification", "b", "d"),  # what the stance is towards
    ],
)
def test_columns_of_public_sets(tmp_path, columns, task, text, label):
    table = f"{columns}\na\tb\tc\td\nd\tc\tb\ta\n"
    split = dict.fromkeys(("train_tsv", "dev_tsv", "test_tsv"), table)
    with pytest.warns(UserWarning):
        data = read_folder(folder(tmp_path, **split, labels_txt=None))
    first = data.train.texts[0], data.labels[data.train.labels[0]]
    assert (data.task, *first) == (task, text, label)


def test_duplicates_are_counted_and_kept(tmp_path):
    with pytest.warns(UserWarning, match="1 of 2 test texts also occur in train. They are kept"):
        data = read_folder(folder(tmp_path, test_tsv="label\ttext\n0\tlights on\n0\tnew\n"))
    assert len(data.test.texts) == 2


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"train_tsv": "lable\ttext\n0\tx\n"},
            r"train\.tsv:2: columns must be .* Received: 'lable, text'",
        ),
        ({"train_tsv": "label\ttext\ttext\n0\tx\ty\n"}, r"train\.tsv:1: column names must differ"),
        (
            {"train_tsv": "label\ttext\n0\tx\n1\tx\ty\n"},
            r"train\.tsv:3: a row must have 2 fields.*Received: 3",
        ),
        ({"dev_tsv": "label\ttext\n0 x\n"}, r"dev\.tsv:2: a row must have 2 fields.*Received: 1"),
        (
            {"dev_tsv": "label\ttext\n2\tx\n"},
            r"dev\.tsv:2: a label must be .*Received: '2'\. Known: 'on, off'",
        ),
        ({"dev_tsv": "label\ttext\nOn\tx\n"}, r"dev\.tsv:2: a label must be .*Received: 'On'"),
        ({"dev_tsv": "label\ttext\n0\t \n"}, r"dev\.tsv:2: a text must be .* not empty"),
        (
            {"dev_tsv": b"label\ttext\n0\tx\n0\tcaf\xe9\n"},
            r"dev\.tsv:3: text must be UTF-8\. Received: b'\\xe9' ",
        ),
        ({"dev_tsv": "label\ttext\n".encode("utf-16")}, r"dev\.tsv:1: .*UTF-8"),
        ({"dev_tsv": ""}, r"dev\.tsv: a data set must have a dev file with examples"),
        ({"dev_tsv": "label\ttext\n"}, r"dev\.tsv: .* with examples"),
        ({"dev_tsv": None}, "a data set must have a dev file"),
        (
            {"dev_tsv": "label\ttext_a\ttext_b\n0\tx\ty\n"},
            r"dev\.tsv:2: every row must have as many texts as the first of train. Received: a pair",
        ),
        ({"labels_txt": "on\noff\non\n"}, r"labels\.txt:3: .* all different.* Received: 'on'"),
        ({"labels_txt": "on\n\noff\n"}, r"labels\.txt:2: .* none empty"),
        ({"labels_txt": "on\noff\x1b[31m\n"}, r"labels\.txt:2: .* characters that show"),
        ({"labels_txt": "on\n"}, "at least two names"),
        ({"labels_txt": ""}, "at least two names"),
    ],
)
def test_errors_name_file_and_line(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, **changes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "line, message",
    [
        ("[1]", "must be one JSON object"),
        ('{"label": 0,', "must be one JSON object"),
        ("[" * 100_000, "JSON object"),
        ('{"label": 0, "sentence": 5}', "a text must be a string"),
        ('{"label": 0, "sentence": "\\ud800"}', "valid characters"),
        ('{"label": 0}', "columns must be"),
        ('{"label": 0, "sentence1": "a", "sentence2": "b"}', "as many texts as the first"),
    ],
)
def test_json_errors(tmp_path, line, message):
    good = '{"label": 0, "sentence": "a"}\n'
    with pytest.raises(ValueError, match=rf"train\.jsonl.*{message}"):
        read(tmp_path, train_tsv=None, train_jsonl=good + line + "\n")


def test_plain_text(tmp_path):
    (tmp_path / "corpus.txt").write_text("\nOne.\nTwo.\n\n\n三。\n", encoding="utf-8")
    data = read_text(tmp_path / "corpus.txt")
    assert data.task == "unlabelled" and data.train == Split(["One.", "Two.", "三。"], [0, 0, 1])
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ValueError, match=r"empty\.txt: a text file must hold text"):
        read_text(tmp_path / "empty.txt")
