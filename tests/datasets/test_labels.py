"""What a label is: names, numbers, tags, and what is refused by its kind."""

import json
import re

import pytest

from keras_compress.datasets.readers import read_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*(no labels.txt|no labelled|also occur)")
TEXTS = ("the cat sat", "a dog", "the dog sat here", "a cat")


def write(path, labels, dev=None, names=None, texts=TEXTS, ending="jsonl"):
    """A folder whose train split has these labels, and whose dev split has that of its first text, or `dev`."""
    for split, part in (("train", labels), ("dev", [labels[0] if dev is None else dev])):
        rows = list(zip(part, texts))
        if ending == "tsv":
            lines = ["label\ttext", *map("\t".join, rows)]
        else:
            lines = [json.dumps({"label": label, "text": text}) for label, text in rows]
        (path / f"{split}.{ending}").write_text("\n".join(lines), encoding="utf-8")
    if names:
        (path / "labels.txt").write_text("\n".join(names), encoding="utf-8")
    return path


REFUSED = [
    (["joy", None], r"None, no label .*Remove"),
    (["joy", float("nan")], "nan, no label"),
    (["1", "-"], "'-', no label"),
    ([1, -1], "-1, no label"),
    (["joy", ""], "'', no label"),
    (["joy", ["joy"]], r"\['joy'\], a list of names. Write a list in every row"),
    (["joy", []], "a list of names"),
    (["joy", "love", "joy,love"], "'joy,love', several names.*--task multilabel"),
    (["joy", "love", "joy | love"], "several names"),
    (["joy", "love", "love joy"], "several names"),
    (["joy", "love", "love#joy"], "several names"),  # as doccano writes them in CSV
    (["O,B-LOC,O", "O,O"], "'O,B-LOC,O', several tags. Separate tags by one space"),
    ([2, 14, "2,14"], "'2,14', several names"),
    (["['joy']", "joy"], "a list or an object as text.*several with commas"),
    ([{"name": {"the": [[0, 2]]}}, {}], r"an object \(entities by place.*as many tags"),
    ([[[0, 3, "PER"]], []], "entities by place"),
    ([[{"start": 0, "label": "PER"}], []], "entities by place"),
    (["1.0", "0.0"], "'1.0', a number with decimals.*--task regression"),
    ([0, 1.0], "1.0, a number with decimals"),
    ([0, 1, float("inf")], "inf, a number with decimals"),
    ([0, 1, 10**400, True], "True, true or false beside others"),
    (["beta", "alpha", "2.5"], "a number with decimals"),
    (["4,5", "3,0", "5"], "'4,5', a number with a comma for the decimals.*Write a point"),
    (["4,5", "4", "5"], "'4,5', several names.*write a point"),
]


@pytest.mark.parametrize("labels, message", REFUSED)
def test_what_no_task_fits_is_refused_by_its_kind(tmp_path, labels, message):
    with pytest.raises(ValueError, match=rf"train\.jsonl:\d: a label must be one name.*{message}"):
        read_folder(write(tmp_path, labels))


SCALARS = [
    row for row, _ in REFUSED if all(isinstance(x, str | int | float) and x != "" for x in row)
]


@pytest.mark.parametrize("labels", SCALARS)
def test_labels_txt_knows_better(tmp_path, labels):
    names = sorted({*map(str, labels)})
    data = read_folder(write(tmp_path, labels, names=[*names, "other"]))
    assert data.train.labels == [names.index(str(label)) for label in labels]


def test_a_list_is_no_name_even_if_labels_txt_says_so(tmp_path):
    write(tmp_path, [["joy"], ["love"]], names=["['joy']", "['love']"])
    with pytest.raises(ValueError, match="a line of labels.txt.*Received: 'joy'"):
        read_folder(tmp_path)


@pytest.mark.parametrize("labels", [["[0, 1]", "[1, 0]"], ["['joy', 'love']", "['love', 'joy']"]])
def test_lists_as_text_are_no_sets_of_names(tmp_path, labels):
    """As pandas writes a column of lists: cut at commas, "[0" and "1]" would be names."""
    with pytest.raises(ValueError, match="a list or an object as text"):
        read_folder(write(tmp_path, labels), task="multilabel")


SETS = [["joy", "love"], [], ["love"], ["joy"]]


@pytest.mark.parametrize(
    "labels, more, task",
    [
        (SETS, {}, None),
        (["joy|love", "", "love", "joy"], {"names": ["joy", "love"]}, None),
        (["1, 0", "", "1", "0"], {"names": ["joy", "love"], "ending": "tsv"}, None),
        (["joy；love", "", "love", "joy"], {}, "multilabel"),
        ([["joy", "love"], "", "love", "joy"], {}, "multilabel"),
    ],
)
def test_sets_of_names(tmp_path, labels, more, task, caplog):
    caplog.set_level("INFO")
    data = read_folder(write(tmp_path, labels, **more), task)
    assert (data.task, data.labels) == ("multilabel", ("joy", "love"))
    assert [*map(sorted, data.train.labels)] == [[0, 1], [], [1], [0]]
    assert "1 texts have no name" in caplog.text


