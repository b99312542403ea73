"""The meaning of every qcc operation, in numpy, written for reading.

One function per operation, named like it: arrays and parameters in, array out; nothing here knows MLIR. `interpreter.py` reads the
parameters from operations and their types and calls these functions.

Two conventions hold throughout.

* Quantized tensors arrive as *stored* integers. `zero_point`, `scale` and `multiplier` are arrays that broadcast against them: 0-d or
  all-ones for per-tensor, `[c, 1, 1]` and the like for per-channel.
* Binary32 means binary32: every product, sum, quotient and conversion written on its own below is rounded on its own, half to even.
  There is no fused multiply-add anywhere, so compiled code must not contract either.

Convolution, linear and matmul on *integers* are exact. On *floats* they are accumulated in binary64 and rounded once at the end: the
ideal that compiled code, which sums in binary32 in an order of its own, is compared with under a tolerance. All other float operations
are given in `float_ops.py` with their exact order of operations and must be matched bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from qcc.dialects import shapes
from qcc.runtime.reference import float_ops

Array = np.ndarray[Any, Any]
F32 = np.float32


# --- between real and stored values -------------------------------------------------------------------------------------------------


def constant(value: Array) -> Array:
    """The stored elements."""
    return value


def quantize(x: Array, *, scale: Array, zero_point: Array, qmin: int, qmax: int) -> Array:
    """clamp(rint(x / scale) + zero_point, qmin, qmax), x f32; i64. NaN gives qmin."""
    return _to_integer(np.rint(x / scale), zero_point, qmin, qmax)


def dequantize(x: Array, *, scale: Array, zero_point: Array) -> Array:
    """f32(x - zero_point) * scale; f32. Formats other than affine: `formats.decode`."""
    return _minus(x, zero_point).astype(F32) * scale


def dequantize_accumulator(acc: Array, *, multiplier: Array, bias: Array | None = None) -> Array:
    """f32(acc) * multiplier + bias, rounded after the conversion, the product and the sum; f32."""
    product = acc.astype(F32) * multiplier
    return product if bias is None else product + bias


def requantize(acc: Array, *, multiplier: Array, zero_point: Array, low: int, high: int) -> Array:
    """Mode "f32": clamp(rint(f32(acc) * multiplier) + zero_point, low, high); i64."""
    return _to_integer(np.rint(acc.astype(F32) * multiplier), zero_point, low, high)


def requantize_fixed(acc: Array, *, multiplier: Array, shift: Array, rounding: str, zero_point: Array, low: int, high: int) -> Array:
    """Mode "fixed": clamp(round(acc * multiplier / 2^shift) + zero_point, low, high) in 64-bit integers; i64.

    `rounding` of ties is "half_away" (from zero) or "half_even". Raises OverflowError where acc * multiplier leaves 63 bits.
    """
    return _from_fixed(_product(acc, multiplier), zero_point, low, high, shift=shift, rounding=rounding)


def _product(acc: Array, multiplier: Array) -> Array:
    if _magnitude(acc) * _magnitude(multiplier) >= 1 << 62:
        raise OverflowError(f"accumulators up to {_magnitude(acc)} times multiplier {_magnitude(multiplier)} need more than 63 bits")
    return _i64(acc) * _i64(multiplier)


def _from_fixed(product: Array, zero_point: Array, low: int, high: int, *, shift: Array, rounding: str) -> Array:
    return np.clip(shift_right(product, _i64(shift), rounding) + zero_point, low, high)


def shift_right(product: Array, shift: Array, rounding: str) -> Array:
    """round(product / 2^shift), i64, shift in 0..62; ties "half_away" from zero or "half_even"."""
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    if rounding == "half_away":
        return np.sign(product) * ((np.abs(product) + half) >> shift)
    floor = product >> shift
    rest = product - (floor << shift)  # 0 .. 2^shift - 1
    return floor + ((rest > half) | ((rest == half) & (floor & 1 == 1) & (rest > 0)))


def _to_integer(rounded: Array, zero_point: Array, low: int, high: int) -> Array:
    """clamp(rounded + zero_point, low, high) as i64, clamped before the conversion so that no float overflows it; NaN gives low."""
    zero = np.asarray(zero_point, np.int64)
    wide = rounded.astype(np.float64)  # holds every bound exactly, which binary32 does not above 24 bits
    return np.fmin(np.fmax(wide, low - zero), high - zero).astype(np.int64) + zero


def _i64(x: Array) -> Array:
    return np.asarray(x).astype(np.int64)


def _minus(x: Array, zero_point: Array | int) -> Array:
    return x.astype(np.int64) - zero_point


# --- products -----------------------------------------------------------------------------------------------------------------------


def conv2d(
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Array:
    """y[n, o, i, j] = bias[o] + sum over c, p, q of x[n, c, i*sh + p*dh - top, j*sw + q*dw - left] * w[o, c, p, q].

    x [n, c, h, w], w [o, c/groups, kh, kw], bias [o]. Integers (zero points already subtracted, so that padding is 0): exact, i64.
    Floats: accumulated in f64, rounded to f32 at the end.
    """
    n, o, height, width = shapes.conv2d(x.shape, w.shape, strides, padding, dilations)
    compute = _accumulator_dtype(x, w, summed=(1, 2, 3))
    top, left, bottom, right = padding
    x_pad = np.pad(x.astype(compute), ((0, 0), (0, 0), (top, bottom), (left, right)))
    x_pad = x_pad.reshape(n, groups, x.shape[1] // groups, *x_pad.shape[2:])  # [n, g, c/g, h, w]
    taps = w.astype(compute).reshape(groups, o // groups, *w.shape[1:])  # [g, o/g, c/g, kh, kw]
    y = np.zeros((n, groups, o // groups, height * width), compute)
    positions = list(np.ndindex(*w.shape[2:]))
    together = max(1, 128 // taps.shape[2])  # taps per matrix product: long sums are what BLAS is good at
    for first in range(0, len(positions), together):
        some = positions[first : first + together]
        seen = np.stack([_seen(x_pad, p, q, (height, width), strides, dilations) for p, q in some], axis=2)  # [n, g, taps, c/g, h*w]
        tap = np.stack([taps[..., p, q] for p, q in some], axis=2)  # [g, o/g, taps, c/g]
        if tap.shape[1] == tap.shape[3] == 1:  # depthwise, where a matrix product per channel would be slow
            y += (tap.reshape(groups, -1, 1) * seen.reshape(n, groups, len(some), -1)).sum(axis=2, keepdims=True)
        else:
            y += tap.reshape(groups, o // groups, -1) @ seen.reshape(n, groups, -1, height * width)
    y = y.reshape(n, o, height, width)
    return _finish(y, x, bias if bias is None else bias.reshape(-1, 1, 1))


def _seen(x_pad: Array, p: int, q: int, size: tuple[int, int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """What tap (p, q) sees of x_pad [n, g, c/g, h, w] at every position: [n, g, c/g, oh * ow]."""
    begin = (p * dilations[0], q * dilations[1])
    rows, columns = (slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(begin, size, strides, strict=True))
    return x_pad[..., rows, columns].reshape(*x_pad.shape[:3], -1)


def linear(x: Array, w: Array, bias: Array | None = None) -> Array:
    """x [..., in] times w [out, in] transposed, plus bias [out]; integers exact in i64, floats accumulated in f64."""
    compute = _accumulator_dtype(x, w, summed=(1,))
    rows = x.astype(compute, order="C").reshape(-1, w.shape[1])
    return _finish((rows @ w.astype(compute).T).reshape(*x.shape[:-1], w.shape[0]), x, bias)


def matmul(a: Array, b: Array) -> Array:
    """a [..., m, k] times b [..., k, n], batch axes broadcast; integers exact in i64, floats accumulated in f64."""
    compute = _accumulator_dtype(a, b, summed=(-2,))
    return _finish(a.astype(compute, order="C") @ b.astype(compute, order="C"), a, None)  # BLAS wants them contiguous


def _accumulator_dtype(x: Array, w: Array, summed: tuple[int, ...]) -> type:
    """The float type in which every partial sum of integer products is provably exact, so that BLAS can do the work, else i64.

    No partial sum is greater than max |x| * sum |w|, the sum taken over the axes `summed` of w. Floats accumulate in f64.
    """
    if x.dtype.kind == "f":
        return np.float64
    reach = _magnitude(x) * int(np.abs(w).sum(axis=summed, dtype=np.float64).max(initial=0))
    return np.float32 if reach < 1 << 24 else np.float64 if reach < 1 << 53 else np.int64


def _finish(acc: Array, x: Array, bias: Array | None) -> Array:
    if x.dtype.kind != "f":
        acc = acc.astype(np.int64)
        return acc if bias is None else acc + bias.astype(np.int64)
    return (acc if bias is None else acc + bias).astype(F32)


def _magnitude(x: Array) -> int:
    return max(abs(int(x.min())), abs(int(x.max()))) if x.size else 0


# --- element by element -------------------------------------------------------------------------------------------------------------


def add(a: Array, b: Array) -> Array:
    """a + b, f32."""
    return a + b


def sub(a: Array, b: Array) -> Array:
    """a - b, f32."""
    return a - b


def mul(a: Array, b: Array) -> Array:
    """a * b, f32."""
    return a * b


def div(a: Array, b: Array) -> Array:
    """a / b, f32."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return a / b


