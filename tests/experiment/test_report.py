import base64
import json
import re

import numpy as np
import pytest

from keras_compress.experiment import plots
from keras_compress.experiment.report import (
    FILE_KEYS,
    MODEL_KEYS,
    WORDS,
    fill,
    headline,
    report_of,
    write_picture,
    write_report,
)
from tests.experiment.cells import cell, report

RIGHT = {"predecessor": 27, "theseus-3": 26, "plain-3": 25, "majority": 9}  # of 30
ROWS = [
    {"stage": "replace", "step": step, "loss": 1 / step, "replacing_rate": step / 40, "dev": dev}
    for step, dev in ((10, None), (40, 0.8))
]


def cells(data="assistant-en", right=RIGHT, **more):
    """A predecessor of 90 MB and a successor of half its size and twice its speed."""
    made = []
    for name, number in right.items():
        files = [
            {
                "format": form,
                "bytes": int(size),
                "gzip_bytes": 1,
                "latency_ms_p50": 10 / faster,
                "latency_ms_p90": 11 / faster,
                "times_as_fast": faster,
                "accuracy": number / 30,
                "agreement": 0.9,
                "device": "cpu",
                "threads": 1,
                "sequence_length": 32,
            }
            for form, size, faster in (("float32", 90e6, 1.0), ("int8", 23e6, 3.0))
        ]
        if name == "theseus-3":
            files[0] |= {"bytes": 45_000_000, "times_as_fast": 2.0, "drift": "far off"}
        facts = {
            "files": files,
            "curve": ROWS,
            "agreement": 0.93,
            "task": "classification",
            "labels": ["on", "<off>", "灯"],
            "confusion": [[0, 0, 5], [0, 1, 3], [1, 0, 1], [1, 1, 7], [2, 2, 14]],
            "flops": 1e9,
        }
        facts = facts if name != "majority" else {"choice": "always <on>", "failed": "int4: gone"}
        made.append(cell(data, name, 0, np.arange(30) < number, **{**facts, **more}))
    return made


def test_files_of_a_report(tmp_path):
    page = write_report(tmp_path, report(tmp_path, cells())).read_text(encoding="utf-8")
    saved = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in saved["models"]] == [*RIGHT]
    assert all(tuple(model) == MODEL_KEYS for model in saved["models"])
    assert all(tuple(file) == FILE_KEYS for model in saved["models"] for file in model["files"])
    assert (
        saved["confusion"]["matrix"][0] == [5, 3, 0] and saved["confusion"]["model"] == "theseus-3"
    )
    assert saved["models"][1]["file_bytes"] == 45_000_000 and saved["seconds"] == 60
    assert {(c["model"], c["baseline"]) for c in saved["comparisons"]} == {
        ("theseus-3", "predecessor"),
        ("theseus-3", "plain-3"),
    }
    assert "majority: files are missing. int4: gone" in saved["notes"]
    assert WORDS["notes"]["made_set"] in saved["notes"] and any(
        "far off" in note for note in saved["notes"]
    )
    names = {
        "accuracy_size",
        "accuracy_latency",
        "intervals",
        "curves",
        "replacing_rate",
        "confusion",
    }
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == names
    pngs = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pngs) == 6 and all(base64.b64decode(png).startswith(b"\x89PNG") for png in pngs)
    assert "&lt;off&gt;" in page and "<off>" not in page and "<on>" not in page  # escaped
    assert (
        not re.search(r"(src|href)=\"(?!data:)", page) and "<script" not in page
    )  # self-contained
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    # 27 of 30: 90 %, sqrt(.9 * .1 / 30) = 5.5 %
    for shown in ("90.0 ± 5.5", "45,000,000", "45.0", "2.00×", "5.00 / 5.50", "-3.3", "<off>"):
        assert shown in text.replace("10.00 / 11.00", "5.00 / 5.50"), shown
    assert "theseus-3 int8" in text and "pictures/confusion.png" in text
    assert "encoder" not in text  # a column without any value is left out


def test_engines_by_hand(tmp_path):
    rows = [
        {"name": "LiteRT float32", "latency_ms_p50": 4.0, "latency_ms_p90": 5.0},
        {"name": "Keras call", "latency_ms_p50": 50.0, "latency_ms_p90": 51.0},
    ]
    made = cells()
    made[1] |= {"engines": rows, "engine_notes": ["Not timed in ONNX Runtime."]}
    write_report(tmp_path, report(tmp_path, made))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| LiteRT float32 | 4.00 / 5.00 | 1.00 |" in text
    assert "| Keras call | 50.00 / 51.00 | 12.50 |" in text  # 50 / 4
    assert "exported graph of theseus-3" in text and "- Not timed in ONNX Runtime." in text


