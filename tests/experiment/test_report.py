import base64
import json
import re

import numpy as np
import pytest

from keras_compress.experiment import report as module
from keras_compress.experiment.report import MODEL_KEYS, headline, model_row, write_report

PREDECESSOR = model_row(
    name="predecessor",
    parameters=22_000_000,
    metric="accuracy",
    accuracy=0.9,
    accuracy_se=0.01,
    num_examples=900,
    seeds=[0],
    file_bytes=90_000_000,
    latency_ms_p50=10.0,
    latency_ms_p90=11.0,
)


def successor(**changes):
    return model_row(
        **{
            "name": "theseus-3",
            "metric": "accuracy",
            "accuracy": 0.87,
            "accuracy_se": 0.011,
            "num_examples": 900,
            "seeds": [0],
            "file_bytes": 45_000_000,
            "latency_ms_p50": 5.0,
            "latency_ms_p90": 5.5,
            "agreement": 0.93,
            "files": [
                {"format": "int8", "bytes": 11_250_000, "accuracy": 0.868, "latency_ms_p50": 2.5}
            ],
            **changes,
        }
    )


def whole_report(**changes):
    rows = [
        {
            "stage": "replacing",
            "step": step,
            "loss": 1 / step,
            "learning_rate": 1e-4,
            "replacing_rate": step / 40,
            "dev": 0.8 if step == 40 else None,
        }
        for step in (10, 20, 30, 40)
    ]
    return {
        "recipe": "theseus-3",
        "data": "assistant-en",
        "task": "classification",
        "created": "2026-11-21 12:00",
        "seconds": 720.0,
        "settings": {"epochs": np.int64(3)},
        "versions": {"python": "3.11"},
        "device": "cpu",
        "threads": 1,
        "sequence_length": 32,
        "notes": ["a <b> note"],
        "models": [PREDECESSOR, successor()],
        "comparisons": [
            {
                "model": "theseus-3",
                "baseline": "plain-3",
                "difference": 0.02,
                "low": 0.005,
                "high": 0.035,
                "n": 900,
            }
        ],
        "curves": {"theseus-3": rows},
        "confusion": {
            "labels": ["on", "<off>", "灯"],
            "model": "theseus-3",
            "matrix": np.array([[5, 3, 0], [1, 7, 0], [0, 0, 2]]),
        },
        **changes,
    }


def test_model_row_has_every_key_and_nothing_else():
    assert (
        tuple(model_row()) == MODEL_KEYS
        and model_row()["files"] == []
        and model_row()["flops"] is None
    )
    assert set(successor()["files"][0]) == {
        "format",
        "bytes",
        "gzip_bytes",
        "latency_ms_p50",
        "latency_ms_p90",
        "accuracy",
        "agreement",
    }
    with pytest.raises(ValueError, match="Received: acuracy"):
        model_row(acuracy=0.9)
    with pytest.raises(ValueError, match="Received: size"):
        model_row(files=[{"size": 1}])


def test_files_of_a_report(tmp_path):
    page = write_report(tmp_path / "run", whole_report()).read_text(encoding="utf-8")
    saved = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert saved["models"][1]["accuracy"] == 0.87 and saved["confusion"]["matrix"][0] == [5, 3, 0]
    assert all(tuple(model) == MODEL_KEYS for model in saved["models"])
    assert module.MADE_SET in saved["notes"]
    names = {"accuracy_size", "accuracy_latency", "curves", "replacing_rate", "confusion"}
    assert {path.stem for path in (tmp_path / "run" / "pictures").iterdir()} == names
    pngs = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pngs) == 5 and all(base64.b64decode(png).startswith(b"\x89PNG") for png in pngs)
    assert "a &lt;b&gt; note" in page and "&lt;off&gt;" in page and "<off>" not in page  # escaped
    assert (
        not re.search(r"(src|href)=\"(?!data:)", page) and "<script" not in page
    )  # self-contained
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    for shown in (
        "87.0 ± 1.1",
        "45,000,000",
        "45.0",
        "2.00×",
        "5.00 / 5.50",
        "+2.0",
        "+0.5 to +3.5",
        "theseus-3 int8",
        "8.00×",
        "pictures/confusion.png",
    ):
        assert shown in text, shown
    assert "GFLOPs" not in text  # a column without any value is left out


def test_engines_by_hand(tmp_path):
    rows = [
        {"name": "LiteRT float32", "latency_ms_p50": 4.0, "latency_ms_p90": 5.0},
        {"name": "Keras call", "latency_ms_p50": 50.0, "latency_ms_p90": 51.0},
    ]
    write_report(tmp_path, whole_report(engines={"model": "theseus-3", "rows": rows}))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| LiteRT float32 | 4.00 / 5.00 | 1.00 |" in text
    assert "| Keras call | 50.00 / 51.00 | 12.50 |" in text  # 50 / 4
    assert "exported graph of theseus-3" in (tmp_path / "report.html").read_text(encoding="utf-8")
    write_report(tmp_path, whole_report(engines={"model": "theseus-3", "rows": []}))
    assert "## Engines" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_report_with_next_to_nothing(tmp_path):
    page = write_report(
        tmp_path, {"recipe": "baselines", "data": "sst2", "models": [model_row(name="majority")]}
    )
    assert "No compressed model" in page.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "report.json").read_text())["notes"] == []


