import json

import numpy as np
import pytest

from keras_compress.experiment import compare
from keras_compress.experiment.compare import cell_of, entries_of, pool, pool_cells
from keras_compress.experiment.report import table_text
from keras_compress.measure.accuracy import score_predictions
from tests.experiment.cells import cell, report

CELLS = [
    cell("a", "predecessor", 0, [1, 1, 1, 1]),
    cell("a", "theseus-3", 0, [1, 1, 1, 0]),
    cell("a", "theseus-3", 1, [1, 1, 0, 0]),
    cell("a", "plain-3", 0, [1, 0, 0, 0]),
    cell("a", "plain-3", 1, [1, 0, 0, 0]),
    cell("a", "truncated-3", 0, [1, 1, 0, 0]),
    cell("a", "truncated-3", 1, [1, 0, 0, 0]),
    cell("a", "majority", 0, [0, 0, 0, 1]),
]
BASES = ["plain", "truncated", "spread"]


def pooled(cells, left, right):
    return pool(entries_of(cells), left, right)


def rows_of(cells):
    return {row["method"]: row for row in pool_cells(entries_of(json.loads(json.dumps(cells))))}


def test_rows_by_hand():
    rows = rows_of(CELLS)
    assert list(rows) == ["predecessor", "theseus-3", "plain-3", "truncated-3", "majority"]
    row = rows["theseus-3"]
    assert (row["accuracy"], row["seeds"], row["num_examples"]) == (0.625, [0, 1], 4)
    assert row["seed_spread"] == pytest.approx(0.25 / 2**0.5)
    assert row["accuracy_se"] == pytest.approx(np.std([1, 1, 0.5, 0]) / 2)
    # truncated-3 (mean .375) is better than plain-3 (.25); per example 0, .5, .5, 0
    better = row["vs_baseline"]
    assert better["baseline"] == "truncated-3" and better["difference"] == 0.25
    assert better["se"] == pytest.approx(0.125) and row["vs_predecessor"]["difference"] == -0.375
    assert rows["plain-3"]["vs_baseline"] is None and rows["predecessor"]["vs_predecessor"] is None


def test_only_shared_seeds_are_compared():
    cells = [one for one in CELLS if (one["method"], one["seed"]) != ("truncated-3", 1)]
    better = rows_of(cells)["theseus-3"]["vs_baseline"]
    assert better["baseline"] == "truncated-3" and better["difference"] == 0.75 - 0.5


def test_what_no_seed_changes_is_set_against_all_seeds():
    """An untrained copy of the predecessor has one cell: what it wins by chance must be averaged out."""
    cells = [
        cell("a", "vocabulary", 0, [1, 1, 0, 0], trained=False),
        cell("a", "control", 0, [1, 0, 0, 0]),
        cell("a", "control", 1, [1, 1, 1, 0]),
    ]
    rows = rows_of(cells)
    assert rows["vocabulary"]["seeds"] == [] and rows["control"]["seeds"] == [0, 1]
    assert rows["vocabulary"]["vs_baseline"]["difference"] == 0
    found = pooled(cells, "vocabulary", ["control"])
    assert found["by_seed"] == pytest.approx([0.25, -0.25])
    assert pooled(cells, "control", ["vocabulary"])["difference"] == 0


def test_pooled_difference_averages_sizes_per_example_and_sets_equally():
    more = [
        cell("a", "theseus-2", 0, [1, 0, 0, 0]),
        cell("a", "plain-2", 0, [0, 0, 1, 0]),
        cell("b", "theseus-3", 0, [1, 1]),
        cell("b", "plain-3", 0, [1, 0]),
    ]
    first = [one for one in CELLS if one["seed"] == 0]
    found = pooled(first + more, "theseus", BASES)
    # set a: size 3 minus truncated-3: 0 0 1 0; size 2: 1 0 -1 0; averaged .5 0 0 0: mean .125, se .2165 / 2
    # set b: 0 1: mean .5, se .5 / sqrt 2
    se_a, se_b = np.std([0.5, 0, 0, 0]) / 2, 0.5 / 2**0.5
    assert found["difference"] == pytest.approx((0.125 + 0.5) / 2)
    assert [*found["by_set"]] == ["a", "b"]
    assert found["se"] == pytest.approx((se_a**2 + se_b**2) ** 0.5 / 2)
    assert found["by_seed"] == pytest.approx([(0.125 + 0.5) / 2])
    alone = pooled(CELLS, "theseus", BASES)  # set a alone: seed 0: .75 - .5, seed 1: .5 - .25
    assert alone["by_seed"] == pytest.approx([0.25, 0.25])
    assert pooled(CELLS, "tinybert", BASES) is None


