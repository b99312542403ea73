"""One signed byte per weight: [k][lane], the level is the byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.builder import Address, Builder, Value


class Decoder:
    depth = 4

    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any) -> None:
        self.b, self.lanes = b, ISAS[codelet.isa].lanes
        self.step_bytes = self.depth * self.lanes

    def open(self, address: Address) -> Address:
        return address

    def real(self, step: Address, j: int) -> Value:
        stored = self.b.load(f"{self.lanes}xi8", step + j * self.lanes)
        return self.b.cast("sitofp", self.b.cast("sext", stored, "i32"), "f32")
