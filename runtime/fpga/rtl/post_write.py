"""The part of the post unit that writes finished tiles into the output buffer, plane by plane."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.rtl import interfaces
from qcc.runtime.fpga.rtl.delay import later
from qcc.runtime.fpga.rtl.interfaces import BUFFER_BITS, READ_LATENCY, instruction


def finished_step(c: Configuration) -> data.StructLayout:
    """`post_lanes` values, and whether their tile ends its group of pixels and its instruction."""
    return data.StructLayout({"values": data.ArrayLayout(signed(32), c.post_lanes), "group": 1, "all": 1})


class WritePlanes(wiring.Component):
    """A tile's R channels are R bits of a word: bits below stay as they are, those above become 0."""

    def __init__(self, c: Configuration) -> None:
        self.configuration = c
        super().__init__(
            {
                "posts": In(stream.Signature(instruction("post"))),
                "bits": In(6),
                "channels": In(16),
                "finished": In(stream.Signature(finished_step(c))),
                "read": Out(interfaces.bank_read(c)),
                "write": Out(interfaces.banks_write(c)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m, c = Module(), self.configuration
        per_word, size, numbers = c.word_bits // c.rows, interfaces.steps(c), interfaces.tile(c)

        # Steps become a tile.
        gathered, full, step, ends = Signal(numbers, reset_less=True), Signal(), Signal(range(size)), Signal(2)
        move = Signal()
        m.d.comb += self.finished.ready.eq(~full | move)
        with m.If(move):
            m.d.sync += full.eq(0)
        with m.If(self.finished.valid & self.finished.ready):
            m.d.sync += [step.eq(Mux(step == size - 1, 0, step + 1)), full.eq(step == size - 1)]
            m.d.sync += ends.eq(self.finished.payload.group | (self.finished.payload.all << 1))
            with m.Switch(step):
                for i in range(size):
                    with m.Case(i):
                        places = interfaces.lanes_of(c, gathered, i)
                        m.d.sync += [place.eq(self.finished.payload.values[lane]) for lane, place in enumerate(places)]

        # A tile becomes planes.
        now = Signal(instruction("post"))
        first_word, first_slot = interfaces.place_of(c, now.channel)
        tile, plane, slot, last = Signal(numbers, reset_less=True), Signal(6), Signal(range(per_word)), Signal(2)
        next_slot = Signal(range(per_word))  # of the tile that comes next, as `next_word` and `left`
        group, word, next_word = Signal(BUFFER_BITS), Signal(BUFFER_BITS), Signal(BUFFER_BITS)
        left, exists = Signal(signed(18)), Signal(c.rows)  # channels that exist from this tile on
        writing, top = Signal(), Signal()  # `top`: this is the last plane
        one_plane, before_top = Signal(), Signal.like(plane)
        following, next_group = Signal(BUFFER_BITS), Signal(BUFFER_BITS)  # words that may come next; a tile has cycles enough to find them
        m.d.sync += [
            one_plane.eq(self.bits == 1),
            before_top.eq(self.bits - 2),
            following.eq(next_word + self.bits),
            next_group.eq(group + now.output_words),
        ]
        marks = Signal(data.StructLayout({"valid": 1, "slot": slot.shape(), "address": BUFFER_BITS, "end": 1}))
        ready, product = Signal(), Signal(BUFFER_BITS)
        m.d.sync += product.eq(first_word * self.bits)
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.posts.ready.eq(1)
                m.d.sync += now.eq(self.posts.payload)
                with m.If(self.posts.valid):
                    m.next = "multiply"
            with m.State("multiply"):
                m.next = "place"
            with m.State("place"):
                m.d.sync += [group.eq(product + now.output), next_word.eq(product + now.output), next_slot.eq(first_slot)]
                m.d.sync += left.eq(self.channels - now.channel)
                m.next = "settle"
            with m.State("settle"):
                m.next = "tiles"
            with m.State("tiles"):
                m.d.comb += ready.eq(1)
                with m.If(move & ends[1]):
                    m.next = "idle"
        m.d.comb += move.eq(ready & full & (~writing | top))
        with m.If(writing):
            m.d.sync += [plane.eq(plane + 1), top.eq(plane == before_top)]
            for row in range(c.rows):
                m.d.sync += [tile[row][column].eq(tile[row][column] >> 1) for column in range(c.columns)]
            with m.If(top):
                m.d.sync += writing.eq(0)
        with m.If(move):
            m.d.sync += [
                tile.eq(gathered),
                writing.eq(1),
                plane.eq(0),
                top.eq(one_plane),
                slot.eq(next_slot),
                word.eq(next_word),
                last.eq(ends),
            ]
            m.d.sync += [exists[row].eq(left > row) for row in range(c.rows)]
            m.d.sync += [next_slot.eq(next_slot + 1), left.eq(left - c.rows)]
            with m.If(next_slot == per_word - 1):
                m.d.sync += [next_slot.eq(0), next_word.eq(following)]
            with m.If(ends[0]):
                m.d.sync += [next_slot.eq(first_slot), left.eq(self.channels - now.channel)]
                m.d.sync += [group.eq(next_group), next_word.eq(next_group)]

        # Read, add, write.
        m.d.comb += [
            marks.valid.eq(writing),
            marks.slot.eq(slot),
            marks.address.eq(word + plane),
            marks.end.eq(writing & top & last[1]),
        ]
        marks = later(m, marks, reset=True)
        m.d.comb += self.read.address.eq(marks.address)
        bits = data.ArrayLayout(c.rows, c.columns)
        plane_bits = Signal(bits)
        for row in range(c.rows):
            m.d.comb += [plane_bits[column][row].eq(tile[row][column][0] & exists[row]) for column in range(c.columns)]
        plane_bits = later(m, plane_bits, 1 + READ_LATENCY)
        marks = later(m, marks, READ_LATENCY, reset=True)
        m.d.sync += [self.write.enable.eq(marks.valid), self.write.address.eq(marks.address)]
        for column in range(c.columns):
            for i in range(per_word):
                old, new = self.read.data[column].word_select(i, c.rows), plane_bits[column]
                m.d.sync += self.write.data[column].word_select(i, c.rows).eq(Mux(marks.slot == i, new, Mux(marks.slot > i, old, 0)))
        m.d.comb += self.done.eq(later(m, marks.end, 2, reset=True))
        return m
