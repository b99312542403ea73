"""Pixels to their zero flags and the bytes that are not 0 (dialects/zero_flags.py), a word per cycle.

A slot is written in the order in which it gets known, not in that of its addresses: words of bytes as they fill up, and flags after every
eight words and at the end of the pixel. Raw words pass as words without zeros.
"""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.rtl.interfaces import ADDRESS_BITS, instruction, writer
from qcc.runtime.fpga.rtl.load_expand import sum_of
from qcc.runtime.fpga.rtl.load_walk import WORDS_PER_FLAGS

PLACE = data.StructLayout(
    {"address": ADDRESS_BITS, "pixel": 1, "last": 1, "coded": 1, "flag_words": instruction("store")["run_words"].width - 2}
)
"""Where a raw word goes, and a coded pixel's slot begins; whether it ends its pixel and its instruction."""


def _packed(size: int) -> data.StructLayout:
    """A word of `size` bytes: those that are not 0 in front, which they were, how many; and where the first of its slot goes."""
    return data.StructLayout({"bytes": 8 * size, "flags": size, "ones": range(size + 1), "place": PLACE, "bytes_address": ADDRESS_BITS})


class Compress(wiring.Component):
    """`stored` pulses when the last word of an instruction is taken, `empty` is high when none is inside."""

    def __init__(self, configuration: Configuration) -> None:
        self._word_bytes = configuration.word_bytes
        word = data.StructLayout({"data": configuration.word_bits, "place": PLACE})
        super().__init__(
            {"words": In(stream.Signature(word)), "writer": Out(writer(configuration.word_bits)), "stored": Out(1), "empty": Out(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m, size = Module(), self._word_bytes
        advance = Signal()
        m.d.comb += self.words.ready.eq(advance)

        # Which bytes are not 0; how many below each are; all of them to the front.
        found, place, some, valid = Signal.like(self.words.payload), self.words.payload.place, Signal(size), Signal()
        counted, kept, counted_valid = Signal.like(found), Signal(size), Signal()
        zeros = [Signal(range(i + 1), name=f"zeros_{i}") for i in range(size)]
        packed, packed_valid = Signal(_packed(size)), Signal()
        with m.If(advance):
            m.d.sync += [valid.eq(self.words.valid), found.eq(self.words.payload)]
            m.d.sync += some.eq(Cat(self.words.payload.data[8 * i : 8 * i + 8].any() | ~place.coded for i in range(size)))
            m.d.sync += [counted_valid.eq(valid), counted.eq(found), kept.eq(some)]
            m.d.sync += [zero.eq(sum_of([*~some[:i]])) for i, zero in enumerate(zeros)]
            m.d.sync += [
                packed_valid.eq(counted_valid),
                packed.bytes.eq(_to_front(m, counted.data, kept, zeros)),
                packed.flags.eq(kept),
                packed.ones.eq(sum_of([*kept])),
                packed.place.eq(counted.place),
                packed.bytes_address.eq(counted.place.address + Mux(counted.place.coded, counted.place.flag_words, 0)),
            ]
        writing = self._write(m, packed, packed_valid, advance)
        m.d.comb += self.empty.eq(~(valid | counted_valid | packed_valid | writing))
        return m

    def _write(self, m: Module, word: data.View, valid: Signal, advance: Signal) -> Signal:
        """Put bytes behind those that wait for a full word, and write what is full, what is left at a pixel's end, and flags.

        Returns whether there is something to write beside the word that comes.
        """
        size, out, place = self._word_bytes, self.writer, word.place
        held, used, behind = Signal(8 * (size - 1)), Signal(range(size)), Signal(range(2 * size))
        together = Signal(8 * (2 * size - 1))
        all_flags, index = Signal(8 * size), Signal(range(WORDS_PER_FLAGS))
        begins, bytes_address, flags_address, address = Signal(init=1), Signal(ADDRESS_BITS), Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        rest_next, flags_next, pixel_next, last_next = Signal(), Signal(), Signal(), Signal()  # what is to be written before the next word
        last, free = Signal(), Signal()
        full = behind >= size
        ends_flags = place.coded & (place.pixel | (index == WORDS_PER_FLAGS - 1))
        m.d.comb += [
            behind.eq(used + word.ones),
            together.eq(Cat(held, C(0, 8 * size)) | (word.bytes << (8 * used))),
            address.eq(Mux(begins, word.bytes_address, bytes_address)),
            free.eq(~out.valid | out.ready),
            advance.eq(~valid | (free & ~rest_next & ~flags_next)),
            self.stored.eq(out.valid & out.ready & last),
        ]
        with m.If(free):
            m.d.sync += [out.valid.eq(0), last.eq(0)]
            with m.If(rest_next):
                m.d.sync += [out.valid.eq(1), out.payload.address.eq(bytes_address), out.payload.data.eq(held)]
                m.d.sync += [rest_next.eq(0), held.eq(0), used.eq(0)]
            with m.Elif(flags_next):
                m.d.sync += [out.valid.eq(1), out.payload.address.eq(flags_address), out.payload.data.eq(all_flags), last.eq(last_next)]
                m.d.sync += [flags_next.eq(0), flags_address.eq(flags_address + 1), all_flags.eq(0), index.eq(0), begins.eq(pixel_next)]
            with m.Elif(valid):
                m.d.sync += [out.valid.eq(full), out.payload.address.eq(address), out.payload.data.eq(together)]
                m.d.sync += [held.eq(Mux(full, together >> (8 * size), together)), used.eq(behind)]
                with m.If(place.coded):
                    m.d.sync += [begins.eq(0), bytes_address.eq(address + full), index.eq(index + 1)]
                    m.d.sync += [rest_next.eq(place.pixel & (behind % size != 0)), flags_next.eq(ends_flags)]
                    m.d.sync += [pixel_next.eq(place.pixel), last_next.eq(place.last)]
                    m.d.sync += all_flags.eq(all_flags | (word.flags << Cat(C(0, exact_log2(size)), index)))
                    with m.If(begins):
                        m.d.sync += flags_address.eq(place.address)
                with m.Else():
                    m.d.sync += last.eq(place.last)
        return rest_next | flags_next | out.valid


def _to_front(m: Module, word: Signal, some: Signal, zeros: list[Signal]) -> Value:
    """The bytes of `word` that are `some`, lowest first, and zeros behind them.

    Byte i moves down over the `zeros[i]` bytes below it that are not: by 1, then 2, then 4 of them, which never collides.
    """
    size = len(zeros)
    lane = data.StructLayout({"byte": 8, "way": exact_log2(size)})
    lanes = [Signal(lane, name=f"lane_{i}") for i in range(size)]
    for i, new in enumerate(lanes):
        m.d.comb += new.eq(Mux(some[i], Cat(word[8 * i : 8 * i + 8], zeros[i]), 0))
    for step in range(exact_log2(size)):
        moved = [Signal(lane, name=f"lane_{i}_moved_{1 << step}") for i in range(size)]
        for i, new in enumerate(moved):
            above = lanes[i + (1 << step)] if i + (1 << step) < size else None
            stays = Mux(lanes[i].way[step], 0, lanes[i])
            m.d.comb += new.eq(stays if above is None else stays | Mux(above.way[step], above, 0))
        lanes = moved
    return Cat(lane.byte for lane in lanes)