def add_quantized(
    a: Array, b: Array, *, zero_points: tuple[Array, Array, Array], multipliers: Array, low: int, high: int, **fixed: Any
) -> Array:
    """clamp(rint(f32(a - za) * m0 + f32(b - zb) * m1) + zy, low, high); `zero_points` are (za, zb, zy); i64.

    With `shift` and `rounding` (mode "fixed"): clamp(round(((a - za) * m0 + (b - zb) * m1) / 2^shift) + zy, low, high) in 64-bit integers.
    """
    za, zb, zy = zero_points
    da, db = _minus(a, za), _minus(b, zb)
    if fixed:
        return _from_fixed(da * _i64(multipliers[0]) + db * _i64(multipliers[1]), zy, low, high, **fixed)
    return _to_integer(np.rint(da.astype(F32) * multipliers[0] + db.astype(F32) * multipliers[1]), zy, low, high)


def sub_quantized(
    a: Array, b: Array, *, zero_points: tuple[Array, Array, Array], multipliers: Array, low: int, high: int, **fixed: Any
) -> Array:
    """clamp(rint(f32(a - za) * m0 - f32(b - zb) * m1) + zy, low, high); "fixed" as `add_quantized`."""
    za, zb, zy = zero_points
    da, db = _minus(a, za), _minus(b, zb)
    if fixed:
        return _from_fixed(da * _i64(multipliers[0]) - db * _i64(multipliers[1]), zy, low, high, **fixed)
    return _to_integer(np.rint(da.astype(F32) * multipliers[0] - db.astype(F32) * multipliers[1]), zy, low, high)


