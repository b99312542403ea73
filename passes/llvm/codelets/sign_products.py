"""The reduction of a register tile whose operands are bits: exclusive or, population count, addition (XNOR-Net, Rastegari et al., 2016).

Lanes are channels, a step is a word of 32 bits of each. popcount_words counts the bits of words, which needs an instruction for it;
popcount_bytes counts those of bytes, which shuffles can do, and widens the sums before they leave a byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Contraction
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.sign_codelet import BYTE_STEPS, edge_class
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value
from qcc.passes.llvm.codelets.prefetch import Ahead

WORD = 4  # bytes


def edge(b: Builder, index: Index, size: int, first: int, last: int) -> Index:
    """`edge_class` of an index that may be known only while running."""
    if isinstance(index, int):
        return edge_class(index, size, first, last)
    low = b.minimum(index, first) if first else 0
    return b.add(low, b.maximum(b.add(index, last + 1 - size), 0)) if last else low


class SignProducts:
    """The compute tile of a contraction with `signs`."""

    accumulator = "i32"

    def __init__(self, b: Builder, codelet: Contraction, instructions: Any) -> None:
        assert codelet.signs is not None
        self.b, self.codelet, self.signs = b, codelet, codelet.signs
        self.lanes = ISAS[codelet.isa].lanes
        self.words, self.bytes = f"{self.lanes}xi32", f"{WORD * self.lanes}xi8"
        self.narrow = codelet.compute == "popcount_bytes"
        self.both = self.signs.x_planes == self.signs.w_planes == 2  # what is not 0 differs from product to product
        self.trips = (*codelet.taps, codelet.run)
        self.widened = next((i for i in range(3) if math.prod(self.trips[i:]) <= BYTE_STEPS), 2)

    def reduce(
        self, x: Address, weights: Address, vectors: int, pixels: Sequence[int], ahead: Ahead, biases: Sequence[Sequence[Value]]
    ) -> list[Value]:
        """bias + n - 2 d of every pixel, `pixels` bytes behind x, and vector of channels."""
        b, signs = self.b, self.signs
        self.x, self.weights, self.vectors, self.pixels, self.ahead = x, weights, vectors, pixels, ahead
        count = len(pixels) * vectors * (2 if self.both else 1)
        scalars = len(pixels) if signs.x_planes == 2 and not self.both else 0
        start = [b.constant(0, self.words)] * count + [b.constant(0, "i32")] * scalars
        done = self._level(0, (), start, narrow=False)
        made: list[Value] = []
        for p in range(len(pixels)):
            for v in range(vectors):
                at = p * vectors + v
                twice = b.binary("shl", done[at], b.like(1, done[at]))
                total = biases[p][v]
                if self.both:
                    total = b.binary("add", total, done[len(pixels) * vectors + at])
                elif scalars:
                    total = b.binary("add", total, b.splat(done[count + p], self.lanes))
                made.append(b.binary("sub", total, twice))
        return made

    def _level(self, level: int, place: tuple[Index, ...], carried: Sequence[Value], *, narrow: bool) -> list[Value]:
        """Sums after loop number `level` of taps' rows, taps' columns and words, and those inside of it."""
        b = self.b
        if self.narrow and not narrow and level == self.widened:
            vectors = [v for v in carried if v.type == b.type(self.words)]
            zeros = [b.constant(0, self.bytes)] * len(vectors)
            found = self._level(level, place, [*zeros, *carried[len(vectors) :]], narrow=True)
            wide = [b.binary("add", a, self._widen(n)) for a, n in zip(vectors, found[: len(vectors)], strict=True)]
            return [*wide, *found[len(vectors) :]]
        if level == len(self.trips):
            return self._step(place, carried)
        return b.loop(0, self.trips[level], 1, lambda i, *inner: self._level(level + 1, (*place, i), inner, narrow=narrow), carried)

    def _step(self, place: tuple[Index, ...], carried: Sequence[Value]) -> list[Value]:
        """One word of every pixel and channel."""
        b, c, signs = self.b, self.codelet, self.signs
        t0, t1, k = place
        here = b.at(self.x, b.mul(b.add(b.dot((t0, t1), c.tap_strides), b.mul(k, signs.x_planes)), WORD))
        step = b.add(b.mul(b.add(b.mul(t0, c.taps[1]), t1), c.run), k)
        vector = self.lanes * WORD
        stored = b.at(self.weights, b.mul(step, self.vectors * signs.w_planes * vector))
        self.ahead.prefetch(step)
        planes = [
            [b.load(self.words, stored + (v * signs.w_planes + plane) * vector) for plane in range(signs.w_planes)]
            for v in range(self.vectors)
        ]
        made, count = list(carried), len(self.pixels) * self.vectors
        for p, offset in enumerate(self.pixels):
            sign = b.splat(b.load("i32", here + offset), self.lanes)
            word = b.load("i32", here + offset + WORD) if signs.x_planes == 2 else None
            some = None if word is None else b.splat(word, self.lanes)
            for v, (w_sign, *w_some) in enumerate(planes):
                differing = b.binary("xor", sign, w_sign)
                for mask in (some, *w_some):
                    differing = differing if mask is None else b.binary("and", differing, mask)
                at = p * self.vectors + v
                made[at] = self._count(made[at], differing)
                if self.both:
                    made[count + at] = self._count(made[count + at], b.binary("and", some, w_some[0]))
            if word is not None and not self.both:
                made[count + p] = b.binary("add", made[count + p], b.call("llvm.ctpop.i32", [word], "i32"))
        return made

    def _count(self, total: Value, bits: Value) -> Value:
        """`total`, words or bytes, plus the number of ones of each in `bits`."""
        b = self.b
        if self.narrow:
            counted = b.call(f"llvm.ctpop.v{WORD * self.lanes}i8", [b.op("llvm.bitcast", [bits], self.bytes)], self.bytes)
        else:
            counted = b.call(f"llvm.ctpop.v{self.lanes}i32", [bits], self.words)
        return b.binary("add", total, counted)

    def _widen(self, narrow: Value) -> Value:
        """The sum of the four bytes of every lane."""
        b = self.b
        total = b.op("llvm.bitcast", [narrow], self.words)
        for shift, mask in ((8, 0x00FF00FF), (16, 0x0000FFFF)):
            parts = [b.binary("and", part, b.like(mask, part)) for part in (total, b.binary("lshr", total, b.like(shift, total)))]
            total = b.binary("add", *parts)
        return total
