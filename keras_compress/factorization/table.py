"""The best narrow embedding matrix: truncated SVD (Eckart & Young, 1936), weighted by row.

Equation map
    min ||E - N P||, N (V, E), P (E, H)       factorize_table: N = E P^T, P the first right singular vectors
    the same with ||.|| weighted by row       the SVD of sqrt(w) E; N = E P^T as before
"""

import numpy as np


def row_importance(row_weights, dataset, tokenizer):
    """How much the squared error of each row of the embedding matrix counts.

    Args:
        row_weights: "counts": count / mean count + 1 over the training texts. Frequent pieces lose
            less, and those never seen are not given up. "none": all rows alike.
    Returns:
        float (V,), or None for "none".
    """
    if row_weights == "none":
        return None
    counts = dataset.piece_counts(tokenizer)
    return counts / max(np.mean(counts), 1e-30) + 1.0


def check_wide_table(task_model, embedding_size):
    """Raises ValueError unless a narrow matrix and a projection can replace a model's embedding matrix."""
    config, task = task_model.config, task_model.task
    if config.adapter_shapes or config.embedding_norm != "hidden" or task == "mlm":
        raise ValueError(
            "The embedding matrix must be as wide as the layers, be normalised at that width, and "
            f"score no words. Received: width {config.table_size} in layers of {config.hidden_size}, "
            f"`embedding_norm` = {config.embedding_norm!r}, task {task}. Take the model that this was "
            "made from; load a masked-LM model with the task and labels of your data."
        )
    if embedding_size >= config.hidden_size:
        raise ValueError(
            f"`embedding_size` must be below the hidden size, {config.hidden_size}. "
            f"Received: {embedding_size}. Lower it."
        )


def factorize_table(table, size, importance=None):
    """Best factors of rank E: table ~ narrow @ projection, by truncated SVD.

    Each row is projected as it is; the importance of rows decides which directions are kept.

    Args:
        table: float (V, H). size: E, 1 to min(V, H).
        importance: float (V,), 0 or more, weights of the rows' squared errors; None: all alike.
    Returns:
        (narrow (V, E), projection (E, H), relative error with all rows alike).
    """
    table = table.astype(np.float64)
    rows = table if importance is None else np.sqrt(importance)[:, None] * table
    projection = np.linalg.svd(rows, full_matrices=False)[2][:size]
    narrow = table @ projection.T
    error = relative_error(table, narrow @ projection)
    return narrow.astype(np.float32), projection.astype(np.float32), error


def relative_error(table, approximation, importance=None):
    """Norm of the difference over norm of the table. `importance` (V,) weights rows; None: all alike."""
    rest, whole = (
        np.average(np.square(rows).sum(axis=1), weights=importance)
        for rows in (table - approximation, table)
    )
    return float(np.sqrt(rest / max(whole, 1e-30)))
