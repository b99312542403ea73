"""One group of a streamed linear layer whose codes of 1 to 3 bits are looked up in tables of sums of x, by shuffles of 256 bits.

As `stream_sums` (T-MAC), for instruction sets whose byte shuffle has one table of 16 bytes, and no product of four bytes. Channels are
bytes: a byte of a plane names two of the sums of 4 x that a call makes, each two bytes without a sign. Sums of looked-up bytes are words:
one adds whole words, low byte and 256 times the high one modulo 2^16, the other the high bytes alone, so that both are known. Planes lie
behind each other, and 16 bits hold the sums of 1024 k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qcc.passes.llvm.codelets import stream_sums
from qcc.passes.llvm.codelets.builder import Address, Index, Value
from qcc.passes.llvm.codelets.stream_place import Place
from qcc.passes.llvm.codelets.stream_product_tables import OFFSET

TABLE_BYTES = 16
STEP_TABLES = 4  # of the lower and the upper 4 bits of a byte, high and low bytes
STEP_BYTES = 32
SPAN, WORDS_SPAN = 128, 40
"""Steps, each of two looked-up bytes, whose sums 16 bits hold: of bytes, and of those of both planes."""
TURN = 4  # steps, which ask for whole lines


class Reduction(stream_sums.Reduction):
    def group(self, row: Index, rows: int, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        """`totals` [row][vector] with group `g` of `count` k, stored at `place`, added, row by row: codes come from a cache again."""
        b, made = self.b, list[Value]()
        place.prefetch_header(b)
        for r in range(rows):
            here = b.at(self.scratch, b.mul(row, self.layout.row_bytes)) + r * self.layout.row_bytes
            made += self._row(here, g, count, place, totals[r * place.vectors : (r + 1) * place.vectors])
        return made

    def _row(self, here: Address, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        """`totals` [vector] of the row whose scratch is `here`."""
        b, layout = self.b, self.layout
        tables = b.at(here, b.mul(g, self.codelet.group * layout.table_bytes))
        steps, multiplied = -(-count // layout.depth), self.codelet.decoder == "products"
        span = WORDS_SPAN if self.codelet.has_words else SPAN
        sums = [b.constant(-2 * steps * OFFSET if multiplied else 0, f"{self.lanes}xi32")] * place.vectors
        for plane in range(1 if multiplied or self.codelet.has_words else self.codelet.bits):
            one = replace(place, codes=[address + plane * steps * STEP_BYTES for address in place.codes], stride=STEP_BYTES)

            def add(i: Index, size: int, sums: Sequence[Value], one: Place = one, plane: int = plane) -> list[Value]:
                first = b.mul(i, span)
                here = replace(one, codes=[b.at(a, b.mul(first, STEP_BYTES)) for a in one.codes])
                found = self._span(b.at(tables, b.mul(first, STEP_TABLES * TABLE_BYTES)), size, here)
                shifted = [b.binary("shl", v, b.like(plane, v)) if plane else v for v in found]
                return [b.binary("add", total, v) for total, v in zip(sums, shifted, strict=True)]

            whole, rest = divmod(steps, span)
            sums = b.loop(0, whole, 1, lambda i, *sums, add=add: add(i, span, sums), sums)
            if rest:
                sums = add(whole, rest, sums)
        words = b.at(here, b.mul(g, 4))
        if multiplied:
            x_scale = b.splat(b.load("f32", words + layout.scale_offset()), self.lanes)
            return [self.added(total, x_scale, place.header, v, made) for v, (total, made) in enumerate(zip(sums, totals, strict=True))]
        x = self.of_x(words)
        return [
            self.scaled(b.binary("add", total, x.lacking), x, place.header, place.vectors, v, made)
            for v, (total, made) in enumerate(zip(sums, totals, strict=True))
        ]

    def _span(self, tables: Address, count: int, place: Place) -> list[Value]:
        """What `count` steps of one plane, or both, look up, by vector, in i32 lanes."""
        b, each = self.b, 2 if self.codelet.has_words else 4

        def turn(first: Index, length: int, sums: Sequence[Value]) -> list[Value]:
            made = list(sums)
            for i in range(length):
                s = b.add(first, i)
                here = b.at(tables, b.mul(s, STEP_TABLES * TABLE_BYTES))
                looked = [self._table(here + TABLE_BYTES * t) for t in range(STEP_TABLES)]  # high ones of both fours, low ones
                for v in range(place.vectors):
                    place.prefetch_steps(b, first, length, (i * place.vectors + v, length * place.vectors))
                    for four, index in enumerate(self._indices(place.step(b, v, s))):
                        for low in (0, 1):
                            found = self.instructions.shuffle_bytes(b, looked[2 * low + four], index)
                            at = each * v + each // 2 * low
                            made[at : at + each // 2] = self._accumulated(made[at : at + each // 2], found)
            return made

        sums = [b.constant(0, f"{STEP_BYTES // 2}xi16")] * (each * place.vectors)
        whole, rest = divmod(count, TURN)
        sums = b.loop(0, whole, 1, lambda t, *sums: turn(b.mul(t, TURN), TURN, sums), sums)
        sums = turn(whole * TURN, rest, sums) if rest else sums
        return [self._joined_lanes(sums[each * v : each * v + each]) for v in range(place.vectors)]

    def _accumulated(self, sums: Sequence[Value], found: Value) -> list[Value]:
        """Sums of words with looked-up bytes: plane 0 and twice plane 1, or whole words and high bytes."""
        b = self.b
        if self.codelet.has_words:
            weights = b.op("llvm.bitcast", [b.constant(0x0201, f"{STEP_BYTES // 2}xi16")], f"{STEP_BYTES}xi8")
            return [b.binary("add", sums[0], self.instructions.pair_u8s8(b, found, weights))]
        words = b.op("llvm.bitcast", [found], f"{STEP_BYTES // 2}xi16")
        return [b.binary("add", sums[0], words), b.binary("add", sums[1], b.binary("lshr", words, b.like(8, words)))]

    def _table(self, address: Address) -> Value:
        """16 bytes, in both halves of a register."""
        table = self.b.load(f"{TABLE_BYTES}xi8", address)
        return self.b.shuffle(table, table, list(range(TABLE_BYTES)) * 2)

    def _indices(self, address: Address) -> tuple[Value, Value]:
        """The lower and the upper 4 bits of all bytes."""
        b = self.b
        stored = b.load(f"{STEP_BYTES}xi8", address)
        words = b.op("llvm.bitcast", [stored], f"{STEP_BYTES // 2}xi16")
        upper = b.op("llvm.bitcast", [b.binary("lshr", words, b.like(4, words))], f"{STEP_BYTES}xi8")
        return b.binary("and", stored, b.like(15, stored)), b.binary("and", upper, b.like(15, upper))

    def _joined_lanes(self, sums: Sequence[Value]) -> Value:
        """256 * high + low in i32 lanes, in the order of words; of bytes first the low ones."""
        b = self.b

        def lanes(whole: Value, odd: Value | None = None) -> Value:
            if odd is None:
                return b.cast("zext", whole, "i32")
            even = b.binary("sub", whole, b.binary("shl", odd, b.like(8, odd)))
            return b.joined([b.cast("zext", even, "i32"), b.cast("zext", odd, "i32")])

        half = len(sums) // 2
        upper, lower = lanes(*sums[:half]), lanes(*sums[half:])
        return b.binary("add", b.binary("shl", upper, b.like(8, upper)), lower)
