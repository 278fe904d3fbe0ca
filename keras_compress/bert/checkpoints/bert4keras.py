"""bert4keras' weights: an HDF5 file with bert_config.json and vocab.txt beside it, or a model in memory.

Both become {bert4keras layer: [arrays in its order]}, and that becomes this package's names. HDF5 is read as plain
arrays, never as a model, which could hold code.
"""

import re
from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np

from keras_compress.bert.answers import answers_of
from keras_compress.bert.checkpoints.names import matches, rows, variables
from keras_compress.bert.checkpoints.published import Checkpoint, published, read_config
from keras_compress.bert.checkpoints.unread import what_h5_is
from keras_compress.bert.config import BertConfig
from keras_compress.bert.encoder import INPUT_NAMES
from keras_compress.bert.tokenizer import Tokenizer, make_tokenizer, read_vocab
from keras_compress.files import check_memory

_ACTIVATIONS = {"gelu_erf": "gelu", "gelu_tanh": "gelu_tanh", "relu": "relu"}
# Between the encoder and the answer: what `load` knows, and what does nothing at inference.
_HEAD = (
    "Activation Dense Dropout GaussianDropout GaussianNoise GlobalAveragePooling1D Lambda "
    "SlicingOpLambda SpatialDropout1D"
).split()
# Keras' names of layers without weights that change what a classifier reads
_OTHER = re.compile(
    "(add|additive_attention|attention|average|concatenate|dot|flatten|maximum|minimum|multiply|permute|"
    r"reshape|subtract|(global_max|max|average)_pooling1d)(_\d+)?"
)
_UNLIKE = ("-Mask", "-Attention-Bias", "-Relative-Position")
# field of `BertConfig`, bert4keras' layer, its attribute
_SETTINGS = """
layer_norm_eps           Embedding-Norm                        epsilon
max_position_embeddings  Embedding-Position                    input_dim
type_vocab_size          Embedding-Segment                     input_dim
vocab_size               Embedding-Token                       input_dim
intermediate_size        Transformer-0-FeedForward             units
hidden_size              Transformer-0-MultiHeadSelfAttention  out_dim
num_heads                Transformer-0-MultiHeadSelfAttention  heads
"""


def recognises(source):
    path = Path(source)
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return path.suffix in (".h5", ".hdf5") or file.read(4) == b"\x89HDF"


def read(source, num_labels=0):
    """Reads what `model.save_weights` or `model.save` wrote as HDF5 (often called .weights).

    Args:
        num_labels: width of the one Dense that is the classifier, or 2 where a sigmoid follows one output; 0 or None: there
            is none to read.
    """
    path = Path(source)
    layers = _read_h5(path)
    _, config, _ = read_config(path.parent)
    num_rows = len(
        layers["Embedding-Token"][0]
    )  # the config may count all pieces, not those of `keep_tokens`
    config = config.replace(vocab_size=num_rows)
    weightless = [name for name, arrays in layers.items() if not arrays]
    if num_labels:
        other = [name for name in weightless if _OTHER.fullmatch(name)]
        if other:
            raise ValueError(
                f"{path}: between BERT and the answer may stand [CLS] or a mean, the pooler, dropout and one Dense. Received: "
                f"{', '.join(other)}. Load it with `new_head` (`--new-head`), and train a head without."
            )
    sigmoid = _has_one_output(layers, config, num_labels)
    weights = rename(layers, config, 1 if sigmoid else num_labels or None, path)
    checkpoint = published(config, path.parent, *weights)
    if num_rows < (num_pieces := len(checkpoint.tokenizer.vocab)):
        raise ValueError(
            f"{path}: the word table must have a row for each piece of the vocabulary. Received: {num_rows} rows and "
            f"{num_pieces} pieces. If `keep_tokens` left out some, write those that it kept into vocab.txt, one a line, in "
            "its order."
        )
    if any(name.startswith("global_average_pooling1d") for name in weightless):
        checkpoint = checkpoint._replace(config=checkpoint.config.replace(pooling="mean"))
    return checkpoint._replace(guessed=True, sigmoid=sigmoid)


