"""Drives the compute side of the RTL (array, post unit) beside the functional simulator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.encoder import Word, encode
from qcc.runtime.fpga.machine import Machine
from qcc.runtime.fpga.rtl.buffers import LoadedBanks, OutputBanks, Parameters, WeightLines
from qcc.runtime.fpga.rtl.execute import Execute
from qcc.runtime.fpga.rtl.post import Post
from test.rtl.bench import integer


class Bench:
    """The compute side with the buffers of `machine` [words as it holds them]; instructions come without tokens."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        c: Configuration = machine.configuration
        m = Module()
        m.submodules.execute = self.execute = Execute(c)
        m.submodules.post = self.post = Post(c)
        m.submodules.lines = self.lines = WeightLines(c)
        m.submodules.activations = self.activations = LoadedBanks(c, c.activation_words)
        m.submodules.residuals = self.residuals = LoadedBanks(c, c.residual_words)
        m.submodules.parameters = self.parameters = Parameters(c)
        m.submodules.outputs = self.outputs = OutputBanks(c)
        for left, right in (
            (self.execute.tags, self.lines.tags),
            (self.execute.lines, self.lines.read),
            (self.execute.activations, self.activations.read),
            (self.execute.tiles, self.post.tiles),
            (self.post.parameters, self.parameters.read),
            (self.post.residuals, self.residuals.read),
            (self.post.output_read, self.outputs.post_read),
            (self.post.output_write, self.outputs.write),
        ):
            wiring.connect(m, left, right)
        self.module = m

    def run(self, words: Sequence[Word]) -> int:
        """Cycles until all instructions are done; outputs replace the machine's."""
        machine, c, cycles = self.machine, self.machine.configuration, 0

        async def fill(context) -> None:  # type: ignore[no-untyped-def]
            port = self.lines.write
            context.set(port.enable, 1)
            for line in range(c.weight_lines):
                tag = (machine.line_plane[line], machine.line_index[line], machine.line_last[line])
                context.set(port.address, line)
                context.set(port.tag, dict(zip(("plane", "index", "last"), map(int, tag), strict=True)))
                for row in range(c.rows):
                    context.set(port.row, row)
                    context.set(port.data, integer(machine.lines[line, row]))
                    await context.tick()
            context.set(port.enable, 0)
            for banks, values in ((self.activations, machine.activations), (self.residuals, machine.residuals)):
                context.set(banks.write.enable, 1)
                for (bank, address), word in ((place, values[place]) for place in np.ndindex(*values.shape[:2])):
                    context.set(banks.write.bank, bank)
                    context.set(banks.write.address, address)
                    context.set(banks.write.data, integer(word))
                    await context.tick()
                context.set(banks.write.enable, 0)
            context.set(self.parameters.write.enable, 1)
            for entry, values in enumerate(machine.parameters):
                context.set(self.parameters.write.address, entry)
                context.set(self.parameters.write.data, dict(zip(("bias", "multiplier", "shift"), map(int, values), strict=True)))
                await context.tick()
            context.set(self.parameters.write.enable, 0)

        async def main(context) -> None:  # type: ignore[no-untyped-def]
            nonlocal cycles
            await fill(context)
            left = [[w for w in words if w.row.unit == unit] for unit in ("execute", "post")]
            waiting = [len(queue) for queue in left]
            while any(waiting):
                for queue, unit in zip(left, (self.execute, self.post), strict=True):
                    context.set(unit.instructions.valid, bool(queue))
                    if queue:
                        context.set(unit.instructions.payload, int.from_bytes(encode(queue[0]), "little"))
                ready = [context.get(unit.instructions.ready) for unit in (self.execute, self.post)]
                done = [context.get(unit.done) for unit in (self.execute, self.post)]
                await context.tick()
                cycles += 1
                assert cycles < 100_000, "the units do not finish"
                waiting = [n - d for n, d in zip(waiting, done, strict=True)]
                for queue, taken in zip(left, ready, strict=True):
                    if queue and taken:
                        queue.pop(0)
            for address in range(c.output_words):
                context.set(self.outputs.store_read.address, address)
                await context.tick().repeat(3)
                for bank in range(c.columns):
                    word = context.get(self.outputs.store_read.data[bank])
                    machine.outputs[bank, address] = np.frombuffer(word.to_bytes(c.word_bytes, "little"), np.uint8)

        simulator = Simulator(self.module)
        simulator.add_clock(1e-6)
        simulator.add_testbench(main)
        simulator.run()
        return cycles
