"""The loop nest of insert: copy rows to where positions say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import Insert
from qcc.passes.llvm.codelets.access import bytes_of
from qcc.passes.llvm.codelets.builder import Builder, Index, Value
from qcc.passes.llvm.codelets.embedding import copy_row, position


def emit(b: Builder, codelet: Insert, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c = codelet
    outer, count, width = c.sizes

    def row(o: Index, i: Index) -> None:
        place = position(b, c.positions, b.at(buffers[c.positions.buffer], bytes_of(c.positions, (i,), b)), c.rows)
        source = b.at(buffers[c.x.buffer], bytes_of(c.x, (o, i, 0), b))
        copy_row(b, c.y.element, width, source, b.at(buffers[c.y.buffer], bytes_of(c.y, (o, place, 0), b)))

    low = b.mul(task, c.chunk)
    b.loop(low, b.minimum(b.add(low, c.chunk), outer), 1, lambda o: b.loop(0, count, 1, lambda i: row(o, i)))
