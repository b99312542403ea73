"""One group of a streamed linear layer in f32 lanes with unstructured zeros: a bit per weight, and the others as f32 one behind the other.

A step is 4 k; every k has 16 bits for each vector of channels, which say where `vexpandps` puts the next values among zeros. The time does
not depend on how many zeros there are, only the bytes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.dialects.stream_layout import StreamLayout
from qcc.passes.llvm.codelets import stream_float
from qcc.passes.llvm.codelets.access import bytes_of
from qcc.passes.llvm.codelets.builder import Builder, Index, Value
from qcc.passes.llvm.codelets.stream_place import Place
from qcc.passes.llvm.codelets.stream_prefetch import prefetch


class Reduction(stream_float.Reduction):
    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        self.b, self.codelet, self.buffers, self.scratch = b, codelet, buffers, scratch  # and no decoder
        self.layout = StreamLayout(codelet)
        self.lanes = self.layout.lanes

    def group(self, row: Index, rows: int, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        """`totals` [row][vector], then the place in the values, with group `g` added."""
        b, c, depth, size, vectors = self.b, self.codelet, self.layout.depth, self.layout.step_bytes, place.vectors
        x = b.at(self.buffers[c.x.buffer], b.add(bytes_of(c.x, (row, 0), b), b.mul(g, 4 * c.group)))
        masks, kind = place.codes[0], f"{self.lanes}xf32"

        def step(s: Index, values: Sequence[Value], ks: int) -> list[Value]:
            here, xs = b.at(masks, b.mul(s, vectors * size)), b.at(x, b.mul(s, 4 * depth))
            value, *sums = values
            prefetch(b, here, vectors * size)
            for j in range(ks):
                broadcast = [b.splat(b.load("f32", xs + 4 * (r * c.x.strides[0] + j)), self.lanes) for r in range(rows)]
                for v in range(vectors):
                    at = b.at(self.buffers[c.values], value)
                    if v % 2 == 0:
                        prefetch(b, at, 64)
                    mask = b.load("i16", here + (v * size + 2 * j))
                    bits = b.op("llvm.bitcast", [mask], f"{self.lanes}xi1")
                    weights = b.call("llvm.masked.expandload.v16f32", [b.pointer(at), bits, b.constant(0.0, kind)], kind)
                    for r in range(rows):
                        i = r * vectors + v
                        sums[i] = b.op("llvm.intr.fma", [broadcast[r], weights, sums[i]], kind)
                    count = b.cast("zext", b.op("llvm.intr.ctpop", [mask], "i16"), "i64")
                    value = b.add(value, b.mul(count, 4))
            return [value, *sums]

        steps, tail = divmod(count, depth)
        found = [totals[-1], *[b.constant(0, kind)] * (rows * vectors)]
        found = b.loop(0, steps, 1, lambda s, *values: step(s, values, depth), found)
        if tail:
            found = step(steps, found, tail)
        return [*self._scaled(row, rows, g, place.header, vectors, found[1:], totals[:-1]), found[0]]
