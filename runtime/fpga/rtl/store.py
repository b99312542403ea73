"""The store unit: pixels from the output buffer to DRAM, one word per cycle, and the end of the program.

Addresses run ahead of the words, which need READ_LATENCY cycles and one to choose their bank; a FIFO each brings them together again.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.isa import ACTIVATION_CODINGS, BY_NAME
from qcc.runtime.fpga.rtl.delay import later
from qcc.runtime.fpga.rtl.interfaces import READ_LATENCY, bank_read, instruction, unit, writer
from qcc.runtime.fpga.rtl.limits import check_codings
from qcc.runtime.fpga.rtl.load_walk import WORDS_PER_FLAGS
from qcc.runtime.fpga.rtl.store_compress import PLACE, Compress

_WORDS_AHEAD = 16  # what one LUT RAM holds, and more than a word's way through the buffer takes


class Store(wiring.Component):
    """`finished` is high from the end of a program to the next `start`.

    Raises QccError for a configuration that knows run lengths of activations.
    """

    def __init__(self, configuration: Configuration) -> None:
        c = self._configuration = configuration
        check_codings(c)
        super().__init__({**unit(), "start": In(1), "finished": Out(1), "writer": Out(writer(c.word_bits)), "outputs": Out(bank_read(c))})

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self._configuration
        m.submodules.places = places = fifo.SyncFIFO(width=PLACE.size, depth=_WORDS_AHEAD)
        m.submodules.words = words = fifo.SyncFIFO(width=c.word_bits, depth=_WORDS_AHEAD)
        walking, drained, stored = Signal(), Signal(), Signal()
        self._write(m, places, words, walking, drained, stored)

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
        bank, reading = later(m, bank, READ_LATENCY), later(m, places.w_en & places.w_rdy, READ_LATENCY, reset=True)
        m.d.sync += [words.w_data.eq(self.outputs.data[bank]), words.w_en.eq(reading)]
        return m

    def _write(self, m: Module, places: fifo.SyncFIFO, words: fifo.SyncFIFO, walking: Signal, drained: Signal, stored: Signal) -> None:
        """Words to their places, which are there before them."""
        place = data.View(PLACE, places.r_data)
        if self._configuration.activation_codings > 1:
            m.submodules.compress = compress = Compress(self._configuration)
            m.d.comb += [
                compress.words.payload.eq(Cat(words.r_data, place)),
                compress.words.valid.eq(words.r_rdy),
                words.r_en.eq(compress.words.ready),
                stored.eq(compress.stored),
                drained.eq(~walking & ~places.r_rdy & compress.empty),
            ]
            wiring.connect(m, compress.writer, wiring.flipped(self.writer))
        else:
            m.d.comb += [
                self.writer.payload.eq(Cat(place.address, words.r_data)),
                self.writer.valid.eq(words.r_rdy),
                words.r_en.eq(self.writer.ready),
                stored.eq(places.r_en & place.last),
                drained.eq(~walking & ~places.r_rdy),
            ]
        m.d.comb += places.r_en.eq(words.r_en & words.r_rdy)

    def _walk(self, m: Module, word: data.View, begin: Signal, walking: Signal, places: fifo.SyncFIFO) -> Signal:
        """For each pixel, for each word: its addresses on chip and in DRAM. Returns its bank."""
        store, place = Signal(word.shape()), Signal(PLACE)
        words, pixels = Signal.like(word.run_words), Signal.like(word.count)  # left, the current one included
        bank, group, output = Signal(range(self._configuration.columns)), Signal.like(word.output), Signal.like(word.output)
        pixel_address, address = Signal.like(word.address), Signal.like(word.address)
        coded, flag_words = Signal(), Signal(PLACE["flag_words"].width)
        pixel_ends = words == 1
        ends = pixel_ends & (pixels == 1)
        m.d.comb += [
            self.outputs.address.eq(output),
            place.address.eq(address),
            place.pixel.eq(pixel_ends),
            place.last.eq(ends),
            place.coded.eq(coded),
            place.flag_words.eq(flag_words),
            places.w_data.eq(place),
            places.w_en.eq(walking),
        ]
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
            if self._configuration.activation_codings > 1:
                m.d.sync += coded.eq(word.coding == ACTIVATION_CODINGS.index("flags"))
                m.d.sync += flag_words.eq((word.run_words + (WORDS_PER_FLAGS - 1)) >> exact_log2(WORDS_PER_FLAGS))
            m.d.sync += [group.eq(word.output), output.eq(word.output), pixel_address.eq(word.address), address.eq(word.address)]
        return bank
