import json

import numpy as np
import pytest

from keras_compress.experiment import compare as study
from keras_compress.experiment.plots import curves_figure
from keras_compress.measure.accuracy import score_predictions


def cell(data, method, seed, correct):
    correct = np.array(correct, bool)
    return study.study_cell(
        data,
        method,
        seed,
        {
            "metric": "accuracy",
            "value": correct.mean(),
            "se": 0.0,
            "n": len(correct),
            "scores": correct,
        },
    )


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


def test_rows_by_hand():
    rows = {row["method"]: row for row in study.pool_cells(json.loads(json.dumps(CELLS)))}
    assert list(rows) == ["predecessor", "theseus-3", "plain-3", "truncated-3", "majority"]
    row = rows["theseus-3"]
    assert (row["accuracy"], row["seeds"], row["num_examples"]) == (0.625, [0, 1], 4)
    assert row["seed_spread"] == pytest.approx(0.25 / 2**0.5)
    assert row["accuracy_se"] == pytest.approx(np.std([1, 1, 0.5, 0]) / 2)
    # truncated-3 (mean .375) is better than plain-3 (.25); per example 0, .5, .5, 0
    assert (
        row["vs_baseline"]["baseline"] == "truncated-3" and row["vs_baseline"]["difference"] == 0.25
    )
    assert row["vs_baseline"]["se"] == pytest.approx(0.125)
    assert row["vs_predecessor"]["difference"] == -0.375
    assert rows["plain-3"]["vs_baseline"] is None and rows["predecessor"]["vs_predecessor"] is None


def test_only_shared_seeds_are_compared():
    cells = [cell for cell in CELLS if (cell["method"], cell["seed"]) != ("truncated-3", 1)]
    (row,) = (row for row in study.pool_cells(cells) if row["method"] == "theseus-3")
    assert (
        row["vs_baseline"]["baseline"] == "truncated-3"
        and row["vs_baseline"]["difference"] == 0.75 - 0.5
    )


def test_what_no_seed_changes_is_set_against_all_seeds():
    """An untrained copy of the predecessor has one cell: what it wins is chance, so all of it must be averaged out."""
    made, trained = (
        {"steps": [{"method": "finetune"}, {"method": method}]}
        for method in ("vocabulary", "albert")
    )
    cells = [
        {**cell("a", "vocabulary", 0, [1, 1, 0, 0]), **made},
        {**cell("a", "control", 0, [1, 0, 0, 0]), **trained},
        {**cell("a", "control", 1, [1, 1, 1, 0]), **trained},
    ]
    rows = {row["method"]: row for row in study.pool_cells(cells)}
    assert rows["vocabulary"]["seeds"] == [] and rows["control"]["seeds"] == [0, 1]
    assert rows["vocabulary"]["vs_baseline"]["difference"] == 0
    assert study.pool_differences(cells, "vocabulary", ("control",))["by_seed"] == pytest.approx(
        [0.25, -0.25]
    )
    assert study.pool_differences(cells, "control", ("vocabulary",))["difference"] == 0
    tuned = [{**one, "method": "vocabulary-tuned"} for one in cells[1:]]  # no size of `vocabulary`
    assert study.pool_differences(cells + tuned, "vocabulary-tuned", ("vocabulary",))[
        "by_seed"
    ] == [-0.25, 0.25]
    assert "| vocabulary | 50.0 ± 25.0 | – | +0.0 [" in study.study_table(
        cells
    ) and " | – | 4 |" in study.study_table(cells)


def test_pooled_difference_averages_sizes_per_example_and_sets_equally():
    more = [
        cell("a", "theseus-2", 0, [1, 0, 0, 0]),
        cell("a", "plain-2", 0, [0, 0, 1, 0]),
        cell("b", "theseus-3", 0, [1, 1]),
        cell("b", "plain-3", 0, [1, 0]),
    ]
    first = [cell for cell in CELLS if cell["seed"] == 0]
    pooled = study.pool_differences(first + more, "theseus")
    # set a: size 3 minus truncated-3: 0 0 1 0; size 2: 1 0 -1 0; averaged .5 0 0 0: mean .125, se .2165 / 2
    # set b: 0 1: mean .5, se .5 / sqrt 2
    se_a, se_b = np.std([0.5, 0, 0, 0]) / 2, 0.5 / 2**0.5
    assert pooled["difference"] == pytest.approx((0.125 + 0.5) / 2) and [*pooled["by_set"]] == [
        "a",
        "b",
    ]
    assert pooled["se"] == pytest.approx((se_a**2 + se_b**2) ** 0.5 / 2)
    assert pooled["by_seed"] == pytest.approx([(0.125 + 0.5) / 2])
    more = study.pool_differences(
        CELLS, "theseus"
    )  # set a alone: seed 0: .75 - .5, seed 1: .5 - .25
    assert more["by_seed"] == pytest.approx([0.25, 0.25])
    assert study.pool_differences(CELLS, "tinybert") is None


