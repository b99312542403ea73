"""The loop nest of embedding: copy rows of a table chosen by ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, Embedding
from qcc.passes.llvm.codelets.access import STORAGE, bytes_of, pieces
from qcc.passes.llvm.codelets.builder import Builder, Index, Value


def emit(b: Builder, codelet: Embedding, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c = codelet
    size, storage = ELEMENT_BYTES[c.y.element], STORAGE[c.y.element]
    lanes = 64 // size
    width = c.sizes[1]
    whole = width // lanes * lanes

    def row(i: Index) -> None:
        chosen = b.load(STORAGE[c.ids.element], b.at(buffers[c.ids.buffer], bytes_of(c.ids, (i, 0), b)))
        if STORAGE[c.ids.element] != "i64":
            chosen = b.cast("sext", chosen, "i64")
        chosen = b.select(b.less(chosen, 0), b.add(chosen, c.rows), chosen)
        chosen = b.op("llvm.intr.smin", [b.op("llvm.intr.smax", [chosen, b.index(0)], "i64"), b.index(c.rows - 1)], "i64")
        source = b.at(buffers[c.table.buffer], bytes_of(c.table, (chosen, 0), b))
        target = b.at(buffers[c.y.buffer], bytes_of(c.y, (i, 0), b))

        def copy(k: Index, count: int) -> None:
            moved = b.mul(k, size)
            b.store(b.load(f"{count}x{storage}", b.at(source, moved)), b.at(target, moved))

        b.loop(0, whole, lanes, lambda k: copy(k, lanes))
        for first, count in pieces(width - whole, lanes):
            copy(whole + first, count)

    low = b.mul(task, c.chunk)
    b.loop(low, b.minimum(b.add(low, c.chunk), c.sizes[0]), 1, row)
