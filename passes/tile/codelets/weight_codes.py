"""Compressed weights [n, k] as codes, levels, scales and zeros: the one shape in which every format reaches a streamed layer.

real[n, k] = scale[n, group of k] * (level(code[n, k]) - zero[n, group of k]).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types
from qcc.dialects.integer_values import integers
from qcc.dialects.mlir import ir
from qcc.dialects.real_values import decode

Array = np.ndarray[Any, Any]
F32 = np.float32
MOST_LEVELS = 256
LEVELS_BITS = 0.75  # of the bits of integers, from which on indices into levels are worth that they are no integers


@dataclass(frozen=True)
class Codes:
    """`codes` u8 [n, k] of `bits` bits; scales f32 and zeros i64 [n, groups] for `group` k each.

    `levels` f32 [2^bits] where codes name real levels; without, level(code) = `step` * code, an integer. `float_bits` (bits of exponent
    and mantissa, bias) where the code is a small float whose value `levels` holds as well. `repeats`: x stands that often side by side, so
    that n and k are those of the codes.
    """

    codes: Array
    bits: int
    scales: Array
    zeros: Array
    group: int
    step: int = 1
    levels: Array | None = None
    small_float: tuple[int, int, int] | None = None
    repeats: int = 1


def codes_of(stored: Array, kind: ir.RankedTensorType) -> Codes | None:
    """The codes of weights `stored` [n, k] of type `kind`; None where scales vary along single k, or levels along the tensor."""
    if len(kind.shape) != 2 or 0 in kind.shape:
        return None
    kind = ir.RankedTensorType.get(list(kind.shape), kind.element_type, loc=ir.Location.unknown(kind.context))  # zeros are found anew
    if (a := element_types.affine(kind)) is not None:
        scales, zeros = (_blocks(a.scales, a, kind.shape), _blocks(a.zero_points, a, kind.shape))
        return None if scales is None or zeros is None else _from_integers(stored, scales, zeros)
    d = types.describe(kind)
    if d is None:
        return None
    if element_types.has_integers(kind) and not isinstance(d, types.Codebook):
        unit = d.positive if isinstance(d, types.Ternary) else np.ldexp(d.scales, d.least) if isinstance(d, types.Log2) else d.scales
        scales = _spread(unit.astype(F32), kind.shape)
        return None if scales is None else _from_integers(integers(stored, kind), scales, np.zeros_like(scales, np.int64))
    if isinstance(d, types.Ternary) and d.negative.size * d.positive.size > 1:
        return _from_two_signs(stored, d)
    return _from_levels(stored, kind, d)


def _from_two_signs(stored: Array, d: types.Ternary) -> Codes | None:
    """Where positive weights stand, and beside that where negative ones do: a bit each, with scales of their own (TTQ)."""
    positive, negative = (_spread(v.astype(F32), list(stored.shape)) for v in (d.positive, d.negative))
    if positive is None or negative is None:
        return None
    groups = max(positive.shape[1], negative.shape[1])
    if groups % positive.shape[1] or groups % negative.shape[1]:
        return None
    scales = [np.repeat(v, groups // v.shape[1], axis=1) for v in (positive, -negative)]
    codes = np.concatenate([stored > 0, stored < 0], axis=1).astype(np.uint8)
    zeros = np.zeros((len(stored), 2 * groups), np.int64)
    return Codes(codes, 1, np.concatenate(scales, axis=1), zeros, stored.shape[1] // groups, repeats=2)


def _blocks(values: Array, a: element_types.Affine, shape: list[int]) -> Array | None:
    """Scales or zero points of an affine type as [n, groups]."""
    sizes = [1, 1]
    if a.block is not None:
        for axis, size in zip(a.block_axes, values.shape, strict=True):
            sizes[axis] = size
    elif a.axis is not None:
        sizes[a.axis] = values.size
    return _spread(values.reshape(sizes), shape)


def _spread(values: Array, shape: list[int]) -> Array | None:
    """One value per block as [n, groups]; None where a group would be shorter than 4."""
    values = values.reshape([1, 1]) if values.size == 1 else values
    rows, groups = values.shape
    if shape[1] % groups or shape[0] % rows or (groups > 1 and shape[1] // groups < 4):
        return None
    return np.repeat(values, shape[0] // rows, axis=0)


def _from_integers(stored: Array, scales: Array, zeros: Array) -> Codes | None:
    """Integers as steps of an arithmetic progression, or as indices into the levels in use where that takes far fewer bits."""
    used = _used(stored)
    low, step = int(used[0]), math.gcd(*(int(v) for v in np.diff(used))) or 1
    bits = max(1, int((used[-1] - low) // step).bit_length())
    least = max(1, (used.size - 1).bit_length())
    group = stored.shape[1] // scales.shape[1]
    zeros = zeros.astype(np.int64)
    if least <= LEVELS_BITS * bits and used.size <= MOST_LEVELS and np.abs(used).max() < 1 << 24:
        codes = _renamed(stored, used, np.arange(used.size))
        return Codes(codes, least, scales.astype(F32), zeros, group, levels=_padded(used.astype(F32), least))
    if bits > 8:
        return None
    codes = _renamed(stored, used, (used - low) // step)
    return Codes(codes, bits, scales.astype(F32), zeros - low, group, step)


def _used(stored: Array) -> Array:
    """The distinct integers of `stored`, ascending, i64."""
    if stored.dtype.itemsize > 1:
        return np.unique(stored).astype(np.int64)
    found = np.flatnonzero(np.bincount(np.ascontiguousarray(stored).view(np.uint8).reshape(-1), minlength=256))
    return np.sort(found.astype(np.uint8).view(stored.dtype).astype(np.int64))


def _renamed(stored: Array, used: Array, codes: Array) -> Array:
    """u8 array with codes[i] where `stored` is used[i]."""
    if stored.dtype.itemsize > 1:
        return codes.astype(np.uint8)[np.searchsorted(used, stored)]
    table = np.zeros(256, np.uint8)
    table[used.astype(stored.dtype).view(np.uint8)] = codes
    return table[stored.view(np.uint8)]


def _from_levels(stored: Array, kind: ir.RankedTensorType, d: types.Description) -> Codes | None:
    """Real levels that are the same in the whole tensor, times scales."""
    shape = list(kind.shape)
    match d:
        case types.Codebook(levels=levels) if levels.ndim == 1:
            table, codes, scales, small = levels.astype(F32), stored, d.scales, None
        case types.Ternary(negative=negative, positive=positive) if negative.size == positive.size == 1:
            table, codes = np.array([-negative.item(), 0, positive.item()], F32), stored + 1
            scales, small = np.ones(1, F32), None
        case types.Scaled(element=element) | types.Blockscaled(element=element) if isinstance(element, ir.FloatType) and d.bits <= 8:
            codes, scales = stored.view(np.uint8), d.scales.astype(F32)
            table = np.arange(1 << d.bits, dtype=np.uint8).view(stored.dtype).astype(F32)
            small = _SMALL_FLOATS.get(str(element))
        case types.Blockscaled():
            scales = _spread(d.scales.astype(F32) * F32(2.0**-6), shape) if str(d.element) == "i8" else None
            return None if scales is None else _from_integers(stored, scales, np.zeros_like(scales, np.int64))
        case types.Minifloat() if d.bits <= 8:
            count = 1 << d.bits
            plain = types.make_type(types.Minifloat(d.exponent, d.mantissa, d.bias, d.special, np.ones(1, F32)))
            table = decode(np.arange(count, dtype=np.uint8), ir.RankedTensorType.get([count], plain, loc=ir.Location.unknown()))
            codes, scales, small = stored, d.scales, (d.exponent, d.mantissa, d.bias)
        case _:
            return None
    spread = _spread(scales.astype(F32), shape)
    if spread is None:
        return None
    codes = codes.astype(np.uint8)
    used = np.flatnonzero(np.bincount(codes.reshape(-1), minlength=table.size))
    bits, full = (max(1, (size - 1).bit_length()) for size in (used.size, table.size))
    if small is not None and (bits <= 6 or small[0] > 5 or not np.isfinite(table[used]).all()):
        small = None  # a table is as quick, or a half cannot hold it
    if small is None and bits < full:  # levels that no weight has need no code
        new = np.zeros(table.size, np.uint8)
        new[used] = np.arange(used.size)
        codes, table = new[codes], table[used]
    else:
        bits = full
    return Codes(codes, bits, spread, np.zeros(spread.shape, np.int64), shape[1] // spread.shape[1], 1, _padded(table, bits), small)


_SMALL_FLOATS = {"f8E5M2": (5, 2, 15), "f8E4M3FN": (4, 3, 7)}
"""Exponent bits, mantissa bits, bias."""


def _padded(levels: Array, bits: int) -> Array:
    """[2^bits], levels that no code names being 0."""
    padded = np.zeros(1 << bits, F32)
    padded[: levels.size] = levels
    return padded
