"""What stored elements of every element type mean, and how real values become stored ones.

`stored` arrays have the storage dtype of their type (`element_types.storage_dtype`): integers for affine, level and codebook types, bit
codes for minifloats, ml_dtypes arrays for builtin floats. All arithmetic on scales is binary32, each operation rounded on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types, minifloat, weights
from qcc.dialects.errors import QccError
from qcc.dialects.integer_values import expand_blocks, integer_scale, integers
from qcc.dialects.mlir import ir
from qcc.dialects.real_values import block_unit, decode
from qcc.runtime.reference import qcc as meaning

Array = np.ndarray[Any, Any]
F32 = np.float32
__all__ = ["decode", "encode", "expand_blocks", "integer_scale", "integers", "microscale", "zero"]


def encode(real: Array, kind: ir.RankedTensorType) -> Array:
    """Stored values of `real` (f32, in `kind`'s shape): the nearest representable ones. Ties and special cases:

    * affine: half to even, saturating; NaN gives the least.
    * binary: 0 and NaN are positive. Ternary: the nearest of the three, ties to 0. Codebook: the nearest level, ties to the first.
    * log2: nearest in the logarithm (LogNet); below the least power by more than half an octave 0; saturating; unsigned: negatives are 0.
    * floats: half to even, saturating to the greatest finite number; NaN stays NaN where the format has one, else 0.
    """
    shape = kind.shape
    dtype = element_types.storage_dtype(kind)
    real = np.asarray(real, F32)
    if (a := element_types.affine(kind)) is not None:
        scale, zero_point = a.expand(a.scales, shape), a.expand(a.zero_points, shape)
        return meaning.quantize(real, scale=scale, zero_point=zero_point, qmin=a.qmin, qmax=a.qmax).astype(dtype)
    match types.describe(kind):
        case types.Binary():
            return np.where(real < 0, -1, 1).astype(dtype)
        case types.Ternary() as d:
            up = real * F32(2) > expand_blocks(d.positive, shape)
            down = real * F32(2) < -expand_blocks(d.negative, shape)
            return up.astype(dtype) - down.astype(dtype)
        case types.Log2() as d:
            return _encode_log2(real / expand_blocks(d.scales, shape), d).astype(dtype)
        case types.Codebook() as d:
            return _nearest_level(real / expand_blocks(d.scales, shape), d).astype(dtype)
        case types.Scaled() as d:
            return _to_float(real / expand_blocks(d.scales, shape), dtype)
        case types.Blockscaled() as d:
            mantissa = real / expand_blocks(d.scales.astype(F32), shape) / block_unit(d)
            return _to_float(mantissa, dtype) if dtype.kind != "i" else np.clip(np.rint(mantissa), -127, 127).astype(dtype)
        case types.Minifloat() as d:
            return minifloat.encode(real / expand_blocks(d.scales, shape), d)
        case None:
            return real.astype(dtype)


def zero(kind: ir.RankedTensorType) -> Array:
    """The stored element of real value 0, broadcastable against the tensor. Raises QccError for types without zero (binary)."""
    dtype = element_types.storage_dtype(kind)
    if (a := element_types.affine(kind)) is not None:
        return a.expand(a.zero_points, kind.shape).astype(dtype)
    match types.describe(kind):
        case types.Binary():
            raise QccError(f"{kind.element_type} has no zero, so its tensors cannot be sparse; expected ternary or affine elements")
        case types.Codebook() as d:
            if not (d.levels == 0).any(axis=-1).all():
                raise QccError("codebook without a level 0, so its tensors cannot be sparse; add the level")
            index = (d.levels == 0).argmax(axis=-1)
            return expand_blocks(index.reshape(1) if d.levels.ndim == 1 else index, kind.shape).astype(dtype)
        case _:
            return np.zeros((), dtype)


def microscale(real: Array, element: ir.Type, block: Sequence[int]) -> types.Blockscaled:
    """The MX block format of `real`: per block 2^(floor(log2(max |x|)) - greatest exponent of `element`) (OCP MX v1.0, 6.3)."""
    blocks = [n for s, b in zip(real.shape, block, strict=True) for n in (s // b, b)]
    greatest = np.abs(real.astype(F32)).reshape(blocks).max(axis=tuple(range(1, len(blocks), 2)))
    top = 0 if str(element) == "i8" else int(np.frexp(float(minifloat.greatest(weights.numpy_dtype(element))))[1]) - 1
    exponent = np.where(greatest > 0, np.frexp(greatest)[1] - 1 - top, 0)
    scales = np.ldexp(F32(1), np.clip(exponent, -126, 127)).astype(weights.numpy_dtype(ir.Float8E8M0FNUType.get()))
    return types.Blockscaled(element, tuple(block), scales)


def _nearest_level(x: Array, d: types.Codebook) -> Array:
    best, index = np.full(x.shape, np.inf, np.float64), np.zeros(x.shape, np.uint8)
    for k in range(d.levels.shape[-1]):
        level = d.levels[..., k].astype(np.float64)
        distance = np.abs(x - (expand_blocks(level, x.shape) if level.ndim else level))
        index = np.where(distance < best, k, index)
        best = np.minimum(best, distance)
    return index


def _encode_log2(x: Array, d: types.Log2) -> Array:
    mantissa, exponent = np.frexp(np.abs(x))  # mantissa in [1/2, 1)
    nearest = exponent - (mantissa < np.sqrt(0.5))  # round(log2 |x|)
    code = np.where((x == 0) | np.isnan(x), 0, np.clip(nearest - d.least + 1, 0, d.most))
    code = np.where(np.isinf(x), d.most, code)
    return np.where(x < 0, -code if d.signed else 0, code)


def _to_float(x: Array, dtype: np.dtype[Any]) -> Array:
    """Half to even into an ml_dtypes or numpy float, saturating."""
    bound = minifloat.greatest(dtype)
    saturated = np.where(np.isnan(x), x, np.clip(x, -bound, bound))
    has_nan = bool(np.isnan(np.array(np.nan).astype(dtype).astype(F32)))
    return np.where(np.isnan(x) & (not has_nan), F32(0), saturated).astype(F32).astype(dtype)
