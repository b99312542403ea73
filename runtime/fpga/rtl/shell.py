"""A component between a few pins, to be placed and routed out of its context.

A wide memory port has more wires than packages have pins. The shell shifts all inputs in from one pin and folds all outputs to another,
a register on every wire: nothing can be optimised away, and what limits the clock is inside the component.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Shell(wiring.Component):
    """`component` behind a pin `serial_in` that all its inputs come from and a pin `folded_out` that all its outputs show in."""

    def __init__(self, component: wiring.Component) -> None:
        self._component = component
        super().__init__({"serial_in": In(1), "folded_out": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.component = self._component
        ports = [(member, Value.cast(value)) for _, member, value in self._component.signature.flatten(self._component)]
        inputs = Cat(value for member, value in ports if member.flow == wiring.In)
        outputs = Cat(value for member, value in ports if member.flow == wiring.Out and not isinstance(value, Const))

        shifted = Signal(len(inputs))
        m.d.sync += shifted.eq(Cat(self.serial_in, shifted))
        m.d.comb += inputs.eq(shifted)

        held, folded = Signal(len(outputs)), Signal(len(outputs))
        m.d.sync += [held.eq(outputs), folded.eq(held ^ Cat(Const(0, 1), folded))]
        m.d.comb += self.folded_out.eq(folded[-1])
        return m
