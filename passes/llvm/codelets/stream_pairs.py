"""One group of a streamed linear layer on integers of 16 bits: weight codes, without a sign, times x, two k at a time (`vpmaddwd`).

The fields of bytes 0 and 2 of a word are a mask away from a pair, those of 1 and 3 a shift and a mask. As in `stream_digits` a field stays
where it lies as long as registers last for the sums of all positions. Sums of 32 bits hold a few hundred products of 8 bits: a longer group
is cut into spans, whose sums, zero taken off, are exact and are added up in f32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.dialects.stream_layout import choose_fold, field_shifts
from qcc.passes.llvm.codelets import stream_digits, stream_header
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.stream_place import Place

PAIR_BITS = 16


class Reduction(stream_digits.Reduction):
    turn_lines = 4  # more, and LLVM mixes steps until registers do not last

    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        super().__init__(b, codelet, buffers, instructions, scratch)
        self.words = [(word, list(fields)) for word, fields in groupby(self.fields, lambda f: f.word)]

    def group(self, row: Index, rows: int, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        """`totals` [row][vector] with group `g` of `count` k, stored at `place`, added."""
        b, c, layout = self.b, self.codelet, self.layout
        here = b.at(self.scratch, b.mul(row, layout.row_bytes))
        x, words = b.at(here, b.mul(g, 2 * c.group)), b.at(here, b.mul(g, 4))
        span = min(c.span or count, count)

        def add(i: Index, size: int, reals: Sequence[Value]) -> list[Value]:
            part = replace(place, codes=[b.at(a, b.mul(i, span // layout.depth * place.stride)) for a in place.codes])
            x_sums = b.at(words, b.mul(i, 4 * layout.groups)) + layout.sum_offset()
            found = self._span(b.at(x, b.mul(i, 2 * span)), rows, size, part, x_sums)
            return [b.binary("fadd", real, more) for real, more in zip(reals, found, strict=True)] if reals else found

        whole, rest = divmod(count, span)
        reals = add(0, span, [])
        reals = b.loop(1, whole, 1, lambda i, *reals: add(i, span, reals), reals)
        if rest:
            reals = add(whole, rest, reals)
        return self._reals_scaled(rows, place, words, reals, totals)

    def _span(self, x: Address, rows: int, count: int, place: Place, x_sums: Address) -> list[Value]:
        """The sum of `count` k times (level - zero) for [row][vector], in f32."""
        b, layout, vectors = self.b, self.layout, place.vectors
        fold = choose_fold(self.codelet.isa, self.codelet.bits, rows * vectors)
        shifts = field_shifts(self.codelet.bits, fold)

        def step(s: Index, made: list[Value], ask: Callable[[int], None]) -> None:
            xs = b.at(x, b.mul(s, 2 * layout.depth))
            for part, (word, fields) in enumerate(self.words):
                pairs = [(f, upper) for f in fields for upper in (0, 1)]
                of_x = [[self.broadcast(xs + r * layout.row_bytes + 2 * f.k + 4 * upper) for r in range(rows)] for f, upper in pairs]
                for v in range(vectors):  # one after the other, so that words and what is masked from them need few registers
                    ask(part * vectors + v)
                    stored = b.load(f"{self.lanes}xi32", place.step(b, v, s) + 4 * self.lanes * word)
                    for (f, upper), rows_of_x in zip(pairs, of_x, strict=True):
                        code = self._pair(stored, f, upper, fold)
                        shift = shifts.index(f.bit % fold - f.weight if fold else 0)
                        for r, pair in enumerate(rows_of_x):
                            i = (r * vectors + v) * len(shifts) + shift
                            made[i] = self.instructions.dot2_s16(b, made[i], pair, code)

        sums = [b.constant(0, f"{self.lanes}xi32")] * (rows * vectors * len(shifts))
        sums = self.steps(place, -(-count // layout.depth), step, sums, len(self.words) * vectors)
        found: list[Value] = []
        for r in range(rows):
            for v in range(vectors):
                first = len(found) * len(shifts)
                total = self._joined(sums[first : first + len(shifts)], shifts)
                if self.codelet.step != 1:
                    total = b.binary("mul", total, b.like(self.codelet.step, total))
                if (zero := stream_header.zero_taken_off(b, layout, place.header, vectors, v, "i32")) is not None:
                    x_sum = b.splat(b.load("i32", x_sums + r * layout.row_bytes), self.lanes)
                    total = b.binary("sub", total, b.binary("mul", x_sum, zero))
                found.append(b.cast("sitofp", total, "f32"))
        return found

    def broadcast(self, address: Address) -> Value:
        """Two x for every lane."""
        b = self.b
        return b.op("llvm.bitcast", [b.splat(b.load("i32", address), self.lanes)], f"{2 * self.lanes}xi16")

    def _pair(self, word: Value, f: stream_digits.Field, upper: int, fold: int) -> Value:
        """The field in bytes 0 and 2 of `word`, or 1 and 3 (`upper`), as 16 bits each."""
        b, bit = self.b, 8 * upper + f.bit
        target = f.bit % fold if fold else f.weight
        word = b.op("llvm.bitcast", [word], f"{2 * self.lanes}xi16")
        if bit != target:
            word = b.binary("lshr" if bit > target else "shl", word, b.like(abs(bit - target), word))
        if bit + f.width < PAIR_BITS or target:
            word = b.binary("and", word, b.like(((1 << f.width) - 1) << target, word))
        return word

    def _reals_scaled(self, rows: int, place: Place, words: Address, reals: Sequence[Value], totals: Sequence[Value]) -> list[Value]:
        b, layout, made = self.b, self.layout, list(totals)
        for r in range(rows):
            x_scale = b.splat(b.load("f32", words + r * layout.row_bytes + layout.scale_offset()), self.lanes)
            for v in range(place.vectors):
                i, scale = r * place.vectors + v, stream_header.scale(b, layout, place.header, v)
                made[i] = b.op("llvm.intr.fma", [b.binary("fmul", reals[i], x_scale), scale, made[i]], f"{self.lanes}xf32")
        return made
