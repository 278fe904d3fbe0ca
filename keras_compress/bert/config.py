"""`BertConfig`: everything that is needed to rebuild an encoder, as plain data."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from keras_compress.training.settings import check_choice, is_whole

POOLINGS = ("pooler", "cls", "mean")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
ARCHITECTURES = ("bert", "bilstm")
QUANTIZATION = ("bits", "activations", "decay", "start_step")
SHARINGS, NORMS = ("none", "all", "attention", "ffn"), ("hidden", "embedding")
ADAPTERS, HGT_GROUPS = ("linear", "mlp", "hgt"), (8, 4, 2, 1)

# Names in Google's bert_config.json and in Hugging Face's config.json, some in Google's albert_config.json alone.
_PUBLISHED_NAMES = {
    **{
        name: name
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
            "initializer_range",
            "layer_norm_eps",
            "embedding_size",
        )
    },
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "num_hidden_groups": "num_groups",
}
_PUBLISHED_ACTIVATIONS = {
    "gelu": "gelu",
    "relu": "relu",
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast"), "gelu_tanh"),
}


@dataclass(frozen=True)
class BertConfig:
    """Sizes and switches of one encoder (Devlin et al., 2019, arXiv:1810.04805, Sec. 3).

    Attributes:
        hidden_size: width of the hidden states; a multiple of `num_heads`.
        intermediate_size: width of the feed-forward layer.
        type_vocab_size: rows of the token type table; 0: there is none (DistilBERT).
        activation: "gelu" (erf form), "gelu_tanh" or "relu".
        pooling: what a sentence-level head reads: "pooler" (dense + tanh on [CLS]), "cls" (the last hidden
            state of [CLS]) or "mean" (mean of the last hidden states over real tokens).
        architecture: "bert", or "bilstm" (see bilstm.py).
        embedding_size: width of the word table; None: `hidden_size`. A narrower one is mapped to the encoder's width.
        adapter: how: by a "linear" layer, an "mlp" or "hgt", DeFINE's hierarchical group transformation (adapter.py).
        embedding_norm: where positions and types are added and normalised: at the "hidden" width, after that layer, or
            at the "embedding" width, before it (ALBERT).
        sharing: which part of the layers is one for all of a group: "none", "all", "attention" or "ffn".
        num_groups: groups of neighbouring layers that share.
        quantization: None, or how the model quantises while it computes: a dict of `QUANTIZATION`'s fields, as
            quantization/q8bert.py gives them.
    Raises:
        ValueError: if a size is not positive or a name is unknown.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    activation: str = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    pooling: str = "pooler"
    architecture: str = "bert"
    embedding_size: int | None = None
    adapter: str = "linear"
    embedding_norm: str = "hidden"
    sharing: str = "none"
    num_groups: int = 1
    quantization: dict | None = None

    def __post_init__(self):
        for name in (
            "vocab_size",
            "hidden_size",
            "num_layers",
            "num_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        ):
            value = getattr(self, name)
            if not is_whole(value, int(name != "type_vocab_size")):
                raise ValueError(f"`{name}` must be a positive integer. Received: {value!r}.")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                "`hidden_size` must be a multiple of `num_heads`. Received: "
                f"{self.hidden_size} and {self.num_heads}. Change one of the two."
            )
        if self.embedding_size is not None and not is_whole(
            self.embedding_size, 1, self.hidden_size
        ):
            raise ValueError(
                f"`embedding_size` must be 1 to {self.hidden_size}, the `hidden_size`. "
                f"Received: {self.embedding_size!r}."
            )
        if not is_whole(self.num_groups, 1, self.num_layers) or self.num_layers % self.num_groups:
            choices = ", ".join(
                str(g) for g in range(1, self.num_layers + 1) if self.num_layers % g == 0
            )
            raise ValueError(
                "`num_groups` must divide the number of layers. "
                f"Received: {self.num_groups!r} and {self.num_layers}. Choose {choices}."
            )
        for name, choices in (
            ("pooling", POOLINGS),
            ("activation", ACTIVATIONS),
            ("architecture", ARCHITECTURES),
            ("sharing", SHARINGS),
            ("embedding_norm", NORMS),
            ("adapter", ADAPTERS),
        ):
            check_choice(name, getattr(self, name), choices)
        if self.adapter == "hgt" and self.table_size % max(HGT_GROUPS):
            raise ValueError(
                f"`embedding_size` of an hgt adapter must be a multiple of {max(HGT_GROUPS)}, its number "
                f"of groups. Received: {self.table_size}."
            )
        if self.quantization is not None and {*self.quantization} != {*QUANTIZATION}:
            raise ValueError(
                f"`quantization` must be none or have {', '.join(QUANTIZATION)}. "
                f"Received: {self.quantization!r}."
            )
        for name in ("dropout", "attention_dropout", "layer_norm_eps", "initializer_range"):
            if (
                not isinstance(getattr(self, name), (int, float))
                or not 0.0 <= getattr(self, name) < 1.0
            ):
                raise ValueError(f"`{name}` must be in [0, 1). Received: {getattr(self, name)!r}.")

    @property
    def table_size(self):
        """Width of the word table."""
        return self.embedding_size or self.hidden_size

    @property
    def adapter_shapes(self):
        """(input width, output width, groups) of each linear transform from the word table to the encoder."""
        narrow, wide = self.table_size, self.hidden_size
        if narrow == wide:
            return []
        if self.adapter == "linear":
            return [(narrow, wide, 1)]
        if self.adapter == "mlp":
            return [(narrow, 2 * narrow, 1), (2 * narrow, wide, 1)]
        shapes, depth = [], len(HGT_GROUPS)
        for layer, groups in enumerate(HGT_GROUPS, start=1):
            width = (
                -(-narrow * (depth - 1 + layer) // ((depth - 1) * 8)) * 8
            )  # n + n l / (N - 1), a multiple of 8
            inputs = narrow + shapes[-1][1] if shapes else narrow  # the table again in every layer
            shapes.append((inputs, width if layer < depth else wide, groups))
        return shapes

    def owner(self, layer, part):
        """The layer whose weights a layer uses for its "attention" or "ffn": the first one of its group, or itself."""
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
        """Rebuilds what `to_dict` wrote. Raises ValueError on a field this version does not know."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"A model's config may hold only fields that this version knows. Received: {unknown}. "
                "Update keras_compress to the version that wrote the model."
            )
        return cls(**values)

    @classmethod
    def from_published(cls, values, **changes):
        """Reads the dict of a Google `bert_config.json` or `albert_config.json`, or a Hugging Face `config.json`.

        "gelu" is the erf form here, as in Hugging Face's code and bert4keras; `weights.load` takes the tanh form for a
        Google ALBERT checkpoint, not for a Google BERT, whose later code has it, too. For another model that was trained
        with the tanh form write "gelu_new" for `hidden_act`.
        """
        model_type = values.get("model_type", "bert")
        if model_type != "bert":
            raise ValueError(
                f"The checkpoint must be a BERT. Received: `model_type` = {model_type!r}. "
                'Choose a model whose config.json says "model_type": "bert".'
            )
        if values.get("is_decoder"):
            raise ValueError("The checkpoint must be an encoder. Received: `is_decoder` = true.")
        position_type = values.get("position_embedding_type", "absolute")
        if position_type != "absolute":
            raise ValueError(f"Position embeddings must be absolute. Received: {position_type!r}.")
        missing = [
            name
            for name in (
                "vocab_size",
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "intermediate_size",
            )
            if name not in values
        ]
        if missing:
            raise ValueError(f"A BERT config must name its sizes. Missing: {', '.join(missing)}.")
        fields = {
            ours: values[theirs] for theirs, ours in _PUBLISHED_NAMES.items() if theirs in values
        }
        activation = fields.get("activation", "gelu")
        check_choice("hidden_act", activation, _PUBLISHED_ACTIVATIONS)
        fields["activation"] = _PUBLISHED_ACTIVATIONS[activation]
        if "embedding_size" in fields:
            fields["embedding_norm"] = "embedding"
        if "num_groups" in fields:  # an ALBERT
            groups, inner = fields["num_groups"], values.get("inner_group_num", 1)
            if (groups, inner) != (1, 1):
                raise ValueError(
                    "An ALBERT must share one layer with all (the released ones do). Received: "
                    f"`num_hidden_groups` = {groups!r}, `inner_group_num` = {inner!r}."
                )
            fields["sharing"] = "all"
        return cls(**{**fields, **changes})

    @classmethod
    def from_json(cls, path, **changes):
        """`from_published` of a file. Raises ValueError naming the file if it is not a BERT config."""
        try:
            return cls.from_published(json.loads(Path(path).read_text(encoding="utf-8")), **changes)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from error
