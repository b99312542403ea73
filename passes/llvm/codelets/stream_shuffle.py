"""One group of a streamed linear layer whose codes name levels: each as one or two unsigned bytes from a table of 16, by byte shuffle.

level = byte - zero, or 256 * high + low - zero, in units that are in the scales. Bytes of levels meet bytes of x; products of equal weight
share a sum. Of two-byte levels the product of both low bytes is left out: it would add (low - 128) * x_low, at most 2^-17 of the product
of the range of levels and the range of x, because the low byte of zero is 128 (`stream_activations` starts the sums with zero taken off).
What else is summed is exact; how exact levels are was decided when the table was made (`level_digits`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.passes.llvm.codelets import stream_digits, stream_header
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.stream_place import Place


class Reduction(stream_digits.Reduction):
    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        super().__init__(b, codelet, buffers, instructions, scratch)
        base = buffers[codelet.table]
        self.tables = [b.load(f"{4 * self.lanes}xi8", Address(base, 64 * d), invariant=True) for d in range(codelet.level_digits)]
        self.ignores_upper_bits = hasattr(instructions, "permute_bytes")
        self.look_up = instructions.permute_bytes if self.ignores_upper_bits else instructions.shuffle_bytes

    def group(self, row: Index, rows: int, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        b, layout = self.b, self.layout
        here = b.at(self.scratch, b.mul(row, layout.row_bytes))
        x, words = b.at(here, b.mul(g, self.codelet.group)), b.at(here, b.mul(g, 4))
        sums = [
            self._start(words + r * layout.row_bytes, i) for r in range(rows) for _ in range(place.vectors) for i in range(layout.places)
        ]

        def step(s: Index, sums: list[Value], ask: Callable[[int], None]) -> None:
            xs = b.at(x, b.mul(s, layout.depth))
            opened = [self.decoder.open(place.step(b, v, s)) for v in range(place.vectors)]
            for part, f in enumerate(self.fields):
                ask(part)
                self._products(sums, [codes[f.word] for codes in opened], f, xs, rows)

        sums = self.steps(place, -(-count // layout.depth), step, sums, len(self.fields))
        return self._levels_scaled(rows, count, place, words, sums, totals)

    def _start(self, words: Address, place: int) -> Value:
        """The sum of a place before the first product: zero taken off, which `stream_activations` multiplied with the sum of x."""
        kind = f"{self.lanes}xi32"
        if self.codelet.zeros == "none":
            return self.b.constant(0, kind)
        return self.b.splat(self.b.load("i32", words + self.layout.sum_offset(place)), self.lanes)

    def _products(self, sums: list[Value], words: Sequence[Value], f: stream_digits.Field, xs: Address, rows: int) -> None:
        """Add to `sums` [row][vector][place] what a field of the words of every vector names, times four k of x."""
        layout, places = self.layout, self.layout.places
        four = [self.broadcast(xs + r * layout.row_bytes + d * layout.digit_bytes + f.k) for r in range(rows) for d in range(self.digits)]
        for v, word in enumerate(words):
            code = self._index(word, f)
            for j, table in enumerate(self.tables):
                level = self.look_up(self.b, table, code)
                for n, digit in enumerate(four):
                    r, d = divmod(n, self.digits)
                    if d + j < places:
                        i = (r * len(words) + v) * places + d + j
                        sums[i] = self.instructions.dot4_u8s8(self.b, sums[i], level, digit)

    def _index(self, word: Value, f: stream_digits.Field) -> Value:
        """The codes of a field in bytes; where the table's repetition makes upper bits harmless, they stay."""
        if not self.ignores_upper_bits:
            return self.bytes_of(word, f, 0)
        b = self.b
        return b.op("llvm.bitcast", [b.binary("lshr", word, b.like(f.bit, word)) if f.bit else word], f"{4 * self.lanes}xi8")

    def _levels_scaled(
        self, rows: int, count: int, place: Place, words: Address, sums: Sequence[Value], totals: Sequence[Value]
    ) -> list[Value]:
        """Join the places, in 32 bits where `count` k cannot exceed them, and scale."""
        b, layout, made, kind = self.b, self.layout, list(totals), f"{self.lanes}xf32"
        fits = joins_in_32_bits(count)
        for r in range(rows):
            x_scale = b.splat(b.load("f32", words + r * layout.row_bytes + layout.scale_offset()), self.lanes)
            for v in range(place.vectors):
                i = r * place.vectors + v
                high, *low = sums[i * layout.places : (i + 1) * layout.places]
                if low and fits:
                    high, low = b.binary("add", b.binary("shl", high, b.like(8, high)), low[0]), []
                value = b.cast("sitofp", high, "f32")
                if low:
                    value = b.op("llvm.intr.fma", [value, b.like(256.0, value), b.cast("sitofp", low[0], "f32")], kind)
                scale = stream_header.scale(b, layout, place.header, v)
                made[i] = b.op("llvm.intr.fma", [b.binary("fmul", value, x_scale), scale, made[i]], kind)
        return made


def joins_in_32_bits(count: int) -> bool:
    """Whether 256 * high + low places of `count` products fit: |level - zero| <= 255 per byte, |x| <= 128 per byte."""
    return count * 255 * 128 * (256 + 2) < 1 << 31
