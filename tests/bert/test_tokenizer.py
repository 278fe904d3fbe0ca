import warnings

import pytest
from bert4keras.tokenizers import Tokenizer as Reference

from keras_compress.bert import checkpoints as weights
from keras_compress.bert.tokenizer import Tokenizer, read_vocab
from tests.bert import tiny


@pytest.fixture(scope="module")
def minilm_vocab():
    return read_vocab(weights.minilm_folder() / "vocab.txt")


ALIKE = [
    "The quick brown fox, doesn't jump!",
    "Unbelievably café-style naïveté: 12.5% (or $3)…",
    "state-of-the-art U.S.A.",
    "我想听音乐。今天天气怎么样？",
    "用Python写一个iPhone的App，version 2.0",
    "打开WiFi,谢谢!",
    "한국어 ひらがな カタカナ ｶﾅ",
    "ÀÉÎ ñ ß Ĳ ﬁ İstanbul Σίσυφος",
    "Привет, мир",
    "１２３ ＡＢＣ",
    "\U00020000 〇 々",
    "§ ¶ © ™ ° ± ^ ` ~ |",
    "",
    " ",
    "a\tb\nc\r\nd\x0be\u2028f",
    "a\u00a0b\u3000c",
    "tail \u200b zero\u200bwidth \ufeff soft\u00adhyphen",
    "\x00a\x07",
    "emoji 😀 👍🏽 👩‍👩‍👧",
    "x" * 100,
    "x" * 201,
    "[CLS] and [MASK] typed by a user",
    "\ufffd",
    "a\u0300b क्षि",
]
# Facts, not faults: where BERT's own limits (100 characters a word) and clean-up (private use) differ from bert4keras'.
DIFFERENT = {
    "x" * 101: (["[UNK]"], ["xx"] + ["##xx"] * 49 + ["##x"]),
    "a \ue000 b": (["a", "b"], ["a", "[UNK]", "b"]),
}


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_equal_bert4keras(minilm_vocab, lowercase):
    chinese = list("我想听音乐今天气怎么样用写一个的打开谢。？，")
    vocab = minilm_vocab + [c for c in chinese if c not in minilm_vocab]
    ours = Tokenizer(vocab, lowercase)
    theirs = Reference({piece: i for i, piece in enumerate(vocab)}, do_lower_case=lowercase)
    for text in ALIKE:
        assert ours.encode([text], 512)[0].ids == theirs.encode(text)[0], text
    for text, (here, there) in DIFFERENT.items():
        assert [vocab[i] for i in ours.encode([text], 512)[0].ids[1:-1]] == here
        assert [vocab[i] for i in theirs.encode(text)[0][1:-1]] == there
    pair = ("The quick 音乐", "café, fox?")
    encoding = ours.encode([pair], 512)[0]
    assert (encoding.ids, encoding.type_ids) == theirs.encode(*pair)


def test_pieces_by_hand():
    ours = tiny.tokenizer()

    def pieces(text, tokenizer=ours):
        return [tokenizer.vocab[i] for i in tokenizer.encode([text], 16)[0].ids[1:-1]]

    assert pieces("The CATS, unbelievable Café!") == [
        "the",
        "cat",
        "##s",
        ",",
        "un",
        "##believ",
        "##able",
        "cafe",
        "!",
    ]
    assert pieces("我a你 zebra") == ["我", "a", "你", "[UNK]"]
    assert pieces("The café", tiny.tokenizer(lowercase=False)) == ["[UNK]", "[UNK]"]


def test_pairs_and_truncation():
    ours = tiny.tokenizer()
    cls, sep, a, cat = (ours.ids[piece] for piece in ("[CLS]", "[SEP]", "a", "cat"))
    one, pair, cut = ours.encode(["a cat", ("a", "cat cat"), ("a a", "cat cat cat cat cat")], 7)
    assert one[:3] == ([cls, a, cat, sep], [0] * 4, False)
    assert pair[:3] == ([cls, a, sep, cat, cat, sep], [0, 0, 0, 1, 1, 1], False)
    # the longer one is cut
    assert cut[:3] == ([cls, a, a, sep, cat, cat, sep], [0, 0, 0, 0, 1, 1, 1], True)
    assert ours.encode(["a " * 50], 5)[0][:3] == ([cls, a, a, a, sep], [0] * 5, True)
    with pytest.raises(ValueError, match="`max_length` must leave room .* Received: 3"):
        ours.encode(["a"], 3)


