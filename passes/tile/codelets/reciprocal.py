"""Division by a constant scale as multiplications: whether the rounded quotients are those of a division, found out scale by scale.

A binary32 division takes ten times as long as a product. near = x * (1 / s), rest = fma(-near, s, x), fma(rest, 1 / s, near) is within a
few units in the last place of x / s for every x, so after rounding to whole numbers it can only differ where x / s is next to the middle of
two of them: those x are tried, all of them, in exact arithmetic.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

NEIGHBOURS = 8  # floats tried on either side of a middle
LEAST, GREATEST = 2.0**-60, 2.0**60  # scales for which no step over- or underflows


def limits(scale: float, low: int, high: int) -> tuple[np.float32, np.float32]:
    """What x is cut to before it is multiplied: two steps beyond the clamp, so that no product is infinite."""
    return np.float32((low - 2) * scale), np.float32((high + 2) * scale)


@lru_cache(maxsize=4096)
def rounds_as_division(scale: float, low: int, high: int) -> bool:
    """Whether clamp(rint(corrected product), low, high) is clamp(rint(x / scale), low, high) for every f32 x within `limits`."""
    if not LEAST < scale < GREATEST or high <= low:
        return False
    s = np.float32(scale)
    middles = (np.arange(low, high, dtype=np.float64) + 0.5) * np.float64(s)
    x = np.concatenate([middles.astype(np.float32), *map(np.asarray, ([v] for v in limits(scale, low, high)))]).astype(np.float32)
    bits = x.view(np.int32)[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS + 1, dtype=np.int32)
    x = bits.view(np.float32)
    expected = np.clip(np.rint(x / s), low, high)
    found, exact = _corrected(x, s)
    return exact and bool((np.clip(np.rint(found), low, high) == expected).all())


def _corrected(x: np.ndarray, s: np.float32) -> tuple[np.ndarray, bool]:
    """The corrected products, and whether binary64 could tell their last bit."""
    reciprocal = np.float32(1) / s
    near = x * reciprocal
    rest = (x.astype(np.float64) - near.astype(np.float64) * np.float64(s)).astype(np.float32)  # exact before the last rounding
    product, base = rest.astype(np.float64) * np.float64(reciprocal), near.astype(np.float64)
    total = base + product
    lost = product - (total - base)  # |base| >= |product|
    between = (total.view(np.int64) & ((1 << 29) - 1)) == 1 << 28  # the middle of two binary32 numbers, where what was lost decides
    return total.astype(np.float32), not bool((between & (lost != 0)).any())
