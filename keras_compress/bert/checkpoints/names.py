"""Names of weights in published files and in this package."""

import logging
import re
from fnmatch import fnmatchcase

log = logging.getLogger(__name__)

# here, in Hugging Face's files, in bert4keras; {n} is a layer's number, {k} that of one of its feed-forward layers but
# the last; what bert4keras does not have is MobileBERT's
LAYERS = """
word_embeddings             embeddings.word_embeddings                      Embedding-Token
type_embeddings             embeddings.token_type_embeddings                Embedding-Segment
position_embeddings         embeddings.position_embeddings                  Embedding-Position
embeddings_norm             embeddings.LayerNorm                            Embedding-Norm
layer_{n}_query             encoder.layer.{n}.attention.self.query          Transformer-{n}-MultiHeadSelfAttention
layer_{n}_key               encoder.layer.{n}.attention.self.key            Transformer-{n}-MultiHeadSelfAttention
layer_{n}_value             encoder.layer.{n}.attention.self.value          Transformer-{n}-MultiHeadSelfAttention
layer_{n}_attention_output  encoder.layer.{n}.attention.output.dense        Transformer-{n}-MultiHeadSelfAttention
layer_{n}_attention_norm    encoder.layer.{n}.attention.output.LayerNorm    Transformer-{n}-MultiHeadSelfAttention-Norm
layer_{n}_intermediate      encoder.layer.{n}.intermediate.dense            Transformer-{n}-FeedForward
layer_{n}_output            encoder.layer.{n}.output.dense                  Transformer-{n}-FeedForward
layer_{n}_output_norm       encoder.layer.{n}.output.LayerNorm              Transformer-{n}-FeedForward-Norm
layer_{n}_bottleneck               encoder.layer.{n}.bottleneck.input.dense          -
layer_{n}_bottleneck_norm          encoder.layer.{n}.bottleneck.input.LayerNorm      -
layer_{n}_shared_bottleneck        encoder.layer.{n}.bottleneck.attention.dense      -
layer_{n}_shared_bottleneck_norm   encoder.layer.{n}.bottleneck.attention.LayerNorm  -
layer_{n}_ffn_{k}_intermediate     encoder.layer.{n}.ffn.{k}.intermediate.dense      -
layer_{n}_ffn_{k}_output           encoder.layer.{n}.ffn.{k}.output.dense            -
layer_{n}_ffn_{k}_output_norm      encoder.layer.{n}.ffn.{k}.output.LayerNorm        -
layer_{n}_up                       encoder.layer.{n}.output.bottleneck.dense         -
layer_{n}_up_norm                  encoder.layer.{n}.output.bottleneck.LayerNorm     -
embedding_projection        encoder.embedding_hidden_mapping_in             Embedding-Mapping
pooler                      pooler.dense                                    Pooler-Dense
mlm_transform               cls.predictions.transform.dense                 MLM-Dense
mlm_norm                    cls.predictions.transform.LayerNorm             MLM-Norm
mlm_bias                    cls.predictions                                 MLM-Bias
mlm_extra                   cls.predictions.dense                           -
classifier                  classifier                                      -
"""
# Patterns of names that no layer takes, and that change no answer: an optimiser's, and those of pre-training.
_OPTIMISER = """
*/adam_m */adam_v */Adam* */lamb_* */Momentum* */ExponentialMovingAverage* *beta[12]_power* global_step
*loss_scale* good_steps optimizer* training/* save_counter*
"""
_PRETRAINING = """
*position_ids *cls[./]predictions[./]* *cls[./]seq_relationship[./]* MLM-* NSP-*
*vocab_projector.weight *generator_lm_head.weight *discriminator_predictions.* *predictions.decoder.* *sop_classifier.*
"""
_ENCODER = re.compile(r"(^|[./])(embeddings|encoder|transformer)[./]|^(Embedding|Transformer)-")
_VARIABLES = {"embeddings": ("embeddings",), "norm": ("beta", "gamma"), "bias": ("bias",)}
_WORDS = "embeddings.word_embeddings.weight"
_PYTORCH = {"weight": ("kernel", "gamma", "embeddings"), "bias": ("bias", "beta")}


def rows(num_layers, num_ffn=1):
    """(name here, Hugging Face's, bert4keras') of every layer; bert4keras has one name for several layers."""
    for line in LAYERS.strip().splitlines():
        for n in range(num_layers if "{n}" in line else 1):
            for k in range(num_ffn - 1 if "{k}" in line else 1):
                yield line.format(n=n, k=k).split()


def variables(layer):
    """A layer's variables by name here, in bert4keras' order."""
    return _VARIABLES.get(layer.split("_")[-1], ("kernel", "bias"))


def rename(names, config, read, renamings=()):
    """Weights under their names in this package.

    Args:
        names: of the weights in a file. config: `BertConfig`. read: name -> array.
        renamings: (pattern, replacement), by which the file's names become those of Hugging Face's BERT.
    Returns:
        ({"layer/variable": array}, [names left out]). PyTorch keeps dense kernels as (out, in); Keras as (in, out).
    """
    layers = {theirs: layer for layer, theirs, _ in rows(config.num_layers, config.num_ffn)}
    tensors, left_out, common = {}, [], {}
    for name in names:
        common[name] = name
        for pattern, replacement in renamings:
            common[name] = re.sub(pattern, replacement, common[name])
    prefix = _prefix(common.values())
    for name, renamed in common.items():
        part, _, kind = renamed.removeprefix(prefix).removeprefix("bert.").rpartition(".")
        layer = layers.get(part, "")
        known = [v for v in variables(layer) if v in _PYTORCH.get(kind, (kind,))]
        if layer and known:
            turned = kind == "weight" and known == ["kernel"]
            tensors[f"{layer}/{known[0]}"] = read(name).T if turned else read(name)
        else:
            left_out.append(name)
    return tensors, left_out


def _prefix(names):
    """What stands before a BERT's names: "module." of DataParallel, "_orig_mod." of torch.compile, a wrapper's own."""
    found = [name for name in names if name.endswith(_WORDS)]
    if len(found) != 1:
        return ""
    prefix = found[0].removesuffix(_WORDS).removesuffix("bert.")
    if prefix:
        log.info("the names of weights begin with %s, which is left out", prefix)
    return prefix


def matches(name, patterns):
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def without_optimiser(names):
    """The names that do not belong to an optimiser."""
    return [name for name in names if not matches(name, _OPTIMISER.split())]


def unknown(names, new_head):
    """Of names that no layer takes, those whose weights may change an answer; under a new head the encoder's alone."""
    return [
        name
        for name in without_optimiser(names)
        if not matches(name, _PRETRAINING.split()) and (not new_head or _ENCODER.search(name))
    ]
