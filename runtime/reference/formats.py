"""What stored elements of every element type mean, and how real values become stored ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects import element_types
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import ir

Array = np.ndarray[Any, Any]


def integers(stored: Array, kind: ir.RankedTensorType) -> Array:
    """The integers that integer compute multiplies, i64: real = integers * scale. Raises QccError for types that have none."""
    if isinstance(kind.element_type, ir.IntegerType):
        return stored.astype(np.int64)
    if (a := element_types.affine(kind)) is not None:
        return stored.astype(np.int64) - a.expand(a.zero_points, kind.shape)
    raise QccError(f"{kind.element_type} has no integer values to compute with; insert qcc.dequantize")


def decode(stored: Array, kind: ir.RankedTensorType) -> Array:
    """Real values of `stored`, f32."""
    if (a := element_types.affine(kind)) is not None:
        return integers(stored, kind).astype(np.float32) * a.expand(a.scales, kind.shape)
    raise QccError(f"{kind.element_type} has no real values")


def encode(real: Array, kind: ir.RankedTensorType) -> Array:
    """Stored values of `real` f32, rounded as the type says."""
    from qcc.runtime.reference import qcc as meaning

    if (a := element_types.affine(kind)) is not None:
        stored = meaning.quantize(
            real, scale=a.expand(a.scales, kind.shape), zero_point=a.expand(a.zero_points, kind.shape), qmin=a.qmin, qmax=a.qmax
        )
        return stored.astype(element_types.storage_dtype(kind))
    raise QccError(f"{kind.element_type} cannot be quantized to")
