"""The block RAMs between the units."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.rtl import interfaces
from qcc.runtime.fpga.rtl.interfaces import PARAMETER, TAG


def _read(m: Module, memory: Memory, address: Any, enable: Any = 1) -> Any:
    """What `memory` has at `address`, `interfaces.READ_LATENCY` cycles later in which `enable` is on."""
    port = memory.read_port()
    found = Signal.like(port.data, reset_less=True)
    m.d.comb += [port.addr.eq(address), port.en.eq(enable)]
    with m.If(enable):
        m.d.sync += found.eq(port.data)
    return found


def _write(m: Module, memory: Memory, enable: Any, address: Any, value: Any) -> None:
    port = memory.write_port()
    m.d.comb += [port.en.eq(enable), port.addr.eq(address), port.data.eq(value)]


class LoadedBanks(wiring.Component):
    """C banks that load fills word by word: activations, residuals."""

    def __init__(self, c: Configuration, depth: int) -> None:
        self.configuration, self.depth = c, depth
        super().__init__({"write": In(interfaces.bank_write(c)), "read": In(interfaces.bank_read(c))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for bank in range(self.configuration.columns):
            m.submodules[f"bank_{bank}"] = memory = Memory(shape=self.configuration.word_bits, depth=self.depth, init=[])
            _write(m, memory, self.write.enable & (self.write.bank == bank), self.write.address, self.write.data)
            m.d.comb += self.read.data[bank].eq(_read(m, memory, self.read.address))
        return m


class OutputBanks(wiring.Component):
    """C banks that post writes side by side, and reads again to add channels to a word; store reads them, too."""

    def __init__(self, c: Configuration) -> None:
        self.configuration = c
        bank_read = interfaces.bank_read(c)
        super().__init__({"write": In(interfaces.banks_write(c)), "post_read": In(bank_read), "store_read": In(bank_read)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for bank in range(self.configuration.columns):
            m.submodules[f"bank_{bank}"] = memory = Memory(
                shape=self.configuration.word_bits, depth=self.configuration.output_words, init=[]
            )
            _write(m, memory, self.write.enable, self.write.address, self.write.data[bank])
            for read in (self.post_read, self.store_read):
                m.d.comb += read.data[bank].eq(_read(m, memory, read.address))
        return m


class WeightLines(wiring.Component):
    """Lines of R words, each row a memory of its own, and their tags."""

    def __init__(self, c: Configuration) -> None:
        self.configuration = c
        write, read, tags = interfaces.line_write(c), interfaces.line_read(c), interfaces.tag_read()
        super().__init__({"write": In(write), "read": In(read), "tags": In(tags)})

    def elaborate(self, platform: Any) -> Module:
        m, c, write = Module(), self.configuration, self.write
        for row in range(c.rows):
            m.submodules[f"row_{row}"] = memory = Memory(shape=c.word_bits, depth=c.weight_lines, init=[])
            _write(m, memory, write.enable & (write.row == row), write.address, write.data)
            m.d.comb += self.read.data[row].eq(_read(m, memory, self.read.address))
        m.submodules.tag = memory = Memory(shape=TAG, depth=c.weight_lines, init=[])
        _write(m, memory, write.enable & (write.row == c.rows - 1), write.address, write.tag)
        m.d.comb += self.tags.data.eq(_read(m, memory, self.tags.address, self.tags.enable))
        return m


class Parameters(wiring.Component):
    """Bias, multiplier and shift per output channel."""

    def __init__(self, c: Configuration) -> None:
        self.configuration = c
        super().__init__({"write": In(interfaces.parameter_write()), "read": In(interfaces.parameter_read())})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=PARAMETER, depth=self.configuration.parameter_entries, init=[])
        _write(m, memory, self.write.enable, self.write.address, self.write.data)
        m.d.comb += self.read.data.eq(_read(m, memory, self.read.address))
        return m
