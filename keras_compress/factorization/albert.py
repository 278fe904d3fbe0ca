"""ALBERT's two savings on a trained BERT: a factorised word table, shared layers. Lan et al., 2020, arXiv:1909.11942.

Both save bytes, and neither saves time: as many layers are computed as before, and one small product more.

Equation map
    Sec. 3.1   V x H  ->  V x E + E x H                                      factorize (encoder.embed)
    Sec. 3.1   cross-layer sharing: all, attention, feed-forward, none       share_layers (BertConfig.owner)
    released code   groups of layers: group(l) = floor(l / L * G)            BertConfig.owner
    Sec. 3.1, 4.1   sentence order, n-gram masks                              pretraining.py, datasets/
Departures
    The paper trains from scratch; turning a trained BERT into an ALBERT is ours. The factors start from the trained
    table by truncated SVD, shared weights from the mean of their layers (or the first one's); then a short training,
    on labels or on the original's answers, recovers what it can. The SVD is weighted by how often pieces occur, unless
    `row_weights` is "none": the error of the table grows, and that of the model shrinks (data/results).
    Positions and types are added after the projection, at width H, and normalised there (embedding_norm="hidden"), so
    that all but the word table stays the trained model's. The paper's order is embedding_norm="embedding".
    A shared part includes its LayerNorm.
"""

import logging

import numpy as np

from keras_compress.bert.config import SHARINGS
from keras_compress.bert.encoder import split_name
from keras_compress.factorization.table import check_wide_table, factorize_table, row_importance
from keras_compress.training.distill import check_recovery, recovered
from keras_compress.training.loop import Training, check_fit, check_not_quantized
from keras_compress.training.settings import check_choice

log = logging.getLogger(__name__)
HOW = ("mean", "first")


def factorize(task_model, embedding_size, importance=None, *, seed=0):
    """The same model with a word table of width E and a projection; its history does not tell, `compress` does.

    Args:
        importance: how much each row of the table counts, see `row_importance`; None: the plain SVD.
    Returns:
        (`TaskModel`, relative error of the table).
    Raises:
        ValueError: see `check_wide_table`.
    """
    config = task_model.config
    check_wide_table(task_model, embedding_size)
    weights = task_model.weights()
    narrow, projection, error = factorize_table(
        weights["word_embeddings/embeddings"], embedding_size, importance
    )
    weights |= {
        "word_embeddings/embeddings": narrow,
        "embedding_projection/kernel": projection,
        "embedding_projection/bias": np.zeros(config.hidden_size, np.float32),
    }
    narrowed = config.replace(embedding_size=embedding_size, adapter="linear")
    return task_model.rebuilt(narrowed, weights, seed=seed), error


def share_layers(task_model, sharing, num_groups=1, how="mean", *, seed=0):
    """The same model with weights shared between neighbouring layers; its history does not tell, `compress` does.

    Args:
        sharing: "all", "attention" or "ffn". num_groups: G, groups of layers that share.
        how: a group's weights start as the "mean" of its layers' or as its "first" layer's.
    Returns:
        `TaskModel`.
    Raises:
        ValueError: if the layers cannot be shared so.
    """
    check_choice("sharing", sharing, SHARINGS[1:])
    check_choice("how", how, HOW)
    check_not_quantized(task_model)
    before, layers = task_model.config, range(task_model.config.num_layers)
    if before.sharing != "none" or before.architecture != "bert":
        raise ValueError(
            "Layers can be shared in a BERT that shares none yet. "
            f"Received: a {before.architecture}, sharing {before.sharing}. Take a BERT whose layers "
            "have weights of their own."
        )
    config, ours = before.replace(sharing=sharing, num_groups=num_groups), task_model.weights()
    if num_groups == len(layers):
        fewer = ", ".join(str(n) for n in range(1, num_groups) if num_groups % n == 0)
        raise ValueError(
            "`num_groups` must be below the number of layers, or nothing is shared. Received: "
            f"{num_groups} and {len(layers)}. {f'Choose {fewer}' if fewer else 'One layer cannot share'}."
        )
    weights = {name: array for name, array in ours.items() if not name.startswith("layer_")}
    for name in ours.keys() - weights.keys():
        owner, part, rest = split_name(name)
        if config.owner(owner, part) == owner:
            group = [
                ours[f"layer_{layer}_{rest}"]
                for layer in layers
                if config.owner(layer, part) == owner
            ]
            weights[name] = np.mean(group, axis=0) if how == "mean" else group[0]
    return task_model.rebuilt(config, weights, seed=seed)


def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    embedding_size=None,
    sharing="none",
    num_groups=1,
    how="mean",
    row_weights="counts",
    recover="distil",
    temperature=2.0,
):
    """Factorises the word table of a trained model, or shares its layers, or both; then recovers.

    Args:
        task_model: `TaskModel`; left as it is.
        embedding_size: E; None leaves the table. row_weights: see `row_importance`; "none" is the plain SVD.
        sharing, num_groups, how: see `share_layers`; "none" leaves the layers.
        recover, temperature: see `recovered`.
    Returns:
        `TaskModel`.
    Raises:
        ValueError: if nothing is asked for, or a setting is out of range.
    """
    check_fit(task_model, dataset)
    if sharing == "none" and (embedding_size is None or (num_groups, how) != (1, "mean")):
        raise ValueError(
            "`embedding_size` or `sharing` must be given; `num_groups` and `how` belong to `sharing`. "
            f"Received: {embedding_size}, {sharing!r}, {num_groups!r} and {how!r}."
        )
    if embedding_size is None and row_weights != "counts":
        raise ValueError(
            f"`row_weights` belongs to `embedding_size`. Received: {row_weights!r} without it."
        )
    check_recovery(task_model, recover, temperature)
    if embedding_size is not None:
        check_wide_table(task_model, embedding_size)
    error = None
    with training.scope():
        small = (
            task_model
            if sharing == "none"
            else share_layers(task_model, sharing, num_groups, how, seed=seed)
        )
        if embedding_size is not None:
            importance = row_importance(row_weights, dataset, task_model.tokenizer)
            small, error = factorize(small, embedding_size, importance, seed=seed)
            log.info("word table of width %d: relative error %.3f", embedding_size, error)
    small.history.append(
        {
            "method": "albert",
            "seed": seed,
            "embedding_size": embedding_size,
            "sharing": sharing,
            "num_groups": num_groups,
            "how": how,
            "row_weights": embedding_size and row_weights,
            "table_error": error and round(error, 4),
            "recover": recover,
            "temperature": temperature,
        }
    )
    return recovered(task_model, small, dataset, recover, temperature, seed=seed, training=training)
