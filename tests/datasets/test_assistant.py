import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from keras_compress.datasets import assistant

SPLITS = ("train", "dev", "test")
LANGUAGES = ("en", "zh")
TASKS = ("classification", "tagging", "matching")
# The data never change: results of different days are compared. A new hash needs new figures in data/README.md.
HASHES = {
    ("en", "classification"): "a5b2630538a46962",
    ("en", "tagging"): "e4d790fc70600eea",
    ("en", "matching"): "ff06ce881190372e",
    ("zh", "classification"): "8ed3137c25793c33",
    ("zh", "tagging"): "24ffadf569f611e3",
    ("zh", "matching"): "1d835ff284e40a21",
}


def hash_of(language, task):
    dataset = assistant.load(language, task)
    content = [dataset.labels, *[getattr(dataset, split) for split in SPLITS]]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]


def expand(template):
    """Every text that the alternatives of a template can give, without commas and marks."""
    parts = [
        part.split("|") if place % 2 else [part]
        for place, part in enumerate(re.split(r"\(([^()]*)\)", template))
    ]
    return {
        re.sub(r"[\s,，!]+", " ", "".join(choice)).strip() for choice in itertools.product(*parts)
    }


def padded(text):
    return f" {re.sub(r'[^a-z0-9 ]', ' ', text.lower())} " if text.isascii() else text


@pytest.mark.parametrize("language, task", list(itertools.product(LANGUAGES, TASKS)))
def test_content_is_pinned(language, task):
    assert hash_of(language, task) == HASHES[language, task]


