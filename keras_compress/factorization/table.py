"""The best narrow word table: truncated SVD (Eckart & Young, 1936), of rows that may count more or less."""

import numpy as np

from keras_compress.training.loop import check_not_quantized
from keras_compress.training.settings import check_choice, is_whole

ROW_WEIGHTS = ("counts", "none")


def row_importance(row_weights, dataset, tokenizer):
    """How much the squared error of each row of the word table counts.

    Args:
        row_weights: "counts": count / mean count + 1 over the training texts, so that frequent pieces lose less and
            those never seen are not given up; "none": all alike.
    Returns:
        float (V,), or None for "none".
    Raises:
        ValueError: for another word.
    """
    check_choice("row_weights", row_weights, ROW_WEIGHTS)
    if row_weights == "none":
        return None
    counts = dataset.piece_counts(tokenizer)
    return counts / max(np.mean(counts), 1e-30) + 1.0


def check_wide_table(task_model, embedding_size):
    """Raises ValueError unless the word table of a model can be replaced by one of width E and a projection."""
    check_not_quantized(task_model)
    config, task = task_model.config, task_model.task
    if not is_whole(embedding_size, 1, config.hidden_size - 1):
        raise ValueError(
            f"`embedding_size` must be 1 to {config.hidden_size - 1}, below the hidden size. "
            f"Received: {embedding_size!r}."
        )
    if (
        config.architecture != "bert"
        or config.adapter_shapes
        or config.embedding_norm != "hidden"
        or task == "mlm"
    ):
        raise ValueError(
            "Only a BERT has a word table to make narrow, as wide as its layers, normalised at that width "
            f"and not scoring words. Received: a {config.architecture} with a table of width "
            f"{config.table_size} in layers of {config.hidden_size}, `embedding_norm` = "
            f"{config.embedding_norm!r}, task {task}. Take the model that this one was made from; of a "
            "masked-LM model, load it with the task and labels of your data."
        )


def factorize_table(table, size, importance=None):
    """Best factors of rank E: table ~ narrow @ projection, by truncated SVD.

    Each row is projected as it is; how much rows count decides which directions are kept.

    Args:
        table: float (V, H). size: E, 1 to min(V, H).
        importance: float (V,), 0 or more: how much the squared error of each row counts; None: all rows alike.
    Returns:
        (narrow (V, E), projection (E, H), relative error: norm of the rest over norm of the table, all rows alike).
    Raises:
        ValueError: if E is out of range.
    """
    if not 1 <= size <= min(table.shape):
        raise ValueError(
            f"`embedding_size` must be 1 to {min(table.shape)}, the smaller side of the word table. "
            f"Received: {size}."
        )
    table = table.astype(np.float64)
    rows = table if importance is None else np.sqrt(importance)[:, None] * table
    projection = np.linalg.svd(rows, full_matrices=False)[2][:size]
    narrow = table @ projection.T
    return (
        narrow.astype(np.float32),
        projection.astype(np.float32),
        relative_error(table, narrow @ projection),
    )


def relative_error(table, found, importance=None):
    """Norm of the rest over norm of the table, squared errors of rows counted as `importance` (V,) says; None: alike."""
    rest, whole = (
        np.average(np.square(each).sum(axis=1), weights=importance)
        for each in (table - found, table)
    )
    return float(np.sqrt(rest / max(whole, 1e-30)))
