"""The best narrow word table: truncated SVD (Eckart & Young, 1936)."""
import numpy as np

from keras_compress.settings import is_whole
from keras_compress.training import check_not_quantized


def check_wide_table(task_model, embedding_size):
    """Raises ValueError unless the word table of a model can be replaced by one of width E and a projection."""
    check_not_quantized(task_model)
    config, task = task_model.config, task_model.task
    if not is_whole(embedding_size, 1, config.hidden_size - 1):
        raise ValueError(f"`embedding_size` must be 1 to {config.hidden_size - 1}, below the hidden size. "
                         f"Received: {embedding_size!r}.")
    if config.architecture != "bert" or config.adapter_shapes or config.embedding_norm != "hidden" or task == "mlm":
        raise ValueError("Only a BERT has a word table to make narrow, as wide as its layers, normalised at that width "
                         f"and not scoring words. Received: a {config.architecture} with a table of width "
                         f"{config.table_size} in layers of {config.hidden_size}, `embedding_norm` = "
                         f"{config.embedding_norm!r}, task {task}. Take the model that this one was made from; of a "
                         "masked-LM model, load it with the task and labels of your data.")


def factorize_table(table, size, counts=None):
    """Best factors of rank E: table ~ narrow @ projection, by truncated SVD.

    Args:
        table: float (V, H). size: E, 1 to min(V, H).
        counts: (V,), how often each piece occurs. The squared error of a row then counts count / mean + 1 times, so that
            frequent pieces lose less and those never seen are not given up; None: all rows count alike.
    Returns:
        (narrow (V, E), projection (E, H), relative error: norm of the rest over norm of the table).
    Raises:
        ValueError: if E is out of range.
    """
    if not 1 <= size <= min(table.shape):
        raise ValueError(f"`embedding_size` must be 1 to {min(table.shape)}, the smaller side of the word table. "
                         f"Received: {size}.")
    table, weights = table.astype(np.float64), np.ones((len(table), 1))
    if counts is not None:
        weights = np.sqrt(counts / max(np.mean(counts), 1e-30) + 1.0)[:, None]
    u, s, v = np.linalg.svd(weights * table, full_matrices=False)
    narrow, projection = u[:, :size] * s[:size] / weights, v[:size]
    error = np.linalg.norm(table - narrow @ projection) / max(np.linalg.norm(table), 1e-15)
    return narrow.astype(np.float32), projection.astype(np.float32), float(error)
