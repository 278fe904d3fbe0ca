"""bert4keras in: Google's checkpoints through its name map, its models in memory, its weights in HDF5.

A model and an HDF5 file become {bert4keras layer: [arrays in its order]}, and that becomes our names. bert4keras itself
is imported only to read a Google checkpoint; HDF5 is read as plain arrays, never as a model, which could hold code.
"""

import h5py
import numpy as np

from keras_compress.backend import tf
from keras_compress.bert.config import BertConfig

_ACTIVATIONS = {"gelu_erf": "gelu", "gelu_tanh": "gelu_tanh", "relu": "relu"}


def layer_names(num_layers, albert=False):
    """{bert4keras layer: [our weights, in the order of its `get_weights`]}; an ALBERT has one layer for all."""
    names = {
        "Embedding-Token": ["word_embeddings/embeddings"],
        "Embedding-Segment": ["type_embeddings/embeddings"],
        "Embedding-Position": ["position_embeddings/embeddings"],
        "Embedding-Norm": ["embeddings_norm/beta", "embeddings_norm/gamma"],
        "Embedding-Mapping": ["embedding_projection/kernel", "embedding_projection/bias"],
        "Pooler-Dense": ["pooler/kernel", "pooler/bias"],
        "MLM-Dense": ["mlm_transform/kernel", "mlm_transform/bias"],
        "MLM-Norm": ["mlm_norm/beta", "mlm_norm/gamma"],
        "MLM-Bias": ["mlm_bias/bias"],
    }
    for i in range(1 if albert else num_layers):
        for theirs, dense, norm in (
            (
                "MultiHeadSelfAttention",
                ("query", "key", "value", "attention_output"),
                "attention_norm",
            ),
            ("FeedForward", ("intermediate", "output"), "output_norm"),
        ):
            theirs, ours = (
                f"Transformer-{theirs}" if albert else f"Transformer-{i}-{theirs}",
                f"layer_{i}_",
            )
            names[theirs] = [
                f"{ours}{part}/{kind}" for part in dense for kind in ("kernel", "bias")
            ]
            names[theirs + "-Norm"] = [f"{ours}{norm}/{kind}" for kind in ("beta", "gamma")]
    return names


def to_our_names(layers, config, num_labels, source="bert4keras"):
    """{bert4keras layer: [arrays]} to ours; the classifier is the one further Dense on the hidden states.

    Args:
        num_labels: width that the classifier must have; None leaves it out. source: named in the error.
    Returns:
        ({our name: array}, [names of layers left out]).
    Raises:
        ValueError: if there are further Dense layers and none can be the classifier.
    """
    names, tensors, left_out, heads = (
        layer_names(config.num_layers, config.sharing == "all"),
        {},
        [],
        {},
    )
    for layer, arrays in layers.items():
        arrays = [
            array for array in arrays if np.issubdtype(array.dtype, np.floating)
        ]  # no random state of dropout
        if len(arrays) == len(names.get(layer, ())):
            tensors.update(zip(names.get(layer, ()), arrays))
            continue
        left_out.append(layer)
        if (
            len(arrays) == 2
            and arrays[0].shape == (config.hidden_size, *arrays[1].shape)
            and layer[:4] not in ("NSP-", "MLM-")
        ):
            heads[layer] = arrays
    if heads and num_labels is not None:
        widths = {layer: len(bias) for layer, (_, bias) in heads.items()}
        if list(widths.values()) != [num_labels]:
            raise ValueError(
                f"{source}: the model must have one Dense of width {num_labels}, the number of labels, on "
                f"its hidden states. Received: {widths}. Give its labels, or load with `new_head`."
            )
        ((head, (tensors["classifier/kernel"], tensors["classifier/bias"])),) = heads.items()
        left_out.remove(head)
    return tensors, left_out