def test_sizes_count_the_same_however_many_seeds_they_have():
    two = [cell("a", "theseus-2", 0, [1, 1, 1, 1]), cell("a", "plain-2", 0, [0, 0, 0, 0])]
    # size 3 minus truncated-3, 2 seeds: +1/4 each; size 2 minus plain-2, 1 seed: +1: not (1/4 + 1/4 + 1) / 3
    pooled = study.pool_differences(CELLS + two, "theseus")
    assert pooled["difference"] == pytest.approx((0.25 + 1) / 2) and pooled[
        "by_seed"
    ] == pytest.approx([(0.25 + 1) / 2])


def test_table_with_costs_and_variants():
    cost = {
        "method": "theseus-3",
        "float32": {"bytes": 2e6, "times_as_fast": 1.5},
        "device": "a phone",
        "threads": 1,
        "int8": {"bytes": 5e5, "times_as_fast": 4.0},
        "sequence_length": 64,
    }
    cells = CELLS + [cell("a", "theseus-bottom-3", 0, [1, 0, 1, 0])]
    table = study.study_table(cells, {"theseus-3": cost})
    assert (
        "| 2.0 / 0.5 | 1.50 / 4.00 |" in table and "a phone, 1 thread, batch 1, 64 pieces" in table
    )
    # seed 0: 1 0 1 0 minus 1 1 1 0
    assert "theseus-bottom minus theseus, the same seeds, data sets and sizes: -25.0 [" in table
    assert "MB float" not in study.study_table(cells) and "theseus minus plain" not in table


def test_tagging_cells():
    tags = ("O", "B-X")
    gold = [[1, 0], [0, 1], [1, 1]]
    right = [["B-X", "O"], ["O", "B-X"], ["B-X", "B-X"]]
    wrong = [["B-X", "O"], ["O", "O"], ["B-X", "B-X"]]
    cells = [
        study.study_cell(
            "t", method, 0, score_predictions("tagging", tags, gold, predicted), dev=0.9
        )
        for method, predicted in (("theseus-3", right), ("plain-3", wrong))
    ]
    row = study.pool_cells(cells)[0]
    assert (row["metric"], row["accuracy"], cells[0]["dev"]) == ("entity_f1", 1, 0.9)
    assert row["vs_baseline"]["difference"] == pytest.approx(1 - 6 / 7)
    assert "entity F1" in study.study_table(cells)


def test_table_and_picture():
    lines = study.study_table(CELLS).splitlines()
    assert lines[3] == (
        "| a | theseus-3 | 62.5 ± 20.7 | 17.7 | +25.0 [+0.5, +49.5] (truncated-3) "
        "| -37.5 [-78.1, +3.1] | 0, 1 | 4 |"
    )
    assert lines[-1].startswith(
        "theseus minus the better of plain, truncated, pooled over 1 data set and all sizes: "
        "+25.0 ["
    )
    assert study.study_picture(CELLS).startswith(b"\x89PNG")


def test_files_are_rows_and_a_control_is_the_baseline():
    control, small = (
        cell("a", "control", 0, [1, 1, 1, 0]),
        cell("a", "static-int8", 0, [1, 1, 1, 1]),
    )
    packed = cell("a", "x", 0, [1, 0, 0, 0])["correct"]
    control["files"] = [
        {"format": "int8", "bytes": 2_000_000, "gzip_bytes": 1_500_000, "correct": packed}
    ]
    small["files"] = []
    rows = {row["method"]: row for row in study.pool_cells([*CELLS, control, small])}
    file = rows["control:int8"]
    assert (file["accuracy"], file["bytes"], file["gzip_bytes"]) == (0.25, 2_000_000, 1_500_000)
    assert (
        file["vs_baseline"]["baseline"] == "control" and file["vs_baseline"]["difference"] == -0.5
    )
    assert (
        rows["static-int8"]["vs_baseline"]["difference"] == 0.25
        and rows["static-int8"]["bytes"] is None
    )
    assert rows["theseus-3"]["vs_baseline"]["baseline"] == "control"
    assert rows["control"]["vs_baseline"] is rows["predecessor"]["vs_baseline"] is None
    table = study.study_table([*CELLS, control, small])
    assert (
        "| file, MB | gzip, MB |" in table and "| 2.00 | 1.50 |" in table and "| – | – |" in table
    )
    assert "file, MB" not in study.study_table(CELLS)
    small["files"] = [
        {**control["files"][0], "correct": cell("a", "x", 0, [1, 1, 1, 0])["correct"]}
    ]
    lines = [
        line.split(", pooled")[0]
        for line in study.study_table([control, small]).splitlines()
        if "pooled" in line
    ]
    assert lines == [
        "control:int8 minus control",
        "static-int8:int8 minus control",
        "static-int8:int8 minus control:int8",
    ]
    rounded = study.pool_differences([control, small], "static-int8:int8", ("control:int8",))
    assert (
        rounded["difference"] == 0.5
        and study.pool_differences([control, small], "control:int8", ("control",))["difference"]
        == -0.5
    )


