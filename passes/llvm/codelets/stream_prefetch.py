"""Software prefetch of what streams by: from DRAM to the second-level cache far ahead, from there to the first a little ahead.

Into the first level alone only as many lines are under way as it has fill buffers, which is two thirds of the bandwidth; hardware
prefetchers alone start anew at every page and come as far. Distances were measured on Emerald Rapids with one and two threads.
"""

from __future__ import annotations

from qcc.dialects.mlir import ir
from qcc.passes.llvm.codelets.builder import Address, Builder

NEAR_BYTES, FAR_BYTES = 2048, 16384
_NEAR, _FAR = 3, 2  # locality of llvm.prefetch: all levels; second level and below


def prefetch(b: Builder, address: Address, size: int, part: tuple[int, int] = (0, 1)) -> None:
    """Ask for the `size` bytes that follow `address` at both distances; reaching over the end of a buffer does no harm.

    `part` (i, n): only the i-th of n parts, so that requests lie between the arithmetic and not before it.
    """
    i32 = b.type("i32")
    lines = range(0, size, 64)
    for line in lines[len(lines) * part[0] // part[1] : len(lines) * (part[0] + 1) // part[1]]:
        for distance, locality in ((FAR_BYTES, _FAR), (NEAR_BYTES, _NEAR)):
            attributes = {"rw": 0, "hint": locality, "cache": 1}
            given = {name: ir.IntegerAttr.get(i32, value) for name, value in attributes.items()}
            b.op("llvm.intr.prefetch", [b.pointer(address + distance + line)], **given)
