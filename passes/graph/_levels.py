"""How few numbers a weight tensor holds: candidates from a sample, then an exact test over all elements. Pure numpy.

Every test ends by comparing all real values with what the found type would decode to, so a wrong guess costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
F32 = np.float32
MOST_LEVELS = 256
_SAMPLE = 4096  # elements of the tensor, rows of it times elements of a row
_ROWS = 8
_SHORT = 32
_AT_ONCE = 1 << 22  # elements that are sorted in binary64
_MOST_WIDTH = 255  # of the integers of an affine tensor


@dataclass(frozen=True)
class Steps:
    """Integers k [o, n] and scales [1] or [o], real = f32(k) * scale."""

    integers: Array
    scales: Array


def distinct(rows: Array) -> Array | None:
    """The distinct values of `rows`, ascending, f32, where they are at most MOST_LEVELS; else None. Zeros have no sign."""
    flat = rows.reshape(-1)
    some = np.unique(flat[:: max(1, flat.size // _SAMPLE)])
    if some.size > MOST_LEVELS or (some.size > flat.size // 2 and flat.size > 4):
        return None
    levels = some + F32(0)
    for _ in range(8):  # values that the sample missed
        missing = flat[levels[np.minimum(np.searchsorted(levels, flat), levels.size - 1)] != flat]
        if not missing.size:
            return levels
        levels = np.unique(np.concatenate([levels, np.unique(missing[:_SAMPLE])])) + F32(0)
        if levels.size > MOST_LEVELS:
            return None
    return None


def steps_per_tensor(rows: Array, levels: Array) -> Steps | None:
    """`rows` as integers times one scale, where its `levels` are."""
    found = _steps(levels.reshape(1, -1))
    if found is None:
        return None
    return Steps(found.integers[0][np.searchsorted(levels, rows)], found.scales)


def steps_per_row(rows: Array) -> Steps | None:
    """`rows` [o, n] as integers times one scale per row; a few rows first, then a bounded number at a time."""
    if not len(few := filled(rows)) or _steps(few) is None:
        return None
    parts: list[Steps] = []
    for first in range(0, len(rows), count := max(1, _AT_ONCE // rows.shape[1])):
        if (part := _steps(rows[first : first + count])) is None:
            return None
        parts.append(part)
    return Steps(np.concatenate([p.integers for p in parts]), np.concatenate([p.scales for p in parts]))


def amplitudes_per_row(rows: Array) -> tuple[Array, Array] | None:
    """(negative, positive) [o] where every row holds nothing but -negative, 0 and positive; 1 where a row does not have that sign."""

    def of(some: Array) -> tuple[Array, Array]:
        return np.maximum(-some.min(axis=1), 0), np.maximum(some.max(axis=1), 0)

    def holds(some: Array, low: Array, high: Array) -> bool:
        return bool(((some == 0) | (some == high[:, None]) | (some == -low[:, None])).all())

    few = _spread(rows, _ROWS)
    if not holds(few, *of(few)):
        return None
    low, high = of(rows)
    if not holds(rows, low, high):
        return None
    return np.where(low > 0, low, np.where(high > 0, high, 1)), np.where(high > 0, high, np.where(low > 0, low, 1))


def codebook_per_row(rows: Array, most: int = 16) -> tuple[Array, Array] | None:
    """(levels [o, K], indices [o, n]) with K a power of two up to `most`, where no row has more distinct values; saves bytes or is None."""
    if rows.shape[1] < 4 * most or any(np.unique(row).size > most for row in _spread(rows, _ROWS)):
        return None
    ordered = np.sort(rows, axis=1) + F32(0)
    first = np.concatenate([np.ones((len(rows), 1), np.bool_), ordered[:, 1:] != ordered[:, :-1]], axis=1)
    counts = first.sum(axis=1)
    if counts.max() > most:
        return None
    size = 1 << max(1, int(counts.max() - 1).bit_length())
    levels = np.zeros((len(rows), size), F32)
    indices = np.empty(rows.shape, np.uint8)
    for i, row in enumerate(rows):
        values = ordered[i][first[i]]
        levels[i, : values.size], levels[i, values.size :] = values, values[-1]
        indices[i] = np.searchsorted(values, row)
    return levels, indices


def power_of_two(levels: Array) -> tuple[int, int, F32] | None:
    """(least, greatest exponent, scale) where every level but 0 is +-2^e times a scale in [1, 2)."""
    size = np.abs(levels[levels != 0])
    if not size.size:
        return None
    mantissa, exponent = np.frexp(size)
    if (mantissa != mantissa[0]).any():
        return None
    return int(exponent.min()) - 1, int(exponent.max()) - 1, F32(mantissa[0] * 2)


def _spread(rows: Array, most: int) -> Array:
    """At most `most` of `rows`, evenly spread."""
    return rows[:: max(1, -(-len(rows) // most))]


def filled(rows: Array, most: int = _ROWS) -> Array:
    """At most `most` of `rows` that are not all 0, evenly spread."""
    some = _spread(rows, 4 * most)  # as many more as may be 0
    some = some if some.any() else rows
    return _spread(some[some.any(axis=1)], most)


def _steps(rows: Array) -> Steps | None:
    """Every row as integers of at most _MOST_WIDTH + 1 values times its own scale; rows of zeros have scale 1."""
    size = np.sort(np.abs(rows), axis=1).astype(np.float64)
    gaps = np.diff(np.concatenate([np.zeros((len(rows), 1)), size], axis=1), axis=1)
    largest = size[:, -1]
    gap = np.where(gaps > largest[:, None] * 1e-5, gaps, np.inf).min(axis=1)  # smaller ones are the rounding of equal magnitudes
    scale = np.where(largest > 0, gap, 1.0)
    if not np.isfinite(scale).all() or (largest / scale > _MOST_WIDTH + 0.5).any():
        return None
    done = largest == 0
    scales, integers = np.where(done, F32(1), F32(0)), np.zeros(rows.shape, np.int16)
    tops = [np.rint(largest / scale * parts) for parts in range(1, 9)]  # of pruned rows the least gap is often some steps
    if rows.shape[1] <= _SHORT:  # the filters of a depthwise layer may have no two neighbouring integers
        tops += [np.full(len(rows), float(top)) for top in range(1, 129)]
    for top in tops:
        for guess in near(np.where(done, 1.0, largest / np.maximum(top, 1))):
            left = np.flatnonzero(~done)
            if not left.size:
                return Steps(integers, scales.astype(F32))
            k = np.rint(rows[left] / guess[left, None])
            fits = (k.astype(F32) * guess[left, None] == rows[left]).all(axis=1) & (k.max(axis=1) - k.min(axis=1) <= _MOST_WIDTH)
            integers[left[fits]], scales[left[fits]] = k[fits].astype(np.int16), guess[left[fits]]
            done[left[fits]] = True
    return Steps(integers, scales.astype(F32)) if done.all() else None


def near(scale: Array) -> Iterator[Array]:
    """The binary32 numbers around `scale`."""
    middle = scale.astype(F32)
    above, below = np.nextafter(middle, F32(np.inf)), np.nextafter(middle, F32(0))
    yield from (middle, above, below, np.nextafter(above, F32(np.inf)), np.nextafter(below, F32(0)))
