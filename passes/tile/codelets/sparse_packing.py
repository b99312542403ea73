"""Packing f32 weights [n, k] whose zeros are not stored, in the order in which the sparse codelets read them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qcc.dialects.codelet import SparseGather, SparseLanes, SparsePixels, Stream
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.pixel_units import SLACK_BYTES, cell, fill
from qcc.dialects.stream_layout import StreamLayout

Array = np.ndarray[Any, Any]


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
    fill(made, at + 2 * (within % lanes), columns, at + 2 * lanes + 4 * (within % lanes), w[rows, columns])
    return made, begins[::lanes].astype(np.int64), steps.astype(np.int32)


def lane_rows(codelet: SparseLanes, w: Array) -> tuple[Array, Array]:
    """(stream u8, starts i64 [tasks, blocks of k]) of `SparseLanes`."""
    begins = range(0, w.shape[1], codelet.depth)
    tasks = [w[first : first + codelet.chunk] for first in range(0, len(w), codelet.chunk)]
    cells = [cell(task[:, k : k + codelet.depth], codelet.group, codelet.row_bytes) for task in tasks for k in begins]
    sizes = np.array([one.nbytes for one in cells], np.int64)
    return np.concatenate([*cells, np.zeros(SLACK_BYTES, np.uint8)]), (np.cumsum(sizes) - sizes).reshape(-1, len(begins))


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