def mul_quantized(
    a: Array, b: Array, *, zero_points: tuple[Array, Array, Array], multipliers: Array, low: int, high: int, **fixed: Any
) -> Array:
    """clamp(rint(f32((a - za) * (b - zb)) * m0) + zy, low, high); "fixed": clamp(round((a - za) * (b - zb) * m0 / 2^shift) + zy, ...)."""
    za, zb, zy = zero_points
    product = _minus(a, za) * _minus(b, zb)
    if fixed:
        return _from_fixed(_product(product, multipliers[0]), zy, low, high, **fixed)
    return _to_integer(np.rint(product.astype(F32) * multipliers[0]), zy, low, high)


def maximum(a: Array, b: Array) -> Array:
    """The greater of a and b, NaN where either is, b where they are equal (as 0 and -0 are)."""
    return np.where((a > b) | (a != a), a, b)


def minimum(a: Array, b: Array) -> Array:
    """The lesser of a and b, NaN where either is, b where they are equal."""
    return np.where((a < b) | (a != a), a, b)


def compare(a: Array, b: Array, *, kind: str) -> Array:
    """Whether a < b ("lt") and the like; bool. Of NaN only "ne" holds."""
    relations = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    return relations[kind](a, b)


def select(condition: Array, a: Array, b: Array) -> Array:
    """a where the condition (bool) holds, else b."""
    return np.where(condition, a, b)


