"""One small float of up to 8 bits per weight, [k][lane]: its bits moved to where a half has them, which scales it by a power of two.

A half has 5 exponent and 10 mantissa bits; the difference of the exponents' biases is in the scales. Subnormals stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.builder import Address, Builder, Value

MANTISSA = 10


class Decoder:
    depth = 4

    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any) -> None:
        self.b, self.codelet, self.lanes = b, codelet, ISAS[codelet.isa].lanes
        self.step_bytes = self.depth * self.lanes

    def open(self, address: Address) -> Address:
        return address

    def real(self, step: Address, j: int) -> Value:
        b, magnitude_bits = self.b, self.codelet.bits - 1
        code = b.cast("zext", b.load(f"{self.lanes}xi8", step + j * self.lanes), "i16")
        moved = b.binary("shl", code, b.like(MANTISSA - self.codelet.mantissa, code))
        sign = 15 - (magnitude_bits + MANTISSA - self.codelet.mantissa)
        if sign:  # the sign is above the magnitude: bring it to bit 15
            magnitude = b.binary("and", moved, b.like((1 << (15 - sign)) - 1, code))
            signs = b.binary("and", b.binary("shl", code, b.like(15 - magnitude_bits, code)), b.like(-32768, code))
            moved = b.binary("or", magnitude, signs)
        half = b.op("llvm.bitcast", [moved], f"{self.lanes}xf16")
        return b.cast("fpext", half, "f32")
