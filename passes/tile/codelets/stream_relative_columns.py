"""Packing the values that are not zero with how far they are apart, for decoder "relative" of streamed linear layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qcc.dialects.codelet import Stream
from qcc.dialects.stream_layout import INDEXED_SLOTS, MOST_RELATIVE, RELATIVE_WINDOW, STREAM_WINDOW, StreamLayout
from qcc.passes.tile.codelets.stream_columns import columns_left, headers, whole_blocks

Array = np.ndarray[Any, Any]


def pack_relative(codelet: Stream, weights: Array, scales: Array) -> tuple[Array, Array, Array]:
    """`weights` i8 [n, k] and `scales` f32 [n, 1] as the streams of headers and moves, and of values and distances, u8; and for every block
    [3] i64: where it begins in both, and its pairs of steps.
    """
    layout = StreamLayout(codelet)
    padded = whole_blocks(layout, weights)
    columns, distances, bases = _steps(padded, layout.lanes)
    moves = np.diff(bases, axis=0, prepend=0).astype(np.uint8)
    header = headers(codelet, padded, scales)
    used = ((distances > 0) | (columns >= 0)).any(axis=(2, 3))  # [steps, blocks]
    pairs = -(-(used * np.arange(1, len(columns) + 1)[:, None]).max(axis=0, initial=0) // 2)  # [blocks]
    parts, data, starts = [], [], []
    begin = place = 0
    for block, count in enumerate(2 * pairs):
        lanes = slice(block * layout.lanes, (block + 1) * layout.lanes)
        chosen = columns[:count, block].swapaxes(0, 1).reshape(layout.lanes, -1)  # [lanes, steps * slots]
        values = np.where(chosen >= 0, np.take_along_axis(padded[lanes], np.maximum(chosen, 0), axis=1), 0).astype(np.int8)
        values = values.reshape(layout.lanes, count, INDEXED_SLOTS).swapaxes(0, 1)
        stored = np.concatenate(
            [_paired(np.ascontiguousarray(values).view(np.uint8), codelet.bits), _paired(distances[:count, block], 4)], axis=1
        ).reshape(-1)
        parts += [header[:, lanes].reshape(-1).view(np.uint8), moves[:count, block]]
        starts.append((begin, place, int(pairs[block])))
        begin, place = begin + parts[-2].size + parts[-1].size, place + stored.size
        data.append(stored)
    slack = np.zeros(64, np.uint8)
    return np.concatenate([*parts, slack]), np.concatenate([*data, slack]), np.array(starts, np.int64)


def _steps(weights: Array, lanes: int) -> tuple[Array, Array, Array]:
    """What every step takes of weights [blocks * lanes, k]: columns [steps, blocks, lanes, slots], -1 for none, u8 distances likewise, and
    where windows begin [steps, blocks].

    A window begins at the multiple of `STREAM_WINDOW` below the first column that any channel of the block has to reach next, and a
    channel waits where its next one is beyond the window.
    """
    left, counts = columns_left(weights)
    k, every = weights.shape[1], np.arange(len(weights))
    at, reached = np.zeros(len(weights), np.int64), np.zeros(len(weights), np.int64)
    base = np.zeros(len(weights) // lanes, np.int64)
    columns, distances, bases = [], [], []
    while True:
        wanted = np.minimum(left[every, at], reached + MOST_RELATIVE)
        first = np.where(at < counts, wanted, 2 * k + RELATIVE_WINDOW).reshape(-1, lanes).min(axis=1)
        active = first <= k
        if not active.any() and len(bases) % 2 == 0:
            shape = (-1, len(base), lanes, INDEXED_SLOTS)
            found = np.array(columns, np.int32).reshape(shape), np.array(distances, np.uint8).reshape(shape)
            return *found, np.array(bases, np.int64).reshape(-1, len(base))
        base = np.where(active, first // STREAM_WINDOW * STREAM_WINDOW, base)
        end = np.repeat(base, lanes) + RELATIVE_WINDOW
        taken, gone = [], []
        for _ in range(INDEXED_SLOTS):
            following = left[every, at]
            wanted = np.minimum(following, reached + MOST_RELATIVE)
            goes = (at < counts) & (wanted < end)
            distance = np.where(goes, wanted - reached, 0)
            takes = goes & (wanted == following)
            taken.append(np.where(takes, following, -1))
            gone.append(distance)
            reached, at = reached + distance, at + takes
        columns.append(np.stack(taken, axis=1))
        distances.append(np.stack(gone, axis=1).astype(np.uint8))
        bases.append(base)


def _paired(steps: Array, bits: int) -> Array:
    """u8 [steps, lanes, slots] as [pairs, bytes]: of 4 bits, those of the second step in the upper half of bytes."""
    size = math.prod(steps.shape[1:])
    if bits == 8:
        return steps.reshape(len(steps) // 2, 2 * size)
    pairs = steps.reshape(len(steps) // 2, 2, size)
    return (pairs[:, 0] & 15) | pairs[:, 1] << 4