@pytest.mark.parametrize(
    "labels, task, scores",
    [
        ([3.8, 0, 5.0, -1], None, [3.8, 0, 5, -1]),
        (["3.80", "1e-1", ".5", "4"], None, [3.8, 0.1, 0.5, 4]),
        ([1, 5, 2, 3], "regression", [1, 5, 2, 3]),
    ],
)
def test_scores(tmp_path, labels, task, scores):
    data = read_folder(write(tmp_path, labels), task)
    assert (data.task, data.labels, data.train.labels) == ("regression", ("score",), scores)


@pytest.mark.parametrize(
    "labels, task, message",
    [
        ([3.8, "nan"], None, "2: a score must be a finite number. Received: 'nan'"),
        ([3.8, float("inf"), 1.5], None, "2: a score must be .* inf"),
        ([1, True], "regression", "2: a score must be .* True"),
        ([["joy", "joy"], ["love"]], None, "1: the names of a text must differ"),
        ([[0, 1, 0], [0, 0, 1]], None, "1: the names of a text must differ.*0 or 1 for each class"),
        (["joy,,love", "joy"], "multilabel", "1: the names .* none be empty"),
        (["joy,love", "joy|love"], "multilabel", "one mark must stand between .*Received: , |"),
        ([["joy", None], ["love"]], None, "1: .*None, no label"),
        ([["joy"], None], "multilabel", "2: .*None, no label"),
        ([["B-X", "I-X", "O"], ["O", "O"]], "multilabel", "1: .*must be names. Received: tags"),
    ],
)
def test_sets_and_scores_that_are_none(tmp_path, labels, task, message):
    with pytest.raises(ValueError, match=message):
        read_folder(write(tmp_path, labels), task)


def test_minus_one_is_a_class_where_labels_txt_says_so(tmp_path):
    data = read_folder(write(tmp_path, [-1, 0, 1], names=["-1", "0", "1"]))
    assert data.task == "classification" and data.train.labels == [0, 1, 2]


@pytest.mark.parametrize("marker", [None, -1, "-1.0", "-", ""])
def test_a_test_split_that_is_marked_as_unlabelled(tmp_path, marker):
    write(tmp_path, [0.5, 1.5] if marker == "-1.0" else [0, 1])
    (tmp_path / "test.jsonl").write_text(json.dumps({"label": marker, "text": "new"}))
    with pytest.warns(UserWarning, match="no labelled test file"):
        assert read_folder(tmp_path).test is None


TAGS = {
    "BIO": ["B-X I-X O", "O B-X", "O B-X I-X O", "O O"],
    "BIOES": ["B-X E-X O", "O S-X", "O B-X E-X O", "O O"],
    "IO": ["I-X I-X O", "O I-X", "O I-X I-X O", "O O"],
    "BIO of one type": ["B I O", "O B", "O B I O", "O O"],
    "IO without a prefix": ["PER PER O", "O PER", "O PER PER O", "O O"],
    "parts of speech": ["DET NOUN VERB", "DET NOUN", "DET NOUN VERB ADV", "DET NOUN"],
}


@pytest.mark.parametrize("scheme", TAGS)
@pytest.mark.parametrize("form", ["text", "text with labels.txt", "list", "numbers"])
def test_tags_are_tags(tmp_path, scheme, form):
    rows = TAGS[scheme]
    names = sorted({tag for row in rows for tag in row.split()})
    expected = [[names.index(tag) for tag in row.split()] for row in rows]
    labels = {"list": [row.split() for row in rows], "numbers": expected}.get(form, rows)
    named = form in ("text with labels.txt", "numbers")
    data = read_folder(write(tmp_path, labels, names=names if named else None))
    assert data.task == "tagging" and data.labels == tuple(names)
    assert data.train.labels == expected and data.dev.labels == expected[:1]


