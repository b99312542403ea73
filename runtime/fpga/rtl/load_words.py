"""Words from memory in the order in which they are asked for, each with what it is the last of."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.rtl.interfaces import reader
from qcc.runtime.fpga.rtl.load_walk import ENDS, REQUEST


def reads_ahead(c: Configuration) -> int:
    """Words that load may ask for before it has the first: more than memory's latency, and what they pass on their way."""
    return 1 << (c.dram_latency_cycles + 16).bit_length()


def word_of(c: Configuration) -> data.StructLayout:
    """A word from DRAM and what it ends."""
    return data.StructLayout({"data": c.word_bits, "ends": ENDS})


def ports(c: Configuration) -> dict[str, wiring.Member]:
    """Of what turns requests into words."""
    return {"requests": In(stream.Signature(REQUEST)), "reader": Out(reader(c.word_bits)), "words": Out(stream.Signature(word_of(c)))}


class Words(wiring.Component):
    """Requests in, words out. Memory answers when it likes; there is room for all that it is asked for."""

    def __init__(self, configuration: Configuration) -> None:
        c = self._configuration = configuration
        super().__init__(ports(c))

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self._configuration
        m.submodules.ends = ends = fifo.SyncFIFO(width=ENDS.size, depth=reads_ahead(c))
        m.submodules.answers = answers = fifo.SyncFIFOBuffered(width=c.word_bits, depth=reads_ahead(c))
        m.d.comb += [
            self.reader.request.payload.eq(self.requests.payload.address),
            self.reader.request.valid.eq(self.requests.valid & ends.w_rdy),
            self.requests.ready.eq(self.reader.request.ready & ends.w_rdy),
            ends.w_data.eq(self.requests.payload.marks.ends),
            ends.w_en.eq(self.requests.valid & self.reader.request.ready),
            answers.w_data.eq(self.reader.answer.payload),
            answers.w_en.eq(self.reader.answer.valid),
        ]

        # A register behind the FIFO, because what a block RAM answers is late in its cycle.
        word, full = Signal(word_of(c)), Signal()
        m.d.comb += [
            answers.r_en.eq(~full | self.words.ready),
            ends.r_en.eq(answers.r_en & answers.r_rdy),
            self.words.payload.eq(word),
            self.words.valid.eq(full),
        ]
        with m.If(answers.r_en):
            m.d.sync += [word.data.eq(answers.r_data), word.ends.eq(ends.r_data), full.eq(answers.r_rdy)]
        return m