def clamp(x: Array, *, min: float, max: float) -> Array:
    """min(max(x, min), max); NaN stays NaN."""
    return np.minimum(np.maximum(x, F32(min)), F32(max))


def unary(x: Array, *, kind: str, alpha: float | None = None) -> Array:
    """The function `kind` of every element; see `float_ops.UNARY`."""
    function = float_ops.UNARY[kind]
    with np.errstate(all="ignore"):
        return function(x.astype(F32)) if alpha is None else function(x.astype(F32), F32(alpha))


def lut(x: Array, *, table: Array, qmin: int) -> Array:
    """table[x - qmin]."""
    return table.reshape(-1)[_minus(x, qmin)]


def batch_norm(x: Array, scale: Array, bias: Array, mean: Array, var: Array, *, epsilon: float) -> Array:
    """(x - mean) * (scale / sqrt(var + epsilon)) + bias per channel (axis 1), f32."""
    scale, bias, mean, var = (v.astype(F32).reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, mean, var))
    return (x - mean) * (scale / np.sqrt(var + F32(epsilon))) + bias


# --- windows ------------------------------------------------------------------------------------------------------------------------


def max_pool2d(
    x: Array, *, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int], dilations: Sequence[int] = (1, 1)
) -> Array:
    """Greatest element of each window of x [n, c, h, w], float or stored integers; padding never wins."""
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    y: Array | None = None
    for seen in _windows(x, kernel, strides, padding, dilations, least):
        y = seen.copy() if y is None else np.maximum(y, seen)
    assert y is not None
    return y


def avg_pool2d(x: Array, *, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int], count_include_pad: bool) -> Array:
    """Mean of each window, f32: taps added in row-major order from 0, then divided by f32(count)."""
    y: Array = F32(0)  # type: ignore[assignment]
    for seen in _windows(x, kernel, strides, padding, (1, 1), 0):
        y = y + seen
    return y / _window_counts(x, kernel, strides, padding, count_include_pad)


def avg_pool2d_quantized(
    x: Array,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    count_include_pad: bool,
    multiplier: Array,
    zero_points: tuple[Array, Array],
    low: int,
    high: int,
    **fixed: Any,
) -> Array:
    """clamp(rint(f32(sum(x - zx)) * f32(m0 / f32(count))) + zy, low, high); `zero_points` are (zx, zy); i64.

    With `shift` and `rounding` (mode "fixed"): clamp(round(sum(x - zx) * m0 / 2^shift) + zy, low, high), the count being part of m0.
    """
    zx, zy = zero_points
    total = np.asarray(sum(_windows(_minus(x, zx), kernel, strides, padding, (1, 1), 0), start=np.int64(0)))
    if fixed:
        return _from_fixed(_product(total, multiplier), zy, low, high, **fixed)
    counts = _window_counts(x, kernel, strides, padding, count_include_pad)
    return _to_integer(np.rint(total.astype(F32) * (multiplier.astype(F32) / counts)), zy, low, high)


def _windows(
    x: Array, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int], dilations: Sequence[int], fill: float
) -> Iterator[Array]:
    """For every tap in row-major order what all windows see of it: [n, c, oh, ow]."""
    height, width = shapes.window2d(x.shape[2:], kernel, strides, padding, dilations)
    top, left, bottom, right = padding
    x_pad = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    for p, q in np.ndindex(*kernel):
        i, j = p * dilations[0], q * dilations[1]
        yield x_pad[:, :, i : i + (height - 1) * strides[0] + 1 : strides[0], j : j + (width - 1) * strides[1] + 1 : strides[1]]


def _window_counts(x: Array, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int], count_include_pad: bool) -> Array:
    """How many elements each window averages over: [1, 1, oh, ow] f32. A window wholly in the padding counts 1 and so gives 0."""
    inside = np.ones((1, 1, *x.shape[2:]), F32)
    counts = sum(_windows(inside, kernel, strides, padding, (1, 1), float(count_include_pad)), start=F32(0))
    return np.maximum(np.asarray(counts), F32(1))


