"""The order in which channels of x stand in words of four, so that those which the same output channels read share a word."""

from __future__ import annotations

import numpy as np

from qcc.dialects.codelet import SparsePixels
from qcc.dialects.instruction_sets import ISAS

QUAD = 4
NEW = 0.3  # of a channel's weights that count against it: many that are shared, rather than few others


def orders(codelet: SparsePixels, w: np.ndarray) -> np.ndarray:
    """u8 [chunk of channels][square][channel of the square] for weights [channels, taps, run]; squares at the end of a run stay."""
    width = QUAD * ISAS[codelet.isa].lanes
    whole = w.shape[2] // width
    chunks = range(0, len(w), codelet.chunk)
    found = np.tile(np.arange(width, dtype=np.uint8), (len(chunks), w.shape[1], codelet.run_squares, 1))
    for number, first in enumerate(chunks):
        part = w[first : first + codelet.chunk, :, : whole * width]
        kept = (part != 0).reshape(len(part), w.shape[1] * whole, width)
        found[number, :, :whole] = _clusters(kept.transpose(1, 0, 2)).reshape(w.shape[1], whole, width)
    return found.reshape(len(chunks), -1, width)


def ordered(codelet: SparsePixels, w: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Weights [channels, taps, run] in `order`."""
    width, (_, taps, run) = order.shape[2], w.shape
    whole = run // width
    found = w.copy()
    for number, first in enumerate(range(0, len(w), codelet.chunk)):
        part = found[first : first + codelet.chunk, :, : whole * width]
        squares = part.reshape(len(part), taps, whole, width)
        index = order[number].reshape(taps, codelet.run_squares, width)[None, :, :whole].astype(np.int64)
        part[:] = np.take_along_axis(squares, index, axis=3).reshape(part.shape)
    return found


def _clusters(kept: np.ndarray) -> np.ndarray:
    """Orders [square, width] of masks [square, channel, width], greedily: the fullest that is left, then three times the one that shares
    most with those before it."""
    masks = np.ascontiguousarray(kept, np.float32)
    counts = masks.sum(axis=1)  # [square, width]
    squares, left = np.arange(len(masks)), np.ones(counts.shape, np.bool_)
    order = np.zeros(counts.shape, np.uint8)
    together = np.zeros(masks.shape[:2], np.float32)  # [square, channel]
    for place in range(counts.shape[1]):
        score = counts if place % QUAD == 0 else (together[:, None] @ masks)[:, 0] - NEW * counts
        chosen = np.where(left, score, -np.inf).argmax(axis=1)
        column = masks[squares, :, chosen]
        together = np.maximum(together, column) if place % QUAD else column
        order[:, place] = chosen
        left[squares, chosen] = False
    return order
