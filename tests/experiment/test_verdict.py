import numpy as np

from keras_compress.experiment.report import headline, tables
from keras_compress.experiment.verdict import to_ship
from tests.experiment.cells import cell, report

# name, format, bytes, times as fast, accuracy, interval against the predecessor
FILES = [
    ("predecessor", "float32", 90e6, 1.0, 0.90, (0.0, 0.0)),
    ("predecessor", "int8", 23e6, 3.0, 0.91, (-0.01, 0.03)),
    ("theseus-3", "float32", 45e6, 2.0, 0.88, (-0.04, 0.0)),
    ("theseus-3", "int8", 11e6, 6.0, 0.87, (-0.06, -0.01)),
    ("plain-3", "int8", 11e6, 6.0, 0.86, (-0.06, -0.019)),
    ("theseus-3", "int4", 6e6, 7.0, 0.60, (-0.35, -0.25)),  # loses too much
]


def cells(**drift):
    made = {}
    for name, form, size, faster, accuracy, (low, high) in FILES:
        pair = {"difference": accuracy - 0.9, "low": low, "high": high}
        file = {"format": form, "bytes": int(size), "times_as_fast": faster, "accuracy": accuracy}
        file |= {"vs_predecessor": pair, "drift": drift.get(form), "gzip_bytes": 1}
        file |= {"latency_ms_p50": 10 / faster, "latency_ms_p90": 10 / faster}
        made.setdefault(name, []).append(file)
    right = np.arange(30) < 20
    return [cell("a", name, 0, right, files=files) for name, files in made.items()]


def shipped(tmp_path, made):
    return {row["best"]: f"{row['name']} {row['format']}" for row in report(tmp_path, made)["ship"]}


def test_the_best_files_by_hand(tmp_path):
    assert shipped(tmp_path, cells()) == {
        "smallest": "theseus-3 int8",  # as small as plain-3's, and more accurate
        "fastest": "theseus-3 int8",
        "most accurate": "predecessor int8",
    }


def test_a_file_that_drifts_is_shipped_only_where_it_was_allowed():
    entries = cells(int8="far off")
    names = [f"{row['name']} {row['format']}" for row in to_ship(entries)]
    assert names == ["theseus-3 float32", "theseus-3 float32", "predecessor float32"]
    assert to_ship(entries, drifted=True)[0]["format"] == "int8"


def test_several_seeds_and_old_cells_have_nothing_to_ship(tmp_path):
    made = cells()
    assert shipped(tmp_path / "seeds", [*made, {**made[1], "seed": 1}]) == {}
    for file in made[0]["files"] + made[1]["files"] + made[2]["files"]:
        del file["vs_predecessor"]
    assert shipped(tmp_path / "old", made) == {}


def test_the_report_ends_with_it_and_says_where_rounding_alone_wins(tmp_path):
    found = report(tmp_path, cells())
    lead, more = headline(found)[-1]
    assert lead.startswith(
        "To ship, of the files that are not shown to lose more than 2 points: "
        "theseus-3 int8 is smallest and fastest (11.0 MB, 87.0 %, -3.0 [-6.0, -1.0] points); "
        "predecessor int8 is most accurate (23.0 MB, 91.0 %"
    )
    assert more.startswith("The most accurate of them is the predecessor itself, rounded")
    assert more.endswith(
        "theseus-3 int8 does lose more; the test texts are too few to tell. "
        "Measure it on more before you ship it."
    )
    title, note, header, rows = [*tables(found)][-1]
    assert title == "What to ship" and [row[0] for row in rows] == [
        "smallest",
        "fastest",
        "most accurate",
    ]


def test_no_file_is_told_to_ship_that_loses_too_much(tmp_path):
    made = cells()
    made[1]["files"] = made[1]["files"][-1:]  # int4 alone
    assert "theseus-3 int4" not in shipped(tmp_path, made).values()


def test_a_file_that_is_best_in_all_is_named_once(tmp_path):
    lead, _ = headline(report(tmp_path, cells()[:1]))[-1]  # the predecessor's files alone
    assert "predecessor int8 is smallest, fastest and most accurate (" in lead