def read_google(prefix, config):
    """Reads a TensorFlow checkpoint with Google's variable names by bert4keras' name map and reader.

    Returns:
        ({our name: array}, [names of variables left out]).
    Raises:
        ValueError: naming the file, if it is not a whole checkpoint.
    """
    from bert4keras.models import ALBERT, BERT

    albert = config.sharing == "all"
    reader = (ALBERT if albert else BERT)(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        hidden_act=config.activation,
        max_position=config.max_position_embeddings,
    )
    ours, tensors = layer_names(config.num_layers, albert), {}
    try:
        left_out = {name for name, _ in tf.train.list_variables(str(prefix))}
        for layer, variables in reader.variable_mapping().items():
            for name, variable in zip(ours.get(layer, ()), variables):
                if variable in left_out:
                    tensors[name] = reader.load_variable(str(prefix), variable)
                    left_out.remove(variable)
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{prefix}: not a whole TensorFlow checkpoint ({str(error).splitlines()[0]}). "
            "Copy or download all its files again."
        ) from error
    return tensors, sorted(left_out)


def read_h5(path):
    """Reads {layer: [arrays]} from what bert4keras' `model.save_weights` wrote as HDF5 (often called .weights).

    Raises:
        ValueError: naming the file, if it is something else.
    """
    try:
        with h5py.File(path, "r") as file:
            layers = {
                name: [group[weight][()] for weight in group.attrs["weight_names"]]
                for name, group in file.get("model_weights", file).items()
                if "weight_names" in group.attrs
            }
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a whole HDF5 file ({error}). Copy it again.") from error
    if "Embedding-Token" not in layers:
        raise ValueError(
            f"{path}: bert4keras weights must be HDF5 with layers by name. Received: no layer "
            f"`Embedding-Token` among {list(layers)[:5]}. Save with model.save_weights('name.h5'), "
            "not 'name.weights.h5', or pass the model to `from_bert4keras`."
        )
    return layers


def read_model(model):
    """Reads a bert4keras BERT (or `albert_unshared`) in memory as (`BertConfig`, {layer: [arrays]}).

    Raises:
        ValueError: if the model is not a plain BERT of bert4keras.
    """
    layers = {layer.name: layer for layer in model.layers}
    num_layers = sum(name.endswith("-MultiHeadSelfAttention") for name in layers)
    optional = {"Embedding-Mapping", "Pooler-Dense", "MLM-Dense", "MLM-Norm", "MLM-Bias"}
    missing = sorted(layer_names(max(num_layers, 1)).keys() - optional - layers.keys())
    other = [
        name for name in layers if name.endswith(("-Mask", "-Attention-Bias", "-Relative-Position"))
    ]
    if missing or other:
        raise ValueError(
            "The model must be a plain BERT encoder of bert4keras. Received: one "
            + (f"without {', '.join(missing[:4])}." if missing else f"with {', '.join(other[:4])}.")
            + " An ALBERT, whose layers are one, is read from its checkpoint's folder."
        )
    token, attention = layers["Embedding-Token"], layers["Transformer-0-MultiHeadSelfAttention"]
    inner, pooler = layers["Transformer-0-FeedForward"], layers.get("Pooler-Dense")
    activations = (
        "+".join(f.__name__ for f in inner.activation),
        pooler.activation.__name__ if pooler else "tanh",
    )
    if activations[0] not in _ACTIVATIONS or activations[1] != "tanh":
        raise ValueError(
            f"The feed-forward activation must be one of {', '.join(_ACTIVATIONS)}, the pooler's tanh. "
            f"Received: {' and '.join(activations)}."
        )
    averaged = any(type(layer).__name__ == "GlobalAveragePooling1D" for layer in model.layers)
    narrow = (
        {"embedding_size": token.output_dim, "embedding_norm": "embedding"}
        if "Embedding-Mapping" in layers
        else {}
    )
    config = BertConfig(
        vocab_size=token.input_dim,
        hidden_size=attention.out_dim,
        num_layers=num_layers,
        num_heads=attention.heads,
        intermediate_size=inner.units,
        max_position_embeddings=layers["Embedding-Position"].input_dim,
        type_vocab_size=layers["Embedding-Segment"].input_dim,
        activation=_ACTIVATIONS[activations[0]],
        layer_norm_eps=layers["Embedding-Norm"].epsilon,
        attention_dropout=attention.attention_dropout or 0.0,
        dropout=layers["Embedding-Dropout"].rate if "Embedding-Dropout" in layers else 0.0,
        pooling="mean" if averaged else "pooler" if pooler else "cls",
        **narrow,
    )
    return config, {name: layer.get_weights() for name, layer in layers.items()}
