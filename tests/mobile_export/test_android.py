"""The Kotlin library on the JVM: the same ids, inputs and answers as Python, and a sentence instead of a crash."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_compress.backend import tf
from keras_compress.bert import early_exit
from keras_compress.bert.answers import told
from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer, read_vocab
from keras_compress.bert.words import words_of
from keras_compress.datasets import assistant
from keras_compress.files import minilm_folder
from mobile_export.contract import describe, write_vectors
from mobile_export.convert import export
from mobile_export.litert import INPUT_NAMES, Runner
from tests.bert import tiny
from tests.mobile_export.kotlin_jvm import ALPHABETS, Library, is_old, mixed_texts, plain

pytestmark = pytest.mark.filterwarnings("ignore:.*(unknown to the vocabulary|longer than)")
NUM_TEXTS = 50_000
ADDED = [
    {"content": content, "single_word": single_word, "normalized": normalized}
    for content, single_word, normalized in (
        ("[URL]", False, False),
        ("<user>", True, False),
        ("covid", True, True),
        ("covid19", False, True),
        ("Ünlü", False, True),
        ("中文", False, True),
        ("ab cd", False, False),
        ("là", True, True),
    )
]
TEXTS = ["The cats sat on the mat.", "我听音乐", "unbelievable café 12, 你好! a cat a dog", "", "x"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library(tmp_path_factory.mktemp("kotlin"))


@pytest.fixture(scope="module")
def english():
    return read_vocab(minilm_folder() / "vocab.txt")


def question(tokenizer, texts, length, words=False):
    """What Check.kt encodes."""
    switches = describe(tiny.model())["tokenizer"] | {
        "lowercase": tokenizer.lowercase,
        "strip_accents": [tokenizer.strip_accents, tokenizer.lowercase][
            tokenizer.strip_accents is None
        ],
        "split_chinese": tokenizer.split_chinese,
        "truncation_side": tokenizer.truncation_side,
    }
    whole = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if tokenizer.special_in_text else []
    whole = [{"content": x, "single_word": False, "normalized": False} for x in whole]
    whole = [{**word, "id": tokenizer.ids[word["content"]]} for word in (*whole, *tokenizer.added)]
    asked = {"do": "encode", "vocabulary": tokenizer.own, "length": length, "words": words}
    return {**asked, "tokenizer": {**switches, "never_split": whole}, "texts": texts}


def lines(encodings):
    """Encodings as Check.kt writes them."""
    rows = ((e.ids, e.type_ids, e.word_starts or [], e.truncated) for e in encodings)
    return [
        "|".join([*(" ".join(map(str, x)) for x in columns), str(cut).lower()])
        for *columns, cut in rows
    ]


def test_ids_of_50000_texts(library, english):
    chinese = [
        *SPECIAL_PIECES,
        "[MASK]",
        *ALPHABETS[0],
        *ALPHABETS[1],
        *(f"##{c}" for c in "abcde"),
    ]
    words = [x for x in english if x.isalpha() and len(x) > 2]
    words += [word.capitalize() for word in words[::3]]
    tokenizers = {
        "uncased": Tokenizer(english),
        "cased": Tokenizer(english, False),
        "Chinese": Tokenizer(chinese),
        "accents kept": Tokenizer(english, True, False),
        "accents dropped, cased": Tokenizer(english, False, True),
        "added words": Tokenizer(english, True, None, ADDED),
        "all else": Tokenizer(
            english,
            False,
            None,
            ADDED,
            special_in_text=True,
            split_chinese=False,
            truncation_side="left",
        ),
    }
    whole = [word["content"] for word in ADDED]
    number = -(-NUM_TEXTS // (4 * len(tokenizers)))
    asked, expected, names = [], [], []
    for seed, (name, tokenizer) in enumerate(tokenizers.items()):
        texts = mixed_texts(4 * number, words, whole, seed)
        pairs = [*zip(texts[number : 2 * number], texts[2 * number : 3 * number])]
        split = [[word[:12] for word in text.split(" ")] for text in texts[3 * number :]]
        for each, length in ((texts[:number], 128), (texts[number : 2 * number], 9), (pairs, 12)):
            asked.append(question(tokenizer, each, length))
            expected.append(lines(tokenizer.encode(each, length)))
            names.append(name)
        asked.append(question(tokenizer, split, 16, words=True))
        expected.append(lines(tokenizer.encode_words(split, 16)))
        names.append(name)
    found, tried = library.ask(*asked), 0
    for name, each, wanted, got in zip(names, asked, expected, found, strict=True):
        differ = [(t, w, g) for t, w, g in zip(each["texts"], wanted, got[:-1]) if w != g]
        assert not differ, (name, len(differ), differ[0])
        tried += len(wanted)
    assert tried >= NUM_TEXTS and len(found[0]) == number + 1
    print(f"\n{tried} of {tried} texts have the same ids")


def test_time_of_a_text(library, english):
    texts = [*assistant.load("en").train.texts[:2000], *assistant.load("zh").train.texts[:2000]]
    tokenizer = Tokenizer(english)
    found = library.ask(*[question(tokenizer, texts, 64)] * 3)[-1]  # once the JVM is warm
    assert found[:-1] == lines(tokenizer.encode(texts, 64))
    print(f"\n{float(found[-1]):.1f} us a text")
    assert float(found[-1]) < 2000  # a phone has 10 ms for a whole model


def test_ids_of_any_string(library, english):
    texts = []

    @settings(max_examples=400, suppress_health_check=[*HealthCheck], deadline=None, database=None)
    @given(st.text(st.characters(max_codepoint=0x2FFFF).filter(is_old), max_size=60))
    def collect(text):
        texts.append(plain(text))

    collect()
    for tokenizer in (Tokenizer(english, True, None, ADDED), Tokenizer(english, False)):
        (found,) = library.ask(question(tokenizer, texts, 32))
        assert found[:-1] == lines(tokenizer.encode(texts, 32))


@pytest.mark.parametrize("lowercase, most", [(True, 500), (False, 200)])
def test_every_code_point(library, lowercase, most):
    """Differences are characters that are newer than one side's Unicode: 367 and 96 on Java 17."""
    vocabulary = [*SPECIAL_PIECES, "a", "##a", "b", "##b"]
    tokenizer = Tokenizer(vocabulary, lowercase)
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    groups = [points[k : k + 64] for k in range(0, len(points), 64)]

    def differing(groups):
        texts = [" ".join(f"a{chr(c)}b" for c in group) for group in groups]
        (found,) = library.ask(question(tokenizer, texts, 1000))
        wanted = lines(tokenizer.encode(texts, 1000))
        return [group for group, w, g in zip(groups, wanted, found[:-1]) if w != g]

    differ = [c for (c,) in differing([[c] for group in differing(groups) for c in group])]
    print(f"\n{len(differ)} of {len(points)} code points differ")
    assert len(differ) <= most and not any(map(is_old, map(chr, differ)))


