"""Packing weights [n, k] whose zeros are not stored, f32 or quadruples of bytes, in the order in which the sparse codelets read them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qcc.dialects.codelet import SparseGather, SparseLanes, SparsePixels, Stream
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
    k = w.shape[1]
    return _cells(codelet, w, [(begin, min(begin + codelet.depth, k)) for begin in range(0, k, codelet.depth)])


def pixel_rows(codelet: SparsePixels, w: Array) -> tuple[Array, Array]:
    """(stream u8, starts i64 [chunks of channels, blocks]) of `SparsePixels`; w [channels, quadruples] i32, each of four s8."""
    return _cells(codelet, w, codelet.blocks)


def expected_pixel_bytes(codelet: SparsePixels, density: float) -> int:
    """What `SparsePixels` stores of weights of which `density` of the quadruples are not zero, in no order."""
    total = codelet.blocks[-1][1]
    depth, cells = total / len(codelet.blocks), len(codelet.blocks) * -(-codelet.sizes[3] // codelet.chunk)
    return int(6 * density * codelet.sizes[3] * total + codelet.heads_bytes + filled_up_bytes(codelet.group, depth, density, cells))


def filled_up_bytes(group: int, depth: float, density: float, cells: int) -> float:
    """Bytes of zeros that make channels of a group equally long: in order of length, half of a group times what lies between the extremes
    of `depth` places of that `density`, about six standard deviations; in every one of `cells`."""
    most = 6 * math.sqrt(depth * density * (1 - density))
    return 6 * cells * (group - 1) / 2 * min(most, depth)


def quadruples(w: Array) -> Array:
    """Weights s8 [channels, taps, run] as i32 [channels, taps * quadruples of a run], zeros behind a run that 4 does not divide."""
    padded = np.pad(w, ((0, 0), (0, 0), (0, -w.shape[2] % 4)))
    return np.ascontiguousarray(padded, np.int8).reshape(len(w), -1).view(np.int32)


def _cells(codelet: SparseLanes | SparsePixels, w: Array, blocks: list[tuple[int, int]]) -> tuple[Array, Array]:
    cells: list[Array] = []
    for first in range(0, len(w), codelet.chunk):
        task = w[first : first + codelet.chunk]
        cells += [_cell(codelet, task[:, begin:end]) for begin, end in blocks]
    sizes = np.array([cell.nbytes for cell in cells], np.int64)
    return np.concatenate([*cells, np.zeros(SLACK_BYTES, np.uint8)]), (np.cumsum(sizes) - sizes).reshape(-1, len(blocks))


def _cell(codelet: SparseLanes | SparsePixels, w: Array) -> Array:
    """Heads and units of the channels of one task and block of k; w [channels, columns]."""
    channels, group, size = w.shape[0], codelet.group, codelet.unit_bytes
    counts = np.count_nonzero(w, axis=1)
    order = np.argsort(counts, kind="stable")
    numbers = np.arange(-(-channels // group) * group)
    numbers[:channels] = order
    units = np.append(counts[order], np.zeros(len(numbers) - channels, np.int64)).reshape(-1, group).max(axis=1)
    heads = np.column_stack([numbers.reshape(-1, group), units]).astype(np.uint16)  # [groups, group + 1]
    made = np.zeros(heads.nbytes + int(units.sum()) * size, np.uint8)
    made[: heads.nbytes] = heads.view(np.uint8).reshape(-1)
    columns = np.argsort(w[order] == 0, axis=1, kind="stable")  # of what is stored, then of zeros, which fill up
    taken = np.repeat(units, group)[:channels]
    place = np.repeat(np.arange(channels), taken)  # in this order
    unit = np.arange(place.size) - np.repeat(np.cumsum(taken) - taken, taken)
    column, member = columns[place, unit], place % group
    at = heads.nbytes + (np.cumsum(units) - units)[place // group] * size + unit * size
    _fill(made, at + 2 * member, column * codelet.row_bytes, at + 2 * group + 4 * member, w[order[place], column])
    return made


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
    """Write u16 `indices` and `values` of 4 bytes at the byte places given, which are even."""
    halves = made.view(np.uint16)
    halves[index_at // 2] = indices
    words = np.ascontiguousarray(values).view(np.uint16).reshape(-1, 2)
    halves[value_at // 2], halves[value_at // 2 + 1] = words[:, 0], words[:, 1]
