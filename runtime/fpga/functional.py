"""Functional simulation: what a program computes, without time.

Instructions run in the order of the stream, or, to test that the tokens alone keep a program correct, in any order they allow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from qcc.dialects.errors import QccError
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.isa import INSTRUCTION_BYTES, UNITS
from qcc.runtime.fpga.machine import Machine
from qcc.runtime.fpga.trace import add_activations


class Chooser(Protocol):
    """What picks the next unit: random.Random is one."""

    def choice(self, seq: Sequence[int], /) -> int: ...


@dataclass
class Moved:
    """Bytes between the accelerator and DRAM."""

    read_bytes: int = 0
    write_bytes: int = 0
    instruction_bytes: int = 0
    activations: dict[str, tuple[int, int]] = field(default_factory=lambda: {})  # as in Trace


def run(machine: Machine, words: Sequence[Word]) -> Moved:
    """Execute a program in stream order. Raises QccError for a program that leaves its buffers or DRAM."""
    moved = Moved(instruction_bytes=len(words) * INSTRUCTION_BYTES)
    for word in words:
        machine.run(word)
        size = (machine.moved_words(word) or 0) * machine.configuration.word_bytes
        add_activations(moved.activations, machine.pixel_bytes(word))
        if word.name == "store":
            moved.write_bytes += size
        else:
            moved.read_bytes += size
    return moved


def run_in_token_order(machine: Machine, words: Sequence[Word], chooser: Chooser) -> None:
    """Execute a program with its units running ahead of each other as far as tokens let them; `chooser` picks who goes next.

    Raises QccError where no unit can go on.
    """
    queues = [deque(w for w in words if w.unit == unit) for unit in range(len(UNITS))]
    tokens = [[0] * len(UNITS) for _ in UNITS]  # [from][to]
    while any(queues):
        able = [
            u
            for u, q in enumerate(queues)
            if q and machine.ready(q[0]) and all(tokens[v][u] for v in range(len(UNITS)) if q[0].wait >> v & 1)
        ]
        if not able:
            stuck = ", ".join(f"{UNITS[u]} before {q[0].name}" for u, q in enumerate(queues) if q)
            raise QccError(f"the program is deadlocked: {stuck} waits for tokens that no one sends")
        unit = chooser.choice(able)
        word = queues[unit].popleft()
        for other in range(len(UNITS)):
            tokens[other][unit] -= word.wait >> other & 1
        machine.run(word)
        for other in range(len(UNITS)):
            tokens[unit][other] += word.signal >> other & 1
