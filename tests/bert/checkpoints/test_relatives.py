"""DistilBERT, ELECTRA, ALBERT and MobileBERT folders: equal to `transformers`, compressed, exported, or refused by name."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from keras_compress.backend import tf
from keras_compress.bert import checkpoints as weights
from keras_compress.bert.checkpoints.relatives import RELATIVES
from keras_compress.bert.task_model import TaskModel
from keras_compress.method import method
from mobile_export.convert import export
from tests.bert import relatives_reference as reference
from tests.support import TRAINING, data

STORED = json.loads(Path(reference.__file__).with_suffix(".json").read_text(encoding="utf-8"))
SHORT = TRAINING.replace(epochs=1, batch_size=12, evaluations=0)
CASES = STORED["cases"]
SENTENCES = [name for name in CASES if "Sequence" in name]
MOBILEBERTS = [name for name in CASES if name.startswith("MobileBert")]
NEW = {"labels": ("x", "y"), "task": "classification"}
MLM = {"task": "mlm", "labels": ()}


def folder_of(tmp_path, name, more=(), files=(), **config):
    """A folder of a stored case; some of its config (None: without it), shapes and files changed."""
    config = {k: v for k, v in (CASES[name]["config"] | config).items() if v is not None}
    reference.write(tmp_path / "model", config, CASES[name]["shapes"] | dict(more))
    for file, content in dict(files).items():
        (tmp_path / "model" / file).write_text(content)
    return tmp_path / "model"


def wide_folder(tmp_path, name):
    """The same with width 32: the converter quantises no kernel of fewer than 1,024 values."""
    size = {8: 32, 12: 64}
    config = {k: size.get(v, v) if type(v) is int else v for k, v in CASES[name]["config"].items()}
    shapes = {k: [size.get(n, n) for n in shape] for k, shape in CASES[name]["shapes"].items()}
    reference.write(tmp_path / "wide", config, shapes)
    return tmp_path / "wide"


def gap(model, name):
    """Largest difference from the stored logits, whose largest is at least 1."""
    texts = [text if isinstance(text, str) else tuple(text) for text in reference.TEXTS]
    encodings = model.tokenizer.encode(texts, 16)
    assert [encoding.ids for encoding in encodings] == CASES[name]["ids"]
    theirs = [np.asarray(logits) for logits in CASES[name]["logits"]]
    ours = [logits[: len(t)] for logits, t in zip(model.forward(encodings), theirs)]
    largest = max(np.abs(t).max() for t in theirs)
    return max(np.abs(o - t).max() for o, t in zip(ours, theirs)) / max(1.0, largest)


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(tmp_path, name):
    masked = MLM if "MaskedLM" in name else {}
    model = weights.load(folder_of(tmp_path, name), **masked)
    tasks = {"Sequence": "classification", "Token": "tagging", "Masked": "mlm"}
    assert [model.task] == [task for part, task in tasks.items() if "For" + part in name]
    assert model.labels == (() if masked else ("no", "maybe", "yes"))
    assert gap(model, name) < 1e-5
    assert (model.history[0]["new"], model.history[0]["left_out"]) == ([], [])
    model.save(tmp_path / "saved")
    assert gap(TaskModel.load(tmp_path / "saved"), name) < 1e-5


def test_each_head_has_its_own_activation(tmp_path):
    found = {}
    for name in [name for name in SENTENCES if name not in MOBILEBERTS]:  # these have no pooler
        model = weights.load(folder_of(tmp_path, name))
        found[name.partition("For")[0]] = model.config.pooler_activation
        other = {"tanh": "relu", "relu": "gelu", "gelu": "tanh"}[model.config.pooler_activation]
        wrong = model.clone(config=model.config.replace(pooler_activation=other))
        assert gap(wrong, name) > 1e-3
    assert found == {"DistilBert": "relu", "Electra": "gelu", "Albert": "tanh"}


def google_folder(tmp_path, name):
    """The tensors and config of a stored MobileBERT as google-research/mobilebert names them."""
    folder, stored = folder_of(tmp_path, name), {}
    for part, array in load_file(folder / "model.safetensors").items():
        if part.startswith("classifier."):
            continue
        part = re.sub(r"\.layer\.(\d+)", r".layer_\1", part.replace("mobilebert.", "bert."))
        part = re.sub(r"\.ffn\.(\d+)", r".ffn_layer_\1", part)
        norm = "gamma" if part.endswith("weight") else "beta"
        if "LayerNorm" in part:
            part = part.rpartition(".")[0] + f".{norm}"
        elif part.endswith("_embeddings.weight"):
            part = part.removesuffix(".weight")
        elif part.endswith(".weight"):
            part, array = part.removesuffix("weight") + "kernel", array.T
        if "no_norm" in CASES[name]["config"]["normalization_type"]:
            part = part.replace("LayerNorm", "FakeLayerNorm")
        part = part.replace("predictions.dense.kernel", "predictions.extra_output_weights")
        stored[part.replace("predictions.bias", "predictions.output_bias").replace(".", "/")] = (
            array
        )
    stored["cls/seq_relationship/output_bias"] = np.zeros(2, np.float32)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "bert_model.ckpt"),
        tensor_names=[*stored],
        shape_and_slices=[""] * len(stored),
        tensors=[*stored.values()],
    )
    config = {k: v for k, v in CASES[name]["config"].items() if k != "model_type"}
    (folder / "bert_config.json").write_text(json.dumps(config))
    for file in ("config.json", "model.safetensors"):
        (folder / file).unlink()
    return folder


def check_hidden_states(model, name):
    inputs = model.pad(model.tokenizer.encode(reference.TEXTS[:1], 16))
    ours = model.features(["hidden_states"])(inputs)["hidden_states"]
    assert len(ours) == 3  # of the embeddings, then of each block
    for states, theirs in zip(ours, CASES[name]["hidden_states"]):
        largest = max(1.0, np.abs(theirs).max())
        np.testing.assert_allclose(states[0] / largest, np.array(theirs) / largest, atol=1e-5)


@pytest.mark.parametrize("name", MOBILEBERTS)
def test_google_s_mobilebert_checkpoints(tmp_path, name):
    masked = "MaskedLM" in name
    model = weights.load(google_folder(tmp_path, name), **(MLM if masked else NEW))
    tanh = model.clone(config=model.config.replace(activation="gelu"))  # Google's gelu is tanh's
    assert model.config.activation == ("gelu_tanh" if masked else "relu")
    check_hidden_states(tanh if masked else model, name)
    if masked:
        assert gap(tanh, name) < 1e-5
    assert model.history[0]["left_out"] == ["cls/seq_relationship/output_bias"]


@pytest.mark.parametrize("name", MOBILEBERTS)
def test_hidden_states_of_a_mobilebert_equal_transformers(tmp_path, name):
    model = weights.load(folder_of(tmp_path, name), **(MLM if "MaskedLM" in name else {}))
    check_hidden_states(model, name)


@pytest.mark.parametrize(
    "name, steps",
    [
        ("DistilBertForSequenceClassification", ["theseus"]),
        ("ElectraForSequenceClassification", ["layers", "soft_targets"]),
    ],
)
def test_compressed_distilled_and_exported(tmp_path, name, steps):
    model = teacher = weights.load(wide_folder(tmp_path, name))
    for step in steps:
        settings = {"student": model} if step == "soft_targets" else {"num_layers": 1}
        start = teacher if step == "soft_targets" else model
        model = method(step)(start, data(), training=SHORT, **settings)
    assert model.config == teacher.config.replace(num_layers=1)
    plain, int8 = export(model, tmp_path, ("float32", "int8"), sequence_length=12, dev=data().dev)
    assert plain["max_dlogit"] < 1e-4 and int8["drift"] is None
    assert int8["bytes"] < 0.8 * plain["bytes"]


def test_a_distilbert_without_token_types_matches_pairs(tmp_path):
    name = "DistilBertForSequenceClassification"
    model = weights.load(folder_of(tmp_path, name), task="matching")
    assert model.task == "matching" and model.config.type_vocab_size == 0
    assert gap(model, name) < 1e-5
    pairs = [("the cat", "a dog"), ("the cat a", "dog")]
    assert np.ptp(model.predict(pairs), axis=0).max() > 1e-3  # [SEP] tells where one ends
    (facts,) = export(model, tmp_path / "out", ("float32",), sequence_length=12)
    assert facts["agreement"] == 1.0
    assert model.keep_layers([1]).weights().keys() < model.weights().keys()


def test_a_new_head_keeps_the_model_s_own_pooler(tmp_path):
    for name in ("ElectraForSequenceClassification", "DistilBertForSequenceClassification"):
        model = weights.load(folder_of(tmp_path, name), **NEW, new_head=True)
        assert model.history[0]["new"] == ["classifier/bias", "classifier/kernel"]
        assert model.config.pooling == "pooler"
    model = weights.load(folder_of(tmp_path, "DistilBertForMaskedLM"), **NEW, pooling="pooler")
    assert "pooler/kernel" in model.history[0]["new"] and model.config.pooler_activation == "relu"


@pytest.mark.parametrize(
    "name, architecture, more",
    [
        ("DistilBertForMaskedLM", "DistilBertForMaskedLM", {"vocab_projector.weight": [32, 8]}),
        ("ElectraForMaskedLM", "ElectraForMaskedLM", {"generator_lm_head.weight": [32, 4]}),
        (
            "ElectraForTokenClassification",
            "ElectraForPreTraining",
            {
                "discriminator_predictions.dense.weight": [8, 8],
                "discriminator_predictions.dense_prediction.weight": [1, 8],
            },
        ),
        (
            "AlbertForMaskedLM",
            "AlbertForPreTraining",
            {"predictions.decoder.weight": [32, 4], "sop_classifier.classifier.weight": [2, 8]},
        ),
    ],
)
def test_heads_of_pretraining_are_left_out(tmp_path, name, architecture, more):
    folder = folder_of(tmp_path, name, more, architectures=[architecture])
    tensors = load_file(folder / "model.safetensors")
    tensors = {k: v for k, v in tensors.items() if not k.startswith("classifier.")}
    save_file(tensors, folder / "model.safetensors")
    for architectures in ([architecture], None):  # without: the encoder is taken all the same
        stored = CASES[name]["config"] | {"architectures": architectures}
        (folder / "config.json").write_text(json.dumps(stored))
        model = weights.load(folder, **NEW)
        assert {*more} <= {*model.history[0]["left_out"]}


@pytest.mark.parametrize("name", SENTENCES)
def test_a_classifier_of_unknown_architecture(tmp_path, name):
    folder = folder_of(tmp_path, name, architectures=None)
    family = name.partition("For")[0]
    with pytest.raises(
        ValueError, match=f"must tell .*Write '{name}' or '{family}ForTokenClass.*`--new-head`"
    ):
        weights.load(folder, **NEW)
    assert weights.load(folder, **NEW, new_head=True).labels == ("x", "y")
    other = "DistilBert" if family != "DistilBert" else "Electra"
    folder = folder_of(tmp_path, name, architectures=[f"{other}ForSequenceClassification"])
    with pytest.raises(ValueError, match="of unknown parts, classifier"):
        weights.load(folder, **NEW)


def test_unknown_weights_of_a_distilbert_s_encoder(tmp_path):
    part = "distilbert.transformer.layer.0.attention.q_lin.lora_A.weight"
    folder = folder_of(tmp_path, "DistilBertForSequenceClassification", {part: [2, 8]})
    with pytest.raises(ValueError, match=f"1 of unknown parts, {part}"):
        weights.load(folder, **NEW, new_head=True)


@pytest.mark.parametrize("prefix", ["module.", "model."])
def test_a_prefix_of_all_names(tmp_path, prefix):
    for name in SENTENCES:
        folder = folder_of(tmp_path, name)
        tensors = load_file(folder / "model.safetensors")
        save_file({prefix + k: v for k, v in tensors.items()}, folder / "model.safetensors")
        assert gap(weights.load(folder), name) < 1e-5


def test_what_a_config_leaves_out_is_as_in_transformers(tmp_path):
    albert = folder_of(
        tmp_path, "AlbertForTokenClassification", hidden_act=None, num_hidden_groups=None
    )
    config = weights.load(albert).config
    assert (config.activation, config.sharing) == ("gelu_tanh", "all")
    assert gap(weights.load(albert), "AlbertForTokenClassification") < 1e-5
    with pytest.raises(ValueError, match="config.json: .* Missing: dim, n_layers"):
        weights.load(
            folder_of(tmp_path, "DistilBertForTokenClassification", dim=None, n_layers=None)
        )


@pytest.mark.parametrize(
    "kind",
    "roberta xlm-roberta deberta-v2 deberta modernbert camembert xlnet mpnet".split(),
)
def test_other_models_are_refused_by_name(tmp_path, kind):
    folder = folder_of(tmp_path, "ElectraForSequenceClassification", model_type=kind)
    with pytest.raises(
        ValueError, match=f"Received: `model_type` = '{kind}'. Choose .* bert, distilbert, electra"
    ):
        weights.load(folder)
    assert kind not in RELATIVES


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("AlbertForTokenClassification", {"num_hidden_groups": 2}, "must share one layer with all"),
        ("AlbertForTokenClassification", {"inner_group_num": 2}, "must share one layer with all"),
        (
            "AlbertForTokenClassification",
            {
                "embedding_size": 8,
                "more": {"albert.encoder.embedding_hidden_mapping_in.weight": [8, 8]},
            },
            "must be below `hidden_size`, .* Received: both 8, and a map",
        ),
        (
            "AlbertForTokenClassification",
            {"files": {"spiece.model": "x"}},
            "spiece.model: .* Received: a SentencePiece model",
        ),
        (
            "AlbertForTokenClassification",
            {"files": {"tokenizer_config.json": '{"tokenizer_class": "AlbertTokenizer"}'}},
            "`tokenizer_class` = 'AlbertTokenizer'",
        ),
        (
            "ElectraForMaskedLM",
            {"hidden_act": "relu"},
            "of unknown parts, generator_predictions.LayerNorm.bias, .*`--new-head`",
        ),
        (
            "ElectraForMaskedLM",
            {"embedding_size": 16},
            "config.json: `embedding_size` must be 1 to 8, the `hidden_size`. Received: 16",
        ),
        ("DistilBertForMaskedLM", {"activation": "silu"}, "'silu'"),
    ],
)
def test_forms_that_are_not_a_bert_s_are_refused(tmp_path, name, changes, message):
    with pytest.raises(ValueError, match=message):
        weights.load(folder_of(tmp_path, name, **changes), **NEW)
