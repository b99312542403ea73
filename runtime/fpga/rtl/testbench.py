"""The accelerator as its simulation sees it: the memory's signals one by one, and what its units do."""

from __future__ import annotations

from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.isa import MASK_BITS
from qcc.runtime.fpga.rtl.accelerator import Accelerator
from qcc.runtime.fpga.rtl.interfaces import ADDRESS_BITS


class Testbench(wiring.Component):
    """harness.cpp knows the ports' names. Bit u of `accepted` and `done`: unit u takes, or has done, an instruction."""

    def __init__(self, configuration: Configuration) -> None:
        self.accelerator = Accelerator(configuration)
        word = configuration.word_bits
        super().__init__(
            {
                "program_address": In(ADDRESS_BITS),
                "start": In(1),
                "finished": Out(1),
                "request_valid": Out(1),
                "request_ready": In(1),
                "request_address": Out(ADDRESS_BITS),
                "request_write": Out(1),
                "request_data": Out(word),
                "answer_valid": In(1),
                "answer_data": In(word),
                "accepted": Out(MASK_BITS),
                "done": Out(MASK_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.accelerator = inside = self.accelerator
        request, answer = inside.memory.request, inside.memory.answer
        m.d.comb += [
            inside.program.eq(self.program_address),
            inside.start.eq(self.start),
            self.finished.eq(inside.finished),
            self.request_valid.eq(request.valid),
            request.ready.eq(self.request_ready),
            self.request_address.eq(request.payload.address),
            self.request_write.eq(request.payload.write),
            self.request_data.eq(request.payload.data),
            answer.valid.eq(self.answer_valid),
            answer.payload.eq(self.answer_data),
            self.accepted.eq(Cat(unit.instructions.valid & unit.instructions.ready for unit in inside.units)),
            self.done.eq(Cat(unit.done for unit in inside.units)),
        ]
        return m