def test_word_starts():
    ours = tiny.tokenizer()
    first, second = ours.encode_words(["the unbelievable cats \u200b 我你", "a dog"], 32)
    # [CLS] the un ##believ ##able cat ##s 我 你 [SEP]; the fourth word is cleaned away
    assert [ours.vocab[i] for i in first.ids[1:5]] == ["the", "un", "##believ", "##able"]
    assert first.word_starts == [1, 2, 5, -1, 7] and not first.truncated
    assert second.word_starts == [1, 2]
    cut = ours.encode_words(["the unbelievable cats"], 5)[0]
    assert cut.word_starts == [1, 2, -1] and cut.truncated


def test_any_string_is_encoded():
    odd = [
        "",
        "\ud800 lone \udfff",
        "\x00",
        "\U0010ffff",
        "a" * 100_000,
        "我" * 1000,
        "\u202eabc",
        "👩‍👩‍👧‍👦",
    ]
    ours = tiny.tokenizer()
    assert ours.encode(["\ud800cat\udfff"], 16) == ours.encode(["cat"], 16)
    assert [e.truncated for e in ours.encode(odd, 16)] == [False] * 5 + [True, False, False]
    assert (
        len(ours.encode_words(odd, 16))
        == len(ours.encode([(text, text) for text in odd], 16))
        == len(odd)
    )


@pytest.mark.parametrize(
    "vocab, message",
    [
        (
            ["[PAD]", "[UNK]", "[CLS]", "a"],
            r"must hold each piece once, .PAD.* Missing: \['\[SEP\]'\]",
        ),
        ([*tiny.VOCAB, "cat"], r"Missing: \[\]; twice: \['cat'\]"),
    ],
)
def test_bad_vocabulary(vocab, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(vocab)


def test_vocabulary_files(tmp_path):
    path = tmp_path / "vocab.txt"
    tiny.tokenizer().save(path)
    assert read_vocab(path) == tiny.VOCAB
    path.write_bytes("\r\n".join(tiny.VOCAB).encode())  # Windows line ends, no last one
    assert read_vocab(path) == tiny.VOCAB
    path.write_bytes("\n".join([*tiny.VOCAB, "", "", ""]).encode("utf-8-sig"))  # Windows' editor
    assert read_vocab(path) == tiny.VOCAB
    assert read_vocab(path, keep=True) == [*tiny.VOCAB, "", ""]  # as they were saved
    path.write_bytes(b"[PAD]\n\xff\xfe\n")
    with pytest.raises(ValueError, match="vocab.txt:2: text must be UTF-8. Received: .*Save"):
        read_vocab(path)


# --- unknown words ---


@pytest.mark.parametrize(
    "method, texts, share",
    [
        ("encode", ["cat"] * 9 + ["zebra1"], "10%"),
        ("encode", [("cat dog the a", "zebra1")] * 2 + ["cat"] * 10, "10%"),
        ("encode_words", ["the unbelievable cats", "zebra1 12 !"], "17%"),
    ],
)
def test_many_unknown_words_are_told_once(method, texts, share):
    ours = tiny.tokenizer()
    with pytest.warns(UserWarning, match=f"{share} of the words of .* such as zebra1. The model"):
        getattr(ours, method)(texts, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(ours, method)(texts, 16)
        tiny.tokenizer().encode(["cat"] * 10 + ["zebra"], 16)  # 9 %


def test_at_most_five_unknown_words_are_shown_as_they_were_written():
    with pytest.warns(UserWarning, match="100% .* such as Zebra, ÉLAN, z{20}, 看, tiger. The"):
        tiny.tokenizer().encode(["Zebra \u200bÉLAN " + "z" * 50, "看 tiger lion"], 16)


def test_words_before_they_are_cut_into_pieces():
    assert tiny.tokenizer().words("The Café, 我听") == ["the", "cafe", ",", "我", "听"]
    assert tiny.tokenizer(lowercase=False).words("The Café") == ["The", "Café"]
