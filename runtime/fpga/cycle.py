"""Cycle-level simulation: when every instruction starts and ends, with the data it computes.

The four units run concurrently, each its own instructions in order; an instruction starts when it is fetched, its
unit is free and its tokens are
there. Loads and stores share one memory bus, first come first served. A load keeps its unit for the transfer and is
done one memory latency
later, so consecutive loads are pipelined. `execute` and the `post` that takes its tiles run hand in hand: at most
`accumulator_tiles` finished
tiles wait in between. Instruction fetch is sequential and counts as traffic, but does not compete for the bus.

Costs in cycles: execute, lines of the tile x activation planes, and `GROUP_CYCLES` per group of pixels; post, the longest of R x C
values / lanes, the planes it writes and those it reads; load and store, words x K/8 / bus bytes. The RTL has these costs and the lengths of
pipelines below; what it has besides, a few cycles from instruction to instruction and fetches on the bus, is within a few percent. Coded
pixels take the coders at least a cycle per raw word, and loads memory's latency twice: bytes are asked for when their flags are known.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.isa import INSTRUCTION_BYTES, UNITS
from qcc.runtime.fpga.machine import Lines, Machine
from qcc.runtime.fpga.trace import add_activations

GROUP_CYCLES = 3  # until the array's front is full again
TOKEN_CYCLES = 3  # from an instruction's end to the start of one that waits for it
DEPTH = {"load": 12, "execute": 12, "post": 32, "store": 5}  # of the units: from the last word, step or tile to the instruction's end
RESIDUAL_DEPTH = 14  # more of the post unit where it adds a residual


@dataclass
class Timing:
    """When one program ran. All times in cycles from its start."""

    cycles: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    instruction_bytes: int = 0
    bus_cycles: int = 0
    busy: dict[str, int] = field(default_factory=lambda: dict.fromkeys(UNITS, 0))
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    unit_cycles: list[int] = field(default_factory=list)  # of each instruction
    traffic: list[int] = field(default_factory=list)  # bytes of each instruction
    activations: list[dict[str, tuple[int, int]]] = field(default_factory=list)  # of each instruction, as in Trace


def run(machine: Machine, words: Sequence[Word]) -> Timing:
    """Execute a program and time it. Raises QccError for a deadlock and for whatever the machine refuses."""
    return _Simulation(machine, words).run()


class _Simulation:
    def __init__(self, machine: Machine, words: Sequence[Word]) -> None:
        self.machine, self.words, self.c = machine, words, machine.configuration
        units = range(len(UNITS))
        self.queues = [deque(i for i, w in enumerate(words) if w.unit == u) for u in units]
        self.free = [0] * len(UNITS)
        self.tokens: list[list[deque[int]]] = [[deque() for _ in units] for _ in units]  # [from][to], times of arrival
        self.bus: list[tuple[int, int]] = []  # reserved intervals, sorted
        self.fetched = [-1] * len(words)
        self.next_fetch = 0
        self.fetch_time = 0
        self.started: list[list[int]] = [[] for _ in units]
        zeros = [0] * len(words)
        pixels: list[dict[str, tuple[int, int]]] = [{} for _ in words]
        self.timing = Timing(start=list(zeros), end=list(zeros), unit_cycles=list(zeros), traffic=list(zeros), activations=pixels)

    def run(self) -> Timing:
        while any(self.queues):
            self._fetch()
            able = [(start, unit) for unit in range(len(UNITS)) if (start := self._start(unit)) is not None]
            if not able:
                stuck = ", ".join(f"{UNITS[u]} at instruction {q[0]} ({self.words[q[0]].name})" for u, q in enumerate(self.queues) if q)
                raise QccError(f"the program is deadlocked: {stuck} cannot go on")
            start, unit = min(able)
            if self._emits(self.queues[unit][0]):
                self._execute_pair(start)
            else:
                self._single(start, unit)
        t = self.timing
        t.cycles = max(t.end, default=0)
        t.instruction_bytes = len(self.words) * INSTRUCTION_BYTES
        return t

    def _fetch(self) -> None:
        """Fetch instructions in stream order into the units' queues as far as these have room."""
        cost = -(-INSTRUCTION_BYTES // self.c.bus_bytes_per_cycle)
        while self.next_fetch < len(self.words):
            unit = self.words[self.next_fetch].unit
            position = bisect.bisect_left(self._order(unit), self.next_fetch)
            leaves = position - self.c.queue_instructions  # the instruction whose start makes room
            if leaves >= len(self.started[unit]):
                return
            room = self.started[unit][leaves] if leaves >= 0 else 0
            self.fetch_time = max(self.fetch_time + cost, room)
            self.fetched[self.next_fetch] = self.fetch_time
            self.next_fetch += 1

    def _order(self, unit: int) -> list[int]:
        if not hasattr(self, "_orders"):
            self._orders = [[i for i, w in enumerate(self.words) if w.unit == u] for u in range(len(UNITS))]
        return self._orders[unit]

    def _start(self, unit: int) -> int | None:
        """When the unit's next instruction can start, or None while that is not known."""
        if not self.queues[unit]:
            return None
        index = self.queues[unit][0]
        time = self._ready(index)
        if time is None:
            return None
        if self._emits(index):
            post = self._next_post()
            return time if post is not None and self._ready(post) is not None else None
        if self.words[index].name == "post":
            return None  # runs together with its execute
        return time

    def _emits(self, index: int) -> bool:
        word = self.words[index]
        return word.name == "execute" and bool(word["emit"])

    def _next_post(self) -> int | None:
        """The next instruction of the post unit, after running those that only set its state; None where it is not fetched."""
        queue = self.queues[UNITS.index("post")]
        while queue and self.words[queue[0]].name != "post":
            ready = self._ready(queue[0])
            if ready is None:
                return None
            self._single(ready, UNITS.index("post"))
            self._fetch()
        return queue[0] if queue else None

    def _ready(self, index: int) -> int | None:
        word = self.words[index]
        if self.fetched[index] < 0:
            return None
        time = max(self.free[word.unit], self.fetched[index])
        for other in range(len(UNITS)):
            if word.wait >> other & 1:
                waiting = self.tokens[other][word.unit]
                if not waiting:
                    return None
                time = max(time, waiting[0])
        return time

    def _take_tokens(self, index: int, start: int) -> None:
        word = self.words[index]
        for other in range(len(UNITS)):
            if word.wait >> other & 1:
                self.tokens[other][word.unit].popleft()
        self.queues[word.unit].popleft()
        self.started[word.unit].append(start)

    def _finish(self, index: int, start: int, free: int, end: int, busy: int) -> None:
        word, t = self.words[index], self.timing
        self.free[word.unit] = free
        t.start[index], t.end[index], t.unit_cycles[index] = start, end, busy
        t.busy[word.row.unit] += busy
        for other in range(len(UNITS)):
            if word.signal >> other & 1:
                queue = self.tokens[word.unit][other]
                queue.append(end + TOKEN_CYCLES)
                if len(queue) > self.c.token_limit:
                    raise QccError(f"the program holds more than {self.c.token_limit} tokens from {UNITS[word.unit]} to {UNITS[other]}")

    def _single(self, start: int, unit: int) -> None:
        index = self.queues[unit][0]
        word = self.words[index]
        self._take_tokens(index, start)
        self.machine.run(word)
        words = self.machine.moved_words(word)
        if words is None:
            execute = word.name == "execute"
            cycles = self._execute_cycles(word)[0] if execute else 1
            self._finish(index, start, start + cycles, start + cycles + (DEPTH["execute"] if execute else 0), cycles)
            return
        size, pixels, latency = words * self.c.word_bytes, self.machine.pixel_bytes(word), self.c.dram_latency_cycles
        on_bus = cycles = max(-(-size // self.c.bus_bytes_per_cycle), 1)
        for coding, (_, raw) in pixels.items():
            if coding != "raw":
                cycles, latency = max(cycles, raw // self.c.word_bytes), 2 * latency
        begin = self._reserve(start, on_bus)
        self.timing.traffic[index] = size
        self.timing.activations[index] = pixels
        moved = end = begin + cycles
        if word.row.unit == "store":
            self.timing.write_bytes += size
        else:
            self.timing.read_bytes += size
            end += latency
        self.timing.bus_cycles += on_bus
        self._finish(index, start, moved, end + DEPTH[word.row.unit], moved - start)

    def _reserve(self, start: int, cycles: int) -> int:
        """The first time from `start` at which the bus is free for `cycles`."""
        place = bisect.bisect_right(self.bus, (start, 1 << 62))
        time = start
        if place and self.bus[place - 1][1] > time:
            time = self.bus[place - 1][1]
        while place < len(self.bus) and self.bus[place][0] < time + cycles:
            time = self.bus[place][1]
            place += 1
        self.bus.insert(place, (time, time + cycles))
        if len(self.bus) > 64:  # nothing is ever requested before the slowest unit's time
            horizon = min(self.free)
            self.bus = [b for b in self.bus if b[1] >= horizon]
        return time

    def _execute_cycles(self, word: Word) -> list[int]:
        """Cycles of every tile of one group."""
        ends = self.machine.tile_ends(word)
        planes = self.machine.modes["execute_mode"]["planes"]
        cycles = [int(n) * planes for n in np.diff(ends, prepend=word["line"])]
        return [*cycles[:-1], cycles[-1] + GROUP_CYCLES]

    def _execute_pair(self, start: int) -> None:
        """An emitting execute and the post behind it, tile by tile."""
        index = self.queues[1][0]
        other = self._next_post()
        assert other is not None
        word, post = self.words[index], self.words[other]
        begin = self._ready(other)
        assert begin is not None
        if (post["tiles"], post["groups"]) != (word["tiles"], word["groups"]):
            raise QccError(
                f"post takes {post['tiles']} x {post['groups']} tiles behind an execute of {word['tiles']} x {word['groups']}, "
                "expected the same"
            )
        self._take_tokens(index, start)
        self._take_tokens(other, begin)
        self.machine.run(word)
        costs = self._execute_cycles(word) * word["groups"]
        self.machine.run(post)
        emitted, taken, cost_of_post = start, deque([0] * self.c.accumulator_tiles), self._post_cycles()
        free = begin  # when the post unit can begin with another tile
        for cost in costs:
            emitted = max(emitted + cost, taken.popleft())
            free = max(free, emitted + DEPTH["execute"]) + cost_of_post
            taken.append(free)
        depth = DEPTH["post"] + (RESIDUAL_DEPTH if self.machine.modes["post_residual"]["enable"] else 0)
        self._finish(index, start, emitted, emitted + DEPTH["execute"], sum(costs))
        self._finish(other, begin, free, free + depth, cost_of_post * len(costs))

    def _post_cycles(self) -> int:
        """From a tile to the next."""
        c, modes = self.c, self.machine.modes
        residual = modes["post_residual"]
        return max(
            -(-c.rows * c.columns // c.post_lanes), modes["post_requantize"]["bits"], residual["planes"] if residual["enable"] else 0
        )


class TimingMachine(Machine):
    """A machine that moves no data but weight lines, which alone decide how long a program takes."""

    def __init__(self, configuration: Configuration, dram: np.ndarray) -> None:
        super().__init__(configuration, dram)
        self._seen: dict[tuple[int, ...], Lines] = {}

    def _decoded(self, word: Word) -> Lines:
        key = tuple(word.fields[name] for name in ("address", "size_words", "tiles", "words", "planes", "coding"))
        if key not in self._seen:  # DRAM never changes here, and streamed blocks come again for every tile of pixels
            self._seen[key] = super()._decoded(word)
        return self._seen[key]

    def run(self, word: Word) -> None:
        if word.name == "load_weights" or not hasattr(self, f"_{word.name}"):
            super().run(word)


def predict(configuration: Configuration, dram: np.ndarray, words: Sequence[Word]) -> Timing:
    """The timing of a program without computing anything: cycles depend on weights only, never on inputs.

    Coded pixels are the exception: they count as if all bytes were not 0, the most that they can take.
    """
    return run(TimingMachine(configuration, dram), words)


def layer_rows(timing: Timing, layers: Sequence[str], words: Sequence[Word]) -> list[dict[str, Any]]:
    """Per layer, in order of first instruction: first and last cycle, busy cycles per unit, bytes moved, instructions."""
    rows: dict[str, dict[str, Any]] = {}
    for i, (name, word) in enumerate(zip(layers, words, strict=True)):
        row = rows.setdefault(
            name,
            {
                "name": name,
                "start": timing.start[i],
                "end": 0,
                "busy": dict.fromkeys(UNITS, 0),
                "dram_bytes": 0,
                "activations": {},
                "instructions": 0,
            },
        )
        row["start"], row["end"] = min(row["start"], timing.start[i]), max(row["end"], timing.end[i])
        row["busy"][word.row.unit] += timing.unit_cycles[i]
        row["dram_bytes"] += timing.traffic[i] + INSTRUCTION_BYTES
        add_activations(row["activations"], timing.activations[i])
        row["instructions"] += 1
    return list(rows.values())
