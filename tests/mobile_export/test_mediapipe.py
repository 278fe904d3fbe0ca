"""Exported files in a real client, MediaPipe's TextClassifier: the same scores as ours, or counted differences.

The model has random weights, and a vocabulary of every character of the texts. That is the harder test: a trained model
comes close to 0 and 1 for texts of one class whatever the ids, while the scores of this one move with every id: any two
texts of different ids are 100 times further apart than the bar (`test_scores_tell_texts_apart`).
"""

import contextlib
import socket
import sys
import unicodedata
from ctypes.util import find_library

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.text import TextClassifier, TextClassifierOptions
from tokenizers.pre_tokenizers import BertPreTokenizer

from keras_compress.bert.config import BertConfig
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import SPECIAL_PIECES, Tokenizer
from keras_compress.datasets import assistant
from mobile_export.convert import export, exported_model
from mobile_export.metadata import mediapipe_compatible

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*texts are longer than"),
    pytest.mark.skipif(
        sys.platform == "linux" and not (find_library("EGL") and find_library("GLESv2")),
        reason="needs EGL and GLES (bash .ci/system installs them)",
    ),
]
LENGTH = 32
FORMATS = ("float32", "int8", "int4")
# Python's Unicode is older than that of the tokenizer: what it does not know may be punctuation.
NEW_OR_PUNCTUATION = ("Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Cn")
SAME_FILE, SAME_MODEL = 1e-5, {"float32": 1e-5, "int8": 2e-2}
LABELS = ("play", "stop", "开灯", "关 灯", "a, b", "'", "é", "-")

# Read alike as they are, and alike only after `mediapipe_compatible`.
ALIKE = [
    "",
    "  \t\n ",
    "turn on the lights!",
    "我想听音乐",
    "今天天气怎么样？明天呢……",
    "かな",
    "MiXeD CaSe",
    "न",
    "don't (stop) - “quoted”, $5.99 + 10% = ~#@ x_y",
    "tabs\tand\r\nlines",
    "😀 👍 emoji 🎵",
    "１２３ ｆｕｌｌ",
    "##s #",
    "[CLS] [SEP] [MASK] [UNK]",
    "中文mixed英文123",
    "lights " * 1000,
    "灯" * 5000,
    "x" * 100,
    "x" * 120,
    "x" * 100_000,
]
UNLIKE = [
    "café naïve",
    "CAFÉ",
    "cafe\u0301",
    "e" + "\u0301" * 500,
    "İSTANBUL",
    "ПРИВЕТ мир",
    "ŁÓDŹ",
    "ひらがな",
    "안녕하세요",
    "zero\u200bwidth",
    "soft\u00adhyphen",
    "\ufeffmark",
    "👩\u200d👧lights",
    "no\u00a0break",
    "full\u3000width 全\u3000角",
    "line\u2028separator",
    "\ufffd",
    "bell\x07",
    "nul\0inside",
]


@pytest.fixture(scope="module")
def task_model():
    known = "".join([*commands(), *map(mediapipe_compatible, ALIKE + UNLIKE)]).lower()
    letters = sorted({c for c in known if not c.isspace()})
    vocab = [
        *SPECIAL_PIECES,
        *letters,
        *(f"##{c}" for c in letters),
        "lights",
        "turn",
        "##ing",
        "play",
    ]
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
        pooling="cls",
        initializer_range=0.2,
    )
    return TaskModel(config, Tokenizer(vocab), "classification", LABELS, seed=1)


@pytest.fixture(scope="module")
def files(task_model, tmp_path_factory):
    found = export(
        task_model,
        tmp_path_factory.mktemp("files"),
        FORMATS,
        sequence_length=LENGTH,
        allow_drift=True,
    )
    return {row["format"]: row["path"] for row in found}


def commands():
    """500 texts of the built-in data, half English and half Chinese."""
    return [
        text for language in ("en", "zh") for text in assistant.load(language).test.texts[:1500:6]
    ]


@contextlib.contextmanager
def client(path):
    """A function from texts to scores, (texts, labels), in the order of LABELS."""
    options = TextClassifierOptions(base_options=BaseOptions(model_asset_path=str(path)))
    with TextClassifier.create_from_options(options) as classifier:

        def scores(texts):
            rows = [classifier.classify(text).classifications[0].categories for text in texts]
            return np.array(
                [
                    [next(c.score for c in row if c.category_name == label) for label in LABELS]
                    for row in rows
                ]
            )

        yield scores


def test_scores_tell_texts_apart(task_model):
    encodings = task_model.tokenizer.encode(commands(), LENGTH)
    distinct = {
        tuple(e.ids): row
        for e, row in zip(encodings, task_model.predict(commands(), max_length=LENGTH))
    }
    assert len(distinct) > 490 and not any(
        task_model.tokenizer.ids["[UNK]"] in ids for ids in distinct
    )
    rows = np.array(list(distinct.values()))
    distances = np.abs(rows[:, None] - rows).max(-1)
    assert (
        distances[~np.eye(len(rows), dtype=bool)].min() > 100 * SAME_FILE
        and rows.std(0).max() > 0.02
    )


@pytest.mark.parametrize("name", FORMATS)
def test_500_commands(task_model, files, name):
    texts = commands()
    assert len(texts) == 500 and len({text for text in texts if text.isascii()}) == 250
    with client(files[name]) as scores:
        theirs = scores(texts)
    np.testing.assert_allclose(
        theirs, exported_model(files[name], task_model).predict(texts), atol=SAME_FILE, rtol=0
    )
    if name in SAME_MODEL:  # 4 bits are not the same model; how far it is from Keras says `export`
        np.testing.assert_allclose(
            theirs, task_model.predict(texts, max_length=LENGTH), atol=SAME_MODEL[name], rtol=0
        )


@pytest.mark.parametrize("name", FORMATS)
def test_tricky_strings(task_model, files, name):
    texts = ALIKE + UNLIKE
    ours = exported_model(files[name], task_model).predict(texts)
    with client(files[name]) as scores:
        as_they_are, compatible = scores(texts), scores(map(mediapipe_compatible, texts))
    np.testing.assert_allclose(compatible, ours, atol=SAME_FILE, rtol=0)
    unlike = np.abs(as_they_are - ours).max(-1) > SAME_FILE
    assert [text for text, differs in zip(texts, unlike) if differs] == UNLIKE


def test_what_the_client_tells_its_maker_goes_to_a_proxy_alone(files, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(30)
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:{1}".format(*proxy.getsockname()))
        with client(files["float32"]) as scores:
            scores(["play"])
        told, _ = proxy.accept()
        with told:
            assert told.recv(99).startswith(b"CONNECT play.googleapis.com:443 ")


def stays_different(text):
    """Whether MediaPipe reads a text in its own way even after `mediapipe_compatible`: see metadata.py."""
    words = [word for word, _ in BertPreTokenizer().pre_tokenize_str(mediapipe_compatible(text))]
    splits = [
        c
        for word in words
        if len(word) > 1
        for c in word
        if unicodedata.category(c) in NEW_OR_PUNCTUATION or "\U0002b820" <= c < "\U0002b920"
    ]
    too_long = [word for word in words if len(word) <= 100 < len(word.encode())]
    return bool(splits or too_long or {*text} & {*"\u166d\U000111c9"})


def test_what_stays_different(task_model, files):
    texts = {
        "м" * 50: False,
        "м" * 51: True,
        "м" * 100: True,
        "м" * 101: False,  # 2 bytes each
        "a b\u2e43c": True,
        "a b\U0002b820c": True,
        "a b\U0002b920c": False,
        "a b\u166dc": True,
    }
    ours = exported_model(files["float32"], task_model).predict(texts)
    with client(files["float32"]) as scores:
        gaps = np.abs(scores(map(mediapipe_compatible, texts)) - ours).max(-1)
    assert (
        dict(zip(texts, gaps > SAME_FILE))
        == texts
        == {text: stays_different(text) for text in texts}
    )


@pytest.mark.parametrize("number", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_generated_strings(task_model, files, number):
    phone, seen, unlike = exported_model(files["int8"], task_model), set(), set()
    parts = [
        *ALIKE[:15],
        *UNLIKE,
        "\ud800",
        "\udfff",
        "\u202e",
        "\x7f",
        "\x85",
        "lights",
        "灯",
        "#",
    ]

    @given(
        st.one_of(
            st.text(), st.text(st.characters()), st.lists(st.sampled_from(parts)).map("".join)
        )
    )
    @settings(
        max_examples=number,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[*HealthCheck],
    )
    def check(text):
        ours, theirs = phone.predict([text]), scores([mediapipe_compatible(text)])
        raw = scores([text.encode("utf-8", "ignore").decode()])  # without lone surrogates
        assert all(abs(row.sum() - 1) < 1e-5 for row in (ours, theirs, raw))  # and no NaN
        seen.add(text)
        if np.abs(theirs - ours).max() > SAME_FILE:
            assert stays_different(text)
            unlike.add(text)

    with client(files["int8"]) as scores:
        check()
    assert len(seen) > 0.9 * number and len(unlike) < len(seen) / 20


def test_text_that_utf8_cannot_hold(files):
    with client(files["float32"]) as scores:
        with pytest.raises(UnicodeEncodeError):
            scores(["\ud800 lights"])
        np.testing.assert_array_equal(
            scores([mediapipe_compatible("\ud800 lights")]), scores(["lights"])
        )


def test_damaged_files(files, tmp_path):
    content = open(files["int8"], "rb").read()
    for damaged in (b"", b"\0" * 1000, content[:1000], content[: len(content) // 2]):
        (tmp_path / "damaged.tflite").write_bytes(damaged)
        with pytest.raises((ValueError, RuntimeError)):
            with client(tmp_path / "damaged.tflite"):
                pass
