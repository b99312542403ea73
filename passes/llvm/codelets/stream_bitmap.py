"""One group of a streamed linear layer with unstructured zeros: a bit per byte of codes, and the bytes of the others one behind the other.

A step is one 64-bit mask, for 4 bytes of 16 channels, whose bits say where `vpexpandb` puts the next bytes among zero points; products are
those of `stream_digits`. A byte is one code, or two of 4 bits: to unpack them before they are put in place would cost as much again.
The place in the values moves by the masks' population counts, which do not wait for the values.
"""

from __future__ import annotations

from collections.abc import Sequence

from qcc.dialects.stream_layout import MOST_IN_PLACE_ROWS, bytes_codes
from qcc.passes.llvm.codelets import stream_digits
from qcc.passes.llvm.codelets.builder import Address, Index, Value
from qcc.passes.llvm.codelets.stream_place import Place
from qcc.passes.llvm.codelets.stream_prefetch import prefetch

UNROLLED = 4  # steps whose memory is asked for together, which makes whole lines of it


class Reduction(stream_digits.Reduction):
    def group(self, row: Index, rows: int, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        """`totals` [row][vector], then the place in the values, with group `g` added."""
        b, c, layout, vectors = self.b, self.codelet, self.layout, place.vectors
        x = b.at(b.at(self.scratch, b.mul(row, layout.row_bytes)), b.mul(g, c.group))
        masks, header = place.codes[0], place.header
        shifts = [0, 4] if c.bits == 4 and rows <= MOST_IN_PLACE_ROWS else [0]
        sums = [b.constant(0, f"{self.lanes}xi32")] * (rows * vectors * self.digits * len(shifts))

        def step(s: Index, *carried: Value) -> list[Value]:
            at, *made = carried
            here, xs = b.at(masks, b.mul(s, 8 * vectors)), b.at(x, b.mul(s, layout.depth))
            starts = [xs + r * layout.row_bytes + d * layout.digit_bytes for r in range(rows) for d in range(self.digits)]
            four = [[self.broadcast(start + 4 * f) for start in starts] for f in range(bytes_codes(c.bits))]
            for v in range(vectors):
                mask = b.load("i64", here + 8 * v)
                stored = self._expanded(b.at(self.buffers[c.values], at), mask)
                for f, digits in enumerate(four):
                    code = self._code(stored, f, in_place=len(shifts) > 1)
                    for n, digit in enumerate(digits):
                        i = (n * vectors + v) * len(shifts) + f % len(shifts)
                        made[i] = self.instructions.dot4_u8s8(b, made[i], code, digit)
                at = b.add(at, b.op("llvm.intr.ctpop", [mask], "i64"))
            return [at, *made]

        def several(s: Index, *carried: Value) -> list[Value]:
            first = b.mul(s, UNROLLED)
            prefetch(b, b.at(masks, b.mul(first, 8 * vectors)), UNROLLED * 8 * vectors)
            prefetch(b, b.at(self.buffers[c.values], carried[0]), UNROLLED * vectors * c.fill)
            for i in range(UNROLLED):
                carried = tuple(step(b.add(first, i), *carried))
            return list(carried)

        steps = -(-count // layout.depth)
        carried = b.loop(0, steps // UNROLLED, 1, several, [totals[-1], *sums])
        at, *sums = b.loop(steps // UNROLLED * UNROLLED, steps, 1, step, carried)
        return [*self.scaled(row, rows, g, header, vectors, sums, shifts, totals[:-1]), at]

    def _expanded(self, values: Address, mask: Value) -> Value:
        """The next bytes where `mask` has ones, zero points elsewhere; 64 bytes."""
        b, c = self.b, self.codelet
        fill = sum(c.zero << (c.bits * i) for i in range(bytes_codes(c.bits)))
        zeros, bits = b.constant(fill - 256 if fill > 127 else fill, "64xi8"), b.op("llvm.bitcast", [mask], "64xi1")
        return b.call("llvm.masked.expandload.v64i8", [b.pointer(values), bits, zeros], "64xi8")

    def _code(self, stored: Value, f: int, *, in_place: bool) -> Value:
        """Code `f` of every byte; `in_place`, the upper one counts 16 times as much."""
        if self.codelet.bits == 8:
            return stored
        b = self.b
        word = b.op("llvm.bitcast", [stored], f"{self.lanes}xi32")
        if f and not in_place:
            word = b.binary("lshr", word, b.like(4, word))
        upper = bool(f and in_place)
        word = b.binary("and", word, b.like(-0x0F0F0F10 if upper else 0x0F0F0F0F, word))
        return b.op("llvm.bitcast", [word], "64xi8")
