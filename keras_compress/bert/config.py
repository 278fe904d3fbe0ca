"""`BertConfig`: everything that is needed to build an encoder again, as plain data."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from keras_compress.bert.layer_maps import divisors
from keras_compress.files import check_memory
from keras_compress.method import BelowOne, Count, Whole, check

HGT_GROUPS = (8, 4, 2, 1)


class Quantization:
    """The fields of `BertConfig.quantization`."""

    bits: Literal[8, 4, 2]
    activations: Literal["static", "dynamic"]
    decay: BelowOne
    start_step: Whole


QUANTIZATION = tuple(Quantization.__annotations__)


@dataclass(frozen=True)
class BertConfig:
    """Sizes and switches of one encoder (Devlin et al., 2019, arXiv:1810.04805, Sec. 3).

    Attributes:
        hidden_size: width of the hidden states; a multiple of `num_heads`.
        intermediate_size: width of the feed-forward layer.
        type_vocab_size: rows of the token type table; 0: there is none (DistilBERT).
        activation: "gelu" (erf form), "gelu_tanh" or "relu".
        pooling: what a sentence-level head reads: "pooler" (a dense layer on [CLS]), "cls" (the last hidden
            state of [CLS]) or "mean" (mean of the last hidden states over real tokens).
        pooler_activation: of the pooler: "tanh"; "relu" as in DistilBERT's classifier, "gelu" as in ELECTRA's.
        architecture: the block that the encoder is made of, a key of `encoder.BLOCKS`.
        embedding_size: width of the embedding matrix (the word table); None: `hidden_size`. A narrower one is the
            factorized embedding parameterization (Lan et al., 2020, Sec. 3.1): a map to `hidden_size` follows it.
        adapter: that map: a "linear" layer, an "mlp", or "hgt", DeFINE's hierarchical group transformation (adapter.py).
        embedding_norm: where positions and types are added and normalised: at width `hidden_size`, after the map
            ("hidden"), or at width `embedding_size`, before it ("embedding", as in ALBERT).
        sharing: cross-layer parameter sharing: which part of a layer all layers of a group have in common.
        num_groups: groups of neighbouring layers that share.
        quantization: None, or how the model quantises while it computes: a dict of the fields of `Quantization`.
    Raises:
        ValueError: if a value is not of its kind or out of its range, or two values do not fit together.
    """

    vocab_size: Count = 30522
    hidden_size: Count = 768
    num_layers: Annotated[Count, Field(le=512)] = 12
    num_heads: Count = 12
    intermediate_size: Count = 3072
    max_position_embeddings: Count = 512
    type_vocab_size: Whole = 2
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    layer_norm_eps: BelowOne = 1e-12
    dropout: BelowOne = 0.1
    attention_dropout: BelowOne = 0.1
    initializer_range: BelowOne = 0.02
    pooling: Literal["pooler", "cls", "mean"] = "pooler"
    architecture: Literal["bert", "bilstm"] = "bert"
    embedding_size: Count | None = None
    adapter: Literal["linear", "mlp", "hgt"] = "linear"
    embedding_norm: Literal["hidden", "embedding"] = "hidden"
    sharing: Literal["none", "all", "attention", "ffn"] = "none"
    num_groups: Count = 1
    quantization: dict | None = None
    pooler_activation: Literal["tanh", "relu", "gelu"] = "tanh"

    def __post_init__(self):
        check(BertConfig, vars(self))
        if self.hidden_size % self.num_heads:
            raise ValueError(
                "`hidden_size` must be a multiple of `num_heads`. "
                f"Received: {self.hidden_size} and {self.num_heads}."
            )
        if self.table_size > self.hidden_size:
            raise ValueError(
                f"`embedding_size` must be 1 to {self.hidden_size}, the `hidden_size`. "
                f"Received: {self.embedding_size}."
            )
        if self.num_layers % self.num_groups:
            raise ValueError(
                f"`num_groups` must divide the number of layers. Received: {self.num_groups} "
                f"and {self.num_layers}. Choose {divisors(self.num_layers)}."
            )
        if self.adapter == "hgt" and self.table_size % max(HGT_GROUPS):
            raise ValueError(
                f"`embedding_size` of an hgt adapter must be a multiple of {max(HGT_GROUPS)}, its number of groups. "
                f"Received: {self.table_size}."
            )
        if self.quantization is not None and {*self.quantization} != {*QUANTIZATION}:
            raise ValueError(
                f"`quantization` must be none or have {', '.join(QUANTIZATION)}. "
                f"Received: {self.quantization!r}."
            )
        check(Quantization, self.quantization or {})
        hidden, own = (
            self.hidden_size,
            self.num_layers if self.sharing == "none" else self.num_groups,
        )
        rows = self.max_position_embeddings + self.type_vocab_size
        numbers = self.vocab_size * self.table_size + rows * hidden
        numbers += own * hidden * (4 * hidden + 2 * self.intermediate_size)
        check_memory(4 * numbers, "The weights that a config describes")

    @property
    def table_size(self):
        """Width of the embedding matrix."""
        return self.embedding_size or self.hidden_size

    @property
    def adapter_shapes(self):
        """(input width, output width, groups) of each linear map between embedding matrix and encoder."""
        narrow, wide = self.table_size, self.hidden_size
        if narrow == wide:
            return []
        if self.adapter == "linear":
            return [(narrow, wide, 1)]
        if self.adapter == "mlp":
            return [(narrow, 2 * narrow, 1), (2 * narrow, wide, 1)]
        # n + n l / (N - 1), rounded up to a multiple of 8; every layer after the first reads the word vector, too
        last = len(HGT_GROUPS) - 1
        widths = [8 * -(-narrow * (last + layer) // (8 * last)) for layer in range(1, last + 1)]
        inputs = [narrow, *(narrow + width for width in widths)]
        return list(zip(inputs, [*widths, wide], HGT_GROUPS))

    def owner(self, layer, part):
        """The layer whose weights a layer uses for its "attention" or "ffn": the first of its group, or itself."""
        if self.sharing not in ("all", part):
            return layer
        size = self.num_layers // self.num_groups
        return layer // size * size

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)

    def to_dict(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values):
        """Builds again what `to_dict` wrote. Raises ValueError on a field that this version does not know."""
        unknown = sorted(values.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            raise ValueError(
                f"A model's config may hold only fields that this version knows. Received: {unknown}. "
                "Update keras_compress to the version that wrote the model."
            )
        return cls(**values)
