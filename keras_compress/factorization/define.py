"""Narrow word table with an adapter: linear, MLP or DeFINE's HGT. Mehta et al., 2020 (DeFINE), arXiv:1911.12385.

The vector that an adapter makes depends on the word piece alone. So it can be computed for each token (a small file)
or for the whole vocabulary once and for all (`fold`: as fast as before, and as large). The encoder is as it was.

Equation map
    y = f(x), f the adapter, x a row of the narrow table     bert/adapter.py
    min sum_i w_i ||f(E')_i - E_i||^2 over the word pieces i, w from counts in the texts    fit_adapter
    E = f(E'), a plain table                                  fold
Departures
    The paper trains from scratch; fitting adapters to the table of a trained BERT is ours. Each of the three starts
    where the truncated SVD is, the best linear one: the MLP since x = gelu(x) - gelu(-x), the HGT since its last layer
    reads x, its other inputs at weight 0. Then table and adapter are fitted together, frequent word pieces more
    important than others unless `row_weights` is "none", and a short training recovers what it can. What the fit wins
    over the SVD is reported.
    Positions and types are added at width H, so that all but the word table stays the trained model's.
"""

import logging

import numpy as np

from keras_compress.backend import keras, tf
from keras_compress.bert.adapter import adapt
from keras_compress.bert.config import ADAPTERS
from keras_compress.bert.encoder import LayerStore, word_table
from keras_compress.bert.task_model import weights_of
from keras_compress.factorization.table import (
    check_wide_table,
    factorize_table,
    relative_error,
    row_importance,
)
from keras_compress.training.distill import check_recovery, recovered
from keras_compress.training.loop import Training, check_fit
from keras_compress.training.settings import is_whole

log = logging.getLogger(__name__)
TABLE, PROJECTION = "word_embeddings/embeddings", "embedding_projection/kernel"


def table_model(config, *, seed=0, layers=()):
    """The word table and its adapter alone, as a `keras.Model`: ids (n,) -> vectors (n, hidden)."""
    ids = keras.Input((), dtype="int32")
    get = LayerStore(config, 10_000 * seed, layers)
    return keras.Model(ids, adapt(get, word_table(get)(ids)))


def whole_table(model, vocab_size):
    """The table that a `table_model` stands for: float32 (V, H)."""
    return np.concatenate(
        [
            model(tf.range(first, min(first + 4096, vocab_size))).numpy()
            for first in range(0, vocab_size, 4096)
        ]
    )


def fit_adapter(
    config, table, num_steps=1000, importance=None, *, seed=0, learning_rate=1e-3, batch_size=1024
):
    """Narrow table and adapter that imitate a table.

    Args:
        config: `BertConfig` with the narrow `embedding_size` and the `adapter`.
        table: float (V, H). num_steps: updates by Adam, on `batch_size` rows each, drawn with replacement; the linear
            adapter needs none, since the SVD is the best there is.
        importance: float (V,), how much the squared error of each row counts: the fit draws rows that often.
    Returns:
        (weights {"layer/variable": array}, errors: {"table_error": relative error with all rows alike, "fit_error": with
        rows as important as asked, "svd_error": that one before the fit}).
    """
    narrow, projection, _ = factorize_table(table, config.table_size, importance)
    svd_error = relative_error(table, narrow @ projection, importance)
    model = table_model(config, seed=seed)
    if config.adapter == "mlp":  # x = gelu(x) - gelu(-x)
        model.get_layer("embedding_inner").set_weights(
            [
                np.concatenate([np.eye(len(projection)), -np.eye(len(projection))], axis=1),
                np.zeros(2 * len(projection)),
            ]
        )
        projection = np.concatenate([projection, -projection])
    elif config.adapter == "hgt":  # x, and nothing of the layers before
        rest = config.adapter_shapes[-1][0] - len(projection)
        projection = np.concatenate([projection, np.zeros((rest, config.hidden_size))])
    model.get_layer("word_embeddings").set_weights([narrow])
    model.get_layer("embedding_projection").set_weights([projection, np.zeros(config.hidden_size)])
    if config.adapter != "linear" and num_steps:
        scale = float(np.mean(np.square(table)))
        shares = np.cumsum(np.ones(len(table)) if importance is None else importance)
        rows = tf.data.Dataset.range(num_steps).map(
            lambda step: tf.searchsorted(
                shares,
                tf.random.stateless_uniform(
                    (batch_size,), (seed, step), maxval=shares[-1], dtype=tf.float64
                ),
                side="right",
            )
        )
        target = tf.constant(table, tf.float32)
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, num_steps)
        model.compile(
            keras.optimizers.Adam(rate),
            lambda true, found: tf.reduce_mean(tf.square(true - found)) / scale,
            jit_compile=False,
        )
        model.fit(rows.map(lambda ids: (ids, tf.gather(target, ids))), verbose=0)
    found = whole_table(model, len(table))
    return weights_of(model), {
        "table_error": relative_error(table, found),
        "svd_error": svd_error,
        "fit_error": relative_error(table, found, importance),
    }


