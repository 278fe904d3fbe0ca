import json

import pytest

from keras_compress.bert.config import BertConfig

GOOGLE = {
    "attention_probs_dropout_prob": 0.2,
    "directionality": "bidi",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.3,
    "hidden_size": 12,
    "initializer_range": 0.04,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "num_attention_heads": 3,
    "num_hidden_layers": 4,
    "pooler_type": "x",
    "type_vocab_size": 1,
    "vocab_size": 30,
}


def test_google_config():
    assert BertConfig.from_published(GOOGLE) == BertConfig(
        vocab_size=30,
        hidden_size=12,
        num_layers=4,
        num_heads=3,
        intermediate_size=20,
        max_position_embeddings=64,
        type_vocab_size=1,
        activation="gelu",
        layer_norm_eps=1e-12,
        dropout=0.3,
        attention_dropout=0.2,
        initializer_range=0.04,
    )


def test_huggingface_config():
    config = BertConfig.from_published(
        {
            **GOOGLE,
            "model_type": "bert",
            "architectures": ["BertModel"],
            "layer_norm_eps": 1e-7,
            "hidden_act": "gelu_new",
            "is_decoder": False,
            "position_embedding_type": "absolute",
        },
        pooling="mean",
    )
    assert (config.layer_norm_eps, config.activation, config.pooling) == (1e-7, "gelu_tanh", "mean")


def test_dict_round_trip():
    config = BertConfig.from_published(GOOGLE, pooling="cls")
    assert BertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.replace(num_layers=2).num_layers == 2 and config.num_layers == 4


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"hidden_size": 13}, "multiple of `num_heads`. Received: 13 and 3"),
        ({"num_layers": 0}, "`num_layers` must be a positive integer. Received: 0"),
        ({"vocab_size": 2.5}, "`vocab_size` must be a positive integer. Received: 2.5"),
        ({"num_heads": True}, "`num_heads` must be a positive integer. Received: True"),
        (
            {"activation": "swish"},
            "`activation` must be one of gelu, gelu_tanh, relu. Received: 'swish'",
        ),
        ({"pooling": "max"}, "`pooling` must be one of"),
        ({"architecture": "t5"}, "`architecture` must be one of"),
        ({"dropout": 1.0}, r"`dropout` must be in \[0, 1\). Received: 1.0"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(ValueError, match=message):
        BertConfig.from_published(GOOGLE).replace(**changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "roberta"}, "must be a BERT. Received: `model_type` = 'roberta'"),
        ({"is_decoder": True}, "must be an encoder"),
        ({"position_embedding_type": "relative_key"}, "must be absolute. Received: 'relative_key'"),
        ({"hidden_act": "silu"}, "`hidden_act` must be one of gelu, .*Received: 'silu'"),
    ],
)
def test_other_models_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        BertConfig.from_published({**GOOGLE, **changes})


def test_from_json_names_the_file(tmp_path):
    path = tmp_path / "bert_config.json"
    for text, message in (
        ("{", "Expecting"),
        ("[]", ""),
        ('{"hidden_size": 8}', "Missing: vocab_size, num_hidden_"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"bert_config.json: .*{message}"):
            BertConfig.from_json(path)
    path.write_text(json.dumps(GOOGLE))
    assert BertConfig.from_json(path, pooling="cls").pooling == "cls"


def test_unknown_field_is_refused():
    with pytest.raises(ValueError, match=r"Received: \['bottleneck'\]. Update keras_compress"):
        BertConfig.from_dict({"bottleneck": 3})
