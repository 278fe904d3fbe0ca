"""MiniLM, Hugging Face folders and our own: equal to what wrote them, and every way in which one can be broken."""

import json
import shutil
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from keras_compress.bert import checkpoints as weights
from keras_compress.bert.labels import places
from keras_compress.datasets.dataset import Dataset, Split
from tests.bert import tiny
from tests.support import masked_lm

HERE = Path(__file__).parents[1]
FINE_TUNED = HERE / "huggingface"  # written by transformers 5: tokenizer.json, no vocab.txt
TASK = {"task": "classification", "labels": ("a", "b", "c")}


# --- the installed MiniLM ---


def test_minilm_equals_the_stored_reference(minilm):
    reference = json.loads((HERE / "minilm_reference.json").read_text(encoding="utf-8"))
    features, worst = minilm.features(["hidden_states", "pooled"]), 0.0
    for text in reference["texts"]:
        given = tuple(text["text"]) if isinstance(text["text"], list) else text["text"]
        (encoding,) = minilm.tokenizer.encode([given], 64)
        assert (encoding.ids, encoding.type_ids) == (text["ids"], text["type_ids"])
        inputs = minilm.pad([encoding], len(encoding.ids) + 3)
        found = features(inputs)
        for ours, theirs in zip(found["hidden_states"], text["hidden_states"], strict=True):
            ours = ours.numpy()[0][np.ix_(text["positions"], reference["components"])]
            worst = max(worst, np.abs(ours - theirs).max())
        worst = max(
            worst, np.abs(found["pooled"].numpy()[0, reference["components"]] - text["mean"]).max()
        )
    assert worst < 1e-5


def test_minilm_is_counted(minilm):
    assert (minilm.config.num_layers, minilm.config.hidden_size, minilm.config.pooling) == (
        6,
        384,
        "mean",
    )
    (step,) = minilm.history
    assert step == {
        "method": "load",
        "source": "minilm",
        "loaded": 5 + 16 * 6,
        "seed": 0,
        "new": ["classifier/bias", "classifier/kernel"],
        "left_out": ["embeddings.position_ids", "pooler/bias", "pooler/kernel"],
    }


# --- Hugging Face folders ---


def folder_of(tmp_path, tensors=None, remove=(), **config):
    """A copy of the fine-tuned folder with some things changed."""
    copy = tmp_path / "copy"
    shutil.copytree(FINE_TUNED, copy)
    published = json.loads((copy / "config.json").read_text())
    published = {name: value for name, value in (published | config).items() if value is not None}
    (copy / "config.json").write_text(json.dumps(published))
    if tensors is not None:
        save_file(
            {name: np.ascontiguousarray(array) for name, array in tensors.items()},
            copy / "model.safetensors",
        )
    for name in remove:
        (copy / name).unlink()
    return copy


def stored():
    return load_file(FINE_TUNED / "model.safetensors")


def logits_like_expected(model):
    expected = json.loads((FINE_TUNED / "expected.json").read_text(encoding="utf-8"))
    encodings = model.tokenizer.encode(
        [x if isinstance(x, str) else tuple(x) for x in expected["texts"]], 16
    )
    assert [e.ids for e in encodings] == expected["ids"]
    return np.abs(np.stack(model.forward(encodings)) - expected["logits"]).max()


def test_fine_tuned_classifier_equals_transformers():
    model = weights.load(FINE_TUNED)
    assert (model.task, model.labels, model.config.pooling) == (
        "classification",
        ("neg", "neu", "pos"),
        "pooler",
    )
    assert logits_like_expected(model) < 1e-5
    assert model.history == [
        {
            "method": "load",
            "source": "huggingface",
            "loaded": 5 + 16 + 4,
            "new": [],
            "left_out": [],
            "seed": 0,
        }
    ]


ROWS = {"neg": "the cat", "neu": "a dog", "pos": "the mat"}


def dataset_of(names, ordered=True):
    """One text of each class, whose names may be written otherwise."""
    order = list(names) if ordered else sorted(names)
    labels = [order.index(name) for name in names]
    split = Split(list(ROWS.values()), labels)
    return Dataset("d", "classification", tuple(order), split, split, ordered=ordered)


@pytest.mark.parametrize(
    "names, ordered",
    [
        (("neg", "neu", "pos"), True),
        (("NEG", "Neu", "pos"), False),  # sorted: NEG, Neu, pos
        (("0", "1", "2"), False),  # as GLUE has it; config.json's id2label tells
    ],
)
def test_data_take_the_model_s_order(names, ordered, caplog):
    data = dataset_of(names, ordered)
    reordered = Dataset(
        "d",
        "classification",
        data.labels[::-1],
        Split(data.train.texts, [2 - k for k in data.train.labels]),
        ordered=ordered,
    )
    with caplog.at_level("INFO"):
        for given in (data, reordered):
            model, fitted = weights.load_with(FINE_TUNED, given)
            assert model.labels == fitted.labels == ("neg", "neu", "pos")
            assert fitted.train == Split([*ROWS.values()], [0, 1, 2])
    assert f"{names[2]} = pos" in caplog.text
    one = Dataset("d", "classification", ("pos", "neg"), Split(["x"], [0]))
    assert weights.load_with(FINE_TUNED, one)[1].train.labels == [2]


