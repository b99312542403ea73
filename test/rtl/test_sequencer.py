"""Instructions wait for their tokens, and tokens go out in the order of the ends."""

from __future__ import annotations

from typing import Any

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.encoder import Word, encode
from qcc.runtime.fpga.isa import UNITS
from qcc.runtime.fpga.rtl.sequencer import Sequencer
from test.rtl.bench import give, simulator

LOAD, EXECUTE, POST, STORE = (1 << u for u in range(len(UNITS)))


def _finish(wait: int = 0, signal: int = 0) -> Word:
    return Word("finish", {}, wait, signal)


class _Run:
    """A sequencer of the store unit, its unit ready to take anything; `ticks(n)` returns the instructions taken in n cycles."""

    def __init__(self, words: list[Word], check: Any) -> None:
        self.part = Sequencer(Configuration(queue_instructions=8), "store")
        self.taken: list[int] = []
        self.signalled: list[int] = []
        sim = simulator(self.part)

        async def unit(ctx: Any) -> None:
            out = self.part.instructions
            ctx.set(out.ready, 1)
            while True:
                *_, valid, word, token = await ctx.tick().sample(out.valid, out.payload, self.part.token_out)
                if valid:
                    self.taken.append(word)
                if token:
                    self.signalled.append(token)

        async def feed(ctx: Any) -> None:
            await give(ctx, self.part.fetched, words)

        async def bench(ctx: Any) -> None:
            await check(ctx, self)

        sim.add_process(unit)
        sim.add_process(feed)
        sim.add_testbench(bench)
        sim.run()

    async def pulse(self, ctx: Any, signal: Any, value: int = 1) -> None:
        ctx.set(signal, value)
        await ctx.tick()
        ctx.set(signal, 0)


def test_an_instruction_waits_for_a_token_of_every_unit_it_names() -> None:
    async def check(ctx: Any, run: _Run) -> None:
        await ctx.tick().repeat(10)
        assert not run.taken
        await run.pulse(ctx, run.part.token_in, LOAD)
        await ctx.tick().repeat(10)
        assert not run.taken  # post's is missing
        await run.pulse(ctx, run.part.token_in, POST)
        await ctx.tick().repeat(3)
        assert len(run.taken) == 1
        await ctx.tick().repeat(10)
        assert len(run.taken) == 1  # both tokens are gone
        await run.pulse(ctx, run.part.token_in, LOAD | POST)
        await ctx.tick().repeat(3)
        assert len(run.taken) == 2

    _Run([_finish(LOAD | POST)] * 2, check)


def test_instructions_without_tokens_follow_each_other_every_second_cycle() -> None:
    words = [
        Word("store", dict.fromkeys(("address", "output", "count", "run_words", "pixel_words", "output_words", "coding"), 0) | {"count": n})
        for n in range(7)
    ]

    async def check(ctx: Any, run: _Run) -> None:
        await ctx.tick().repeat(4 + 2 * len(words))
        assert [w.to_bytes(16, "little") for w in run.taken] == [encode(w) for w in words]

    _Run(words, check)


def test_as_many_tokens_as_the_limit_are_kept() -> None:
    async def check(ctx: Any, run: _Run) -> None:
        ctx.set(run.part.token_in, EXECUTE)
        await ctx.tick().repeat(255)
        ctx.set(run.part.token_in, 0)
        await ctx.tick().repeat(10)
        assert len(run.taken) == 1  # the other waits for load
        await run.pulse(ctx, run.part.token_in, LOAD)
        await ctx.tick().repeat(5)
        assert len(run.taken) == 2

    _Run([_finish(EXECUTE), _finish(LOAD | EXECUTE)], check)


def test_every_end_sends_the_tokens_of_its_own_instruction() -> None:
    masks = [LOAD, 0, LOAD | EXECUTE | POST, EXECUTE, POST]

    async def check(ctx: Any, run: _Run) -> None:
        await ctx.tick().repeat(20)
        assert len(run.taken) == len(masks) and not run.signalled
        ctx.set(run.part.done, 1)
        await ctx.tick().repeat(len(masks))
        ctx.set(run.part.done, 0)
        await ctx.tick()
        assert run.signalled == [mask for mask in masks if mask]

    _Run([_finish(signal=mask) for mask in masks], check)


def test_no_more_instructions_are_out_than_have_room_for_their_masks() -> None:
    async def check(ctx: Any, run: _Run) -> None:
        await ctx.tick().repeat(100)
        assert len(run.taken) == 16
        await run.pulse(ctx, run.part.done)
        await ctx.tick().repeat(10)
        assert len(run.taken) == 17

    _Run([_finish(signal=LOAD)] * 20, check)
