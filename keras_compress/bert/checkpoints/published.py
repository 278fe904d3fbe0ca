"""What the readers of published weights share: `Checkpoint`, and a published config as a `BertConfig`."""

import logging
from typing import NamedTuple

from keras_compress.bert.checkpoints.relatives import (
    RELATIVES,
    mobilebert_fields,
    model_type,
)
from keras_compress.bert.config import BertConfig
from keras_compress.bert.encoder import MLM_ROWS
from keras_compress.bert.tokenizer import Tokenizer, read_tokenizer
from keras_compress.files import one_of, read_json

# in `BertConfig`, in Google's bert_config.json and albert_config.json and in Hugging Face's config.json, in a DistilBERT's
FIELDS = """
vocab_size               vocab_size                    vocab_size
hidden_size              hidden_size                   dim
num_layers               num_hidden_layers             n_layers
num_heads                num_attention_heads           n_heads
intermediate_size        intermediate_size             hidden_dim
max_position_embeddings  max_position_embeddings       max_position_embeddings
type_vocab_size          type_vocab_size               -
activation               hidden_act                    activation
dropout                  hidden_dropout_prob           dropout
attention_dropout        attention_probs_dropout_prob  attention_dropout
initializer_range        initializer_range             initializer_range
layer_norm_eps           layer_norm_eps                -
embedding_size           embedding_size                -
"""
_FIELDS = [line.split() for line in FIELDS.strip().splitlines()]
_NUM_SIZES = 5  # a config must name the first
_GELU_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
_NEEDED = {
    "is_decoder": (False, "The checkpoint must be an encoder"),
    "position_embedding_type": ("absolute", "Position embeddings must be absolute"),
    "use_relative_position": (False, "Position embeddings must be absolute"),  # NEZHA's
    "pruned_heads": ({}, "All layers must have all attention heads"),
    "num_hidden_groups": (1, "An ALBERT must share one layer with all"),
    "inner_group_num": (1, "An ALBERT must share one layer with all"),
}

log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """Weights under this package's names, and what is needed to make a model of them.

    Attributes:
        tensors: {"layer/variable": array}. left_out: names of tensors in the file that no layer of a `TaskModel` takes.
        task, labels: of the classifier in the file; None where the file does not tell.
        guessed: whether the file does not tell what its classifier reads, so that `config.pooling` is a guess.
        sigmoid: whether the classifier's one output is meant as the logit of a probability, so that it is one of two
            labels as well as a score.
    """

    config: BertConfig
    tokenizer: Tokenizer
    tensors: dict
    left_out: list
    task: str | None = None
    labels: tuple | None = None
    guessed: bool = False
    sigmoid: bool = False


def published(config, folder, tensors, left_out, task=None, labels=None, special_in_text=False):
    """A `Checkpoint` with the folder's tokenizer; a classifier reads the pooler where there is one, else [CLS]."""
    config = config.replace(pooling="pooler" if "pooler/kernel" in tensors else "cls")
    tokenizer = read_tokenizer(folder, special_in_text)
    return Checkpoint(config, tokenizer, tensors, left_out, task, labels)


def without_spare_rows(checkpoint, name):
    """The checkpoint without rows of the word table that belong to no piece: padding, or room for more words.

    `name` is for the log.
    """
    table, pieces = "word_embeddings/embeddings", len(checkpoint.tokenizer.vocab)
    rows, config = len(checkpoint.tensors.get(table, ())), checkpoint.config
    if rows <= pieces or config.vocab_size not in (rows, pieces):
        return checkpoint
    log.log(
        logging.WARNING if rows - pieces > 0.1 * rows else logging.INFO,
        "%s: %d of %d rows of the word table belong to no piece of the vocabulary and are cut",
        *(name, rows - pieces, rows),
    )
    cut = {table, *MLM_ROWS} & checkpoint.tensors.keys()
    tensors = checkpoint.tensors | {part: checkpoint.tensors[part][:pieces] for part in cut}
    return checkpoint._replace(config=config.replace(vocab_size=pieces), tensors=tensors)


def read_config(folder, *names):
    """The first of these files that a folder holds, as (its path, `BertConfig`, all its values).

    Without names, those of the config beside Google's or bert4keras' weights. Raises ValueError, naming the file, if it
    does not describe a BERT encoder.

    "gelu" is the erf form here, as in Hugging Face's code and bert4keras. For a model that was trained with the tanh
    form write "gelu_new" for `hidden_act`.
    """
    albert = sorted(file.name for file in folder.glob("albert_config*.json"))
    path = one_of(folder, *(names or ("bert_config.json", *albert, "config.json")))
    values = read_json(path)
    kind = model_type(values)
    if kind not in RELATIVES:
        raise ValueError(
            f"{path}: The checkpoint must be a BERT. Received: `model_type` = {kind!r}. "
            f"Choose a checkpoint with one of {', '.join(RELATIVES)}."
        )
    for name, (needed, rule) in _NEEDED.items():
        if values.get(name, needed) != needed:
            raise ValueError(
                f"{path}: {rule}. Received: `{name}` = {values[name]!r}. Choose a checkpoint with {needed!r}."
            )
    columns = {field: other if kind == "distilbert" else name for field, name, other in _FIELDS}
    missing = [name for name in [*columns.values()][:_NUM_SIZES] if name not in values]
    if missing:
        raise ValueError(
            f"{path}: A BERT config must name its sizes. Missing: {', '.join(missing)}."
        )
    fields = {field: values[name] for field, name in columns.items() if name in values}
    fields = RELATIVES[kind].config | fields
    if kind == "mobilebert":
        fields |= mobilebert_fields(values, google="model_type" not in values)
    if fields.get("activation") in _GELU_TANH:
        fields["activation"] = "gelu_tanh"
    if "embedding_size" in fields:
        fields.setdefault("embedding_norm", "embedding")
    try:
        return path, BertConfig(**fields), values
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
