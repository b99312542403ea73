"""The reduction of a register tile whose steps are listed in tables, for products that are summed in 16 bits before 32.

See `passes/tile/codelets/byte_pairs.py` for the order of weights and tables, and why no 16-bit sum overflows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Contraction
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value


def reduce(
    b: Builder,
    c: Contraction,
    buffers: Sequence[Value],
    instructions: Any,
    x: Address,
    row: Index,
    pixels: Sequence[int],
    start: list[Value],
) -> list[Value]:
    """Accumulators of pixels `pixels` bytes behind `x`, after all steps of the block in row `row` of the index, begun with `start`."""
    assert c.listed is not None
    lanes, listed = ISAS[c.isa].lanes, c.listed
    index = b.at(buffers[listed.index], b.mul(row, 12 * len(listed.classes)))
    ones = b.constant(1, f"{2 * lanes}xi16")
    accumulators = start
    for k, size in enumerate(listed.classes):
        count, weights, offsets = (b.cast("zext", b.load("i32", index + 4 * (3 * k + i), invariant=True), "i64") for i in range(3))
        first_weights, first_offset = b.at(buffers[c.w.buffer], weights), b.at(buffers[listed.offsets], offsets)

        def item(
            i: Index, *acc: Value, size: int = size, first_weights: Address = first_weights, first_offset: Address = first_offset
        ) -> list[Value]:
            here = b.at(first_weights, b.mul(i, size * lanes * 4))
            ws = [b.load(f"{4 * lanes}xi8", here + j * lanes * 4, invariant=True) for j in range(size)]
            table = b.at(first_offset, b.mul(i, size * 4))
            xs = [b.at(x, b.cast("zext", b.load("i32", table + 4 * j, invariant=True), "i64")) for j in range(size)]
            made = []
            for one, pixel in zip(acc, pixels, strict=True):
                total = None
                for at, w in zip(xs, ws, strict=True):
                    quadruple = b.op("llvm.bitcast", [b.splat(b.load("i32", at + pixel), lanes)], f"{4 * lanes}xi8")
                    pairs = instructions.pair_u8s8(b, quadruple, w)
                    total = pairs if total is None else b.binary("add", total, pairs)
                made.append(instructions.dot2_s16(b, one, total, ones))
            return made

        accumulators = b.loop(0, count, 1, item, accumulators)
    return accumulators
