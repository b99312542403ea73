"""One group of a streamed linear layer on integers: weight codes as unsigned bytes times x as signed bytes, four k at a time.

A field of a bit-plane is used where it lies: masked, not shifted, it counts 2^position as much, and every position has a sum of its
own that is shifted once per group. Where those sums would not fit the registers, the upper half of every byte is brought down to the
lower one first, and for several rows all fields are shifted down (`choose_fold`).
All sums of a group are exact; f32 begins with the scales.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.dialects.stream_layout import StreamLayout, choose_fold, field_shifts, planes
from qcc.passes.llvm.codelets import stream_header
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.decoders import decoder
from qcc.passes.llvm.codelets.stream_place import Place
from qcc.passes.llvm.codelets.stream_prefetch import LINE_BYTES


@dataclass(frozen=True)
class Field:
    """Four k in a row, from `k` on: bits `bit`... of every byte of word `word`; a set lowest bit counts 2^`weight`."""

    k: int
    word: int
    bit: int
    width: int
    weight: int


def fields(layout: StreamLayout) -> list[Field]:
    """All fields of one step, planes one behind the other."""
    found: list[Field] = []
    first = weight = 0
    for p in planes(layout.codelet.bits):
        words = layout.depth * p // 32
        for word in range(words):
            found += [Field((word * 8 // p + f) * 4, first + word, p * f, p, weight) for f in range(8 // p)]
        first, weight = first + words, weight + p
    return found


class Reduction:
    turn_lines = 16
    """Of weights in a turn of the loop over steps; a group of up to twice as many has no loop."""

    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        self.b, self.codelet, self.scratch, self.instructions = b, codelet, scratch, instructions
        self.layout = StreamLayout(codelet)
        self.lanes, self.digits = self.layout.lanes, self.layout.digits
        self.buffers = buffers
        self.decoder = decoder("planes").Decoder(b, codelet, buffers, instructions)
        self.fields = fields(self.layout)

    def group(self, row: Index, rows: int, g: Index, count: int, place: Place, totals: Sequence[Value]) -> list[Value]:
        """`totals` [row][vector] with group `g` of `count` k, stored at `place`, added."""
        b, c, depth, vectors = self.b, self.codelet, self.layout.depth, place.vectors
        x = b.at(b.at(self.scratch, b.mul(row, self.layout.row_bytes)), b.mul(g, c.group))
        fold = choose_fold(c.isa, c.bits, self.digits * rows * vectors)
        shifts = field_shifts(c.bits, fold)
        number = {shift: i for i, shift in enumerate(shifts)}
        sums = [b.constant(0, f"{self.lanes}xi32")] * (rows * vectors * self.digits * len(shifts))

        def step(s: Index, made: list[Value], ask: Callable[[int], None]) -> None:
            xs = b.at(x, b.mul(s, depth))
            opened = [self.decoder.open(place.step(b, v, s)) for v in range(vectors)]
            upper = [[b.binary("lshr", w, b.like(4, w)) for w in words] for words in opened] if fold == 4 else opened
            for part, f in enumerate(self.fields):
                ask(part)
                four = [
                    self.broadcast(xs + r * self.layout.row_bytes + d * self.layout.digit_bytes + f.k)
                    for r in range(rows)
                    for d in range(self.digits)
                ]
                for v in range(vectors):
                    code = self.bytes_of((upper if f.bit >= 4 else opened)[v][f.word], f, fold)
                    for n, digit in enumerate(four):  # n is row * digits + digit
                        i = (n * vectors + v) * len(shifts) + number[f.bit % fold - f.weight if fold else 0]
                        made[i] = self.instructions.dot4_u8s8(b, made[i], code, digit)

        sums = self.steps(place, -(-count // depth), step, sums, len(self.fields))
        return self.scaled(row, rows, g, place.header, vectors, sums, shifts, totals)

    def steps(
        self, place: Place, count: int, step: Callable[[Index, list[Value], Callable[[int], None]], None], sums: Sequence[Value], parts: int
    ) -> list[Value]:
        """`sums` after `count` steps of `place`, several in a turn of the loop.

        step(s, sums, ask) changes `sums` and calls ask(i) before the i-th of its `parts` parts, which asks for memory ahead.
        """
        b = self.b
        place.prefetch_header(b)
        in_turn = max(1, self.turn_lines * LINE_BYTES // (place.vectors * self.layout.step_bytes))
        in_turn = count if count <= 2 * in_turn else in_turn

        def turn(first: Index, length: int, sums: Sequence[Value]) -> list[Value]:
            made = list(sums)
            for i in range(length):

                def ask(part: int, i: int = i) -> None:
                    place.prefetch_steps(b, first, length, (i * parts + part, length * parts))

                step(b.add(first, i), made, ask)
            return made

        whole, rest = divmod(count, in_turn)
        sums = b.loop(0, whole, 1, lambda t, *sums: turn(b.mul(t, in_turn), in_turn, sums), sums)
        return turn(whole * in_turn, rest, sums) if rest else list(sums)

    def broadcast(self, address: Address) -> Value:
        """Four bytes of x for every lane."""
        return self.b.op("llvm.bitcast", [self.b.splat(self.b.load("i32", address), self.lanes)], f"{4 * self.lanes}xi8")

    def bytes_of(self, word: Value, f: Field, fold: int) -> Value:
        """The field in every byte of `word`, which is folded already."""
        b = self.b
        if not fold and (right := f.bit - f.weight):
            word = b.binary("lshr", word, b.like(right, word)) if right > 0 else b.binary("shl", word, b.like(-right, word))
        mask = ((1 << f.width) - 1) << (f.bit % fold if fold else f.weight)
        if mask != 0xFF:
            word = b.binary("and", word, b.like(_signed(mask * 0x01010101), word))
        return b.op("llvm.bitcast", [word], f"{4 * self.lanes}xi8")

    def scaled(
        self,
        row: Index,
        rows: int,
        g: Index,
        address: Address,
        vectors: int,
        sums: Sequence[Value],
        shifts: list[int],
        totals: Sequence[Value],
    ) -> list[Value]:
        """Join the sums of all positions and digits, take the zeros off, scale."""
        b, layout, made = self.b, self.layout, list(totals)
        base = b.at(b.at(self.scratch, b.mul(row, layout.row_bytes)), b.mul(g, 4))
        for v in range(vectors):
            scale = stream_header.scale(b, layout, address, v)
            zero = stream_header.zero_taken_off(b, layout, address, vectors, v, "i32")
            for r in range(rows):
                here = base + r * layout.row_bytes
                value = None
                for d in range(self.digits):
                    first = ((r * self.digits + d) * vectors + v) * len(shifts)
                    total = self._joined(sums[first : first + len(shifts)], shifts)
                    if self.codelet.step != 1:
                        total = b.binary("mul", total, b.like(self.codelet.step, total))
                    if zero is not None:
                        x_sum = b.splat(b.load("i32", here + layout.sum_offset(d)), self.lanes)
                        total = b.binary("sub", total, b.binary("mul", x_sum, zero))
                    real = b.cast("sitofp", total, "f32")
                    value = real if value is None else b.op("llvm.intr.fma", [value, b.like(256.0, real), real], f"{self.lanes}xf32")
                x_scale = b.splat(b.load("f32", here + layout.scale_offset()), self.lanes)
                i = r * vectors + v
                made[i] = b.op("llvm.intr.fma", [b.binary("fmul", value, x_scale), scale, made[i]], f"{self.lanes}xf32")
        return made

    def _joined(self, sums: Sequence[Value], shifts: list[int]) -> Value:
        b, total = self.b, None
        for value, shift in zip(sums, shifts, strict=True):
            if shift:
                value = b.binary("ashr" if shift > 0 else "shl", value, b.like(abs(shift), value))
            total = value if total is None else b.binary("add", total, value)
        return total


def _signed(word: int) -> int:
    """A 32-bit pattern as the signed integer that constants take."""
    return word - (1 << 32) if word >= 1 << 31 else word
