"""Tokenizers of published folders: which switches count, and what is not BERT's tokenizer."""

import json
from pathlib import Path

import pytest

from keras_compress.bert.tokenizer import Tokenizer, make_tokenizer, read_tokenizer
from tests.bert.tokenizer_reference import write

SPECIAL = "[PAD] [UNK] [CLS] [SEP] [MASK]".split()
REFERENCE = json.loads(Path(__file__).with_name("tokenizer_reference.json").read_text())
# As in Google's Chinese vocabulary: <S> and <T> are the only capitals outside brackets.
CHINESE = [*SPECIAL, "[unused1]", "<S>", "<T>", *"iphone nba app the film a b 我 听 看 用".split()]
CASED = [*SPECIAL, *"a b c d A B iPhone the film I ##s ##ing 我".split()]


def folder_of(folder, vocab=CHINESE, **configs):
    """A folder with a vocab.txt and further JSON files, named without their ending."""
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    for name, values in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def pieces(tokenizer, text):
    return [tokenizer.vocab[i] for i in tokenizer.encode([text], 64)[0].ids[1:-1]]


@pytest.mark.parametrize("name", REFERENCE["folders"])
def test_ids_equal_those_of_transformers(tmp_path, name):
    write(tmp_path, REFERENCE["folders"][name])
    tokenizer = read_tokenizer(tmp_path, special_in_text=True)
    again = Tokenizer(tokenizer.own, tokenizer.lowercase, **tokenizer.switches())
    texts = REFERENCE["texts"]
    assert len(texts) == 200 and {len(ids) > 2 for ids in REFERENCE["ids"][name]} == {True, False}
    for text, ids, *ours in zip(
        texts, REFERENCE["ids"][name], tokenizer.encode(texts, 512), again.encode(texts, 512)
    ):
        assert [x.ids for x in ours] == [ids, ids], text


# --- cased or uncased ---


def test_a_few_capitals_make_no_cased_vocabulary(tmp_path, caplog):
    with caplog.at_level("INFO"):
        tokenizer = read_tokenizer(folder_of(tmp_path))
    assert tokenizer.lowercase and pieces(tokenizer, "用iPhone看NBA") == "用 iphone 看 nba".split()
    said = "vocab.txt: uncased, since 0 of 7 pieces with letters hold a capital"
    assert said in caplog.text
    own = [*CHINESE, *"cdefgh", "NBA"]  # a word of one's own in an [unused] row: 1 of 14
    assert read_tokenizer(folder_of(tmp_path, own)).lowercase
    assert not read_tokenizer(folder_of(tmp_path, CASED)).lowercase  # 4 of 12


@pytest.mark.parametrize(
    "share, lowercase", [(0.0, True), (0.09, True), (0.1, False), (0.3, False)]
)
@pytest.mark.parametrize("word", ["Word{}", "Слово{}", "Ωmega{}"])
def test_the_share_of_capitals_decides(share, lowercase, word):
    words = [word.format(k) if k < 100 * share else f"word{k}" for k in range(100)]
    numbers = [f"{k}" for k in range(100)]  # no letters: they do not count
    assert make_tokenizer("x", [*SPECIAL, *words, *numbers, "我"]).lowercase is lowercase


@pytest.mark.parametrize(
    "configs, lowercase",
    [
        ({"tokenizer_config": {"do_lower_case": False}}, False),
        ({"tokenizer_config": {"do_lower_case": None}, "config": {"do_lower_case": False}}, False),
        ({"tokenizer_config": {"do_lower_case": True}, "config": {"do_lower_case": False}}, True),
        ({"bert_config": {"do_lower_case": False}}, False),
        ({"albert_config_tiny": {"do_lower_case": False}}, False),
        ({"config": {"model_type": "bert"}}, True),
    ],
)
def test_a_switch_of_the_folder_comes_first(tmp_path, configs, lowercase):
    assert read_tokenizer(folder_of(tmp_path, **configs)).lowercase is lowercase


def test_a_switch_against_the_vocabulary_is_followed_with_a_warning(tmp_path, caplog):
    folder = folder_of(tmp_path, tokenizer_config={"do_lower_case": False})
    assert not read_tokenizer(folder).lowercase
    assert "0 of 7 pieces with letters hold a capital; `--lowercase` overrides it" in caplog.text
    caplog.clear()
    assert read_tokenizer(folder_of(tmp_path, CASED, tokenizer_config={"do_lower_case": True}))
    assert "4 of 12 pieces with letters hold a capital; `--cased` overrides it" in caplog.text


