"""The addresses that a load reads, one per cycle.

Every load is a *walk*: for each pixel, for each row of its window, for each tap of the row, a run of words. Weights and parameters are one
run. There is no multiplication: a tap, a row, a pixel begin where the one before began, plus a step. Four stages: count; add steps to
addresses and coordinates; choose between a tap and the padding; count the words of a run.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, enum, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from qcc.runtime.fpga.rtl.interfaces import ADDRESS_BITS, instruction

_GEOMETRY, _LAYOUT = instruction("load_geometry"), instruction("load_layout")
_STEP_BITS = 24  # 8 bits of dilation or stride times 16 of a pixel's words
_COORDINATE_BITS = 22  # the column of a tile's last tap: 20 bits, 12 bits of pixels times 8 of stride and 8 of taps times 8 of dilation
_REQUESTS = 4  # between the walk and memory, so that memory's ready does not stop the stages directly


def _of(layout: data.StructLayout, *names: str) -> dict[str, object]:
    return {name: layout[name].shape for name in names}


WALK = data.StructLayout(
    {
        "address": ADDRESS_BITS,  # of the first pixel's first tap
        "padding": ADDRESS_BITS,
        "tap_step": _STEP_BITS,
        "row_step": ADDRESS_BITS,
        "pixel_step": _STEP_BITS,
        "run": instruction("load_weights")["size_words"].width,
        "count": instruction("load_activations")["count"].width,
        "windows": 1,  # taps may lie outside the image; otherwise they have no coordinates
        "x": signed(_COORDINATE_BITS),
        "y": signed(_COORDINATE_BITS),
        **_of(_GEOMETRY, "height", "width", "kernel_y", "kernel_x", "dilation_y", "dilation_x", "stride_x"),
    }
)
"""No run, kernel or count is 0."""

ENDS = data.StructLayout({"run": 1, "pixel": 1, "all": 1})
"""What a word is the last of."""
REQUEST = data.StructLayout({"address": ADDRESS_BITS, "ends": ENDS})


class Level(enum.Enum, shape=2):
    """What begins with a tap."""

    TAP = 0
    ROW = 1
    PIXEL = 2
    WALK = 3


class Walk(wiring.Component):
    """Walks in, addresses out, and what is the last word of what."""

    def __init__(self) -> None:
        super().__init__({"walks": In(stream.Signature(WALK)), "requests": Out(stream.Signature(REQUEST))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.requests = requests = fifo.SyncFIFO(width=REQUEST.size, depth=_REQUESTS)
        m.d.comb += [
            self.requests.payload.eq(requests.r_data),
            self.requests.valid.eq(requests.r_rdy),
            requests.r_en.eq(self.requests.ready),
        ]

        # Registered, because it enables all stages: what the last cycle added is not in the level yet.
        advance = Signal()
        m.d.sync += advance.eq(requests.level < requests.depth - 1)
        walk = Signal(WALK)  # read by the first two stages, so a walk begins when both are through with the one before
        counting, adding = Signal(), Signal()
        m.d.comb += self.walks.ready.eq(~counting & advance)
        with m.If(self.walks.valid & self.walks.ready):
            m.d.sync += walk.eq(self.walks.payload)
        begins, level, word_ends = self._count(m, walk, counting, advance)

        added_begins, added_ends = Signal(), Signal(ENDS)
        with m.If(advance):
            m.d.sync += [adding.eq(counting), added_begins.eq(begins), added_ends.eq(word_ends)]
        source = self._add(m, walk, level, counting & begins & advance)

        chosen, chosen_begins, chosen_source, chosen_ends = Signal(), Signal(), Signal(ADDRESS_BITS), Signal(ENDS)
        valid, address, out_ends = Signal(), Signal(ADDRESS_BITS), Signal(ENDS)
        with m.If(advance):
            m.d.sync += [chosen.eq(adding), chosen_begins.eq(added_begins), chosen_source.eq(source), chosen_ends.eq(added_ends)]
            m.d.sync += [valid.eq(chosen), out_ends.eq(chosen_ends)]
            with m.If(chosen):
                m.d.sync += address.eq(Mux(chosen_begins, chosen_source, address + 1))

        m.d.comb += [requests.w_en.eq(valid & advance), requests.w_data.eq(Cat(address, out_ends))]
        return m

    def _count(self, m: Module, walk: data.View, counting: Signal, advance: Signal) -> tuple[Signal, Signal, data.View]:
        """The loops. Returns whether a tap begins with the word, what begins with the tap, and what ends with the word."""
        first = self.walks.payload
        # Of each loop what is left, the current one included.
        words, taps, rows, pixels = (
            Signal.like(first.run),
            Signal.like(first.kernel_x),
            Signal.like(first.kernel_y),
            Signal.like(first.count),
        )
        begins, level, ends = Signal(), Signal(Level), Signal(ENDS)
        row_ends = Signal()
        m.d.comb += [
            ends.run.eq(words == 1),
            row_ends.eq(ends.run & (taps == 1)),
            ends.pixel.eq(row_ends & (rows == 1)),
            ends.all.eq(ends.pixel & (pixels == 1)),
        ]
        with m.If(counting & advance):
            m.d.sync += [words.eq(words - 1), begins.eq(ends.run)]
            with m.If(ends.run):
                m.d.sync += [words.eq(walk.run), taps.eq(taps - 1), level.eq(Level.TAP)]
            with m.If(row_ends):
                m.d.sync += [taps.eq(walk.kernel_x), rows.eq(rows - 1), level.eq(Level.ROW)]
            with m.If(ends.pixel):
                m.d.sync += [rows.eq(walk.kernel_y), pixels.eq(pixels - 1), level.eq(Level.PIXEL)]
            with m.If(ends.all):
                m.d.sync += counting.eq(0)
        with m.If(self.walks.valid & self.walks.ready):
            m.d.sync += [words.eq(first.run), taps.eq(first.kernel_x), rows.eq(first.kernel_y), pixels.eq(first.count)]
            m.d.sync += [begins.eq(1), level.eq(Level.WALK), counting.eq(1)]
        return begins, level, ends

    def _add(self, m: Module, walk: data.View, level: Signal, enable: Signal) -> Signal:
        """Addresses and coordinates of the tap, of its row's first tap and of its pixel's first tap. Returns the address to read at."""
        tap, row, pixel = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        x, pixel_x, y = Signal.like(walk.x), Signal.like(walk.x), Signal.like(walk.y)
        base, step = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        base_x, step_x = Signal.like(x), Signal.like(walk.stride_x)
        with m.Switch(level):
            with m.Case(Level.TAP):
                m.d.comb += [base.eq(tap), step.eq(walk.tap_step), base_x.eq(x), step_x.eq(walk.dilation_x)]
            with m.Case(Level.ROW):
                m.d.comb += [base.eq(row), step.eq(walk.row_step), base_x.eq(pixel_x)]
            with m.Case(Level.PIXEL):
                m.d.comb += [base.eq(pixel), step.eq(walk.pixel_step), base_x.eq(pixel_x), step_x.eq(walk.stride_x)]
            with m.Case(Level.WALK):
                m.d.comb += [base.eq(walk.address), base_x.eq(walk.x)]
        begins_pixel = (level == Level.PIXEL) | (level == Level.WALK)
        with m.If(enable):
            m.d.sync += [tap.eq(base + step), x.eq(base_x + step_x)]
            with m.If(level != Level.TAP):
                m.d.sync += [row.eq(base + step), y.eq(Mux(begins_pixel, walk.y, y + walk.dilation_y))]
            with m.If(begins_pixel):
                m.d.sync += [pixel.eq(base + step), pixel_x.eq(base_x + step_x)]
        # A negative coordinate is a large one.
        inside = (x.as_unsigned() < walk.width) & (y.as_unsigned() < walk.height)
        return Mux(walk.windows & ~inside, walk.padding, tap)
