"""The inner loops of weights that are stored without zeros and broadcast: all weights of a group of channels for one block of x.

A unit is one weight, or quadruple of bytes, of each channel of the group; `dialects/sparse_codelet.py` has the layout. Loads are the bound,
so that a group shares those of offsets and weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qcc.dialects.codelet import SparseLanes, SparsePixels
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value

AHEAD_BYTES = 2048
"""Weights are asked for this far ahead, a little at a time: several lines at once would take the buffers that sums come through."""


class Units:
    """The weights of `codelet` times x as `vectors` vectors of words. `sums` gives the place of a channel's sums, `start` the vector that
    they start at; without it they are what is there."""

    def __init__(
        self, b: Builder, codelet: SparseLanes | SparsePixels, instructions: Any, vectors: int, sums: Callable[[Value], Address]
    ) -> None:
        self.b, self.codelet, self.instructions, self.vectors, self.sums = b, codelet, instructions, vectors, sums
        self.lanes = ISAS[codelet.isa].lanes
        self.floats = isinstance(codelet, SparseLanes)

    def block(
        self, heads: Address, x: Address, channels: Index, start: Callable[[Value], Value] | None, beside: Callable[[Index], None]
    ) -> None:
        """Add up one block, whose weights begin at `heads` and x at `x`, a group of `channels` after the other; `beside` each of them."""
        b, c = self.b, self.codelet
        base, kind = b.pointer(x), f"{self.lanes}x{'f32' if self.floats else 'i32'}"
        groups = b.divmod(b.add(channels, c.group - 1), c.group)[0]

        def group(i: Index, place: Value) -> list[Value]:
            head = b.at(heads, b.mul(i, c.head_bytes))
            *numbers, units = (b.cast("zext", b.load("i16", head + 2 * at), "i64") for at in range(c.group + 1))
            beside(i)
            places = [self.sums(number) + 4 * v * self.lanes for number in numbers for v in range(self.vectors)]
            if start is None:
                sums = [b.load(kind, at) for at in places]
            else:
                sums = [first for number in numbers for first in [start(number)] * self.vectors]
            pairs, rest = b.divmod(units, 2)
            place, *sums = b.loop(0, pairs, 1, lambda _, *carried: self._units(base, 2, *carried), [place, *sums])
            place, *sums = b.loop(0, rest, 1, lambda _, *carried: self._units(base, 1, *carried), [place, *sums])
            for at, total in zip(places, sums, strict=True):
                b.store(total, at)
            return [place]

        b.loop(0, groups, 1, group, [b.pointer(b.at(heads, b.mul(groups, c.head_bytes)))])

    def _units(self, base: Value, count: int, place: Value, *sums: Value) -> list[Value]:
        """`count` units, which lie at `place`, times x."""
        b, c, made = self.b, self.codelet, list(sums)
        b.prefetch(Address(place, AHEAD_BYTES), level=1)
        for unit in range(count):
            at = Address(place, unit * c.unit_bytes)
            weights = self._weights(at + 2 * c.group)
            for i, offset in enumerate(self._offsets(at)):
                row = b.at(base, offset)
                for v in range(self.vectors):
                    number = i * self.vectors + v
                    made[number] = self._multiply_add(made[number], row + 4 * v * self.lanes, weights[i])
        return [b.pointer(Address(place, count * c.unit_bytes)), *made]

    def _multiply_add(self, total: Value, x: Address, weight: Value) -> Value:
        b = self.b
        if self.floats:
            kind = f"{self.lanes}xf32"
            return b.op("llvm.intr.fma", [weight, b.load(kind, x), total], kind)
        quadruples = f"{4 * self.lanes}xi8"
        return self.instructions.dot4_u8s8(b, total, b.load(quadruples, x), b.op("llvm.bitcast", [weight], quadruples))

    def _offsets(self, at: Address) -> list[Value]:
        """Of the group's weights in x: two or four by one load."""
        b, group = self.b, self.codelet.group
        together = min(group, 4)
        if together == 1:
            return [b.cast("zext", b.load("i16", at), "i64")]
        found: list[Value] = []
        for i in range(0, group, together):
            word = b.load(f"i{16 * together}", at + 2 * i)
            word = word if together == 4 else b.cast("zext", word, "i64")
            parts = [word, *(b.binary("lshr", word, b.constant(16 * j, "i64")) for j in range(1, together))]
            found += [b.binary("and", part, b.constant(0xFFFF, "i64")) for part in parts]
        return found

    def _weights(self, at: Address) -> list[Value]:
        """The group's weights, each in all lanes."""
        b, group = self.b, self.codelet.group
        if group % 2 or not hasattr(self.instructions, "splat_words"):
            return [b.splat(b.load("f32", at + 4 * i), self.lanes) for i in range(group)]
        together = min(group, 4)
        return [weight for i in range(0, group, together) for weight in self.instructions.splat_words(b, at + 4 * i, together)]
