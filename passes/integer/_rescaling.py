"""The rescaling arithmetic of the integer form on arrays of bounds: what `requantize` and its relatives make of an integer.

All functions are monotone in their integers for positive multipliers, so the images of two bounds bound all images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.dialects.element_types import Affine
from qcc.dialects.mlir import op_attribute

Array = np.ndarray[Any, Any]
Rescale = Callable[[Array], Array]


def rescaling(op: Any, zero_point: int, low: int, high: int) -> Rescale:
    """The function of `qcc.requantize` `op` on centred integers (zero point and bias already applied), i64 to i64.

    Values have one entry, or one per channel, as `multiplier` has.
    """
    multiplier = op_attribute(op, "multiplier").reshape(-1)
    if op_attribute(op, "mode") == "fixed":
        shift, rounding = op_attribute(op, "shift").reshape(-1), op_attribute(op, "rounding", "half_even")
        return lambda acc: np.clip(shifted(acc * multiplier.astype(np.int64), shift, rounding) + zero_point, low, high)
    return lambda acc: rounded(acc.astype(np.float32) * multiplier, zero_point, low, high)


def combined(op: Any, a: Array, b: Array, kind: Affine) -> Array:
    """What `qcc.add`, `sub` or `mul` `op`, whose result is of `kind`, makes of centred integers, i64."""
    m, zero = op_attribute(op, "multipliers").reshape(-1), int(kind.zero_points[0])
    low, high = op_attribute(op, "clamp", [kind.qmin, kind.qmax])
    fixed = op_attribute(op, "mode", "f32") == "fixed"
    number = np.int64 if fixed else np.float32
    if op.name == "qcc.mul":
        real = (a * b).astype(number) * m[0].astype(number)
    else:
        first, second = a.astype(number) * m[0].astype(number), b.astype(number) * m[1].astype(number)
        real = first + second if op.name == "qcc.add" else first - second
    if fixed:
        value = shifted(real, op_attribute(op, "shift").reshape(-1)[0], op_attribute(op, "rounding", "half_even"))
        return np.clip(value + zero, low, high)
    return rounded(real, zero, low, high)


def rounded(real: Array, zero_point: int, low: int, high: int) -> Array:
    """clamp(rint(real) + zero_point, low, high), i64."""
    return np.clip(np.rint(real.astype(np.float64)) + zero_point, low, high).astype(np.int64)


def shifted(product: Array, shift: Array, rounding: str) -> Array:
    """round(product / 2^shift) in 64-bit integers, ties as `rounding` says."""
    product, shift = np.asarray(product, np.int64), np.asarray(shift, np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), 0)
    if rounding == "half_away":
        return np.sign(product) * ((np.abs(product) + half) >> shift)
    floor = product >> shift
    rest = product - (floor << shift)
    return floor + ((rest > half) | ((rest == half) & (shift > 0) & (floor & 1 == 1)))


def unsaturated(function: Rescale, low: Array, high: Array) -> tuple[Array, Array]:
    """For monotone `function` and integers in low..high (arrays, one entry per channel) the bounds beyond which it saturates.

    Returns (a, b), low <= a <= b <= high, such that function(x) == function(clip(x, a, b)) for all x in low..high, by bisection.
    """
    least, greatest = function(low), function(high)
    left, right = low.copy(), high.copy()  # greatest a with function(a) == least
    while (left < right).any():
        middle = left + (right - left + 1) // 2
        same = function(middle) == least
        left, right = np.where(same, middle, left), np.where(same, right, middle - 1)
    a = left
    left, right = a.copy(), high.copy()  # least b with function(b) == greatest
    while (left < right).any():
        middle = left + (right - left) // 2
        same = function(middle) == greatest
        left, right = np.where(same, left, middle + 1), np.where(same, middle, right)
    return a, left
