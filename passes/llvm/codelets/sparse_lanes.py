"""The loop nest of sparse linear layers with many rows: a weight is broadcast and meets one k of all rows of a block.

Per weight as many multiply-adds as there are vectors of rows, each with its own load: what is stored, and nothing else, is computed. A
block of x stays in the first-level cache while the weights of a task's channels pass by, and sums are added to in scratch once per block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import SparseLanes
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import bytes_of, pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.results import Results
from qcc.passes.llvm.codelets.sparse_units import Units
from qcc.passes.llvm.codelets.transposition import transposed

LINE_BYTES = 64
MOST_LINES = 8  # of the next block of x that are asked for with each group of channels


def emit(b: Builder, codelet: SparseLanes, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task: a chunk of channels, for one block of rows after the other."""
    nest, lanes = _Nest(b, codelet, buffers, instructions, task, scratch), ISAS[codelet.isa].lanes
    full, rest = divmod(codelet.sizes[0], codelet.vectors * lanes)
    b.loop(0, full, 1, lambda block: nest.rows(block, codelet.vectors * lanes))
    if rest:
        nest.rows(full, rest)


class _Nest:
    def __init__(self, b: Builder, codelet: SparseLanes, buffers: Sequence[Value], instructions: Any, task: Value, scratch: Value) -> None:
        self.b, self.codelet, self.buffers, self.instructions, self.task, self.scratch = b, codelet, buffers, instructions, task, scratch
        self.lanes = ISAS[codelet.isa].lanes
        self.first = b.mul(task, codelet.chunk)
        self.channels = b.minimum(codelet.chunk, b.sub(codelet.sizes[1], self.first))

    def rows(self, block: Index, count: int) -> None:
        """`count` rows of x from the block's first one on."""
        b, c, vectors = self.b, self.codelet, -(-count // self.lanes)
        x = b.at(self.buffers[c.x.buffer], b.add(4 * c.x.offset, b.mul(block, c.padded_k * c.row_bytes)))
        starts = b.at(self.buffers[c.starts], b.mul(self.task, 8 * c.k_blocks))
        b.loop(0, self.channels, 1, lambda channel: self._begin(channel, vectors))
        b.loop(0, c.k_blocks, 1, lambda k: self._columns(b.at(x, b.mul(k, c.depth * c.row_bytes)), b.at(starts, b.mul(k, 8)), vectors))
        self._end(b.mul(block, c.vectors * self.lanes), count)

    def _begin(self, channel: Index, vectors: int) -> None:
        """Sums start at the bias."""
        b, bias = self.b, self.codelet.bias
        value = b.constant(0.0, "f32")
        if bias is not None:
            value = b.load("f32", b.at(self.buffers[bias.buffer], bytes_of(bias, (0, b.add(self.first, channel)), b)))
        sums, start = self._sums(channel), b.splat(value, self.lanes)
        for v in range(vectors):
            b.store(start, sums + 4 * v * self.lanes)

    def _sums(self, channel: Index) -> Address:
        return self.b.at(self.scratch, self.b.mul(channel, self.codelet.row_bytes))

    def _columns(self, x: Address, start: Address, vectors: int) -> None:
        """The weights of all channels for one block of k, whose x begins at `x`."""
        b, c = self.b, self.codelet
        following = x + c.depth * c.row_bytes
        lines = min(MOST_LINES, -(-c.depth * c.row_bytes // LINE_BYTES // -(-c.chunk // c.group)))

        def ask(group: Index) -> None:
            for line in range(lines):
                b.prefetch(b.at(following, b.mul(group, lines * LINE_BYTES)) + line * LINE_BYTES)

        heads = b.at(self.buffers[c.w.buffer], b.load("i64", start))
        Units(b, c, self.instructions, vectors, self._sums).block(heads, x, self.channels, None, ask)

    def _end(self, row: Index, count: int) -> None:
        """Sums become rows of results: square by square turned around, through the steps, stored."""
        b, c = self.b, self.codelet
        full, rest = divmod(c.sizes[1], self.lanes)
        first, end = b.divmod(self.first, self.lanes)[0], b.add(self.first, self.channels)
        last = b.divmod(b.add(end, self.lanes - 1), self.lanes)[0]
        squares = [(v, min(self.lanes, count - v * self.lanes)) for v in range(-(-count // self.lanes))]

        def group(number: Index, channels: int) -> None:
            sums = self._sums(b.mul(b.sub(number, first), self.lanes))
            whole = sum(size == self.lanes for _, size in squares)
            b.loop(0, whole, 1, lambda v: square(number, channels, sums, v, self.lanes))
            for v, size in squares[whole:]:
                square(number, channels, sums, v, size)

        def square(number: Index, channels: int, sums: Address, v: Index, rows: int) -> None:
            at = b.at(sums, b.mul(v, 4 * self.lanes))
            made = transposed(b, [b.load(f"{self.lanes}xf32", at + i * c.row_bytes) for i in range(self.lanes)])
            place = (b.add(row, b.mul(v, self.lanes)), b.mul(number, self.lanes))
            results = Results(b, c, self.buffers, self.instructions, place)
            for m in range(rows):  # y's rows are far apart: the next square's would be waited for one by one
                b.prefetch(results.y + 4 * (m * c.y.strides[0] + self.lanes * c.y.strides[1]), level=1)
            for m in range(rows):
                for start, size in pieces(channels, self.lanes):
                    part = made[m] if size == self.lanes else b.shuffle(made[m], made[m], list(range(start, start + size)))
                    results.put((m, start), part)
            results.end()

        if full:
            b.loop(first, b.minimum(last, full), 1, lambda number: group(number, self.lanes))
        if rest:
            b.when(b.equal(last, full + 1), lambda: group(full, rest))
