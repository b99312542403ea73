"""What happens to finished accumulators: the steps, then the store, at places relative to the first element of a register tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import bytes_of, store
from qcc.passes.llvm.codelets.builder import Builder, Index, Value
from qcc.passes.llvm.codelets.byte_stores import ByteStores
from qcc.passes.llvm.codelets.fetch import Fetch
from qcc.passes.llvm.codelets.steps import Steps


class Results:
    """Results of `codelet`, which has `operands`, `steps`, `y` and `params`, from element `place` on."""

    def __init__(self, b: Builder, codelet: Any, buffers: Sequence[Value], instructions: Any, place: Sequence[Index]) -> None:
        self.b, self.codelet = b, codelet
        self.steps = Steps(b, instructions)
        self.fetch = Fetch(b, codelet.operands, buffers, codelet.params, instructions)
        self.bases = [b.at(buffers[o.buffer], bytes_of(o, place, b)) for o in codelet.operands]
        self.y = b.at(buffers[codelet.y.buffer], bytes_of(codelet.y, place, b))
        packs = codelet.y.strides[-1] == 1 and self.steps.packs(codelet.steps, codelet.y.element)
        self.bytes = ByteStores(b, self.steps, codelet.steps, ISAS[codelet.isa].lanes) if packs else None
        self.held: list[tuple[Value, Any, Any]] = []  # with their arguments and addresses

    def put(self, step: Sequence[int], value: Value) -> None:
        """The accumulators `value` of consecutive channels from place + step on."""
        c = self.codelet

        def fetch(arg: int, element: Any, lanes: int) -> Value:
            self.fetch.key = step[-1]
            self.fetch.place = lambda number: self.bases[number] + _static(c.operands[number], step)
            return self.fetch(arg, element, lanes)

        address = self.y + _static(c.y, step)
        if self.bytes:
            self.bytes.put(value, fetch, address)
            return
        self.held.append((value, fetch, address))
        if len(self.held) == self.steps.together(c.steps):
            self._store()

    def _store(self) -> None:
        c, (values, fetches, addresses) = self.codelet, zip(*self.held, strict=True)
        for address, value in zip(addresses, self.steps.run_together(c.steps, values, fetches), strict=True):
            store(self.b, c.y.element, address, c.y.strides[-1], value)
        self.held = []

    def end(self) -> None:
        """Store what has been held back."""
        if self.bytes:
            self.bytes.flush()
        if self.held:
            self._store()


def _static(operand: Any, step: Sequence[int]) -> int:
    return sum(s * i for s, i in zip(operand.strides, step, strict=True)) * ELEMENT_BYTES[operand.element]
