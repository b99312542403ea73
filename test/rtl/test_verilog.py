"""What Amaranth simulates is what Verilog says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from qcc.runtime.fpga.rtl.accelerator import Accelerator
from qcc.runtime.fpga.rtl.verilog import write_verilog
from test.rtl import programs

_ASSIGNMENT = re.compile(r"\s*(\\\S+|\w+)\s*(?:\[[^\]]*\])?\s*=\s*(.*);")


def self_reading(verilog: str) -> list[str]:
    """Lines of combinational processes that read a vector of which the process drives another part: it does not wake up for that."""
    found: list[str] = []
    for module in verilog.split("\nendmodule"):
        for block in re.findall(r"always @\*(?: begin\n.*?\n  end|\n[^\n]*)\n", module, flags=re.S):
            assignments = [(line, _ASSIGNMENT.match(line)) for line in block.split("\n")]
            driven = {match.group(1) for _, match in assignments if match}
            for line, match in assignments:
                read = match.group(2) if match else line
                found += [line.strip() for name in driven if re.search(re.escape(name) + r"(?![\w$])", read)]
    return found


class _SelfReading(wiring.Component):
    def __init__(self) -> None:
        super().__init__({"i": In(8), "o": Out(data.StructLayout({"a": 1, "b": 8}))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.o.a.eq(self.i[0])
        with m.If(self.o.a):
            m.d.comb += self.o.b.eq(self.i)
        return m


def test_a_process_that_reads_what_it_drives_is_found(tmp_path: Path) -> None:
    assert self_reading(write_verilog(_SelfReading(), "top", tmp_path).read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SMALL", "FLAGS"])
def test_no_process_reads_what_it_drives(name: str, tmp_path: Path) -> None:
    assert not self_reading(write_verilog(Accelerator(getattr(programs, name)), "top", tmp_path).read_text())
