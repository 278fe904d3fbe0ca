"""ALBERT's two savings on a trained BERT: a factorised embedding matrix, shared layers. Lan et al., 2020, arXiv:1909.11942.

Both save bytes, and neither saves time: as many layers are computed as before, and one small product more.

Equation map
    Sec. 3.1   factorized embedding parameterization: V x H -> V x E + E x H         factorize
    Sec. 3.1   cross-layer parameter sharing: all, attention, feed-forward, none     share_layers
    released code   groups of layers: group(l) = floor(l / L * G)                    BertConfig.owner
    Sec. 3.1, 4.1   sentence order, n-gram masks                                     pretraining/
Departures
    The paper trains from scratch; turning a trained BERT into an ALBERT is this library's addition.
    The factors start from the truncated SVD of the trained matrix. Shared weights start from the mean
    of their layers, or from the first layer. Nothing is trained here: let `finetune` or
    `soft_targets` recover what was lost.
    The SVD is weighted by how often pieces occur, unless `row_weights` is "none". The matrix's error
    grows, and the model's shrinks (data/results).
    Positions and types are added after the projection, at width H, and normalised there
    (embedding_norm="hidden"). So all but the word table stays the trained model's. The paper's order
    is embedding_norm="embedding".
    A shared part includes its LayerNorm.
"""

import collections
import logging
from typing import Literal

import numpy as np

from keras_compress.bert.encoder import split_name
from keras_compress.factorization.table import check_wide_table, factorize_table, row_importance
from keras_compress.method import Count, compression, note
from keras_compress.training.settings import Training

log = logging.getLogger(__name__)


def factorize(task_model, embedding_size, importance=None, *, seed=0):
    """The same model with an embedding matrix of width E and a projection.

    Args:
        importance: how much each row of the matrix counts, see `row_importance`; None: all alike.
    Returns:
        (`TaskModel`, relative error of the matrix).
    Raises:
        ValueError: see `check_wide_table`.
    """
    check_wide_table(task_model, embedding_size)
    name, weights = "word_embeddings/embeddings", task_model.weights()
    narrow, projection, error = factorize_table(weights[name], embedding_size, importance)
    weights |= {name: narrow, "embedding_projection/kernel": projection}
    weights["embedding_projection/bias"] = np.zeros(projection.shape[1], np.float32)
    config = task_model.config.replace(embedding_size=embedding_size, adapter="linear")
    return task_model.rebuilt(config, weights, seed=seed), error


def share_layers(task_model, sharing, num_groups=1, how="mean", *, seed=0):
    """The same model with weights shared between neighbouring layers.

    Args:
        sharing: "all", "attention" or "ffn". num_groups: G, groups of layers that share.
        how: a group's weights start as the "mean" of its layers' or as its "first" layer's.
    Returns:
        `TaskModel`.
    Raises:
        ValueError: if the layers cannot be shared so.
    """
    layers, before = task_model.config.num_layers, task_model.weights()
    if task_model.config.sharing != "none" or num_groups == layers:
        raise ValueError(
            "Layers can be shared if each has weights of its own, and more than one belongs to a group. "
            f"Received: sharing {task_model.config.sharing}, `num_groups` {num_groups} of {layers} layers. "
            "Take a BERT that shares nothing yet, and fewer groups."
        )
    config = task_model.config.replace(sharing=sharing, num_groups=num_groups)
    groups = collections.defaultdict(list)
    for name, array in before.items():
        if name.startswith("layer_"):
            layer, part, rest = split_name(name)
            name = f"layer_{config.owner(layer, part)}_{rest}"
        groups[name].append(array)
    weights = {
        name: np.mean(group, axis=0) if how == "mean" else group[0]
        for name, group in groups.items()
    }
    return task_model.rebuilt(config, weights, seed=seed)


@compression(trained_head=False, bert=True, trains=False)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    embedding_size: Count | None = None,
    sharing: Literal["none", "all", "attention", "ffn"] = "none",
    num_groups: Count = 1,
    how: Literal["mean", "first"] = "mean",
    row_weights: Literal["counts", "none"] = "counts",
):
    """Factorises the embedding matrix of a trained model, or shares its layers, or both.

    Args:
        embedding_size: E; None leaves the matrix. row_weights: see `row_importance`.
        sharing, num_groups, how: see `share_layers`; "none" leaves the layers.
    Returns:
        `TaskModel`; its history tells the relative error of the matrix.
    """
    narrows, shares = embedding_size is not None, sharing != "none"
    belongs = (narrows or row_weights == "counts") and (shares or (num_groups, how) == (1, "mean"))
    if not belongs or not (narrows or shares):
        raise ValueError(
            "`embedding_size` or `sharing` must be given; `row_weights` belongs to the first, `num_groups` "
            f"and `how` to the second. Received: {embedding_size}, {sharing}, {row_weights}, {num_groups} "
            f"and {how}. Leave out what does not belong."
        )
    small, error = task_model, None
    if shares:
        small = share_layers(small, sharing, num_groups, how, seed=seed)
    if narrows:
        importance = row_importance(row_weights, dataset, task_model.tokenizer)
        small, error = factorize(small, embedding_size, importance, seed=seed)
        log.info("embedding matrix of width %d: relative error %.3f", embedding_size, error)
    note(table_error=error and round(error, 4))
    return small
