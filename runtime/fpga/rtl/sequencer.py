"""The instruction queue of one unit, and its side of the tokens.

The head of the queue goes to the unit when a token is there from every unit that it waits for. Tokens are taken then, which may be while
the unit still runs the instruction before: nobody else takes them. What the unit is given it finishes in order, so the `signal` masks of
its instructions wait in a FIFO for the `done` pulses.

From a `done` to the `valid` of an instruction that waited for it are three cycles; instructions that wait for nothing can be taken every
second cycle.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.isa import MASK_BITS, UNITS
from qcc.runtime.fpga.rtl.interfaces import INSTRUCTION_BITS, instruction

_UNFINISHED = 16  # instructions that a unit was given and has not finished, at most: what one LUT RAM holds


class Sequencer(wiring.Component):
    """Queue and tokens of unit `unit` (isa.UNITS).

    `fetched` are the unit's instructions in program order, `instructions` and `done` go to the unit. `token_out` pulses bit u for a
    token to unit u, `token_in` bit u for one from it.
    """

    def __init__(self, configuration: Configuration, unit: str) -> None:
        self._configuration, self._unit = configuration, UNITS.index(unit)
        super().__init__(
            {
                "fetched": In(stream.Signature(INSTRUCTION_BITS)),
                "instructions": Out(stream.Signature(INSTRUCTION_BITS)),
                "done": In(1),
                "token_in": In(MASK_BITS),
                "token_out": Out(MASK_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=INSTRUCTION_BITS, depth=self._configuration.queue_instructions)
        m.submodules.signals = signals = fifo.SyncFIFO(width=MASK_BITS, depth=_UNFINISHED)
        wiring.connect(m, wiring.flipped(self.fetched), queue.w_stream)

        # A register behind the queue, because what a block RAM answers is late in its cycle.
        head = Signal(instruction("finish"))  # all instructions have their masks in the same place
        loaded, granted, grant = Signal(), Signal(), Signal()
        m.d.comb += [
            self.instructions.payload.eq(head),
            self.instructions.valid.eq(granted),
            queue.r_en.eq(~loaded | (granted & self.instructions.ready)),
        ]
        with m.If(queue.r_en):
            m.d.sync += [head.eq(queue.r_data), loaded.eq(queue.r_rdy), granted.eq(0)]
        with m.If(grant):
            m.d.sync += granted.eq(1)

        missing = [self._missing(m, u, grant & head.wait[u]) & head.wait[u] for u in range(MASK_BITS) if u != self._unit]
        m.d.comb += grant.eq(loaded & ~granted & ~Cat(missing).any() & signals.w_rdy)

        m.d.comb += [signals.w_data.eq(head.signal), signals.w_en.eq(grant), signals.r_en.eq(self.done)]
        with m.If(self.done):
            m.d.comb += self.token_out.eq(signals.r_data)
        return m

    def _missing(self, m: Module, other: int, take: Signal) -> Signal:
        """Whether there is no token from unit `other`. A program never lets more than `token_limit` gather, so nothing is refused."""
        tokens = Signal(bits_for(self._configuration.token_limit), name=f"tokens_{UNITS[other]}")
        m.d.sync += tokens.eq(tokens + self.token_in[other] - take)
        return tokens == 0
