"""The real values of stored elements of every element type. All arithmetic on scales is binary32, each operation rounded on its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types, minifloat
from qcc.dialects.integer_values import expand_blocks, integers, levels
from qcc.dialects.mlir import ir

Array = np.ndarray[Any, Any]
F32 = np.float32
MXINT8_UNIT = F32(2.0**-6)  # an i8 element of a microscaling block counts in sixty-fourths (OCP MX v1.0, 5.3.4)


def decode(stored: Array, kind: ir.RankedTensorType) -> Array:
    """Real values of `stored`, f32 in `kind`'s shape."""
    shape = kind.shape
    if (a := element_types.affine(kind)) is not None:
        return integers(stored, kind).astype(F32) * a.expand(a.scales, shape)
    match types.describe(kind):
        case types.Binary(scales=scales):
            return stored.astype(F32) * expand_blocks(scales, shape)
        case types.Ternary() as d:
            return np.where(stored > 0, expand_blocks(d.positive, shape), np.where(stored < 0, -expand_blocks(d.negative, shape), F32(0)))
        case types.Log2() as d:
            code = stored.astype(np.int32)
            power = np.ldexp(np.sign(code).astype(F32), d.least + np.abs(code) - 1)
            return power * expand_blocks(d.scales, shape)
        case types.Codebook() as d:
            return levels(stored, d).astype(F32) * expand_blocks(d.scales, shape)
        case types.Scaled(scales=scales):
            return stored.astype(F32) * expand_blocks(scales, shape)
        case types.Blockscaled() as d:
            return stored.astype(F32) * block_unit(d) * expand_blocks(d.scales.astype(F32), shape)
        case types.Minifloat() as d:
            return minifloat.decode(stored, d) * expand_blocks(d.scales, shape)
        case None:
            return stored.astype(F32)


def block_unit(d: types.Blockscaled) -> np.float32:
    """What a stored 1 of a microscaling element counts before its block's scale."""
    return MXINT8_UNIT if str(d.element) == "i8" else F32(1)