def test_names_that_were_only_sorted_never_match_a_head_without_names(tmp_path):
    unnamed = folder_of(tmp_path, id2label=None, label2id=None)
    model, data = weights.load_with(unnamed, dataset_of(("x", "a", "m")))  # labels.txt
    assert model.labels == ("x", "a", "m") and data.train.labels == [0, 1, 2]
    sorted_names = dataset_of(("x", "a", "m"), ordered=False)
    with pytest.raises(
        ValueError, match="LABEL_0, LABEL_1, ... only. Received: a, m, x .*`--labels`"
    ):
        weights.load_with(unnamed, sorted_names)
    model, data = weights.load_with(unnamed, sorted_names, labels=["x", "a", "m"])
    assert model.labels == data.labels == ("x", "a", "m") and data.train.labels == [0, 1, 2]
    model, data = weights.load_with(unnamed, dataset_of(("2", "0", "1"), ordered=False))
    assert data.train.labels == [2, 0, 1]
    model, data = weights.load_with(unnamed, sorted_names, new_head=True)
    assert model.labels == data.labels == ("a", "m", "x")


def test_other_names_and_other_numbers_are_refused_with_a_way_that_keeps_the_head():
    for names, received in ((("1", "2", "3"), "1, 2, 3"), (("neg", "neu", "good"), "good")):
        with pytest.raises(
            ValueError, match=f"by name. Received: {received}; .*Write a labels.txt"
        ):
            weights.load_with(FINE_TUNED, dataset_of(names, ordered=False))


def test_a_tagger_s_data_may_have_some_of_its_tags(tmp_path):
    """By name; where the model has none, all of them are to be written down, and the message says how many."""
    tags, some = ("O", "B-PER", "B-LOC"), ("B-LOC", "O")
    data = Dataset("d", "tagging", some, Split(["the cats"], [[1, 0]]))
    architectures = {"architectures": ["BertForTokenClassification"]}
    tensors = {name: w for name, w in stored().items() if "pooler" not in name}
    id2label = dict(enumerate(tags))
    named = folder_of(tmp_path / "named", tensors, **architectures, id2label=id2label)
    model, fitted = weights.load_with(named, data)
    assert model.labels == fitted.labels == tags and fitted.train.labels == [[0, 2]]
    other = Dataset("d", "tagging", ("O", "B-ORG"), Split(["the cats"], [[1, 0]]))
    with pytest.raises(ValueError, match="by name. Received: B-ORG; the model has O, B-PER, B-LOC"):
        weights.load_with(named, other)
    bare = folder_of(tmp_path / "bare", tensors, **architectures, id2label=None, label2id=None)
    with pytest.raises(
        ValueError, match=r"Received: B-LOC, O \(2\). Write all 3 into the data.s labels.txt"
    ):
        weights.load_with(bare, data)
    model, fitted = weights.load_with(bare, data, labels=tags)
    assert model.labels == tags and fitted.train.labels == [[0, 2]]


def test_a_saved_head_without_names(tmp_path):
    weights.load(folder_of(tmp_path, id2label=None, label2id=None)).save(tmp_path / "m")
    assert weights.load(tmp_path / "m", labels=["x", "a", "m"]).labels == ("x", "a", "m")
    with pytest.raises(ValueError, match="Which class is which must be written down"):
        weights.load_with(tmp_path / "m", dataset_of(("x", "a", "m"), ordered=False))


def test_tags_take_the_model_s_order(tmp_path):
    tiny.model("tagging").save(tmp_path / "m")  # O, B-x, I-x
    split = Split(["the cat"], [[0, 2]])
    data = Dataset("d", "tagging", ("B-X", "I-X", "O"), split, ordered=False)
    _, fitted = weights.load_with(tmp_path / "m", data)
    assert fitted.labels == ("O", "B-x", "I-x") and fitted.train.labels == [[1, 0]]


def test_the_same_head_matches_pairs(tmp_path):
    model = weights.load(FINE_TUNED, task="matching")
    assert model.task == "matching" and logits_like_expected(model) < 1e-5
    with pytest.raises(
        ValueError,
        match="task must be the one asked for. Received: 'classification', asked for 'tag",
    ):
        weights.load(FINE_TUNED, task="tagging")


