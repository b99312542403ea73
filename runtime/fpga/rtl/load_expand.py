"""Pixels from their zero flags and the bytes that are not 0 (dialects/zero_flags.py), a word per cycle.

A byte of the word is 0, or the next of the slot's bytes: the n-th, where n flags are set below its own. Those bytes begin anywhere in a
word and may end in the next one, so two words are held. A raw word is one whose flags are all set.
"""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.rtl.load_walk import ENDS, MARKS
from qcc.runtime.fpga.rtl.load_words import word_of


def sum_of(values: list[Value]) -> Value:
    """As a tree."""
    while len(values) > 1:
        values = [sum(values[i + 1 : i + 2], values[i]) for i in range(0, len(values), 2)]
    return values[0] if values else C(0)


class Expand(wiring.Component):
    """`marks` say what comes: a raw word of `bytes`, or several words whose flags are a word of `flags`.

    Where a slot's last word takes from two words of `bytes`, and not all of the second, dropping the rest takes a cycle.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._word_bytes = configuration.word_bytes
        word = stream.Signature(configuration.word_bits)
        super().__init__(
            {
                "marks": In(stream.Signature(MARKS)),
                "flags": In(word),
                "bytes": In(word),
                "words": Out(stream.Signature(word_of(configuration))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m, size = Module(), self._word_bytes
        advance, step, drop, flush, ends = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += advance.eq(~self.words.valid | self.words.ready)
        low, high, low_valid, high_valid = self._held(m, drop)
        active, marks, flags, ones = self._flags(m, step)

        used, behind = Signal(range(size)), Signal(range(2 * size))  # bytes of the lower word that came before this word's, and with them
        m.d.comb += [
            behind.eq(used + ones),
            step.eq(active & ~flush & advance & ((ones == 0) | low_valid) & ((behind <= size) | high_valid)),
            ends.eq(marks.run & (marks.words == 0)),
            drop.eq(flush | (step & ((behind >= size) | (ends & (behind != 0))))),
        ]
        with m.If(flush):
            m.d.sync += flush.eq(0)
        with m.Elif(step):
            m.d.sync += [used.eq(Mux(ends, 0, behind)), flush.eq(ends & (behind > size))]

        # Two stages: bring the word's bytes to the front, then each to its place.
        chosen, some, bytes_, word_ends = Signal(), Signal(size), Signal(8 * size), Signal(ENDS)
        below = [Signal(range(i + 1), name=f"below_{i}") for i in range(size)]
        out = self.words.payload
        with m.If(advance):
            m.d.sync += [chosen.eq(step), some.eq(flags[:size]), bytes_.eq(Cat(low, high) >> (8 * used))]
            m.d.sync += word_ends.eq(Mux(marks.words == 0, marks.ends, 0))
            m.d.sync += [below[i].eq(sum_of([*flags[:i]])) for i in range(size)]
            m.d.sync += [self.words.valid.eq(chosen), out.ends.eq(word_ends)]
            m.d.sync += out.data.eq(Cat(Mux(some[i], bytes_[: 8 * (i + 1)].word_select(below[i], 8), 0) for i in range(size)))
        return m

    def _held(self, m: Module, drop: Signal) -> tuple[Signal, Signal, Signal, Signal]:
        """The lower and the higher word, and whether they are there."""
        low, high, low_valid, high_valid, shift = Signal(8 * self._word_bytes), Signal(8 * self._word_bytes), Signal(), Signal(), Signal()
        m.d.comb += [shift.eq(drop | ~low_valid), self.bytes.ready.eq(shift | ~high_valid)]
        with m.If(shift):
            m.d.sync += [low.eq(high), low_valid.eq(high_valid)]
        with m.If(self.bytes.ready):
            m.d.sync += [high.eq(self.bytes.payload), high_valid.eq(self.bytes.valid)]
        return low, high, low_valid, high_valid

    def _flags(self, m: Module, step: Signal) -> tuple[Signal, Signal, Signal, Signal]:
        """The marks and the flags that are left of the current flag word, and how many of the first word's are set."""
        size = self._word_bytes
        ahead, ahead_valid = Signal(8 * size), Signal()  # a flag word, because what a block RAM answers is late in its cycle
        active, marks, flags, ones = Signal(), Signal(MARKS), Signal(8 * size), Signal(range(size + 1))
        coming, coming_valid, take, fits = Signal(MARKS), Signal(), Signal(), Signal()
        m.d.comb += [
            take.eq(~active | (step & (marks.words == 0))),
            fits.eq(coming_valid & (~coming.coded | ahead_valid)),
            self.marks.ready.eq(~coming_valid | (take & fits)),
            self.flags.ready.eq(~ahead_valid),  # that it may be used now would be known too late; only slots of one word need more
        ]
        with m.If(self.marks.ready):
            m.d.sync += [coming.eq(self.marks.payload), coming_valid.eq(self.marks.valid)]
        with m.If(self.flags.ready):
            m.d.sync += [ahead.eq(self.flags.payload), ahead_valid.eq(self.flags.valid)]
        with m.If(take):
            m.d.sync += [active.eq(fits), marks.eq(coming), flags.eq(Mux(coming.coded, ahead, ~C(0, 8 * size)))]
            m.d.sync += ones.eq(Mux(coming.coded, sum_of([*ahead[:size]]), size))
            with m.If(fits & coming.coded):
                m.d.sync += ahead_valid.eq(0)
        with m.Elif(step):
            m.d.sync += [marks.words.eq(marks.words - 1), flags.eq(flags >> size), ones.eq(sum_of([*flags[size : 2 * size]]))]
        return active, marks, flags, ones
