"""Float weights of few levels as codes, levels and scales: what a coded artefact holds instead of them (`dialects/weight_recipes.py`).

Dense codelets read float weights; these recipes make them of the stored elements, bit for bit as `real_values.decode` does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qcc.dialects import compressed_types as types
from qcc.dialects import element_types
from qcc.dialects.integer_values import integers
from qcc.dialects.mlir import ir
from qcc.dialects.real_values import block_unit, decode
from qcc.dialects.weight_recipes import PANELS_BF16, PANELS_F32, WINOGRAD_F32, Recipe

Array = np.ndarray[Any, Any]
F32 = np.float32
MOST_LEVELS = 256
MOST_VECTORS = 255
_WIDEST = 1 << 16


@dataclass(frozen=True)
class LevelCodes:
    """Weights [o, i, kh, kw]: codes u8; levels f32 [1 or o, 1 or groups of i, K]; scales f32 [1 or o, groups of i, 1 or kh, 1 or kw], where
    levels have groups without kh and kw; zeros as scales, or None.

    real = (levels[o or 0, group or 0, code] - zero) * scale.
    """

    codes: Array
    levels: Array
    scales: Array
    zeros: Array | None = None

    def panels(self, groups: int, element: str, lanes: int, vectors: int) -> Recipe:
        """For a contraction over (kh, kw, i), `element` f32 or bf16."""
        o, i = self.codes.shape[:2]
        source = self.codes.reshape(groups, o // groups, *self.codes.shape[1:]).transpose(0, 1, 3, 4, 2).reshape(groups, o // groups, -1)
        rows, inputs, kh, kw = self.scales.shape
        period = i if kh * kw == 1 else source.shape[2]
        scales, zeros = (None if a is None else a.transpose(0, 2, 3, 1).reshape(rows, -1) for a in (self.scales, self.zeros))
        layout = PANELS_F32 if element == "f32" else PANELS_BF16
        return Recipe(layout, lanes, vectors, source, self.levels, scales, zeros, period=period, group=i // inputs)

    def winograd(self, lanes: int, vectors: int) -> Recipe | None:
        """For 3x3 kernels; None where scales vary within a kernel."""
        o, i = self.codes.shape[:2]
        rows, inputs, kh, kw = self.scales.shape
        if kh * kw > 1:
            return None
        source = self.codes.reshape(1, o, i * 9)
        scales, zeros = (None if a is None else a.reshape(rows, inputs) for a in (self.scales, self.zeros))
        return Recipe(WINOGRAD_F32, lanes, vectors, source, self.levels, scales, zeros, inner=9, period=i, group=i // inputs)

    def taps(self, lanes: int) -> Recipe | None:
        """For a depthwise layer, [taps][channel]."""
        vectors = -(-len(self.codes) // lanes)
        return self.panels(1, "f32", lanes, vectors) if vectors <= MOST_VECTORS else None


def level_codes(stored: Array, kind: ir.RankedTensorType) -> LevelCodes | None:
    """The codes of weights [o, i] or [o, i, kh, kw]; None where levels are more than MOST_LEVELS, or differ within a kernel."""
    shape = [*stored.shape, 1, 1][:4]
    if len(stored.shape) not in (2, 4) or 0 in shape or kind.encoding is not None:
        return None
    if (a := element_types.affine(kind)) is not None:
        scales, zeros = (a.aligned(values, len(shape)) for values in (a.scales, a.zero_points))
        found = _few(integers(stored, kind).reshape(shape), None, scales, shape)
        if found is None and (found := _few(stored.reshape(shape), None, scales, shape)) is not None:
            shifted = _broadcastable(zeros, shape)
            return None if shifted is None else replace(found, zeros=np.broadcast_to(shifted, found.scales.shape))
        return found
    match d := types.describe(kind):
        case types.Binary(scales=scales):
            return _few(stored.reshape(shape), None, scales, shape)
        case types.Ternary(positive=scales) if d.symmetric:
            return _few(stored.reshape(shape), None, scales, shape)
        case types.Ternary(negative=negative, positive=positive):
            return _of_tables((stored + 1).astype(np.uint8), [-negative, np.zeros_like(negative), positive], np.ones(1, F32), shape)
        case types.Log2(scales=scales):
            used = np.unique(stored)
            plain = types.make_type(types.Log2(d.bits, d.signed, d.least, np.ones(1, F32)))
            return _few(stored.reshape(shape), decode(used, _flat(used, plain)), scales, shape)
        case types.Codebook(levels=levels, scales=scales) if levels.ndim == 1:
            return _few(stored.reshape(shape), levels.astype(F32)[np.unique(stored)], scales, shape)
        case types.Codebook(levels=levels, scales=scales):
            return _of_tables(stored.astype(np.uint8), [levels[..., k] for k in range(levels.shape[-1])], scales, shape)
        case types.Scaled(scales=scales) | types.Blockscaled(scales=scales) | types.Minifloat(scales=scales):
            codes = stored if stored.dtype.kind in "iu" else stored.view(f"u{stored.dtype.itemsize}")
            used = np.unique(codes)
            return _few(codes.reshape(shape), _small_floats(used, stored.dtype, d), scales.astype(F32), shape)
        case _:
            return None


def _flat(values: Array, element: Any) -> ir.RankedTensorType:
    return ir.RankedTensorType.get(list(values.shape), element, loc=ir.Location.unknown())


def _small_floats(used: Array, dtype: np.dtype[Any], d: types.Scaled | types.Blockscaled | types.Minifloat) -> Array:
    """f32 values of the codes `used`, before their scales."""
    if isinstance(d, types.Minifloat):
        return decode(used, _flat(used, types.make_type(types.Minifloat(d.exponent, d.mantissa, d.bias, d.special, np.ones(1, F32)))))
    values = (used if dtype.kind in "iu" else used.view(dtype)).astype(F32)
    return values * block_unit(d) if isinstance(d, types.Blockscaled) else values


def _few(stored: Array, levels: Array | None, scales: Array, shape: list[int]) -> LevelCodes | None:
    """Codes of the elements in use, which are `levels` (ascending by element), or the elements themselves."""
    spread = _broadcastable(scales, shape)
    least = int(stored.min())
    if spread is None or int(stored.max()) - least >= _WIDEST:
        return None
    steps = stored.astype(np.int32).reshape(-1) - least  # counted, not sorted: layers have millions
    used = np.flatnonzero(np.bincount(steps))
    if used.size > MOST_LEVELS:
        return None
    code = np.zeros(used[-1] + 1, np.uint8)
    code[used] = np.arange(used.size)
    levels = (used + least).astype(F32) if levels is None else levels
    return LevelCodes(code[steps].reshape(shape), levels.reshape(1, 1, -1), spread)


def _of_tables(codes: Array, levels: list[Array], scales: Array, shape: list[int]) -> LevelCodes | None:
    """Codes 0, 1, ... of `levels`, an array of blocks each; None where levels, or scales beside groups of levels, vary within a kernel."""
    parts = [_broadcastable(part, shape) for part in levels]
    spread = _broadcastable(scales, shape)
    found = [part for part in parts if part is not None]
    if spread is None or len(found) < len(parts) or any(part.shape[2] * part.shape[3] > 1 for part in found):
        return None
    rows, groups = (max(part.shape[axis] for part in found) for axis in (0, 1))
    if any(part.shape[1] not in (1, groups) for part in found):
        return None
    table = np.stack([np.broadcast_to(part[..., 0, 0], (rows, groups)) for part in found], axis=2)
    if groups > 1 and spread.shape != (spread.shape[0], groups, 1, 1):
        if spread.shape[1:] != (1, 1, 1):
            return None
        spread = np.broadcast_to(spread, (spread.shape[0], groups, 1, 1))
    return LevelCodes(codes.reshape(shape), table, spread)


def _broadcastable(scales: Array, shape: list[int]) -> Array | None:
    """Scales as [1 or o, groups of i, 1 or kh, 1 or kw]; None where blocks are longer than one tap of a kernel."""
    if scales.size == 1:
        return scales.astype(F32).reshape(1, 1, 1, 1)
    scales = scales.reshape([*scales.shape, 1, 1][:4])
    if any(count not in (1, size) for count, size in zip(scales.shape[2:], shape[2:], strict=True)):
        return None
    scales = np.repeat(scales, shape[0] // scales.shape[0], axis=0) if scales.shape[0] > 1 else scales
    if 1 < scales.shape[2] * scales.shape[3] < shape[2] * shape[3]:
        scales = np.broadcast_to(scales, (*scales.shape[:2], *shape[2:]))
    return scales.astype(F32)
