"""GELU, exp, softmax, square root, LayerNorm and requantisation in integers. Kim et al., 2021, arXiv:2101.01321.

A real x is an integer q times a scale S: x = q S. Every function takes (q, S) and gives (q, S) of its result. Scales and
what follows from them alone (q_b, q_c, m, e) are constants that a compiler writes into the program; all operations on
data are integer ones, on int64 arrays of NumPy or tensors of TensorFlow. `//` rounds down, for negative numbers, too.

Equation map
    Alg. 1    q_b = floor(b / S), q_c = floor(c / (a S^2)): (q + q_b)^2 + q_c, S_out = a S^2           i_poly
    Eq. 8     L(x) = sgn(x) (a (min(|x|, -b) + b)^2 + 1), a = -0.2888, b = -1.769                      i_erf
    Alg. 2    GELU(x) = x (1 + L(x / sqrt 2)) / 2                                                      i_gelu
    Eq. 12    exp(x) = 2^-z exp(p), x = p - z ln 2, p in (-ln 2, 0], exp(p) by a polynomial            i_exp
    Alg. 3    softmax of x - max x                                                                     i_softmax
    Alg. 4    Newton: x = floor((x + floor(n / x)) / 2), down to floor(sqrt n)                         i_sqrt
    Sec. 3.6  (x - mean) / std gamma + beta                                                            i_layernorm
    Sec. 3.2  q S_in / S_out = q m / 2^e, dyadic                                                       requantize
    FQ-BERT (Liu et al., 2021, arXiv:2103.02800): softmax by a table of 256 entries                    lut_softmax
Departures
    exp's polynomial is the code's, q (q + q_b) + q_c with (0.35815147, 0.96963238, 1); the paper's vertex form has
    rounded coefficients. The code multiplies by 2^(30 - z), in floats; here 30 is less where 31 bits would overflow.
    The code's 16-bit range of exp is a moving average; its largest value is always exp(0) = 1, which is taken.
    The code shifts GELU's L by 14 bits, which suits inputs of 32 bits; with 8 bits nothing would be left: `shift`.
    m has 31 bits, but fewer where the product would pass 64 bits; halves are rounded up, as in the code.
    A row without variance gives beta; paper and code divide by zero, since neither has an epsilon.
    Rows of a softmax add up to less than 1 (0.87 to 1), because each entry is rounded down.
"""

import numpy as np

from keras_compress.backend import tf

ERF = -0.2888, -1.769, 1.0  # a, b, c
EXP = 0.35815147, 0.96963238, 1.0
LN2, MAX_Z = 0.6931, 30


def arrays(q):
    """The library whose functions fit an array: NumPy, or TensorFlow's form of it."""
    return np if isinstance(q, np.ndarray) else tf.experimental.numpy


def whole(x):
    """floor(x) of constants. float -> int64."""
    return np.floor(x).astype(np.int64)


def largest_code(bits):
    """n = 2^(bits - 1) - 1: 127, 32767, 2097151. Raises ValueError on other than 4, 8, 16, 22 or 32 bits."""
    if bits not in (4, 8, 16, 22, 32):
        raise ValueError(
            f"`bits` must be 4, 8, 16, 22 or 32. Received: {bits}. Choose one of them."
        )
    return 2 ** (bits - 1) - 1


def quantize(x, scale, bits=8):
    """Integers of floats: clamp(round(x / S), -n, n). float (...) -> int64 (...)."""
    n = largest_code(bits)
    return np.clip(np.round(np.asarray(x, np.float64) / scale), -n, n).astype(np.int64)


def dyadic(r, bits=31):
    """(m, e), int64, so that r = m / 2^e with |m| < 2^bits, nearly. r, bits: numbers or arrays."""
    fraction, exponent = np.frexp(np.float64(r))
    return np.round(fraction * 2.0**bits).astype(np.int64), np.int64(bits - exponent)


def requantize(q, ratio, bits):
    """round(q ratio) in `bits` bits, halves up; clamped to -n - 1 .. n at 4, 8 and 16 bits alone.

    Args:
        q: int64 (..., channels). ratio: S_in / S_out, float or (channels,).
    """
    n, xp = largest_code(bits), arrays(q)
    room = 62 - bits + np.frexp(np.float64(ratio))[1]  # |q ratio| < 2^bits: so q m < 2^62
    m, e = dyadic(ratio, np.minimum(31, room))
    bound = np.int64(2**62) // np.maximum(np.abs(m), 1)
    product = xp.maximum(xp.minimum(q, bound), -bound) * m
    q = (product + np.int64(2) ** (e - 1)) // np.int64(2) ** e
    return xp.clip(q, np.int64(-n - 1), np.int64(n)) if bits <= 16 else q


def i_poly(q, S, a, b, c):
    """a (x + b)^2 + c. int64 (...) -> (int64 (...), scale, which has the sign of a)."""
    shifted = q + whole(b / S)
    return shifted * shifted + whole(c / (a * S**2)), a * S**2


