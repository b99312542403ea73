"""The part of the post unit that turns the residual's planes back into numbers."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.isa import RESIDUAL_BITS
from qcc.runtime.fpga.rtl import interfaces
from qcc.runtime.fpga.rtl.delay import later
from qcc.runtime.fpga.rtl.interfaces import BUFFER_BITS, READ_LATENCY, instruction

MODE = data.StructLayout({"planes": 5, "signed": 1, "residual_words": 16})


class FetchResidual(wiring.Component):
    """Residuals of the tiles of each post, in order; of R of the channels in a word of K bits at a time."""

    def __init__(self, c: Configuration) -> None:
        self.configuration = c
        self.numbers = interfaces.tile(c, RESIDUAL_BITS)
        super().__init__(
            {
                "posts": In(stream.Signature(instruction("post"))),
                "mode": In(MODE),
                "buffer": Out(interfaces.bank_read(c)),
                "residuals": Out(stream.Signature(self.numbers)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m, c, mode = Module(), self.configuration, self.mode
        per_word = c.word_bits // c.rows  # tiles of channels
        now = Signal(instruction("post"))
        first_word, first_slot = interfaces.place_of(c, now.channel)
        plane, slot, tiles_left, groups_left = Signal(5), Signal(range(per_word)), Signal.like(now.tiles), Signal.like(now.groups)
        group, word = Signal(BUFFER_BITS), Signal(BUFFER_BITS)  # address of the group's first word, and of ours

        # Tiles that are read but not handed over. A second may begin where the first will be handed over at once: it comes behind it.
        pending, full = Signal(2), Signal()
        held, valid = Signal(self.numbers, reset_less=True), Signal()
        marks = Signal(data.StructLayout({"valid": 1, "plane": 5, "last": 1, "slot": slot.shape()}))
        top_plane, top, going, hand_over = Signal(5), Signal(), Signal(), Signal()
        m.d.sync += top_plane.eq(mode.planes - 1)
        m.d.comb += top.eq(plane == top_plane)
        # Found out in the cycle that is left between two tiles.
        between, group_ends, last_group, next_word, next_group = Signal(), Signal(), Signal(), Signal(BUFFER_BITS), Signal(BUFFER_BITS)
        m.d.sync += [
            between.eq(going & top),
            group_ends.eq(tiles_left == now.window),
            last_group.eq(groups_left == 1),
            next_word.eq(word + mode.planes),
            next_group.eq(group + mode.residual_words),
        ]
        product = Signal(BUFFER_BITS)
        m.d.sync += product.eq(first_word * mode.planes)
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.posts.ready.eq(1)
                m.d.sync += now.eq(self.posts.payload)
                with m.If(self.posts.valid):
                    m.next = "multiply"
            with m.State("multiply"):
                m.d.sync += groups_left.eq(now.groups)
                m.next = "place"
            with m.State("place"):
                m.d.sync += [group.eq(product + now.residual), word.eq(product + now.residual), plane.eq(0), slot.eq(first_slot)]
                m.d.sync += [tiles_left.eq(now.tiles), between.eq(1)]
                m.next = "read"
            with m.State("read"):
                m.d.comb += going.eq((plane != 0) | (~between & ((pending == 0) | ((pending == 1) & ~valid))))
                with m.If(going):
                    m.d.sync += plane.eq(Mux(top, 0, plane + 1))
                with m.If(going & top):
                    m.d.sync += [tiles_left.eq(tiles_left - now.window), slot.eq(slot + 1)]
                    with m.If(slot == per_word - 1):
                        m.d.sync += [slot.eq(0), word.eq(next_word)]
                    with m.If(group_ends):
                        m.d.sync += [groups_left.eq(groups_left - 1), tiles_left.eq(now.tiles), slot.eq(first_slot)]
                        m.d.sync += [group.eq(next_group), word.eq(next_group)]
                        with m.If(last_group):
                            m.next = "idle"
        m.d.comb += [marks.valid.eq(going), marks.plane.eq(plane), marks.last.eq(top), marks.slot.eq(slot)]
        m.d.comb += self.buffer.address.eq(later(m, (word + plane)[:BUFFER_BITS]))

        # R bits of a plane from each bank.
        marks = later(m, marks, 1 + READ_LATENCY, reset=True)
        bits = Signal(data.ArrayLayout(c.rows, c.columns), reset_less=True)
        for column in range(c.columns):
            m.d.sync += bits[column].eq(self.buffer.data[column].word_select(marks.slot, c.rows))
        marks = later(m, marks, reset=True)
        gathered = Signal(self.numbers, reset_less=True)
        for place in range(RESIDUAL_BITS):
            behind = marks.plane < place  # of the top plane: the sign
            with m.If(marks.valid & ((marks.plane == place) | (marks.last & behind))):
                for row in range(c.rows):
                    for column in range(c.columns):
                        m.d.sync += gathered[row][column][place].eq(bits[column][row] & (~behind | mode.signed))

        m.d.comb += [self.residuals.payload.eq(held), self.residuals.valid.eq(valid), hand_over.eq(full & (~valid | self.residuals.ready))]
        m.d.sync += pending.eq(pending + (going & (plane == 0)) - hand_over)
        with m.If(self.residuals.ready):
            m.d.sync += valid.eq(0)
        with m.If(hand_over):
            m.d.sync += [held.eq(gathered), valid.eq(1), full.eq(0)]
        with m.If(marks.valid & marks.last):
            m.d.sync += full.eq(1)
        return m
