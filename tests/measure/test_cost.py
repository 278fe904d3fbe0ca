import pytest

from keras_compress.bert.config import BertConfig
from keras_compress.measure import cost


def bert(num_layers=12, vocab_size=30522, pooling="pooler"):
    return BertConfig(vocab_size=vocab_size, num_layers=num_layers, pooling=pooling)


@pytest.mark.parametrize(
    "num_layers, vocab_size, expected",
    [
        (12, 30522, 109_482_240),
        (6, 30522, 66_955_008),
        (3, 30522, 45_691_392),
        (12, 21128, 102_267_648),
        (6, 21128, 59_740_416),
        (3, 21128, 38_476_800),
    ],
)
def test_parameters_of_published_models(num_layers, vocab_size, expected):
    assert cost.parameters(bert(num_layers, vocab_size)) == expected


def test_encoder_parameters_by_hand():
    # 4 (768^2 + 768) + 768*3072 + 3072 + 3072*768 + 768 + 4*768 = 2,362,368 + 2,362,368 + 2,360,064 + 3,072
    assert cost.encoder_parameters(bert(1)) == 7_087_872
    # pooler 590,592 and two classes 1,538 are not part of it
    assert (
        cost.parameters(bert(1), 2) - cost.parameters(bert(1, pooling="cls"), 0) == 590_592 + 1_538
    )


def test_flops_of_bert_base_by_hand():
    # per layer at 128 tokens: 8*128*768^2 = 603,979,776; 4*128^2*768 = 50,331,648; 4*128*768*3072 = 1,207,959,552
    # 12 * 1,862,270,976 = 22,347,251,712; pooler 2*768^2 = 1,179,648; 2 classes 2*768*2 = 3,072
    assert cost.flops(bert(), 128, num_labels=2) == 22_347_251_712 + 1_179_648 + 3_072
    # tagging: no pooler, and the classifier runs on every token
    assert cost.flops(bert(), 128, 9, "tagging") == 22_347_251_712 + 128 * 2 * 768 * 9
    assert cost.parameters(bert(), task="tagging") == 109_482_240 - 590_592


def test_flops_are_proportional_to_layers():
    assert cost.flops(bert(12, pooling="cls"), 48) == 4 * cost.flops(bert(3, pooling="cls"), 48)
