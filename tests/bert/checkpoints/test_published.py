import json

import pytest

from keras_compress.bert.checkpoints.published import read_config
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


def read(folder, values):
    (folder / "bert_config.json").write_text(
        values if isinstance(values, str) else json.dumps(values)
    )
    return read_config(folder, "bert_config.json", "config.json")[1]


def test_google_config(tmp_path):
    assert read(tmp_path, GOOGLE) == BertConfig(
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


def test_huggingface_config(tmp_path):
    more = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "layer_norm_eps": 1e-7,
        "hidden_act": "gelu_new",
        "is_decoder": False,
        "position_embedding_type": "absolute",
    }
    config = read(tmp_path, GOOGLE | more)
    assert (config.layer_norm_eps, config.activation) == (1e-7, "gelu_tanh")


@pytest.mark.parametrize(
    "values, message",
    [
        (GOOGLE | {"model_type": "t5"}, "must be a BERT. Received: `model_type` = 't5'"),
        (GOOGLE | {"is_decoder": True}, "must be an encoder. Received: `is_decoder` = True"),
        (GOOGLE | {"position_embedding_type": "relative_key"}, "must be absolute. Received: "),
        (GOOGLE | {"use_relative_position": True}, "must be absolute. Received: `use_relative_pos"),
        (
            GOOGLE | {"pruned_heads": {"0": [1]}},
            "must have all attention heads. Received: `pruned_",
        ),
        (GOOGLE | {"num_hidden_groups": 3}, "An ALBERT must share one layer with all"),
        (GOOGLE | {"hidden_act": "silu"}, "must .*gelu.* Received: 'silu'"),
        ({"hidden_size": 8}, "must name its sizes. Missing: vocab_size, num_hidden_layers, "),
        ("{", "not valid JSON"),
        ("[]", "must hold a JSON object"),
    ],
)
def test_what_is_no_config_of_a_bert_is_refused_with_the_file_s_name(tmp_path, values, message):
    with pytest.raises(ValueError, match=f"bert_config.json: .*{message}"):
        read(tmp_path, values)
