import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from keras_compress.measure import accuracy

TAGS = ["O", "B-X", "I-X", "B-Y", "I-Y"]


def split(texts, labels):
    return SimpleNamespace(texts=texts, labels=labels)


def test_accuracy_and_standard_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
    model = SimpleNamespace(
        task="classification",
        labels=["a", "b"],
        threshold=0.5,
        predict=lambda texts: probabilities,
        history=[],
    )
    result = accuracy.evaluate(model, split(["t"] * 4, [0, 1, 1, 1]))
    assert (result["metric"], result["value"], result["n"]) == ("accuracy", 0.75, 4)
    assert result["se"] == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert result["predictions"].tolist() == [0, 1, 0, 1]
    assert result["confusion"].tolist() == [[1, 0], [1, 2]]
    # F1 of a: 2*1 / (2 + 1) = 2/3; of b: 2*2 / (2 + 3) = 4/5
    assert result["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)


LOADED = {"method": "load", "new": []}


@pytest.mark.parametrize(
    "right, classes, history, warned",
    [
        (7, 2, [LOADED], True),  # of 20: 35 %
        (8, 2, [LOADED], False),
        (4, 3, [LOADED], True),  # below half of 50 %, the most frequent of three
        (5, 3, [LOADED], False),
        (0, 2, [LOADED, {"method": "vocabulary"}], True),
        (0, 2, [LOADED, {"method": "finetune", "training": {}}], False),
        (0, 2, [{"method": "load", "new": ["classifier/bias"]}], False),
        (0, 2, [], False),
    ],
)
def test_a_head_from_elsewhere_far_below_the_majority_may_have_other_labels(
    right, classes, history, warned
):
    gold = [0] * 10 + [k % (classes - 1) + 1 for k in range(10)]
    answers = np.eye(classes)[[g if k < right else (g + 1) % classes for k, g in enumerate(gold)]]
    labels = ["neg", "pos", "neu"][:classes]
    model = SimpleNamespace(
        task="classification",
        labels=labels,
        threshold=0.5,
        predict=lambda texts: answers,
        history=history,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):  # a model, and a file of it: told once
            assert accuracy.evaluate(model, split(["t"] * 20, gold))["value"] == right / 20
    assert len(caught) == warned
    if warned:
        assert "another order than neg, pos, ... Where" in str(caught[0].message)
        assert "`--labels pos,neg`" in str(caught[0].message)


def test_macro_f1_leaves_out_a_class_that_never_occurs():
    assert accuracy.score_predictions("classification", "abc", [0, 1], [0, 1])["macro_f1"] == 1


def test_token_accuracy_by_hand():
    # tags that mark no entities: 3 of 4 and 0 of 1 words are right, 3 / 5
    predict = lambda texts: [(["w"] * 4, ["DET", "NOUN", "VERB", "DET"]), (["w"], ["DET"])]
    model = SimpleNamespace(
        task="tagging", labels=["DET", "NOUN", "VERB"], predict=predict, history=[]
    )
    result = accuracy.evaluate(model, split(["w w w w", "w"], [[0, 1, 2, 1], [1]]))
    assert (result["metric"], result["value"]) == ("token_accuracy", 0.6)
    # half of the resamples hold both sentences, a quarter each one twice: .75, .6, .6, 0
    assert result["se"] == pytest.approx(np.std([0.75, 0.6, 0.6, 0]), abs=0.02)
    scores = result["scores"]
    assert accuracy.paired_difference("token_accuracy", scores, scores)["high"] == 0


def test_entity_f1_by_hand():
    # sentence 1: gold X(0,2) Y(3,4); predicted X(0,2) Y(2,4): 1 right of 2 and 2
    # sentence 2: gold X(0,1); none predicted: 0 right of 0 and 1
    predict = lambda texts: [(["w"] * 4, ["B-X", "I-X", "B-Y", "I-Y"]), (["w"], ["O"])]
    model = SimpleNamespace(task="tagging", labels=TAGS, predict=predict, history=[])
    result = accuracy.evaluate(model, split(["w w w w", "w"], [[1, 2, 0, 3], [1]]))
    assert result["scores"].tolist() == [[1, 2, 2], [0, 0, 1]]
    assert result["metric"] == "entity_f1" and result["value"] == pytest.approx(2 * 1 / (2 + 3))
    assert result["predictions"][1] == ["O"]
    assert result["confusion"].sum() == 5
    # the 4 equally likely resamples have F1 1/2, 2/5, 2/5 and 0: standard deviation .1923
    assert result["se"] == pytest.approx(np.std([0.5, 0.4, 0.4, 0]), abs=0.02)


def test_paired_difference_by_hand():
    # differences 1, 0, 0, -1, 1: mean .2, standard deviation sqrt(3/5 - .04) = .7483, se .3347
    a, b = np.array([1, 1, 0, 0, 1], bool), np.array([0, 1, 0, 1, 0], bool)
    result = accuracy.paired_difference("accuracy", a, b)
    assert (
        result["difference"] == pytest.approx(0.2)
        and result["n"] == 5
        and result["seed_spread"] is None
    )
    assert result["se"] == pytest.approx(0.33466, abs=1e-5)
    assert (result["low"], result["high"]) == pytest.approx(
        (0.2 - 1.96 * 0.33466, 0.2 + 1.96 * 0.33466), abs=1e-4
    )


def test_paired_difference_averages_seeds_per_example_first():
    a, b = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool), np.array([[0, 0, 0, 1]], bool)
    result = accuracy.paired_difference("accuracy", a, b)
    # per example 1, .5, 0, -1; per seed .5 - .25 and .25 - .25, standard deviation .25 / sqrt 2
    assert result["difference"] == 0.125
    assert result["se"] == pytest.approx(np.std([1, 0.5, 0, -1]) / 2)
    assert result["seed_spread"] == pytest.approx(0.25 / 2**0.5)


