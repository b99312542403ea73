"""Software prefetch of what streams by: hardware prefetchers stop at every page and start late after it."""

from __future__ import annotations

from qcc.dialects.mlir import ir
from qcc.passes.llvm.codelets.builder import Address, Builder

DISTANCE_BYTES = 4096


def prefetch(b: Builder, address: Address, size: int, distance: int = DISTANCE_BYTES) -> None:
    """Ask for the `size` bytes that lie `distance` behind `address`; reaching over the end of a buffer does no harm."""
    i32 = b.type("i32")
    for line in range(0, size, 64):
        b.op(
            "llvm.intr.prefetch",
            [b.pointer(address + distance + line)],
            rw=ir.IntegerAttr.get(i32, 0),
            hint=ir.IntegerAttr.get(i32, 3),
            cache=ir.IntegerAttr.get(i32, 1),
        )
