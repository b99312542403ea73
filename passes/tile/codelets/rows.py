"""softmax, layer_norm, rms_norm, reduce and attention: operations along contiguous rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from qcc.dialects.codelet import Rows, Step
from qcc.dialects.mlir import error_at, op_attribute
from qcc.passes.tile.codelets import elementwise, table_softmax
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.tasks import even_chunk
from qcc.passes.values import shape_of

TASK_ELEMENTS = 16384
MOST_TASKS = 16


def softmax(lowering: Lowering, op: Any) -> set[Any]:
    if "table" in op.attributes:
        return table_softmax.lower(lowering, op)
    x, axis = lowering.place(op.operands[0]), op_attribute(op, "axis")
    if axis == len(x.shape) - 1:
        return _along_rows(lowering, op, "softmax", x, Program(lowering), ())
    order = [i for i in range(len(x.shape)) if i != axis] + [axis]
    y = lowering.result(op.results[0])
    along_rows(lowering, "softmax", x.transposed(order), Program(lowering), y.transposed(order), ())
    return {op}


def norm(lowering: Lowering, op: Any) -> set[Any]:
    """layer_norm or rms_norm; gamma and beta are the first steps behind it."""
    kind = {"qcc.layer_norm": "normalize", "qcc.rms_norm": "rms_normalize"}[op.name]
    x, axes = lowering.place(op.operands[0]), op_attribute(op, "axes")
    shape = shape_of(op.operands[0])
    program = Program(lowering)
    epsilon = program.real(op_attribute(op, "epsilon"))
    for value, step in zip(list(op.operands)[1:], ("mul", "add"), strict=False):
        program.steps.append(Step("float", (program.operand(lowering.place(value).broadcast(shape)),), kind=step))
    if axes == 1:
        return _along_rows(lowering, op, kind, x, program, (epsilon,))
    flat = [*shape[: len(shape) - axes], math.prod(shape[len(shape) - axes :])]
    y = lowering.result(op.results[0])
    program.operands[:] = [_flat(lowering, p, flat) for p in program.operands]
    target = _flat(lowering, y, flat) if y.reshaped(flat) is not None else lowering.temporary("f32", flat)
    along_rows(lowering, kind, _flat(lowering, x, flat), program, target, (epsilon,))
    if y.reshaped(flat) is None:
        back = target.reshaped(shape)
        assert back is not None
        elementwise.copy(lowering, back, y)
    return {op}


def reduce(lowering: Lowering, op: Any) -> set[Any]:
    """The reduced axes become one last, contiguous dimension."""
    x, axes = lowering.place(op.operands[0]), sorted(op_attribute(op, "axes"))
    if x.element != "f32":
        raise error_at(op, f"qcc.reduce found {op.operands[0].type}, expected f32; insert qcc.dequantize before it")
    kept = [i for i in range(len(x.shape)) if i not in axes]
    count = math.prod(x.shape[i] for i in axes)
    moved = _flat(lowering, x.transposed([*kept, *axes]), [*(x.shape[i] for i in kept), count])
    y = lowering.result(op.results[0])
    target = y if not op_attribute(op, "keepdims") else _view(y, kept)
    target = replace(target, shape=(*target.shape, 1), strides=(*target.strides, 1), halo=(0, 0, 0, 0))
    along_rows(lowering, op_attribute(op, "kind"), moved, Program(lowering), target, ())
    return {op}


def _view(y: Place, kept: list[int]) -> Place:
    return replace(y, shape=tuple(y.shape[i] for i in kept), strides=tuple(y.strides[i] for i in kept))


def _flat(lowering: Lowering, place: Place, shape: list[int]) -> Place:
    view = place.reshaped(shape)
    if view is None:
        copied = lowering.temporary(place.element, place.shape)
        elementwise.copy(lowering, place, copied)
        view = copied.reshaped(shape)
        assert view is not None
    return view


def _along_rows(lowering: Lowering, op: Any, kind: str, x: Place, program: Program, args: tuple[int, ...]) -> set[Any]:
    absorbed = elementwise.absorb(lowering, program, op.results[0])
    y = lowering.result(absorbed[-1].results[0] if absorbed else op.results[0])
    along_rows(lowering, kind, x, program, y, args)
    return {op, *absorbed}


def along_rows(lowering: Lowering, kind: str, x: Place, program: Program, y: Place, args: tuple[int, ...]) -> None:
    """x [..., length] to y [..., length] (or [..., 1] of a reduction), with program operands shaped like y."""
    if x.strides[-1] != 1 and x.shape[-1] > 1:
        copied = lowering.temporary(x.element, x.shape)
        elementwise.copy(lowering, x, copied)
        x = copied
    others = [*program.operands, y]
    sizes, strides = elementwise.collapse(x.shape[:-1], [p.strides[:-1] for p in (x, *others)])
    length = x.shape[-1]
    tasks = max(1, min(MOST_TASKS, sizes[0], math.prod(sizes) * length // TASK_ELEMENTS))
    params = [lowering.params(program.words)] if program.words else []
    count = len(program.operands)
    codelet = Rows(
        isa=lowering.isa,
        op=kind,
        sizes=(*sizes, length),
        args=args,
        x=x.operand(0, (*strides[0], 1)),
        chunk=even_chunk(sizes[0], tasks),
        operands=tuple(p.operand(1 + i, (*strides[1 + i], p.strides[-1])) for i, p in enumerate(program.operands)),
        steps=tuple(program.steps),
        params=1 + count if params else -1,
        y=y.operand(1 + count + len(params), (*strides[-1], y.strides[-1])),
    )
    lowering.call(codelet, [x, *program.operands, *params, y], scratch_bytes=4 * length)
