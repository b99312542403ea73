"""One group of a streamed linear layer whose codes name levels: each as one or two unsigned bytes from a table of 16, by byte shuffle.

level = byte - zero, or 256 * high + low - zero, in units that are in the scales. Every byte of a level meets every byte of x; products
of equal weight share a sum. Sums are exact; how exact levels are was decided when the table was made (`level_digits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.passes.llvm.codelets import stream_digits, stream_header
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.stream_prefetch import prefetch


class Reduction(stream_digits.Reduction):
    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        super().__init__(b, codelet, buffers, instructions, scratch)
        base = buffers[codelet.table]
        self.tables = [b.load(f"{4 * self.lanes}xi8", Address(base, 64 * d), invariant=True) for d in range(codelet.level_digits)]
        self.places = self.digits + codelet.level_digits - 1
        self.ignores_upper_bits = hasattr(instructions, "permute_bytes")
        self.look_up = instructions.permute_bytes if self.ignores_upper_bits else instructions.shuffle_bytes

    def group(self, row: Index, rows: int, g: Index, count: int, address: Address, vectors: int, totals: Sequence[Value]) -> list[Value]:
        b, c, layout = self.b, self.codelet, self.layout
        depth, size = layout.depth, layout.step_bytes
        x = b.at(b.at(self.scratch, b.mul(row, layout.row_bytes)), b.mul(g, c.group))
        codes = address + vectors * layout.header_bytes
        sums = [b.constant(0, f"{self.lanes}xi32")] * (rows * vectors * self.places)

        def step(s: Index, *sums: Value) -> list[Value]:
            here, xs, made = b.at(codes, b.mul(s, vectors * size)), b.at(x, b.mul(s, depth)), list(sums)
            opened = [self.decoder.open(here + v * size) for v in range(vectors)]
            for part, f in enumerate(self.fields):
                prefetch(b, here, vectors * size, (part, len(self.fields)))
                four = [
                    self.broadcast(xs + r * layout.row_bytes + d * layout.digit_bytes + f.k)
                    for r in range(rows)
                    for d in range(self.digits)
                ]
                for v in range(vectors):
                    code = self._index(opened[v][f.word], f)
                    for j, table in enumerate(self.tables):
                        level = self.look_up(b, table, code)
                        for n, digit in enumerate(four):
                            r, d = divmod(n, self.digits)
                            i = (r * vectors + v) * self.places + d + j
                            made[i] = self.instructions.dot4_u8s8(b, made[i], level, digit)
            return made

        sums = b.loop(0, -(-count // depth), 1, step, sums)
        return self._levels_scaled(row, rows, g, address, vectors, sums, totals)

    def _index(self, word: Value, f: stream_digits.Field) -> Value:
        """The codes of a field in bytes; where the table's repetition makes upper bits harmless, they stay."""
        if not self.ignores_upper_bits:
            return self.bytes_of(word, f, 0)
        b = self.b
        return b.op("llvm.bitcast", [b.binary("lshr", word, b.like(f.bit, word)) if f.bit else word], f"{4 * self.lanes}xi8")

    def _levels_scaled(
        self, row: Index, rows: int, g: Index, address: Address, vectors: int, sums: Sequence[Value], totals: Sequence[Value]
    ) -> list[Value]:
        b, layout, made, kind = self.b, self.layout, list(totals), f"{self.lanes}xf32"
        base = b.at(b.at(self.scratch, b.mul(row, layout.row_bytes)), b.mul(g, 4))
        zero = b.constant(-float(self.codelet.zero), kind)
        for r in range(rows):
            here = base + r * layout.row_bytes
            x_sum = self._weighed([b.splat(b.load("i32", here + layout.sum_offset(d)), self.lanes) for d in range(self.digits)])
            x_scale = b.splat(b.load("f32", here + layout.scale_offset()), self.lanes)
            for v in range(vectors):
                i = r * vectors + v
                value = self._weighed(sums[i * self.places : (i + 1) * self.places])
                value = b.op("llvm.intr.fma", [x_sum, zero, value], kind)
                scale = stream_header.scale(b, layout, address, v)
                made[i] = b.op("llvm.intr.fma", [b.binary("fmul", value, x_scale), scale, made[i]], kind)
        return made

    def _weighed(self, digits: Sequence[Value]) -> Value:
        """i32 digits of base 256, high ones first, as f32."""
        b, value = self.b, None
        for digit in digits:
            real = b.cast("sitofp", digit, "f32")
            value = real if value is None else b.op("llvm.intr.fma", [value, b.like(256.0, real), real], f"{self.lanes}xf32")
        return value
