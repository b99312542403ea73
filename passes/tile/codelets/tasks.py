"""Cutting the work of a call into tasks that threads share evenly."""

from __future__ import annotations

import math


def even_chunk(count: int, wanted: int, other: int = 1) -> int:
    """How many of `count` items make a task, such that there are `wanted` tasks or up to twice as many, times `other` in all.

    Of these the one that leaves the least to the busier of two threads, and then the fewest tasks: 3 tasks of 4 would take two threads as
    long as 8 items, 4 tasks of 3 as long as 6.
    """
    most = math.ceil(count / wanted)
    if wanted <= 1 or other % 2 == 0:
        return most

    def busier(chunk: int) -> int:
        first = math.ceil(count / chunk) // 2 * chunk
        return max(first, count - first)

    return min(range(math.ceil(most / 2), most + 1), key=lambda chunk: (busier(chunk), -chunk))
