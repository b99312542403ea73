"""Every unit gets its instructions in order, whatever memory does."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from qcc.dialects.accelerator import WORD_BITS, Configuration
from qcc.runtime.fpga.encoder import Word, encode
from qcc.runtime.fpga.isa import INSTRUCTION_BYTES, INSTRUCTIONS, UNITS
from qcc.runtime.fpga.rtl.fetch import PREFETCH_WORDS, Fetch
from test.rtl.bench import Memory, simulator


def _program(seed: int, length: int) -> list[Word]:
    """Random instructions with a finish at the end, and nowhere else."""
    rng = random.Random(seed)
    rows = [i for i in INSTRUCTIONS if i.name != "finish"]
    chosen = [rng.choice(rows) for _ in range(length - 1)]
    return [Word(row.name, {f.name: rng.randint(f.least, f.greatest) for f in row.fields}) for row in chosen] + [Word("finish")]


def _fetch(programs: list[list[Word]], word_bits: int, memory: dict[str, Any], stalls: float = 0.0) -> list[int]:
    """Fetch the programs one after the other and check what the units get. Returns the cycles of each."""
    part, rng, cycles = Fetch(Configuration(word_bits=word_bits, bus_bytes_per_cycle=word_bits // 8)), random.Random(5), []
    per = INSTRUCTION_BYTES * 8 // word_bits
    dram = np.frombuffer(rng.randbytes(word_bits // 8 * 4096), np.uint8).reshape(-1, word_bits // 8).copy()
    starts = [100 * (i + 1) for i in range(len(programs))]
    for start, words in zip(starts, programs, strict=True):
        dram[start : start + per * len(words)] = np.frombuffer(b"".join(map(encode, words)), np.uint8).reshape(-1, word_bits // 8)
    ram, got = Memory(dram, **memory), [[] for _ in UNITS]
    sim = simulator(part)

    async def answer(ctx: Any) -> None:
        await ram.process(ctx, part.reader)

    async def take(ctx: Any) -> None:
        outs = [getattr(part, unit) for unit in UNITS]
        while True:
            for out in outs:
                ctx.set(out.ready, rng.random() >= stalls)
            sampled = (await ctx.tick().sample(*(s for out in outs for s in (out.valid, out.ready, out.payload))))[2:]
            for unit in range(len(UNITS)):
                valid, ready, word = sampled[3 * unit : 3 * unit + 3]
                if valid and ready:
                    got[unit].append(word.to_bytes(INSTRUCTION_BYTES, "little"))

    async def bench(ctx: Any) -> None:
        for start, words in zip(starts, programs, strict=True):
            for unit in got:
                unit.clear()
            ctx.set(part.program, start)
            ctx.set(part.start, 1)
            await ctx.tick()
            ctx.set(part.start, 0)
            count = 0
            while sum(map(len, got)) < len(words):
                await ctx.tick()
                count += 1
                assert count < 10000
            cycles.append(count)
            assert got == [[encode(w) for w in words if w.unit == unit] for unit in range(len(UNITS))]

    sim.add_process(answer)
    sim.add_process(take)
    sim.add_testbench(bench)
    sim.run()
    return cycles


@pytest.mark.parametrize("word_bits", WORD_BITS)
def test_units_get_their_instructions_in_order(word_bits: int) -> None:
    _fetch([_program(1, 20), _program(2, 1), _program(3, 9)], word_bits, {"latency": 3, "jitter": 9, "busy": 0.3}, stalls=0.4)


@pytest.mark.parametrize("word_bits", WORD_BITS)
def test_latency_is_hidden_by_reads_ahead(word_bits: int) -> None:
    length, latency, words = 40, 32, 128 // word_bits
    (cycles,) = _fetch([_program(4, length)], word_bits, {"latency": latency})
    assert cycles <= length * words * (latency + 4) / PREFETCH_WORDS + latency + 8


def test_a_word_is_read_every_cycle_where_memory_is_fast() -> None:
    (cycles,) = _fetch([_program(4, 40)], 64, {"latency": 4})
    assert cycles <= 40 * 2 + 12
