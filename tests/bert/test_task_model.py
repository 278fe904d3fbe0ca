import json

import numpy as np
import pytest

from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import Tokenizer, read_vocab
from keras_compress.files import read_json, write_json
from tests.bert import tiny

FILES = {
    "config.json",
    "model.safetensors",
    "vocab.txt",
    "labels.txt",
    "metrics.json",
    "history.csv",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = tiny.model(pooling="cls", num_layers=1)
    model.history = [{"method": "load", "source": "x", "left_out": ["a"], "seed": 0}]
    model.curve = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "note": 'last, "best"'}]
    model.metrics = {"accuracy": 0.75}
    model.save(folder)
    return model, folder


def copied(folder, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_predict_gives_probabilities_in_the_order_of_the_texts():
    model = tiny.shared()
    texts = tiny.TEXTS * 3
    found = model.predict(texts, batch_size=5)
    assert found.shape == (12, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-6)
    for text, row in zip(texts, found):
        np.testing.assert_allclose(model.predict([text])[0], row, atol=1e-6)
    logits = model.forward(model.tokenizer.encode(texts[:1], 16))[0]
    np.testing.assert_allclose(found[0], np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01 and model.predict([]).shape == (0, 3)


def test_a_model_whose_answers_are_not_finite_does_not_predict():
    broken = tiny.model()
    broken.set_weights(
        {"classifier/bias": np.full(3, np.nan, np.float32)}, only=["classifier/bias"]
    )
    with pytest.raises(
        ValueError, match="answers must be finite numbers. Received: NaN or infinity"
    ):
        broken.predict(tiny.TEXTS)


def test_predict_of_pairs():
    model = tiny.shared("matching")
    one, other = model.predict([("the cat", "a dog"), ("a dog", "the cat")])
    assert one.shape == (2,) and np.abs(one - other).max() > 1e-4


def test_predict_of_words():
    model = tiny.shared("tagging")
    texts = ["the unbelievable cats \u200b sat", "我 听 音 乐", "the " * 30 + "cat", ""]
    found = model.predict(texts)
    assert [words for words, _ in found] == [text.split(" ") for text in texts]
    assert all(
        len(words) == len(labels) and set(labels) <= set(model.labels) for words, labels in found
    )
    # A word's label is that of its first piece: [CLS] the un ##believ ##able cat ##s sat
    logits = model.forward(model.tokenizer.encode_words(texts[:1], 16))[0]
    best = [model.labels[k] for k in logits.argmax(-1)]
    assert found[0][1] == [best[1], best[2], best[5], "O", best[7]]
    assert found[2][1][14:] == ["O"] * 17  # 16 positions leave room for 14 words


def test_predict_says_what_it_cuts_off():
    model, texts = tiny.model(), ["the cat", "the cat sat on the mat"]
    for side, part in (("right", "ends"), ("left", "beginnings")):
        model.tokenizer = Tokenizer(tiny.VOCAB, truncation_side=side)
        with pytest.warns(UserWarning, match=f"1 of 2 texts .* than 4 pieces; their {part} are"):
            model.predict(texts, max_length=4)


def test_predict_takes_any_text():
    odd = ["", "\ud800", "\x00\x07", "😀" * 50, "a" * 5000, "\u202e\u200b"]
    assert np.isfinite(tiny.shared().predict(odd)).all()
    assert np.isfinite(tiny.shared("classification", "mean").predict(odd, max_length=4)).all()


def test_pad():
    model = tiny.shared()
    inputs = model.pad(model.tokenizer.encode([("a", "cat"), "a"], 16))
    np.testing.assert_array_equal(inputs["input_word_ids"], [[2, 6, 3, 7, 3], [2, 6, 3, 0, 0]])
    np.testing.assert_array_equal(inputs["input_mask"], [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(inputs["input_type_ids"], [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]])
    assert all(x.dtype == np.int32 for x in inputs.values())
    assert model.pad(model.tokenizer.encode(["a"], 16), 8)["input_mask"].tolist() == [
        [1, 1, 1, 0, 0, 0, 0, 0]
    ]


def test_save_and_load(saved):
    model, folder = saved
    again = TaskModel.load(folder)
    assert {file.name for file in folder.iterdir()} == FILES
    np.testing.assert_array_equal(again.predict(tiny.TEXTS), model.predict(tiny.TEXTS))
    for name in ("config", "task", "labels", "history", "curve", "metrics"):
        assert getattr(again, name) == getattr(model, name)
    assert again.tokenizer.vocab == model.tokenizer.vocab and again.tokenizer.lowercase


def test_nothing_saved_is_a_pickle(saved):
    for file in saved[1].iterdir():
        content = file.read_bytes()
        if file.name == "model.safetensors":
            assert json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        else:
            assert "\x00" not in content.decode("utf-8")


def test_labels_and_pieces_survive_the_files(tmp_path):
    labels = ("a, b", " two  words ", "标签", '"quoted"', "\u2028", "0")
    vocab = [*tiny.VOCAB[:-2], "\u2028", "\u00a0"]
    model = TaskModel(
        tiny.config(num_layers=1), Tokenizer(vocab, lowercase=False), "classification", labels
    )
    model.save(tmp_path / "m")
    again = TaskModel.load(tmp_path / "m")
    assert (
        again.labels == labels and again.tokenizer.vocab == vocab and not again.tokenizer.lowercase
    )


def test_labels_that_an_editor_saved(saved, tmp_path):
    folder = copied(saved[1], tmp_path)
    write_json(folder / "config.json", read_json(folder / "config.json"))  # without its SHA-256
    path = folder / "labels.txt"
    path.write_bytes(path.read_text("utf-8").replace("\n", "\r\n").encode("utf-8-sig"))
    assert TaskModel.load(folder).labels == saved[0].labels


def test_switches_of_the_tokenizer_are_saved(tmp_path):
    added = [{"content": "<url>", "normalized": False}]
    switches = {"strip_accents": False, "split_chinese": False, "special_in_text": True}
    tokenizer = Tokenizer(tiny.VOCAB, True, added=added, **switches)
    config = tiny.config(num_layers=1, vocab_size=len(tiny.VOCAB) + 1)
    model = TaskModel(config, tokenizer, "classification", ("a", "b"))
    model.save(tmp_path / "saved")
    again = TaskModel.load(tmp_path / "saved").tokenizer
    assert again.switches() == {**switches, "added": added}
    assert (
        again.vocab == [*tiny.VOCAB, "<url>"]
        and read_vocab(tmp_path / "saved" / "vocab.txt") == tiny.VOCAB
    )
    ids = again.encode(["<URL><url>[SEP]"], 16)[0].ids
    assert ids == tokenizer.encode(["<URL><url>[SEP]"], 16)[0].ids
    assert ids[-3:] == [len(tiny.VOCAB), again.ids["[SEP]"], again.ids["[SEP]"]]
    tiny.model().save(tmp_path / "usual")
    assert '"tokenizer"' not in (tmp_path / "usual" / "config.json").read_text()


def test_save_refuses_an_occupied_folder(saved, tmp_path):
    model, folder = saved
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ValueError, match="output folder must be new or empty"):
        model.save(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    tiny.shared().save(tmp_path / "other")
    model.save(tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "model.safetensors").read_bytes() == before["model.safetensors"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_load_names_the_missing_file(saved, tmp_path, name):
    folder = copied(saved[1], tmp_path)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"copy: the weights must come with {name}. It is missing"):
        TaskModel.load(folder)


def edited(folder, **changes):
    stored = json.loads((folder / "config.json").read_text())
    stored.update(changes)
    (folder / "config.json").write_text(json.dumps(stored))


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-9]
            ),
            "model.safetensors: not a whole safetensors file",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(b""),
            "model.safetensors: not a whole safetensors file",
        ),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not valid JSON"),
        (
            lambda f: (f / "metrics.json").write_text("[]"),
            "metrics.json: must hold a JSON object. Received: list",
        ),
        (
            lambda f: (f / "vocab.txt").write_text("\n".join(tiny.VOCAB[:-1])),
            "must have `vocab_size` pieces. Received: 31",
        ),
        (
            lambda f: (f / "labels.txt").write_text("a\nb\n"),
            r"`classifier/kernel` must have shape \(8, 2\).*\(8, 3\)",
        ),
        (
            lambda f: (f / "labels.txt").write_text("a\na\nb\n"),
            "Labels must be two or more different names",
        ),
        (lambda f: edited(f, keras_compress=99), "`keras_compress` must be 1. Received: 99"),
        (lambda f: edited(f, task="mlm"), "a masked-LM model has none. Received"),
        (lambda f: edited(f, task="x"), "`task` must be one of .* Received: 'x'"),
        (
            lambda f: edited(f, config={**tiny.config(pooling="cls").to_dict(), "num_layers": 2}),
            "must hold `layer_1_query/kernel`. It is missing",
        ),
        (lambda f: edited(f, config={"bottleneck": 3}), r"Received: \['bottleneck'\]"),
        (
            lambda f: edited(f, config={**tiny.config().to_dict(), "num_layers": 500}),
            "Each layer must have weights. Received: 500 layers",
        ),
    ],
)
def test_load_refuses_a_damaged_folder(saved, tmp_path, damage, message):
    folder = copied(saved[1], tmp_path)
    write_json(folder / "config.json", read_json(folder / "config.json"))  # without its SHA-256
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        TaskModel.load(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    "labels",
    [
        ("a",),
        ("a", "a"),
        ("a", ""),
        ("a", "b\nc"),
        ("a", "b\rc"),
        ("a\0b", "a\0c"),
        ("a", "\ud800"),
    ],
)
def test_bad_labels(labels):
    with pytest.raises(
        ValueError,
        match="Labels must be two or more different names of one line each, .* Received: ",
    ):
        TaskModel(tiny.config(), tiny.tokenizer(), "classification", labels)


