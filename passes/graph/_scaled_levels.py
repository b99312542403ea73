"""Levels that every row of a weight tensor has times a scale of its own: small floats (FP4 to FP8, MX), codebooks such as NF4. Pure numpy.

A row is an output channel or a group of neighbours in one. As in `_levels.py` a sample decides what is looked for, and what is found
decodes to the given values exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.passes.graph._levels import F32, MOST_LEVELS, filled, near

Array = np.ndarray[Any, Any]

_FEW = 16  # rows of a sample
_MOST_MANTISSA = 3  # bits, of the small floats that are looked for
_CLOSE = 1e-5  # relative, of one level in rows of different scales: they were rounded there


def significands(rows: Array) -> tuple[Array, Array, int] | None:
    """(multiples f32 [o, n], scales f32 [o], mantissa bits): every row is floats of up to 3 bits of mantissa times its scale, and its
    greatest magnitude is such a float in [1, 2). Rows of zeros have scale 1."""
    for bits in range(1, _MOST_MANTISSA + 1):
        if len(few := filled(rows, _FEW)) and _significands(few, bits) is not None:
            found = _significands(rows, bits)
            return None if found is None else (*found, bits)
    return None


def _significands(rows: Array, bits: int) -> tuple[Array, Array] | None:
    top = np.abs(rows).max(axis=1, initial=0)
    multiples, scales = np.zeros(rows.shape, F32), np.where(top > 0, F32(0), F32(1))
    for part in range(1 << bits):
        for guess in near(np.where(top > 0, top, 1) / (1 + part / (1 << bits))):
            left = np.flatnonzero(scales == 0)
            if not left.size:
                return multiples, scales
            scale = guess[left, None]
            fraction, exponent = np.frexp(rows[left] / scale)
            rounded = np.ldexp(np.rint(np.ldexp(fraction, bits + 1)), exponent - bits - 1).astype(F32)
            fits = (rounded * scale == rows[left]).all(axis=1)
            multiples[left[fits]], scales[left[fits]] = rounded[fits], guess[left[fits]]
    return (multiples, scales) if scales.all() else None


def codebook(rows: Array) -> tuple[Array, Array, Array] | None:
    """(levels f32 [K], indices u8 [o, n], scales f32 [o]): every row is entries of one table, the greatest in magnitude of which is 1 or
    -1, times the greatest magnitude of the row."""
    few, some = filled(rows, _FEW), filled(rows, 64 * _FEW)
    if (levels := _table(few)) is None or levels.size > few.size // 4 or (levels := _table(some)) is None:
        return None
    levels = _exact(levels, some)
    scales = _greatest(rows)
    indices = _nearest(levels, rows, scales)
    return (levels, indices, scales) if (levels[indices] * scales[:, None] == rows).all() else None


def _greatest(rows: Array) -> Array:
    """The greatest magnitude of every row, 1 where there is none."""
    top = np.abs(rows).max(axis=1, initial=0)
    return np.where(top > 0, top, F32(1))


def _table(rows: Array) -> Array | None:
    """The levels of some rows, f64, ascending; None where they are too many."""
    values = np.unique(rows.astype(np.float64) / _greatest(rows)[:, None])
    apart = np.concatenate([[True], np.diff(values) > _CLOSE * np.maximum(np.abs(values[1:]), _CLOSE)])
    levels = values[apart]
    return levels if 2 <= levels.size <= MOST_LEVELS else None


def _nearest(levels: Array, rows: Array, scales: Array) -> Array:
    middle = (levels[1:].astype(np.float64) + levels[:-1]) / 2
    return np.searchsorted(middle, rows / scales[:, None]).astype(np.uint8)


def _exact(levels: Array, rows: Array) -> Array:
    """Each level as the binary32 number that gives most of `rows` exactly."""
    scales = _greatest(rows)
    indices = _nearest(levels, rows, scales)
    candidates = np.stack([*near(np.abs(levels))], axis=1) * np.sign(levels).astype(F32)[:, None]  # [K, 5]
    wide = np.repeat(scales, rows.shape[1]).reshape(rows.shape)
    best = [
        int(np.argmax([np.count_nonzero(c * wide[indices == i] == rows[indices == i]) for c in each])) for i, each in enumerate(candidates)
    ]
    return candidates[np.arange(len(levels)), best]
