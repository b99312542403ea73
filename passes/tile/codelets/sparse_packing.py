"""Packing f32 weights [n, k] whose zeros are not stored, in the order in which the sparse codelets read them."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects.codelet import SparseGather, SparseLanes, Stream
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.stream_layout import StreamLayout

Array = np.ndarray[Any, Any]
SLACK_BYTES = 64  # behind what is read a vector at a time; also what is left of weights that are all zero


def gather_rows(codelet: SparseGather, w: Array) -> tuple[Array, Array, Array]:
    """(stream u8, starts i64 [blocks], counts i32 [channels padded to blocks]) of `SparseGather`."""
    lanes, size = ISAS[codelet.isa].lanes, codelet.step_bytes
    blocks = -(-w.shape[0] // lanes)
    rows, columns = np.nonzero(w)
    stored = np.bincount(rows, minlength=blocks * lanes)
    steps = -(-stored // lanes)
    begins = np.concatenate([[0], np.cumsum(steps)[:-1]]) * size
    within = np.arange(rows.size) - np.repeat(np.cumsum(stored) - stored, stored)
    at = np.repeat(begins, stored) + within // lanes * size
    made = np.zeros(int(steps.sum()) * size + SLACK_BYTES, np.uint8)
    _fill(made, at + 2 * (within % lanes), columns, at + 2 * lanes + 4 * (within % lanes), w[rows, columns])
    return made, begins[::lanes].astype(np.int64), steps.astype(np.int32)


def lane_rows(codelet: SparseLanes, w: Array) -> tuple[Array, Array]:
    """(stream u8, starts i64 [tasks, blocks of k]) of `SparseLanes`."""
    n = w.shape[0]
    chunk, depth, count, unit = codelet.chunk, codelet.depth, codelet.k_blocks, codelet.unit
    rows, columns = np.nonzero(w)
    cell = rows * count + columns // depth  # ascending
    stored = np.bincount(cell, minlength=n * count)
    counts, channel_begins = stored.reshape(n, count), np.empty((n, count), np.int64)
    starts: list[Array] = []
    heads: list[tuple[Array, Array]] = []
    end = 0
    for first in range(0, n, chunk):
        part = counts[first : first + chunk]
        order = np.argsort(part, axis=0, kind="stable")
        ordered = np.take_along_axis(part, order, axis=0)
        sizes = 4 * len(part) + 6 * ordered.sum(axis=0)
        begins = end + np.cumsum(sizes) - sizes  # of the blocks of k
        offsets = begins + 4 * len(part) + 6 * (np.cumsum(ordered, axis=0) - ordered)
        np.put_along_axis(channel_begins[first : first + chunk], order, offsets, axis=0)
        heads.append((begins, np.stack([order, ordered], axis=2).astype(np.uint16)))  # [channel, block, 2]
        starts.append(begins)
        end += int(sizes.sum())
    made = np.zeros(end + SLACK_BYTES, np.uint8)
    for begins, head in heads:
        for block, begin in enumerate(begins):
            words = np.ascontiguousarray(head[:, block])
            made[begin : begin + words.nbytes] = words.view(np.uint8).reshape(-1)
    within = np.arange(rows.size) - np.repeat(np.cumsum(stored) - stored, stored)
    whole = within < np.repeat(stored // unit * unit, stored)  # in a unit, else alone
    size, place = np.where(whole, unit, 1), np.where(whole, within % unit, 0)
    at = np.repeat(channel_begins.reshape(-1), stored) + 6 * np.where(whole, within // unit * unit, within)
    _fill(made, at + 2 * place, columns % depth * codelet.row_bytes, at + 2 * size + 4 * place, w[rows, columns])
    return made, np.stack(starts).astype(np.int64)


def bitmap_values(codelet: Stream, w: Array) -> tuple[Array, Array]:
    """(values u8, starts i64 [blocks]) of a "bitmap_f32" stream: what is not zero in the order of the masks, then slack."""
    layout, (_, n, _) = StreamLayout(codelet), codelet.sizes
    parts: list[Array] = []
    starts: list[int] = []
    begin = 0
    width = codelet.vectors * layout.lanes
    for first in range(0, n, width):  # a last block of fewer vectors has them in the same order
        part = w[first : first + width].T.reshape(-1)  # [k, channel]
        values = part[part != 0]
        starts.append(begin)
        parts.append(values)
        begin += values.nbytes
    made = np.concatenate([*parts, np.zeros(SLACK_BYTES // 4, np.float32)]).astype(np.float32)
    return made.view(np.uint8), np.array(starts, np.int64)


def _fill(made: Array, index_at: Array, indices: Array, value_at: Array, values: Array) -> None:
    """Write u16 `indices` and f32 `values` at the byte places given, which are even."""
    halves = made.view(np.uint16)
    halves[index_at // 2] = indices
    words = np.ascontiguousarray(values, np.float32).view(np.uint16).reshape(-1, 2)
    halves[value_at // 2], halves[value_at // 2 + 1] = words[:, 0], words[:, 1]
