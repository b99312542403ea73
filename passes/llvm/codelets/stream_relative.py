"""One group of a streamed linear layer with zeros: values, and how far each is from the one before of its channel in 4 bits.

Relative indices of 4 bits are those of Han et al., "Deep Compression", section 3: where more than 15 columns have no value, a 0 is stored
between. A step has 4 values of each of 16 channels within 128 columns, which one permute of two tables reaches; columns are the sums of
distances, by a multiplication that adds up the bytes of a word. They are counted modulo 128: a window begins at a multiple of 64, and the
half of it that begins at one of 128 is the lower table. Signs, offsets and pairs of steps are those of `stream_indexed`. No mask
is expanded and no byte counted, so that memory remains what takes the time where a bitmap is bound by its arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

from qcc.dialects.stream_layout import INDEXED_SLOTS
from qcc.passes.llvm.codelets import stream_indexed
from qcc.passes.llvm.codelets.builder import Address, Index, Value
from qcc.passes.llvm.codelets.stream_indexed import UPPER
from qcc.passes.llvm.codelets.stream_place import Place
from qcc.passes.llvm.codelets.stream_prefetch import SLOW_STREAM, prefetch

LOWER = 0x0F0F0F0F  # mask of the lower halves of four bytes
ADDED_UP = 0x01010101  # times a word: every byte the sum of itself and those below


class Reduction(stream_indexed.Reduction):
    def group(self, row: Index, rows: int, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        """`totals` [row], the place in the values, and how many pairs of steps there are; with the only group, at `place`, added."""
        b, c, layout = self.b, self.codelet, self.layout
        assert place.vectors == 1 and count == c.sizes[2], "whole rows of 16 channels"
        slots = self.lanes * INDEXED_SLOTS
        values_bytes = slots * 2 * c.bits // 8
        x = b.at(self.scratch, b.mul(row, layout.row_bytes))
        sums = [b.constant(0, f"{self.lanes}xi32")] * (rows * self.digits)
        highest = [4 * lane + 3 for lane in range(self.lanes) for _ in range(INDEXED_SLOTS)]

        def pair(s: Index, at: Value, base: Value, before: Value, *sums: Value) -> list[Value]:
            moves, stored = b.at(place.codes[0], b.mul(s, 2)), b.at(self.buffers[c.values], at)
            prefetch(b, moves, 1, SLOW_STREAM)
            prefetch(b, stored, values_bytes + slots)
            distances, made = b.load(f"{self.lanes}xi32", stored + values_bytes), list(sums)
            for i, value in enumerate(self._values(stored)):
                base = b.add(base, b.cast("zext", b.load("i8", moves + i), "i64"))
                halves = [b.bit_and(b.add(base, 64), -128), b.add(b.bit_and(base, -128), 64)]
                word = b.binary("lshr", distances, b.like(4, distances)) if i else distances
                word = b.binary("mul", b.binary("and", word, b.like(LOWER, word)), b.like(ADDED_UP, word))
                moved = b.op("llvm.bitcast", [word], f"{slots}xi8")
                columns = b.binary("add", before, moved)
                before = b.binary("add", before, b.shuffle(moved, moved, highest))
                for n in range(rows * self.digits):
                    r, d = divmod(n, self.digits)
                    table = [b.load(f"{slots}xi8", b.at(x, half) + (r * layout.row_bytes + d * layout.digit_bytes)) for half in halves]
                    found = self.instructions.permute_bytes(b, table[0], columns, table[1])
                    made[n] = self.instructions.dot4_u8s8(b, made[n], found, value)
            return [b.add(at, values_bytes + slots), base, before, *made]

        start = [totals[-2], b.constant(0, "i64"), b.constant(0, f"{slots}xi8"), *sums]
        at, _, _, *sums = b.loop(0, totals[-1], 1, pair, start)
        return [*self.scaled(row, rows, 0, place.header, 1, sums, totals), at, totals[-1]]

    def _values(self, stored: Address) -> list[Value]:
        """Of both steps of a pair, signed bytes; of 4 bits, in the upper half of the byte."""
        b, kind = self.b, f"{self.lanes * INDEXED_SLOTS}xi8"
        if self.codelet.bits == 8:
            return [b.load(kind, stored + i * self.lanes * INDEXED_SLOTS) for i in range(2)]
        word = b.load(f"{self.lanes}xi32", stored)
        words = [b.binary("shl", word, b.like(4, word)), word]
        return [b.op("llvm.bitcast", [b.binary("and", w, b.like(UPPER, w))], kind) for w in words]
