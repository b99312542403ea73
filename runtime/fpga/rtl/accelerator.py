"""The accelerator: four units, their buffers, and the memory they share."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.isa import UNITS
from qcc.runtime.fpga.rtl import interfaces
from qcc.runtime.fpga.rtl.arbiter import Arbiter
from qcc.runtime.fpga.rtl.buffers import LoadedBanks, OutputBanks, Parameters, WeightLines
from qcc.runtime.fpga.rtl.execute import Execute
from qcc.runtime.fpga.rtl.fetch import Fetch
from qcc.runtime.fpga.rtl.interfaces import ADDRESS_BITS
from qcc.runtime.fpga.rtl.limits import check
from qcc.runtime.fpga.rtl.load import Load
from qcc.runtime.fpga.rtl.post import Post
from qcc.runtime.fpga.rtl.sequencer import Sequencer
from qcc.runtime.fpga.rtl.store import Store


class Accelerator(wiring.Component):
    """`start` pulses to run the program at word `program` of memory; `finished` is high from its end to the next start.

    Raises QccError for a configuration that `limits.check` refuses.
    """

    def __init__(self, configuration: Configuration) -> None:
        check(configuration)
        c = self.configuration = configuration
        self.units = (Load(c), Execute(c), Post(c), Store(c))  # in the order of isa.UNITS
        super().__init__({"memory": Out(interfaces.memory(c.word_bits)), "program": In(ADDRESS_BITS), "start": In(1), "finished": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m, c = Module(), self.configuration
        load, execute, post, store = self.units
        for name, unit in zip(UNITS, self.units, strict=True):
            m.submodules[name] = unit
        m.submodules.fetch = fetch = Fetch(c)
        m.submodules.arbiter = arbiter = Arbiter(c)
        m.d.comb += [fetch.start.eq(self.start), store.start.eq(self.start), fetch.program.eq(self.program)]
        m.d.comb += self.finished.eq(store.finished & arbiter.idle)

        sequencers = [Sequencer(c, name) for name in UNITS]
        for name, unit, sequencer in zip(UNITS, self.units, sequencers, strict=True):
            m.submodules[f"{name}_sequencer"] = sequencer
            wiring.connect(m, getattr(fetch, name), sequencer.fetched)
            wiring.connect(m, sequencer.instructions, unit.instructions)
            m.d.comb += sequencer.done.eq(unit.done)
            m.d.comb += sequencer.token_in.eq(Cat(other.token_out[UNITS.index(name)] for other in sequencers))

        m.submodules.lines = lines = WeightLines(c)
        m.submodules.activations = activations = LoadedBanks(c, c.activation_words)
        m.submodules.residuals = residuals = LoadedBanks(c, c.residual_words)
        m.submodules.parameters = parameters = Parameters(c)
        m.submodules.outputs = outputs = OutputBanks(c)
        for left, right in (
            (load.lines, lines.write),
            (load.activations, activations.write),
            (load.residuals, residuals.write),
            (load.parameters, parameters.write),
            (execute.tags, lines.tags),
            (execute.lines, lines.read),
            (execute.activations, activations.read),
            (execute.tiles, post.tiles),
            (post.parameters, parameters.read),
            (post.residuals, residuals.read),
            (post.output_read, outputs.post_read),
            (post.output_write, outputs.write),
            (store.outputs, outputs.store_read),
            (fetch.reader, arbiter.fetch),
            (load.reader, arbiter.load),
            (store.writer, arbiter.store),
            (arbiter.memory, wiring.flipped(self.memory)),
        ):
            wiring.connect(m, left, right)
        return m
