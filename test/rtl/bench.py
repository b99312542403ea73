"""What tests of RTL parts share: a memory, a unit that takes instructions, words of DRAM as integers."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from amaranth.sim import Simulator

from qcc.runtime.fpga.encoder import Word, encode


def integer(word: np.ndarray) -> int:
    """A word [K/8] u8 as the RTL has it."""
    return int.from_bytes(word.tobytes(), "little")


def simulator(part: Any) -> Simulator:
    sim = Simulator(part)
    sim.add_clock(1e-6)
    return sim


class Memory:
    """DRAM behind a `memory` or `reader` port: answers come in order, `latency` cycles after their request or up to `jitter` later.

    It refuses requests in a share `busy` of the cycles. `accepted` are the cycles in which it took one.
    """

    def __init__(self, dram: np.ndarray, latency: int = 8, jitter: int = 0, busy: float = 0.0, seed: int = 0) -> None:
        self.dram, self.latency, self.jitter, self.busy = dram, latency, jitter, busy
        self.random = random.Random(seed)
        self.accepted: list[int] = []

    async def process(self, ctx: Any, port: Any) -> None:
        answers: deque[tuple[int, int]] = deque()  # cycle, word
        request, cycle = port.request, 0
        while True:
            ctx.set(request.ready, self.random.random() >= self.busy)
            due = bool(answers) and answers[0][0] <= cycle
            ctx.set(port.answer.valid, due)
            ctx.set(port.answer.payload, answers.popleft()[1] if due else self.random.getrandbits(32))
            *_, valid, ready, payload = await ctx.tick().sample(request.valid, request.ready, request.payload)
            if valid and ready:
                self.accepted.append(cycle)
                address = payload if isinstance(payload, int) else payload.address
                if not isinstance(payload, int) and payload.write:
                    self.dram[address] = np.frombuffer(payload.data.to_bytes(self.dram.shape[1], "little"), np.uint8)
                else:
                    answers.append((cycle + self.latency + self.random.randint(0, self.jitter), integer(self.dram[address])))
            cycle += 1


async def give(ctx: Any, instructions: Any, words: Iterable[Word]) -> None:
    """The instructions `words` to a unit, each as soon as it takes it, which it must do some time."""
    for word in words:
        ctx.set(instructions.payload, int.from_bytes(encode(word), "little"))
        ctx.set(instructions.valid, 1)
        for _ in range(10000):
            if (await ctx.tick().sample(instructions.ready))[-1]:
                break
        else:
            raise AssertionError(f"no one takes {word}")
    ctx.set(instructions.valid, 0)