def test_a_tokenizer_with_another_case():
    tokenizer = make_tokenizer("x", CASED)
    assert tokenizer.with_case(None) is tokenizer and tokenizer.with_case(False) is tokenizer
    assert pieces(tokenizer, "A I") == ["A", "I"]
    assert pieces(tokenizer.with_case(True), "A I") == ["a", "[UNK]"]


def test_another_case_keeps_accents_as_the_folder_says(tmp_path):
    config = {"do_lower_case": True, "strip_accents": True}
    for strip, expected in ((True, True), (False, False), (None, None)):
        config["strip_accents"] = strip
        cased = read_tokenizer(folder_of(tmp_path, tokenizer_config=config)).with_case(False)
        assert (cased.lowercase, cased.strip_accents) == (False, expected)


# --- what is not BERT's tokenizer ---

JAPANESE = [*SPECIAL, *"映画 面白い 面白く 今日 天気 映 画 ##画 は です ##い".split()]
KOREAN = [*SPECIAL, *"▁영화 ▁정말 ▁좋 다 ▁ .".split()]
RULE = r": the tokenizer must be BERT's own, .* Received: "


@pytest.mark.parametrize(
    "file, values",
    [
        ("tokenizer_config", {"tokenizer_class": "KoBertTokenizer"}),
        ("config", {"tokenizer_class": "BertJapaneseTokenizer"}),
        ("tokenizer_config", {"word_tokenizer_type": "mecab"}),
        ("tokenizer_config", {"subword_tokenizer_type": "character"}),
        ("tokenizer_config", {"do_basic_tokenize": False}),
        ("tokenizer_config", {"do_word_tokenize": False}),
        ("tokenizer_config", {"never_split": ["iPhone"]}),
        ("tokenizer_config", {"mecab_kwargs": {"mecab_dic": "ipadic"}}),
        ("tokenizer_config", {"cls_token": {"content": "<s>", "lstrip": False}}),
        ("tokenizer_config", {"tokenizer_class": "PreTrainedTokenizerFast"}),  # no tokenizer.json
        ("tokenizer_config", {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}}),
    ],
)
def test_a_config_of_another_tokenizer_is_refused(tmp_path, file, values):
    ((key, _),) = values.items()
    with pytest.raises(ValueError, match=f"{file}.json{RULE}`{key}` = "):
        read_tokenizer(folder_of(tmp_path, **{file: values}))


def test_a_config_that_says_what_is_usual_is_read(tmp_path):
    usual = {
        "tokenizer_class": "BertTokenizerFast",
        "never_split": None,
        "do_basic_tokenize": True,
        "word_tokenizer_type": "basic",
        "cls_token": {"content": "[CLS]"},
        "model_max_length": 512,
    }
    folder = folder_of(tmp_path, tokenizer_config=usual, config={"tokenizer_class": None})
    assert read_tokenizer(folder).switches() == {}


@pytest.mark.parametrize(
    "vocab, message",
    [
        (KOREAN, "no piece with '##', but .'▁영화'.* as of SentencePiece"),
        (JAPANESE, "5 pieces of several Chinese characters, such as .'映画'.* MeCab or jieba"),
    ],
)
def test_a_vocabulary_of_another_tokenizer_is_refused(tmp_path, vocab, message):
    with pytest.raises(ValueError, match=f"vocab.txt{RULE}{message}"):
        read_tokenizer(folder_of(tmp_path, vocab))


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer_78b3253a26.model", "30k-clean.model"])
def test_a_sentence_piece_model_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"{name}{RULE}a SentencePiece model"):
        read_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="a SentencePiece model"):
        read_tokenizer(folder_of(tmp_path))
    (tmp_path / name).rename(tmp_path / "best.model")  # the name that someone gave to weights
    assert read_tokenizer(tmp_path)


def tokenizer_json(folder, change=lambda stored: None, vocab=CHINESE):
    """Writes what `transformers` writes, changed."""
    stored = json.loads(Tokenizer(vocab)._engine.to_str())
    change(stored)
    (folder / "tokenizer.json").write_text(json.dumps(stored), encoding="utf-8")
    return folder


def template(kinds):
    def item(piece, kind):
        return {"Sequence" if len(piece) == 1 else "SpecialToken": {"id": piece, "type_id": kind}}

    pair = [item(*x) for x in zip(["[CLS]", "A", "[SEP]", "B", "[SEP]"], kinds)]
    return {"type": "TemplateProcessing", "single": pair[:3], "pair": pair}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t["model"].update(type="BPE"), "`model` = 'BPE' instead of 'WordPiece'"),
        (lambda t: t.update(normalizer={"type": "Lowercase"}), "`normalizer` = 'Lowercase'"),
        (lambda t: t.update(normalizer=None), "`normalizer` = None"),
        (
            lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [t["normalizer"]]}),
            "`normalizer` = 'Sequence'",
        ),
        (lambda t: t["normalizer"].update(clean_text=False), "`clean_text` = False"),
        (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "`pre_tokenizer` = 'White"),
        (lambda t: t["model"].update(continuing_subword_prefix="_"), "`continuing_.* = '_'"),
        (lambda t: t["model"].update(max_input_chars_per_word=50), "`max_input_.* = 50"),
        (lambda t: t.update(post_processor=None), "`post_processor` = .. instead of"),
        (lambda t: t.update(post_processor=template([0] * 5)), "`post_processor` = "),
    ],
)
def test_another_tokenizer_json_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=f"tokenizer.json{RULE}{message}"):
        read_tokenizer(tokenizer_json(tmp_path, change))


def test_a_tokenizer_json_is_read(tmp_path):
    def change(stored):
        stored["normalizer"].update(lowercase=False, handle_chinese_chars=False)
        stored["truncation"] = {"max_length": 4, "strategy": "LongestFirst", "stride": 0}
        stored["post_processor"] = template([0, 0, 0, 1, 1])

    tokenizer = read_tokenizer(tokenizer_json(tmp_path, change))
    assert (tokenizer.lowercase, tokenizer.switches()) == (False, {"split_chinese": False})
    assert len(tokenizer.encode(["a b a b a b"], 16)[0].ids) == 8
    # tokenizer_config.json comes first, unless its class reads tokenizer.json alone
    folder = folder_of(tmp_path, tokenizer_config={"do_lower_case": True})
    assert read_tokenizer(folder).lowercase
    fast = {"do_lower_case": True, "tokenizer_class": "PreTrainedTokenizerFast"}
    assert not read_tokenizer(folder_of(tmp_path, tokenizer_config=fast)).lowercase
    with pytest.raises(ValueError, match="json: a vocabulary must number its pieces from 0"):
        read_tokenizer(tokenizer_json(tmp_path, lambda t: t["model"]["vocab"].update({"!": 99})))


def test_a_vocab_txt_that_was_changed_beside_tokenizer_json_is_said(tmp_path, caplog):
    """Own words on the lines of [unused1] and others: only programs that read vocab.txt see them."""
    folder = tokenizer_json(tmp_path, lambda stored: None)
    vocab = list(read_tokenizer(folder).own)
    (folder / "vocab.txt").write_text("\r\n".join(vocab) + "\r\n", "utf-8")
    assert read_tokenizer(folder).own == vocab
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    (folder / "vocab.txt").write_text("\n".join([*vocab[:-1], "disco"]) + "\n", "utf-8")
    assert read_tokenizer(folder).own == vocab
    assert "is read, not vocab.txt, which has 1 other pieces, such as disco" in caplog.text


# --- switches of BERT's tokenizer ---


def test_the_side_that_is_cut_off(tmp_path):
    """By hand: of [CLS] a b b [SEP], four pieces hold a b, or b b where the beginning is cut off."""
    left = {"truncation_side": "left"}

    def words_of(tokenizer):
        (encoding,) = tokenizer.encode(["a b b"], 4)
        assert encoding.truncated
        return "".join(tokenizer.vocab[index] for index in encoding.ids[1:-1])

    assert words_of(read_tokenizer(folder_of(tmp_path))) == "ab"
    tokenizer = read_tokenizer(folder_of(tmp_path, tokenizer_config=left))
    assert (tokenizer.cut_part, tokenizer.with_case(True).cut_part) == ("beginnings",) * 2
    assert tokenizer.switches() == left and words_of(tokenizer.with_case(False)) == "bb"
    assert tokenizer.encode_words(["a b b"], 4)[0].word_starts == [-1, 1, 2]
    own = left | {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }  # reads tokenizer.json alone, but for this
    assert (
        words_of(read_tokenizer(tokenizer_json(folder_of(tmp_path, tokenizer_config=own)))) == "bb"
    )
    cut = lambda stored: stored.update(truncation={"direction": "Left", "max_length": 9})
    folder = tokenizer_json(folder_of(tmp_path, tokenizer_config={}), cut)
    assert words_of(read_tokenizer(folder)) == "bb"


