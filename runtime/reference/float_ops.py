"""Float functions as exact sequences of binary32 operations, which a vectorised codelet can repeat bit for bit.

Rules: every `+ - * /` and `sqrt` on the page is one binary32 operation, rounded half to even, in the order Python evaluates it; a fused
multiply-add only where `fma` says so; no flushing of subnormals. A *sum* is `lane_sum`. Polynomials are `horner`. Coefficients stand in
`dialects/approximations.py`. NaN in gives NaN out, but of `sign` and `at_least`; the payload and sign of a NaN and the sign of a zero that
is summed are not part of the meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from qcc.dialects import approximations as table

Array = np.ndarray[Any, Any]
F32 = np.float32
ONE, TWO, HALF, SIXTH, SLOPE = F32(1), F32(2), F32(0.5), F32(table.ONE_SIXTH), F32(0.01)


def lane_sum(x: Array) -> Array:
    """Sum over the last axis: x [..., n] f32 -> [...] f32.

    Lane j of 64 adds x[j], x[64 + j], x[128 + j], ... in this order (missing elements are 0); then lanes 32..63 are added onto 0..31,
    16..31 onto 0..15, and so on to 1 onto 0. 64 partial sums are four vectors of 16, whose additions do not wait for each other.
    """
    lanes = table.LANES
    n = x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-n // lanes) * lanes), F32)
    padded[..., :n] = x
    total = np.zeros((*x.shape[:-1], lanes), F32)
    for i in range(0, padded.shape[-1], lanes):
        total = total + padded[..., i : i + lanes]
    while lanes > 1:
        lanes //= 2
        total = total[..., :lanes] + total[..., lanes : 2 * lanes]
    return total[..., 0]


def fma(a: Array, b: Array | np.float32, c: Array | np.float32) -> Array:
    """a * b + c rounded once to binary32.

    The product is exact in binary64; the sum is rounded to odd there (S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded
    sums: proved algorithms using rounding to odd", 2008), so that rounding it again is right.
    """
    with np.errstate(all="ignore"):
        product, addend = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
        total = np.asarray(product + addend)
        part = total - product
        rest = (product - (total - part)) + (addend - part)
        bits = total.view(np.int64)
        inexact = np.isfinite(rest) & (rest != 0) & (bits & 1 == 0)
        step = np.where((rest > 0) == (total > 0), 1, -1)
        return np.where(inexact, bits + step, bits).view(np.float64).astype(F32)


def horner(coefficients: Sequence[float], x: Array) -> Array:
    """c[0] * x^n + ... + c[n] as fma(fma(c[0], x, c[1]), x, c[2]) ..."""
    p = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        p = fma(p, x, F32(c))
    return p


def softmax(x: Array) -> Array:
    """Along the last axis: e = exp(x - max); e * (1 / lane_sum(e))."""
    with np.errstate(all="ignore"):
        e = exp(x - x.max(axis=-1, keepdims=True))
        return e * (ONE / lane_sum(e))[..., None]


def normalize(x: Array, epsilon: float) -> Array:
    """Over the last axis of n: d = x - lane_sum(x) / n; d * (1 / sqrt(lane_sum(d * d) / n + epsilon))."""
    n = F32(x.shape[-1])
    d = x - (lane_sum(x) / n)[..., None]
    return d * (ONE / np.sqrt(lane_sum(d * d) / n + F32(epsilon)))[..., None]


def rms_normalize(x: Array, epsilon: float) -> Array:
    """Over the last axis of n: x * (1 / sqrt(lane_sum(x * x) / n + epsilon))."""
    return x * (ONE / np.sqrt(lane_sum(x * x) / F32(x.shape[-1]) + F32(epsilon)))[..., None]


def exp(x: Array) -> Array:
    """n = rint(x * log2(e)); r = fma(-n, ln2_low, fma(-n, ln2_high, x)); (fma(P(r), r * r, r) + 1) * 2^n, the last product rounded once.

    x is first cut to [EXP_LEAST, EXP_GREATEST]; below EXP_LEAST the result is 0.
    """
    cut = np.clip(x, F32(table.EXP_LEAST), F32(table.EXP_GREATEST))
    n = np.rint(cut * F32(table.LOG2_E))
    r = fma(-n, F32(table.LN2_LOW), fma(-n, F32(table.LN2_HIGH), cut))
    p = fma(horner(table.EXP, r), r * r, r) + ONE
    with np.errstate(invalid="ignore", over="ignore"):
        k = n.astype(np.int32)
        y = p * _power_of_two(k >> 1) * _power_of_two(k - (k >> 1))
    return np.where(x < F32(table.EXP_LEAST), F32(0), y)


def _power_of_two(k: Array) -> Array:
    return ((k + 127) << 23).astype(np.int32).view(F32)


def exp2(x: Array) -> Array:
    """n = rint(x); P(x - n) * 2^n: exact where x is whole. x is first cut to -150 and 128."""
    return np.where(x < F32(-150), F32(0), _exp2(np.clip(x, F32(-150), F32(128))))


def _exp2(x: Array) -> Array:
    n = np.rint(x)
    p = horner(table.EXP2, x - n)
    with np.errstate(invalid="ignore", over="ignore"):
        k = n.astype(np.int32)
        return p * _power_of_two(k >> 1) * _power_of_two(k - (k >> 1))


def log(x: Array) -> Array:
    """x = m * 2^k, m in [sqrt(1/2), sqrt(2)); f = m - 1; (f + ((P(f) * f * f^2 + k * ln2_low) - f^2 / 2)) + k * ln2_high.

    Subnormal x is first multiplied by 2^23 and k lowered by 23. 0 gives -infinity, negative x gives NaN.
    """
    f, k = _fraction(x)
    z = f * f
    y = (horner(table.LOG, f) * f * z + k * F32(table.LN2_LOW)) - HALF * z
    return _of_logarithms(x, (f + y) + k * F32(table.LN2_HIGH))


def log2(x: Array) -> Array:
    """As `log`: (f + (P(f) * f * f^2 - f^2 / 2)) * log2(e) + k, the last two as one; exact for powers of two."""
    f, k = _fraction(x)
    z = f * f
    return _of_logarithms(x, fma(f + (horner(table.LOG, f) * f * z - HALF * z), F32(table.LOG2_E), k))


def _fraction(x: Array) -> tuple[Array, Array]:
    """f and k of `log`."""
    tiny = x < F32(2.0**-126)
    bits = np.where(tiny, x * F32(2**23), x).view(np.int32)
    k = (bits - np.int32(table.LOG_SPLIT_BITS)) >> 23
    return (bits - (k << 23)).view(F32) - ONE, (k - np.where(tiny, np.int32(23), np.int32(0))).astype(F32)


def _of_logarithms(x: Array, y: Array) -> Array:
    y = np.where(x == 0, F32(-np.inf), np.where(x < 0, F32(np.nan), y))
    return np.where(np.isposinf(x) | np.isnan(x), x, y)


def log1p(t: Array) -> Array:
    """u = 1 + t; t where u = 1, else log(u) * (t / (u - 1)) (W. Kahan's correction)."""
    u = ONE + t
    return np.where(u == 1, t, log(u) * (t / (u - ONE)))


def expm1(x: Array) -> Array:
    """u = exp(x); x where u = 1, -1 where u - 1 = -1, else (u - 1) * (x / log(u)); used for x <= 0."""
    u = exp(x)
    return np.where(u == 1, x, np.where(u - ONE == -1, F32(-1), (u - ONE) * (x / log(u))))


def tanh(x: Array) -> Array:
    """x + x * (z * P(z)) with z = x * x below TANH_SMALL, else 1 - 2 / (exp(2 * |x|) + 1) with the sign of x."""
    z = x * x
    small = x + x * (z * horner(table.TANH, z))
    large = ONE - TWO / (exp(TWO * np.abs(x)) + ONE)
    return np.where(np.abs(x) < F32(table.TANH_SMALL), small, np.copysign(large, x))


def erf(x: Array) -> Array:
    """x * P(x * x) below ERF_SPLIT, else 1 - exp(-Q(min(|x|, 4))) with the sign of x."""
    small = x * horner(table.ERF_SMALL, x * x)
    large = ONE - exp(-horner(table.ERF_LARGE, np.minimum(np.abs(x), F32(table.ERF_GREATEST))))
    return np.where(np.abs(x) < F32(table.ERF_SPLIT), small, np.copysign(large, x))


def _quadrant(x: Array) -> tuple[Array, Array, Array]:
    """(n mod 4, sin r, cos r) of x = n * pi/2 + r, n = rint(x * 2/pi). Accurate for |x| < 2^15."""
    n = np.rint(x * F32(table.TWO_OVER_PI))
    high, middle, low = (F32(v) for v in table.HALF_PI)
    r = ((x - n * high) - n * middle) - n * low
    z = r * r
    sine = r + r * (z * horner(table.SIN, z))
    cosine = (ONE - HALF * z) + (z * z) * horner(table.COS, z)
    with np.errstate(invalid="ignore"):
        return n.astype(np.int32) & 3, sine, cosine


def sin(x: Array) -> Array:
    """In quadrants 0..3: sin r, cos r, -sin r, -cos r."""
    n, sine, cosine = _quadrant(x)
    y = np.where(n & 1, cosine, sine)
    return np.where(n & 2, -y, y)


def cos(x: Array) -> Array:
    """In quadrants 0..3: cos r, -sin r, -cos r, sin r."""
    n, sine, cosine = _quadrant(x)
    y = np.where(n & 1, sine, cosine)
    return np.where((n + 1) & 2, -y, y)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return ONE / (ONE + exp(-x))


def silu(x: Array) -> Array:
    """x / (1 + exp(-x))."""
    return x / (ONE + exp(-x))


def gelu(x: Array) -> Array:
    """fma(-a, 2^P(a), max(x, 0)) with a = min(|x|, GELU_GREATEST): max(x, 0) less |x| times the normal distribution at -|x|."""
    a = np.minimum(np.abs(x), F32(table.GELU_GREATEST))
    return fma(-a, _exp2(horner(table.GELU, a)), np.maximum(x, F32(0)))


def gelu_tanh(x: Array) -> Array:
    """x / (1 + exp(-sqrt(8/pi) * (x + 0.044715 * (x * x * x)))), which is x / 2 * (1 + tanh(sqrt(2/pi) * ...))."""
    inner = F32(table.MINUS_SQRT_EIGHT_OVER_PI) * (x + F32(table.GELU_CUBIC) * (x * x * x))
    return x / (ONE + exp(inner))


def softplus(x: Array) -> Array:
    """max(x, 0) + log1p(exp(-|x|))."""
    return np.maximum(x, F32(0)) + log1p(exp(-np.abs(x)))


def mish(x: Array) -> Array:
    """x * tanh(softplus(x))."""
    return x * tanh(softplus(x))


def hardsigmoid(x: Array, alpha: Array | np.float32 = SIXTH) -> Array:
    """min(max(alpha * x + 0.5, 0), 1); alpha is 1/6 unless given."""
    return np.minimum(np.maximum(alpha * x + HALF, F32(0)), ONE)


def hardswish(x: Array) -> Array:
    """x * hardsigmoid(x)."""
    return x * hardsigmoid(x)


def leaky_relu(x: Array, alpha: Array | np.float32 = SLOPE) -> Array:
    """x where x >= 0, else alpha * x."""
    return np.where(x >= 0, x, alpha * x)


def elu(x: Array, alpha: Array | np.float32 = ONE) -> Array:
    """x where x > 0, else alpha * expm1(x)."""
    return np.where(x > 0, x, alpha * expm1(np.minimum(x, F32(0))))


def rsqrt(x: Array) -> Array:
    """1 / sqrt(x), two roundings."""
    return ONE / np.sqrt(x)


def reciprocal(x: Array) -> Array:
    """1 / x."""
    return ONE / x


def at_least(x: Array, alpha: Array | np.float32 | None = None) -> Array:
    """1 where x >= alpha (0), else 0, also of NaN."""
    return np.where(x >= (F32(0) if alpha is None else alpha), ONE, F32(0))


def round_bf16(x: Array) -> Array:
    """The nearest bfloat16, half to even, as binary32: the upper 16 bits, rounded. NaN stays."""
    bits = x.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), x, rounded.view(F32))


