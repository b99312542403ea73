"""Embedding: rows of a table that integers name. Of a quantized table stored integers and their scales are chosen, then dequantized."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qcc.dialects.codelet import ELEMENT_BYTES, Embedding, Step
from qcc.dialects.element_types import affine
from qcc.dialects.mlir import layer_name
from qcc.passes.tile.codelets import elementwise
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place, stored_offset
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.rows import MOST_TASKS, TASK_ELEMENTS
from qcc.passes.values import constant_array, producer, shape_of


def lower(lowering: Lowering, op: Any) -> set[Any]:
    ids, y = _contiguous(lowering, lowering.place(op.operands[1])), lowering.result(op.results[0])
    stored = stored_table(op.operands[0])
    target = y if y.contiguous else lowering.temporary(y.element, y.shape)
    if stored is None:
        _choose(lowering, lowering.place(op.operands[0]), ids, target)
    else:
        _dequantize(lowering, op, stored, ids, target)
    if target is not y:
        elementwise.copy(lowering, target, y)
    return {op}


def stored_table(table: Any) -> Any:
    """The constant integers behind a dequantized `table` with scales per row, or per group of a row; None for any other table."""
    dequantize = producer(table, "qcc.dequantize")
    if dequantize is None or "multiplier" in dequantize.attributes or constant_array(dequantize.operands[0]) is None:
        return None
    kind, (rows, width) = affine(dequantize.operands[0].type), shape_of(table)
    if kind is None or kind.bits > 16:
        return None
    scales = kind.aligned(kind.scales, 2)
    return dequantize.operands[0] if len(scales) == rows and width % scales.shape[1] == 0 else None


def _dequantize(lowering: Lowering, op: Any, stored: Any, ids: Place, y: Place) -> None:
    """Row-major y = (integers - zero points) * scales of the rows that `ids` name."""
    kind, table = affine(stored.type), lowering.place(stored)
    assert kind is not None
    scales = kind.aligned(kind.scales, 2)
    count, groups, width = math.prod(ids.shape), scales.shape[1], table.shape[1]
    shape = (count, groups, width // groups)
    zeros = np.broadcast_to(kind.aligned(kind.zero_points, 2), scales.shape) + stored_offset(stored.type)

    def chosen(held: Place) -> Place:
        rows = lowering.temporary(held.element, (count, groups, held.shape[1] // groups))
        _choose(lowering, held, ids, rows)
        return rows.broadcast(shape)

    program, tables = Program(lowering), [table, lowering.constant_place(scales)]
    if np.all(zeros == zeros[0, 0]):
        zero = program.integer(int(zeros[0, 0]))
    else:
        tables.append(lowering.constant_place(zeros.astype(np.int32)))
        zero = program.operand(chosen(tables[-1]))
    program.steps.append(Step("dequantize", (zero, program.operand(chosen(tables[1])))))
    target = y.reshaped(shape)
    assert target is not None  # it is row-major
    elementwise.run(lowering, program, chosen(table), target)
    scaled = "one scale per row" if groups == 1 else f"groups of {width // groups}"
    in_bytes = " in bytes" if kind.bits < 8 else ""
    stored_bytes = sum(math.prod(held.shape) * ELEMENT_BYTES[held.element] for held in tables)
    lowering.fact(layer_name(op.location), stored_format=f"int{kind.bits}{in_bytes}, {scaled}", stored_bytes=stored_bytes)


def _choose(lowering: Lowering, table: Place, ids: Place, y: Place) -> None:
    """Row-major y = rows of `table` that `ids` name."""
    table = _contiguous(lowering, table)
    (rows, width), count = table.shape, math.prod(ids.shape)
    codelet = Embedding(
        isa=lowering.isa,
        sizes=(count, width),
        rows=rows,
        table=table.operand(0, (width, 1)),
        ids=ids.operand(1, (1, 0)),
        y=y.operand(2, (width, 1)),
        chunk=max(1, math.ceil(count / MOST_TASKS)) if count * width > TASK_ELEMENTS else max(count, 1),
    )
    lowering.call(codelet, [table, ids, y])


def _contiguous(lowering: Lowering, x: Place) -> Place:
    """`x` row-major, copied where it is not."""
    if x.contiguous:
        return x
    copied = lowering.temporary(x.element, x.shape)
    elementwise.copy(lowering, x, copied)
    return copied
