"""I-BERT's functions: the integers are those of the formulas, and near the real functions."""

import math

import numpy as np
import pytest
from scipy.special import erf

from keras_compress.quantization import integer_functions as I

RANDOM = np.random.default_rng(0)


def real_gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def real_softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def inputs(bits, largest=8.0):
    """All codes of 8 bits, as many spread ones of more; and their scale."""
    n = 2 ** (bits - 1) - 1
    return np.unique(np.linspace(-n, n, 4001).round().astype(np.int64)), largest / n


# The error of the polynomials themselves is 0.0182 (GELU) and 0.0019 (exp).
@pytest.mark.parametrize("bits, bound", [(8, 0.0184), (16, 0.0183), (22, 0.0183)])
def test_gelu_against_float(bits, bound):
    q, S = inputs(bits)
    out, S_out = I.i_gelu(q, S, shift=14 if bits == 22 else 0)
    error = np.abs(out * S_out - real_gelu(q * S)).max()
    assert 0.018 < error < bound
    if bits == 8:
        assert np.abs(out).max() < 4.5e5


@pytest.mark.parametrize(
    "bits, exp_bound, softmax_bound", [(8, 0.031, 0.04), (16, 0.0021, 0.006), (22, 0.002, 0.006)]
)
def test_exp_and_softmax_against_float(bits, exp_bound, softmax_bound):
    q, S = inputs(bits)
    q = q[q <= 0]
    out, S_out = I.i_exp(q, S)
    assert np.abs(out * S_out - np.exp(q * S)).max() < exp_bound
    assert out.min() >= 0 and out.max() < 2**31
    n = 2 ** (bits - 1) - 1
    scores = RANDOM.integers(-n, n, (50, 64))
    probs, S_out = I.i_softmax(scores, S)
    assert np.abs(probs * S_out - real_softmax(scores * S)).max() < softmax_bound
    assert (probs.sum(-1) <= 256).all() and (probs >= 0).all()


# Few bits: the inputs are coarse. Many bits: floor(2^31 / std) is, with 2^21 = std sqrt n it is 1024.
@pytest.mark.parametrize("std, bound", [(40, 2e-2), (3000, 4e-4), (2**18, 4e-3)])
def test_layernorm_against_float(std, bound):
    q = np.round(RANDOM.normal(5 * std, std, (40, 64))).astype(np.int64)
    gamma, beta = RANDOM.normal(0, 1, 64) + 0.1, RANDOM.normal(0, 1, 64)
    shift = I.norm_shift(((q - q.mean(-1, keepdims=True)) ** 2).sum(-1).max())
    out, S_out = I.i_layernorm(q, gamma, beta, shift)
    normal = (q - q.mean(-1, keepdims=True)) / q.std(-1, keepdims=True)
    assert np.abs(out * S_out - (normal * gamma + beta)).max() < bound * np.abs(gamma).max()
    same, _ = I.i_layernorm(q + 12345, gamma, beta, shift)
    np.testing.assert_array_equal(same, out)


def test_laws_of_layernorm():
    ones, zeros = np.ones(64), np.zeros(64)
    q = np.round(RANDOM.normal(0, 3000, (40, 64))).astype(np.int64)
    out, S = I.i_layernorm(q, ones, zeros)
    assert np.abs((out * S).mean(-1)).max() < 1e-3 and np.abs((out * S).var(-1) - 1).max() < 1e-3
    constant, S = I.i_layernorm(np.full((1, 64), 7), 2 * ones, 3 * ones)
    np.testing.assert_allclose(constant * S, 3.0, atol=1e-6)
    with pytest.raises(
        ValueError, match="gamma of a LayerNorm must differ from 0. Received: 64 zeros"
    ):
        I.i_layernorm(q, zeros, zeros)
    # 768 * 32767^2 = 8.2e11 > 2^32 = 4.3e9, a factor of 192 < 4^4
    assert I.norm_shift(768 * 32767**2) == 4 and I.norm_shift(2**32 - 1) == I.norm_shift(0) == 0


def test_square_root_is_that_of_python():
    n = np.r_[
        np.arange(10**5),
        RANDOM.integers(0, 2**32, 10**4),
        2**31,
        2**32 - 1,
        RANDOM.integers(0, 2**61, 10**4),
    ]
    np.testing.assert_array_equal(I.i_sqrt(n), [math.isqrt(int(each)) for each in n])


