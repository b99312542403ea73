"""A block of streamed weights decoded once for all rows of x: real weights of the block's channels in the thread's scratch, k by k, and a
register tile of rows that multiplies them in f32.

What is looked up takes longer to decode than to multiply, so for many rows decoding them for every few anew would take most of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.stream_layout import StreamLayout
from qcc.passes.llvm.codelets import stream_header
from qcc.passes.llvm.codelets.access import bytes_of
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.decoders import decoder
from qcc.passes.llvm.codelets.stream_place import Place

TURN = 4  # k in a turn of the loop


class Panel:
    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value, vectors: int) -> None:
        self.b, self.codelet, self.buffers, self.vectors = b, codelet, buffers, vectors
        self.decoder = decoder(codelet.decoder).Decoder(b, codelet, buffers, instructions)
        self.layout, self.lanes = StreamLayout(codelet), codelet.lanes
        self.weights, self.pitch = Address(scratch), 4 * vectors * self.lanes

    @property
    def rows(self) -> int:
        """Of a register tile: sums, a vector of weights for each, and one of x."""
        return (ISAS[self.codelet.isa].registers - self.vectors - 1) // self.vectors

    def decode(self, g: Index, count: int, place: Place) -> None:
        """(level - zero) * scale of the `count` k of group `g`, which is stored at `place`."""
        b, depth = self.b, self.layout.depth
        target = b.at(self.weights, b.mul(g, self.codelet.group * self.pitch))
        place.prefetch_header(b)
        scales = [stream_header.scale(b, self.layout, place.header, v) for v in range(self.vectors)]
        zeros = [stream_header.zero_taken_off(b, self.layout, place.header, self.vectors, v, "f32") for v in range(self.vectors)]

        def step(s: Index, ks: int) -> None:
            here = b.at(target, b.mul(s, depth * self.pitch))
            opened = [self.decoder.open(place.step(b, v, s)) for v in range(self.vectors)]
            for j in range(ks):
                place.prefetch_steps(b, s, 1, (j, ks))
                for v, (scale, zero) in enumerate(zip(scales, zeros, strict=True)):
                    level = self.decoder.real(opened[v], j)
                    level = level if zero is None else b.binary("fsub", level, zero)
                    b.store(b.binary("fmul", level, scale), here + (j * self.pitch + 4 * self.lanes * v))

        steps, tail = divmod(count, depth)
        b.loop(0, steps, 1, lambda s: step(s, depth))
        if tail:
            step(steps, tail)

    def multiply(self, row: Index, rows: int, start: Sequence[Value]) -> list[Value]:
        """[row][vector]: `start` [vector] and the products of `rows` rows of x from `row` on with all k."""
        b, c = self.b, self.codelet
        x = b.at(self.buffers[c.x.buffer], bytes_of(c.x, (row, 0), b))

        def turn(k: Index, ks: int, sums: Sequence[Value]) -> list[Value]:
            made, weights, xs = list(sums), b.at(self.weights, b.mul(k, self.pitch)), b.at(x, b.mul(k, 4))
            for j in range(ks):
                ws = [b.load(f"{self.lanes}xf32", weights + (j * self.pitch + 4 * self.lanes * v)) for v in range(self.vectors)]
                for r in range(rows):
                    one = b.splat(b.load("f32", xs + 4 * (r * c.x.strides[0] + j)), self.lanes)
                    for v, w in enumerate(ws):
                        i = r * self.vectors + v
                        made[i] = b.op("llvm.intr.fma", [one, w, made[i]], f"{self.lanes}xf32")
            return made

        whole = c.sizes[2] // TURN * TURN
        sums = b.loop(0, whole, TURN, lambda k, *sums: turn(k, TURN, sums), [v for _ in range(rows) for v in start])
        return turn(whole, c.sizes[2] - whole, sums) if whole < c.sizes[2] else list(sums)
