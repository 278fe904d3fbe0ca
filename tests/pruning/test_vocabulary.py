import numpy as np
import pytest

from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import Tokenizer
from keras_compress.datasets.dataset import Dataset, Split
from keras_compress.measure.cost import parameters
from keras_compress.pruning import vocabulary as V
from keras_compress.training.loop import Training
from mobile_export.convert import export
from tests.bert import tiny
from tests.distillation.test_distilbert import masked_lm
from tests.replacement.test_theseus import data


def dataset(texts, task="classification", dev=None):
    labels = [k % 3 for k in range(len(texts))]
    return Dataset(
        "tiny",
        task,
        tiny.LABELS[task],
        Split(texts, labels),
        Split(dev, labels[: len(dev)]) if dev else None,
    )


SOME = dataset(["the cats sat", "unbelievable!", "我听"], dev=["the dog sat"])


def test_piece_counts():
    counts = dataset(["the the cat", "cat"]).piece_counts(tiny.tokenizer())
    found = {piece: count for piece, count in zip(tiny.VOCAB, counts) if count}
    assert found == {"the": 2, "cat": 2, "[CLS]": 2, "[SEP]": 2}


def test_kept_texts_give_the_same_logits_to_the_last_bit():
    model = tiny.model()
    small = V.compress(model, SOME)
    assert (
        len(small.tokenizer.vocab) < len(tiny.VOCAB) and small.history[-1]["cut_otherwise"] == 1.0
    )  # "dog" went
    texts = SOME.train.texts
    ours, theirs = small.tokenizer.encode(texts, 16), model.tokenizer.encode(texts, 16)
    assert [[small.tokenizer.vocab[i] for i in e.ids] for e in ours] == [
        [tiny.VOCAB[i] for i in e.ids] for e in theirs
    ]
    np.testing.assert_array_equal(small.forward(ours), model.forward(theirs))
    inside = [
        one.features(["hidden_states"])(one.pad(e))["hidden_states"]
        for one, e in ((small, ours), (model, theirs))
    ]
    for mine, others in zip(*inside, strict=True):
        np.testing.assert_array_equal(mine, others)


def test_what_is_kept():
    counts = np.zeros(len(tiny.VOCAB), int)
    counts[tiny.VOCAB.index("cat")] = 5
    counts[tiny.VOCAB.index("dog")] = 1

    def names(*arguments, **settings):
        return {
            tiny.VOCAB[i] for i in V.choose_pieces(list(tiny.VOCAB), counts, *arguments, **settings)
        }

    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    characters = {piece for piece in tiny.VOCAB if len(piece.removeprefix("##")) == 1}
    assert names() == special | characters | {"cat", "dog"}
    assert names(2) == special | characters | {"cat"}
    assert names(2, keep=["mat"]) == special | characters | {"cat", "mat"}
    assert names(0) == set(tiny.VOCAB)
    latin = {piece for piece in tiny.VOCAB if not any("\u4e00" <= c for c in piece)}
    assert names(0, scripts=["LATIN"]) == latin
    counts[tiny.VOCAB.index("我")] = 9  # the data's own, of another script
    assert names(0, scripts=["LATIN"]) == latin | {"我"} and "我" in names(2, scripts=["LATIN"])
    assert {"cat", "a"} <= names(2, scripts=["CJK"]) and "x" not in names(
        2, scripts=["CJK"]
    )  # "cat" can be spelled
    assert V.choose_pieces(list(tiny.VOCAB), counts)[0] == 0  # [PAD] stays piece 0


def test_words_that_went_fall_apart_and_are_counted():
    small = V.compress(tiny.model(), dataset(["a cat"], dev=["the dog 听"]))
    entry = small.history[-1]
    assert entry["pieces"] == len(small.tokenizer.vocab) and entry["pieces_before"] == len(
        tiny.VOCAB
    )
    assert entry["unknown_before"] == 0.0 and entry["unknown"] == pytest.approx(
        2 / 3
    )  # the, dog; 听 is a character
    assert np.isfinite(small.predict(["the dog 听", ""])).all()
    assert entry["looked_at"] == "dev"
    flattered = V.compress(tiny.model(), dataset(["a cat"])).history[-1]  # no dev
    assert (flattered["looked_at"], flattered["unknown"], flattered["cut_otherwise"]) == (
        "train",
        0.0,
        0.0,
    )