def test_sizes_count_the_same_however_many_seeds_they_have():
    two = [cell("a", "theseus-2", 0, [1, 1, 1, 1]), cell("a", "plain-2", 0, [0, 0, 0, 0])]
    # size 3 minus truncated-3, 2 seeds: +1/4 each; size 2 minus plain-2, 1 seed: +1: not (1/4 + 1/4 + 1) / 3
    found = pooled(CELLS + two, "theseus", BASES)
    assert found["difference"] == pytest.approx((0.25 + 1) / 2)
    assert found["by_seed"] == pytest.approx([(0.25 + 1) / 2])


COST = {
    "float32": {"bytes": 2e6, "times_as_fast": 1.5},
    "int8": {"bytes": 5e5, "times_as_fast": 4.0},
    "device": "a phone",
    "threads": 1,
    "sequence_length": 64,
}


def test_table_with_costs_and_families(tmp_path):
    cells = CELLS + [cell("a", "theseus-bottom-3", 0, [1, 0, 1, 0])]
    asked = ["each minus plain or truncated", "theseus-bottom minus theseus"]
    asked += ["theseus-bottom-3 minus plain-3"]
    table = table_text(report(tmp_path, cells, {"theseus-3": COST}, asked))
    assert "| 2.0 / 0.5 | 1.50 / 4.00 |" in table
    assert "a phone, 1 thread, batch 1, 64 pieces" in table
    line = (
        "| a | theseus-3 | 62.5 ± 20.7 | 17.7 | +25.0 [+0.5, +49.5] (truncated-3) "
        "| -37.5 [-78.1, +3.1] | 0, 1 | 4 | 2.0"
    )
    assert line in table
    better = "theseus minus the better of plain, truncated, pooled over 1 data set and all sizes: "
    assert better + "+25.0 [" in table
    # seed 0: 1 0 1 0 minus 1 1 1 0
    assert "theseus-bottom minus theseus, the same seeds, data sets and sizes: -25.0 [" in table
    assert "theseus-bottom-3 minus plain-3, the same seeds and data sets: +25.0 [" in table


def test_costs_that_depend_on_the_data_and_those_of_the_files(tmp_path):
    other = {**COST, "float32": {"bytes": 3e6, "times_as_fast": 1.0}}
    cells = [cell(data, method, 0, [1, 0]) for data in "ab" for method in ("short", "narrow-8")]
    own = {"bytes": 7e6, "times_as_fast": 1.0, "sequence_length": 9}
    files = [{"format": "float32", **own}, {"format": "int8", **own}]
    cells.append(cell("b", "new", 0, [1, 0], files=files))
    table = table_text(
        report(tmp_path, cells, {"a-short": COST, "b-short": other, "narrow-8": COST})
    )
    found = {tuple(line.split(" | ")[:2]): line for line in table.splitlines() if "| " in line}
    shown = {("| a", "short"): "2.0", ("| b", "short"): "3.0", ("| a", "narrow-8"): "2.0"}
    shown |= {("| b", "narrow-8"): "2.0"}
    assert all(f"| {size} / 0.5 |" in found[key] for key, size in shown.items())
    assert "| 7.0 / 7.0 |" in found["| b", "new"]


def test_tagging_cells(tmp_path):
    tags = ("O", "B-X")
    gold = [[1, 0], [0, 1], [1, 1]]
    right = [["B-X", "O"], ["O", "B-X"], ["B-X", "B-X"]]
    wrong = [["B-X", "O"], ["O", "O"], ["B-X", "B-X"]]
    cells = [
        cell_of(
            "t", name, 0, score_predictions("tagging", tags, gold, predicted), role=role, size=3
        )
        for name, role, predicted in (("small", None, right), ("plain", "baseline", wrong))
    ]
    row = rows_of(cells)["small"]
    assert (row["metric"], row["accuracy"]) == ("entity_f1", 1)
    assert row["vs_baseline"]["difference"] == pytest.approx(1 - 6 / 7)
    assert "Tagging sets: entity F1" in table_text(report(tmp_path, cells))


def test_tags_that_mark_no_entities_are_measured_by_token_accuracy(tmp_path):
    found = score_predictions("tagging", ("DET", "NOUN"), [[0, 1], [0]], [["DET", "DET"], ["DET"]])
    cells = [cell_of("t", "small", 0, found, size=3)]
    row = rows_of(cells)["small"]
    assert (row["metric"], row["accuracy"]) == ("token_accuracy", pytest.approx(2 / 3))
    assert "Tagging sets: token accuracy" in table_text(report(tmp_path, cells))


