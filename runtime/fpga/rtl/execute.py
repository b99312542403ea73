"""The array: R x C units that each take the products of K bits per cycle.

Lines are read without knowing where a tile ends: the tag that says so comes `READ_LATENCY` cycles behind its line's address. The front of
the pipeline (issue, tag) therefore runs ahead, and is emptied where a group of pixels ends; it waits while the post unit has no room for
another tile. What is behind it never waits.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.dialects.bitplanes import PLANE_BITS
from qcc.runtime.fpga.isa import ACCUMULATOR_BITS, BY_NAME
from qcc.runtime.fpga.rtl import interfaces
from qcc.runtime.fpga.rtl.delay import later
from qcc.runtime.fpga.rtl.interfaces import BUFFER_BITS, READ_LATENCY, instruction

COUNT_LATENCY = 3
SHIFT_BITS = 5  # a product is shifted by up to 16 weight and 15 activation planes

_STEP = data.StructLayout({"line": BUFFER_BITS, "plane": PLANE_BITS, "top": 1})
"""A line and an activation plane, and whether it is the top one."""
_CONTROL = data.StructLayout({"valid": 1, "bipolar": 1, "negative": 1, "shift": SHIFT_BITS, "first": 1, "emit": 1, "end": 1})
"""What a step through the array means: `first` starts a sum, `emit` hands it over, `end` ends an instruction (also without a step)."""


class Ones(wiring.Component):
    """How many bits of left & right are 1, `COUNT_LATENCY` cycles later."""

    def __init__(self, bits: int) -> None:
        super().__init__({"left": In(bits), "right": In(bits), "count": Out(bits.bit_length())})

    def elaborate(self, platform: Any) -> Module:
        m, both = Module(), self.left & self.right
        pairs = [_add_bits(both[i : i + 1], both[i + 1 : i + 2]) for i in range(0, len(both), 2)]  # one look-up table per bit
        sums = [later(m, _add_bits(*pair)) for pair in _pairs(pairs)]
        sums = [left + right for left, right in _pairs(sums)]
        sums = [later(m, left + right) for left, right in _pairs(sums)]
        while len(sums) > 1:
            sums = [left + right for left, right in _pairs(sums)]
        m.d.sync += self.count.eq(sums[0])
        return m


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _add_bits(left: Any, right: Any) -> Any:
    """left + right of the same few bits as logic: a carry chain would cost more."""
    total, carry = [], None
    for a, b in zip(left, right, strict=True):
        total.append(a ^ b if carry is None else a ^ b ^ carry)
        carry = a & b if carry is None else (a & b) | (carry & (a ^ b))
    return Cat(*total, carry)


class Array(wiring.Component):
    """Sums of products of the words of a line and of one word of each pixel; `tile` is complete in the cycle of `emitted`."""

    def __init__(self, c: Configuration) -> None:
        self.configuration = c
        words, pixels = data.ArrayLayout(c.word_bits, c.rows), data.ArrayLayout(c.word_bits, c.columns)
        super().__init__(
            {
                "control": In(_CONTROL),
                "words": In(words),
                "pixels": In(pixels),
                "tile": Out(interfaces.tile(c)),
                "emitted": Out(1),
                "end": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m, c = Module(), self.configuration
        control = later(m, self.control, COUNT_LATENCY, reset=True)
        negated, shifted, added = (later(m, control, cycles, reset=True) for cycles in (1, 2, 3))
        m.d.comb += [self.emitted.eq(later(m, added.valid & added.emit, reset=True)), self.end.eq(later(m, added.end, reset=True))]
        present: list[Any] = []
        for column in range(c.columns):
            m.submodules[f"present_{column}"] = ones = Ones(c.word_bits)
            m.d.comb += [ones.left.eq(self.pixels[column]), ones.right.eq(-1)]
            present.append(ones.count)
        for row in range(c.rows):
            for column in range(c.columns):
                m.submodules[f"ones_{row}_{column}"] = ones = Ones(c.word_bits)
                m.d.comb += [ones.left.eq(self.words[row]), ones.right.eq(self.pixels[column])]
                bits = signed(len(ones.count) + 1)
                term, product = Signal(bits, reset_less=True), Signal(bits, reset_less=True)
                moved = Signal(signed(ACCUMULATOR_BITS), reset_less=True)
                total = self.tile[row][column]
                m.d.sync += [
                    term.eq(Mux(control.bipolar, (ones.count << 1) - present[column], ones.count)),
                    product.eq(Mux(negated.negative, -term, term)),
                    moved.eq(product << shifted.shift),
                ]
                with m.If(added.valid):
                    m.d.sync += total.eq(Mux(added.first, 0, total) + moved)
        return m


class TileQueue(wiring.Component):
    """Finished tiles on their way to the post unit, `accumulator_tiles` of them. A push needs room, which `freed` counts: one per pop."""

    def __init__(self, c: Configuration) -> None:
        self.configuration = c
        shape = interfaces.tile(c)
        super().__init__({"push": In(1), "tile": In(shape), "tiles": Out(stream.Signature(shape)), "freed": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m, depth = Module(), self.configuration.accumulator_tiles
        held = [Signal(interfaces.tile(self.configuration), reset_less=True, name=f"tile_{i}") for i in range(depth)]
        full = Signal(depth)  # from the head on
        m.d.comb += [self.tiles.payload.eq(held[0]), self.tiles.valid.eq(full[0]), self.freed.eq(self.tiles.valid & self.tiles.ready)]
        kept = Mux(self.freed, full >> 1, full)
        for i, tile in enumerate(held):
            behind = held[i + 1] if i + 1 < depth else self.tile
            with m.If(self.push & ~kept.bit_select(i, 1) & (kept.bit_select(i - 1, 1) if i else 1)):
                m.d.sync += tile.eq(self.tile)
            with m.Elif(self.freed):
                m.d.sync += tile.eq(behind)
        m.d.sync += full.eq(Mux(self.push, Cat(1, kept), kept))
        return m


class Execute(wiring.Component):
    """The execute unit: instructions become steps of a line and an activation plane each."""

    def __init__(self, c: Configuration) -> None:
        self.configuration = c
        reads = {"tags": interfaces.tag_read(), "lines": interfaces.line_read(c), "activations": interfaces.bank_read(c)}
        super().__init__(
            {**interfaces.unit(), **{name: Out(read) for name, read in reads.items()}, "tiles": Out(stream.Signature(interfaces.tile(c)))}
        )

    def elaborate(self, platform: Any) -> Module:
        m, c = Module(), self.configuration
        m.submodules.array = array = Array(c)
        m.submodules.queue = queue = TileQueue(c)
        mode, now = Signal(instruction("execute_mode")), Signal(instruction("execute"))
        top_plane, top_weight_plane = Signal(PLANE_BITS), Signal(PLANE_BITS)
        m.d.sync += [top_plane.eq(mode.planes - 1), top_weight_plane.eq(mode.weight_planes - 1)]
        line, plane, step, issuing = Signal(BUFFER_BITS), Signal(PLANE_BITS), Signal(_STEP), Signal()
        room = Signal(range(c.accumulator_tiles + 1), init=c.accumulator_tiles)
        advance, restart = Signal(), Signal()

        # Issue, and READ_LATENCY cycles later the step whose tag has come.
        m.d.comb += [step.line.eq(line), step.plane.eq(plane), step.top.eq(plane == top_plane)]
        tagged, valid = step, issuing
        for _ in range(READ_LATENCY):
            next_tagged, next_valid = Signal(_STEP, reset_less=True), Signal()
            with m.If(advance):
                m.d.sync += [next_tagged.eq(tagged), next_valid.eq(valid & ~restart)]
            tagged, valid = next_tagged, next_valid
        m.d.comb += [self.tags.address.eq(line), self.tags.enable.eq(advance)]
        with m.If(advance & issuing):
            m.d.sync += [plane.eq(Mux(step.top, 0, plane + 1)), line.eq(line + step.top)]

        # Where tiles, groups and the instruction end.
        tag = self.tags.data
        tile_end, emits, go, finished = Signal(), Signal(), Signal(), Signal()
        tiles_left, groups_left, last_tile, last_group = Signal.like(now.tiles), Signal.like(now.groups), Signal(), Signal()
        base, first = Signal(BUFFER_BITS), Signal()
        m.d.comb += [
            tile_end.eq(valid & tagged.top & tag.last),
            emits.eq(tile_end & now.emit),
            advance.eq(~emits | (room != 0)),
            go.eq(valid & advance),
            restart.eq(tile_end & last_tile & advance),
            finished.eq(restart & last_group),
        ]
        m.d.sync += room.eq(room - (emits & advance) + queue.freed)
        with m.If(go):
            m.d.sync += first.eq(tile_end)
        with m.If(tile_end & advance):
            m.d.sync += [tiles_left.eq(tiles_left - 1), last_tile.eq(tiles_left == 2)]
        with m.If(restart):
            m.d.sync += [line.eq(now.line), plane.eq(0), base.eq(base + mode.vector_words), issuing.eq(~last_group)]
            m.d.sync += [tiles_left.eq(now.tiles), last_tile.eq(now.tiles == 1)]
            m.d.sync += [groups_left.eq(groups_left - 1), last_group.eq(groups_left == 2)]

        # The next instruction, when nothing of the last is in front of here.
        head, mode_head = (data.View(instruction(name), self.instructions.payload) for name in ("execute", "execute_mode"))
        sets_mode, taken = head.opcode == BY_NAME["execute_mode"].opcode, Signal()
        m.d.comb += [self.instructions.ready.eq(~issuing & ~valid), taken.eq(self.instructions.valid & self.instructions.ready)]
        with m.If(taken & sets_mode):
            m.d.sync += mode.eq(mode_head)
        with m.Elif(taken):
            m.d.sync += [now.eq(head), issuing.eq(1), line.eq(head.line), plane.eq(0), base.eq(head.activation)]
            m.d.sync += [tiles_left.eq(head.tiles), last_tile.eq(head.tiles == 1), first.eq(~head.accumulate)]
            m.d.sync += [groups_left.eq(head.groups), last_group.eq(head.groups == 1)]

        # The address of the activations, then those and the line.
        control, offset, place = Signal(_CONTROL), Signal(BUFFER_BITS), Signal(BUFFER_BITS)
        m.d.sync += [
            control.valid.eq(go),
            control.bipolar.eq(mode.bipolar),
            control.negative.eq((mode.signed & tagged.top) ^ (mode.weight_signed & (tag.plane == top_weight_plane))),
            control.shift.eq(tag.plane + tagged.plane),
            control.first.eq(first),
            control.emit.eq(emits),
            control.end.eq(finished | (taken & sets_mode)),
            offset.eq(tag.index * mode.planes),
            place.eq(base + tagged.plane),
        ]
        m.d.comb += [self.activations.address.eq(later(m, (place + offset)[:BUFFER_BITS])), self.lines.address.eq(later(m, tagged.line, 2))]
        m.d.comb += [
            array.control.eq(later(m, control, 1 + READ_LATENCY, reset=True)),
            array.words.eq(self.lines.data),
            array.pixels.eq(self.activations.data),
            queue.tile.eq(array.tile),
            queue.push.eq(array.emitted),
            self.done.eq(array.end),
        ]
        wiring.connect(m, wiring.flipped(self.tiles), queue.tiles)
        return m
