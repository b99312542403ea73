"""The order in which channels of x stand in words of four, so that those which the same output channels read share a word.

`runtime/cpu/src/pixel_units.c` finds the same order: all numbers are integers, and of equal ones the first is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
QUAD = 4
SHARED, OWN = 10, 3  # a weight that is shared counts for a channel, each of its own against it: many shared, rather than few others
WIDTH = 64  # channels of a square: the bytes that one shuffle puts into any order


def orders(w: Array, chunk: int) -> Array:
    """u8 [chunk of channels][square][channel of the square] for weights [channels, taps, run]; squares at the end of a run stay."""
    whole, squares = w.shape[2] // WIDTH, -(-w.shape[2] // WIDTH)
    chunks = range(0, len(w), chunk)
    found = np.tile(np.arange(WIDTH, dtype=np.uint8), (len(chunks), w.shape[1], squares, 1))
    for number, first in enumerate(chunks):
        part = w[first : first + chunk, :, : whole * WIDTH]
        kept = (part != 0).reshape(len(part), w.shape[1] * whole, WIDTH)
        found[number, :, :whole] = _clusters(kept.transpose(1, 0, 2)).reshape(w.shape[1], whole, WIDTH)
    return found.reshape(len(chunks), -1, WIDTH)


def ordered(w: Array, chunk: int, order: Array) -> Array:
    """Weights [channels, taps, run] in `order`."""
    _, taps, run = w.shape
    whole, squares = run // WIDTH, -(-run // WIDTH)
    found = w.copy()
    for number, first in enumerate(range(0, len(w), chunk)):
        part = found[first : first + chunk, :, : whole * WIDTH]
        index = order[number].reshape(taps, squares, WIDTH)[None, :, :whole].astype(np.int64)
        part[:] = np.take_along_axis(part.reshape(len(part), taps, whole, WIDTH), index, axis=3).reshape(part.shape)
    return found


def _clusters(kept: Array) -> Array:
    """Orders [square, width] of masks [square, channel, width], greedily: the fullest that is left, then three times the one that shares
    most with those before it."""
    masks = np.ascontiguousarray(kept, np.float32)  # of small integers, whose products are quick
    counts = masks.sum(axis=1)  # [square, width]
    squares, left = np.arange(len(masks)), np.ones(counts.shape, np.bool_)
    order = np.zeros(counts.shape, np.uint8)
    together = np.zeros(masks.shape[:2], np.float32)  # [square, channel]
    for place in range(counts.shape[1]):
        score = counts if place % QUAD == 0 else SHARED * (together[:, None] @ masks)[:, 0] - OWN * counts
        chosen = np.where(left, score, -np.inf).argmax(axis=1)
        column = masks[squares, :, chosen]
        together = np.maximum(together, column) if place % QUAD else column
        order[:, place] = chosen
        left[squares, chosen] = False
    return order
