"""Words from memory where pixels may have zero flags: as `load_words.py`, but what is read of a slot depends on its flags.

The walk asks for flags only. When they come, their ones are counted, and the slot's other words in use are asked for. Flags are asked for
first where there is a choice, so that those of several slots are on their way and nobody waits for memory. Raw words wait until nothing
is owed to slots before them: bytes come in order.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, fifo, wiring
from amaranth.utils import exact_log2

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.rtl.delay import later
from qcc.runtime.fpga.rtl.interfaces import ADDRESS_BITS, instruction
from qcc.runtime.fpga.rtl.load_expand import Expand, sum_of
from qcc.runtime.fpga.rtl.load_walk import MARKS
from qcc.runtime.fpga.rtl.load_words import ports, reads_ahead

_SLOTS = 16  # whose flags were asked for and whose other words were not: what one LUT RAM holds
_NEAR = 4  # words between block RAM and Expand, which decides late in a cycle whether it takes one
_LENGTH_BITS = instruction("load_geometry")["run_words"].width + 1
_TAG = data.StructLayout({"flags": 1, "run": 1})
"""Of a read: whether it is of flags, and of the last ones of their slot."""


class CodedWords(wiring.Component):
    """Requests in, words out."""

    def __init__(self, configuration: Configuration) -> None:
        c = self._configuration = configuration
        super().__init__(ports(c))

    def elaborate(self, platform: object) -> Module:
        m, c = Module(), self._configuration
        ahead = reads_ahead(c)
        m.submodules.expand = expand = Expand(c)
        m.submodules.marks = marks = fifo.SyncFIFO(width=MARKS.size, depth=ahead)  # of what is asked for
        m.submodules.flags = flags = fifo.SyncFIFOBuffered(width=c.word_bits, depth=ahead)  # of coded marks
        m.submodules.bytes = bytes_ = fifo.SyncFIFOBuffered(width=c.word_bits, depth=2 * ahead)  # of raw marks, and of slots
        m.submodules.tags = tags = fifo.SyncFIFO(width=_TAG.size, depth=ahead)  # of reads without an answer
        wiring.connect(m, expand.words, wiring.flipped(self.words))
        m.d.comb += [
            expand.marks.payload.eq(marks.r_data),
            expand.marks.valid.eq(marks.r_rdy),
            marks.r_en.eq(expand.marks.ready),
        ]
        wiring.connect(m, flags.r_stream, expand.flags)
        m.submodules.near = near = fifo.SyncFIFO(width=c.word_bits, depth=_NEAR)
        wiring.connect(m, bytes_.r_stream, near.w_stream)
        wiring.connect(m, near.r_stream, expand.bytes)

        tag = data.View(_TAG, tags.r_data)
        answer = self.reader.answer
        m.d.comb += [
            tags.r_en.eq(answer.valid),
            flags.w_data.eq(answer.payload),
            flags.w_en.eq(answer.valid & tag.flags),
            bytes_.w_data.eq(answer.payload),
            bytes_.w_en.eq(answer.valid & ~tag.flags),
        ]
        lengths = self._lengths(m, flags.w_en, tag.run)
        self._ask(m, marks, tags, lengths, bytes_.r_en & bytes_.r_rdy)
        return m

    def _lengths(self, m: Module, valid: Signal, run: Signal) -> fifo.SyncFIFO:
        """Words of each slot behind its flags: their ones, counted byte by byte, then together, then over the slot."""
        bits, word_bytes = self._configuration.word_bits, self._configuration.word_bytes
        m.submodules.lengths = lengths = fifo.SyncFIFO(width=_LENGTH_BITS, depth=_SLOTS)
        in_bytes = [Signal(range(9), name=f"in_byte_{i}") for i in range(bits // 8)]
        in_word, ones = Signal(range(bits + 1)), Signal(_LENGTH_BITS + exact_log2(word_bytes), init=word_bytes - 1)  # rounds up
        m.d.sync += [count.eq(sum_of([*self.reader.answer.payload[8 * i : 8 * i + 8]])) for i, count in enumerate(in_bytes)]
        m.d.sync += in_word.eq(sum_of(in_bytes))
        valid, run = later(m, valid, 2, reset=True), later(m, run, 2)
        total = Signal.like(ones)
        m.d.comb += total.eq(ones + in_word)
        with m.If(valid):
            m.d.sync += ones.eq(Mux(run, word_bytes - 1, total))
        m.d.comb += [lengths.w_en.eq(valid & run), lengths.w_data.eq(total >> exact_log2(word_bytes))]
        return lengths

    def _ask(self, m: Module, marks: fifo.SyncFIFO, tags: fifo.SyncFIFO, lengths: fifo.SyncFIFO, used: Signal) -> None:
        """Choose what to read. `used` is high when a word leaves the bytes' FIFO."""
        ahead = reads_ahead(self._configuration)
        m.submodules.slots = slots = fifo.SyncFIFO(width=ADDRESS_BITS, depth=_SLOTS)  # addresses of their last flags
        request, head, out = self.requests, self.requests.payload, self.reader.request
        address, left = Signal(ADDRESS_BITS), Signal(_LENGTH_BITS)  # of the words of a slot
        room, held = Signal(), Signal(range(2 * ahead + 1))  # bytes' words asked for and not yet used
        free, flags, rest, raw = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            free.eq((~out.valid | out.ready) & tags.w_rdy),
            flags.eq(request.valid & head.marks.coded & marks.w_rdy & slots.w_rdy),
            rest.eq(~flags & (left != 0) & room),
            raw.eq(request.valid & ~head.marks.coded & marks.w_rdy & (left == 0) & ~slots.r_rdy & room),
            request.ready.eq(free & (flags | raw)),
            marks.w_data.eq(head.marks),
            marks.w_en.eq(request.ready),
            tags.w_data.eq(Cat(flags, head.marks.run)),
            tags.w_en.eq(free & (flags | rest | raw)),
            slots.w_data.eq(head.address),
            slots.w_en.eq(free & flags & head.marks.run),
        ]
        with m.If(~out.valid | out.ready):
            m.d.sync += [out.valid.eq(tags.w_en), out.payload.eq(Mux(rest, address, head.address))]
        taken = free & (rest | raw)
        m.d.sync += [held.eq(held + taken - used), room.eq(held < 2 * ahead - 2)]
        with m.If(free & rest):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
        take = (left == 0) & slots.r_rdy & lengths.r_rdy
        m.d.comb += [slots.r_en.eq(take), lengths.r_en.eq(take)]
        with m.If(take):
            m.d.sync += [address.eq(slots.r_data + 1), left.eq(lengths.r_data)]
