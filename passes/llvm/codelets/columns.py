"""The loop nest of a linear layer that skips the columns of weights whose activation is 0 (EIE, Han et al., ISCA 2016, section 3).

Once per call the columns with something to multiply are listed. A task then walks the list for its block of channels, a few columns at a
time: their bytes are interleaved into the operands of a dot product. Accumulators of the block stay in the first-level cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.column_codelet import AHEAD, COLUMNS, Columns, scratch_of
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import bytes_of, pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value, lanes_of
from qcc.passes.llvm.codelets.results import Results

LINE = 64  # bytes


def prologue(b: Builder, codelet: Columns, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
    """List the columns whose element of x is not 0, without a branch: what is 0 is overwritten by the next."""
    c, place = codelet, scratch_of(codelet)
    group = COLUMNS[c.compute]
    size = 4 // group
    x = b.at(buffers[c.x.buffer], bytes_of(c.x, (0,), b))
    columns, elements = (b.at(scratch, offset) for offset in (place.columns, place.elements))

    def put(count: Index, k: Index, element: Value) -> None:
        b.store(b.cast("trunc", b.index(k), "i32"), b.at(columns, b.mul(count, 4)))
        b.store(element if size == 1 else b.cast("zext", element, "i16"), b.at(elements, b.mul(count, size)))

    def step(k: Index, count: Value) -> list[Value]:
        element = b.load("i8", b.at(x, k))
        put(count, k, element)
        some = b.compare("ne", element, b.constant(0, "i8"))
        return [b.add(count, b.cast("zext", some, "i64"))]

    (count,) = b.loop(0, c.sizes[1], 1, step, [b.constant(0, "i64")])
    for i in range(group * (AHEAD + 1)):
        put(b.add(count, i), 0, b.constant(0, "i8"))
    b.store(count, b.at(scratch, place.count))


def emit(b: Builder, codelet: Columns, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    _Nest(b, codelet, buffers, instructions, scratch).block(task)


class _Nest:
    def __init__(self, b: Builder, codelet: Columns, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        self.b, self.codelet, self.buffers, self.instructions = b, codelet, buffers, instructions
        self.lanes, self.group = ISAS[codelet.isa].lanes, COLUMNS[codelet.compute]
        self.unit = self.lanes * self.group  # channels
        self.place, self.scratch = scratch_of(codelet), scratch
        self.accumulators = b.at(scratch, self.place.accumulators)

    def block(self, block: Index) -> None:
        b, c = self.b, self.codelet
        full, rest = divmod(c.sizes[0], c.width)
        if full:
            b.when(b.less(block, full), lambda: self._channels(block, c.width))
        if rest:
            b.when(b.equal(block, full), lambda: self._channels(full, rest))

    def _channels(self, block: Index, channels: int) -> None:
        """All that block `block` computes, of which the first `channels` channels exist."""
        b, c = self.b, self.codelet
        units, first = -(-channels // self.unit), b.mul(block, c.width)
        vector = 4 * self.lanes
        zero = b.constant(0, f"{self.lanes}xi32")
        bias = None if c.bias is None else b.at(self.buffers[c.bias.buffer], bytes_of(c.bias, (first,), b))

        def begin(i: Index) -> None:
            start = zero if bias is None else b.load(f"{self.lanes}xi32", b.at(bias, b.mul(i, vector)))
            b.store(start, b.at(self.accumulators, b.mul(i, vector)))

        b.loop(0, units * self.group, 1, begin)
        count = b.load("i64", b.at(self.scratch, self.place.count))
        groups, _ = b.divmod(b.add(count, self.group - 1), self.group)
        weights = b.at(self.buffers[c.w.buffer], b.mul(block, c.width * c.sizes[1]))
        b.loop(0, groups, 1, lambda g: self._group(g, weights, units))
        self._finish(first, channels)

    def _group(self, g: Index, weights: Address, units: int) -> None:
        """A few columns times all channels of the block."""
        b, c = self.b, self.codelet
        columns = b.at(b.at(self.scratch, self.place.columns), b.mul(g, 4 * self.group))
        here, ahead = (
            [
                b.at(weights, b.mul(b.cast("zext", b.load("i32", columns + 4 * (self.group * far + j)), "i64"), c.width))
                for j in range(self.group)
            ]
            for far in (0, AHEAD)
        )
        word = b.load("i32", b.at(b.at(self.scratch, self.place.elements), b.mul(g, 4)))
        x = b.op("llvm.bitcast", [b.splat(word, self.lanes)], f"{self.unit}xi{32 // self.group}")
        together = max(1, LINE // self.unit)  # units of a line

        def line(u: Index, count: int = together) -> None:
            for one in ahead:
                b.prefetch(b.at(one, b.mul(u, self.unit)))
            for i in range(count):
                self._multiply([b.at(one, b.mul(u, self.unit)) + i * self.unit for one in here], x, b.add(u, i))

        whole = units // together * together
        b.loop(0, whole, together, line)
        if whole < units:
            line(whole, units - whole)

    def _multiply(self, columns: Sequence[Address], x: Value, unit: Index) -> None:
        b, vector = self.b, 4 * self.lanes
        at = b.at(self.accumulators, b.mul(unit, self.group * vector))
        multiply = self.instructions.dot4_u8s8 if self.group == 4 else self.instructions.dot2_s16
        for v, w in enumerate(self._interleaved([b.load(f"{self.unit}xi8", one) for one in columns])):
            total = b.load(f"{self.lanes}xi32", at + v * vector)
            b.store(multiply(b, total, x, w), at + v * vector)

    def _interleaved(self, columns: list[Value]) -> list[Value]:
        """Operands of dot products: for each lane the elements of all columns."""
        b = self.b
        if self.group == 2:
            first, second = (b.cast("sext", column, "i16") for column in columns)
            return self._unpack(first, second, 8)
        pairs = [self._unpack(x, y, 16) for x, y in (columns[:2], columns[2:])]
        words = [[b.op("llvm.bitcast", [half], f"{self.unit // 2}xi16") for half in pair] for pair in pairs]
        quads = [v for half in (0, 1) for v in self._unpack(words[0][half], words[1][half], 8)]
        return [b.op("llvm.bitcast", [v], f"{self.unit}xi8") for v in quads]

    def _unpack(self, x: Value, y: Value, width: int) -> list[Value]:
        """Lower and upper halves of every 128 bits (`width` elements) of x and y, alternating."""
        starts = range(0, lanes_of(x), width)
        return [
            self.b.shuffle(x, y, [n for s in starts for i in range(width // 2) for n in (s + half + i, lanes_of(x) + s + half + i)])
            for half in (0, width // 2)
        ]

    def _finish(self, first: Index, channels: int) -> None:
        """Steps and stores; whole vectors in a loop."""
        b, vector = self.b, 4 * self.lanes
        whole = channels // self.unit

        def unit(u: Index, count: int) -> None:
            results = Results(b, self.codelet, self.buffers, self.instructions, (b.add(first, b.mul(u, self.unit)),))
            for start in range(0, count, self.lanes):
                found = b.load(f"{self.lanes}xi32", b.at(self.accumulators, b.mul(u, self.group * vector)) + 4 * start)
                for at, size in pieces(min(self.lanes, count - start), self.lanes):
                    part = found if size == self.lanes else b.shuffle(found, found, list(range(at, at + size)))
                    results.put((start + at,), part)
            results.end()

        b.loop(0, whole, 1, lambda u: unit(u, self.unit))
        if channels % self.unit:
            unit(whole, channels % self.unit)
