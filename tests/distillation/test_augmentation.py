import numpy as np
import pytest

from keras_compress.backend import tf
from keras_compress.distillation import augmentation as A
from tests.bert import tiny
from tests.support import data, masked_lm

TEXTS = ["the Cat sat on the mat!", "unbelievable dog", "我听音乐"]


@pytest.fixture(scope="module")
def mlm():
    return masked_lm()


@pytest.fixture(scope="module")
def candidates(mlm):
    return A.Candidates(mlm)


def test_chance_0_changes_nothing(candidates):
    assert list(A.augment(TEXTS, candidates, copies=3, chance=0.0)) == [[], [], []]


def test_chance_1_with_one_candidate_is_deterministic():
    text, slots = "the cat sat", [(4, 7, ["dog"]), (8, 11, ["stood"])]
    for seed in range(5):
        assert A.change(text, slots, np.random.default_rng(seed), 1.0) == "the dog stood"


def test_a_capital_letter_stays():
    assert A.change("The Cat", [(4, 7, ["dog"])], np.random.default_rng(0), 1.0) == "The Dog"


def test_words_change_as_often_as_asked():
    slots, random = [(0, 1, ["b"])], np.random.default_rng(0)
    share = np.mean([A.change("a", slots, random, 0.4) == "b" for _ in range(4000)])
    assert abs(share - 0.4) < 4 * (0.4 * 0.6 / 4000) ** 0.5


def test_stop_words_punctuation_and_digits_have_no_candidates(mlm):
    found = A.Candidates(mlm)(["the cat on 12 !", "a a the"])
    assert ["cat"] == ["the cat on 12 !"[a:b] for a, b, _ in found[0]] and found[1] == []


def test_stop_words_are_the_authors():
    """173, as in their code; scikit-learn's 318 hold "call", which may change here."""
    assert len(A.STOP_WORDS) == 173
    assert "the" in A.STOP_WORDS and "what" not in A.STOP_WORDS
    assert (
        not {*"call next show first find put two sixty who which where when".split()} & A.STOP_WORDS
    )


def test_the_papers_numbers_are_the_defaults(mlm):
    """N_a = 20 copies, p_t = .4, K = 15 candidates."""
    defaults = A.augment.__kwdefaults__
    assert (defaults["copies"], defaults["chance"], A.Candidates(mlm).number) == (20, 0.4, 15)


def test_equal_copies_count_towards_the_number_and_are_dropped():
    one = lambda texts: [[(4, 7, ["dog"])] for _ in texts]  # for each text, one candidate
    new = [*A.augment(["the cat  sat !", "the dog sat"], one, copies=5, chance=1.0)]
    assert new == [
        ["the dog  sat !"],
        [],
    ]  # spaces and marks stay; a copy equal to its text is none


def test_a_contraction_is_one_word_and_stays(mlm):
    text = "don't the cat's dog"
    assert [text[a:b] for a, b in A.spans_of(text)] == ["don't", "the", "cat's", "dog"]
    assert [text[a:b] for a, b, _ in A.Candidates(mlm)([text])[0]] == ["dog"]


def test_candidates_are_whole_words_other_than_the_word_itself(mlm):
    for text, row in zip(TEXTS, A.Candidates(mlm, number=20)(TEXTS)):
        for first, last, words in row:
            assert all(word.isalpha() and word != text[first:last].lower() for word in words)


def test_candidates_are_the_models_best_guesses_at_the_mask(mlm):
    ((first, last, words),) = A.Candidates(mlm, number=4)(["the cat on"])[0]
    ids = tiny.tokenizer().encode(["the cat on"], 16)[0].ids
    shown = [
        tiny.tokenizer().ids["[MASK]"] if piece == tiny.tokenizer().ids["cat"] else piece
        for piece in ids
    ]
    inputs = {
        "input_word_ids": [shown],
        "input_mask": [[1] * len(ids)],
        "input_type_ids": [[0] * len(ids)],
    }
    logits = mlm.model({k: tf.constant(v) for k, v in inputs.items()})[
        0, ids.index(tiny.tokenizer().ids["cat"])
    ]
    best = [tiny.VOCAB[i] for i in np.argsort(-logits.numpy())[:4]]
    assert words == [word for word in best if word.isalpha() and word != "cat"]


