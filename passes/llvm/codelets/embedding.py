"""The loop nest of embedding: copy rows of a table chosen by ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import ELEMENT_BYTES, Embedding, Operand
from qcc.passes.llvm.codelets.access import STORAGE, bytes_of, pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value


def emit(b: Builder, codelet: Embedding, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c = codelet

    def row(i: Index) -> None:
        chosen = position(b, c.ids, b.at(buffers[c.ids.buffer], bytes_of(c.ids, (i, 0), b)), c.rows)
        source = b.at(buffers[c.table.buffer], bytes_of(c.table, (chosen, 0), b))
        copy_row(b, c.y.element, c.sizes[1], source, b.at(buffers[c.y.buffer], bytes_of(c.y, (i, 0), b)))

    low = b.mul(task, c.chunk)
    b.loop(low, b.minimum(b.add(low, c.chunk), c.sizes[0]), 1, row)


def position(b: Builder, operand: Operand, address: Address, rows: int) -> Value:
    """The integer at `address` as one of `rows`: below 0 it counts from the end, and what is outside means the nearest."""
    chosen = b.load(STORAGE[operand.element], address)
    if STORAGE[operand.element] != "i64":
        chosen = b.cast("sext", chosen, "i64")
    chosen = b.select(b.less(chosen, 0), b.add(chosen, rows), chosen)
    return b.op("llvm.intr.smin", [b.op("llvm.intr.smax", [chosen, b.index(0)], "i64"), b.index(rows - 1)], "i64")


def copy_row(b: Builder, element: str, width: int, source: Address, target: Address) -> None:
    """`width` contiguous elements."""
    size, storage = ELEMENT_BYTES[element], STORAGE[element]
    lanes = 64 // size
    whole = width // lanes * lanes

    def copy(k: Index, count: int) -> None:
        moved = b.mul(k, size)
        b.store(b.load(f"{count}x{storage}", b.at(source, moved)), b.at(target, moved))

    b.loop(0, whole, lanes, lambda k: copy(k, lanes))
    for first, count in pieces(width - whole, lanes):
        copy(whole + first, count)
