"""Packing the values that are not zero with their columns, for decoder "indexed" of streamed linear layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects.codelet import Stream
from qcc.dialects.stream_layout import INDEXED_RECORD_BYTES, INDEXED_SLOTS, STREAM_WINDOW, StreamLayout

Array = np.ndarray[Any, Any]


def pack_columns(codelet: Stream, weights: Array, scales: Array) -> tuple[Array, Array, Array]:
    """`weights` i8 [n, k] and `scales` f32 [n, 1] as the streams of headers and records, and of values and columns, u8; and for every block
    [3] i64: where it begins in both, and its pairs of steps.
    """
    layout, k = StreamLayout(codelet), codelet.sizes[2]
    padded = whole_blocks(layout, weights)
    blocks = len(padded) // layout.lanes
    columns, bases = _steps(padded.reshape(blocks, layout.lanes, k))  # [steps, blocks, lanes, slots], [steps, blocks]
    columns, bases = (
        columns.swapaxes(0, 1).reshape(blocks, -1, layout.lanes * INDEXED_SLOTS),
        bases.T,
    )  # [blocks, steps, 64], [blocks, steps]
    pairs = -(-(columns >= 0).any(axis=2).sum(axis=1) // 2)  # [blocks]; steps that are not needed come last
    header = headers(codelet, padded, scales)
    parts, data, starts = [], [], []
    begin = place = 0
    for block in range(blocks):
        lanes = slice(block * layout.lanes, (block + 1) * layout.lanes)
        count = 2 * int(pairs[block])
        chosen, base = columns[block, :count], bases[block, :count]
        records = np.zeros((count, INDEXED_RECORD_BYTES), np.uint8)
        records[:, :8] = np.packbits(chosen >= 0, axis=1, bitorder="little")
        records[:, 8:] = base.astype(np.uint16)[:, None].view(np.uint8)
        parts += [header[:, lanes].reshape(-1).view(np.uint8), records.reshape(-1)]
        values = np.take_along_axis(np.repeat(padded[lanes], INDEXED_SLOTS, axis=0), np.maximum(chosen, 0).T, axis=1).T  # [steps, 64]
        stored = _interleaved(values.view(np.uint8), (chosen - base[:, None]).astype(np.uint8), chosen >= 0, codelet.bits)
        starts.append((begin, place, int(pairs[block])))
        begin, place = begin + parts[-2].size + parts[-1].size, place + stored.size
        data.append(stored)
    slack = np.zeros(64, np.uint8)
    return np.concatenate([*parts, slack]), np.concatenate([*data, slack]), np.array(starts, np.int64)


def whole_blocks(layout: StreamLayout, weights: Array) -> Array:
    """`weights` i8 [n, k] with channels of zeros behind, up to whole blocks."""
    return np.pad(weights, ((0, -len(weights) % layout.lanes), (0, 0)))


def headers(codelet: Stream, weights: Array, scales: Array) -> Array:
    """The scales of channels, as words, and what the offset of x counts: sums of their `weights` i8 [channels, k]. i32 [2, channels]."""
    made = np.zeros((2, len(weights)), np.int32)
    made[0, : len(scales)].view(np.float32)[:] = scales[:, 0]
    made[1] = weights.sum(axis=1, dtype=np.int64) * (16 if codelet.bits == 4 else 1)
    return made


def columns_left(weights: Array) -> tuple[Array, Array]:
    """The columns of what is not 0 in `weights` [channels, k], then k for at least a step; and how many there are, [channels]."""
    channels, k = weights.shape
    channel, column = np.nonzero(weights)
    counts = np.bincount(channel, minlength=channels)
    left = np.full((channels, int(counts.max(initial=0)) + INDEXED_SLOTS), k, np.int32)
    left[channel, np.arange(channel.size) - np.repeat(np.cumsum(counts) - counts, counts)] = column
    return left, counts


def _steps(weights: Array) -> tuple[Array, Array]:
    """What every step takes of weights [blocks, lanes, k]: columns [steps, blocks, lanes, slots], -1 for none, and bases [steps, blocks].

    A step begins at the first column that is left, and takes the next `INDEXED_SLOTS` of every channel within `STREAM_WINDOW` columns.
    """
    blocks, lanes, k = weights.shape
    left, _ = columns_left(weights.reshape(-1, k))
    at = np.zeros(blocks * lanes, np.int64)
    found, bases = [], []
    every = np.arange(blocks * lanes)[:, None]
    while True:
        following = left[every, at[:, None] + np.arange(INDEXED_SLOTS)]
        base = following[:, 0].reshape(blocks, lanes).min(axis=1)
        if (base == k).all() and len(found) % 2 == 0:
            return np.array(found, np.int32).reshape(-1, blocks, lanes, INDEXED_SLOTS), np.array(bases, np.int32).reshape(-1, blocks)
        fits = following < np.minimum(np.repeat(base, lanes) + STREAM_WINDOW, k)[:, None]
        found.append(np.where(fits, following, -1).reshape(blocks, lanes, INDEXED_SLOTS))
        bases.append(np.where(base == k, 0, base))
        at += fits.sum(axis=1)


def _interleaved(values: Array, columns: Array, present: Array, bits: int) -> Array:
    """Values and columns u8 [steps, 64] of one block in the order in which its pairs of steps read them."""
    parts: list[Array] = []
    for step in range(0, len(present), 2):
        first, second = present[step], present[step + 1]
        if bits == 8:
            parts += [values[step][first], columns[step][first], values[step + 1][second], columns[step + 1][second]]
            continue
        low, high = values[step][first] & 15, values[step + 1][second] << 4
        joined = np.zeros(max(low.size, high.size), np.uint8)
        joined[: low.size] = low
        joined[: high.size] |= high
        parts += [joined, columns[step][first], columns[step + 1][second]]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8)
