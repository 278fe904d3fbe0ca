"""Tokenizers of published folders: which switches count, and what is not BERT's tokenizer."""

import json

import pytest

from keras_compress.bert.tokenizer import make_tokenizer, read_tokenizer

SPECIAL = "[PAD] [UNK] [CLS] [SEP] [MASK]".split()
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
