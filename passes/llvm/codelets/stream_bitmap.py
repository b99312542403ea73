"""One group of a streamed linear layer with unstructured zeros: a bit per weight, and the codes of the others one behind the other.

A step is 4 k of 16 channels: one 64-bit mask, whose bits say where `vpexpandb` puts the next codes among zero points; products are those
of `stream_digits`. The place in the values moves by the masks' population counts, which do not wait for the values.
"""

from __future__ import annotations

from collections.abc import Sequence

from qcc.passes.llvm.codelets import stream_digits
from qcc.passes.llvm.codelets.builder import Address, Index, Value
from qcc.passes.llvm.codelets.stream_prefetch import prefetch


class Reduction(stream_digits.Reduction):
    def group(self, row: Index, rows: int, g: Index, count: int, address: Address, vectors: int, totals: Sequence[Value]) -> list[Value]:
        """`totals` [row][vector], then the place in the values, with group `g` added."""
        b, c, layout = self.b, self.codelet, self.layout
        x = b.at(b.at(self.scratch, b.mul(row, layout.row_bytes)), b.mul(g, c.group))
        masks = address + vectors * layout.header_bytes
        sums = [b.constant(0, f"{self.lanes}xi32")] * (rows * vectors * self.digits)

        def step(s: Index, place: Value, *sums: Value) -> list[Value]:
            here, xs, made = b.at(masks, b.mul(s, 8 * vectors)), b.at(x, b.mul(s, layout.depth)), list(sums)
            prefetch(b, here, 64)
            four = [self.broadcast(xs + r * layout.row_bytes + d * layout.digit_bytes) for r in range(rows) for d in range(self.digits)]
            for v in range(vectors):
                values = b.at(self.buffers[c.values], place)
                if v % 2 == 0:
                    prefetch(b, values, 64)
                mask = b.load("i64", here + 8 * v)
                code = self._expanded(values, mask)
                for n, digit in enumerate(four):
                    made[n * vectors + v] = self.instructions.dot4_u8s8(b, made[n * vectors + v], code, digit)
                count = b.op("llvm.intr.ctpop", [mask], "i64")
                if c.bits == 4:  # whole bytes
                    count = b.binary("lshr", b.add(count, 1), b.constant(1, "i64"))
                place = b.add(place, count)
            return [place, *made]

        place, *sums = b.loop(0, -(-count // layout.depth), 1, step, [totals[-1], *sums])
        return [*self.scaled(row, rows, g, address, vectors, sums, [0], totals[:-1]), place]

    def _expanded(self, values: Address, mask: Value) -> Value:
        """The next codes where `mask` has ones, zero points elsewhere; 64 bytes."""
        b = self.b
        zeros, bits = b.constant(_signed(self.codelet.zero), "64xi8"), b.op("llvm.bitcast", [mask], "64xi1")
        if self.codelet.bits == 8:
            return b.call("llvm.masked.expandload.v64i8", [b.pointer(values), bits, zeros], "64xi8")
        pairs = b.cast("zext", b.load("32xi8", values), "i16")
        spread = b.binary("and", b.binary("or", pairs, b.binary("shl", pairs, b.like(4, pairs))), b.like(0x0F0F, pairs))
        return b.call("llvm.x86.avx512.mask.expand.v64i8", [b.op("llvm.bitcast", [spread], "64xi8"), zeros, bits], "64xi8")


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte
