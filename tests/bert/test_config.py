import json

import pytest

from keras_compress.bert.config import BertConfig

STATIC = {"bits": 8, "activations": "static", "decay": 0.9, "start_step": 0}


def test_dict_round_trip():
    config = BertConfig(hidden_size=12, num_heads=3, num_layers=4, pooling="cls", dropout=0)
    assert BertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.replace(num_layers=2).num_layers == 2 and config.num_layers == 4


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"hidden_size": 13}, "multiple of `num_heads`. Received: 13 and 12"),
        ({"num_layers": 0}, "`num_layers` must .* Received: 0"),
        ({"vocab_size": 2.5}, "`vocab_size` must .* Received: 2.5"),
        ({"num_heads": True}, "`num_heads` must .* Received: True"),
        ({"activation": "swish"}, "`activation` must .*gelu.*gelu_tanh.*relu.* Received: 'swish'"),
        ({"architecture": "t5"}, "`architecture` must .* Received: 't5'"),
        ({"dropout": 1.0}, r"`dropout` must .* Received: 1.0"),
        ({"num_groups": 5}, "must divide the number of layers. Received: 5 .* Choose 1, 2, 3,"),
        ({"embedding_size": 800}, "`embedding_size` must be 1 to 768, the `hidden_size`"),
        ({"embedding_size": 60, "adapter": "hgt"}, "must be a multiple of 8, .* Received: 60"),
        ({"quantization": {"bits": 8}}, "`quantization` must be none or have bits, activations,"),
        ({"exits": [0, 1]}, "`exits` must .* greater than or equal to 1. Received: .0, 1."),
        ({"exits": []}, "`exits` must .* Received: ."),
        ({"exits": [2, 1]}, "`exits` must be 2 different ones among 1 to 11, rising. Received"),
        ({"exits": [3, 12]}, "`exits` must be 2 different ones among 1 to 11, rising. Received"),
        ({"exits": [1], "architecture": "bilstm"}, "a BERT that does not quantise .* a bilstm"),
        ({"exits": [1], "quantization": STATIC}, "Received: a bert, quantization = .'bits': 8"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(ValueError, match=message):
        BertConfig(**changes)


def test_unknown_field_is_refused():
    with pytest.raises(ValueError, match=r"Received: \['bottleneck'\]. Update keras_compress"):
        BertConfig.from_dict({"bottleneck": 3})
