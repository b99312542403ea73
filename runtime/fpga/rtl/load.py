"""The load unit: instructions become walks through DRAM (`load_setup.py`), walks addresses (`load_walk.py`), addresses words
(`load_words.py`, or where pixels may be coded `load_coded_words.py`), and words are put into the buffers (`load_place.py`). Each part is
ahead of the next, so loads follow each other without waiting for memory.
"""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import Out

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.rtl.interfaces import bank_write, line_write, parameter_write, reader, unit
from qcc.runtime.fpga.rtl.limits import check_codings
from qcc.runtime.fpga.rtl.load_coded_words import CodedWords
from qcc.runtime.fpga.rtl.load_place import Place
from qcc.runtime.fpga.rtl.load_setup import Setup, destination
from qcc.runtime.fpga.rtl.load_walk import Walk
from qcc.runtime.fpga.rtl.load_words import Words

_INSTRUCTIONS_AHEAD = 16  # whose words are on their way: what one LUT RAM holds


class Load(wiring.Component):
    """Raises QccError for a configuration that knows run lengths of activations."""

    def __init__(self, configuration: Configuration) -> None:
        c = self._configuration = configuration
        check_codings(c)
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
        m.submodules.walk = walk = Walk()
        m.submodules.words = words = Words(c) if c.activation_codings == 1 else CodedWords(c)
        m.submodules.place = place = Place(c)
        wiring.connect(m, wiring.flipped(self.instructions), setup.instructions)
        wiring.connect(m, setup.walks, walk.walks)
        wiring.connect(m, walk.requests, words.requests)
        wiring.connect(m, words.reader, wiring.flipped(self.reader))
        wiring.connect(m, words.words, place.words)
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
        return m
