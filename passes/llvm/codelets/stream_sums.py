"""One group of a streamed linear layer whose codes of 1 to 3 bits are looked up in tables of sums of x, 4 k at once.

After Wei et al., "T-MAC: CPU Renaissance via Table Lookup for Low-Bit LLM Deployment on Edge", 2024.

A bit-plane has a bit per weight. Four bits of one channel say which of four x are added up; the 16 sums they can mean are made once per
call, in 16 bits, as a table of high and one of low bytes. A byte permute has room for four such tables, one for each byte of a lane, so
that a product with 2^plane adds four looked-up sums to the lane: a quarter of the products of single k. All sums are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.dialects.stream_layout import SUMS_BYTES, StreamLayout
from qcc.passes.llvm.codelets import stream_header
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.stream_place import Place

TABLE_K = 16  # of the four tables that share a register
TABLE_BYTES = 64
MOST_VECTORS = 8


@dataclass(frozen=True)
class OfX:
    """For a row and group, in all lanes: the sum of x, what was taken off the tables times the planes, and the scale."""

    sum: Value
    lacking: Value
    scale: Value


class Reduction:
    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        self.b, self.codelet, self.scratch, self.instructions = b, codelet, scratch, instructions
        self.layout = StreamLayout(codelet)
        self.lanes = self.layout.lanes

    def group(self, row: Index, rows: int, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        """`totals` [row][vector] with group `g` of `count` k, stored at `place`, added."""
        b, c, layout, bits, vectors = self.b, self.codelet, self.layout, self.codelet.bits, place.vectors
        depth = layout.depth
        tables = b.at(b.at(self.scratch, b.mul(row, layout.row_bytes)), b.mul(g, c.group * SUMS_BYTES))
        place.prefetch_header(b)
        chains = 2 if 2 * rows * vectors <= MOST_VECTORS else 1  # sums of their own for both halves of a word: products wait for their sum
        sums = [b.constant(0, f"{self.lanes}xi32")] * (rows * vectors * chains * 2)

        def step(s: Index, *sums: Value) -> list[Value]:
            entries, made = b.at(tables, b.mul(s, depth * SUMS_BYTES)), list(sums)
            looked = [[self._tables(entries + r * layout.row_bytes, half) for half in range(2)] for r in range(rows)]
            for v in range(vectors):
                here = place.step(b, v, s)
                place.prefetch_steps(b, s, 1, (v, vectors))
                for plane in range(bits):
                    word = b.load(f"{self.lanes}xi32", here + plane * 4 * self.lanes)
                    for half in range(2):
                        index = self._index(word, half)
                        for r in range(rows):
                            i = ((r * vectors + v) * chains + half % chains) * 2
                            made[i : i + 2] = self._added(made[i : i + 2], looked[r][half], index, plane)
            return made

        sums = b.loop(0, -(-count // depth), 1, step, sums)
        return self._scaled(row, rows, g, place.header, vectors, sums, totals)

    def _tables(self, entries: Address, half: int) -> list[Value]:
        """High and low bytes of the sums of 16 k."""
        return [self.b.load("64xi8", entries + TABLE_BYTES * (2 * half + digit)) for digit in range(2)]

    def _index(self, word: Value, half: int) -> Value:
        """4 bits of every byte, and above them the byte's place in its lane, which is its table's in the register."""
        b = self.b
        if half:
            word = b.binary("lshr", word, b.like(4, word))
        masked = b.binary("and", word, b.like(0x0F0F0F0F, word))
        return b.op("llvm.bitcast", [b.binary("or", masked, b.like(0x30201000, word))], "64xi8")

    def _added(self, sums: Sequence[Value], tables: Sequence[Value], index: Value, plane: int) -> list[Value]:
        """Sums of the signed high bytes and of the unsigned low ones, with what `index` names, times 2^plane."""
        b = self.b
        high, low = (self.instructions.permute_bytes(b, table, index) for table in tables)
        factor = b.like(1 << plane, high)
        return [self.instructions.dot4_u8s8(b, sums[0], factor, high), self.instructions.dot4_u8s8(b, sums[1], low, factor)]

    def _scaled(
        self, row: Index, rows: int, g: Index, address: Address, vectors: int, sums: Sequence[Value], totals: Sequence[Value]
    ) -> list[Value]:
        """Join the sums modulo 2^32, which hold the result, put back what tables lack, take the zeros off, scale."""
        b, layout, made = self.b, self.layout, list(totals)
        chains = len(sums) // (2 * rows * vectors)
        base = b.at(b.at(self.scratch, b.mul(row, layout.row_bytes)), b.mul(g, 4))
        for r in range(rows):
            x = self.of_x(base + r * layout.row_bytes)
            for v in range(vectors):
                i = r * vectors + v
                high, low = (self._joined(sums[2 * i * chains + digit : 2 * (i + 1) * chains : 2]) for digit in range(2))
                total = b.binary("add", b.binary("add", b.binary("shl", high, b.like(8, high)), low), x.lacking)
                made[i] = self.scaled(total, x, address, vectors, v, made[i])
        return made

    def of_x(self, words: Address) -> OfX:
        """What the scratch of a row holds for the group whose words are at `words`."""
        b, layout = self.b, self.layout
        x_sum, lacking = (b.splat(b.load("i32", words + layout.sum_offset(which)), self.lanes) for which in range(2))
        lacking = b.binary("mul", lacking, b.like((1 << self.codelet.bits) - 1, lacking))
        return OfX(x_sum, lacking, b.splat(b.load("f32", words + layout.scale_offset()), self.lanes))

    def scaled(self, total: Value, x: OfX, header: Address, vectors: int, v: int, made: Value) -> Value:
        """`made` with what vector `v` of `vectors` sums up to, with zeros taken off and scaled."""
        b, layout = self.b, self.layout
        if self.codelet.step != 1:
            total = b.binary("mul", total, b.like(self.codelet.step, total))
        if (zero := stream_header.zero_taken_off(b, layout, header, vectors, v, "i32")) is not None:
            total = b.binary("sub", total, b.binary("mul", x.sum, zero))
        return self.added(total, x.scale, header, v, made)

    def added(self, total: Value, x_scale: Value, header: Address, v: int, made: Value) -> Value:
        """`made` with the scaled sum `total` of vector `v`."""
        b = self.b
        scale = stream_header.scale(b, self.layout, header, v)
        value = b.binary("fmul", b.cast("sitofp", total, "f32"), x_scale)
        return b.op("llvm.intr.fma", [value, scale, made], f"{self.lanes}xf32")

    def _joined(self, parts: Sequence[Value]) -> Value:
        total = parts[0]
        for part in parts[1:]:
            total = self.b.binary("add", total, part)
        return total