def test_paired_bootstrap_of_f1():
    generator = np.random.default_rng(0)
    right = generator.integers(0, 3, 200)
    b = np.stack([right, np.full(200, 2), np.full(200, 2)], axis=1)
    a = np.minimum(b + [1, 0, 0], 2)  # better or equal in every sentence
    assert (
        accuracy.paired_difference("entity_f1", b, b)["high"] == 0
    )  # identity: the resamples are the same
    result = accuracy.paired_difference("entity_f1", a, b)
    gain = (a[:, 0] - b[:, 0]) / 2  # here F1 is the mean of right / 2
    assert result["difference"] == pytest.approx(gain.mean())
    assert result["se"] == pytest.approx(gain.std() / 200**0.5, rel=0.1)
    assert result["low"] > 0
    assert accuracy.paired_difference("entity_f1", np.stack([a, b]), b)[
        "difference"
    ] == pytest.approx(gain.mean() / 2)


def test_interval_covers_the_truth():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        a, b = generator.random(300) < 0.85, generator.random(300) < 0.80
        result = accuracy.paired_difference("accuracy", a, b)
        covered += result["low"] <= 0.05 <= result["high"]
    assert abs(covered / 400 - 0.95) < 4 * (0.95 * 0.05 / 400) ** 0.5


def test_agreement():
    assert accuracy.agreement(np.array([0, 1, 2, 1]), np.array([0, 1, 1, 1])) == 0.75
    assert accuracy.agreement([["O", "B-X"], ["O"]], [["O", "O"], ["O"]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("n", [1, 7, 8, 1500])
def test_scores_survive_packing(n):
    generator = np.random.default_rng(n)
    few, many = generator.integers(0, 256, (n, 3)), generator.integers(256, 600, (n, 3))
    for scores in (generator.random(n) < 0.5, few, many):
        packed = accuracy.pack_correct(scores)
        np.testing.assert_array_equal(accuracy.unpack_correct(packed, n), scores)


def test_errors():
    with pytest.raises(ValueError, match="must have labels"):
        accuracy.evaluate(None, None)
    with pytest.raises(ValueError, match="3 and 4"):
        accuracy.paired_difference("accuracy", np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="9 packed scores"):
        accuracy.unpack_correct("ff", 9)


def test_sets_of_names_by_hand():
    # gold ab, -, b; predicted a, a, ab: right 1, 0, 1; predicted 1, 1, 2; gold 2, 0, 1
    predicted = np.array([[1, 0], [1, 0], [1, 1]], bool)
    result = accuracy.score_predictions("multilabel", "ab", [[0, 1], [], [1]], predicted)
    assert result["scores"].tolist() == [[1, 1, 2], [0, 1, 0], [1, 2, 1]]
    assert result["metric"] == "micro_f1" and result["value"] == pytest.approx(2 * 2 / (4 + 3))
    # a: 2 * 1 / (3 + 1); b: 2 * 1 / (1 + 2)
    assert result["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 2) and "confusion" not in result
    assert accuracy.agreement(predicted, ~predicted) == 0


def test_the_threshold_is_the_best_on_dev_and_nearest_to_half():
    probabilities = np.array([[0.32, 0.1], [0.22, 0.31]])
    model = SimpleNamespace(
        task="multilabel",
        labels="ab",
        threshold=0.5,
        predict=lambda texts: probabilities,
        history=[],
    )
    dev = split(["t"] * 2, [[0], [1]])
    assert accuracy.evaluate(model, dev)["value"] == 0  # nothing reaches a half
    assert accuracy.evaluate(model, dev, choose_threshold=True)["value"] == 1
    assert model.threshold == 0.3  # .25 is as good
    assert accuracy.evaluate(model, dev)["value"] == 1


def test_correlations_by_hand():
    # x 1 2 3 4, y 1 3 2 4 (+ 100): r = 4 / 5, of ranks, too; MSE 100^2 + (0 + 1 + 1 + 0) / 4 of y - x
    gold, predicted = [101.0, 103.0, 102.0, 104.0], np.float32([1, 2, 3, 4])
    result = accuracy.score_predictions("regression", ("score",), gold, predicted)
    assert (result["metric"], result["n"]) == ("pearson", 4)
    assert result["value"] == pytest.approx(0.8) and result["spearman"] == pytest.approx(0.8)
    assert result["mse"] == pytest.approx(100**2 + 0.5)
    assert accuracy.agreement(predicted, predicted) is None
    constant = np.full(4, 0.1, np.float32)
    none = accuracy.score_predictions("regression", ("score",), gold, constant)
    assert (none["value"], none["se"], none["spearman"]) == (0, 0, 0)


def test_paired_difference_and_packing_of_numbers():
    random = np.random.default_rng(0)
    gold = random.normal(size=200)
    good, bad = (gold + spread * random.normal(size=200) for spread in (0.1, 1.0))
    scores = [np.stack([each, gold], axis=-1).astype(np.float32) for each in (good, bad)]
    pair = accuracy.paired_difference("pearson", *scores)
    expected = np.corrcoef(good, gold)[0, 1] - np.corrcoef(bad, gold)[0, 1]
    assert pair["difference"] == pytest.approx(expected, abs=1e-6) and pair["low"] > 0
    assert accuracy.paired_difference("pearson", scores[0], scores[0])["high"] == 0
    again = accuracy.unpack_correct(accuracy.pack_correct(scores[0]), 200)
    np.testing.assert_array_equal(again, scores[0])