def read_model(model, tokenizer, num_labels, ignored=()):
    """Reads a BERT (or `albert_unshared`) in memory; arguments as in `read` and `from_bert4keras`.

    Raises ValueError if the model is not a plain BERT of bert4keras, or a layer that is none of `_HEAD`, nor `ignored`,
    stands between it and the answer.
    """
    head = _behind_encoder(model)
    config = _config(model, head)
    for name, layer in head.items():
        kind, pretraining = type(layer).__name__, name.startswith(("MLM-", "NSP-"))
        known = kind in _HEAD or pretraining or matches(name, ignored)
        if num_labels is not None and not known:
            raise ValueError(
                "Between BERT and the answer may stand [CLS] or a mean, the pooler, dropout and one Dense. "
                f"Received: {kind} ({name}). Load the encoder alone and train a head without it: "
                "`new_head`; or name it in `ignore_weights`, if it changes no answer."
            )
    if hasattr(tokenizer, "_token_dict"):
        if tokenizer._pre_tokenize or tokenizer._token_translate:
            raise ValueError(
                "The tokenizer must be bert4keras' own. Received: one with `pre_tokenize` or "
                "`token_translate`, which change the ids. Make it without them, and train with it."
            )
        tokenizer = make_tokenizer("The tokenizer", tokenizer._token_dict, tokenizer._do_lower_case)
    elif not isinstance(tokenizer, Tokenizer):
        tokenizer = make_tokenizer(tokenizer, read_vocab(tokenizer))
    layers = {layer.name: layer.get_weights() for layer in model.layers}
    sigmoid = _has_one_output(layers, config, num_labels)
    weights = rename(layers, config, 1 if sigmoid else num_labels)
    return Checkpoint(config, tokenizer, *weights, sigmoid=sigmoid)


def _has_one_output(layers, config, num_labels):
    """Whether the classifier of two labels is one output, so that a sigmoid follows."""
    one_output = [(config.hidden_size, 1), (1,)]
    return num_labels == 2 and one_output in ([x.shape for x in y] for y in layers.values())


def rename(layers, config, num_labels, source="bert4keras"):
    """bert4keras' layers to this package's names; the classifier is the one further Dense on the hidden states.

    Args:
        layers: {bert4keras layer: [arrays]}.
        num_labels: width that the classifier must have; None leaves it out. source: named in the error.
    Returns:
        ({name: array}, [names of layers left out]). ValueError if no further Dense, or several, can be the classifier.
    """
    names, tensors, heads, left_out = defaultdict(list), {}, {}, []
    albert = config.sharing == "all"  # one layer for all, without a number
    for ours, _, theirs in rows(1 if albert else config.num_layers):
        theirs = theirs.replace("-0-", "-") if albert else theirs
        names[theirs] += [f"{ours}/{variable}" for variable in variables(ours)]
    for layer, arrays in layers.items():
        # dropout's random state is an integer
        arrays = [array for array in arrays if np.issubdtype(array.dtype, np.floating)]
        dense = len(arrays) == 2 and arrays[0].shape == (config.hidden_size, *arrays[1].shape)
        if len(arrays) == len(names[layer]):
            tensors |= zip(names[layer], arrays)
        elif num_labels is not None and dense and not layer.startswith(("NSP-", "MLM-")):
            heads[layer] = arrays
        else:
            left_out.append(layer)
    widths = {layer: len(bias) for layer, (_, bias) in heads.items()}
    if heads and [*widths.values()] != [num_labels]:
        raise ValueError(
            f"{source}: the model must have one Dense of width {num_labels}, the number of labels, on its hidden states. "
            f"Received: {widths}. Give all its labels in its order: `labels` (`--labels`), or load with `new_head` "
            "(`--new-head`)."
        )
    for arrays in heads.values():
        tensors |= zip(("classifier/kernel", "classifier/bias"), arrays)
    return tensors, left_out


def _read_h5(path):
    try:
        with h5py.File(path, "r") as file:
            groups = _inside(file, "model_weights") if "model_weights" in file else file
            found = {}
            for name in [*groups] if "Embedding-Token" in groups else ():
                group = _inside(groups, name)
                names = group.attrs.get("weight_names", ())
                found[name] = [_inside(group, weight) for weight in names]
            check_memory(sum(each.nbytes for group in found.values() for each in group), path)
            layers = {name: [weight[()] for weight in group] for name, group in found.items()}
            names = [*groups]
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a whole HDF5 file ({error}). Copy it again.") from error
    if "Transformer-0-FeedForward" not in layers and "Transformer-FeedForward" not in layers:
        raise ValueError(
            f"{path}: bert4keras weights must be HDF5 with layers by name. Received: {what_h5_is(names)}."
        )
    return layers