def test_labels_of_a_fine_tuned_folder(tmp_path, caplog):
    with pytest.raises(
        ValueError, match="among the model's, by name. Received: a, b, c; the model"
    ):
        weights.load(FINE_TUNED, labels=["a", "b", "c"])
    assert weights.load(FINE_TUNED, labels=["POS", "neg"]).labels == ("neg", "neu", "pos")
    unnamed = folder_of(tmp_path, id2label=None, label2id=None)
    assert weights.load(unnamed).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    listed = folder_of(tmp_path / "list", id2label=["a", "b", "c"])
    assert weights.load(listed).labels == ("a", "b", "c")
    usual = {"0": "LABEL_0", "1": "LABEL_1"}  # of transformers, whatever the width
    listed = folder_of(tmp_path / "usual", id2label=usual, label2id=None)
    assert weights.load(listed).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    for place, names in enumerate(("abcd", "ab", {"1": "a", "2": "b", "3": "c"})):
        names = [*names] if isinstance(names, str) else names
        other = folder_of(tmp_path / str(place), id2label=names)
        with pytest.raises(ValueError, match="`id2label` must name each .* 3 outputs and .*delete"):
            weights.load(other)
    with caplog.at_level("INFO"):
        assert weights.load(unnamed, labels=["a", "b", "c"]).labels == ("a", "b", "c")
    assert "its classes have no names; in this order they are a, b, c" in caplog.text
    with pytest.raises(ValueError, match=r"its 3 classes LABEL_0, .* only. Received: a, b \(2\)"):
        weights.load(unnamed, labels=["a", "b"])
    model = weights.load(unnamed, task="tagging", labels=["O", "B"], new_head=True)
    assert model.history[0]["new"] == ["classifier/bias", "classifier/kernel"]
    assert model.history[0]["left_out"] == [
        "classifier/bias",
        "classifier/kernel",
        "pooler/bias",
        "pooler/kernel",
    ]


def test_label2id_names_the_classes_where_id2label_does_not(tmp_path, caplog):
    """Scripts that set one of the two (transformers, issues 13298 and 28589): data may have another order."""
    inverse = {"pos": 0, "neg": 1, "neu": 2}
    usual = {str(place): f"LABEL_{place}" for place in range(3)}
    for place, names in enumerate((None, usual)):
        folder = folder_of(tmp_path / str(place), id2label=names, label2id=inverse)
        assert weights.load(folder, labels=["neg", "neu", "pos"]).labels == ("pos", "neg", "neu")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    folder = folder_of(tmp_path, label2id=inverse)
    assert weights.load(folder).labels == ("neg", "neu", "pos")
    assert "disagree; the classes are named as `id2label` says: neg, neu, pos" in caplog.text


def test_what_a_head_without_its_pooler_reads_is_said(tmp_path, caplog):
    tensors = {name: w for name, w in stored().items() if "pooler" not in name}
    folder = folder_of(tmp_path, tensors)
    with caplog.at_level("INFO"):
        assert weights.load(folder).config.pooling == "cls"
    assert "the head is taken to read [CLS], since the file does not tell" in caplog.text
    assert weights.load(folder, pooling="mean").config.pooling == "mean"


def test_an_adapter_beside_the_weights_is_said(tmp_path, caplog):
    """`save_pretrained` after `merge_and_unload` may leave it there (peft, issue 1381)."""
    folder = folder_of(tmp_path)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert logits_like_expected(weights.load(folder)) < 1e-5
    assert "the adapter beside the weights is not read" in caplog.text


def test_the_architecture_as_one_string(tmp_path):
    folder = folder_of(tmp_path, architectures="BertForSequenceClassification")
    assert weights.load(folder).labels == ("neg", "neu", "pos")


def test_token_classifier(tmp_path):
    """BertForTokenClassification has no pooler; the encoder and the classifier's place are the same."""
    tensors = {name: w for name, w in stored().items() if "pooler" not in name}
    folder = folder_of(tmp_path, tensors, architectures=["BertForTokenClassification"])
    model = weights.load(folder)
    assert (model.task, model.config.pooling, model.history[0]["loaded"]) == (
        "tagging",
        "cls",
        5 + 16 + 2,
    )
    whole = weights.load(FINE_TUNED)
    encodings = model.tokenizer.encode(["the cats sat"], 16)
    hidden = whole.features(["hidden_states"])(whole.pad(encodings))["hidden_states"][-1].numpy()[0]
    expected = hidden @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    np.testing.assert_allclose(model.forward(encodings)[0], expected, atol=1e-4)


def test_other_heads_are_left_out_by_name(tmp_path, caplog):
    tensors = stored() | {
        "cls.predictions.bias": np.zeros(20, np.float32),
        "bert.embeddings.position_ids": np.arange(16),
    }
    folder = folder_of(tmp_path, tensors, architectures=["BertForMultipleChoice"])
    with pytest.raises(ValueError, match="`task` and `labels` must be given where the weights do"):
        weights.load(folder, new_head=True)
    with pytest.raises(ValueError, match="2 of unknown parts, classifier.bias, .*`--new-head`"):
        weights.load(folder, **TASK)
    assert (
        "classifier of BertForMultipleChoice is not known. If it is one dense layer" in caplog.text
    )
    assert weights.load(folder, **TASK, ignore_weights=["classifier.*"]).labels == TASK["labels"]
    history = weights.load(folder, **TASK, new_head=True).history[0]
    assert (
        history["new"] == ["classifier/bias", "classifier/kernel"]
        and history["loaded"] == 5 + 16 + 2
    )
    assert history["left_out"] == [
        "bert.embeddings.position_ids",
        "classifier.bias",
        "classifier.weight",
        "mlm_bias/bias",
    ]


