"""Floats of any (exponent, mantissa) width: exact conversion between bit codes and binary32."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from qcc.dialects.compressed_types import Minifloat

Array = np.ndarray[Any, Any]


def decode(code: Array, d: Minifloat) -> Array:
    """f32 values of bit codes [sign | exponent | mantissa]."""
    code = code.astype(np.int64)
    mantissa = code & ((1 << d.mantissa) - 1)
    exponent = (code >> d.mantissa) & ((1 << d.exponent) - 1)
    significand = np.where(exponent > 0, mantissa + (1 << d.mantissa), mantissa)
    value = np.ldexp(significand.astype(np.float64), np.maximum(exponent, 1) - d.bias - d.mantissa)
    last = exponent == (1 << d.exponent) - 1
    if d.special == "ieee":
        value = np.where(last, np.where(mantissa == 0, np.inf, np.nan), value)
    elif d.special == "fn":
        value = np.where(last & (mantissa == (1 << d.mantissa) - 1), np.nan, value)
    return np.where(code >> (d.bits - 1) & 1, -value, value).astype(np.float32)


def encode(x: Array, d: Minifloat) -> Array:
    """Bit codes of f32 values: half to even, saturating to the greatest finite number; NaN is 0 where the format has none."""
    top = _greatest_code(d)
    magnitude = np.abs(x.astype(np.float64))
    finite = np.where(np.isfinite(magnitude), magnitude, 0)
    # the exponent field; the least one serves normal numbers, subnormal ones and zero
    exponent = np.where(finite == 0, 1, np.maximum(np.frexp(finite)[1] - 1 + d.bias, 1))
    significand = np.rint(np.ldexp(finite, d.mantissa + d.bias - exponent)).astype(np.int64)  # up to 2^(mantissa + 1), carry included
    code = significand + ((exponent - 1) << d.mantissa)  # an implicit leading one adds the missing 1 to the exponent field
    code = np.where(np.isinf(magnitude), top, np.minimum(code, top))
    if d.special != "none":
        nan = ((1 << d.exponent) - 1 << d.mantissa) | ((1 << d.mantissa) - 1)
        code = np.where(np.isnan(magnitude), nan, code)
    code = code | (np.signbit(x).astype(np.int64) << (d.bits - 1))
    code = np.where(np.isnan(magnitude) & (d.special == "none"), 0, code)
    return code.astype(np.uint8 if d.bits <= 8 else np.uint16)


def _greatest_code(d: Minifloat) -> int:
    most = (1 << (d.exponent + d.mantissa)) - 1
    return {"none": most, "fn": most - 1, "ieee": most - (1 << d.mantissa)}[d.special]


def greatest(dtype: np.dtype[Any]) -> np.float32:
    """Greatest finite number of a numpy or ml_dtypes float type."""
    return np.float32(ml_dtypes.finfo(dtype).max)
