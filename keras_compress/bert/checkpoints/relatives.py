"""BERT and its relatives in Hugging Face's files: what config.json leaves out, and names of weights.

All have BERT's layers. DistilBERT (Sanh et al., 2019) has no token types. ELECTRA (Clark et al., 2020) and ALBERT (Lan
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
}


def model_type(values):
    """The `model_type` of a config; Google's have none."""
    return values.get("model_type") or ("albert" if "num_hidden_groups" in values else "bert")
