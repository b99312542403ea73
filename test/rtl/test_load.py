"""Load puts into the buffers what machine.py does, one word per cycle."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from qcc.dialects import bitplanes, zero_flags
from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.isa import CODINGS, MAX_SHIFT, PARAMETER_BYTES
from qcc.runtime.fpga.machine import Machine
from qcc.runtime.fpga.rtl.load import Load
from test.rtl.bench import Memory, give, simulator
from test.tiers import slow_except

_IMAGE_WORDS = 1 << 16  # of DRAM, random; behind them parameters and weights
SHAPES = {
    "4x4x64": Configuration(activation_words=512, residual_words=128, weight_lines=64, parameter_entries=64),
    "2x3x32": Configuration(
        2, 3, 32, weight_lines=64, activation_words=512, residual_words=128, parameter_entries=64, bus_bytes_per_cycle=4
    ),
    "1x1x128": Configuration(
        1, 1, 128, weight_lines=64, activation_words=1024, residual_words=256, parameter_entries=64, bus_bytes_per_cycle=16
    ),
    "flags 4x4x64": Configuration(activation_words=512, residual_words=128, weight_lines=64, parameter_entries=64, activation_codings=2),
    "flags 2x3x32": Configuration(
        2,
        3,
        32,
        weight_lines=64,
        activation_words=512,
        residual_words=128,
        parameter_entries=64,
        bus_bytes_per_cycle=4,
        activation_codings=2,
    ),
    "flags 1x1x128": Configuration(
        1,
        1,
        128,
        weight_lines=64,
        activation_words=1024,
        residual_words=256,
        parameter_entries=64,
        bus_bytes_per_cycle=16,
        activation_codings=2,
    ),
    "8x5x64": Configuration(8, 5, 64, weight_lines=64, activation_words=512, residual_words=128, parameter_entries=64),
}
OVERHEAD = 20  # cycles of an instruction beyond its words and memory's latency


@dataclass
class Program:
    """Random load instructions for one machine, and the DRAM they read."""

    c: Configuration
    rng: random.Random
    words: list[Word] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.rng.randrange(1 << 32))
        c = self.c
        image = generator.integers(0, 256, (_IMAGE_WORDS, c.word_bytes), np.uint8)
        entries = generator.integers(-(1 << 31), 1 << 31, (c.parameter_entries, 4)).astype("<i4")
        entries[:, 2] = generator.integers(0, MAX_SHIFT + 1, c.parameter_entries)
        self.parts = [image, entries.view(np.uint8).reshape(-1, c.word_bytes)]
        self.size = sum(map(len, self.parts))

    @property
    def dram(self) -> np.ndarray:
        return np.concatenate(self.parts)

    def geometry(self, run_words: int | None = None, taps: int | None = None) -> None:
        """Half of the images are so wide that places in them need more than half of a multiplier's bits."""
        r = self.rng.randint
        coded = self.c.activation_codings > 1 and r(0, 2) > 0
        run = run_words or (self.rng.choice([1, 2, 7, 8, 9, 17]) if coded else r(1, 4))
        if coded and run > 4:
            taps = 1
        geometry = {
            "height": r(1, 8),
            "width": r(1, 8) if r(0, 1) else r(1100, 1200),
            "kernel_y": taps or r(1, 3),
            "kernel_x": taps or r(1, 3),
            "dilation_y": r(1, 3),
            "dilation_x": r(1, 3),
            "stride_x": r(1, 3),
            "run_words": run,
        }
        pixel = run + r(0, 3)
        if coded:
            geometry["width"] %= 10
            pixel = zero_flags.slot_words(run)
        self.image = self.slots(geometry["width"] * geometry["height"] + 1, run) if coded else None
        layout = {
            "padding": r(0, _IMAGE_WORDS - 4) if self.image is None else self.image,
            "pixel_words": pixel,
            "row_words": pixel * geometry["width"] + (0 if coded else r(0, 5)),
            "vector_words": run * geometry["kernel_y"] * geometry["kernel_x"] + r(0, 2),
            "coding": int(coded),
        }
        self.words += [Word("load_geometry", geometry), Word("load_layout", layout)]

    def slots(self, pixels: int, run: int) -> int:
        """Coded pixels with few or many zeros behind what is there; returns the address of the first."""
        generator, address = np.random.default_rng(self.rng.randrange(1 << 32)), self.size
        values = generator.integers(0, 256, (pixels, run, self.c.word_bytes), np.uint8)
        values *= generator.random(values.shape) < generator.choice([0, 0.1, 0.5, 1], (pixels, 1, 1))
        self.parts.append(zero_flags.code(values)[0].reshape(-1, self.c.word_bytes))
        self.size += len(self.parts[-1])
        return address

    def activations(self, count: int | None = None) -> None:
        r, c = self.rng.randint, self.c
        (geometry, layout), taps = self.words_of("load_geometry", "load_layout"), 0
        count = count or r(1, 2 * c.columns)
        first = r(0, 3 * c.columns)
        taps = (first + count - 1) // c.columns * layout["vector_words"] + layout["vector_words"]
        fields = {
            "address": r(0, _IMAGE_WORDS - 8 * layout["row_words"] - 8) if self.image is None else self.image + layout["pixel_words"],
            "activation": r(0, max(c.activation_words - taps, 0)),
            "first": first,
            "count": count,
            "y": r(-4, geometry["height"]),
            "x": r(-4, 4) if r(0, 1) else geometry["width"] - r(0, 4),
        }
        self.words.append(Word("load_activations", fields))

    def words_of(self, *names: str) -> list[Word]:
        return [next(w for w in reversed(self.words) if w.name == name) for name in names]

    def residual(self) -> None:
        r, c = self.rng.randint, self.c
        run, count, first = r(1, 5), r(1, 2 * c.columns), r(0, c.columns)
        groups = -(-(first + count) // c.columns)
        fields = {
            "address": r(0, _IMAGE_WORDS - 2 * count * run),
            "residual": r(0, c.residual_words - groups * run),
            "first": first,
            "count": count,
            "run_words": run,
            "pixel_words": self.rng.choice([0, run, 2 * run]),
            "coding": 0,
        }
        if self.c.activation_codings > 1 and r(0, 1):
            fields |= {"address": self.slots(count, run), "pixel_words": zero_flags.slot_words(run), "coding": 1}
        self.words.append(Word("load_residual", fields))

    def parameters(self) -> None:
        first, count = self.rng.randint(0, 20), self.rng.randint(1, 20)
        per = PARAMETER_BYTES // self.c.word_bytes
        self.words.append(
            Word("load_parameters", {"address": _IMAGE_WORDS + self.rng.randint(0, 20) * per, "parameter": first, "count": count})
        )

    def weights(self, coding: str | None = None) -> None:
        """Runs end anywhere; some go on in the next plane."""
        r, c = self.rng.randint, self.c
        tiles, planes, words, coding = r(1, 3), r(1, 3), r(1, 4), coding or self.rng.choice(CODINGS)
        lines = np.random.default_rng(r(0, 1 << 32)).integers(0, 256, (tiles, planes, words, c.rows, c.word_bytes), np.uint8)
        if coding == "runs":
            for place in np.ndindex(tiles, planes, words):
                lines[place] *= self.rng.random() < 0.6
        coded = (bitplanes.code_runs if coding == "runs" else bitplanes.code_raw)(lines)
        self.parts.append(np.frombuffer(coded, np.uint8).reshape(-1, c.word_bytes))
        fields = {
            "address": self.size,
            "line": r(0, c.weight_lines - tiles * planes * words),
            "tiles": tiles,
            "words": words,
            "planes": planes,
            "coding": CODINGS.index(coding),
            "size_words": len(self.parts[-1]),
        }
        self.size += len(self.parts[-1])
        self.words.append(Word("load_weights", fields))

    def random(self, length: int) -> None:
        self.geometry()
        kinds = (self.geometry, self.activations, self.activations, self.residual, self.parameters, self.weights)
        while len(self.words) < length:
            self.rng.choice(kinds)()


class Buffers:
    """What the RTL wrote, as Machine has it, and how many words of each instruction were there at its end."""

    def __init__(self, c: Configuration) -> None:
        self.machine = Machine(c, np.zeros((1, c.word_bytes), np.uint8))
        self.writes = 0
        self.writes_at_end: list[int] = []
        self.ends: list[int] = []

    async def process(self, ctx: Any, part: Load) -> None:
        m, cycle = self.machine, 0
        ports = {part.activations: m.activations, part.residuals: m.residuals}
        line, parameter = part.lines, part.parameters
        signals = [s for p in ports for s in (p.enable, p.bank, p.address, p.data)]
        signals += [
            line.enable,
            line.row,
            line.address,
            line.data,
            line.tag,
            parameter.enable,
            parameter.address,
            parameter.data,
            part.done,
        ]
        while True:
            sampled = (await ctx.tick().sample(*signals))[2:]
            if sampled[-1]:
                self.ends.append(cycle)
                self.writes_at_end.append(self.writes)
            for index, target in enumerate(ports.values()):
                enable, bank, address, word = sampled[4 * index : 4 * index + 4]
                if enable:
                    target[bank, address] = np.frombuffer(word.to_bytes(target.shape[2], "little"), np.uint8)
                    self.writes += 1
            enable, row, address, word, tag, parameter_enable, entry, values = sampled[8:-1]
            if enable:
                m.lines[address, row] = np.frombuffer(word.to_bytes(m.lines.shape[2], "little"), np.uint8)
                self.writes += 1
                if row == m.lines.shape[1] - 1:
                    m.line_plane[address], m.line_index[address], m.line_last[address] = tag.plane, tag.index, tag.last
            if parameter_enable:
                m.parameters[entry] = values.bias, values.multiplier, values.shift
                self.writes += 1
            cycle += 1


def _written(machine: Machine, word: Word) -> int:
    """Writes that the instruction makes, once `machine` has run it."""
    if word.name == "load_weights":
        return len(machine._decoded(word)[0]) * machine.configuration.rows
    return word["count"] if word.name == "load_parameters" else machine._raw_words(word) or 0


def _load(program: Program, gaps: float = 0.0, **memory: Any) -> tuple[Buffers, Memory]:
    """Run the program and compare all buffers, and at every end what must be there by then."""
    c, part = program.c, Load(program.c)
    machine, buffers, ram = Machine(c, program.dram), Buffers(c), Memory(program.dram, **memory)
    written, read = [], 0
    for word in program.words:
        machine.run(word)
        written.append(_written(machine, word))
        read += machine.moved_words(word) or 0
    sim = simulator(part)

    async def dram(ctx: Any) -> None:
        await ram.process(ctx, part.reader)

    async def watch(ctx: Any) -> None:
        await buffers.process(ctx, part)

    async def bench(ctx: Any) -> None:
        for word in program.words:
            while gaps and program.rng.random() < gaps:
                await ctx.tick()
            await give(ctx, part.instructions, [word])
        for _ in range(20000):
            if len(buffers.ends) == len(program.words):
                break
            await ctx.tick()
        await ctx.tick().repeat(10)

    sim.add_process(dram)
    sim.add_process(watch)
    sim.add_testbench(bench)
    sim.run()
    assert len(buffers.ends) == len(program.words)
    assert (np.array(buffers.writes_at_end) >= np.cumsum(written)).all()
    assert buffers.writes == sum(written)
    for name in ("activations", "residuals", "lines", "line_plane", "line_index", "line_last", "parameters"):
        np.testing.assert_array_equal(getattr(buffers.machine, name), getattr(machine, name), err_msg=name)
    assert len(ram.accepted) == read
    return buffers, ram


@pytest.mark.parametrize("shape, seed", slow_except([(s, i) for s in SHAPES for i in range(8)], *((s, 0) for s in SHAPES)))
def test_buffers_hold_what_the_machine_says(shape: str, seed: int) -> None:
    program = Program(SHAPES[shape], random.Random(seed))
    program.random(12)
    _load(program, gaps=0.3 * (seed % 2), latency=5, jitter=10 * (seed % 3), busy=0.2 * (seed % 4), seed=seed)


@pytest.mark.parametrize("coding", CODINGS)
def test_lines_have_their_tags(coding: str) -> None:
    program = Program(SHAPES["4x4x64"], random.Random(1))
    for _ in range(6):
        program.weights(coding)
    _load(program)


@pytest.mark.parametrize("run_words", [1, 2])
def test_a_window_is_gathered_at_a_word_per_cycle(run_words: int) -> None:
    program = Program(SHAPES["4x4x64"], random.Random(1))
    program.geometry(run_words, taps=3)
    program.activations(count=10)
    buffers, ram = _load(program, latency=32)
    words = 10 * 9 * run_words
    assert ram.accepted[-1] - ram.accepted[0] == words - 1
    assert buffers.ends[-1] - ram.accepted[0] <= words + 32 + OVERHEAD


def test_consecutive_loads_do_not_wait_for_memory() -> None:
    program = Program(SHAPES["4x4x64"], random.Random(2))
    program.geometry(2, taps=2)
    for _ in range(10):
        program.activations(count=4)
    _, ram = _load(program, latency=40)
    words = 10 * 4 * 2 * 2 * 2
    assert len(ram.accepted) == words and ram.accepted[-1] - ram.accepted[0] < words + 10


@pytest.mark.parametrize("latency", [8, 40])
def test_coded_pixels_come_at_a_word_per_cycle_but_for_rests(latency: int) -> None:
    """What is written into the buffer limits, or what is read; and at the end of a slot the rest of a word is dropped."""
    program = Program(SHAPES["flags 4x4x64"], random.Random(5))
    run, count = 8, 8
    for _ in range(6):
        fields = {"address": program.slots(count, run), "residual": 0, "first": 0, "count": count, "run_words": run}
        program.words.append(Word("load_residual", {**fields, "pixel_words": zero_flags.slot_words(run), "coding": 1}))
    buffers, ram = _load(program, latency=latency)
    assert buffers.ends[-1] - ram.accepted[0] <= 6 * count * (run + 1) + 2 * latency + OVERHEAD


@pytest.mark.parametrize("empty", ["count", "run_words", "kernel_x"])
def test_a_load_of_nothing_ends_too(empty: str) -> None:
    program = Program(SHAPES["4x4x64"], random.Random(3))
    program.geometry()
    program.activations()
    program.words = [Word(w.name, dict(w.fields) | ({empty: 0} if empty in w.fields else {})) for w in program.words]
    program.residual()
    program.words.append(Word("load_parameters", {"address": 0, "parameter": 0, "count": 0}))
    _load(program)
