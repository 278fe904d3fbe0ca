"""Text of the user's passes through a run, its pages and its pictures as it is."""

import csv
import html
import re
import zipfile

import numpy as np
import pytest

from keras_compress.bert.task_model import TaskModel
from keras_compress.experiment import experiment as module
from keras_compress.experiment import plots
from keras_compress.experiment.experiment import run
from keras_compress.experiment.report import write_report
from keras_compress.experiment.words import markdown
from tests import samples
from tests.experiment.cells import cell, report

pytestmark = pytest.mark.usefixtures("eagerly")
LABELS = [
    *("$_$", r"$\frac{$", "a|b", "<b>x</b>", "`code`", "_x_ *y*", "[a](http://b)", "{x} %s"),
    *("\u202eright to left", "שלום", "😀", "打开灯", "back\\", "café\u0301", "&amp;", " blank "),
]
READ = [label.strip() for label in LABELS]


def data_of(folder):
    """One text for each label, many times."""
    folder.mkdir()
    words = "the a cat dog sat on mat un cafe 1 2 x".split()
    for number, split in enumerate(samples.SPLITS):
        lines = [
            f"{label}\t{words[k % 12]} {words[(k * 5 + 3) % 12]} {words[number + 5 * row]}"
            for k, label in enumerate(LABELS)
            for row in range(2)
        ]
        (folder / f"{split}.tsv").write_text("\n".join(["label\ttext", *lines]) + "\n", "utf-8")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", "utf-8")
    return folder


def test_labels_pass_through_a_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "rehearse", lambda plan: None)
    monkeypatch.setattr(module, "to_train", lambda plan, costs: [])
    monkeypatch.setattr(module, "time_engines", lambda plan: None)
    data = data_of(tmp_path / "$data_$ <i>| 温 %s {x}")
    recipe = samples.recipe(
        tmp_path / "small.toml", ("predecessor", "finetune", str(samples.model(tmp_path / "bert")))
    )
    folder, found = run(recipe, tmp_path / "out", data=str(data), new_head=True)
    assert found["confusion"]["labels"] == READ
    assert "the picture" not in caplog.text
    assert {path.stem for path in (folder / "pictures").iterdir()} >= {"confusion", "intervals"}
    text = (folder / "report.md").read_text("utf-8")
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table
    assert "\u202e" not in text and r"\$data\_\$ \<i>" in text
    page = (folder / "report.html").read_text("utf-8")
    assert "<i>" not in page and "<b>x" not in page and "<i>| 温 %s {x}" in html.unescape(page)
    model = TaskModel.load(folder / "models" / "predecessor")
    assert model.labels == tuple(READ)
    (file,) = (folder / "models" / "predecessor").glob("*.tflite")
    with zipfile.ZipFile(file) as archive:
        assert archive.read("labels.txt").decode().split("\n")[:-1] == READ
    with open(folder / "models" / "predecessor" / "history.csv", newline="") as rows:
        assert {row["stage"] for row in csv.DictReader(rows)} == {"finetune"}
    assert run(recipe, folder, resume=True)[1]["confusion"] == found["confusion"]


def test_markdown_shows_text_as_it_is():
    for text in ("int8_per_tensor", "90.0 ± 5.5", "+1.2% [-0.3%, +2.0%]", "theseus-3 int8", "a.b"):
        assert markdown(text) == text
    assert markdown("_a_ *b* <i> `c` $d$ [e](f)\ng\\") == (
        r"\_a\_ \*b\* \<i> \`c\` \$d\$ [e\](f) g" + "\\\\"
    )


def test_a_picture_that_cannot_be_drawn_costs_itself_alone(tmp_path, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr(plots, "_intervals", broken)
    confusion = {"labels": ["$_$", "b"], "confusion": [[0, 0, 5], [1, 0, 1]]}
    cells = [cell("x", "predecessor", 0, np.arange(6) < 5, **confusion)]
    write_report(tmp_path, report(tmp_path, cells))
    assert [path.stem for path in (tmp_path / "pictures").iterdir()] == ["confusion"]
    assert "the picture intervals is left out: RuntimeError('no font')" in caplog.text
