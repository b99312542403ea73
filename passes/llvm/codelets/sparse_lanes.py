"""The loop nest of sparse linear layers with many rows: a weight is broadcast and meets one k of all rows of a block.

Per weight as many multiply-adds as there are vectors of rows, each with its own load: what is stored, and nothing else, is computed. A
block of x stays in the first-level cache while the weights of a task's channels pass by, and sums are added to in scratch once per block.
Loads are the bound, so that a group of channels shares those of offsets and weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import SparseLanes
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import bytes_of, pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.results import Results
from qcc.passes.llvm.codelets.transposition import transposed

AHEAD_BYTES = 2048
"""Weights are asked for this far ahead, a little at a time: several lines at once would take the buffers that sums come through."""
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
        """The weights of all channels for one block of k, whose x begins at `x`, a group of channels after the other."""
        b, c = self.b, self.codelet
        base, stream, following = b.pointer(x), self.buffers[c.w.buffer], x + c.depth * c.row_bytes
        heads = b.at(stream, b.load("i64", start))
        lines = min(MOST_LINES, -(-c.depth * c.row_bytes // LINE_BYTES // -(-c.chunk // c.group)))
        groups = b.divmod(b.add(self.channels, c.group - 1), c.group)[0]

        def group(i: Index, place: Value) -> list[Value]:
            head = b.at(heads, b.mul(i, c.head_bytes))
            *numbers, units = (b.cast("zext", b.load("i16", head + 2 * at), "i64") for at in range(c.group + 1))
            for line in range(lines):
                b.prefetch(b.at(following, b.mul(i, lines * LINE_BYTES)) + line * LINE_BYTES)
            places = [self._sums(number) + 4 * v * self.lanes for number in numbers for v in range(vectors)]
            sums = [b.load(f"{self.lanes}xf32", at) for at in places]
            pairs, rest = b.divmod(units, 2)
            place, *sums = b.loop(0, pairs, 1, lambda _, *carried: self._units(base, 2, *carried), [place, *sums])
            place, *sums = b.loop(0, rest, 1, lambda _, *carried: self._units(base, 1, *carried), [place, *sums])
            for at, total in zip(places, sums, strict=True):
                b.store(total, at)
            return [place]

        b.loop(0, groups, 1, group, [b.pointer(b.at(heads, b.mul(groups, c.head_bytes)))])

    def _units(self, base: Value, count: int, place: Value, *sums: Value) -> list[Value]:
        """`count` weights of each channel of a group, which lie at `place`, times x."""
        b, c, kind = self.b, self.codelet, f"{self.lanes}xf32"
        made, vectors = list(sums), len(sums) // c.group
        b.prefetch(Address(place, AHEAD_BYTES), level=1)
        for unit in range(count):
            at = Address(place, unit * c.unit_bytes)
            weights = self._weights(at + 2 * c.group)
            for i, offset in enumerate(self._offsets(at)):
                row = b.at(base, offset)
                for v in range(vectors):
                    x = b.load(kind, row + 4 * v * self.lanes)
                    made[i * vectors + v] = b.op("llvm.intr.fma", [weights[i], x, made[i * vectors + v]], kind)
        return [b.pointer(Address(place, count * c.unit_bytes)), *made]

    def _offsets(self, at: Address) -> list[Value]:
        """Of the group's weights in x: four by one load, where there are as many."""
        b, group = self.b, self.codelet.group
        if group % 4:
            return [b.cast("zext", b.load("i16", at + 2 * i), "i64") for i in range(group)]
        found: list[Value] = []
        for i in range(0, group, 4):
            word = b.load("i64", at + 2 * i)
            parts = [word, *(b.binary("lshr", word, b.constant(16 * j, "i64")) for j in (1, 2, 3))]
            found += [b.binary("and", part, b.constant(0xFFFF, "i64")) for part in parts]
        return found

    def _weights(self, at: Address) -> list[Value]:
        """The group's weights, each in all lanes."""
        b, group = self.b, self.codelet.group
        if group % 4 or not hasattr(self.instructions, "splat_four"):
            return [b.splat(b.load("f32", at + 4 * i), self.lanes) for i in range(group)]
        return [weight for i in range(0, group, 4) for weight in self.instructions.splat_four(b, at + 4 * i)]

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
