import numpy as np
import pytest

from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.pretraining.sentence_pairs import LABELS, by_length, segments, sentence_pairs
from tests.bert import tiny
from tests.samples import corpus


def where(text, place):
    """Places in the corpus of a segment's sentences, six words each."""
    words = text.split(" ")
    return [place[" ".join(words[i : i + 6])] for i in range(0, len(words), 6)]


def pairs_of(task, data=None, max_length=30, seed=0):
    data = data or corpus()
    place = {text: k for k, text in enumerate(data.train.texts)}
    made = sentence_pairs(data, tiny.tokenizer(), max_length, task, seed)
    return (
        data,
        made,
        [(where(a, place), where(b, place), label) for (a, b), label in zip(*made.train)],
    )


def test_sop_is_neighbouring_text_and_half_of_it_swapped():
    data, made, pairs = pairs_of("sop")
    assert made.task == "matching" and made.labels == LABELS and len(pairs) > 300
    documents = data.train.labels
    for a, b, label in pairs:
        a, b = (b, a) if label else (a, b)  # swapping twice restores
        assert [*a, *b] == list(range(a[0], b[-1] + 1))  # A + B: what the author wrote
        assert len({documents[k] for k in (*a, *b)}) == 1  # no pair across documents
    mean = np.mean([label for _, _, label in pairs])
    assert abs(mean - 0.5) < 4 * (0.25 / len(pairs)) ** 0.5
    assert len({len(a) for a, _, _ in pairs}) > 1 and made.dev and len(made.dev.texts) > 300


def test_nsp_takes_the_second_segment_from_another_document():
    data, made, pairs = pairs_of("nsp")
    documents = data.train.labels
    for a, b, label in pairs:
        assert a == list(range(a[0], a[-1] + 1)) and b == list(range(b[0], b[-1] + 1))
        assert (documents[a[0]] != documents[b[0]]) if label else (b[0] == a[-1] + 1)
    mean = np.mean([label for _, _, label in pairs])
    assert abs(mean - 0.5) < 4 * (0.25 / len(pairs)) ** 0.5


def test_the_tasks_get_the_same_segments():
    sop, nsp, none = (pairs_of(task)[2] for task in ("sop", "nsp", "none"))
    assert [(b, a) if label else (a, b) for a, b, label in sop] == [(a, b) for a, b, _ in none]
    assert [a for a, _, _ in nsp] == [a for a, _, _ in none] and {
        label for _, _, label in none
    } == {0}


def test_what_lengths_alone_tell():
    short, long = "the cat", "a dog sat on mat"

    def told(labels):
        split = Split([(long, short) if label else (short, long) for label in labels], [0, 1] * 20)
        return by_length(Dataset("p", "matching", LABELS, split, split), tiny.tokenizer(), 16)

    assert told([0, 1] * 20) == 1.0 and told([0, 0, 1, 1] * 10) == 0.5
    few = Split([(long, short), (short, long)], [0, 1])
    assert by_length(Dataset("p", "matching", LABELS, few, few), tiny.tokenizer(), 16) == 1.0


def test_every_sentence_is_used_once_at_most_and_few_are_left_out():
    data, _, pairs = pairs_of("none")
    used = [k for a, b, _ in pairs for k in (*a, *b)]
    assert len(used) == len(set(used)) > 0.7 * len(data.train.texts)


def test_chunks_are_full_but_for_one_in_ten_and_the_ends_of_documents():
    data = corpus(50, 40)
    room = 30 - 3  # sentences of 6 pieces: full at the fifth
    found = segments(data.train, tiny.tokenizer(), 30, np.random.default_rng(0))
    sizes = [
        len(encoding.ids) - 3
        for encoding in tiny.tokenizer().encode([(a, b) for _, a, b in found], 512)
    ]
    short = np.mean([size < room for size in sizes])
    assert 0.03 < short < 0.2 and max(sizes) < room + 12


def test_a_sentence_that_stands_alone_is_skipped():
    data = Dataset(
        "prose", "unlabelled", (), Split(["the cat sat", "a dog sat", "the mat"], [0, 1, 1])
    )
    made = sentence_pairs(data, tiny.tokenizer(), 16, "none")
    assert made.train == Split([("a dog sat", "the mat")], [0]) and made.dev is None


def test_pairs_are_a_function_of_the_seed():
    first, again, other = (pairs_of("sop", seed=seed)[1].train for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    "data, task, message",
    [
        (corpus(5, 1), "none", "5 sentences in 5 documents, 0 pairs of 30 pieces at most"),
        (corpus(1, 5), "nsp", "for nsp two such documents. Received: prose, 5 sentences in 1 doc"),
    ],
)
def test_errors(data, task, message):
    with pytest.raises(ValueError, match=message):
        sentence_pairs(data, tiny.tokenizer(), 30, task)


def test_sentences_that_fill_a_text_alone_are_an_error_that_says_so():
    with pytest.raises(ValueError, match="0 pairs of 8 pieces at most.*raise `max_length`"):
        sentence_pairs(corpus(5), tiny.tokenizer(), 8, "sop")
