"""`BertConfig`: everything that is needed to build an encoder again, as plain data."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from keras_compress.bert.layer_maps import divisors, rising_layers
from keras_compress.files import check_memory
from keras_compress.method import BelowOne, Count, Whole, check

HGT_GROUPS = (8, 4, 2, 1)
Exits = Annotated[list[Count], Field(min_length=1)]
# Fields of this architecture alone, as they are in all others
MOBILEBERT = {
    "bottleneck_size": None,
    "num_ffn": 1,
    "attention_input": "hidden",
    "norm": "layer",
    "trigram": False,
}
# Fields that this architecture does not have
OTHERS = "sharing adapter embedding_norm quantization heads_per_layer ffn_per_layer".split()


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
        bottleneck_size: width inside of a MobileBERT's block; None: `hidden_size`, so that it has no bottlenecks.
        num_ffn: feed-forward layers of a MobileBERT's block.
        attention_input: what a MobileBERT's query and key read: the block's input ("hidden"), its "bottleneck", which
            its value reads, too, or a bottleneck of their own, "shared" by both.
        norm: "layer" normalises each position's vector; "none" scales and shifts it alone (MobileBERT's NoNorm).
        trigram: whether a position's embedding is made of three words' vectors: the next, its own and the last one.
        quantization: None, or how the model quantises while it computes: a dict of the fields of `Quantization`.
        exits: None, or the layers after which a branch classifier (branch.py) can answer: counted from 1, rising, below
            the last, whose answer is the model's own.
        classifier: what reads the last hidden states: a "dense" layer on what `pooling` gives, or a "branch" classifier.
        heads_per_layer, ffn_per_layer: attention heads and feed-forward width that each layer has left of `num_heads`
            and `intermediate_size`; None: all. A head has `head_size` numbers in every layer.
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
    architecture: Literal["bert", "bilstm", "mobilebert"] = "bert"
    embedding_size: Count | None = None
    adapter: Literal["linear", "mlp", "hgt"] = "linear"
    embedding_norm: Literal["hidden", "embedding"] = "hidden"
    sharing: Literal["none", "all", "attention", "ffn"] = "none"
    num_groups: Count = 1
    quantization: dict | None = None
    pooler_activation: Literal["tanh", "relu", "gelu"] = "tanh"
    exits: Exits | None = None
    classifier: Literal["dense", "branch"] = "dense"
    bottleneck_size: Count | None = None
    num_ffn: Count = 1
    attention_input: Literal["hidden", "bottleneck", "shared"] = "hidden"
    norm: Literal["layer", "none"] = "layer"
    trigram: bool = False
    heads_per_layer: list[int] | None = None
    ffn_per_layer: list[int] | None = None

    def __post_init__(self):
        check(BertConfig, vars(self))
        if self.inner_size % self.num_heads:
            name = "bottleneck_size" if self.bottleneck_size else "hidden_size"
            raise ValueError(
                f"`{name}` must be a multiple of `num_heads`. "
                f"Received: {self.inner_size} and {self.num_heads}."
            )
        self._check_block()
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
        for name, of in (("heads_per_layer", "num_heads"), ("ffn_per_layer", "intermediate_size")):
            left, most = getattr(self, name), getattr(self, of)
            if left is None:
                continue
            if len(left) != self.num_layers or not {*left} <= {*range(1, most + 1)}:
                raise ValueError(
                    f"`{name}` must be none, or one number from 1 to {most}, the `{of}`, for each of the "
                    f"{self.num_layers} layers. Received: {left}. Start from a model whose layers are whole."
                )
            if self.sharing != "none":
                raise ValueError(
                    f"Layers that share weights must have no `{name}`. Received: {left} and sharing "
                    f"{self.sharing!r}. Start from a model whose layers are whole."
                )
        if self.exits:
            rising_layers("`exits`", self.exits, len(self.exits), 1, self.num_layers - 1)
        if self.exits and (self.quantization or self.architecture != "bert"):
            raise ValueError(
                "`exits` must be those of a BERT that does not quantise while it computes. Received: a "
                f"{self.architecture}, quantization = {self.quantization}. Leave out one of them."
            )
        check(Quantization, self.quantization or {})
        hidden, own = self.hidden_size, self.num_groups
        own = self.num_layers if self.sharing == "none" else own
        rows = self.max_position_embeddings + self.type_vocab_size
        numbers = self.vocab_size * self.table_size + rows * hidden
        numbers += own * hidden * (4 * hidden + 2 * self.num_ffn * self.intermediate_size)
        check_memory(4 * numbers, "The weights that a config describes")

    def _check_block(self):
        """Raises ValueError if fields of one architecture are set in another."""
        own = {name: getattr(self, name) for name in MOBILEBERT}
        others = {name: getattr(self, name) for name in OTHERS}
        others = {
            name: value for name, value in others.items() if value != getattr(BertConfig, name)
        }
        if self.architecture != "mobilebert" and own != MOBILEBERT:
            raise ValueError(
                f"{', '.join(MOBILEBERT)} belong to a mobilebert. Received: a {self.architecture} with {own}. "
                'Set `architecture` to "mobilebert".'
            )
        if self.architecture == "mobilebert" and others:
            raise ValueError(
                f"A mobilebert must leave {', '.join(OTHERS)} as they are by default. Received: {others}. "
                "Leave them out."
            )
        if self.attention_input != "hidden" and not self.bottleneck_size:
            raise ValueError(
                f'`attention_input` must be "hidden" without a bottleneck. Received: {self.attention_input!r}. '
                "Set `bottleneck_size`."
            )

    @property
    def inner_size(self):
        """Width in which attention and feed-forward layers compute."""
        return self.bottleneck_size or self.hidden_size

    @property
    def table_size(self):
        """Width of the embedding matrix."""
        return self.embedding_size or self.hidden_size

    @property
    def head_size(self):
        """Numbers in a head's query, key and value."""
        return self.inner_size // self.num_heads

    @property
    def heads(self):
        """Attention heads of each layer."""
        return self.heads_per_layer or [self.num_heads] * self.num_layers

    @property
    def ffn_sizes(self):
        """Feed-forward width of each layer."""
        return self.ffn_per_layer or [self.intermediate_size] * self.num_layers

    @property
    def adapter_shapes(self):
        """(input width, output width, groups) of each linear map between embedding matrix and encoder."""
        narrow, wide = self.table_size * (3 if self.trigram else 1), self.hidden_size
        if narrow == wide and not self.trigram:
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

    def of_layers(self, indices):
        """The config of these layers, from 0, each with its own weights and without exits."""
        sizes = {"heads_per_layer": self.heads_per_layer, "ffn_per_layer": self.ffn_per_layer}
        sizes = {name: [each[n] for n in indices] for name, each in sizes.items() if each}
        plain = {"sharing": "none", "num_groups": 1, "exits": None}
        return self.replace(num_layers=len(indices), **plain, **sizes)

    def replace(self, **changes):
        """A copy with other values. Raises ValueError also on what is no field."""
        try:
            return dataclasses.replace(self, **changes)
        except TypeError as error:
            raise ValueError(
                f"`config` must be fields of BertConfig and their values. Received: {changes!r} ({error})."
            ) from error

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