def test_files_are_rows_and_a_control_is_the_baseline(tmp_path):
    packed = cell("a", "x", 0, [1, 0, 0, 0])["correct"]
    file = {"format": "int8", "bytes": 2_000_000, "gzip_bytes": 1_500_000, "correct": packed}
    control = cell("a", "control", 0, [1, 1, 1, 0], files=[file])
    small = cell("a", "static-int8", 0, [1, 1, 1, 1], files=[{"format": "int4", "bytes": 9}])
    rows = rows_of([*CELLS, control, small])
    row = rows["control:int8"]
    assert (row["accuracy"], row["bytes"], row["gzip_bytes"]) == (0.25, 2_000_000, 1_500_000)
    assert row["vs_baseline"]["baseline"] == "control"
    assert row["vs_baseline"]["difference"] == -0.5 and "static-int8:int4" not in rows
    assert rows["static-int8"]["vs_baseline"]["difference"] == 0.25
    assert rows["static-int8"]["bytes"] is None
    assert rows["theseus-3"]["vs_baseline"]["baseline"] == "control"
    assert rows["control"]["vs_baseline"] is rows["predecessor"]["vs_baseline"] is None
    table = table_text(report(tmp_path / "one", [*CELLS, control, small]))
    assert "| file, MB | gzip, MB |" in table and "| 2.00 | 1.50 |" in table
    assert "| – | – |" in table and "file, MB" not in table_text(report(tmp_path / "two", CELLS))
    small["files"] = [{**file, "correct": cell("a", "x", 0, [1, 1, 1, 0])["correct"]}]
    lines = [
        text.split(", pooled")[0]
        for text, _ in compare.pooled_differences(entries_of([control, small]))
    ]
    assert sorted(lines) == [
        "control:int8 minus control",
        "static-int8:int8 minus control",
        "static-int8:int8 minus control:int8",
    ]
    assert pooled([control, small], "static-int8:int8", ["control:int8"])["difference"] == 0.5
    entries, asked = entries_of([control, small]), ["static-int8:int8 minus static-int8"]
    text, found = compare.pooled_differences(entries, asked)[-1]  # what rounding costs a model
    assert text.startswith(asked[0]) and found["difference"] == -0.25


def test_with_a_control_each_method_is_pooled_against_it(tmp_path):
    cells = [
        cell("a", "control", 0, [1, 1, 0, 0]),
        cell("a", "narrow-8", 0, [1, 1, 1, 0]),
        cell("a", "narrow-4", 0, [1, 0, 0, 0]),
        cell("b", "control", 0, [0, 1]),
        cell("b", "narrow-8", 0, [1, 1]),
    ]
    table = table_text(report(tmp_path, cells))
    # a: .75 - .5 = .25; b: 1 - .5 = .5; the other size of the family does not count
    assert "narrow-8 minus control, pooled over 2 data sets: +37.5 [" in table
    assert "; seed by seed +37.5; a +25.0 [-17.4, +67.4], b +50.0 [" in table
    assert "narrow-4 minus control, pooled over 1 data set: -25.0 [" in table
    assert "better of" not in table and "control minus" not in table


def test_what_pretraining_brings_is_the_mean_over_seeds(tmp_path):
    def entry(dev, sentences):
        curve = [
            {"step": 5, "dev": 0.0, "dev_sentence": 0.5},
            {"step": 9, "dev": dev, "dev_sentence": sentences},
        ]
        return {
            "method": "pretrain",
            "sentence_accuracy": sentences,
            "sentence_pairs": sentences and 42,
            "curve": curve,
            "sentence_by_length": sentences and 0.55,
        }

    cells = [
        cell("a", "small-sop", seed, [1, 0], parameters=1234, settings=[entry(*facts)])
        for seed, facts in enumerate([(0.2, 0.6), (0.3, 0.8)])
    ]
    without = cell("a", "small-none", 0, [1, 0], settings=[entry(0.1, None)])
    for row in without["settings"][0]["curve"]:
        row.pop("dev_sentence", None)
    cells += [without, cell("a", "predecessor", 0, [1, 1])]
    rows = rows_of(cells)
    made = rows["small-sop"]["pretraining"]
    figures = made["dev"], made["sentence_accuracy"], made["sentence_se"]
    assert figures == pytest.approx((0.25, 0.7, 0.05))
    assert made["curve"] == [
        {"step": 5, "dev": 0, "dev_sentence": 0.5},
        {"step": 9, "dev": pytest.approx(0.25), "dev_sentence": pytest.approx(0.7)},
    ]
    assert rows["small-none"]["pretraining"]["curve"][-1] == {"step": 9, "dev": 0.1}
    assert rows["predecessor"]["pretraining"] is None
    table = table_text(report(tmp_path, cells))
    assert "| 1,234 | 25.0 | 70.0 ± 5.0 | 55.0 |" in table and "| – | 10.0 | – | – |" in table