def test_words_of_tagging(library):
    texts = mixed_texts(2000, ["小明在北京", "播放", "covid-19", "我用iPhone15听NBA!", "_"], seed=1)
    texts += ["播放 Taylor Swift 的新歌和专辑", "我 听 音 乐", "", "我听\x1c音乐"]
    for by_character in (False, True):
        model = tiny.model("tagging")
        model.history = [{"words": "characters"}] * by_character
        (found,) = library.ask({"do": "words", "texts": texts, "characters": by_character})
        # A surrogate cannot be written; each side drops it later.
        shown = [
            "\1".join(words).encode(errors="replace").decode() for words in words_of(texts, model)
        ]
        joined = "\n".join(found)
        assert joined == "\n".join(shown)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{task: (model, folder of its float32 file with parity.json)}; classification in two lengths."""
    found = {}
    for task in tiny.LABELS:
        model, folder = tiny.model(task), tmp_path_factory.mktemp(task)
        length = [8, 16] if task == "classification" else 16
        export(model, folder, ["float32"], sequence_length=length, parity_texts=2)
        write_vectors(folder, model)
        found[task] = model, folder
    return found


@pytest.mark.parametrize("task", tiny.LABELS)
def test_scores_and_answers(library, folders, task):
    """Kotlin's inputs through the same file in LiteRT are Python's scores, and Kotlin reads the outputs as Python does."""
    model, folder = folders[task]
    texts = [*zip(TEXTS, reversed(TEXTS))] if task == "matching" else TEXTS
    ask = {"do": "model", "folder": str(folder), "file": "float32.tflite", "texts": texts}
    runner, outputs = Runner(folder / "float32.tflite"), []
    (made,) = library.ask(ask)
    for line in made:
        arrays = [np.array([x.split()], np.int32) for x in line.split("|")[1:]]
        outputs.append(runner.run(dict(zip(INPUT_NAMES, arrays)))[0])
    if task == "classification":  # short texts take the short signature
        assert {line.split("|")[0] for line in library.ask(ask)[0]} == {
            "length_8",
            "serving_default",
        }
    predicted = model.predict(texts, max_length=16)
    answers = library.ask({**ask, "outputs": [x.ravel().tolist() for x in outputs]})[0]
    if task == "tagging":
        assert [line.split("\1") for line in answers] == [tags for _, tags in predicted]
        return
    np.testing.assert_allclose(
        np.squeeze(outputs),
        np.squeeze(predicted),
        atol=1e-5,
        rtol=1e-4 if task == "regression" else 0,
    )
    rows, _ = told(model, texts, predicted)
    for row, line in zip(rows, answers, strict=True):
        labels = [part.split(" ") for part in line.split("\1")]
        holding = [label for label, _, holds in labels if holds == "true"]
        if task == "regression":
            np.testing.assert_allclose(float(labels[0][1]), row["score"], rtol=1e-4)
        else:
            assert sorted(holding) == sorted(row.get("labels", [row.get("label")]))


def test_self_test(library, folders):
    ask = {"do": "model", "file": "float32.tflite", "texts": [], "parity": "parity.json"}
    found = library.ask(*({**ask, "folder": str(folder)} for _, folder in folders.values()))
    for task, answers in zip(folders, found, strict=True):
        right, wrong = (line.split(" ") for line in answers)
        assert right[0] == right[1] == wrong[0] and right[3] == "true", task
        assert float(right[2]) < 1e-6 and wrong[3] == "false" and 0.09 < float(wrong[2]) < 0.11


def test_bad_folders_and_texts_are_problems_not_crashes(library, folders, tmp_path):
    _, folder = folders["classification"]

    def without(name):
        return lambda place: (place / name).unlink()

    def holding(name, content):
        return lambda place: (place / name).write_bytes(content)

    def telling(name="model.json", **changes):
        def change(place):
            about = json.loads((place / name).read_text())
            for key, value in changes.items():
                inner = about["tokenizer"] if key in about.get("tokenizer", ()) else about
                inner[key] = value
            (place / name).write_text(json.dumps(about))

        return change

    file = (folder / "float32.tflite").read_bytes()
    cases = [
        (without("model.json"), "MISSING"),
        (without("vocab.txt"), "MISSING"),
        (holding("model.json", b""), "NOT_JSON"),
        (holding("model.json", b"[" * 100_000), "NOT_JSON"),
        (holding("model.json", b'{"a":' * 100_000), "NOT_JSON"),
        (holding("model.json", b"{}"), "NO_METADATA"),
        (holding("model.json", file), "NO_METADATA"),
        (holding("labels.txt", b"a\nb\n"), "NOT_OF_THIS_MODEL"),
        (holding("vocab.txt", b"\xff\xfe"), "NOT_OF_THIS_MODEL"),
        (holding("float32.tflite", b"TFL3"), "DAMAGED"),
        (holding("float32.tflite", file[:-1] + b"x"), "DAMAGED"),
        (telling(task="mlm"), "TASK"),
        (telling(texts=None), "NO_METADATA"),
        (telling(keras_compress_model=2), "NO_METADATA"),
        (telling(num_pieces=3), "NOT_OF_THIS_MODEL"),
        (telling(never_split=3), "NO_METADATA"),
        (telling(never_split=[3]), "NO_METADATA"),
        (telling(files=[{"path": "x.tflite"}]), "NO_METADATA"),
        (telling(files=[3]), "NO_METADATA"),
        (holding("parity.json", b"{}"), "NO_METADATA"),
        (telling("parity.json", texts=[]), "NO_METADATA"),
        (
            telling("parity.json", files={"float32.tflite": {"sha256": "0", "outputs": []}}),
            "NOT_OF_THIS_MODEL",
        ),
    ]
    odd = [
        "x" * 100_000,
        "a " * 50_000,
        "😀👩‍👩‍👧",
        "\ud800 lone \udfff",
        "שלום مرحبا\u202e",
        "\0",
        "",
    ]
    ask = {"do": "model", "file": "float32.tflite", "folder": str(folder), "texts": odd}
    asked = [ask]
    for wrong in ([0.5], [0.1] * 4):
        asked.append({**ask, "texts": ["a"], "outputs": [wrong]})
    tagger = str(folders["tagging"][1])  # 1e39 is infinite as a float
    asked.append({**ask, "folder": tagger, "texts": ["a"], "outputs": [[1e39] * 48]})
    for number, (change, _) in enumerate(cases):
        place = tmp_path / str(number)
        shutil.copytree(folder, place)
        change(place)
        asked.append({**ask, "folder": str(place), "texts": [], "parity": "parity.json"})
    made, *found = library.ask(*asked)
    assert [line.split("|")[0] for line in made] == [
        "length_8" if text != odd[1] else "serving_default" for text in odd
    ]
    wanted = ["OUTPUT", "OUTPUT", "OUTPUT", *(problem for _, problem in cases)]
    assert [answers[0].split(" ")[0] for answers in found] == wanted


def test_json_is_read_as_python_reads_it(library):
    good = {
        '{"a": [1, -2.5e3, true, false, null, "x\\"\\u00e9\\n"], "b": {}}': (
            '{a=[1.0, -2500.0, true, false, null, x"é',
            "], b={}}",
        ),
        " [ ] ": ("[]",),
        '"\\ud83d\\ude00"': ("😀",),
    }
    bad = [
        "",
        "{",
        '{"a"}',
        "[1,]",
        "[1 2]",
        '"a',
        '"\\x"',
        '"\\u12"',
        "nul",
        "01x",
        "{1: 2}",
        "[]]",
    ]
    (found,) = library.ask({"do": "json", "texts": [*good, *bad]})
    wanted = [line for lines in good.values() for line in "\n".join(lines).split("\n")]
    assert found[: len(wanted)] == wanted
    assert [line.split(" ")[0] for line in found[len(wanted) :]] == ["NOT_JSON"] * len(bad)


def test_exits_percentiles_and_rounds(library):
    rows = [[0.1, 0.0, 0.2], [2.0, 0.0, 0.0], [9.0, 0.0, 0.0]]
    unsure = early_exit.uncertainty(tf.constant(rows)).numpy()
    values = np.random.default_rng(0).normal(size=37).tolist()
    exits, percentiles, rounds = library.ask(
        {"do": "exits", "rows": rows, "speeds": [1.0, 0.9, 0.0]},
        {"do": "percentiles", "values": values},
        {"do": "benchmark"},
    )
    np.testing.assert_allclose([*map(float, exits[:3])], unsure, atol=1e-6)
    # At .9 the second segment, of uncertainty .61, is the first that is sure; at 0 all three run.
    layers, states, answers = zip(*(line.split("|") for line in exits[3:]))
    assert layers == ("1", "2", "3") and states == ("0", "0 1", "0 1 2")
    np.testing.assert_allclose(
        [[*map(float, x.split(" "))] for x in answers], tf.nn.softmax(rows), atol=1e-6
    )
    np.testing.assert_allclose(
        [*map(float, percentiles[0].split(" "))], np.percentile(values, [50, 90])
    )
    # Calls take 1, 2, 3, .. ms, a and b in turns; the first round is warm-up. a: 3, 5, 7; b: 4, 6, 8.
    keys = "{{path={}, latency_ms_p50={}, latency_ms_p90={}, runs=3}}".format
    assert rounds == [keys("a", 5.0, 6.6), keys("b", 6.0, 7.6), "abababab"]
