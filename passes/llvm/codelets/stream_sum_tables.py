"""The tables of `stream_sums`: what subsets of four quantized x add up to, less half of their whole sum, so that 16 bits hold it.

Entry s of the table of q[0 : 4] is the sum of q[i] over the bits i of s, less floor(sum of q / 2). 16 k (or 8, of 8 lanes) make 128 bytes:
the high bytes of their four tables, then the low ones. They have a sign, or, where plain additions sum their bytes (`has_pairs`), are 2^15
greater.
"""

from __future__ import annotations

from collections.abc import Sequence

from qcc.dialects.stream_layout import StreamLayout
from qcc.passes.llvm.codelets.builder import Address, Builder, Value, lanes_of

GREATEST = 16383.0
"""|q|: four of them, halved, fit 16 bits."""
UNSIGNED = 1 << 15
"""What entries without a sign are greater by."""


def ends(layout: StreamLayout) -> list[int]:
    """Where the last tables end, which x may not fill: those of entries that are not written must be 0."""
    return [layout.x_bytes - 64, layout.x_bytes]


def write(b: Builder, layout: StreamLayout, q: Value, target: Address, sums: Sequence[Value]) -> list[Value]:
    """Store the tables of `q` [lanes] i32; `sums`, lanes of the sums of q and of what tables lack, with theirs added."""
    width = lanes_of(q)
    pairs = b.binary("add", q, b.shuffle(q, q, [i ^ 1 for i in range(width)]))
    fours = b.binary("add", pairs, b.shuffle(pairs, pairs, [i ^ 2 for i in range(width)]))  # of its four in every lane
    half = b.binary("ashr", fours, b.like(1, fours))
    if layout.has_pairs:
        half = b.binary("sub", half, b.like(UNSIGNED, half))
    narrow, taken = (b.cast("trunc", v, "i16") for v in (q, half))
    zero = b.like(0, narrow)
    entries = None
    for i in range(4):
        lanes = [4 * (entry // 16) + i if entry >> i & 1 else width for entry in range(4 * width)]
        part = b.shuffle(narrow, zero, lanes)
        entries = part if entries is None else b.binary("add", entries, part)
    assert entries is not None
    entries = b.binary("sub", entries, b.shuffle(taken, taken, [4 * (entry // 16) for entry in range(4 * width)]))
    b.store(b.cast("trunc", b.binary("ashr", entries, b.like(8, entries)), "i8"), target)
    b.store(b.cast("trunc", entries, "i8"), target + 4 * width)
    once = b.shuffle(half, b.like(0, half), [width if i % 4 else i for i in range(width)])
    return [b.binary("add", sums[0], q), b.binary("add", sums[1], once)]