def test_tokens_and_tags_in_lists(tmp_path):
    rows = [{"tokens": ["我", "在", "上海"], "ner_tags": ["O", "O", "B-LOC"]}] * 2
    for split in ("train", "dev"):
        (tmp_path / f"{split}.json").write_text("\n".join(map(json.dumps, rows)))
    data = read_folder(tmp_path)
    assert data.task == "tagging" and data.train.texts[0] == "我 在 上海"
    rows = [{"tokens": ["EU", "rejects"], "ner_tags": [3, 0]}, {"tokens": ["a"], "ner_tags": [0]}]
    (tmp_path / "train.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "dev.json").write_text(json.dumps(rows[0]))
    data = read_folder(tmp_path)
    assert (data.task, data.labels, data.dev.labels) == ("tagging", ("0", "3"), [[1, 0]])
    (tmp_path / "dev.json").write_text(json.dumps({**rows[0], "tokens": ["a b", "c", "d"]}))
    with pytest.raises(ValueError, match=r"dev\.json:1: .*4 tokens and 2 tags"):
        read_folder(tmp_path)


@pytest.mark.parametrize("names", [None, ["ADV", "DET", "NOUN", "VERB"]])
def test_one_row_of_tags_that_does_not_fit_is_an_error_and_makes_no_class(tmp_path, names):
    labels = TAGS["parts of speech"][:3] + ["DET NOUN VERB"]
    with pytest.raises(ValueError, match=r"train\.jsonl:4: .*2 tokens and 3 tags, in 'a cat'"):
        read_folder(write(tmp_path, labels, names=names))


def test_one_token_a_row_is_no_sentence(tmp_path):
    """CoNLL's columns under a header, a blank line between sentences."""
    for split in ("train", "dev"):
        rows = "text\tlabel\n我\tO\n北\tB-LOC\n京\tI-LOC\n\n好\tO\n"
        (tmp_path / f"{split}.tsv").write_text(rows, encoding="utf-8")
    with pytest.raises(ValueError, match="must hold a sentence.*one token in each row of train"):
        read_folder(tmp_path)


def test_tags_of_two_kinds_are_tags(tmp_path):
    """Entities in entities, as one tag."""
    data = read_folder(write(tmp_path, ["B-X|B-Y I-X O", "O B-X|B-Y"]))
    assert data.labels == ("B-X|B-Y", "I-X", "O")


def test_lists_of_one_name_each_are_said(tmp_path):
    """As doccano exports classes."""
    with pytest.warns(
        UserWarning, match="a list of one name, read as several labels.*without a list"
    ):
        assert read_folder(write(tmp_path, [["joy"], ["love"]])).task == "multilabel"


def test_tags_of_a_text_without_spaces_make_no_class(tmp_path):
    write(tmp_path, ["n v n n", "n n v", "n v"], texts=["我在北京", "电影好", "下雨"])
    with pytest.raises(ValueError, match=r"train\.jsonl:1: .*1 tokens and 4 tags, in '我在北京'"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "labels, doubt",
    [
        (["joy", "Joy", "love", "love "], "spaces: 'Joy' and 'joy', 'love' and 'love '"),
        ([f"a sentence of its own, {k}" for k in range(21)], "These are many for 21 rows"),
        (["joy,love", "joy,love", "love"], "Some hold ,: if a text may .*--task multilabel"),
    ],
)
def test_doubtful_names_are_said(tmp_path, labels, doubt):
    texts = [f"text number {k}" for k in range(len(labels))]
    with pytest.warns(UserWarning, match=f"no labels.txt.*{doubt}"):
        read_folder(write(tmp_path, labels, texts=texts))


@pytest.mark.parametrize("tag, message", [("-100", "no label"), ("X", "a line of labels.txt")])
def test_a_tag_is_checked_as_a_label_is(tmp_path, tag, message):
    write(tmp_path, TAGS["parts of speech"], dev=f"{tag} NOUN VERB")
    with pytest.raises(ValueError, match=rf"dev\.jsonl:1: .*'{tag}'.*{message}|{message}.*'{tag}'"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "labels, texts, names",
    [
        (["new york", "los angeles", "new york", "rome"], TEXTS, None),
        (["science fiction", "体", "体", "体"], ["我在上海", "电影", "很好", "北京"], None),
        (["noun", "verb", "noun", "verb"], ["cat", "sit", "dog", "go"], None),
        (
            ["red shoe"] * 2 + ["blue shoe"] * 2,
            ["a b", "c d", "e f", "g h"],
            ["red shoe", "blue shoe"],
        ),
        (["1.2.3", "2.0-rc", "B", "O"], TEXTS, None),
        ([True, False, True, False], TEXTS, None),
    ],
)
def test_names_with_spaces_and_names_of_words_are_classes(tmp_path, labels, texts, names):
    data = read_folder(write(tmp_path, labels, texts=texts, names=names))
    assert data.task == "classification" and {*data.labels} == {*map(str, labels)}


def test_what_was_decided_stands_in_the_log(tmp_path, caplog):
    caplog.set_level("INFO")
    read_folder(write(tmp_path, TAGS["BIOES"]))
    assert re.search(
        r"tagging, since a label holds a tag for each token; .* labels of train", caplog.text
    )


def test_a_name_that_a_terminal_would_obey_is_refused(tmp_path):
    with pytest.raises(ValueError, match="train.jsonl:2: .*characters that do not show"):
        read_folder(write(tmp_path, ["joy", "lo\x1bve"]))
