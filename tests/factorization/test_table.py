from types import SimpleNamespace

import numpy as np
import pytest

from keras_compress.factorization.table import factorize_table, relative_error, row_importance


def table(shape=(20, 8), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) ** 3


def test_by_hand():
    # singular values 6, 3, 2: without the last sqrt(4 / (36 + 9 + 4)) = 2 / 7 is lost
    narrow, projection, error = factorize_table(np.diag([3.0, 2.0, 6.0]), 2)
    np.testing.assert_allclose(narrow @ projection, np.diag([3.0, 0.0, 6.0]), atol=1e-6)
    assert error == pytest.approx(2 / 7)


@pytest.mark.parametrize("shape", [(20, 8), (8, 20), (9, 9)])
def test_the_error_is_the_tail_of_the_singular_values(shape):
    whole, errors = table(shape), []
    values = np.linalg.svd(whole, compute_uv=False)
    for size in range(1, min(shape) + 1):
        narrow, projection, error = factorize_table(whole, size)
        assert narrow.shape == (shape[0], size) and projection.shape == (size, shape[1])
        assert error == pytest.approx(relative_error(whole, narrow @ projection), abs=1e-5)
        tail = np.sqrt((values[size:] ** 2).sum() / (values**2).sum())
        assert error == pytest.approx(tail, abs=1e-5)
        errors.append(error)
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.3 and errors[-1] < 1e-9
    np.testing.assert_allclose(projection @ projection.T, np.eye(size), atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_no_other_factors_of_that_rank_come_nearer(size):
    """Eckart & Young. For a fixed projection the best narrow table is a least-squares fit."""
    whole, random = table(), np.random.default_rng(1)
    _, projection, error = factorize_table(whole, size)
    others = [random.normal(size=projection.shape) for _ in range(50)]  # anywhere, and close by
    for step in (1e-3, 1e-2, 1e-1):
        others += [projection + step * random.normal(size=projection.shape) for _ in range(50)]
    errors = [relative_error(whole, whole @ np.linalg.pinv(other) @ other) for other in others]
    assert min(errors) >= error - 1e-6 and max(errors) > error + 1e-3


def test_rows_that_count_more_lose_less():
    def importance(counts):
        dataset = SimpleNamespace(piece_counts=lambda tokenizer: counts)
        return row_importance("counts", dataset, None)

    whole, counts = table((40, 8)), np.where(np.arange(40) < 3, 100, 0)
    weights = importance(counts)
    np.testing.assert_allclose(weights, counts / 7.5 + 1)  # mean count 3 * 100 / 40
    assert row_importance("none", None, None) is None
    results = [factorize_table(whole, 4), factorize_table(whole, 4, weights)]
    plain, weighted = (narrow @ projection for narrow, projection, _ in results)
    errors = [((whole - near) ** 2).sum(axis=1) for near in (plain, weighted)]
    assert errors[1][:3].sum() < 0.8 * errors[0][:3].sum() and errors[1].sum() > errors[0].sum()
    assert weights @ errors[1] < weights @ errors[0]  # Eckart and Young, of the weighted matrix
    for alike in (np.zeros(40), np.full(40, 7)):
        near = np.matmul(*factorize_table(whole, 4, importance(alike))[:2])
        np.testing.assert_allclose(near, plain, atol=1e-5)
