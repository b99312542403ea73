"""Offsets for buffers with known lives in one block of memory: greedy placement in the best-fitting gap, in several orders.

Source: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020), section 5.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

ALIGNMENT_BYTES = 64


@dataclass
class Life:
    """A buffer that is live from moment `first` to moment `last`, both included; `owner` is whatever the caller planned it for."""

    owner: Any
    size_bytes: int
    first: int
    last: int
    offset_bytes: int = 0


def round_up(size_bytes: int) -> int:
    """The least multiple of the alignment that holds `size_bytes`."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def peak_bytes(lives: Sequence[Life]) -> int:
    """The largest sum of sizes live in one call: no plan can need less."""
    change: dict[int, int] = {}
    for life in lives:
        if life.first <= life.last:
            change[life.first] = change.get(life.first, 0) + life.size_bytes
            change[life.last + 1] = change.get(life.last + 1, 0) - life.size_bytes
    peak = now = 0
    for moment in sorted(change):
        now += change[moment]
        peak = max(peak, now)
    return peak


_ORDERS: tuple[Callable[[Life], tuple[int, ...]], ...] = (
    lambda life: (-life.size_bytes, life.first),
    lambda life: (-life.size_bytes * (life.last - life.first + 1), life.first),
    lambda life: (-(life.last - life.first), -life.size_bytes, life.first),
    lambda life: (life.first, -life.size_bytes),
)


def place(lives: Sequence[Life]) -> int:
    """Set `offset_bytes` of each by the best of several orders; the size of the arena in bytes."""
    floor_bytes, best_bytes, best = peak_bytes(lives), -1, [0] * len(lives)
    for order in _ORDERS:
        total = _place_in_order(sorted(lives, key=order))
        if best_bytes < 0 or total < best_bytes:
            best_bytes, best = total, [life.offset_bytes for life in lives]
        if best_bytes == floor_bytes:
            break
    for life, offset in zip(lives, best, strict=True):
        life.offset_bytes = offset
    return max(best_bytes, 0)


def _place_in_order(lives: Sequence[Life]) -> int:
    placed: list[Life] = []  # by offset
    total = 0
    for life in lives:
        best_offset, best_gap, end = -1, -1, 0
        for other in placed:
            if other.last < life.first or life.last < other.first:
                continue
            gap = other.offset_bytes - end
            if gap >= life.size_bytes and (best_gap < 0 or gap < best_gap):
                best_offset, best_gap = end, gap
            end = max(end, other.offset_bytes + other.size_bytes)
        life.offset_bytes = best_offset if best_gap >= 0 else end
        total = max(total, life.offset_bytes + life.size_bytes)
        bisect.insort(placed, life, key=lambda entry: entry.offset_bytes)
    return total