@pytest.mark.parametrize("bits, top", [(8, 127), (16, 32767), (22, None), (32, None)])
def test_requantisation_is_within_one_of_a_real_product(bits, top):
    q = RANDOM.integers(-(2**31), 2**31, 5000)
    for ratio in (0.37, -0.37, 2.0**-25, 1e-9, 1.0):
        out, real = I.requantize(q, ratio, bits), q * ratio
        if top:
            real = np.clip(real, -top - 1, top)
        assert np.abs(out - real).max() <= (0.501 if bits < 22 else 1.5)
    ratios = np.array([0.5, -0.25])
    # halves go up: 1.5 -> 2, -1.5 -> -1; 5 * -.25 = -1.25 -> -1
    np.testing.assert_array_equal(
        I.requantize(np.array([[3, 5], [-3, 2]]), ratios, 22), [[2, -1], [-1, 0]]
    )


def test_dyadic_numbers():
    for r in (0.3, -17.2, 1e-12):
        m, e = I.dyadic(r)
        assert abs(m) < 2**31 and abs(m * 2.0**-e - r) <= abs(r) * 2**-30
    assert I.dyadic(0.75) == (0.75 * 2**31, 31)


@pytest.mark.parametrize("softmax, bound", [(I.i_softmax, 0.006), (I.lut_softmax, 0.006)])
def test_laws_of_both_softmaxes(softmax, bound):
    n, S = (127, 8 / 127) if softmax is I.lut_softmax else (32767, 8 / 32767)
    q = RANDOM.integers(-n, n, (50, 64))
    out, S_out = softmax(q, S)
    assert np.abs(out * S_out - real_softmax(q * S)).max() < bound
    np.testing.assert_array_equal(softmax(q + 99, S)[0], out)  # a constant changes nothing
    order = np.argsort(q, -1)
    assert (np.diff(np.take_along_axis(out, order, -1)) >= 0).all()  # monotone


def test_integers_are_those_of_the_formulas_in_floats():
    q, S = inputs(8)
    S_erf, x = S / np.sqrt(2), np.abs(q).astype(float)
    q_b, q_c = np.floor(-1.769 / S_erf), np.floor(1 / (-0.2888 * S_erf**2))
    q_L = np.sign(q) * ((np.minimum(x, -q_b) + q_b) ** 2 + q_c)
    wanted = q * (q_L + np.floor(1 / (-0.2888 * S_erf**2)))
    np.testing.assert_array_equal(I.i_gelu(q, S)[0], wanted)

    q, S = inputs(16)
    q = q[q <= 0].astype(float)
    q_ln2 = np.floor(0.6931 / S)
    z = np.floor(-q / q_ln2)
    p = q + z * q_ln2
    exp = p * (p + np.floor(2.7073249 / S)) + np.floor(2.7921146 / S**2)
    out, S_out = I.i_exp(q.astype(np.int64), S)
    num_bits = round(np.log2(0.35815147 * S**2 / S_out))
    np.testing.assert_allclose(out, np.floor(exp * 2.0**num_bits / 2**z), rtol=1e-6, atol=1)


def test_tensorflow_gives_the_same_integers():
    from keras_compress.backend import tf

    q, (gamma, beta) = RANDOM.integers(-30000, 30000, (5, 32)), RANDOM.normal(1, 0.2, (2, 32))
    for function in (
        lambda q: I.i_gelu(q, 1e-4)[0],
        lambda q: I.i_softmax(q, 3e-4)[0],
        lambda q: I.i_layernorm(q, gamma, beta)[0],
        lambda q: I.requantize(q, 0.004 * gamma, 8),
    ):
        in_graph = tf.function(function).get_concrete_function(tf.TensorSpec((5, 32), tf.int64))
        np.testing.assert_array_equal(in_graph(tf.constant(q)), function(q))
        kinds = {t.dtype for op in in_graph.graph.get_operations() for t in op.outputs}
        assert not [kind for kind in kinds if kind.is_floating], function


def test_errors():
    with pytest.raises(ValueError, match="`bits` must be 4, 8, 16, 22 or 32. Received: 7"):
        I.requantize(np.array([1]), 0.5, 7)
    with pytest.raises(
        ValueError, match="scale of exp's input must be .* at most 0.6931. Received: 0.7"
    ):
        I.i_exp(np.array([-1]), 0.7)