def _inside(group, name):
    """What a group holds under a name, its numbers in this very file. Raises KeyError if it leads elsewhere."""
    for part in (name.decode() if isinstance(name, bytes) else name).split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise KeyError(f"a link to elsewhere: {name!r:.80}")
        group = group[part]
    if isinstance(group, h5py.Dataset):
        # Numbers that were never written would be made up; deflate saves at most a factor of 1032.
        made_up = group.nbytes > 1100 * group.id.get_storage_size()
        if group.is_virtual or group.external or made_up:
            raise KeyError(f"numbers that are not in this file: {name!r:.80}")
    return group


def _behind_encoder(model):
    """{name: layer} of all layers between the encoder and the outputs."""
    found, tensors = {}, list(model.outputs)
    while tensors:
        layer, node, _ = tensors.pop()._keras_history
        if not layer.name.startswith(("Input-", "Embedding-", "Transformer-")):
            found[layer.name] = layer
            tensors += layer._inbound_nodes[node].keras_inputs
    return found


def differ(task_model, model):
    """Largest difference between the answers of a `TaskModel` and of the bert4keras model that it was made of.

    The texts are random ids, one of them padded. An answer is logits, or what they give.
    """
    ids = np.random.default_rng(0).integers(1, task_model.config.vocab_size, (2, 8))
    ids[1, 5:] = 0
    inputs = dict(zip(INPUT_NAMES, np.int32([ids, ids > 0, ids * 0])))
    theirs = model([ids, ids * 0], training=False).numpy()
    ours = task_model.model(inputs, training=False).numpy()
    if (theirs.shape[-1], ours.shape[-1]) == (1, 2):  # after a sigmoid, of the second label
        theirs = np.concatenate([1 - theirs, theirs], axis=-1)
    if theirs.shape != ours.shape:
        return np.inf
    gaps = [np.abs(answers - theirs) for answers in (ours, answers_of(task_model.task, ours))]
    return min(gap[ids > 0].max() if gap.ndim == 3 else gap.max() for gap in gaps)


def _config(model, head):
    layers = {layer.name: layer for layer in model.layers}
    settings = [line.split() for line in _SETTINGS.strip().splitlines()]
    missing = ["without " + name for _, name, _ in settings if name not in layers]
    other = ["with " + name for name in layers if name.endswith(_UNLIKE)]
    if missing or other:
        raise ValueError(
            f"The model must be a plain BERT encoder of bert4keras. Received: one {(missing + other)[0]}. "
            "Build the classifier on `model.output` of the encoder itself, whose layers have no prefix. An ALBERT, whose "
            "layers share all weights, is read from its checkpoint's folder."
        )
    fields = {field: getattr(layers[name], attribute) for field, name, attribute in settings}
    pooler, dropout = layers.get("Pooler-Dense"), layers.get("Embedding-Dropout")
    activation = "+".join(f.__name__ for f in layers["Transformer-0-FeedForward"].activation)
    pooler_activation = pooler.activation.__name__ if pooler else "tanh"
    if activation not in _ACTIVATIONS or pooler_activation != "tanh":
        raise ValueError(
            f"The feed-forward activation must be one of {', '.join(_ACTIVATIONS)}, the pooler's tanh. "
            f"Received: {activation} and {pooler_activation}."
        )
    if "Embedding-Mapping" in layers:
        fields["embedding_size"] = layers["Embedding-Token"].output_dim
        fields["embedding_norm"] = "embedding"
    averaged = any(type(layer).__name__ == "GlobalAveragePooling1D" for layer in head.values())
    return BertConfig(
        **fields,
        num_layers=sum(name.endswith("-MultiHeadSelfAttention") for name in layers),
        activation=_ACTIVATIONS[activation],
        attention_dropout=layers["Transformer-0-MultiHeadSelfAttention"].attention_dropout or 0.0,
        dropout=dropout.rate if dropout else 0.0,
        pooling="mean" if averaged else "pooler" if pooler else "cls",
    )
