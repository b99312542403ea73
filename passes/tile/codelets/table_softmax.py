"""Softmax on stored bytes as a codelet of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qcc.dialects.codelet import TableSoftmax
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import op_attribute
from qcc.passes.tile.codelets import elementwise
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place, stored_offset
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.tasks import even_chunk
from qcc.passes.values import affine_of, shape_of

TASK_ELEMENTS = 16384
MOST_TASKS = 16


def lower(lowering: Lowering, op: Any) -> set[Any]:
    """Call the codelet on x, copied where its rows are not contiguous or lie in the caller's memory, behind which no vector may read."""
    x, y, axis = lowering.place(op.operands[0]), lowering.result(op.results[0]), op_attribute(op, "axis")
    order = [i for i in range(len(x.shape)) if i != axis] + [axis]
    x, target = x.transposed(order), y.transposed(order)
    if (x.strides[-1] != 1 and x.shape[-1] > 1) or x.buffer.owner.attributes["space"].value == "input":
        copied = lowering.temporary(x.element, x.shape)
        elementwise.copy(lowering, x, copied)
        x = copied
    if target.strides[-1] != 1 and target.shape[-1] > 1:
        made = lowering.temporary(y.element, target.shape)
        _call(lowering, op, x, made)
        elementwise.copy(lowering, made, target)
    else:
        _call(lowering, op, x, target)
    return {op}


def _call(lowering: Lowering, op: Any, x: Place, y: Place) -> None:
    if 0 in x.shape:
        return
    program, kind = Program(lowering), affine_of(op.results[0])
    assert kind is not None
    extra = stored_offset(op.results[0].type)
    multiplier = float(op_attribute(op, "multiplier").reshape(-1)[0])
    args = (
        program.real(multiplier),
        program.integer(int(kind.zero_points[0]) + extra),
        program.integer(kind.qmin + extra),
        program.integer(kind.qmax + extra),
    )
    sizes, strides = elementwise.collapse(x.shape[:-1], [x.strides[:-1], y.strides[:-1]])
    length = shape_of(op.operands[0])[op_attribute(op, "axis")]
    tasks = max(1, min(MOST_TASKS, sizes[0], math.prod(sizes) * length // TASK_ELEMENTS))
    table = _table(lowering, op_attribute(op, "table").reshape(-1))
    codelet = TableSoftmax(
        isa=lowering.isa,
        sizes=(*sizes, length),
        x=x.operand(0, (*strides[0], 1)),
        table=table.operand(1, (1,)),
        args=args,
        y=y.operand(3, (*strides[1], 1)),
        params=2,
        chunk=even_chunk(sizes[0], tasks),
    )
    lowering.call(codelet, [x, table, lowering.params(program.words), y], scratch_bytes=4 * (length + 64))


def _table(lowering: Lowering, values: np.ndarray) -> Place:
    padded = np.zeros(256, np.int32)
    padded[: values.size] = values
    if ISAS[lowering.isa].byte_lanes:
        return lowering.weights(np.concatenate([padded & 255, padded >> 8]), "u8")
    return lowering.weights(padded, "i32")
