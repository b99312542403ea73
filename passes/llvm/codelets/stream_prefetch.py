"""Software prefetch of what streams by: from DRAM to the second-level cache far ahead, from there to the first a little ahead.

Into the first level alone only as many lines are under way as it has fill buffers, which is two thirds of the bandwidth; hardware
prefetchers alone start anew at every page and come as far. Distances were measured on Emerald Rapids with one and two threads. Zen 4 reads
ahead better than it is asked to (`IsaFacts.asks_ahead`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcc.dialects.mlir import ir
from qcc.passes.llvm.codelets.builder import Address, Builder

LINE_BYTES = 64
NEAR_BYTES, FAR_BYTES = 2048, 16384
"""Of one stream, and each of two."""
_NEAR, _FAR = 3, 2  # locality of llvm.prefetch: all levels; second level and below


@dataclass(frozen=True)
class Distances:
    """How far ahead, in bytes; far 0: only near."""

    near: int = NEAR_BYTES
    far: int = 0

    @staticmethod
    def of(streams: int) -> Distances:
        """For each of so many streams that are read in turn."""
        return Distances(min(NEAR_BYTES, 2 * NEAR_BYTES // streams), min(FAR_BYTES, 2 * FAR_BYTES // streams))


ONE_STREAM = Distances(NEAR_BYTES, FAR_BYTES)
SLOW_STREAM = Distances(NEAR_BYTES // 2, FAR_BYTES // 4)
"""Of one that few bytes are read of while many are of another."""


def prefetch(b: Builder, address: Address, size: int, distances: Distances = ONE_STREAM) -> None:
    """Ask for the `size` bytes that follow `address` at both distances; reaching over the end of a buffer does no harm."""
    prefetch_lines(b, [address + line for line in range(0, size, LINE_BYTES)], distances=distances)


def prefetch_lines(b: Builder, lines: Sequence[Address], part: tuple[int, int] = (0, 1), distances: Distances = ONE_STREAM) -> None:
    """Ask for the lines that lie the distances ahead of `lines`.

    `part` (i, n): only the i-th of n parts, so that requests lie between the arithmetic and not before it.
    """
    i32 = b.type("i32")
    for line in lines[len(lines) * part[0] // part[1] : len(lines) * (part[0] + 1) // part[1]]:
        for distance, locality in ((distances.far, _FAR), (distances.near, _NEAR)):
            if locality == _FAR and not distance:
                continue
            attributes = {"rw": 0, "hint": locality, "cache": 1}
            given = {name: ir.IntegerAttr.get(i32, value) for name, value in attributes.items()}
            b.op("llvm.intr.prefetch", [b.pointer(line + distance)], **given)