def test_with_a_control_each_method_is_pooled_against_it_and_a_variant_against_its_family():
    cells = [
        cell("a", "control", 0, [1, 1, 0, 0]),
        cell("a", "narrow-8", 0, [1, 1, 1, 0]),
        cell("a", "narrow-4", 0, [1, 0, 0, 0]),
        cell("a", "narrow-taught-8", 0, [1, 1, 1, 1]),
        cell("b", "control", 0, [0, 1]),
        cell("b", "narrow-8", 0, [1, 1]),
    ]
    table = study.study_table(cells)
    # a: .75 - .5 = .25; b: 1 - .5 = .5; the other size of the family does not count
    assert "narrow-8 minus control, pooled over 2 data sets: +37.5 [" in table
    assert "; seed by seed +37.5; a +25.0 [-17.4, +67.4], b +50.0 [" in table
    assert "narrow-4 minus control, pooled over 1 data set: -25.0 [" in table
    assert "narrow-taught minus narrow, the same seeds, data sets and sizes: +25.0 [" in table
    assert "better of plain" not in table and "control minus" not in table
    assert study.pool_cells(cells)[0]["pretraining"] is None and study.curves_picture(cells) is None
    asked = study.study_table(
        cells, compare=["narrow-4 minus narrow-8", "narrow-4 minus shared"]
    ).splitlines()[-1]
    assert asked.startswith("narrow-4 minus narrow-8, the same seeds and data sets: -50.0 [")


def test_what_pretraining_brings_is_the_mean_over_seeds(monkeypatch):
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
        {**cell("a", "small-sop", seed, [1, 0]), "parameters": 1234, "settings": [entry(*facts)]}
        for seed, facts in enumerate([(0.2, 0.6), (0.3, 0.8)])
    ]
    for row in (
        without := {**cell("a", "small-none", 0, [1, 0]), "settings": [entry(0.1, None)]},
        *without["settings"][0]["curve"],
    ):
        row.pop("dev_sentence", None)
    cells += [without, cell("a", "predecessor", 0, [1, 1])]
    rows = {row["method"]: row for row in study.pool_cells(cells)}
    made = rows["small-sop"]["pretraining"]
    assert (made["dev"], made["sentence_accuracy"], made["sentence_se"]) == pytest.approx(
        (0.25, 0.7, 0.05)
    )
    assert made["curve"] == [
        {"step": 5, "dev": 0, "dev_sentence": 0.5},
        {"step": 9, "dev": pytest.approx(0.25), "dev_sentence": pytest.approx(0.7)},
    ]
    assert rows["small-none"]["pretraining"]["curve"][-1] == {"step": 9, "dev": 0.1}
    assert rows["predecessor"]["pretraining"] is None
    table = study.study_table(cells)
    assert "| 1,234 | 25.0 | 70.0 ± 5.0 | 55.0 |" in table and "| – | 10.0 | – | – |" in table
    assert "| – | – | – | – |" in table
    assert study.curves_picture(cells).startswith(b"\x89PNG")
    monkeypatch.setattr("keras_compress.experiment.plots.to_png", lambda figure: figure)
    words, sentences = study.curves_picture([*cells, {**cells[0], "method": "large-sop"}]).axes
    by_length = [line for line in sentences.lines if np.allclose(line.get_ydata(), 55)]
    assert len(by_length) == 1 and not any(
        np.allclose(line.get_ydata(), 55) for line in words.lines
    )
    colours = {label.get_text(): label.get_color() for label in words.texts}
    assert colours["small-sop"] == colours["small-none"] != colours["large-sop"]


def test_labels_of_curves_keep_their_distance_in_every_panel():
    curves = {
        f"a-{i}": [
            {"step": 1, "dev": 0, "loss": 5},
            {"step": 2, "dev": 0.5 + 0.001 * i, "loss": 1 + 0.001 * i},
        ]
        for i in range(5)
    }
    upper, lower = curves_figure(curves, [("dev", "a", 100), ("loss", "b", 1)], height=7.2).axes
    for axes in (upper, lower):
        levels = [label.get_position()[1] for label in axes.texts]
        assert min(np.diff(levels)) > 0.06 * np.diff(axes.get_ylim())


def test_costs_that_depend_on_the_data():
    cost = {
        "float32": {"bytes": 2e6, "times_as_fast": 1.0},
        "int8": {"bytes": 5e5, "times_as_fast": 4.0},
        "device": "a phone",
        "threads": 1,
        "sequence_length": 64,
    }
    other = {**cost, "float32": {"bytes": 3e6, "times_as_fast": 1.0}}
    cells = [cell(data, method, 0, [1, 0]) for data in "ab" for method in ("short", "narrow-8")]
    lines = study.study_table(
        cells, {"a-short": cost, "b-short": other, "narrow-8": cost}
    ).splitlines()
    found = {tuple(line.split(" | ")[:2]): line for line in lines if line.startswith("| ")}
    assert "| 2.0 / 0.5 |" in found["| a", "short"] and "| 3.0 / 0.5 |" in found["| b", "short"]
    assert (
        "| 2.0 / 0.5 |" in found["| a", "narrow-8"] and "| 2.0 / 0.5 |" in found["| b", "narrow-8"]
    )
