"""Reads the program and deals its instructions out to the units' queues.

Reads run ahead of the instructions, by as many words as there is room for, because memory takes its time. They may run past the end of the
program; what comes from there is dropped.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.isa import BY_NAME, INSTRUCTIONS, UNITS
from qcc.runtime.fpga.rtl.interfaces import ADDRESS_BITS, INSTRUCTION_BITS, instruction, reader
from qcc.runtime.fpga.rtl.limits import PREFETCH_WORDS


class Fetch(wiring.Component):
    """`start` pulses to run the program at word `program` of memory. `load`, `execute`, `post` and `store` are its instructions.

    An opcode that no instruction has stops it for good: better no end than a wrong answer.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._word_bits = configuration.word_bits
        super().__init__(
            {
                "start": In(1),
                "program": In(ADDRESS_BITS),
                "reader": Out(reader(self._word_bits)),
                **{unit: Out(stream.Signature(INSTRUCTION_BITS)) for unit in UNITS},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = fifo.SyncFIFO(width=self._word_bits, depth=PREFETCH_WORDS)
        request = self.reader.request

        running, started = Signal(), Signal()
        ahead = Signal(range(PREFETCH_WORDS + 1))  # words asked for and not yet taken out of the FIFO
        taken = Signal()
        m.d.comb += [
            request.valid.eq(running & (ahead != PREFETCH_WORDS)),
            words.w_data.eq(self.reader.answer.payload),
            words.w_en.eq(self.reader.answer.valid),
        ]
        m.d.sync += [taken.eq(words.r_rdy & words.r_en), ahead.eq(ahead + (request.valid & request.ready) - taken)]
        with m.If(request.valid & request.ready):
            m.d.sync += request.payload.eq(request.payload + 1)

        ended = self._deal(m, words, running)
        with m.If(self.start):
            m.d.sync += [started.eq(1), request.payload.eq(self.program)]
        with m.If(ended):
            m.d.sync += running.eq(0)
        with m.Elif(started & (ahead == 0)):  # words behind the end of a program before are all dropped
            m.d.sync += [running.eq(1), started.eq(0)]
        return m

    def _deal(self, m: Module, words: fifo.SyncFIFO, running: Signal) -> Signal:
        """Put words together and pass instructions on. Returns when the last one goes."""
        parts = INSTRUCTION_BITS // self._word_bits
        whole = Signal(instruction("finish"))
        part = Signal(range(parts))
        full, passed = Signal(), Signal()
        for unit in UNITS:
            out = getattr(self, unit)
            opcodes = [i.opcode for i in INSTRUCTIONS if i.unit == unit]
            with m.If(full & whole.opcode.matches(*opcodes)):
                m.d.comb += [out.valid.eq(1), passed.eq(out.ready)]
            m.d.comb += out.payload.eq(whole)

        m.d.comb += words.r_en.eq(~full | passed | ~running)
        with m.If(passed):
            m.d.sync += full.eq(0)
        with m.If(words.r_rdy & words.r_en & running):
            m.d.sync += [whole.eq(Cat(whole.as_value(), words.r_data)[-INSTRUCTION_BITS:]), full.eq(part == parts - 1)]
            m.d.sync += part.eq(part + 1)  # the number of parts is a power of two
        ended = passed & (whole.opcode == BY_NAME["finish"].opcode)
        with m.If(ended):
            m.d.sync += [full.eq(0), part.eq(0)]
        return ended