def fold(task_model, *, seed=0):
    """The same model with a plain table of the encoder's width: what the adapter makes of each word piece.

    Returns:
        `TaskModel` that computes the same.
    Raises:
        ValueError: if the model has no adapter, or one that comes after positions and types.
    """
    config = task_model.config
    if not config.adapter_shapes or config.embedding_norm != "hidden" or task_model.task == "mlm":
        raise ValueError(
            "Only a narrow word table can be folded, if positions and types are added after its adapter, "
            "in a model that does not score words with it. Received: a table of width "
            f"{config.table_size} in an encoder of {config.hidden_size}, `embedding_norm` = "
            f"{config.embedding_norm!r}, task {task_model.task}. Leave `folded` out: it computes the same."
        )
    table = whole_table(table_model(config, layers=task_model.model.layers), config.vocab_size)
    return task_model.rebuilt(
        config.replace(embedding_size=None, adapter="linear"),
        {**task_model.weights(), TABLE: table},
        seed=seed,
    )


def compress(
    task_model,
    dataset,
    *,
    seed=0,
    training=Training(),
    embedding_size=128,
    adapter="hgt",
    fit_steps=1000,
    row_weights="counts",
    recover="distil",
    temperature=2.0,
    folded=False,
):
    """Replaces the word table of a trained model by a narrow one and an adapter; then recovers.

    Args:
        task_model: `TaskModel`; left as it is.
        embedding_size: width of the narrow table; for "hgt" a multiple of 8.
        adapter: "linear", "mlp" or "hgt". fit_steps: updates of the fit to the old table, before any text.
        row_weights: see `row_importance`.
        recover, temperature: see `distiller.recovered`.
        folded: give back a plain table of the old width: quick to look up, and as large as before.
    Returns:
        `TaskModel`; its history tells the errors of the table, see `fit_adapter`.
    Raises:
        ValueError: if the model has a narrow table already, or a setting is out of range.
    """
    check_fit(task_model, dataset)
    config = task_model.config
    check_wide_table(task_model, embedding_size)
    if adapter not in ADAPTERS or not is_whole(fit_steps, 0):
        raise ValueError(
            f"`adapter` must be one of {', '.join(ADAPTERS)}, `fit_steps` a whole number of 0 or more. "
            f"Received: {adapter!r} and {fit_steps!r}."
        )
    check_recovery(task_model, recover, temperature)
    narrow, weights = (
        config.replace(embedding_size=embedding_size, adapter=adapter),
        task_model.weights(),
    )
    with training.scope():
        importance = row_importance(row_weights, dataset, task_model.tokenizer)
        fitted, errors = fit_adapter(narrow, weights[TABLE], fit_steps, importance, seed=seed)
        small = task_model.rebuilt(narrow, weights | fitted, seed=seed)
    log.info(
        "word table of width %d, %s: relative error %.3f; in the fit's weights %.3f (SVD: %.3f)",
        embedding_size,
        adapter,
        *(errors[name] for name in ("table_error", "fit_error", "svd_error")),
    )
    small.history.append(
        {
            "method": "define",
            "seed": seed,
            "embedding_size": embedding_size,
            "adapter": adapter,
            "fit_steps": fit_steps,
            "row_weights": row_weights,
            **{name: round(error, 4) for name, error in errors.items()},
            "recover": recover,
            "temperature": temperature,
            "folded": folded,
        }
    )
    small = recovered(
        task_model, small, dataset, recover, temperature, seed=seed, training=training
    )
    return fold(small, seed=seed) if folded else small