def test_several_data_sets_and_seeds(tmp_path):
    made = [*cells(), *cells("b"), *cells("b")]
    for one in made[-len(RIGHT) :]:
        one["seed"] = 1
    compare = ["theseus minus plain or truncated"]
    found = report(tmp_path, made, compare=compare)
    ((line, _),) = headline(found)
    assert line.startswith("theseus minus the better of plain, truncated, pooled over 2 data sets")
    write_report(tmp_path, found)
    names = {path.stem for path in (tmp_path / "pictures").iterdir()}
    assert {"accuracy_size-b", "accuracy_size-assistant-en", "intervals"} <= names
    assert "| b | theseus-3 | 86.7 ± 6.2 | 0.0 |" in (tmp_path / "report.md").read_text("utf-8")


def test_a_report_with_next_to_nothing(tmp_path):
    write_report(tmp_path, report(tmp_path, [cell("sst2", "majority", 0, [1, 0])]))
    assert "No compressed model" in (tmp_path / "report.html").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="must have cells .run it first.. Received: .*nothing"):
        report_of(tmp_path / "nothing")
    for number, text in enumerate(('{"data": "one"}', "[1]", "{", '{"metric": "accuracy"}')):
        (tmp_path / "cells" / f"odd-{number}.json").write_text(text)
        with pytest.raises(
            ValueError, match=f"odd-{number}.json: a folder of results must hold cells"
        ):
            report_of(tmp_path)
        (tmp_path / "cells" / f"odd-{number}.json").unlink()


def test_cells_and_phones_of_odd_kinds_are_refused_by_name(tmp_path):
    odd = [{"seed": "x"}, {"size": [1]}, {"role": {}}, {"files": [{"format": [1]}]}]
    for change in (*odd, {"files": [{"bytes": 10**400}]}, {"confusion": 5}):
        with pytest.raises(ValueError, match="0.json: a folder of results must hold cells"):
            report(tmp_path, [{**cell("sst2", "x-3", 0, [1, 0]), **change}])
    report(tmp_path, [cell("sst2", "x-3", 0, [1, 0])])
    (tmp_path / "phones").mkdir()
    for rows in ('"x"', "5", "[5]"):
        (tmp_path / "phones" / "p.json").write_text(f'{{"rows": {rows}}}')
        with pytest.raises(ValueError, match="p.json: `rows` must be a list of objects"):
            report_of(tmp_path)
    assert fill("{a:,.1M}", {"a": 10**400}) == "–"


def test_numbers_that_json_lacks_become_null(tmp_path):
    curve = [{"stage": "finetune", "step": 1, "loss": float("nan")}]
    write_report(tmp_path, report(tmp_path, cells(curve=curve)))
    saved = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert saved["curves"]["plain-3"][0] == {"stage": "finetune", "step": 1, "loss": None}


def test_format_strings():
    row = {"a": 0.5, "b": None, "c": {"d": 2.5e6}, "e": [0, 1]}
    assert fill("{a:.1%} of {c[d]:.1M} ({e})", row) == "50.0 of 2.5 (0, 1)"
    assert (
        fill("{b:.1f}", row) == fill("{b}", row) == fill("{c[x]}", row) == fill("{f}", row) == "–"
    )


def said(tmp_path, **changes):
    """The headline with changes of the compressed model's row."""
    found = report(tmp_path, cells("sst2"))
    found["models"][1] |= changes
    return headline(found)[0]


def test_headline_by_hand(tmp_path):
    lead, more = said(tmp_path)
    # 26 / 27 = 96.30 %; 45 / 90 MB; twice as fast
    assert lead == (
        "theseus-3 keeps 96.3 % of the predecessor's accuracy (86.7 against 90.0 %) at 50 % of the size "
        "and runs 2.0x faster."
    )
    # one of 30: se = sqrt(1/30 * 29/30 / 30) = 3.3 %
    assert more == (
        "Its difference from plain-3, +3.3 points (95 % interval -3.1 to +9.8), is too small to tell on "
        "30 examples."
    )


def test_a_predecessor_that_is_never_right_has_a_headline(tmp_path):
    right = {"predecessor": 0, "theseus-3": 15}
    ((lead, _),) = headline(report(tmp_path, cells("sst2", right)))
    assert lead.startswith(
        "theseus-3 stands beside the predecessor's accuracy (50.0 against 0.0 %)"
    )


