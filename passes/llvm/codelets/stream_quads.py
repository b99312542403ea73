"""One group of a streamed linear layer with 1 or 2 values in every 4 k (1:4, 2:4): two bits say where each is, byte permutes fetch x.

A step is 64 k, which one permute reaches; its sub-steps have 4 values of each of 16 channels. Values are signed, so x is unsigned bytes,
as in `stream_indexed`. Two values of 4 bits share a byte and are used in its upper half, where they count 16 times as much. All sums are
exact.
"""

from __future__ import annotations

from collections.abc import Sequence

from qcc.dialects.stream_layout import QUAD, STREAM_WINDOW
from qcc.passes.llvm.codelets import stream_indexed
from qcc.passes.llvm.codelets.builder import Address, Index, Value
from qcc.passes.llvm.codelets.stream_indexed import UPPER
from qcc.passes.llvm.codelets.stream_place import Place

FIELDS = 4  # two-bit fields of a byte


class Reduction(stream_indexed.Reduction):
    def group(self, row: Index, rows: int, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        """`totals` [row][vector] with group `g` of `count` k, stored at `place`, added."""
        b, c, layout, vectors = self.b, self.codelet, self.layout, place.vectors
        x = b.at(b.at(self.scratch, b.mul(row, layout.row_bytes)), b.mul(g, c.group))
        vector_bytes = 4 * self.lanes
        place.prefetch_header(b)
        sums = [b.constant(0, f"{self.lanes}xi32")] * (rows * vectors * self.digits)

        def step(s: Index, *sums: Value) -> list[Value]:
            xs, made = b.at(x, b.mul(s, layout.depth)), list(sums)
            digits = [xs + (r * layout.row_bytes + d * layout.digit_bytes) for r in range(rows) for d in range(self.digits)]
            tables = [b.load("64xi8", digit) for digit in digits]
            for v in range(vectors):
                start = place.step(b, v, s)
                place.prefetch_steps(b, s, 1, (v, vectors))
                words = [b.load(f"{self.lanes}xi32", start + vector_bytes * i) for i in range(c.kept)]
                for t in range(QUAD * c.kept):
                    value = self._value(start + vector_bytes * c.kept, t)
                    column = self._column(words[t // FIELDS], t)
                    for n, table in enumerate(tables):  # n is row * digits + digit
                        i = (n // self.digits * vectors + v) * self.digits + n % self.digits
                        made[i] = self.instructions.dot4_u8s8(b, made[i], self.instructions.permute_bytes(b, table, column), value)
            return made

        sums = b.loop(0, -(-count // layout.depth), 1, step, sums)
        return self.scaled(row, rows, g, place.header, vectors, sums, totals)

    def _value(self, values: Address, t: int) -> Value:
        """64 signed bytes of sub-step `t`."""
        b, size = self.b, 4 * self.lanes
        if self.codelet.bits == 8:
            return b.load("64xi8", values + size * t)
        word = b.load(f"{self.lanes}xi32", values + size * (t // 2))
        word = word if t % 2 else b.binary("shl", word, b.like(4, word))
        return b.op("llvm.bitcast", [b.binary("and", word, b.like(UPPER, word))], "64xi8")

    def _column(self, word: Value, t: int) -> Value:
        """The columns of sub-step `t` within the 64 of the step."""
        b, kept = self.b, self.codelet.kept
        if shift := 2 * (t % FIELDS):
            word = b.binary("lshr", word, b.like(shift, word))
        first = [t * STREAM_WINDOW // (QUAD * kept) + QUAD * (slot // kept) for slot in range(4)]
        masked = b.binary("and", word, b.like(0x03030303, word))
        joined = b.binary("or", masked, b.like(sum(column << (8 * slot) for slot, column in enumerate(first)), word))
        return b.op("llvm.bitcast", [joined], "64xi8")