def test_accents_apart_from_case(tmp_path):
    vocab = [*SPECIAL, *"cafe café e a b".split()]
    kept = {"do_lower_case": True, "strip_accents": False}
    tokenizer = read_tokenizer(folder_of(tmp_path, vocab, tokenizer_config=kept))
    assert tokenizer.switches() == {"strip_accents": False}
    assert pieces(tokenizer, "CAFÉ cafe") == ["café", "cafe"]
    stripped = {"do_lower_case": False, "strip_accents": True}
    tokenizer = read_tokenizer(folder_of(tmp_path, vocab, tokenizer_config=stripped))
    assert pieces(tokenizer, "café A") == ["cafe", "[UNK]"]
    as_case = {"do_lower_case": True, "strip_accents": True}
    assert read_tokenizer(folder_of(tmp_path, vocab, tokenizer_config=as_case)).switches() == {}


def test_chinese_characters_are_words_or_not(tmp_path):
    vocab = [*SPECIAL, *"音乐 听 音 乐 ##音 ##乐 a".split()]
    whole = read_tokenizer(
        folder_of(tmp_path, vocab, tokenizer_config={"tokenize_chinese_chars": False})
    )
    assert pieces(whole, "听音乐 音乐") == ["听", "##音", "##乐", "音乐"]
    again = Tokenizer(whole.own, whole.lowercase, **whole.switches())
    assert pieces(again, "音乐") == ["音乐"]


# --- added words ---


def test_added_words_of_every_file(tmp_path, caplog):
    n = len(CHINESE)
    files = {
        "added_tokens": {"<user>": n, "[MASK]": CHINESE.index("[MASK]")},
        "special_tokens_map": {"bos_token": {"content": "[unused1]"}, "cls_token": "[CLS]"},
        "tokenizer_config": {
            "added_tokens_decoder": {f"{n + 1}": {"content": "[URL]", "special": True}},
            "additional_special_tokens": ["[URL]"],
            "extra_special_tokens": {"image_token": "NBA!"},
        },
    }
    tokenizer = read_tokenizer(folder_of(tmp_path, **files))
    assert tokenizer.outside == ["<user>", "[URL]", "NBA!"] and tokenizer.own == CHINESE
    assert len(tokenizer.vocab) == n + 3 and tokenizer.ids["[URL]"] == n + 1
    assert pieces(tokenizer, "看[URL]<USER>[unused1]NBA!nba") == (
        "看 [URL] <user> [unused1] NBA! nba".split()
    )
    # a piece that an added word is part of goes its own way; words of a text are found as well
    (encoding,) = tokenizer.encode_words(["看 [URL] iphone"], 16)
    assert encoding.word_starts == [1, 2, 3]
    kept = [piece for piece in tokenizer.vocab if piece not in ("[URL]", "听")]
    few = tokenizer.with_pieces(kept)
    assert few.vocab == kept and pieces(few, "[URL]<user>") == ["[UNK]"] * 3 + ["<user>"]


def test_a_special_piece_in_a_text_is_google_s_or_transformers(tmp_path):
    vocab = [*SPECIAL, *"[ ] sep a".split()]
    google = read_tokenizer(folder_of(tmp_path, vocab))
    assert pieces(google, "a [SEP]") == ["a", "[", "sep", "]"] and google.switches() == {}
    theirs = read_tokenizer(tmp_path, special_in_text=True)
    assert pieces(theirs, "a [SEP] [sep]") == ["a", "[SEP]", "[", "sep", "]"]
    assert theirs.switches() == {"special_in_text": True}


def test_switches_that_are_null_are_as_usual(tmp_path):
    keys = "do_lower_case added_tokens_decoder additional_special_tokens tokenizer_class truncation_side"
    tokenizer = read_tokenizer(folder_of(tmp_path, tokenizer_config=dict.fromkeys(keys.split())))
    assert (tokenizer.lowercase, tokenizer.switches()) == (True, {})


@pytest.mark.parametrize("number", [3, len(CHINESE) + 1])
@pytest.mark.parametrize("word", ["<user>", "nba"])
def test_an_added_word_needs_its_own_id(tmp_path, word, number):
    with pytest.raises(ValueError, match=f"must have the id .* Received: '{word}' with {number}"):
        read_tokenizer(folder_of(tmp_path, added_tokens={word: number}))