def test_headline_says_what_speed_was_measured(tmp_path):
    assert said(tmp_path, times_as_fast=1.0, flops=5)[0].endswith("but runs no faster.")
    same = "but computes as much as before (speed measured: 1.11x)."
    assert said(tmp_path, times_as_fast=1.11)[0].endswith(same)
    assert said(tmp_path, times_as_fast=0.5)[0].endswith("but runs 2.0x slower.")
    assert "x faster" in said(tmp_path, times_as_fast=1.11, flops=5)[0]
    assert said(tmp_path, accuracy=0.95)[0].startswith("theseus-3 reaches 105.6 %")


def test_headline_is_honest_when_it_did_not_pay(tmp_path):
    right = {"predecessor": 28, "theseus-3": 14, "plain-3": 24, "control": 28, "tfidf": 20}
    ((lead, more),) = headline(report(tmp_path, cells("sst2", right)))
    assert lead.startswith("theseus-3 keeps only 50.0 %")
    assert "33.3 points worse than plain-3" in more and "did not pay" in more
    assert "worse than control" in more and "without any BERT (66.7 %)" in more
    right = {"predecessor": 28, "theseus-3": 28, "plain-3": 14}
    ((_, more),) = headline(report(tmp_path / "better", cells("sst2", right)))
    assert more.startswith("It is 46.7 points better than plain-3 (95 % interval +")


def test_roles_have_looks():
    rows = [{"method": m, "role": r, "family": f} for m, r, f in (
        ("first", "predecessor", None), ("even", "control", None), ("a-3", "baseline", "a"),
        ("a-2", "baseline", "a"), ("b-3", "baseline", "b"), ("x", None, None),
    )]  # fmt: skip
    look = plots.looks(rows)
    assert look["a-3"] == look["a-2"] != look["b-3"] and look["x"]["color"] == plots.ACCENT
    assert look["first"]["color"] == plots.INK and look["even"]["color"] == plots.GREY


def test_curves_leave_out_what_was_inherited():
    def row(stage, step):
        return {"stage": stage, "step": step, "loss": 1.0}

    teacher = [row("finetune", 5), row("finetune", 10)]
    rows = [*teacher, row("replacing", 4), row("replacing", 8), row("last", 3)]
    own = plots.own_rows({"predecessor": teacher, "theseus-3": rows})
    assert [one["step"] for one in own["theseus-3"]] == [4, 8, 11]
    assert len(own["predecessor"]) == 2


def test_labels_of_curves_keep_their_distance_in_every_panel():
    curves = {
        f"a-{i}": [
            {"step": 1, "dev": 0, "loss": 5},
            {"step": 2, "dev": 0.5 + 0.001 * i, "loss": 1 + 0.001 * i},
        ]
        for i in range(5)
    }
    looks = dict.fromkeys(curves, {"color": "black", "marker": "o"})
    for axes in plots.curves_figure(curves, {"dev": "a, %", "loss": "b"}, looks, height=7.2).axes:
        levels = [label.get_position()[1] for label in axes.texts]  # shares of the axes' height
        assert min(np.diff(levels)) > 0.06


def test_pictures_of_pretraining(tmp_path):
    def entry(name, share):
        curve = [{"step": 5, "dev": 0.0}, {"step": 9, "dev": 0.2}]
        curve = [{**row, "dev_sentence": 0.5} for row in curve] if share else curve
        return cell(
            "a",
            name,
            0,
            [1, 0],
            settings=[
                {
                    "method": "pretrain",
                    "sentence_accuracy": share and 0.6,
                    "sentence_pairs": 42,
                    "sentence_by_length": share,
                    "curve": curve,
                }
            ],
        )

    made = [entry("small-sop", 0.55), entry("small-none", None), entry("large-sop", 0.55)]
    found = report(tmp_path, made)
    words, sentences = plots._pretraining(found["pooled"]).axes
    by_length = [line for line in sentences.lines if np.allclose(line.get_ydata(), 55)]
    assert len(by_length) == 1
    assert not any(np.allclose(line.get_ydata(), 55) for line in words.lines)
    colours = {label.get_text(): label.get_color() for label in words.texts}
    assert len({*colours.values()}) == 3
    write_picture(found, tmp_path / "mine.png")
    for name in ("mine.png", "mine-curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [2, 20, 60])
def test_confusion_of_many_classes(count):
    matrix = np.random.default_rng(count).integers(0, 9, (count, count))
    figure = plots._confusion([f"class_{i}" for i in range(count)], matrix)
    assert len(plots.to_png(figure)) < 500_000