LORA = "bert.encoder.layer.0.attention.self.query.lora_A.weight"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model."])
def test_a_prefix_of_all_names_is_left_out(tmp_path, prefix, caplog):
    tensors = {prefix + name: array for name, array in stored().items()}
    with caplog.at_level("INFO"):
        model = weights.load(folder_of(tmp_path, tensors))
    assert logits_like_expected(model) < 1e-5 and model.history[0]["left_out"] == []
    assert f"begin with {prefix}, which is left out" in caplog.text
    save_file(tensors | {prefix + LORA: np.zeros(3)}, tmp_path / "copy" / "model.safetensors")
    with pytest.raises(ValueError, match=f"1 of unknown parts, {prefix}{LORA}"):
        weights.load(tmp_path / "copy", **TASK, new_head=True)


def test_a_bert_without_positions_is_none(tmp_path):
    """As RoFormer and NEZHA are, where no config says so."""
    tensors = {name: w for name, w in stored().items() if "position_embeddings" not in name}
    with pytest.raises(ValueError, match="a table of positions. Received: .* RoFormer and NEZHA"):
        weights.load(folder_of(tmp_path, tensors))


@pytest.mark.parametrize("factor, warned", [(1, False), (2, True)])
def test_a_masked_lm_head_with_a_table_of_its_own_is_said(tmp_path, caplog, factor, warned):
    """`tie_word_embeddings` = false: here the head reads the word table."""
    decoder = factor * stored()["bert.embeddings.word_embeddings.weight"]
    weights.load(folder_of(tmp_path, stored() | {"cls.predictions.decoder.weight": decoder}))
    assert ("decoder.weight is not the word table" in caplog.text) == warned


def test_a_file_of_which_hardly_anything_is_known(tmp_path):
    tensors = {f"query_{name}": array for name, array in stored().items()}
    tensors |= {f"text_{name}": array for name, array in stored().items()}
    with pytest.raises(
        ValueError, match="Received: 50 tensors, 0 of them known; .* query_bert.emb"
    ):
        weights.load(folder_of(tmp_path, tensors))


@pytest.mark.parametrize(
    "name, in_encoder",
    [
        ("lstm.weight_ih_l0", False),
        ("crf.transitions", False),
        ("qa_outputs.weight", False),
        (LORA, True),
        ("bert.encoder.layer.1.output.dense.weight", True),  # config.json says one layer
        ("bert.encoder.layer.0.attention.self.distance_embedding.weight", True),
    ],
)
def test_unknown_weights_are_refused_by_name(tmp_path, name, in_encoder):
    folder = folder_of(tmp_path, stored() | {name: np.zeros((8, 8), np.float32)})
    with pytest.raises(ValueError, match=f"1 of unknown parts, {name}. ") as error:
        weights.load(folder)
    assert ("`--new-head`" in str(error.value)) != in_encoder
    if in_encoder:
        with pytest.raises(ValueError, match="1 of unknown parts"):
            weights.load(folder, **TASK, new_head=True)
    else:
        weights.load(folder, **TASK, new_head=True)
    model = weights.load(folder, ignore_weights=["no", name.replace("0", "?")])
    assert model.history[0]["left_out"] == [name]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_classifier_of_unknown_architecture(tmp_path, prefix):
    stored = load_file(FINE_TUNED / "model.safetensors")
    tensors = {prefix + name: array for name, array in stored.items()}
    folder = folder_of(tmp_path, tensors, architectures=None)
    with pytest.raises(ValueError, match="config.json: `architectures` must tell .*`--new-head`"):
        weights.load(folder, **TASK)
    assert weights.load(folder, **TASK, new_head=True).labels == TASK["labels"]


def test_a_trained_head_keeps_its_pooling():
    assert weights.load(FINE_TUNED, pooling="pooler").config.pooling == "pooler"
    with pytest.raises(ValueError, match="pooling must be .*Received: 'pooler', asked for 'mean'"):
        weights.load(FINE_TUNED, pooling="mean")


def test_shards_half_precision_and_old_names(tmp_path):
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): w.astype(ml_dtypes.bfloat16 if "query" in name else np.float16)
        for name, w in stored().items()
    }
    folder = folder_of(tmp_path, remove=["model.safetensors"])
    names = sorted(tensors)
    shards = {
        "model-00001-of-00002.safetensors": names[:20],
        "model-00002-of-00002.safetensors": names[20:],
    }
    for shard, inside in shards.items():
        save_file({name: tensors[name] for name in inside}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps(
            {"weight_map": {name: shard for shard, inside in shards.items() for name in inside}}
        )
    )
    model = weights.load(folder)
    assert 1e-6 < logits_like_expected(model) < 0.1
    assert all(w.dtype == np.float32 for w in model.weights().values())
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        ValueError, match="copy: the weights must come with model-00002-of-00002.safetensors"
    ):
        weights.load(folder)


def test_vocabulary_files(tmp_path):
    model = weights.load(FINE_TUNED)
    folder = folder_of(tmp_path, remove=["tokenizer.json", "tokenizer_config.json"])
    with pytest.raises(
        ValueError, match="copy: the weights must come with tokenizer.json or vocab.txt"
    ):
        weights.load(folder)
    (folder / "vocab.txt").write_text("\n".join(model.tokenizer.vocab) + "\n", encoding="utf-8")
    assert weights.load(folder).tokenizer.lowercase  # no capital letter in it: uncased
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert not weights.load(folder).tokenizer.lowercase
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "vocab.txt").write_text("\n".join([*model.tokenizer.vocab, "x", "y"]))
    with pytest.raises(
        ValueError, match="copy: The vocabulary must have `vocab_size` pieces. Received: 22 pieces"
    ):
        weights.load(folder)
    (folder / "vocab.txt").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match="vocab.txt: A vocabulary must hold each piece once, .PAD."
    ):
        weights.load(folder)


