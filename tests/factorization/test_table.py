from types import SimpleNamespace

import numpy as np
import pytest

from keras_compress.factorization.table import factorize_table, row_importance

SHAPES = [(20, 8), (8, 20), (9, 9)]


def table(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) ** 3


def relative(rest, whole):
    return np.linalg.norm(rest) / np.linalg.norm(whole)


def test_by_hand():
    # singular values 6, 3, 2: without the last one sqrt(4 / (36 + 9 + 4)) = 2 / 7 is lost
    narrow, projection, error = factorize_table(np.diag([3.0, 2.0, 6.0]), 2)
    np.testing.assert_allclose(narrow @ projection, np.diag([3.0, 0.0, 6.0]), atol=1e-6)
    assert error == pytest.approx(2 / 7)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_is_the_rest_and_the_tail_and_falls_to_nothing(shape):
    whole, errors = table(shape), []
    values = np.linalg.svd(whole, compute_uv=False)
    for size in range(1, min(shape) + 1):
        narrow, projection, error = factorize_table(whole, size)
        assert narrow.shape == (shape[0], size) and projection.shape == (size, shape[1])
        assert narrow.dtype == projection.dtype == np.float32 and isinstance(error, float)
        assert error == pytest.approx(relative(whole - narrow @ projection, whole), abs=1e-5)
        assert error == pytest.approx(
            np.sqrt((values[size:] ** 2).sum() / (values**2).sum()), abs=1e-5
        )
        errors.append(error)
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.3 and errors[-1] < 1e-9
    np.testing.assert_allclose(narrow @ projection, whole, atol=1e-4)  # exact at full rank


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_no_other_factors_of_that_rank_come_nearer(shape, size):
    """Eckart & Young. For a fixed projection the best narrow table is a least-squares fit; it is given that."""
    whole = table(shape)
    narrow, projection, error = factorize_table(whole, size)
    random = np.random.default_rng(1)
    others = [random.normal(size=projection.shape) for _ in range(50)]  # anywhere, and close by
    others += [
        projection + step * random.normal(size=projection.shape)
        for step in (1e-3, 1e-2, 1e-1)
        for _ in range(50)
    ]
    found = [relative(whole - whole @ np.linalg.pinv(other) @ other, whole) for other in others]
    assert min(found) >= error - 1e-6 and max(found) > error + 1e-3


@pytest.mark.parametrize("size", [1, 4])
def test_a_table_of_low_rank_is_kept_whole(size):
    whole = table((20, size)) @ table((size, 8), seed=1)
    narrow, projection, error = factorize_table(whole, size)
    assert error < 1e-5
    np.testing.assert_allclose(narrow @ projection, whole, rtol=1e-3, atol=1e-3)


def test_the_projection_s_rows_are_orthonormal():
    _, projection, _ = factorize_table(table((20, 8)), 5)
    np.testing.assert_allclose(projection @ projection.T, np.eye(5), atol=1e-5)


@pytest.mark.parametrize("size", [0, 9])
def test_errors(size):
    with pytest.raises(ValueError, match=f"`embedding_size` must be 1 to 8, .*Received: {size}"):
        factorize_table(table((20, 8)), size)


def importance(counts):
    return row_importance("counts", SimpleNamespace(piece_counts=lambda tokenizer: counts), None)


def test_rows_that_count_more_lose_less():
    whole, counts = table((40, 8)), np.where(np.arange(40) < 3, 100, 0)
    weights = importance(counts)
    np.testing.assert_allclose(weights, counts / 7.5 + 1)
    assert row_importance("none", None, None) is None
    results = [factorize_table(whole, 4), factorize_table(whole, 4, weights)]
    plain, weighted = (narrow @ projection for narrow, projection, _ in results)
    errors = [((whole - found) ** 2).sum(axis=1) for found in (plain, weighted)]
    assert errors[1][:3].sum() < 0.8 * errors[0][:3].sum() and errors[1].sum() > errors[0].sum()
    assert weights @ errors[1] < weights @ errors[0]  # Eckart and Young, of the weighted table
    np.testing.assert_allclose(
        results[1][2], np.sqrt(errors[1].sum() / (whole**2).sum()), rtol=1e-5
    )
    for alike in (np.zeros(40), np.full(40, 7)):
        np.testing.assert_allclose(
            np.matmul(*factorize_table(whole, 4, importance(alike))[:2]), plain, atol=1e-5
        )
    np.testing.assert_allclose(np.matmul(*factorize_table(whole, 8, weights)[:2]), whole, atol=1e-5)
