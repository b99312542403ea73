"""Storing results as bytes, four vectors at a time: one saturating narrowing serves them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Step
from qcc.passes.llvm.codelets.access import pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Value, lanes_of
from qcc.passes.llvm.codelets.steps import Fetching, Steps

GROUP = 4


class ByteStores:
    """Collects accumulators, runs the step program `steps` on four at once and stores their bytes; `flush` does so with what is left.

    `lanes` is the vector length of the instruction set.
    """

    def __init__(self, b: Builder, runner: Steps, steps: Sequence[Step], lanes: int) -> None:
        self.b, self.runner, self.steps, self.lanes = b, runner, steps, lanes
        self.waiting: list[tuple[Value, Fetching, Address, int]] = []

    def put(self, value: Value, fetch: Fetching, address: Address) -> None:
        """Up to `lanes` lanes, whose results are consecutive bytes at `address`; `fetch` gives the arguments of the steps."""
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
        words = b.op("llvm.bitcast", [packed], f"{self.lanes}xi32")  # `run_packed` gives four lanes of each vector in turn
        natural = [GROUP * quarter + vector for vector in range(GROUP) for quarter in range(self.lanes // 4)]
        packed = b.op("llvm.bitcast", [b.shuffle(words, words, natural)], f"{GROUP * self.lanes}xi8")
        runs = self._runs()
        if len(runs) > 1:
            packed = b.opaque(packed)  # or LLVM permutes for each run anew
        for first, address, count in runs:
            for start, size in pieces(count, GROUP * self.lanes):
                part = packed if size == GROUP * self.lanes else b.shuffle(packed, packed, list(range(first + start, first + start + size)))
                b.store(part, address + start)
        self.waiting = []

    def _wide(self, value: Value) -> Value:
        """All lanes, the last one repeated."""
        lanes = lanes_of(value)
        return value if lanes == self.lanes else self.b.shuffle(value, value, [min(i, lanes - 1) for i in range(self.lanes)])

    def _runs(self) -> list[tuple[int, Address, int]]:
        """(first byte, address, bytes) of what lies together in memory."""
        runs: list[tuple[int, Address, int]] = []
        for i, (_, _, address, lanes) in enumerate(self.waiting):
            if runs:
                first, start, count = runs[-1]
                if start.base is address.base and start.bytes + count == address.bytes and first + count == i * self.lanes:
                    runs[-1] = (first, start, count + lanes)
                    continue
            runs.append((i * self.lanes, address, lanes))
        return runs