@pytest.mark.parametrize("saved", [False, True])
def test_lowercase_overrides_the_source(tmp_path, saved, caplog):
    source = FINE_TUNED
    if saved:
        source = tmp_path / "saved"
        weights.load(FINE_TUNED).save(source)
    assert weights.load(source).tokenizer.lowercase
    with caplog.at_level("INFO"):
        cased = weights.load(source, lowercase=False)
    assert not cased.tokenizer.lowercase
    assert "cased, as `lowercase` says; the source is uncased" in caplog.text
    cased.save(tmp_path / "again")
    assert not weights.load(tmp_path / "again").tokenizer.lowercase


def resized(folder, rows, vocab_size):
    """Gives the folder's word table other rows; the further ones repeat the first."""
    tensors = load_file(folder / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[name] = np.resize(tensors[name], (rows, tensors[name].shape[1]))
    save_file(tensors, folder / "model.safetensors")
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, "vocab_size": vocab_size}))


@pytest.mark.parametrize("said, rows", [(24, 24), (20, 24), (120, 120)])
def test_rows_of_the_table_without_a_piece_are_cut(tmp_path, caplog, said, rows):
    folder = folder_of(tmp_path)
    before = weights.load(folder)
    resized(folder, rows, vocab_size=said)
    with caplog.at_level("INFO"):
        model = weights.load(folder)
    assert f"{rows - 20} of {rows} rows of the word table belong to no piece" in caplog.text
    levels = {r.levelname for r in caplog.records if "belong to no piece" in r.message}
    assert levels == ({"WARNING"} if rows > 22 else {"INFO"})
    np.testing.assert_array_equal(model.predict(["the cats"]), before.predict(["the cats"]))
    assert model.config == before.config


def test_added_words_take_their_rows(tmp_path):
    folder = folder_of(tmp_path)
    before = weights.load(folder)
    (folder / "added_tokens.json").write_text('{"[URL]": 20, "[USER]": 21}')
    with pytest.raises(ValueError, match="Received: 22 pieces and a table of 20 rows. Use the tok"):
        weights.load(folder)
    resized(folder, 22, vocab_size=22)
    model = weights.load(folder)
    assert model.tokenizer.outside == ["[URL]", "[USER]"]
    np.testing.assert_array_equal(model.predict(["the cats"]), before.predict(["the cats"]))
    table = model.weights()["word_embeddings/embeddings"]
    np.testing.assert_array_equal(table[20:], before.weights()["word_embeddings/embeddings"][:2])
    model.save(tmp_path / "saved")
    again = weights.load(tmp_path / "saved")
    texts = ["the [URL] cats[USER]", "[MASK] cats"]
    np.testing.assert_array_equal(again.predict(texts), model.predict(texts))


@pytest.mark.parametrize(
    "config, message",
    [
        (
            {"problem_type": "regression"},
            "or one score. Received: 3 outputs and `problem_type` = 'regression'. Load the encoder alone: `new_head`",
        ),
        (
            {"model_type": "roberta"},
            "config.json: The checkpoint must be a BERT. Received: `model_type` = 'roberta'",
        ),
        (
            {"num_hidden_layers": 2},
            "copy: The weights must hold `layer_1_query/kernel`. It is missing",
        ),
        (
            {"intermediate_size": 13},
            r"`layer_0_intermediate/kernel` must have shape \(8, 13\). Received: \(8, 12\)",
        ),
        (
            {"max_position_embeddings": 8},
            r"`position_embeddings/embeddings` must have shape \(8, 8\). Received: \(16, 8\)",
        ),
        (
            {"vocab_size": 23},  # neither the pieces nor the rows
            "The vocabulary must have `vocab_size` pieces. Received: 20 pieces and a table of 23 rows",
        ),
        (
            {"id2label": {"0": "a", "1": "a", "2": "b"}},
            "copy: Labels must be two or more different names",
        ),
        (
            {"id2label": {"0": "a\nb", "1": "c", "2": "d"}},
            "copy: Labels must be two or more different names of one line",
        ),
    ],
)
def test_configs_that_do_not_fit(tmp_path, config, message):
    folder = folder_of(tmp_path, **config)
    with pytest.raises(ValueError, match=message) as error:
        weights.load(folder)
    assert str(folder) in str(error.value)
    if "problem_type" in config:
        assert weights.load(folder, **TASK, new_head=True).labels == ("a", "b", "c")


