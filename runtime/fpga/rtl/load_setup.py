"""From a load instruction to a walk through DRAM and a place on chip.

All products are made here, a few cycles before the walk begins and mostly while the one before still goes on: two multipliers, one for
rows and one for pixels of a row, take the window's place, then the step between taps, then the step between pixels.
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from qcc.dialects.accelerator import Configuration
from qcc.dialects.bitplanes import INDEX_BITS, PLANE_BITS
from qcc.runtime.fpga.isa import ACTIVATION_CODINGS, BY_NAME, CODINGS, PARAMETER_BYTES
from qcc.runtime.fpga.rtl.interfaces import ADDRESS_BITS, BUFFER_BITS, INSTRUCTION_BITS, instruction
from qcc.runtime.fpga.rtl.load_walk import WALK, WORDS_PER_FLAGS

_ACTIVATIONS = instruction("load_activations")
_FIRST_BITS = _ACTIVATIONS["first"].width
# One look at an instruction is enough for its DRAM address, its buffer address and its first pixel: they are in the same bits of all.
for _name, _buffer in (("load_residual", "residual"), ("load_weights", "line"), ("load_parameters", "parameter")):
    assert instruction(_name)["address"] == _ACTIVATIONS["address"] and instruction(_name)[_buffer] == _ACTIVATIONS["activation"]
assert instruction("load_residual")["first"] == _ACTIVATIONS["first"]
# Cycles from an instruction to its walk. What is computed in each, of load_activations:
_OPERANDS = 0  # the window's place to the multipliers
_TAP_OPERANDS = 1  # steps between taps
_PIXEL_OPERANDS = 2  # step between pixels
_PLACE = 3  # the place's products are there
_STEPS = 4
_PIXEL_STEP = 5
_READY = 6


class Kind(enum.Enum, shape=3):
    """Where words go."""

    NOTHING = 0  # an instruction that reads nothing
    ACTIVATIONS = 1
    RESIDUAL = 2
    LINES = 3
    PARAMETERS = 4


_KINDS = {
    "load_activations": Kind.ACTIVATIONS,
    "load_residual": Kind.RESIDUAL,
    "load_weights": Kind.LINES,
    "load_parameters": Kind.PARAMETERS,
}


def destination(c: Configuration) -> data.StructLayout:
    """Where the words of a walk go: of pixels their banks, of lines how to count them."""
    return data.StructLayout(
        {
            "kind": Kind,
            "address": BUFFER_BITS,
            "bank": range(c.columns),
            "stride": BUFFER_BITS,  # from one group of pixels to the next
            "last_index": INDEX_BITS,
            "last_plane": PLANE_BITS,
            "runs": 1,
        }
    )


class Setup(wiring.Component):
    """Load instructions in; for each of them a destination, and a walk unless its kind is NOTHING."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        super().__init__(
            {
                "instructions": In(stream.Signature(INSTRUCTION_BITS)),
                "walks": Out(stream.Signature(WALK)),
                "destinations": Out(stream.Signature(destination(configuration))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word = self.instructions.payload
        load = {name: data.View(instruction(name), word) for name, row in BY_NAME.items() if row.unit == "load"}
        opcode = load["load_geometry"].opcode
        is_a = {name: opcode == BY_NAME[name].opcode for name in load}
        geometry, layout = Signal(instruction("load_geometry")), Signal(instruction("load_layout"))

        phase, nothing = Signal(range(_READY + 1)), Signal()
        m.d.comb += self.walks.valid.eq((phase == _READY) & ~nothing)
        m.d.comb += self.instructions.ready.eq((phase == _READY) & (self.walks.ready | nothing))
        with m.If(self.instructions.ready):
            m.d.sync += phase.eq(0)
        with m.Elif(self.instructions.valid & self.destinations.ready & (phase != _READY)):  # ready it stays until it has one
            m.d.sync += phase.eq(phase + 1)
            with m.If((phase == _OPERANDS) & (opcode != BY_NAME["load_activations"].opcode)):
                m.d.sync += phase.eq(_STEPS)  # no products to wait for
            for name, register in (("load_geometry", geometry), ("load_layout", layout)):
                with m.If(is_a[name]):
                    m.d.sync += [register.eq(word), phase.eq(_READY)]

        empty = self._walk(m, load, is_a, geometry, layout, phase)
        m.d.sync += nothing.eq(empty | is_a["load_geometry"] | is_a["load_layout"])
        self._destination(m, load, is_a, layout)
        with m.If(~nothing):
            for name, kind in _KINDS.items():
                with m.If(is_a[name]):
                    m.d.comb += self.destinations.payload.kind.eq(kind)
        return m

    def _walk(self, m: Module, load: dict, is_a: dict, geometry: data.View, layout: data.View, phase: Signal) -> Signal:
        """Everything of the walk. Returns whether it has no words."""
        walk = self.walks.payload
        windows, residual = is_a["load_activations"], is_a["load_residual"]
        pixels = load["load_activations"]
        m.d.comb += [walk[name].eq(geometry[name]) for name in ("height", "width", "dilation_y", "dilation_x", "stride_x")]
        m.d.comb += [
            walk.padding.eq(layout.padding),
            walk.windows.eq(windows),
            walk.x.eq(pixels.x),
            walk.y.eq(pixels.y),
            walk.kernel_x.eq(Mux(windows, geometry.kernel_x, 1)),
            walk.kernel_y.eq(Mux(windows, geometry.kernel_y, 1)),
        ]
        run, count = Signal.like(walk.run), Signal.like(walk.count, init=1)
        with m.If(windows):
            m.d.comb += [run.eq(geometry.run_words), count.eq(pixels.count)]
        with m.Elif(residual):
            m.d.comb += [run.eq(load["load_residual"].run_words), count.eq(load["load_residual"].count)]
        with m.Elif(is_a["load_weights"]):
            m.d.comb += [run.eq(load["load_weights"].size_words), count.eq(1)]
        with m.Else():
            entry = PARAMETER_BYTES // self._configuration.word_bytes
            m.d.comb += [run.eq(load["load_parameters"].count * entry), count.eq(1)]
        reads, coded = Signal.like(walk.run), Signal()  # words of a run that the walk asks for
        m.d.comb += [reads.eq(run), walk.run.eq(reads), walk.count.eq(count), walk.coded.eq(coded)]
        m.d.sync += walk.short.eq(reads == 1)
        if self._configuration.activation_codings > ACTIVATION_CODINGS.index("flags"):
            coding = Mux(windows, layout.coding, load["load_residual"].coding)
            m.d.comb += coded.eq((windows | residual) & (coding == ACTIVATION_CODINGS.index("flags")))
            with m.If(coded):  # only flags; the rest follows when they are known
                m.d.comb += walk.last_words.eq(run - 1)
                m.d.comb += reads.eq((run[: len(geometry.run_words)] + (WORDS_PER_FLAGS - 1)) >> exact_log2(WORDS_PER_FLAGS))

        y, x, place = Signal.like(pixels.y), Signal.like(pixels.x), Signal(ADDRESS_BITS)
        with m.Switch(phase):
            with m.Case(_OPERANDS):
                m.d.sync += [y.eq(pixels.y), x.eq(pixels.x), place.eq(0)]
            with m.Case(_TAP_OPERANDS):
                m.d.sync += [y.eq(geometry.dilation_y), x.eq(geometry.dilation_x)]
            with m.Case(_PIXEL_OPERANDS):
                m.d.sync += x.eq(geometry.stride_x)
        rows, columns = _product(m, y, layout.row_words), _product(m, layout.pixel_words, x)

        with m.Switch(phase):
            with m.Case(_PLACE):
                m.d.sync += place.eq(rows + columns)
            with m.Case(_STEPS):
                m.d.sync += [walk.address.eq(place + pixels.address), walk.row_step.eq(rows), walk.tap_step.eq(columns)]
            with m.Case(_PIXEL_STEP):
                m.d.sync += walk.pixel_step.eq(Mux(residual, load["load_residual"].pixel_words, columns))
        return (run == 0) | (count == 0) | (walk.kernel_x == 0) | (walk.kernel_y == 0)

    def _destination(self, m: Module, load: dict, is_a: dict, layout: data.View) -> None:
        """Pixel `first` goes to bank first mod C of group first div C; the quotient is a product with a rounded 1 / C."""
        c, out = self._configuration, self.destinations.payload
        pixels, residual, lines = load["load_activations"], load["load_residual"], load["load_weights"]
        shift = _FIRST_BITS + c.columns.bit_length()
        reciprocal = -(-(1 << shift) // c.columns)  # the error stays below 1 / C for quotients of _FIRST_BITS bits
        group, offset = Signal(_FIRST_BITS), Signal(BUFFER_BITS)
        m.d.sync += [
            out.stride.eq(Mux(is_a["load_activations"], layout.vector_words, residual.run_words)),
            group.eq((pixels.first * reciprocal) >> shift),
            offset.eq(group * out.stride),
            out.bank.eq(pixels.first - group * c.columns),
            out.address.eq(pixels.activation + Mux(is_a["load_activations"] | is_a["load_residual"], offset, 0)),
            out.last_index.eq(lines.words - 1),
            out.last_plane.eq(lines.planes - 1),
        ]
        m.d.comb += [
            out.runs.eq(lines.coding == CODINGS.index("runs")),
            self.destinations.valid.eq(self.instructions.ready),
        ]


def _product(m: Module, factor: Signal, wide: Signal) -> Signal:
    """factor * wide, two cycles later; in two halves, because the device multiplies 18 bits by 18."""
    half = len(wide) // 2
    high = wide[half:].as_signed() if wide.shape().signed else wide[half:]
    low_product, high_product, product = (Signal(signed(ADDRESS_BITS)) for _ in range(3))
    m.d.sync += [low_product.eq(factor * wide[:half]), high_product.eq(factor * high)]
    m.d.sync += product.eq(low_product + (high_product << half))
    return product