def test_numbers_that_json_lacks_become_null(tmp_path):
    curves = {
        "plain-3": [
            {"stage": "finetune", "step": 1, "loss": float("nan"), "learning_rate": np.float32(0.5)}
        ]
    }
    write_report(tmp_path, whole_report(curves=curves))
    assert json.loads((tmp_path / "report.json").read_text())["curves"]["plain-3"][0] == {
        "stage": "finetune",
        "step": 1,
        "loss": None,
        "learning_rate": 0.5,
    }


def test_headline_by_hand():
    ((lead, more),) = headline(whole_report())
    # .87 / .90 = 96.67 %; 45 / 90 MB; 10 / 5 ms
    assert lead == (
        "theseus-3 keeps 96.7 % of the predecessor's accuracy (87.0 against 90.0 %) at 50 % of the size "
        "and runs 2.0x faster."
    )
    assert more == "It is 2.0 points better than plain-3 (95 % interval +0.5 to +3.5)."


def test_what_saves_bytes_alone_is_said_to_run_no_faster():
    ((lead, _),) = headline(
        whole_report(models=[PREDECESSOR, successor(latency_ms_p50=PREDECESSOR["latency_ms_p50"])])
    )
    assert lead.endswith("at 50 % of the size but runs no faster.")
    same = [
        {**PREDECESSOR, "flops": 1_000},
        successor(flops=1_001, latency_ms_p50=9.0),
    ]  # noise, not a gain
    assert headline(whole_report(models=same))[0][0].endswith(
        "but computes as much as before (speed measured: 1.11x)."
    )
    for changes in ({"flops": 1_000, "latency_ms_p50": 5.0}, {"flops": 500, "latency_ms_p50": 9.0}):
        assert "x faster" in headline(whole_report(models=[same[0], successor(**changes)]))[0][0]


def test_a_control_is_a_baseline_of_the_headline():
    comparison = {
        "model": "static-int8",
        "baseline": "control",
        "difference": 0.0,
        "low": -0.01,
        "high": 0.01,
        "n": 900,
    }
    models = [PREDECESSOR, {**PREDECESSOR, "name": "control"}, successor(name="static-int8")]
    ((lead, more),) = headline(whole_report(models=models, comparisons=[comparison]))
    assert lead.startswith("static-int8 keeps") and more.startswith(
        "Its difference from control, +0.0 points"
    )


def test_headline_is_honest_when_it_did_not_pay():
    comparison = {
        "model": "theseus-3",
        "baseline": "plain-3",
        "difference": -0.02,
        "low": -0.035,
        "high": -0.005,
        "n": 900,
    }
    models = [
        PREDECESSOR,
        successor(accuracy=0.6, latency_ms_p50=20.0, file_bytes=99_000_000),
        model_row(name="tfidf", accuracy=0.7, metric="accuracy"),
    ]
    ((lead, more),) = headline(whole_report(models=models, comparisons=[comparison]))
    assert "keeps only 66.7 %" in lead and "110 % of the size but runs 2.0x slower" in lead
    assert (
        "2.0 points worse than plain-3" in more
        and "did not pay" in more
        and "without any BERT (70.0 %)" in more
    )
    ((_, more),) = headline(whole_report(comparisons=[{**comparison, "high": 0.001}]))
    assert "too small to tell on 900 examples" in more
    ((lead, _),) = headline(
        whole_report(models=[PREDECESSOR, successor(accuracy=0.909, metric="entity_f1")])
    )
    assert lead.startswith("theseus-3 reaches 101.0 % of the predecessor's entity F1")


def test_curves_leave_out_what_was_inherited():
    from keras_compress.experiment.plots import own_rows

    def row(stage, step):
        return {"stage": stage, "step": step, "loss": 1.0}

    teacher = [row("finetune", 5), row("finetune", 10)]
    rows = [*teacher, row("replacing", 4), row("replacing", 8), row("last", 3)]
    own = own_rows({"predecessor": teacher, "theseus-3": rows})
    assert [one["step"] for one in own["theseus-3"]] == [4, 8, 11]
    assert len(own["predecessor"]) == 2


@pytest.mark.parametrize("count", [2, 20, 60])
def test_confusion_of_many_classes(tmp_path, count):
    generator = np.random.default_rng(count)
    confusion = {
        "labels": [f"class_{i}" for i in range(count)],
        "matrix": generator.integers(0, 9, (count, count)),
        "model": "theseus-3",
    }
    write_report(tmp_path, whole_report(confusion=confusion))
    assert (tmp_path / "pictures" / "confusion.png").stat().st_size < 500_000