def test_one_output_is_a_score_and_problem_type_tells_several_labels(tmp_path):
    logits = lambda model: np.stack(model.forward(model.tokenizer.encode(["the cats"], 16)))
    model = weights.load(folder_of(tmp_path / "one", one_output()))
    assert (model.task, model.labels) == ("regression", ("score",))
    np.testing.assert_allclose(model.predict(["the cats"]), logits(model)[:, 0], rtol=1e-6)
    folder = folder_of(tmp_path / "several", problem_type="multi_label_classification")
    model = weights.load(folder)
    assert (model.task, model.labels, model.threshold) == ("multilabel", ("neg", "neu", "pos"), 0.5)
    sigmoid = 1 / (1 + np.exp(-logits(model)))
    np.testing.assert_allclose(model.predict(["the cats"]), sigmoid, rtol=1e-5)
    names = ("neg", "neu", "pos")
    with pytest.raises(ValueError, match="'multilabel', asked for 'class.*`--task multilabel`"):
        weights.load(folder, task="classification", labels=names)
    with pytest.raises(ValueError, match="'classification', asked for 'multi.*`problem_type` = "):
        weights.load(FINE_TUNED, task="multilabel", labels=names)


def one_output():
    """The fine-tuned folder's tensors with the first output alone."""
    tensors = stored()
    return tensors | {name: tensors[name][:1] for name in ("classifier.weight", "classifier.bias")}


SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize("name", [SIGMOID, IDENTITY])
@pytest.mark.parametrize("place", ["sentence_transformers", "older", "newest", "above"])
def test_one_output_of_sentence_transformers(tmp_path, caplog, name, place):
    """A score before its sigmoid; or, asked for two labels, p = (1 - sigmoid(z), sigmoid(z))."""
    older = {"sbert_ce_default_activation_function": name}
    between = {"sentence_transformers": {"activation_fn": name}}
    config = {"older": older, "sentence_transformers": between}.get(place, {})
    folder = folder_of(tmp_path, one_output(), **config)
    if place in ("newest", "above"):  # a folder with modules.json, too
        inside = "0_Transformer" if place == "above" else ""
        if inside:
            folder = Path(shutil.move(folder, tmp_path / "root" / inside)).parent
        kind = "sentence_transformers.base.modules.transformer.Transformer"
        module = {"type": kind, "path": inside}
        (folder / "modules.json").write_text(json.dumps([module]))
        told = {"model_type": "CrossEncoder", "activation_fn": name}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(told))
    score, pair = weights.load(folder), [("the cats", "a dog")]
    assert (score.task, score.labels) == ("regression", ("score",))
    assert ("before the Sigmoid" in caplog.text) == (name == SIGMOID)
    if name == IDENTITY:
        with pytest.raises(ValueError, match="'regression', asked for 'matching'"):
            weights.load(folder, task="matching")
        return
    model = weights.load(folder, task="matching", labels=("other", "same"))
    assert (model.task, model.labels) == ("matching", ("other", "same"))
    p = 1 / (1 + np.exp(-score.predict(pair)))
    np.testing.assert_allclose(model.predict(pair), [[1 - p[0], p[0]]], rtol=1e-5)
    assert weights.load(folder, task="matching").labels == ("LABEL_0", "LABEL_1")
    assert weights.load(folder, task="matching", labels=("a", "b"), new_head=True).history[0]["new"]


