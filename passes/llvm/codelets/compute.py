"""Compute tiles: how one step of a reduction multiplies and accumulates.

A tile takes `depth` elements of x for one pixel, broadcast, and a vector of packed weights for `lanes` channels.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, Contraction
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import load
from qcc.passes.llvm.codelets.builder import Address, Builder, Value
from qcc.passes.llvm.codelets.sign_products import SignProducts


class Dot4:
    """u8 x s8 in quadruples: weights [lane][4] bytes, i32 accumulators."""

    depth = 4
    accumulator = "i32"
    x_bytes = 4
    w_bytes = 4  # per lane

    def __init__(self, b: Builder, codelet: Contraction, instructions: Any) -> None:
        self.b, self.instructions = b, instructions
        self.lanes = ISAS[codelet.isa].lanes

    def load_x(self, address: Address) -> Value:
        quadruple = self.b.splat(self.b.load("i32", address), self.lanes)
        return self.b.op("llvm.bitcast", [quadruple], f"{4 * self.lanes}xi8")

    def load_w(self, address: Address) -> Value:
        return self.b.load(f"{4 * self.lanes}xi8", address)

    def multiply_add(self, acc: Value, x: Value, w: Value) -> Value:
        return self.instructions.dot4_u8s8(self.b, acc, x, w)

    def multiply_add_at(self, acc: Value, x: Value, w: Address) -> Value:
        return self.instructions.dot4_u8s8_at(self.b, acc, x, w)


class Dot2:
    """s16 x s16 in pairs: weights [lane][2] of s16 (or of s8, widened here), i32 accumulators."""

    depth = 2
    accumulator = "i32"
    x_bytes = 4

    def __init__(self, b: Builder, codelet: Contraction, instructions: Any) -> None:
        self.b, self.instructions = b, instructions
        self.lanes = ISAS[codelet.isa].lanes
        self.w_element = codelet.w.element
        self.w_bytes = 2 * ELEMENT_BYTES[self.w_element]

    def load_x(self, address: Address) -> Value:
        pair = self.b.splat(self.b.load("i32", address), self.lanes)
        return self.b.op("llvm.bitcast", [pair], f"{2 * self.lanes}xi16")

    def load_w(self, address: Address) -> Value:
        if self.w_element == "s8":
            return self.b.cast("sext", self.b.load(f"{2 * self.lanes}xi8", address), "i16")
        return self.b.load(f"{2 * self.lanes}xi16", address)

    def multiply_add(self, acc: Value, x: Value, w: Value) -> Value:
        return self.instructions.dot2_s16(self.b, acc, x, w)


class Dot2Wide(Dot2):
    """The same with i64 accumulators: the i32 sums of a segment are added to them."""

    accumulator = "i64"


class Dot2Bf16:
    """bf16 x bf16 in pairs: weights [lane][2], f32 accumulators."""

    depth = 2
    accumulator = "f32"
    x_bytes = 4
    w_bytes = 4

    def __init__(self, b: Builder, codelet: Contraction, instructions: Any) -> None:
        self.b, self.instructions = b, instructions
        self.lanes = ISAS[codelet.isa].lanes

    def load_x(self, address: Address) -> Value:
        pair = self.b.splat(self.b.load("i32", address), self.lanes)
        return self.b.op("llvm.bitcast", [pair], f"{2 * self.lanes}xbf16")

    def load_w(self, address: Address) -> Value:
        return self.b.load(f"{2 * self.lanes}xbf16", address)

    def multiply_add(self, acc: Value, x: Value, w: Value) -> Value:
        return self.instructions.dot2_bf16(self.b, acc, x, w)

    def multiply_add_at(self, acc: Value, x: Value, w: Address) -> Value:
        return self.instructions.dot2_bf16_at(self.b, acc, x, w)


class Lane:
    """One element at a time in lanes of the accumulator's type: integers of any width that fits, or f32 with fused multiply-add."""

    depth = 1

    def __init__(self, b: Builder, codelet: Contraction, instructions: Any) -> None:
        self.b, self.codelet, self.instructions = b, codelet, instructions
        self.lanes = ISAS[codelet.isa].lanes
        self.accumulator = codelet.compute.removeprefix("lane_")
        self.x_bytes, self.w_bytes = ELEMENT_BYTES[codelet.x.element], ELEMENT_BYTES[codelet.w.element]

    def load_x(self, address: Address) -> Value:
        return self._wide(load(self.b, self.codelet.x.element, address, 0, self.lanes), self.codelet.x.element)

    def load_w(self, address: Address) -> Value:
        return self._wide(load(self.b, self.codelet.w.element, address, 1, self.lanes), self.codelet.w.element)

    def _wide(self, value: Value, element: str) -> Value:
        return self.b.cast("sext", value, "i64") if self.accumulator == "i64" and element != "i64" else value

    def multiply_add(self, acc: Value, x: Value, w: Value) -> Value:
        b = self.b
        if self.accumulator == "f32":
            return b.op("llvm.intr.fma", [x, w, acc], f"{self.lanes}xf32")
        return b.binary("add", acc, b.binary("mul", x, w))

    def multiply_add_at(self, acc: Value, x: Value, w: Address) -> Value:
        return self.instructions.fma_at(self.b, acc, x, w)


def compute_tile(b: Builder, codelet: Contraction, instructions: Any) -> Any:
    """The compute tile a contraction asks for."""
    return TILES.get(codelet.compute, Lane)(b, codelet, instructions)


TILES: dict[str, Any] = {
    "dot4_u8s8": Dot4,
    "pairs_u8s8": Dot4,
    "dot2_s16": Dot2,
    "dot2_s16_i64": Dot2Wide,
    "dot2_bf16": Dot2Bf16,
    "popcount_words": SignProducts,
    "popcount_bytes": SignProducts,
}
"""Compute tiles by `Contraction.compute`; the others work lane by lane."""
