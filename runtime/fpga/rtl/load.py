"""The load unit: instructions become walks through DRAM (`load_setup.py`), walks addresses (`load_walk.py`), and the words that come back
are put into the buffers (`load_place.py`). Each part is ahead of the next, so loads follow each other without waiting for memory.
"""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import Out

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.fpga.rtl.interfaces import bank_write, line_write, parameter_write, reader, unit
from qcc.runtime.fpga.rtl.load_place import Place, word_of
from qcc.runtime.fpga.rtl.load_setup import Setup, destination
from qcc.runtime.fpga.rtl.load_walk import Walk, reads_ahead

_INSTRUCTIONS_AHEAD = 16  # whose words are on their way: what one LUT RAM holds


class Load(wiring.Component):
    """Raises QccError for a configuration that knows other codings of activations than raw."""

    def __init__(self, configuration: Configuration) -> None:
        c = self._configuration = configuration
        if c.activation_codings != 1:
            raise QccError(f"the load unit is asked for {c.activation_codings} codings of activations, expected 1: raw")
        super().__init__(
            {
                **unit(),
                "reader": Out(reader(c.word_bits)),
                "activations": Out(bank_write(c)),
                "residuals": Out(bank_write(c)),
                "lines": Out(line_write(c)),
                "parameters": Out(parameter_write()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self._configuration
        m.submodules.setup = setup = Setup(c)
        m.submodules.walk = walk = Walk(c)
        m.submodules.place = place = Place(c)
        wiring.connect(m, wiring.flipped(self.instructions), setup.instructions)
        wiring.connect(m, setup.walks, walk.walks)
        wiring.connect(m, walk.requests, wiring.flipped(self.reader.request))
        for name in ("activations", "residuals", "lines", "parameters"):
            wiring.connect(m, getattr(place, name), wiring.flipped(getattr(self, name)))
        m.d.comb += self.done.eq(place.done)

        m.submodules.destinations = destinations = fifo.SyncFIFO(width=destination(c).size, depth=_INSTRUCTIONS_AHEAD)
        m.d.comb += [
            destinations.w_data.eq(setup.destinations.payload),
            destinations.w_en.eq(setup.destinations.valid),
            setup.destinations.ready.eq(destinations.w_rdy),
            place.destinations.payload.eq(destinations.r_data),
            place.destinations.valid.eq(destinations.r_rdy),
            destinations.r_en.eq(place.destinations.ready),
        ]

        # Memory answers when it likes; there is room for all that the walk asks for. The register behind it is because what a block RAM
        # answers is late in its cycle.
        m.submodules.answers = answers = fifo.SyncFIFOBuffered(width=c.word_bits, depth=reads_ahead(c))
        word, full = Signal(word_of(c)), Signal()
        m.d.comb += [
            answers.w_data.eq(self.reader.answer.payload),
            answers.w_en.eq(self.reader.answer.valid),
            answers.r_en.eq(~full | place.words.ready),
            walk.ends.ready.eq(answers.r_en & answers.r_rdy),
            place.words.payload.eq(word),
            place.words.valid.eq(full),
        ]
        with m.If(answers.r_en):
            m.d.sync += [word.data.eq(answers.r_data), word.ends.eq(walk.ends.payload), full.eq(answers.r_rdy)]
        return m