def sign(x: Array) -> Array:
    """1, -1, or 0 where x is 0 or NaN, as torch has it."""
    return np.where(x > 0, ONE, np.where(x < 0, -ONE, F32(0)))


# `kind` of qcc.unary -> meaning; those with `alpha` take it as a second argument.
UNARY: dict[str, Callable[..., Array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "exp": exp,
    "log": log,
    "log2": log2,
    "exp2": exp2,
    "at_least": at_least,
    "erf": erf,
    "sqrt": np.sqrt,
    "rsqrt": rsqrt,
    "reciprocal": reciprocal,
    "neg": np.negative,
    "abs": np.abs,
    "hardswish": hardswish,
    "hardsigmoid": hardsigmoid,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "softplus": softplus,
    "mish": mish,
    "sign": sign,
    "binarize": lambda x: np.where(x >= 0, F32(1), np.where(x < 0, F32(-1), x)),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "round_bf16": round_bf16,
    "sin": sin,
    "cos": cos,
    "round_e4m3": lambda x: np.clip(x, F32(-448), F32(448)).astype(ml_dtypes.float8_e4m3fn).astype(F32),
    "round_e5m2": lambda x: x.astype(ml_dtypes.float8_e5m2).astype(F32),
    "round_f16": lambda x: x.astype(np.float16).astype(F32),
}