def test_what_several_outputs_mean(tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert weights.load(FINE_TUNED).task == "classification"
    assert "without `problem_type`, the 3 output(s) are read as one label a text" in caplog.text
    sigmoid = {"sentence_transformers": {"activation_fn": SIGMOID}}
    assert weights.load(folder_of(tmp_path / "a", **sigmoid)).task == "multilabel"
    single = {"problem_type": "single_label_classification"}
    with pytest.raises(ValueError, match="`problem_type` must be 'multi.* Received: 'single.*Sigm"):
        weights.load(folder_of(tmp_path / "b", **sigmoid, **single))
    caplog.clear()
    with caplog.at_level("INFO"):
        weights.load(folder_of(tmp_path / "c", **single))
        weights.load(folder_of(tmp_path / "d", one_output()))
    assert "without `problem_type`, the 1 output(s) are read as a score" in caplog.text
    assert "c/copy" in caplog.text and "c/copy/config.json: without" not in caplog.text


def test_numbers_that_may_be_those_in_the_names_are_no_places():
    """By hand: 1 is "1 star", the first, or the second place."""
    stars = ("1 star", "2 stars", "3 stars")
    assert places(("0", "1", "2"), stars) == [0, 1, 2]
    with pytest.raises(ValueError, match="among the model's, by name. Received: 1, 2; the model"):
        places(("1", "2"), stars)
    assert places(("1", "2"), ("LABEL_0", "LABEL_1", "LABEL_2")) == [1, 2]
    assert places(("0", "1"), ("covid-19", "other")) == [0, 1]


def test_tensors_that_do_not_fit(tmp_path):
    name = "bert.encoder.layer.0.output.dense.weight"
    with pytest.raises(
        ValueError, match=r"copy: `layer_0_output/kernel` must hold floating .* Received: int8"
    ):
        weights.load(folder_of(tmp_path, stored() | {name: np.zeros((8, 12), np.int8)}))
    shutil.rmtree(tmp_path / "copy")
    tensors = stored()
    del tensors["classifier.bias"]
    with pytest.raises(
        ValueError, match="copy: The weights must hold `classifier/bias`. It is missing"
    ):
        weights.load(folder_of(tmp_path, tensors))


def test_truncated_file(tmp_path):
    folder = folder_of(tmp_path)
    path = folder / "model.safetensors"
    for size in (5000, 20, 3, 0):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(ValueError, match="model.safetensors: not a whole safetensors file"):
            weights.load(folder)


def written(path, content=b""):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def zipped(path, *names):
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return path


ADAPTER = b'{"base_model_name_or_path": "bert-base-chinese", "peft_type": "LORA"}'


def test_unknown_sources_say_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(written(tmp_path / "here" / "note.txt").parent)
    torch = zipped(tmp_path / "torch" / "bert.pt", "archive/data.pkl")
    for source, why in (
        ("minilmm", "minilmm, which does not exist"),
        (".", "holds none of these"),
        ("google-bert/bert-base-chinese", "hf download google-bert/bert-base-chinese"),
        ("bert-base-chinese", "hf download bert-base-chinese"),
        (written(tmp_path / "empty" / "x.txt").parent, "holds none of these"),
        (
            written(tmp_path / "trainer" / "checkpoint-500" / "config.json").parents[1],
            "none of these itself; one in it may: checkpoint-500",
        ),
        (torch, "a file of torch. .* name it pytorch_model.bin"),
        (torch.parent, "bert.pt, a file of torch"),
        (written(tmp_path / "old" / "best.ckpt", b"\x80\x02\x8a"), "a file of torch"),
        (zipped(tmp_path / "k" / "m.keras", "model.weights.h5"), "a whole Keras model"),
        (
            written(tmp_path / "lora" / "adapter_config.json", ADAPTER).parent,
            r"an adapter \(LoRA\) of the model bert-base-chinese without .*merge_and_unload.*save_pre",
        ),
        (
            written(tmp_path / "xenova" / "onnx" / "model.onnx").parents[1],
            "model.onnx, an exported",
        ),
        (written(tmp_path / "ov" / "openvino_model.xml").parent, "a model for OpenVINO"),
        (written(tmp_path / "llama" / "bert-q8.gguf").parent, "bert-q8.gguf, a file for llama.cpp"),
        (written(tmp_path / "flax" / "flax_model.msgpack").parent, "from_flax=True"),
        (written(tmp_path / "other" / "bert.safetensors").parent, "weights as model.safetensors"),
        (written(tmp_path / "graph" / "saved_model.pb").parent, "a TensorFlow SavedModel"),
        (written(tmp_path / "tf" / "tf_model.h5").parent, "from_tf=True"),
        (written(tmp_path / "h5" / "a.h5", b"\x89HDF").parent, "Give the file: .*a.h5"),
        (FINE_TUNED / "model.safetensors", "Give its folder"),
        (written(tmp_path / "x" / "int8.tflite"), "an exported file"),
    ):
        with pytest.raises(ValueError, match=f"must be minilm, .*bert4keras .h5 file. .*{why}"):
            weights.load(source, **TASK)


@pytest.mark.parametrize("kind", "roberta xlm-roberta deberta-v2 modernbert squeezebert".split())
def test_other_kinds_of_model_are_refused_by_name(tmp_path, kind):
    with pytest.raises(ValueError, match=f"config.json: .*Received: `model_type` = '{kind}'"):
        weights.load(folder_of(tmp_path, model_type=kind))


# --- sentence-transformers folders ---


def sentence_transformers(tmp_path, modules="Transformer Pooling Normalize", place="", **pooling):
    """The fine-tuned folder's encoder as sentence-transformers keep it."""
    tensors = {name: w for name, w in stored().items() if not name.startswith("classifier")}
    folder = folder_of(tmp_path, tensors, architectures=["BertModel"])
    root, places = folder, {"Transformer": place, "Pooling": "1_Pooling"}
    if place:
        root = tmp_path / "root"
        shutil.move(folder, root / place)
    rows = [
        {"type": f"sentence_transformers.models.{name}", "path": places.get(name, f"2_{name}")}
        for name in modules.split()
    ]
    (root / "modules.json").write_text(json.dumps(rows))
    (root / "1_Pooling").mkdir()
    (root / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return root


@pytest.mark.parametrize("place", ["", "0_Transformer"])
@pytest.mark.parametrize(
    "pooling, expected",
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_sentence_transformers(tmp_path, caplog, place, pooling, expected):
    folder = sentence_transformers(tmp_path, place=place, **pooling)
    with caplog.at_level("INFO"):
        model = weights.load(folder, **TASK)
    assert model.config.pooling == expected and "pooler/kernel" not in model.weights()
    assert f"a new classifier reads {expected}, as " in caplog.text
    assert "does not use Normalize" in caplog.text and "SetFit" not in caplog.text
    (folder / "model_head.pkl").write_bytes(b"")
    weights.load(folder, **TASK)
    assert "SetFit's classifier, model_head.pkl, could run code and is not read" in caplog.text
    assert weights.load(folder, **TASK, pooling="pooler").config.pooling == "pooler"
    assert weights.read_tokenizer_of(folder).vocab == model.tokenizer.vocab


@pytest.mark.parametrize(
    "changes, received",
    [
        ({"pooling_mode_max_tokens": True}, "pooling max"),
        ({"pooling_mode": "lasttoken"}, "pooling lasttoken"),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            r"pooling cls\+mean",
        ),
        (
            {"modules": "Transformer Pooling Dense Normalize", "pooling_mode": "mean"},
            "Transformer, Pooling, Dense, Normalize, pooling mean",
        ),
        ({"modules": "Transformer"}, "Transformer, pooling none"),
    ],
)
def test_what_a_classifier_cannot_read_of_sentence_transformers(tmp_path, changes, received):
    folder = sentence_transformers(tmp_path, **changes)
    with pytest.raises(
        ValueError, match=f"modules.json: .*Received: .*{received}. .*without modules"
    ):
        weights.load(folder, **TASK)
    (folder / "modules.json").unlink()  # the advice
    assert weights.load(folder, **TASK).config.pooling == "pooler"


@pytest.mark.parametrize("own, module", [(True, False), (True, True), (False, True)])
def test_the_case_of_sentence_transformers_own_switch(tmp_path, caplog, own, module):
    """True lower-cases before the tokenizer, which keeps its accents; false is no word about the case."""
    folder = sentence_transformers(tmp_path, pooling_mode="mean", place="0_Transformer")
    kind = {"tokenizer_class": "BertTokenizer", "do_lower_case": own}
    (folder / "0_Transformer" / "tokenizer_config.json").write_text(json.dumps(kind))
    switch = folder / "0_Transformer" / "sentence_bert_config.json"
    switch.write_text(json.dumps({"max_seq_length": 128, "do_lower_case": module}))
    tokenizer = weights.load(folder, **TASK).tokenizer
    (lower,), (upper,) = (tokenizer.encode([text], 16) for text in ("the cats", "THE Cats"))
    assert lower.ids == upper.ids
    assert tokenizer.strip_accents is (None if own else False)
    assert tokenizer.special_in_text == (not module)
    assert ("sentence_bert_config.json: texts are lower-cased" in caplog.text) == (not own)
    assert weights.read_tokenizer_of(folder).switches() == tokenizer.switches()
    assert not weights.load(folder, **TASK, lowercase=False).tokenizer.lowercase


# --- our own folder ---


def test_own_folder(tmp_path):
    model = tiny.shared()
    model.save(tmp_path / "m")
    again = weights.load(tmp_path / "m", task="classification", labels=list(model.labels))
    np.testing.assert_array_equal(again.predict(tiny.TEXTS), model.predict(tiny.TEXTS))
    for wanted, rule in (
        ({"task": "matching"}, "must be the one asked for"),
        ({"labels": ("a", "b")}, "must be among the model's"),
    ):
        with pytest.raises(ValueError, match=f"{rule}.*`new_head`"):
            weights.load(tmp_path / "m", **wanted)
    headless = weights.load(
        tmp_path / "m", task="matching", labels=("a", "b"), new_head=True, seed=3
    )
    assert (
        headless.history[0]["left_out"]
        == headless.history[0]["new"]
        == ["classifier/bias", "classifier/kernel"]
    )
    np.testing.assert_array_equal(
        headless.weights()["pooler/kernel"], model.weights()["pooler/kernel"]
    )


def test_a_student_with_another_classifier_gets_a_new_one(caplog):
    with caplog.at_level("INFO"):
        for task, labels in (("classification", ("a", "b")), ("tagging", ("O", "B-x"))):
            student = tiny.shared().from_source(FINE_TUNED, task, labels)
            assert (student.task, student.labels) == (task, labels)
            assert student.history[0]["new"] == ["classifier/bias", "classifier/kernel"]
    assert "its classifier is for other classes and is left out" in caplog.text
    same = tiny.shared().from_source(FINE_TUNED, "classification", ("NEG", "neu", "pos"))
    assert same.labels == ("neg", "neu", "pos") and not same.history[0]["new"]
    with pytest.raises(ValueError, match="task must be the one asked for"):
        tiny.shared().from_source(FINE_TUNED, "mlm", ())


def test_labels_for_a_masked_lm_model_make_a_new_classifier(tmp_path):
    masked_lm().save(tmp_path / "m")
    model = weights.load(tmp_path / "m", labels=["a", "b"])
    assert (model.task, model.labels) == ("classification", ("a", "b"))
    assert model.history[0]["new"] == ["classifier/bias", "classifier/kernel"]
    assert (
        weights.load(tmp_path / "m").task == weights.load(tmp_path / "m", task="mlm").task == "mlm"
    )


def test_a_tokenizer_is_read_without_the_weights(tmp_path):
    folder = folder_of(tmp_path)
    tiny.shared().save(tmp_path / "m")
    for source, vocab in (
        (folder, weights.load(folder).tokenizer.vocab),
        (tmp_path / "m", tiny.VOCAB),
    ):
        (source / "model.safetensors").write_bytes(b"")
        assert weights.read_tokenizer_of(source).vocab == vocab
    with pytest.raises(ValueError, match="The source must be minilm"):
        weights.read_tokenizer_of(tmp_path)


def test_another_pooling_needs_a_new_head(tmp_path):
    tiny.model(pooling="cls").save(tmp_path / "m")
    with pytest.raises(
        ValueError,
        match="pooling must be the one asked for. Received: 'cls', asked for 'mean'",
    ):
        weights.load(tmp_path / "m", pooling="mean")
    assert weights.load(tmp_path / "m", pooling="cls").config.pooling == "cls"
