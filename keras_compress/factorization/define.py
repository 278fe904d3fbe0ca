"""Narrow word table with an adapter: linear, MLP or DeFINE's HGT. Mehta et al., 2020, arXiv:1911.12385.

The vector that an adapter makes depends on the word piece alone. So it can be computed for each token
(a small file), or once for the whole vocabulary (`fold`: as fast and as large as before).

Equation map
    y = f(x), f the adapter, x a row of the narrow table                           bert/adapter.py
    min sum_i w_i ||f(E')_i - E_i||^2 over word pieces i, w from their counts      fit_adapter
    E = f(E'), a plain embedding matrix                                            fold
Departures
    The paper trains from scratch; fitting an adapter to a trained BERT's matrix is this library's
    addition. Each adapter starts where the truncated SVD is, the best linear one: the MLP since
    x = gelu(x) - gelu(-x), the HGT since its last layer reads x, its other inputs at weight 0.
    Table and adapter are then fitted together; frequent pieces count more, unless `row_weights` is
    "none". No text is read: let `finetune` or `soft_targets` recover what was lost.
    Positions and types are added at width H, so that all but the word table stays the trained model's.
    Widths of the HGT: n + n l / (N - 1) for l < N, a multiple of 8. The authors' code has
    n + n l / N, a multiple of max(g_l, g_(l+1), 8), behind a dense layer n -> n_proj.
    Norm of the HGT: over the whole vector, where the authors' code normalises each group alone.
    It also has dropout 0.1 after each layer, which a fit to a matrix does without.
"""

import logging
from typing import Literal

import numpy as np

from keras_compress.backend import keras, tf
from keras_compress.bert.adapter import adapt
from keras_compress.bert.encoder import LayerStore, word_table
from keras_compress.bert.task_model import weights_of
from keras_compress.factorization.table import (
    check_wide_table,
    factorize_table,
    relative_error,
    row_importance,
)
from keras_compress.method import Count, Whole, compression, note
from keras_compress.training.settings import Training

log = logging.getLogger(__name__)
TABLE = "word_embeddings/embeddings"


def table_model(config, *, seed=0, layers=()):
    """The word table and its adapter alone, as a `keras.Model`: ids (n,) -> vectors (n, hidden)."""
    ids = keras.Input((), dtype="int32")
    get = LayerStore(config, 10_000 * seed, layers)
    return keras.Model(ids, adapt(get, word_table(get)(ids)))


def whole_table(model, vocab_size):
    """The embedding matrix that a `table_model` stands for: float32 (V, H)."""
    return np.concatenate([model(ids) for ids in tf.data.Dataset.range(vocab_size).batch(4096)])


def fit_adapter(
    config, table, num_steps=1000, importance=None, *, seed=0, learning_rate=1e-3, batch_size=1024
):
    """Narrow table and adapter that imitate an embedding matrix.

    Args:
        config: `BertConfig` with the narrow `embedding_size` and the `adapter`.
        table: float (V, H). num_steps: updates by Adam. The linear adapter needs none: the SVD is the
            best there is. batch_size: rows of an update, drawn with replacement.
        importance: float (V,), weights of the rows' squared errors: rows are drawn that often.
    Returns:
        (weights {"layer/variable": array}, relative errors: {"table_error": all rows alike,
        "fit_error": weighted by `importance`, "svd_error": the same before the fit}).
    """
    narrow, projection, _ = factorize_table(table, config.table_size, importance)
    svd_error = relative_error(table, narrow @ projection, importance)
    model, size = table_model(config, seed=seed), len(projection)
    if config.adapter == "mlp":  # x = gelu(x) - gelu(-x)
        both = np.concatenate([np.eye(size), -np.eye(size)], axis=1)
        model.get_layer("embedding_inner").set_weights([both, np.zeros(2 * size)])
        projection = np.concatenate([projection, -projection])
    elif config.adapter == "hgt":  # x, and nothing of the layers before
        rest = config.adapter_shapes[-1][0] - size
        projection = np.concatenate([projection, np.zeros((rest, config.hidden_size))])
    model.get_layer("word_embeddings").set_weights([narrow])
    model.get_layer("embedding_projection").set_weights([projection, np.zeros(config.hidden_size)])
    if config.adapter != "linear" and num_steps:
        shares = np.cumsum(np.ones(len(table)) if importance is None else importance)
        target, scale = tf.constant(table, tf.float32), float(np.mean(np.square(table)))

        def draw(step):
            uniform = tf.random.stateless_uniform
            point = uniform((batch_size,), (seed, step), maxval=shares[-1], dtype=tf.float64)
            ids = tf.searchsorted(shares, point, side="right")
            return ids, tf.gather(target, ids)

        def loss(true, fitted):
            return tf.reduce_mean(tf.square(true - fitted)) / scale

        rate = keras.optimizers.schedules.CosineDecay(learning_rate, num_steps)
        model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
        model.fit(tf.data.Dataset.range(num_steps).map(draw), verbose=0)
    fitted = whole_table(model, len(table))
    return weights_of(model), {
        "table_error": relative_error(table, fitted),
        "svd_error": svd_error,
        "fit_error": relative_error(table, fitted, importance),
    }


@compression(data="any", trained_head=False, bert=True, trains=False)
def fold(task_model, dataset, *, seed=0, training=Training()):
    """Gives a model with an adapter a plain embedding matrix: quick to look up, and large. It computes the same.

    Args:
        task_model: of `define` or `albert`, its recovery included. dataset: not read.
    Returns:
        `TaskModel` that computes the same.
    """
    config = task_model.config
    if not config.adapter_shapes or config.embedding_norm != "hidden" or task_model.task == "mlm":
        raise ValueError(
            "A narrow word table can be folded if positions and types are added after its adapter, and "
            f"if it scores no words. Received: width {config.table_size} in layers of "
            f"{config.hidden_size}, `embedding_norm` = {config.embedding_norm!r}, task {task_model.task}. "
            "Leave it as it is: it computes the same."
        )
    table = whole_table(table_model(config, layers=task_model.model.layers), config.vocab_size)
    wide = config.replace(embedding_size=None, adapter="linear")
    return task_model.rebuilt(wide, {**task_model.weights(), TABLE: table}, seed=seed)


@compression(trained_head=False, bert=True, trains=False, seeded=True)
def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    embedding_size: Count = 128,
    adapter: Literal["linear", "mlp", "hgt"] = "hgt",
    fit_steps: Whole = 1000,
    row_weights: Literal["counts", "none"] = "counts",
):
    """Replaces the embedding matrix of a trained model by a narrow word table and an adapter.

    Args:
        embedding_size: width of the narrow table; for "hgt" a multiple of 8.
        fit_steps: updates of the fit to the matrix. row_weights: see `row_importance`.
    Returns:
        `TaskModel`; its history tells the errors of the table, see `fit_adapter`.
    """
    check_wide_table(task_model, embedding_size)
    narrow = task_model.config.replace(embedding_size=embedding_size, adapter=adapter)
    importance = row_importance(row_weights, dataset, task_model.tokenizer)
    weights = task_model.weights()
    fitted, errors = fit_adapter(narrow, weights[TABLE], fit_steps, importance, seed=seed)
    note(**{name: round(error, 4) for name, error in errors.items()})
    log.info("word table of width %d, %s: relative errors %s", embedding_size, adapter, errors)
    return task_model.rebuilt(narrow, weights | fitted, seed=seed)
