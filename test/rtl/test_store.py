"""Store writes to DRAM what machine.py does, one word per cycle."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import numpy as np
import pytest

from qcc.dialects import zero_flags
from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.machine import Machine
from qcc.runtime.fpga.rtl.interfaces import READ_LATENCY
from qcc.runtime.fpga.rtl.store import Store
from test.rtl.bench import give, integer, simulator
from test.tiers import slow_except

SHAPES = {
    "4x4x64": Configuration(output_words=128),
    "2x3x32": Configuration(2, 3, 32, output_words=128, bus_bytes_per_cycle=4),
    "1x1x128": Configuration(1, 1, 128, output_words=128, bus_bytes_per_cycle=16),
    "flags 4x4x64": Configuration(output_words=128, activation_codings=2),
    "flags 2x3x32": Configuration(2, 3, 32, output_words=128, bus_bytes_per_cycle=4, activation_codings=2),
    "flags 1x1x128": Configuration(1, 1, 128, output_words=128, bus_bytes_per_cycle=16, activation_codings=2),
}
DRAM_WORDS = 4096


def _store(
    c: Configuration, rng: random.Random, at: int = 0, count: int | None = None, run: int | None = None, coded: bool = False
) -> Word:
    """A store behind word `at` of DRAM."""
    run = rng.choice([1, 2, 3, 7, 8, 9, 17]) if run is None else run
    count = rng.randint(1, 3 * c.columns) if count is None else count
    groups, stride = -(-count // c.columns), run + rng.randint(0, 2)
    pixel = (zero_flags.slot_words(run) if coded else run) + rng.randint(0, 3)
    fields = {
        "address": at + rng.randint(0, 3),
        "output": rng.randint(0, c.output_words - groups * stride - 1),
        "count": count,
        "run_words": run,
        "pixel_words": pixel,
        "output_words": stride,
        "coding": int(coded),
    }
    return Word("store", fields)


def _stores(c: Configuration, rng: random.Random, number: int, **options: Any) -> list[Word]:
    """Stores one behind the other; half of them coded where the unit can. What they leave of their slots is nobody's."""
    words: list[Word] = []
    for _ in range(number):
        at = words[-1]["address"] + words[-1]["count"] * words[-1]["pixel_words"] if words else 0
        words.append(_store(c, rng, at, coded=c.activation_codings > 1 and rng.random() < 0.5, **options))
    return words


def _run(c: Configuration, words: list[Word], busy: float = 0.0, seed: int = 0, share: float | None = None) -> tuple[list[int], list[int]]:
    """Store and compare DRAM, write by write. Returns the cycles of the writes and of the ends.

    `share` of the bytes are not 0; if None, few of some words and many of others.
    """
    rng, machine, part = random.Random(seed), Machine(c, np.zeros((DRAM_WORDS, c.word_bytes), np.uint8)), Store(c)
    generator = np.random.default_rng(seed)
    machine.outputs[:] = generator.integers(0, 256, machine.outputs.shape)
    machine.outputs *= generator.random(machine.outputs.shape) < (
        generator.choice([0, 0.1, 0.5, 0.9, 1], (c.columns, c.output_words, 1)) if share is None else share
    )
    dram, sim, writes, ends, expected_writes = np.zeros_like(machine.dram), simulator(part), [], [], []
    for word in words:
        machine.run(word)
        expected_writes.append(machine.moved_words(word) or 0)

    async def outputs(ctx: Any) -> None:
        late = deque([0] * READ_LATENCY)
        while True:
            late.append((await ctx.tick().sample(part.outputs.address))[-1])
            address = late[1] if READ_LATENCY > 1 else late[-1]
            late.popleft()
            for bank in range(c.columns):
                ctx.set(part.outputs.data[bank], integer(machine.outputs[bank, address]) if address < c.output_words else 0)

    async def memory(ctx: Any) -> None:
        cycle = 0
        while True:
            ctx.set(part.writer.ready, rng.random() >= busy)
            *_, valid, ready, payload, done = await ctx.tick().sample(part.writer.valid, part.writer.ready, part.writer.payload, part.done)
            if valid and ready:
                dram[payload.address] = np.frombuffer(payload.data.to_bytes(c.word_bytes, "little"), np.uint8)
                writes.append(cycle)
            if done:
                ends.append(cycle)
                assert len(writes) == sum(expected_writes[: len(ends)])
            cycle += 1

    async def bench(ctx: Any) -> None:
        for attempt in range(2):
            ctx.set(part.start, 1)
            await ctx.tick()
            ctx.set(part.start, 0)
            await ctx.tick()
            assert not ctx.get(part.finished)
            if attempt:
                break
            await give(ctx, part.instructions, [*words, Word("finish")])
            for _ in range(50):
                await ctx.tick()
            assert ctx.get(part.finished)

    sim.add_process(outputs)
    sim.add_process(memory)
    sim.add_testbench(bench)
    sim.run()
    assert len(ends) == len(words) + 1
    np.testing.assert_array_equal(dram, machine.dram)
    return writes, ends


@pytest.mark.parametrize("shape, seed", slow_except([(s, i) for s in SHAPES for i in range(6)], *((s, 0) for s in SHAPES)))
def test_dram_holds_what_the_machine_says(shape: str, seed: int) -> None:
    rng = random.Random(seed)
    _run(SHAPES[shape], _stores(SHAPES[shape], rng, 8), busy=0.3 * (seed % 3), seed=seed)


@pytest.mark.parametrize("run", [1, 5])
def test_a_word_is_written_every_cycle(run: int) -> None:
    c = SHAPES["4x4x64"]
    writes, ends = _run(c, _stores(c, random.Random(1), 1, count=12, run=run))
    assert writes[-1] - writes[0] == 12 * run - 1
    assert ends[0] == writes[-1]


def test_consecutive_stores_leave_no_more_than_a_cycle() -> None:
    c, rng = SHAPES["4x4x64"], random.Random(2)
    writes, _ = _run(c, _stores(c, rng, 4, count=6, run=4))
    assert writes[-1] - writes[0] <= 4 * 24 + 3


def test_a_store_of_nothing_ends_in_its_place() -> None:
    c, rng = SHAPES["4x4x64"], random.Random(3)
    _run(c, [_store(c, rng), _store(c, rng, count=0), _store(c, rng, 400), _store(c, rng, run=0)])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_coded_word_is_taken_every_cycle_but_for_flags_and_rests(share: float) -> None:
    c, run, count = SHAPES["flags 4x4x64"], 16, 8
    machine_words = _stores(c, random.Random(1), 1, count=count, run=run)
    words = [Word("store", {**machine_words[0].fields, "coding": 1, "pixel_words": zero_flags.slot_words(run)})]
    writes, ends = _run(c, words, share=share)
    assert ends[0] == writes[-1]
    assert writes[-1] <= count * (run + zero_flags.flag_words(run) + 1) + 16
