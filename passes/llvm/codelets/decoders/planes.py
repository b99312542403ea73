"""Codes of 1 to 8 bits cut into bit-planes of 4, 2 and 1 bits (8 bits are one plane), so that every width fills whole words.

One step of a plane of `p` bits is `depth * p / 32` words per lane. `words` are k in order, lowest bits first, for `real`; for byte
products (`digits`) the fields of one position in the four bytes of a word are four k in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Stream
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.stream_layout import plane_depth, planes
from qcc.passes.llvm.codelets.builder import Address, Builder, Value


class Decoder:
    """level = `step` times the code, for any instruction set."""

    def __init__(self, b: Builder, codelet: Stream, buffers: Sequence[Value], instructions: Any) -> None:
        self.b, self.codelet, self.lanes = b, codelet, ISAS[codelet.isa].lanes
        self.planes = planes(codelet.bits)
        self.depth = plane_depth(codelet.bits)
        self.step_bytes = self.depth * codelet.bits // 8 * self.lanes

    def open(self, address: Address) -> list[Value]:
        """All words of a step, planes one behind the other."""
        count = self.depth * self.codelet.bits // 32
        return [self.b.load(f"{self.lanes}xi32", address + 4 * self.lanes * i) for i in range(count)]

    def index(self, step: list[Value], j: int, *, exact: bool) -> Value:
        """The code of the j-th k in i32 lanes; where not `exact`, bits above the code are arbitrary."""
        b, first, low, parts = self.b, 0, 0, []
        for p in self.planes:
            word = step[first + j * p // 32]
            right = j * p % 32 - low
            moved = (
                word
                if not right
                else b.binary("lshr", word, b.like(right, word))
                if right > 0
                else b.binary("shl", word, b.like(-right, word))
            )
            parts.append((moved, ((1 << p) - 1) << low))
            first, low = first + self.depth * p // 32, low + p
        if len(parts) == 1 and (not exact or parts[0][1] == -1):
            return parts[0][0]
        code = None
        for i, (moved, mask) in enumerate(parts):
            last = i == len(parts) - 1
            kept = ~((parts[i][1] & -parts[i][1]) - 1) if last and not exact else mask
            part = b.binary("and", moved, b.like(kept, moved))
            code = part if code is None else b.binary("or", code, part)
        return code

    def real(self, step: list[Value], j: int) -> Value:
        code = self.index(step, j, exact=True)
        if self.codelet.step != 1:
            code = self.b.binary("mul", code, self.b.like(self.codelet.step, code))
        return self.b.cast("sitofp", code, "f32")
