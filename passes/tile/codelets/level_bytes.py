"""Real levels as one or two unsigned bytes each, for the codelet that multiplies them with bytes of x (`stream_shuffle`).

level = unit * (byte - zero), or unit * (256 * high + low - zero).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
MOST_WORD = 65535
PARTS = (1, 2, 3, 4)  # of the least level that are tried as the unit of one byte
UNITS = 4096  # that are tried for two bytes, up to 3 % greater than the least
X_DEVIATION, X_MEAN, X_LOW = 1.3e4, 4e3, 74.0
"""Of x in 16 bits: what is expected of a group of normal numbers, of its mean where negative ones were cut off, and of its low byte."""
SUMMED = 4096  # products in a sum, whose mean error counts that often where other errors count its root


@dataclass(frozen=True)
class LevelBytes:
    """`bytes_of` u8 [1 or 2, levels], high bytes first."""

    bytes_of: Array
    zero: int
    unit: float


def level_bytes(levels: Array, shares: Array) -> LevelBytes | None:
    """`levels` f64 [n], the n-th of which has `shares` [n] of the weights: one byte where that is exact; None where levels are not finite.

    Two bytes leave 2^-17 of the range of levels and have a zero whose low byte is 128 (0 of x and 0 of levels stay 0 then).
    """
    low, high = min(levels.min(), 0.0), max(levels.max(), 0.0)
    if not np.isfinite(levels).all() or high == low:
        return None
    least = np.abs(levels[levels != 0]).min()
    for part in PARTS:
        steps = levels * part / least
        if (high - low) * part <= 255 * least and np.allclose(steps, np.rint(steps), 0, 1e-12):
            zero = int(np.rint(-low * part / least))
            words = np.rint(steps).astype(np.int64) + zero
            return _checked(LevelBytes(words.astype(np.uint8)[None], zero, least / part))
    unit = _best_unit(levels, shares, low, high)
    zero = int(_zero(-low / unit))
    words = np.rint(levels / unit).astype(np.int64) + zero
    return _checked(LevelBytes(np.stack([words >> 8, words & 255]).astype(np.uint8), zero, unit))


def _zero(least: Any) -> Any:
    """The next number from `least` on whose low byte is 128, at most 255 greater."""
    return np.ceil((np.rint(least) - 128) / 256) * 256 + 128


def _best_unit(levels: Array, shares: Array, low: float, high: float) -> float:
    """The unit with the least expected error of a sum of products.

    Three parts: levels are rounded; what they are wrong by on average adds up where x leans to one side; and products of low bytes, less
    128 of levels, are left out.
    """
    units = (high - low) / np.linspace(MOST_WORD - 256, (MOST_WORD - 256) * 0.97, UNITS)[:, None]  # [units, 1]
    steps = levels / units
    errors = np.rint(steps) - steps
    lows = (np.rint(steps) + _zero(-low / units)) % 256 - 128
    mean = (shares * errors).sum(axis=1)
    wrong = (shares * (X_DEVIATION**2 * errors**2 + X_LOW**2 * lows**2)).sum(axis=1) + SUMMED * (X_MEAN * mean) ** 2
    return float(units[np.argmin(wrong * units[:, 0] ** 2), 0])


def _checked(found: LevelBytes) -> LevelBytes | None:
    """None where f32 scales could not hold the unit."""
    return found if np.finfo(np.float32).tiny < found.unit else None
