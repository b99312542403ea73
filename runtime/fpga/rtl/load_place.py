"""Words from DRAM to their places on chip, one per cycle, and the ends of load instructions."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.isa import PARAMETER_BYTES
from qcc.runtime.fpga.rtl.interfaces import PARAMETER, bank_write, line_write, parameter_write
from qcc.runtime.fpga.rtl.load_lines import Lines
from qcc.runtime.fpga.rtl.load_setup import Kind, destination
from qcc.runtime.fpga.rtl.load_words import word_of

_ENTRY = data.StructLayout({"bias": 32, "multiplier": 32, "shift": 32, "zero": 32})
assert _ENTRY.size == 8 * PARAMETER_BYTES


class Place(wiring.Component):
    """Words and the destinations of their instructions in; writes to buffers out, a cycle later. `done` follows in the cycle behind."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        super().__init__(
            {
                "destinations": In(stream.Signature(destination(configuration))),
                "words": In(stream.Signature(word_of(configuration))),
                "activations": Out(bank_write(configuration)),
                "residuals": Out(bank_write(configuration)),
                "lines": Out(line_write(configuration)),
                "parameters": Out(parameter_write()),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kind, busy, nothing, begin, ended = Signal(Kind), Signal(), Signal(), Signal(), Signal()
        word = self.words.payload
        m.d.comb += [
            ended.eq(nothing | (self.words.ready & self.words.valid & word.ends.all)),
            self.destinations.ready.eq(~busy | ended),
            begin.eq(self.destinations.valid & self.destinations.ready),
        ]
        with m.If(self.destinations.ready):
            nothing_next = self.destinations.payload.kind == Kind.NOTHING
            m.d.sync += [busy.eq(self.destinations.valid), kind.eq(self.destinations.payload.kind)]
            m.d.sync += [nothing.eq(self.destinations.valid & nothing_next), self.words.ready.eq(begin & (~nothing_next))]
        written = Signal()
        m.d.sync += [written.eq(ended), self.done.eq(written)]

        self._pixels(m, kind, begin)
        self._lines(m, kind, begin)
        self._parameters(m, kind, begin)
        return m

    def _valid(self, kind: Signal, which: Kind) -> Signal:
        return self.words.valid & self.words.ready & (kind == which)

    def _pixels(self, m: Module, kind: Signal, begin: Signal) -> None:
        """Words of a pixel to consecutive addresses of its bank; pixels from bank to bank; groups of C pixels `stride` apart."""
        c, first, word = self._configuration, self.destinations.payload, self.words.payload
        address, group, stride, bank = (
            Signal.like(first.address),
            Signal.like(first.address),
            Signal.like(first.stride),
            Signal.like(first.bank),
        )
        for port, which in ((self.activations, Kind.ACTIVATIONS), (self.residuals, Kind.RESIDUAL)):
            m.d.sync += [port.enable.eq(self._valid(kind, which)), port.bank.eq(bank), port.address.eq(address), port.data.eq(word.data)]
        with m.If(begin):
            m.d.sync += [address.eq(first.address), group.eq(first.address), bank.eq(first.bank), stride.eq(first.stride)]
        with m.Elif(self.words.valid & self.words.ready):
            m.d.sync += address.eq(address + 1)
            with m.If(word.ends.pixel):
                m.d.sync += [address.eq(group), bank.eq(bank + 1)]
                with m.If(bank == c.columns - 1):
                    m.d.sync += [address.eq(group + stride), group.eq(group + stride), bank.eq(0)]

    def _lines(self, m: Module, kind: Signal, begin: Signal) -> None:
        m.submodules.lines = lines = Lines(self._configuration)
        wiring.connect(m, lines.write, wiring.flipped(self.lines))
        m.d.comb += [
            lines.begin.eq(begin),
            lines.destination.eq(self.destinations.payload),
            lines.valid.eq(self._valid(kind, Kind.LINES)),
            lines.word.eq(self.words.payload.data),
        ]

    def _parameters(self, m: Module, kind: Signal, begin: Signal) -> None:
        """An entry is complete with its last word."""
        out, valid = self.parameters, self._valid(kind, Kind.PARAMETERS)
        parts = 8 * PARAMETER_BYTES // self._configuration.word_bits
        entry, part = Signal(_ENTRY), Signal(range(parts))
        whole = data.View(_ENTRY, Cat(entry.as_value(), self.words.payload.data)[-_ENTRY.size :])
        address = Signal.like(out.address)
        complete = valid & (part == parts - 1)
        m.d.sync += [out.enable.eq(complete), out.address.eq(address)]
        m.d.sync += [out.data[name].eq(whole[name]) for name in PARAMETER.members]
        with m.If(valid):
            m.d.sync += [entry.eq(whole), part.eq(part + 1), address.eq(address + complete)]
        with m.If(begin):
            m.d.sync += [address.eq(self.destinations.payload.address), part.eq(0)]
