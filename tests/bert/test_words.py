"""Which words a text has that is to be tagged, and what becomes of words that are cut off."""

import pytest

from keras_compress.bert.words import are_characters, words_of
from keras_compress.measure.accuracy import evaluate
from keras_compress.training.finetune import finetune
from mobile_export.parity import _at_length
from tests.bert import tiny
from tests.support import TRAINING, Dataset, Split


@pytest.mark.parametrize(
    "text, words",
    [
        ("我听音乐", "我 听 音 乐"),
        ("我用iPhone15听NBA!", "我 用 iPhone15 听 NBA !"),
        ("the cats", "the cats"),
        ("covid-19", "covid-19"),
        ("我", "我"),
        ("小明 在 北京", "小明 在 北京"),  # somebody's words
        ("播放 Taylor Swift 的歌", "播放 Taylor Swift 的歌"),  # may be words
        ("播放 Taylor Swift 的新歌和专辑", "播 放 Taylor Swift 的 新 歌 和 专 辑"),
        ("我 听 音 乐", "我 听 音 乐"),
        ("", ""),
    ],
)
def test_words(text, words, caplog):
    model = tiny.shared("tagging")
    with caplog.at_level("INFO"):
        assert words_of([text], model) == [words.split(" ")]
    assert ("is tagged by characters" in caplog.text) == (text != words)
    assert words_of([["小明", "在北京"]], model) == [["小明", "在北京"]]


def test_a_model_that_learned_characters_reads_all_chinese_so():
    model = tiny.model("tagging")
    model.history = [{"method": "finetune", "words": "characters"}]
    assert words_of(["播放 Taylor Swift 的歌"], model) == ["播 放 Taylor Swift 的 歌".split()]


def test_data_tell_what_words_are(tmp_path):
    assert are_characters(["我 听 iPhone", "the cat"])
    assert not are_characters(["the cat"]) and not are_characters(["我 听", "音乐"])
    split = Split(["我 听 the"] * 4, [[0, 1, 2]] * 4)
    data = Dataset("d", "tagging", tiny.LABELS["tagging"], split)
    model = finetune(tiny.model("tagging"), data, training=TRAINING.replace(epochs=1))
    model.save(tmp_path / "m")
    assert type(model).load(tmp_path / "m").history[-1]["words"] == "characters"


def test_predict_tags_characters_and_evaluate_keeps_the_words_of_the_data():
    model = tiny.shared("tagging")
    ((words, tags),) = model.predict(["我听音乐"])
    assert words == ["我", "听", "音", "乐"] and len(tags) == 4
    assert model.predict(["我 听 音 乐"]) == [(words, tags)]
    exported = _at_length(model, 16, lambda texts, _: model.forward(texts))
    assert exported.predict(["我听音乐"]) == [(words, tags)]
    assert evaluate(model, Split(["我听音乐", "the cat"], [[1], [0, 0]]))["confusion"].sum() == 3


def test_a_word_that_is_cut_off_has_no_tag_and_counts_as_wrong():
    text = "the cat sat"
    for labels, cut in ((("O", "B-x", "I-x"), "O"), (("DET", "NOUN", "VERB"), None)):
        model = tiny.model("tagging")
        model.labels = labels
        ((words, tags),) = model.predict([text], max_length=4)
        assert words == text.split() and tags[2] == cut and tags[0] in labels
    tags = model.predict([text])[0][1]
    model.config = model.config.replace(max_position_embeddings=4)
    result = evaluate(model, Split([text], [[labels.index(tag) for tag in tags]]))
    assert result["scores"].tolist() == [[2, 3, 3]] and result["confusion"].sum() == 2
