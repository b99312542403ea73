"""One group of a streamed linear layer with few values: each with its column beside it, and a byte permute that fetches x for 64 of them.

A step has up to 4 values of each of 16 channels, within 64 columns from its base on. A mask says which of the 64 are there; values and
columns lie one behind the other and are put in place by `vpexpandb`. Values are signed and absent ones 0, so x is unsigned bytes here:
what that adds is taken off by the sum of a channel's weights, which its header has. Steps come in pairs; of 4-bit values, a byte has one
of each, which are used in the upper half of the byte and count 16 times as much. All sums are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.dialects.stream_layout import INDEXED_RECORD_BYTES, StreamLayout
from qcc.passes.llvm.codelets import stream_header
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.stream_place import Place
from qcc.passes.llvm.codelets.stream_prefetch import LINE_BYTES, SLOW_STREAM, prefetch

UPPER = -0x0F0F0F10  # mask of the upper halves of four bytes


class Reduction:
    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        self.b, self.codelet, self.buffers, self.scratch, self.instructions = b, codelet, buffers, scratch, instructions
        self.layout = StreamLayout(codelet)
        self.lanes, self.digits = self.layout.lanes, self.layout.digits

    def group(self, row: Index, rows: int, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        """`totals` [row], the place in the values, and how many pairs of steps there are; with the only group, at `place`, added."""
        b, layout = self.b, self.layout
        assert place.vectors == 1 and count == self.codelet.sizes[2], "whole rows of 16 channels"
        x = b.at(self.scratch, b.mul(row, layout.row_bytes))
        records, header = place.codes[0], place.header
        sums = [b.constant(0, f"{self.lanes}xi32")] * (rows * self.digits)

        def pair(s: Index, at: Value, *sums: Value) -> list[Value]:
            here = b.at(records, b.mul(s, 2 * INDEXED_RECORD_BYTES))
            prefetch(b, here, 1, SLOW_STREAM)
            prefetch(b, b.at(self.buffers[self.codelet.values], at), self.codelet.fill + LINE_BYTES)
            masks = [b.load("i64", here + i * INDEXED_RECORD_BYTES) for i in range(2)]
            bases = [b.cast("zext", b.load("i16", here + i * INDEXED_RECORD_BYTES + 8), "i64") for i in range(2)]
            at, values, columns = self._pair(at, masks)
            made = list(sums)
            for base, value, column in zip(bases, values, columns, strict=True):
                for n in range(rows * self.digits):
                    r, d = divmod(n, self.digits)
                    table = b.load("64xi8", b.at(x, base) + (r * layout.row_bytes + d * layout.digit_bytes))
                    found = self.instructions.permute_bytes(b, table, column)
                    made[n] = self.instructions.dot4_u8s8(b, made[n], found, value)
            return [at, *made]

        at, *sums = b.loop(0, totals[-1], 1, pair, [totals[-2], *sums])
        return [*self.scaled(row, rows, 0, header, 1, sums, totals), at, totals[-1]]

    def _pair(self, place: Value, masks: Sequence[Value]) -> tuple[Value, list[Value], list[Value]]:
        """The place behind a pair of steps, and the values and columns of both, 64 signed and 64 unsigned bytes each."""
        b = self.b
        counts = [b.op("llvm.intr.ctpop", [mask], "i64") for mask in masks]
        values: list[Value] = []
        columns: list[Value] = []
        if self.codelet.bits == 8:
            for mask, count in zip(masks, counts, strict=True):
                values.append(self._expanded(place, mask))
                place = b.add(place, count)
                columns.append(self._expanded(place, mask))
                place = b.add(place, count)
            return place, values, columns
        for i, mask in enumerate(masks):
            word = b.op("llvm.bitcast", [self._expanded(place, mask)], f"{self.lanes}xi32")
            word = word if i else b.binary("shl", word, b.like(4, word))
            values.append(b.op("llvm.bitcast", [b.binary("and", word, b.like(UPPER, word))], "64xi8"))
        place = b.add(place, b.op("llvm.intr.umax", counts, "i64"))
        for mask, count in zip(masks, counts, strict=True):
            columns.append(self._expanded(place, mask))
            place = b.add(place, count)
        return place, values, columns

    def _expanded(self, place: Value, mask: Value) -> Value:
        """The next bytes where `mask` has ones, 0 elsewhere."""
        b = self.b
        source, bits = b.at(self.buffers[self.codelet.values], place), b.op("llvm.bitcast", [mask], "64xi1")
        return b.call("llvm.masked.expandload.v64i8", [b.pointer(source), bits, b.constant(0, "64xi8")], "64xi8")

    def scaled(
        self, row: Index, rows: int, g: Index, address: Address, vectors: int, sums: Sequence[Value], totals: Sequence[Value]
    ) -> list[Value]:
        """`totals` [row][vector] with `sums` [row][vector][digit] of group `g` added: without the offset of the high digit, scaled."""
        b, layout, kind = self.b, self.layout, f"{self.lanes}xf32"
        base = b.at(b.at(self.scratch, b.mul(row, layout.row_bytes)), b.mul(g, 4)) + layout.scale_offset()
        scales = [stream_header.scale(b, layout, address, v) for v in range(vectors)]
        weights = [stream_header.zero(b, layout, address, vectors, v, "i32") for v in range(vectors)]
        offsets = [b.binary("mul", weight, b.like(128, weight)) for weight in weights]
        made: list[Value] = []
        for r in range(rows):
            x_scale = b.splat(b.load("f32", base + r * layout.row_bytes), self.lanes)
            for v in range(vectors):
                i = r * vectors + v
                high, *low = sums[i * self.digits : (i + 1) * self.digits]
                value = b.cast("sitofp", b.binary("sub", high, offsets[v]), "f32")
                for digit in low:
                    value = b.op("llvm.intr.fma", [value, b.like(256.0, value), b.cast("sitofp", digit, "f32")], kind)
                made.append(b.op("llvm.intr.fma", [b.binary("fmul", value, x_scale), scales[v], totals[i]], kind))
        return made