def test_another_process_makes_the_same_without_tensorflow():
    code = (
        "import sys; from keras_compress.datasets import assistant; texts = assistant.load().train.texts;"
        "assert 'tensorflow' not in sys.modules; print(texts[0], texts[-1], sep='\\n')"
    )
    lines = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    texts = assistant.load().train.texts
    assert lines == [texts[0], texts[-1]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_sizes_balance_and_no_text_twice(language):
    dataset = assistant.load(language)
    sizes = [len(getattr(dataset, split).texts) for split in SPLITS]
    assert sizes == [5000, 1000, 1500] and len(dataset.labels) == 20
    for split, size in zip(SPLITS, sizes):
        assert set(Counter(getattr(dataset, split).labels).values()) == {size // 20}
    texts = [text for split in SPLITS for text in getattr(dataset, split).texts]
    assert len(set(texts)) == len(texts)
    assert not [text for text in texts if re.search(r"[{}()!|]", text)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_splits_share_no_template(language):
    grammar = assistant.grammar(language)
    for one, other in itertools.combinations(SPLITS, 2):
        frames = {split: sum(grammar["frames"][split].values(), []) for split in SPLITS}
        for table in (frames, *grammar["intents"].values()):
            first, second = (set().union(*map(expand, table[split])) for split in (one, other))
            assert not first & second


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_words_occur_in_their_split_only(language):
    grammar, utterances = assistant.grammar(language), assistant.utterances(language)
    texts = {split: [padded(said.text) for (said,) in utterances[split]] for split in SPLITS}
    counts = lambda split, word: sum(word in text for text in texts[split])  # noqa: E731
    for split, other in (("dev", "test"), ("test", "dev")):
        lexicon = {
            re.sub(r"\s*\{\w+\}\s*", "", words)
            for entry in grammar["lexicon"].values()
            for value in entry.get(split, [])
            for words in expand(value)
        }
        assert len(lexicon) > 40
        for word in map(padded, lexicon | set(grammar["held_out"][split])):
            assert counts("train", word) == counts(other, word) == 0, word
        assert all(counts(split, padded(word)) for word in grammar["held_out"][split])


def test_every_frame_and_template_is_well_formed():
    for language in LANGUAGES:
        grammar = assistant.grammar(language)
        for frames in grammar["frames"].values():
            assert list(frames) == [kind for kind in assistant.FRAMES if kind != "plain"]
            roles = {
                kind: {
                    "".join(sorted(role for role, _ in assistant.ROLE.findall(frame)))
                    for frame in frames[kind]
                }
                for kind in frames
            }
            assert roles == {
                "polite": {"1"},
                "order": {"12"},
                "negation": {"1x"},
                "correction": {"1x"},
                "fix": {"1fix"},
                "nested": {"12x"},
            }
        slots = {
            name
            for intent in grammar["intents"].values()
            for split in SPLITS
            for template in intent[split]
            for name in assistant.SLOT.findall(template)
        }
        assert all("tag" in grammar["lexicon"][name] for name in slots)


def test_label_is_what_is_carried_out_first():
    speaker = assistant.Speaker("en", "train")
    alarm = assistant.Command("alarm_set", {"time": "noon"}, "set an alarm for {time}")
    light = assistant.Command("light_on", {"room": "hall"}, "turn the {room} lights on")
    pieces = speaker.fill("{2}, but first {1}", {"1": alarm, "2": light})
    said = assistant.Utterance(pieces, [alarm, light], None, "")
    assert said.text == "turn the hall lights on, but first set an alarm for noon"
    words, tags = said.words_and_tags("en")
    assert " ".join(words) == "turn the hall lights on , but first set an alarm for noon"
    assert tags == ["O"] * 12 + ["B-time"]


def test_correction_of_a_slot_tags_the_right_value_only():
    speaker = assistant.Speaker("zh", "train")
    alarm = assistant.Command("alarm_set", {"time": "七点半"}, "定一个{time}的闹钟")
    pieces = speaker.fill("{1~}，不对，{fix}", {"1": alarm})
    said = assistant.Utterance(pieces, [alarm], None, "")
    words, tags = said.words_and_tags("zh")
    assert said.text.endswith("的闹钟，不对，七点半") and not said.text.startswith("定一个七点半")
    assert tags[-3:] == ["B-time", "I-time", "I-time"] and set(tags[:-3]) == {"O"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_tags_are_bio_and_one_per_word(language):
    dataset = assistant.load(language, "tagging")
    for split in SPLITS:
        for text, labels in zip(*getattr(dataset, split)):
            tags = [dataset.labels[label] for label in labels]
            assert len(text.split(" ")) == len(tags) and "" not in text.split(" ")
            assert all(
                tag[0] != "I" or before[1:] == tag[1:] for before, tag in zip(["O", *tags], tags)
            )
    used = {
        label for split in SPLITS for labels in getattr(dataset, split).labels for label in labels
    }
    assert used == set(range(len(dataset.labels)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_pairs_are_balanced_and_share_nothing_across_splits(language):
    dataset = assistant.load(language, "matching")
    assert [len(getattr(dataset, split).texts) for split in SPLITS] == [4000, 800, 1200]
    texts = [text for split in SPLITS for pair in getattr(dataset, split).texts for text in pair]
    assert len(set(texts)) == len(texts)
    assert all(
        sum(getattr(dataset, split).labels) * 2 == len(getattr(dataset, split).labels)
        for split in SPLITS
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("fr",), "the languages en, zh and .* Received: 'fr' and 'classification'"),
        (
            ("en", "parsing"),
            "the tasks classification, tagging, matching. Received: 'en' and 'parsing'",
        ),
    ],
)
def test_unknown_language_or_task(arguments, message):
    with pytest.raises(ValueError, match=message):
        assistant.load(*arguments)


@pytest.mark.parametrize("task", ["classification", "matching"])
def test_a_salt_makes_another_test_split_without_published_texts(task, monkeypatch):
    if task == "matching":  # a few pairs: making them takes seconds
        assistant.utterances("en", True)
        monkeypatch.setitem(assistant.NUM_PAIRS, "test", 60)
    published, salted = assistant.load("en", task), assistant.load("en", task, salt="secret")
    assert (salted.train, salted.dev) == (published.train, published.dev)
    assert len({*Counter(salted.test.labels).values()}) == 1  # as many of each label
    assert salted.test != assistant.load("en", task, salt="other").test
    texts = {t for split in SPLITS for t in np.ravel(getattr(published, split).texts)}
    new = list(np.ravel(salted.test.texts))
    assert not texts & {*new} and len({*new}) == len(new)