def test_split_words_take_the_nearest_vectors(mlm):
    vectors = {
        "unbelievable": np.array([1.0, 0.0]),
        "amazing": np.array([2.0, 0.1]),
        "dull": np.array([-1.0, 0.0]),
    }
    find = A.Candidates(mlm, number=1, vectors=vectors)
    (_, _, words), *_ = find(["unbelievable"])[0]
    assert words == ["amazing"]
    assert A.Candidates(mlm, vectors={"dull": np.ones(2)})(["unbelievable"]) == [
        []
    ]  # not among the vectors


def test_split_words_without_a_file_use_the_word_table(mlm):
    find = A.Candidates(mlm, number=3)
    (_, _, words), *_ = find(["unbelievable"])[0]
    ids = [tiny.tokenizer().ids[piece] for piece in ("un", "##believ", "##able")]
    table = mlm.weights()["word_embeddings/embeddings"]
    whole = [k for k, piece in enumerate(tiny.VOCAB) if piece.isalpha()]
    vector, rows = table[ids].mean(0), table[whole]
    order = np.argsort(-(rows @ vector) / np.linalg.norm(rows, axis=1), kind="stable")
    assert words == [tiny.VOCAB[whole[k]] for k in order[:3]]


def test_the_fields_of_a_pair_are_independent(candidates):
    """A pair's fields get the copies that each would get; the other field never leaks in."""
    pairs = [("the cat", "a dog sat")]
    found = [one for new in A.augment(pairs, candidates, copies=40, chance=0.5) for one in new]
    assert all(len(one) == 2 for one in found)
    assert {a for a, _ in found if a != "the cat"} and {b for _, b in found if b != "a dog sat"}
    assert any(a == "the cat" for a, b in found) and any(b == "a dog sat" for a, b in found)


def test_copies_are_a_function_of_seed_and_place(candidates):
    settings = {"copies": 5, "chance": 0.9, "seed": 3}
    whole = list(A.augment(TEXTS * 3, candidates, **settings))
    assert whole[4:] == list(A.augment(TEXTS * 3, candidates, first=4, **settings))
    assert whole != list(A.augment(TEXTS * 3, candidates, **{**settings, "seed": 4}))
    assert all(len(set(new)) == len(new) and text not in new for text, new in zip(TEXTS * 3, whole))


@pytest.mark.parametrize("task", ["classification", "matching", "tagging"])
def test_augmented(task, mlm, candidates):
    plain = data(task)
    more = A.augmented(plain, mlm, copies=3, chance=0.9)
    assert len(more.train.texts) > len(plain.train.texts) and more.dev == plain.dev
    place = [more.train.texts.index(text) for text in plain.train.texts]
    assert place == sorted(place)  # a text comes before its copies
    if task == "tagging":
        assert all(len(text.split(" ")) == len(tags) for text, tags in zip(*more.train))
    made = A.augment(plain.train.texts, candidates, copies=3, chance=0.9)
    assert list(zip(*more.train)) == [
        (one, label)
        for text, label, new in zip(*plain.train, made)
        for one in [text, *map(type(text), new)]
    ]  # a copy has its text's label


def test_chinese_words_are_characters_or_what_stands_between_spaces():
    assert [("我听音乐"[a:b]) for a, b in A.spans_of("我听音乐")] == ["我", "听", "音", "乐"]
    text = "我 听 音乐"
    assert [text[a:b] for a, b in A.spans_of(text)] == ["我", "听", "音乐"]


