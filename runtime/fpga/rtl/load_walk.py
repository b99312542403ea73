"""The addresses that a load reads, one per cycle.

Every load is a *walk*: for each pixel, for each row of its window, for each tap of the row, a run of words. Weights and parameters are one
run. There is no multiplication: a tap, a row, a pixel begin where the one before began, plus a step. Four stages: count; add steps to
addresses and coordinates; choose between a tap and the padding; count the words of a run.
"""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, enum, fifo, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from qcc.runtime.fpga.rtl.interfaces import ADDRESS_BITS, instruction

_GEOMETRY, _LAYOUT = instruction("load_geometry"), instruction("load_layout")
_STEP_BITS = 24  # 8 bits of dilation or stride times 16 of a pixel's words
_COORDINATE_BITS = 22  # the column of a tile's last tap: 20 bits, 12 bits of pixels times 8 of stride and 8 of taps times 8 of dilation
WORDS_PER_FLAGS = 8  # a flag stands for a byte, so a word of flags for eight words
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
        "short": 1,  # runs are of one word
        "count": instruction("load_activations")["count"].width,
        "coded": 1,  # runs are of flags; `last_words` is MARKS.words of the last of them
        "last_words": exact_log2(WORDS_PER_FLAGS),
        "windows": 1,  # taps may lie outside the image; otherwise they have no coordinates
        "x": signed(_COORDINATE_BITS),
        "y": signed(_COORDINATE_BITS),
        **_of(_GEOMETRY, "height", "width", "kernel_y", "kernel_x", "dilation_y", "dilation_x", "stride_x"),
    }
)
"""No run, kernel or count is 0."""

ENDS = data.StructLayout({"pixel": 1, "all": 1})
"""What a word is the last of."""
MARKS = data.StructLayout({"coded": 1, "words": exact_log2(WORDS_PER_FLAGS), "run": 1, "ends": ENDS})
"""A word that is read: `coded` if it is flags, of one more than `words` words; `run` if it ends one; and what its last word ends."""
REQUEST = data.StructLayout({"address": ADDRESS_BITS, "marks": MARKS})


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
        begins, level, marks = self._count(m, walk, counting, advance)

        added_begins, added_marks = Signal(), Signal(MARKS)
        with m.If(advance):
            m.d.sync += [adding.eq(counting), added_begins.eq(begins), added_marks.eq(marks)]
        source = self._add(m, walk, level, counting & begins & advance)

        chosen, chosen_begins, chosen_source, chosen_marks = Signal(), Signal(), Signal(ADDRESS_BITS), Signal(MARKS)
        valid, address, out_marks = Signal(), Signal(ADDRESS_BITS), Signal(MARKS)
        with m.If(advance):
            m.d.sync += [chosen.eq(adding), chosen_begins.eq(added_begins), chosen_source.eq(source), chosen_marks.eq(added_marks)]
            m.d.sync += [valid.eq(chosen), out_marks.eq(chosen_marks)]
            with m.If(chosen):
                m.d.sync += address.eq(Mux(chosen_begins, chosen_source, address + 1))

        m.d.comb += [requests.w_en.eq(valid & advance), requests.w_data.eq(Cat(address, out_marks))]
        return m

    def _count(self, m: Module, walk: data.View, counting: Signal, advance: Signal) -> tuple[Signal, Signal, data.View]:
        """The loops. Returns whether a tap begins with the word, what begins with the tap, and the word's marks."""
        first, begin, step = self.walks.payload, self.walks.valid & self.walks.ready, counting & advance
        begins, level, marks = Signal(), Signal(Level), Signal(MARKS)
        ends, inner = [], C(1)  # of each loop and those inside it
        for limit in ("run", "kernel_x", "kernel_y", "count"):
            left, last = Signal.like(walk[limit], name=f"{limit}_left"), Signal(name=f"{limit}_last")  # the current one included
            short = limit == "run"  # too long a number to compare it here
            with m.If(begin):
                m.d.sync += [left.eq(first[limit]), last.eq(first.short if short else first[limit] == 1)]
            with m.Elif(step & inner):
                m.d.sync += [left.eq(left - 1), last.eq(left == 2)]
                with m.If(last):
                    m.d.sync += [left.eq(walk[limit]), last.eq(walk.short if short else walk[limit] == 1)]
            inner = inner & last
            ends.append(inner)
        run_ends, row_ends, pixel_ends, all_end = ends

        with m.If(begin):
            m.d.sync += [counting.eq(1), begins.eq(1), level.eq(Level.WALK)]
        with m.Elif(step):
            m.d.sync += [
                counting.eq(~all_end),
                begins.eq(run_ends),
                level.eq(Mux(pixel_ends, Level.PIXEL, Mux(row_ends, Level.ROW, Level.TAP))),
            ]
        m.d.comb += [
            marks.coded.eq(walk.coded),
            marks.run.eq(run_ends),
            marks.words.eq(Mux(run_ends, walk.last_words, Mux(walk.coded, WORDS_PER_FLAGS - 1, 0))),
            marks.ends.pixel.eq(pixel_ends),
            marks.ends.all.eq(all_end),
        ]
        return begins, level, marks

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
