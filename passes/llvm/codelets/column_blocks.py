"""How codelets that pack a computed right operand walk through it: matrix by matrix, each in blocks of columns."""

from __future__ import annotations

from collections.abc import Callable

from qcc.dialects.codelet import Pack, PackBf16
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.builder import Builder, Index, Value


def for_blocks(b: Builder, c: Pack | PackBf16, task: Value, block: Callable[[Index, Index, Index, list[int]], None]) -> None:
    """Call `block` for all blocks of the matrices of `task`, with its matrix (two indices), its number and the columns in each vector."""
    lanes = ISAS[c.isa].lanes
    b0, b1, _, n = c.sizes
    full, rest = divmod(n, c.vectors * lanes)

    def matrix(index: Index) -> None:
        i0, i1 = b.divmod(index, b1)
        i0 = 0 if b0 == 1 else i0
        b.loop(0, full, 1, lambda number: block(i0, i1, number, [lanes] * c.vectors))
        if rest:
            block(i0, i1, full, [min(lanes, rest - start) for start in range(0, rest, lanes)])

    low = b.mul(task, c.chunk)
    b.loop(low, b.minimum(b.add(low, c.chunk), b0 * b1), 1, matrix)
