"""BERT and its relatives in Hugging Face's files: what config.json leaves out, and names of weights.

All have BERT's layers, but MobileBERT (Sun et al., 2020) blocks of its own (bert/mobilebert.py). DistilBERT (Sanh et al., 2019) has no token types. ELECTRA (Clark et al., 2020) and ALBERT (Lan
et al., 2020) may have a narrow word table; an ALBERT's layers share all weights. Token classifiers are BERT's; those of
texts differ in the pooler's activation.
"""

import re
from typing import NamedTuple

# of their names, these parts become those of a BERT
_DISTILBERT = """
distilbert         bert
transformer        encoder
attention.q_lin    attention.self.query
attention.k_lin    attention.self.key
attention.v_lin    attention.self.value
attention.out_lin  attention.output.dense
sa_layer_norm      attention.output.LayerNorm
ffn.lin1           intermediate.dense
ffn.lin2           output.dense
output_layer_norm  output.LayerNorm
pre_classifier     pooler.dense
vocab_transform    cls.predictions.transform.dense
vocab_layer_norm   cls.predictions.transform.LayerNorm
vocab_projector    cls.predictions
"""
_ELECTRA = """
electra                bert
embeddings_project     encoder.embedding_hidden_mapping_in
classifier.dense       pooler.dense
classifier.out_proj    classifier
generator_predictions  cls.predictions.transform
generator_lm_head      cls.predictions
"""
_ALBERT = """
albert                                 bert
albert_layer_groups.0.albert_layers.0  layer.0
attention.query                        attention.self.query
attention.key                          attention.self.key
attention.value                        attention.self.value
attention.dense                        attention.output.dense
attention.LayerNorm                    attention.output.LayerNorm
ffn                                    intermediate.dense
ffn_output                             output.dense
full_layer_layer_norm                  output.LayerNorm
pooler                                 pooler.dense
predictions.dense                      cls.predictions.transform.dense
predictions.LayerNorm                  cls.predictions.transform.LayerNorm
predictions.bias                       cls.predictions.bias
"""
_MOBILEBERT = """
mobilebert                          bert
embeddings.embedding_transformation encoder.embedding_hidden_mapping_in
"""
_BLOCK = {  # MobileBERT's
    "architecture": "mobilebert",
    "hidden_size": 512,
    "activation": "relu",
    "embedding_size": 128,
    "embedding_norm": "hidden",
}


class Relative(NamedTuple):
    """One `model_type`.

    Attributes:
        name: what names of its classes begin with.
        config: fields of `BertConfig` that its config.json does not have, or may leave out.
        parts: the table of its names.
    """

    name: str
    config: dict
    parts: str = ""

    @property
    def heads(self):
        """{class of a classifier: its task}."""
        tasks = {"Sequence": "classification", "Token": "tagging"}
        return {f"{self.name}For{what}Classification": task for what, task in tasks.items()}

    @property
    def renamings(self):
        """(pattern, replacement) of each part, for `rename`."""
        parts = [line.split() for line in self.parts.strip().splitlines()]
        return [(rf"\b{re.escape(theirs)}\b", bert) for theirs, bert in parts]


RELATIVES = {
    "bert": Relative("Bert", {}),
    "distilbert": Relative(
        "DistilBert", {"type_vocab_size": 0, "pooler_activation": "relu"}, _DISTILBERT
    ),
    "electra": Relative("Electra", {"embedding_size": 128, "pooler_activation": "gelu"}, _ELECTRA),
    "albert": Relative(
        "Albert", {"embedding_size": 128, "sharing": "all", "activation": "gelu_tanh"}, _ALBERT
    ),
    "mobilebert": Relative("MobileBert", _BLOCK, _MOBILEBERT),
}


def model_type(values):
    """The `model_type` of a config; Google's have none."""
    own = {"num_hidden_groups": "albert", "intra_bottleneck_size": "mobilebert"}
    named = [kind for field, kind in own.items() if field in values]
    return values.get("model_type") or (named or ["bert"])[0]


def mobilebert_fields(values, google):
    """Fields of `BertConfig` from a MobileBERT's config. What it leaves out is Hugging Face's default, or Google's."""
    get = lambda name, theirs, ours: values.get(name, ours if google else theirs)
    norm = get("normalization_type", "no_norm", "layer_norm")
    fields = {
        "num_ffn": get("num_feedforward_networks", 4, 1),
        "norm": {"no_norm": "none", "layer_norm": "layer"}.get(norm, norm),
        "trigram": get("trigram_input", True, False),
    }
    if not get("use_bottleneck", True, False):
        return fields
    fields["bottleneck_size"] = values.get("intra_bottleneck_size", 128)
    if get("use_bottleneck_attention", False, False):
        return fields | {"attention_input": "bottleneck"}
    shared = get("key_query_shared_bottleneck", True, False)
    return fields | {"attention_input": "shared" if shared else "hidden"}
