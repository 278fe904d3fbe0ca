import random

from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.measure import baselines


def dataset(task, labels, train, dev, test):
    splits = {
        name: Split(*map(list, zip(*rows))) if rows else None
        for name, rows in (("train", train), ("dev", dev), ("test", test))
    }
    return Dataset("toy", task, labels, **splits)


def test_classification():
    rows = [
        ("turn on the light", 0),
        ("switch the lamp on", 0),
        ("the light please", 0),
        ("wake me at ten", 1),
        ("set an alarm", 1),
    ]
    toy = dataset(
        "classification", ("light", "alarm"), rows, rows, [("the light", 0), ("alarm at ten", 1)]
    )
    (majority, guessed), (tfidf, learned) = baselines.baselines(toy)
    assert (majority["name"], guessed["value"]) == ("majority", 0.5)
    assert (tfidf["name"], learned["value"], learned["n"]) == ("tfidf", 1, 2)
    assert guessed["predictions"].tolist() == [0, 0] and learned["scores"].tolist() == [True, True]
    assert "word 1-2 grams, C = 0.03 (dev accuracy" in learned["choice"]  # ties: the smallest


def test_chinese_uses_characters():
    rows = [("打开客厅的灯", 0), ("把灯关掉", 0), ("明天七点叫醒我", 1), ("定一个闹钟", 1)]
    toy = dataset("classification", ("灯", "闹钟"), rows, rows, [("开灯", 0), ("闹钟七点", 1)])
    _, result = baselines.tfidf(toy)
    assert result["value"] == 1 and result["choice"].startswith("character 1-3 grams")


def test_matching_sees_whether_two_texts_are_alike():
    words = (
        "red green blue cold warm small large old new far near round flat empty full open".split()
    )
    generator, rows = random.Random(0), []
    for position in range(400):
        four = generator.sample(words, 4)
        rows.append(
            ((f"a {four[0]} {four[1]} house", f"the house is {four[0]} {four[1]}"), 1)
            if position % 2
            else ((f"a {four[0]} {four[1]} house", f"the house is {four[2]} {four[3]}"), 0)
        )
    toy = dataset("matching", ("different", "same"), rows[:200], rows[200:300], rows[300:])
    assert baselines.tfidf(toy)[1]["value"] > 0.95


def test_tagging_takes_the_most_frequent_tag_of_each_word():
    labels = ("O", "B-city", "I-city")
    train = [("fly to york", [0, 0, 1]), ("new york", [1, 2]), ("york now", [1, 0])]
    toy = dataset(
        "tagging", labels, train, None, [("new york tomorrow", [1, 2, 0]), ("to york", [0, 1])]
    )
    ((row, result),) = baselines.baselines(toy)
    assert result["predictions"] == [["B-city", "B-city", "O"], ["O", "B-city"]]
    # one entity of 2 right, 3 predicted: F1 = 2 / 5
    assert (row["name"], result["metric"], result["value"]) == ("majority", "entity_f1", 0.4)


def test_a_new_word_takes_the_most_frequent_part_of_speech():
    train = [("the cat", [0, 1]), ("a dog", [0, 1]), ("dog", [1])]
    toy = dataset("tagging", ("DET", "NOUN"), train, None, [("the bird", [0, 1])])
    ((_, result),) = baselines.baselines(toy)
    assert result["predictions"] == [["DET", "NOUN"]] and result["metric"] == "token_accuracy"


def test_sets_of_names():
    rows = [("turn on the light", [0]), ("set an alarm", [1]), ("light and alarm", [0, 1])]
    rows = [*rows, *rows, ("hello", []), ("lamp light", [0])]
    toy = dataset("multilabel", ("light", "alarm"), rows, rows, [("alarm and light", [1, 0])])
    (_, guessed), (tfidf, learned) = baselines.baselines(toy)
    assert guessed["choice"] == "always ['light']" and guessed["scores"].tolist() == [[1, 1, 2]]
    assert learned["value"] == 1 and "(dev micro F1" in learned["choice"]
    assert tfidf["parameters"] % 2 == 0  # a machine for each name


def test_scores_of_pairs():
    rows = [(("a b c", "a b c"), 5.0), (("a b c", "a x y"), 2.0), (("a b", "x y"), 0.0)] * 3
    toy = dataset("regression", ("score",), rows, rows, rows)
    (_, guessed), (_, learned) = baselines.baselines(toy)
    assert guessed["value"] == 0 and guessed["choice"] == "always 2.33333"
    assert learned["value"] > 0.95 and "(dev Pearson correlation" in learned["choice"]
