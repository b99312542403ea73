"""The loop nest that turns x around, rows innermost, square by square in registers: a plain copy would meet one cache set at every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import RowLanes
from qcc.dialects.instruction_sets import ISAS
from qcc.passes.llvm.codelets.access import bytes_of, load_first
from qcc.passes.llvm.codelets.builder import Builder, Index, Value
from qcc.passes.llvm.codelets.transposition import transposed


def emit(b: Builder, codelet: RowLanes, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task: a chunk of vectors of k."""
    lanes, (rows, k) = ISAS[codelet.isa].lanes, codelet.sizes
    full, rest = divmod(k, lanes)
    groups, rows_left = divmod(rows, lanes)

    def column(at: Index, ks: int) -> None:
        """All rows of `ks` k from at * lanes on."""
        b.loop(0, groups, 1, lambda group: square(at, ks, group, lanes))
        if rows_left:
            square(at, ks, groups, rows_left)

    def square(at: Index, ks: int, group: Index, count: int) -> None:
        x, first = codelet.x, b.mul(at, lanes)
        source = b.at(buffers[x.buffer], bytes_of(x, (b.mul(group, lanes), first), b))
        read = [load_first(b, source + 4 * i * x.strides[0], ks, lanes) for i in range(count)]
        made = transposed(b, [*read, *[b.constant(0, f"{lanes}xf32")] * (lanes - count)])
        block, vector = b.divmod(group, codelet.width // lanes)
        place = b.add(b.mul(b.add(b.mul(block, codelet.padded_k), first), codelet.width), b.mul(vector, lanes))
        target = b.at(buffers[codelet.y.buffer], b.mul(b.add(place, codelet.y.offset), 4))
        for i in range(ks):
            b.store(made[i], target + 4 * i * codelet.width)

    begin = b.mul(task, codelet.chunk)
    end = b.minimum(b.add(begin, codelet.chunk), full + bool(rest))
    if full:
        b.loop(begin, b.minimum(end, full), 1, lambda at: column(at, lanes))
    if rest:
        b.when(b.equal(end, full + 1), lambda: column(full, rest))
