"""The best narrow word table: truncated SVD (Eckart & Young, 1936)."""
import numpy as np


def factorize_table(table, size):
    """Best factors of rank E: table ~ narrow @ projection, by truncated SVD.

    Args:
        table: float (V, H). size: E, 1 to min(V, H).
    Returns:
        (narrow (V, E), projection (E, H), relative error: norm of the rest over norm of the table).
    Raises:
        ValueError: if E is out of range.
    """
    if not 1 <= size <= min(table.shape):
        raise ValueError(f"`embedding_size` must be 1 to {min(table.shape)}, the smaller side of the word table. "
                         f"Received: {size}.")
    u, s, v = np.linalg.svd(table.astype(np.float64), full_matrices=False)
    error = np.sqrt((s[size:] ** 2).sum() / max((s ** 2).sum(), 1e-30))
    return (u[:, :size] * s[:size]).astype(np.float32), v[:size].astype(np.float32), float(error)
