"""One group of a streamed linear layer in f32 lanes: decode, then one fused multiply-add per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.dialects.stream_layout import StreamLayout
from qcc.passes.llvm.codelets import stream_header
from qcc.passes.llvm.codelets.access import bytes_of
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.decoders import decoder
from qcc.passes.llvm.codelets.stream_place import Place


class Reduction:
    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        self.b, self.codelet, self.buffers, self.scratch = b, codelet, buffers, scratch
        self.layout = StreamLayout(codelet)
        self.lanes = self.layout.lanes
        self.decoder = decoder(codelet.decoder).Decoder(b, codelet, buffers, instructions)

    def group(self, row: Index, rows: int, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        """`totals` [row][vector] with group `g` of `count` k, stored at `place`, added."""
        b, c, depth, vectors = self.b, self.codelet, self.layout.depth, place.vectors
        x = b.at(self.buffers[c.x.buffer], b.add(bytes_of(c.x, (row, 0), b), b.mul(g, 4 * c.group)))
        place.prefetch_header(b)

        def step(s: Index, sums: Sequence[Value], ks: int) -> list[Value]:
            xs = b.at(x, b.mul(s, 4 * depth))
            opened = [self.decoder.open(place.step(b, v, s)) for v in range(vectors)]
            sums = list(sums)
            for j in range(ks):
                place.prefetch_steps(b, s, 1, (j, ks))
                broadcast = [b.splat(b.load("f32", xs + 4 * (r * c.x.strides[0] + j)), self.lanes) for r in range(rows)]
                for v in range(vectors):
                    level = self.decoder.real(opened[v], j)
                    for r in range(rows):
                        i = r * vectors + v
                        sums[i] = b.op("llvm.intr.fma", [broadcast[r], level, sums[i]], f"{self.lanes}xf32")
            return sums

        steps, tail = divmod(count, depth)
        sums = [b.constant(0, f"{self.lanes}xf32")] * (rows * vectors)
        sums = b.loop(0, steps, 1, lambda s, *sums: step(s, sums, depth), sums)
        if tail:
            sums = step(steps, sums, tail)
        return self._scaled(row, rows, g, place.header, vectors, sums, totals)

    def _scaled(
        self, row: Index, rows: int, g: Index, address: Address, vectors: int, sums: Sequence[Value], totals: Sequence[Value]
    ) -> list[Value]:
        b, kind = self.b, f"{self.lanes}xf32"
        made = list(totals)
        for v in range(vectors):
            scale = stream_header.scale(b, self.layout, address, v)
            zero = stream_header.zero_taken_off(b, self.layout, address, vectors, v, "f32")
            for r in range(rows):
                i = r * vectors + v
                total = sums[i]
                if zero is not None:
                    here = b.at(b.at(self.scratch, b.mul(row, self.layout.row_bytes)), b.mul(g, 4))
                    x_sum = b.splat(b.load("f32", here + r * self.layout.row_bytes + self.layout.sum_offset()), self.lanes)
                    negative = b.op("llvm.fneg", [x_sum], kind)
                    total = b.op("llvm.intr.fma", [negative, zero, total], kind)
                made[i] = b.op("llvm.intr.fma", [total, scale, made[i]], kind)
        return made
