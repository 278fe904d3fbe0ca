"""A tiny BERT for tests: 2 layers, width 8, a vocabulary of English and Chinese."""

import functools

from keras_compress.bert.config import BertConfig
from keras_compress.bert.task_model import TaskModel
from keras_compress.bert.tokenizer import Tokenizer

VOCAB = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the a cat dog ##s sat on mat un ##believ ##able cafe ! , . ' "
    "我 你 好 听 音 乐 1 2 ##2 x ##x"
).split()
TEXTS = ["The cats sat on the mat.", "我听音乐", "unbelievable café 12, 你好!", "a"]
LABELS = {
    "classification": ("no", "maybe", "yes"),
    "matching": ("other", "same"),
    "tagging": ("O", "B-x", "I-x"),
    "multilabel": ("sat", "on", "x"),
    "regression": ("score",),
}


def config(**changes):
    """Weights are drawn wide, so that a mistake shows in the logits."""
    return BertConfig(
        **{
            "vocab_size": len(VOCAB),
            "hidden_size": 8,
            "num_layers": 2,
            "num_heads": 2,
            "intermediate_size": 12,
            "max_position_embeddings": 16,
            "initializer_range": 0.5,
            **changes,
        }
    )


def tokenizer(lowercase=True):
    return Tokenizer(VOCAB, lowercase)


def model(task="classification", seed=1, **changes):
    return TaskModel(config(**changes), tokenizer(), task, LABELS[task], seed=seed)


@functools.cache
def shared(task="classification", pooling="pooler"):
    """One model for all tests that only look at it."""
    return model(task, pooling=pooling)