def test_a_stopped_run_goes_on(mlm, tmp_path):
    plain = data()
    whole = A.augmented(plain, mlm, copies=4, folder=tmp_path / "a", seed=1)
    file = next((tmp_path / "a").glob("*.jsonl"))
    lines = file.read_bytes().splitlines(keepends=True)
    killed = b"".join(lines[:5]) + lines[5][:3]  # in the middle of a line
    damaged = b"".join([*lines[:3], lines[3].replace(b"a", b"e"), *lines[4:]])
    old = b"".join(line.partition(b"\t")[0] + b"\n" for line in lines[:4])  # without a checksum
    without_tab = b"".join([*lines[:3], lines[3].replace(b"\t", b"\b"), *lines[4:]])
    assert damaged != b"".join(lines)
    for left in (killed, damaged, without_tab, old):
        file.write_bytes(left)
        again = A.augmented(plain, mlm, copies=4, folder=tmp_path / "a", seed=1)
        assert again.train == whole.train and file.read_bytes().endswith(b"".join(lines[4:]))


def test_it_goes_on_in_the_same_chunks(candidates, monkeypatch):
    seen, call = [], A.Candidates.__call__
    monkeypatch.setattr(A, "TEXTS_AT_ONCE", 4)
    monkeypatch.setattr(
        A.Candidates,
        "__call__",
        lambda self, fields: (seen.append(fields), call(self, fields))[1],
    )
    texts = data().train.texts
    whole, chunks = list(A.augment(texts, candidates, copies=2)), seen[:]
    del seen[:]
    assert list(A.augment(texts, candidates, copies=2, first=5)) == whole[5:] and seen == chunks[1:]


def test_copies_made_with_other_settings_are_not_taken(mlm, tmp_path):
    plain = data()
    for settings in ({}, {"seed": 1}, {"chance": 0.9}, {"vectors": {"cat": np.ones(2)}}):
        A.augmented(plain, mlm, copies=2, folder=tmp_path, **settings)
    assert len(list(tmp_path.glob("*.jsonl"))) == 4


@pytest.mark.parametrize(
    "content, message",
    [
        (
            "cat 1 2\ndog 1\n",
            ":2: a line must hold a word and 2 numbers in UTF-8. Received: 'dog 1",
        ),
        ("cat 1 x\n", ":1: a line"),
        ("cat 1 nan\n", ":1:"),
        ("", "It is empty"),
        ("a 1 2\nb 1 2 3\n", ":2: a line"),
        ("cat 1\ndog 2 3\n", ":2: a line"),
        ("cat 1 2\ndog 1e-3 2 3\n", ":2: a line"),
        (b"cat 1 2\n\xff 1 2\n", ":2: a line must hold a word and 2 numbers in UTF-8"),
    ],
)
def test_bad_vectors(content, message, tmp_path):
    path = tmp_path / "glove.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        A.read_vectors(path)


def test_good_vectors(tmp_path):
    (tmp_path / "v.txt").write_text("2 3\ncat 1 2 3\ndog 0 0 1\n")  # with word2vec's header
    found = A.read_vectors(tmp_path / "v.txt")
    (tmp_path / "w.txt").write_text(
        "\ufeffthe 1 2\n. . . 3 -4\n\n", encoding="utf-8"
    )  # as in glove.840B
    assert {
        word: vector.tolist() for word, vector in A.read_vectors(tmp_path / "w.txt").items()
    } == {"the": [1, 2], ". . .": [3, -4]}
    assert list(found) == ["cat", "dog"] and found["cat"].tolist() == [1, 2, 3]


def test_only_a_model_that_can_fill_in_words_gives_candidates():
    with pytest.raises(ValueError, match="needs a masked-LM model. Received: a classification"):
        A.augmented(data(), tiny.shared(), copies=2)
    new = masked_lm()
    new.history = [{"method": "load", "new": ["mlm_bias/bias"]}]
    with pytest.raises(ValueError, match="head must be trained"):
        A.Candidates(new)
