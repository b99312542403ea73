"""Weight lines: from words as DRAM has them to rows of lines with their tags."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.dialects.bitplanes import COUNT_BITS, INDEX_BITS, LAST_BITS, PLANE_BITS
from qcc.runtime.fpga.rtl.interfaces import TAG, line_write
from qcc.runtime.fpga.rtl.load_setup import destination

_HEADER = data.StructLayout({"index": INDEX_BITS, "plane": PLANE_BITS, "last": LAST_BITS, "count": COUNT_BITS})
"""In front of a run: its first line's place, whether its end ends the tile, and its lines (bitplanes.run_header)."""


class Lines(wiring.Component):
    """Words of load_weights in, one per cycle where `valid`; the write follows a cycle later.

    `begin` pulses a cycle or more before the first word, with what the instruction says in `destination`.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._rows = configuration.rows
        super().__init__(
            {
                "begin": In(1),
                "destination": In(destination(configuration)),
                "valid": In(1),
                "word": In(configuration.word_bits),
                "write": Out(line_write(configuration)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        write, begin = self.write, self.destination
        coding = Signal(destination_coding := data.StructLayout({"last_index": INDEX_BITS, "last_plane": PLANE_BITS, "runs": 1}))
        line, row, tag = Signal.like(write.address), Signal(range(self._rows)), Signal(TAG)
        left, run_ends_tile = Signal(COUNT_BITS), Signal()  # of a run
        header = data.View(_HEADER, self.word[: _HEADER.size])

        index_ends = tag.index == coding.last_index
        ends_tile = Mux(coding.runs, run_ends_tile & (left == 1), index_ends & (tag.plane == coding.last_plane))
        m.d.sync += write.enable.eq(0)
        with m.If(self.valid & coding.runs & (left == 0)):
            m.d.sync += [tag.index.eq(header.index), tag.plane.eq(header.plane), run_ends_tile.eq(header.last), left.eq(header.count)]
        with m.Elif(self.valid):
            m.d.sync += [
                write.enable.eq(1),
                write.row.eq(row),
                write.address.eq(line),
                write.data.eq(self.word),
                write.tag.index.eq(tag.index),
                write.tag.plane.eq(tag.plane),
                write.tag.last.eq(ends_tile),
                row.eq(row + 1),
            ]
            with m.If(row == self._rows - 1):
                m.d.sync += [row.eq(0), line.eq(line + 1), left.eq(left - 1)]
                m.d.sync += [tag.index.eq(Mux(index_ends, 0, tag.index + 1)), tag.plane.eq(tag.plane + index_ends)]
                with m.If(~coding.runs & ends_tile):
                    m.d.sync += tag.plane.eq(0)
        with m.If(self.begin):
            m.d.sync += [coding[name].eq(begin[name]) for name in destination_coding.members]
            m.d.sync += [line.eq(begin.address), row.eq(0), left.eq(0), tag.index.eq(0), tag.plane.eq(0)]
        return m
