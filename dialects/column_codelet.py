"""The configuration of the codelet that reads weights only where the activation is not 0; `dialects/codelet.py` has the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from qcc.dialects.codelet import Operand, Step

COLUMNS = {"dot4_u8s8": 4, "dot2_s16": 2}
"""Columns that are multiplied at once, by compute: as many as there are vectors of channels in a unit."""


@dataclass(frozen=True)
class Columns:
    """A linear layer of one row: acc[c] = bias[c] + sum over the k with x[k] != 0 of x[k] * w[c, k], then the steps.

    `sizes` are the channels and k. A block is `width` channels and a task; w is [block][k][width] s8, absent channels 0, and so is the
    bias. Channels of every unit (COLUMNS vectors) lie in the order of `unit_order`. x is contiguous u8 whose zero point is 0; operands
    and y have strides over the channels. `density` is the share of x that is expected not to be 0: it is what time is predicted with.
    """

    isa: str
    compute: str
    sizes: tuple[int, int]
    width: int
    x: Operand
    w: Operand
    operands: tuple[Operand, ...]
    steps: tuple[Step, ...]
    y: Operand
    density: float
    bias: Operand | None = None
    params: int = -1
    kind: str = "columns"


@dataclass(frozen=True)
class ColumnScratch:
    """Byte offsets in the thread's scratch: the list of columns (i32) and their elements of x, how many there are (i64), accumulators."""

    columns: int
    elements: int
    count: int
    accumulators: int
    size: int


AHEAD = 2  # groups of columns whose weights are prefetched


def scratch_of(c: Columns) -> ColumnScratch:
    """Where a task keeps what. The list goes on behind its end, so that what is ahead is always a column."""
    entries = -(-(c.sizes[1] + COLUMNS[c.compute] * (AHEAD + 1)) // 64) * 64
    element = 4 // COLUMNS[c.compute]
    elements = 4 * entries
    count = elements + element * entries
    return ColumnScratch(0, elements, count, count + 64, count + 64 + 4 * c.width)


def unit_order(compute: str, lanes: int) -> np.ndarray:
    """[unit] channel that each byte of a unit holds, such that interleaving columns within 128 bits gives vectors in channel order."""
    count = COLUMNS[compute]
    order = np.zeros(count * lanes, np.int64)
    for vector in range(count):
        for lane in range(lanes):
            order[4 * count * (lane // 4) + 4 * vector + lane % 4] = vector * lanes + lane
    return order
