"""Weights as `SparsePixels` reads them: which channels of x share a word, and the words of every output channel that are not zero.

`PixelUnits.apply` is their meaning in numpy. An artefact with coded weights holds the dense ones, which take fewer bits, and makes these
when it is loaded: in C it is `runtime/cpu/src/pixel_units.c`, which gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from qcc.dialects import channel_order
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import to_attribute
from qcc.dialects.sparse_codelet import SparsePixels

Array = np.ndarray[Any, Any]
SLACK_BYTES = 64  # behind what is read a vector at a time; also what is left of weights that are all zero
PIXEL_UNITS = "pixel_units"


@dataclass(frozen=True, eq=False)
class PixelUnits:
    """`source` s8 [1, channels, taps * run]; `members` channels are a group, `vectors` vectors of `lanes` words a row of x, `squares`
    squares a block of x, `chunk` channels a task. `ordered`: channels of x stand in the order that shares most."""

    lanes: int
    vectors: int
    members: int
    run: int
    squares: int
    chunk: int
    ordered: bool
    source: Array
    layout: str = PIXEL_UNITS

    @staticmethod
    def of(codelet: SparsePixels, w: Array) -> PixelUnits:
        """Of weights [channels, taps, run] whose values fit s8."""
        source = w.astype(np.int8).reshape(1, len(w), -1)
        lanes, c = ISAS[codelet.isa].lanes, codelet
        return PixelUnits(lanes, c.vectors, c.group, c.run, c.squares, c.chunk, c.ordered, source)

    def as_attribute(self) -> Any:
        """For `qtile.buffer`."""
        return to_attribute({field.name: getattr(self, field.name) for field in fields(self)})

    @cached_property
    def order(self) -> Array:
        """u8 [chunk of channels][square][channel of the square]; nothing where channels stay in their order."""
        return channel_order.orders(self._w, self.chunk) if self.ordered else np.zeros((0, 0, channel_order.WIDTH), np.uint8)

    @cached_property
    def words(self) -> Array:
        """i32 [channels, taps * quadruples of a run] in order, each of four s8."""
        return quadruples(channel_order.ordered(self._w, self.chunk, self.order) if self.ordered else self._w)

    @cached_property
    def cells(self) -> list[Array]:
        """Of every chunk of channels and block of x."""
        parts = [self.words[first : first + self.chunk] for first in range(0, len(self.words), self.chunk)]
        row_bytes = 4 * self.vectors * self.lanes
        return [cell(part[:, begin:end], self.members, row_bytes) for part in parts for begin, end in self._blocks]

    @property
    def starts(self) -> Array:
        """i64 [chunks of channels * blocks]: the byte where each cell begins."""
        sizes = np.array([cell.nbytes for cell in self.cells], np.int64)
        return self.order.nbytes + 8 * len(sizes) + np.cumsum(sizes) - sizes

    def apply(self) -> Array:
        """u8: the order, the starts, the cells, and what may be read behind them."""
        parts = (self.order.reshape(-1), self.starts.view(np.uint8), *self.cells, np.zeros(SLACK_BYTES, np.uint8))
        return np.concatenate(parts)

    @property
    def _w(self) -> Array:
        return self.source.reshape(self.source.shape[1], -1, self.run)

    @property
    def _blocks(self) -> list[tuple[int, int]]:
        """As `SparsePixels.blocks`."""
        quadruples, run_squares = -(-self.run // 4), -(-self.run // (4 * self.lanes))
        total = self._w.shape[1] * run_squares
        firsts = [number // run_squares * quadruples + number % run_squares * self.lanes for number in range(0, total, self.squares)]
        return list(zip(firsts, [*firsts[1:], self._w.shape[1] * quadruples], strict=True))


def quadruples(w: Array) -> Array:
    """Weights s8 [channels, taps, run] as i32 [channels, taps * quadruples of a run], zeros behind a run that 4 does not divide."""
    padded = np.pad(w, ((0, 0), (0, 0), (0, -w.shape[2] % 4)))
    return np.ascontiguousarray(padded, np.int8).reshape(len(w), -1).view(np.int32)


def cell(w: Array, members: int, row_bytes: int) -> Array:
    """u8: heads and units of the channels of one task and block; w [channels, columns] of 4 bytes each, groups of `members`."""
    channels, size = w.shape[0], 6 * members
    counts = np.count_nonzero(w, axis=1)
    order = np.argsort(counts, kind="stable")
    numbers = np.arange(-(-channels // members) * members)
    numbers[:channels] = order
    units = np.append(counts[order], np.zeros(len(numbers) - channels, np.int64)).reshape(-1, members).max(axis=1)
    heads = np.column_stack([numbers.reshape(-1, members), units]).astype(np.uint16)  # [groups, members + 1]
    made = np.zeros(heads.nbytes + int(units.sum()) * size, np.uint8)
    made[: heads.nbytes] = heads.view(np.uint8).reshape(-1)
    columns = np.argsort(w[order] == 0, axis=1, kind="stable")  # of what is stored, then of zeros, which fill up
    taken = np.repeat(units, members)[:channels]
    place = np.repeat(np.arange(channels), taken)  # in this order
    unit = np.arange(place.size) - np.repeat(np.cumsum(taken) - taken, taken)
    column, member = columns[place, unit], place % members
    at = heads.nbytes + (np.cumsum(units) - units)[place // members] * size + unit * size
    fill(made, at + 2 * member, column * row_bytes, at + 2 * members + 4 * member, w[order[place], column])
    return made


def fill(made: Array, index_at: Array, indices: Array, value_at: Array, values: Array) -> None:
    """Write u16 `indices` and `values` of 4 bytes at the byte places given, which are even."""
    halves = made.view(np.uint16)
    halves[index_at // 2] = indices
    words = np.ascontiguousarray(values).view(np.uint16).reshape(-1, 2)
    halves[value_at // 2], halves[value_at // 2 + 1] = words[:, 0], words[:, 1]