def logits(model):
    return model.model(model.pad(model.tokenizer.encode(tiny.TEXTS, 16))).numpy()


def test_clone_is_equal_and_independent():
    model = tiny.model()
    model.history, model.curve = [{"method": "load"}], [{"epoch": 1}]
    copy = model.clone(seed=5)
    np.testing.assert_array_equal(logits(copy), logits(model))
    assert (copy.history, copy.curve, copy.metrics) == (model.history, model.curve, {})
    before = model.weights()
    copy.set_weights({name: w + 1 for name, w in before.items()})
    copy.history[0]["method"] = "other"
    assert all(np.array_equal(w, before[name]) for name, w in model.weights().items())
    assert model.history == [{"method": "load"}]


def test_keep_layers_is_the_model_with_the_others_as_identity():
    model = tiny.model()
    # x + 0, normalised once more (gamma 1, beta 0), is x: a layer whose two outputs are 0 does nothing.
    identity = {
        name: np.zeros_like(w)
        for name, w in model.weights().items()
        if name.startswith(("layer_0_attention_output", "layer_0_output/"))
    }
    whole = model.clone()
    whole.set_weights(identity, only=identity)
    np.testing.assert_allclose(logits(model.keep_layers([1])), logits(whole), atol=1e-6)
    assert np.abs(logits(whole) - logits(model)).max() > 1e-3


