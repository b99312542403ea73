"""Codes that name one of up to 256 real levels: the index as bit-planes, the level looked up in registers where the table fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.passes.llvm.codelets.builder import Address, Builder, Value
from qcc.passes.llvm.codelets.decoders import planes


class Decoder(planes.Decoder):
    """The table has 2^bits levels, but at least 16: shorter ones are repeated, so that bits above the code need not be cleared."""

    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any) -> None:
        super().__init__(b, codelet, buffers, instructions)
        self.base, self.instructions = buffers[codelet.table], instructions
        self.in_registers = codelet.bits <= getattr(instructions, "FLOAT_TABLE_BITS", 0)
        if self.in_registers:
            count = max(1, (1 << codelet.bits) // self.lanes)
            self.table = [b.load(f"{self.lanes}xf32", Address(self.base, 4 * self.lanes * i), invariant=True) for i in range(count)]

    def real(self, step: list[Value], j: int) -> Value:
        if self.in_registers:
            return self.instructions.look_up_floats(self.b, self.table, self.index(step, j, exact=False))
        return self.b.gather(self.base, self.index(step, j, exact=True), "f32")