def i_erf(q, S):
    """L(x), which stands for erf within GELU; by itself it is 0.096 off near 0."""
    a, b, c = ERF
    xp = arrays(q)
    q_L, S_L = i_poly(xp.minimum(xp.abs(q), -whole(b / S)), S, a, b, c)
    return xp.sign(q) * q_L, S_L


def i_gelu(q, S, shift=0):
    """GELU. int64 (..., channels), scale or (channels,) -> the same of the result; S_out is negative.

    Args:
        shift: bits by which L is shortened; 14 for inputs of 32 bits.
    """
    q_L, S_L = i_erf(q, S / np.sqrt(2.0))
    q_L, S_L = q_L // 2**shift, S_L * 2.0**shift
    # x (L + 1) / 2
    return q * (q_L + whole(1.0 / S_L)), S * S_L / 2.0


def i_exp(q, S):
    """exp(x) of x <= 0, down to 2^-30. int64 (...), scale -> (int64 (...) below 2^31, scale).

    Raises:
        ValueError: if S is above ln 2, so that no integer stands for ln 2.
    """
    if not 0.0 < S <= LN2:
        raise ValueError(
            f"The scale of exp's input must be above 0 and at most {LN2}. Received: {S}. Give more bits."
        )
    xp, (a, b, c) = arrays(q), EXP
    q_ln2, q_b, q_c = whole(LN2 / S), whole(b / a / S), whole(c / a / S**2)
    q = xp.maximum(q, -MAX_Z * q_ln2)
    z = -q // q_ln2
    p = q + z * q_ln2
    polynomial = p * (p + q_b) + q_c
    num_bits = min(MAX_Z, 31 - int(q_c).bit_length())  # below 0 where the input has many bits
    up, down = 2 ** max(num_bits, 0), 2 ** max(-num_bits, 0)
    shifted = polynomial * np.int64(up) // (np.int64(down) * np.int64(2) ** z)
    return xp.maximum(shifted, np.int64(0)), a * S**2 / 2.0**num_bits


def i_softmax(q, S, out_bits=8):
    """softmax over the last axis. int64 (..., keys), scale -> (int64 (..., keys), 2^-out_bits)."""
    xp = arrays(q)
    q, S = i_exp(q - xp.max(q, axis=-1, keepdims=True), S)
    q = requantize(q, S * 32767, 16)
    factor = np.int64(2**32) // xp.sum(q, axis=-1, keepdims=True)
    return q * factor // np.int64(2 ** (32 - out_bits)), 2.0**-out_bits


def lut_softmax(q, S):
    """softmax of 8-bit scores by a table of exp(-k S), k = 0 .. 255. int64 (..., keys), scale -> (int64, 1 / 255)."""
    table = np.round(255 * np.exp(-np.arange(256) * S)).astype(np.int64)
    e = table[np.minimum(q.max(-1, keepdims=True) - q, 255)]
    total = e.sum(-1, keepdims=True)
    return (2 * 255 * e + total) // (2 * total), 1.0 / 255.0


def i_sqrt(n):
    """floor(sqrt n) of n < 2^62. int64 (...) -> the same."""
    xp = arrays(n)
    bits = sum(xp.sign(n // np.int64(2**k)) for k in range(62))
    x = np.int64(2) ** ((bits + 1) // 2)
    for _ in range(6):  # as many as 62 bits need; each at least halves the error
        x = xp.minimum(x, (x + n // xp.maximum(x, np.int64(1))) // 2)
    return x


def i_layernorm(q, gamma, beta, shift=0):
    """LayerNorm over the last axis, at any scale of its input. int64 (..., n) -> (int64 (..., n), scale (n,)).

    Args:
        gamma, beta: float (n,). shift: bits by which q is shortened before it is squared (`norm_shift`).
    Raises:
        ValueError: if a gamma is 0; its sign and size are the output's scale.
    """
    if not np.all(gamma):
        raise ValueError(
            f"Every gamma of a LayerNorm must differ from 0. Received: {np.sum(gamma == 0)} zeros. Train on, "
            "or set them to a small number."
        )
    xp, n = arrays(q), q.shape[-1]
    mean = (2 * xp.sum(q, axis=-1, keepdims=True) + n) // (2 * n)  # rounded
    y = q - mean
    short = y // 2**shift
    std = i_sqrt(xp.sum(short * short, axis=-1, keepdims=True)) * 2**shift  # times sqrt n
    factor = np.int64(2**31) // xp.maximum(std, np.int64(1)) * xp.sign(std)
    S = np.sqrt(n) / 2.0**30
    return y * factor // 2 + whole(beta / gamma / S), S * gamma


def norm_shift(largest_variance):
    """The shift under which the largest sum of squares, in squared integers, stays within 32 bits."""
    return max(0, int(np.ceil((np.log2(max(largest_variance, 1.0)) - 32.0) / 2.0)))