def test_parameters_fall_by_the_rows():
    model = masked_lm()
    small = V.compress(model, Dataset("p", "unlabelled", (), Split(["a cat"], [0])))
    gone = len(tiny.VOCAB) - len(small.tokenizer.vocab)
    assert (
        model.model.count_params() - small.model.count_params() == gone * 8 + gone
    )  # and the masked-LM bias
    assert parameters(model.config) - parameters(small.config) == gone * 8


def test_it_is_a_word_piece_vocabulary_of_its_own(tmp_path):
    small = V.compress(tiny.model(), SOME)
    small.save(tmp_path / "s")
    again = TaskModel.load(tmp_path / "s")
    assert again.tokenizer.vocab == small.tokenizer.vocab
    np.testing.assert_array_equal(again.predict(tiny.TEXTS), small.predict(tiny.TEXTS))
    assert export(small, tmp_path, ("float32",), sequence_length=12)[0]["max_dlogit"] < 1e-4


@pytest.mark.parametrize("task", ["matching", "tagging"])
def test_other_tasks(task):
    small = V.compress(tiny.model(task), data(task))
    assert small.config.vocab_size < len(tiny.VOCAB) and small.task == task


def test_tuning_afterwards():
    training = Training(epochs=1, batch_size=4, max_length=16, evaluations=1)
    small = V.compress(tiny.model(), data(), training=training, tune=True)
    assert [step["method"] for step in small.history] == [
        "vocabulary",
        "finetune",
    ] and "dev" in small.curve[-1]


def test_the_input_is_left_as_it_was():
    model = tiny.model()
    before = model.weights()
    V.compress(model, SOME)
    assert all(np.array_equal(value, before[name]) for name, value in model.weights().items())
    assert model.tokenizer.vocab == list(tiny.VOCAB) and model.history == []


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: V.compress(tiny.model(), SOME, min_count=-1),
            "`min_count` must be a whole number of 0 or more",
        ),
        (
            lambda: V.compress(tiny.model(), SOME, keep=["zebra"]),
            r"`keep` must be a list of pieces .*\['zebra'\]",
        ),
        (
            lambda: V.compress(tiny.model(), SOME, scripts=["latin"]),
            r"Received: \['latin'\]. It has .*CJK, LATIN",
        ),
        (
            lambda: V.compress(tiny.model(), SOME, scripts="LATIN"),
            "`scripts` must be a list .*Received: 'LATIN'",
        ),
        *[
            (
                lambda name=name, value=value: V.compress(tiny.model(), SOME, **{name: value}),
                f"`{name}` must be a list .*Received: ",
            )
            for name in ("keep", "scripts")
            for value in (0, "", False, {}, [["a"]], [0])
        ],
        (lambda: V.compress(tiny.model("matching"), SOME), "must have one task"),
        (
            lambda: V.compress(
                tiny.model(
                    quantization=dict.fromkeys(("bits", "activations", "decay", "start_step"), 1)
                ),
                Dataset("p", "unlabelled", (), Split(["a cat"], [0])),
            ),
            "must be the last of a chain",
        ),
        (lambda: V.slice_vocabulary(tiny.model(), [0, 1, 3, 4]), r"missing: \[CLS\]"),
        (lambda: V.slice_vocabulary(masked_lm(), [0, 1, 2, 3]), r"missing: \[MASK\]"),
        (
            lambda: V.slice_vocabulary(tiny.model(), [0, 1, 2, 3, tiny.VOCAB.index("##able")]),
            "missing: a",
        ),
        (
            lambda: V.slice_vocabulary(tiny.model(), [0, 1, 2, 3, 9999]),
            "Received: 5 ids of 4 pieces",
        ),
        (lambda: V.slice_vocabulary(tiny.model(), [1, 0, 2, 3]), "in the old order"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_scripts():
    assert (
        V.scripts_of("##cafe") == {"LATIN"}
        and V.scripts_of("我") == {"CJK"}
        and V.scripts_of("12!") == set()
    )
    assert Tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]"]).vocab  # the least that is a vocabulary
