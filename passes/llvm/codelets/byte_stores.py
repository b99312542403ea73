"""Storing results as bytes, four vectors at a time: one saturating narrowing serves them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Step
from qcc.passes.llvm.codelets.access import pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Value, lanes_of
from qcc.passes.llvm.codelets.steps import Fetching, Steps

LANES = 16
GROUP = 4
NATURAL = [GROUP * quarter + vector for vector in range(GROUP) for quarter in range(4)]  # of the words that `run_packed` gives


class ByteStores:
    """Collects accumulators, runs the step program `steps` on four at once and stores their bytes; `flush` does so with what is left."""

    def __init__(self, b: Builder, runner: Steps, steps: Sequence[Step]) -> None:
        self.b, self.runner, self.steps = b, runner, steps
        self.waiting: list[tuple[Value, Fetching, Address, int]] = []

    def put(self, value: Value, fetch: Fetching, address: Address) -> None:
        """Up to 16 lanes, whose results are consecutive bytes at `address`; `fetch` gives the arguments of the steps."""
        count = lanes_of(value)

        def widened(arg: int, element: Any, lanes: int) -> Value:
            if not isinstance(element, str):
                return fetch(arg, element, lanes)
            return self._wide(fetch(arg, element, count))

        self.waiting.append((self._wide(value), widened, address, count))
        if len(self.waiting) == GROUP:
            self.flush()

    def flush(self) -> None:
        if not self.waiting:
            return
        b, padded = self.b, self.waiting + self.waiting[-1:] * (GROUP - len(self.waiting))
        packed = self.runner.run_packed(self.steps, [value for value, *_ in padded], [fetch for _, fetch, *_ in padded])
        words = b.op("llvm.bitcast", [packed], "16xi32")
        packed = b.op("llvm.bitcast", [b.shuffle(words, words, NATURAL)], "64xi8")
        for first, address, count in self._runs():
            for start, size in pieces(count, GROUP * LANES):
                part = packed if size == GROUP * LANES else b.shuffle(packed, packed, list(range(first + start, first + start + size)))
                b.store(part, address + start)
        self.waiting = []

    def _wide(self, value: Value) -> Value:
        """16 lanes, the last one repeated."""
        lanes = lanes_of(value)
        return value if lanes == LANES else self.b.shuffle(value, value, [min(i, lanes - 1) for i in range(LANES)])

    def _runs(self) -> list[tuple[int, Address, int]]:
        """(first byte, address, bytes) of what lies together in memory."""
        runs: list[tuple[int, Address, int]] = []
        for i, (_, _, address, lanes) in enumerate(self.waiting):
            if runs:
                first, start, count = runs[-1]
                if start.base is address.base and start.bytes + count == address.bytes and first + count == i * LANES:
                    runs[-1] = (first, start, count + lanes)
                    continue
            runs.append((i * LANES, address, lanes))
        return runs
