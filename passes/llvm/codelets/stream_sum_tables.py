"""The tables of `stream_sums`: what subsets of four quantized x add up to, less half of their whole sum, so that 16 bits hold it.

Entry s of the table of q[0 : 4] is the sum of q[i] over the bits i of s, less floor(sum of q / 2). 16 k make 128 bytes: the high bytes of
their four tables, then the low ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from qcc.dialects.stream_layout import StreamLayout
from qcc.passes.llvm.codelets.builder import Address, Builder, Value

GREATEST = 16383.0
"""|q|: four of them, halved, fit 16 bits."""


def ends(layout: StreamLayout) -> list[int]:
    """Where the last tables end, which x may not fill: those of entries that are not written must be 0."""
    return [layout.x_bytes - 64, layout.x_bytes]


def write(b: Builder, q: Value, target: Address, sums: Sequence[Value]) -> list[Value]:
    """Store the tables of `q` 16xi32; `sums`, lanes of the sums of q and of what tables lack, with theirs added."""
    pairs = b.binary("add", q, b.shuffle(q, q, [i ^ 1 for i in range(16)]))
    fours = b.binary("add", pairs, b.shuffle(pairs, pairs, [i ^ 2 for i in range(16)]))  # of its four in every lane
    half = b.binary("ashr", fours, b.like(1, fours))
    narrow, taken = (b.cast("trunc", v, "i16") for v in (q, half))
    zero = b.like(0, narrow)
    entries = None
    for i in range(4):
        lanes = [4 * (entry // 16) + i if entry >> i & 1 else 16 for entry in range(64)]
        part = b.shuffle(narrow, zero, lanes)
        entries = part if entries is None else b.binary("add", entries, part)
    assert entries is not None
    entries = b.binary("sub", entries, b.shuffle(taken, taken, [4 * (entry // 16) for entry in range(64)]))
    b.store(b.cast("trunc", b.binary("ashr", entries, b.like(8, entries)), "i8"), target)
    b.store(b.cast("trunc", entries, "i8"), target + 64)
    once = b.shuffle(half, b.like(0, half), [16 if i % 4 else i for i in range(16)])
    return [b.binary("add", sums[0], q), b.binary("add", sums[1], once)]
