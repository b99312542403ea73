"""The store unit: pixels from the output buffer to DRAM, one word per cycle, and the end of the program.

Addresses run ahead of the words, which need READ_LATENCY cycles and one to choose their bank; a FIFO each brings them together again.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.fpga.isa import BY_NAME
from qcc.runtime.fpga.rtl.interfaces import ADDRESS_BITS, READ_LATENCY, bank_read, instruction, unit, writer

_WORDS_AHEAD = 16  # what one LUT RAM holds, and more than a word's way through the buffer takes
_PLACE = data.StructLayout({"address": ADDRESS_BITS, "last": 1})
"""Where a word goes, and whether its instruction ends with it."""


class Store(wiring.Component):
    """`finished` is high from the end of a program to the next `start`.

    Raises QccError for a configuration that knows other codings of activations than raw.
    """

    def __init__(self, configuration: Configuration) -> None:
        c = self._configuration = configuration
        if c.activation_codings != 1:
            raise QccError(f"the store unit is asked for {c.activation_codings} codings of activations, expected 1: raw")
        super().__init__({**unit(), "start": In(1), "finished": Out(1), "writer": Out(writer(c.word_bits)), "outputs": Out(bank_read(c))})

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self._configuration
        m.submodules.places = places = fifo.SyncFIFO(width=_PLACE.size, depth=_WORDS_AHEAD)
        m.submodules.words = words = fifo.SyncFIFO(width=c.word_bits, depth=_WORDS_AHEAD)
        place = data.View(_PLACE, places.r_data)
        walking, drained, stored = Signal(), Signal(), Signal()
        m.d.comb += [
            self.writer.valid.eq(words.r_rdy),  # its address is there for long
            self.writer.payload.address.eq(place.address),
            self.writer.payload.data.eq(words.r_data),
            words.r_en.eq(self.writer.ready),
            places.r_en.eq(self.writer.ready & words.r_rdy),
            stored.eq(places.r_en & place.last),
            drained.eq(~walking & ~places.r_rdy),
        ]

        # What moves nothing is done when everything before it is.
        word = data.View(instruction("store"), self.instructions.payload)
        finishes, nothing = Signal(), Signal()
        m.d.comb += [
            finishes.eq(word.opcode == BY_NAME["finish"].opcode),
            nothing.eq(finishes | (word.count == 0) | (word.run_words == 0)),
        ]
        m.d.comb += self.instructions.ready.eq(Mux(nothing, drained, ~walking))
        taken = self.instructions.valid & self.instructions.ready
        m.d.comb += self.done.eq(stored | (taken & nothing))
        with m.If(taken & finishes):
            m.d.sync += self.finished.eq(1)
        with m.If(self.start):
            m.d.sync += self.finished.eq(0)

        bank = self._walk(m, word, taken & ~nothing, walking, places)
        reading = places.w_en & places.w_rdy
        for stage in range(READ_LATENCY):
            late_bank, late_reading = Signal.like(bank, name=f"bank_{stage}"), Signal(name=f"reading_{stage}")
            m.d.sync += [late_bank.eq(bank), late_reading.eq(reading)]
            bank, reading = late_bank, late_reading
        m.d.sync += [words.w_data.eq(self.outputs.data[bank]), words.w_en.eq(reading)]
        return m

    def _walk(self, m: Module, word: data.View, begin: Signal, walking: Signal, places: fifo.SyncFIFO) -> Signal:
        """For each pixel, for each word: its addresses on chip and in DRAM. Returns its bank."""
        store = Signal(word.shape())
        words, pixels = Signal.like(word.run_words), Signal.like(word.count)  # left, the current one included
        bank, group, output = Signal(range(self._configuration.columns)), Signal.like(word.output), Signal.like(word.output)
        pixel_address, address = Signal.like(word.address), Signal.like(word.address)
        pixel_ends = words == 1
        ends = pixel_ends & (pixels == 1)
        m.d.comb += [self.outputs.address.eq(output), places.w_en.eq(walking), places.w_data.eq(Cat(address, ends))]
        with m.If(walking & places.w_rdy):
            m.d.sync += [words.eq(words - 1), output.eq(output + 1), address.eq(address + 1)]
            with m.If(pixel_ends):
                next_address = pixel_address + store.pixel_words
                m.d.sync += [words.eq(store.run_words), pixels.eq(pixels - 1), pixel_address.eq(next_address), address.eq(next_address)]
                m.d.sync += [bank.eq(bank + 1), output.eq(group)]
                with m.If(bank == self._configuration.columns - 1):
                    m.d.sync += [bank.eq(0), group.eq(group + store.output_words), output.eq(group + store.output_words)]
            with m.If(ends):
                m.d.sync += walking.eq(0)
        with m.If(begin):
            m.d.sync += [store.eq(word), walking.eq(1), words.eq(word.run_words), pixels.eq(word.count), bank.eq(0)]
            m.d.sync += [group.eq(word.output), output.eq(word.output), pixel_address.eq(word.address), address.eq(word.address)]
        return bank
