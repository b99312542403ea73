"""Sums of products of 16 bits that need more than 32 bits: how many products in pairs are known to fit 32 before they are widened."""

from __future__ import annotations

import numpy as np


def segment(w: np.ndarray, greatest: int) -> int:
    """The most steps of two elements, a divisor of the steps of a run, whose sums fit 32 bits; 0 where a single step's may not.

    `w` [groups, c, taps, run] are integers of 16 bits, `greatest` is the magnitude of x.
    """
    steps = -(-w.shape[-1] // 2)
    magnitudes = np.zeros((*w.shape[:-1], 2 * steps), np.int64)
    magnitudes[..., : w.shape[-1]] = np.abs(w)
    for count in range(steps, 0, -1):
        if steps % count == 0 and int(magnitudes.reshape(-1, 2 * count).sum(axis=1).max(initial=0)) * greatest < 1 << 31:
            return count
    return 0