# --- along axes ---------------------------------------------------------------------------------------------------------------------


def reduce(x: Array, *, kind: str, axes: Sequence[int], keepdims: bool) -> Array:
    """Mean, sum, max or min over `axes`, f32; sums as `float_ops.lane_sum` of the reduced axes in row-major order."""
    kept = [i for i in range(x.ndim) if i not in axes]
    count = int(np.prod([x.shape[i] for i in axes]))
    rows = np.transpose(x, [*kept, *sorted(axes)]).reshape(*[x.shape[i] for i in kept], count)
    if kind == "max":
        y = rows.max(axis=-1)
    elif kind == "min":
        y = rows.min(axis=-1)
    else:
        y = float_ops.lane_sum(rows)
        y = y / F32(count) if kind == "mean" else y
    return y.reshape([1 if i in axes else s for i, s in enumerate(x.shape)]) if keepdims else y


def softmax(x: Array, *, axis: int) -> Array:
    """exp(x - max) / sum(exp(x - max)) along `axis`; the exact order is in `float_ops.softmax`."""
    return np.moveaxis(float_ops.softmax(np.moveaxis(x, axis, -1)), -1, axis)


def softmax_quantized(x: Array, *, axis: int, table: Array, multiplier: np.float32, zero_point: Array, qmin: int, qmax: int) -> Array:
    """e = table[max - x] along `axis`; clamp(rint(f32(e) * (multiplier / f32(sum(e)))) + zero_point, qmin, qmax); x stored integers."""
    wide = x.astype(np.int64)
    e = table.reshape(-1).astype(np.int64)[wide.max(axis=axis, keepdims=True) - wide]
    factor = F32(multiplier) / e.sum(axis=axis, keepdims=True).astype(F32)
    return np.clip(np.rint(e.astype(F32) * factor).astype(np.int64) + zero_point, qmin, qmax)


def _dynamic(x: Array, rows: str | None, epsilon: float | None) -> tuple[Array, Array]:
    """(u8 level - zero point as i64, scale as f32 that broadcasts) of x; see `RoundDynamic` in the dialect."""
    axis = None if rows is None else -1
    low = np.minimum(F32(0), x.min(axis=axis, keepdims=True, initial=0))
    high = np.maximum(F32(0), x.max(axis=axis, keepdims=True, initial=0))
    if rows is None:  # ONNX DynamicQuantizeLinear
        scale = (high - low) / F32(255)
        scale = np.where(scale == 0, F32(1), scale)
        levels = np.rint(x / scale)
    else:
        scale = np.maximum(-low, high) / F32(127.5) if rows == "symmetric" else (high - low) / F32(255)
        scale = np.maximum(scale, F32(epsilon))
        levels = np.rint(x * (F32(1) / scale))
    zero = np.full_like(scale, 128) if rows == "symmetric" else np.clip(np.rint(-low / scale), 0, 255)
    zero = zero.astype(np.int64)
    return np.clip(levels.astype(np.int64) + zero, 0, 255) - zero, scale


def round_dynamic(x: Array, *, rows: str | None = None, epsilon: float | None = None) -> Array:
    """x on 256 levels from its least to its greatest element and 0, of the whole tensor or of each row."""
    levels, scale = _dynamic(x, rows, epsilon)
    return levels.astype(F32) * scale


def dynamic_linear(
    x: Array, w: Array, bias: Array | None = None, *, scales: Array, rows: str | None = None, epsilon: float | None = None
) -> Array:
    """f32(sum (q - zero) * w) * (scale * scales) + bias; x [..., in] f32, w [out, in] integers, `scales` [1] or [out] f32."""
    levels, scale = _dynamic(x, rows, epsilon)
    acc = levels @ w.astype(np.int64).T
    y = acc.astype(F32) * (scale.reshape(-1)[0] * scales.astype(F32) if rows is None else scale * scales.astype(F32))
    return y if bias is None else y + bias


