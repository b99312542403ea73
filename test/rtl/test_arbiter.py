"""Everyone gets his own answers, and memory's port is never idle while someone asks."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.rtl.arbiter import Arbiter
from qcc.runtime.fpga.rtl.fetch import PREFETCH_WORDS
from test.rtl.bench import Memory, integer, simulator

WORDS, READS, WRITES = 256, 40, 60


def _run(gaps: dict[str, float], **memory: Any) -> list[int]:
    """Fetch reads the first words, load the next ones, store writes the last. Returns the cycles of memory's requests."""
    c, rng = Configuration(), random.Random(1)
    part, dram = Arbiter(c), np.random.default_rng(0).integers(0, 256, (WORDS, c.word_bytes), np.uint8)
    before, ram = dram.copy(), Memory(dram, **memory)
    got: dict[str, list[int]] = {"fetch": [], "load": []}
    asked = dict.fromkeys(got, 0)
    sim = simulator(part)

    async def answer(ctx: Any) -> None:
        await ram.process(ctx, part.memory)

    def reader(name: str, first: int, limit: int) -> Any:
        port = getattr(part, name)

        async def process(ctx: Any) -> None:
            while True:
                if not ctx.get(port.request.valid):
                    ahead = asked[name] - len(got[name])
                    ctx.set(port.request.valid, asked[name] < READS and ahead < limit and rng.random() >= gaps[name])
                    ctx.set(port.request.payload, first + asked[name])
                *_, valid, ready, answered, word = await ctx.tick().sample(
                    port.request.valid, port.request.ready, port.answer.valid, port.answer.payload
                )
                if answered:
                    got[name].append(word)
                if valid and ready:
                    asked[name] += 1
                    ctx.set(port.request.valid, 0)

        return process

    async def store(ctx: Any) -> None:
        port, written = part.store, 0
        while True:
            ctx.set(port.valid, written < WRITES and rng.random() >= gaps["store"])
            ctx.set(port.payload.address, 100 + written)
            ctx.set(port.payload.data, written)
            while ctx.get(port.valid) and not (await ctx.tick().sample(port.ready))[-1]:
                pass
            if not ctx.get(port.valid):
                await ctx.tick()
            else:
                written += 1

    async def bench(ctx: Any) -> None:
        await ctx.tick().repeat(400)
        assert ctx.get(part.idle)

    sim.add_process(answer)
    for process in (reader("fetch", 0, PREFETCH_WORDS), reader("load", 50, 64), store):
        sim.add_testbench(process, background=True)
    sim.add_testbench(bench)
    sim.run()
    for name, first in (("fetch", 0), ("load", 50)):
        assert got[name] == [integer(w) for w in before[first : first + READS]]
    assert [integer(w) for w in dram[100 : 100 + WRITES]] == list(range(WRITES))
    return ram.accepted


@pytest.mark.parametrize("busy", [0.0, 0.4])
def test_answers_go_where_their_requests_came_from(busy: float) -> None:
    _run({"fetch": 0.5, "load": 0.2, "store": 0.5}, latency=7, jitter=5, busy=busy)


def test_a_request_every_cycle_while_there_are_some() -> None:
    accepted = _run({"fetch": 0.9, "load": 0.0, "store": 0.0}, latency=20)
    first = accepted[:WRITES]
    assert first[-1] - first[0] == WRITES - 1