def test_keep_layers_copies_what_it_keeps():
    model = tiny.model(num_layers=3)
    ours, kept = model.weights(), model.keep_layers((2, 0)).weights()
    for name, w in kept.items():
        prefix = {"layer_0_": "layer_2_", "layer_1_": "layer_0_"}.get(name[:8], name[:8])
        np.testing.assert_array_equal(w, ours[prefix + name[8:]])
    for indices in ([], [3], [-1]):
        with pytest.raises(ValueError, match="Layers to keep must be among 0 to 2. Received"):
            model.keep_layers(indices)


def test_set_weights_names_what_does_not_fit():
    model = tiny.model()
    weights = model.weights()
    with pytest.raises(ValueError, match="must hold `layer_1_key/bias`. It is missing"):
        model.set_weights({k: w for k, w in weights.items() if k != "layer_1_key/bias"})
    with pytest.raises(ValueError, match=r"`pooler/bias` must have shape \(8,\). Received: \(7,\)"):
        model.set_weights({**weights, "pooler/bias": np.zeros(7)})


def test_only_a_bert_has_layers_to_choose_from():
    model = TaskModel(
        tiny.config(architecture="bilstm", num_layers=1, pooling="mean"),
        tiny.tokenizer(),
        "classification",
        tiny.LABELS["classification"],
    )
    with pytest.raises(
        ValueError, match="Only a BERT has layers to choose from. Received: a bilstm"
    ):
        model.keep_layers([0])


def test_pairs_need_two_token_types_or_none():
    with pytest.raises(ValueError, match="must have two token types, or none. Received: .* = 1"):
        tiny.model("matching", type_vocab_size=1)
    pair = [("the cat", "a dog")]
    assert tiny.model("matching", type_vocab_size=0).predict(pair).shape == (1, 2)
    assert tiny.model("classification", type_vocab_size=1).predict(["a"]).shape == (1, 3)
