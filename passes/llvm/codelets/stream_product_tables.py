"""The tables of decoder "products": every x, scaled, times 16 levels, rounded to 16 bits, and 2^15 so that bytes have no sign.

Of two neighbouring k the high bytes of their tables, 16 each, then the low ones.
"""

from __future__ import annotations

from qcc.passes.llvm.codelets.builder import Address, Builder, Value, lanes_of
from qcc.passes.llvm.codelets.isa.generic import to_integer

GREATEST = 32767.0
LEVELS = 16
OFFSET = 1 << 15


def write(b: Builder, x: Value, levels: Value, target: Address) -> None:
    """Store the tables of `x` [lanes] f32, at most `GREATEST`, times `levels` [16] f32, at most 1 in magnitude."""
    for k in range(lanes_of(x)):
        products = to_integer(b, b.binary("fmul", b.shuffle(x, x, [k] * LEVELS), levels))
        entries = b.binary("add", products, b.like(OFFSET, products))
        here = target + 4 * LEVELS * (k // 2) + LEVELS * (k % 2)
        b.store(b.cast("trunc", b.binary("lshr", entries, b.like(8, entries)), "i8"), here)
        b.store(b.cast("trunc", entries, "i8"), here + 2 * LEVELS)
