"""Activations whose scale is found while running: their range, their u8 levels, and products with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects.codelet import RANGE_PARTS, DynamicQuantize, DynamicRange, Operand, RowQuantize, Step
from qcc.dialects.mlir import op_attribute
from qcc.passes.tile.codelets import elementwise, products
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.movement import contiguous
from qcc.passes.tile.codelets.place import Place
from qcc.passes.tile.codelets.program import Program
from qcc.passes.values import affine_of, shape_of

TASK_ELEMENTS = 16384


@dataclass(frozen=True)
class Levels:
    """u8 levels of a value, and where the codelet writes their scale (f32) and zero point (i32): [1], or [..., 1] for rows."""

    place: Place
    scale: Place
    zero: Place


def levels(lowering: Lowering, op: Any) -> Levels:
    """The first operand of `op` quantized by its own range; layers that share it share the levels."""
    key = (op.operands[0], op_attribute(op, "rows"), op_attribute(op, "epsilon"))
    if key not in lowering.dynamic:
        x = contiguous(lowering, lowering.place(op.operands[0]))
        lowering.dynamic[key] = _quantized(lowering, x) if key[1] is None else _quantized_rows(lowering, x, key[1] == "symmetric", key[2])
    return lowering.dynamic[key]


def _quantized_rows(lowering: Lowering, x: Place, symmetric: bool, epsilon: float) -> Levels:
    *lead, size = x.shape
    rows = math.prod(lead)
    y, scale, zero = lowering.temporary("u8", x.shape), lowering.temporary("f32", [*lead, 1]), lowering.temporary("i32", [*lead, 1])
    codelet = RowQuantize(
        isa=lowering.isa,
        sizes=(rows, size),
        symmetric=symmetric,
        epsilon=epsilon,
        chunk=min(rows, max(1, TASK_ELEMENTS // size)),
        x=x.operand(0, (size, 1)),
        scale=scale.operand(1, (1,)),
        zero=zero.operand(2, (1,)),
        y=Operand(3, "u8", (size, 1)),
    )
    lowering.call(codelet, [x, scale, zero, y], writes=3)
    return Levels(y, scale, zero)


def _quantized(lowering: Lowering, x: Place) -> Levels:
    size = math.prod(x.shape)
    chunk = math.ceil(size / min(RANGE_PARTS, max(1, size // TASK_ELEMENTS)) / 64) * 64
    flat = x.operand(0, (1,))
    ranges = lowering.temporary("f32", [2, RANGE_PARTS])
    found = DynamicRange(isa=lowering.isa, size=size, chunk=chunk, x=flat, y=ranges.operand(1, (1,)))
    lowering.call(found, [x, ranges])
    y, scale, zero = lowering.temporary("u8", x.shape), lowering.temporary("f32", [1]), lowering.temporary("i32", [1])
    codelet = DynamicQuantize(
        isa=lowering.isa,
        size=size,
        chunk=chunk,
        parts=-(-size // chunk),
        x=flat,
        ranges=ranges.operand(1, (1,)),
        scale=scale.operand(2, (0,)),
        zero=zero.operand(3, (0,)),
        y=Operand(4, "u8", (1,)),
    )
    lowering.call(codelet, [x, ranges, scale, zero, y], writes=3)
    return Levels(y, scale, zero)


def linear(lowering: Lowering, op: Any) -> set[Any]:
    """An integer product on the levels; zero point and scale of x are arguments of the steps behind it."""
    x, shape = levels(lowering, op), shape_of(op.results[0])
    axis, kind = len(shape) - 1, affine_of(op.operands[1])
    assert kind is not None
    sums = products.integers(lowering, op, op.operands[1]).astype(np.int64).sum(axis=1).astype(np.int32)
    program = Program(lowering)
    program.steps.append(Step("centre", (program.operand(x.zero.broadcast(shape)), program.per_channel(sums, axis, shape))))
    scales = program.per_channel(np.asarray(kind.scales, np.float32), axis, shape)
    program.steps.append(Step("scale_product", (program.operand(x.scale.broadcast(shape)), scales)))
    if len(op.operands) > 2:
        bias = lowering.constant_of(op, op.operands[2], "bias").astype(np.float32)
        program.steps.append(Step("float", (program.per_channel(bias, axis, shape),), kind="add"))
    absorbed = elementwise.absorb(lowering, program, op.results[0])
    products.contract_rows(lowering, op, x.place, None, program, absorbed)
    return {op, *absorbed}


def round_dynamic(lowering: Lowering, op: Any) -> set[Any]:
    """The levels' real values, for what computes in float."""
    x, shape = levels(lowering, op), shape_of(op.results[0])
    program = Program(lowering)
    one = program.integer(1)
    program.steps.append(Step("centre", (program.operand(x.zero.broadcast(shape)), one)))
    program.steps.append(Step("scale_product", (program.operand(x.scale.broadcast(shape)), program.real(1.0))))
    absorbed = elementwise.absorb(lowering, program, op.results[0])
    last = products.last_of(op, absorbed)
    elementwise.run(lowering, program, x.place, lowering.result(last), lowering.halo_word(last))
    return {op, *absorbed}