def layer_norm(x: Array, gamma: Array, beta: Array, *, axes: int, epsilon: float) -> Array:
    """Normalisation over the last `axes` axes, then * gamma + beta; the exact order is in `float_ops.normalize`."""
    rows = x.reshape(*x.shape[: x.ndim - axes], -1)
    return float_ops.normalize(rows, epsilon).reshape(x.shape) * gamma + beta


def rms_norm(x: Array, gamma: Array | None = None, *, axes: int, epsilon: float) -> Array:
    """x over the root mean square of its last `axes` axes, then * gamma; the exact order is in `float_ops.rms_normalize`."""
    rows = x.reshape(*x.shape[: x.ndim - axes], -1)
    y = float_ops.rms_normalize(rows, epsilon).reshape(x.shape)
    return y if gamma is None else y * gamma


def attention(q: Array, k: Array, v: Array, mask: Array | None = None, *, scale: float, causal: bool) -> Array:
    """softmax(q k^T * scale + mask) v, with q [..., t, d], k [..., s, d], v [..., s, e].

    Mask: f32 is added, bool keeps where true. `causal` keeps s <= t. A row in which nothing is kept gives NaN, as in PyTorch's mathematics.
    """
    scores = matmul(q, np.swapaxes(k, -1, -2)) * F32(scale)
    if mask is not None:
        scores = np.where(mask, scores, F32(-np.inf)) if mask.dtype == np.bool_ else scores + mask
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, F32(-np.inf))
    return matmul(softmax(scores, axis=scores.ndim - 1), v)


# --- data movement, on floats and on stored integers --------------------------------------------------------------------------------


def embedding(table: Array, ids: Array) -> Array:
    """Rows of `table` [vocabulary, width]; ids [...] count from 0, negative ones from the end. Raises IndexError outside of it."""
    if ids.size and not (-table.shape[0] <= int(ids.min()) and int(ids.max()) < table.shape[0]):
        raise IndexError(f"ids hold {int(ids.min())}..{int(ids.max())}, expected {-table.shape[0]}..{table.shape[0] - 1}")
    return table[ids]


def insert(x: Array, rows: Array, positions: Array, *, axis: int) -> Array:
    """x [..., n, ...] with rows [..., i, ...] at positions[i] of `axis`, the last where they repeat. Raises IndexError outside of it."""
    n = x.shape[axis]
    if positions.size and not (-n <= int(positions.min()) and int(positions.max()) < n):
        raise IndexError(f"positions hold {int(positions.min())}..{int(positions.max())}, expected {-n}..{n - 1}")
    y = np.moveaxis(x, axis, 0).copy()
    y[positions] = np.moveaxis(rows, axis, 0)
    return np.moveaxis(y, 0, axis)


def concat(xs: Sequence[Array], *, dim: int) -> Array:
    """`tensor.concat`: xs one after the other along `dim`."""
    return np.concatenate(xs, axis=dim)


def reshape(x: Array, *, shape: Sequence[int]) -> Array:
    """Same elements in row-major order."""
    return x.reshape(shape)


def transpose(x: Array, *, permutation: Sequence[int]) -> Array:
    """Axis i of the result is axis permutation[i] of x."""
    return np.transpose(x, permutation)


def slice_(x: Array, *, offsets: Sequence[int], strides: Sequence[int], shape: Sequence[int]) -> Array:
    """x[offset : offset + stride * size : stride] per axis (`qcc.slice`)."""
    return x[tuple(slice(o, o + s * (size - 1) + 1 if size else o, s) for o, s, size in zip(offsets, strides, shape, strict=True))]


def pad(x: Array, *, low: Sequence[int], high: Sequence[int], value: Array | float = 0.0) -> Array:
    """x with `value` (the zero point of a quantized tensor, which may differ per channel) around it."""
    y = np.empty([lo + s + hi for lo, s, hi in zip(low, x.shape, high, strict=True)], x.dtype)
    y[...] = value
    y[tuple(slice(lo, lo + s) for lo, s in zip(low, x.shape, strict=True))] = x
    return y


def broadcast(x: Array, *, shape: Sequence[int]) -> Array:
    """numpy.broadcast_to."""
    return np.broadcast_to(x, shape)
