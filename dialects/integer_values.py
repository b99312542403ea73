"""The integers behind stored elements of every element type that has them, and what one unit of them is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir

Array = np.ndarray[Any, Any]
F32 = np.float32


def integers(stored: Array, kind: ir.RankedTensorType) -> Array:
    """The integers that integer compute multiplies, i64: real = integers * `integer_scale`. Raises QccError for types without any."""
    element = kind.element_type
    if isinstance(element, ir.IntegerType):
        return stored.astype(np.int64)
    if (a := element_types.affine(kind)) is not None:
        wide = stored.astype(np.int64)
        return wide - a.expand(a.zero_points, kind.shape) if a.zero_points.any() else wide
    d = types.describe(kind)
    if d is None or not element_types.has_integers(kind):
        raise QccError(f"{element} has no integer values to compute with; insert qcc.dequantize")
    match d:
        case types.Log2():
            magnitude = np.abs(stored.astype(np.int64))
            return np.sign(stored.astype(np.int64)) * np.where(magnitude > 0, np.int64(1) << np.maximum(magnitude - 1, 0), 0)
        case types.Codebook():
            return levels(stored, d).astype(np.int64)
        case _:  # binary and symmetric ternary are stored as the integers they are
            return stored.astype(np.int64)


def integer_scale(kind: ir.RankedTensorType) -> Array:
    """f32 array that broadcasts against the tensor: what one unit of `integers` is worth."""
    if (a := element_types.affine(kind)) is not None:
        return a.expand(a.scales, kind.shape)
    match types.describe(kind):
        case types.Ternary(positive=scales):
            return expand_blocks(scales, kind.shape)
        case types.Log2() as d:
            return np.ldexp(expand_blocks(d.scales, kind.shape), d.least).astype(F32)
        case types.Binary(scales=scales) | types.Codebook(scales=scales):
            return expand_blocks(scales, kind.shape)
        case _:
            raise QccError(f"{kind.element_type} has no integer values to compute with; insert qcc.dequantize")


def expand_blocks(values: Array, shape: Sequence[int]) -> Array:
    """Scales (one entry, or sizes that divide `shape`) as an array that broadcasts against a tensor of `shape`."""
    if values.size == 1:
        return values.reshape([1] * len(shape))
    for axis, (count, size) in enumerate(zip(values.shape, shape, strict=True)):
        if count not in (1, size):
            values = np.repeat(values, size // count, axis=axis)
    return values


def levels(stored: Array, d: types.Codebook) -> Array:
    """The level that each index `stored` names, in the levels' own dtype."""
    if d.levels.ndim == 1:
        return d.levels[stored]
    table = d.levels
    for axis, size in enumerate(stored.shape):
        table = np.repeat(table, size // table.shape[axis], axis=axis)
    return np.take_along_axis(table, stored[..., None].astype(np.int64), axis=-1)[..., 0]
