"""Along which axis a value has channels, and how an operation relates the channels of its operands to those of its result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from qcc.dialects.mlir import ir, op_attribute
from qcc.passes.values import producer, shape_of

Axes = dict[Any, int]

TIED = frozenset(
    {
        "qcc.quantize", "qcc.dequantize", "qcc.requantize", "qcc.clamp", "qcc.unary", "qcc.lut", "qcc.add", "qcc.sub", "qcc.mul", "qcc.div",
        "qcc.max_pool2d", "qcc.avg_pool2d", "qcc.pad", "qcc.slice", "qcc.broadcast", "qcc.transpose", "qcc.reduce",
    }
)  # fmt: skip
"""Operations whose result's channel c depends on the operands' channels c only."""

MOVING = ("qcc.transpose", "qcc.reduce")
"""Of these, those whose result may have its channels along another axis than the operand."""


def channel_axes(operations: Iterable[Any]) -> Axes:
    """The channel axis of every value that has one: results of products, and what other operations make of them channel by channel."""
    axes: Axes = {}
    for op in operations:
        if not op.results or not isinstance(op.results[0].type, ir.RankedTensorType):
            continue
        axis = _axis(op, axes)
        if axis is not None:
            axes[op.results[0]] = axis
    return axes


def is_constant(value: Any) -> bool:
    """Whether `value` is a constant, whose channels can be taken out at will."""
    return producer(value, "qcc.constant", "arith.constant") is not None


def aligned(value: Any, result: Any, axis: int) -> int | None:
    """The axis of operand `value` that meets axis `axis` of `result` under numpy's broadcasting; None where it has none, or of size 1."""
    shape = shape_of(value)
    at = axis - (len(shape_of(result)) - len(shape))
    return at if at >= 0 and shape[at] != 1 else None


def reshaped(before: Sequence[int], axis: int, after: Sequence[int]) -> tuple[int, int] | None:
    """(axis, r) after a reshape where channel c becomes the r indices [c * r, c * r + r) of that axis, or None."""
    channels, outer = before[axis], math.prod(before[:axis])
    if channels == 1:
        return None
    for i, size in enumerate(after):
        if math.prod(after[:i]) != outer or size == 1:
            continue
        joined = 1
        for inner in [1, *before[axis + 1 :]]:
            joined *= inner
            if channels * joined == size:
                return i, joined
        return None
    return None


def _axis(op: Any, axes: Axes) -> int | None:
    result = op.results[0]
    if op.name == "qcc.conv2d":
        return 1
    if op.name == "qcc.linear":
        return len(shape_of(result)) - 1
    known = [v for v in op.operands if v in axes]
    if not known:
        return None
    if op.name == "tensor.concat":
        found = {axes.get(v) for v in op.operands}
        return found.pop() if len(found) == 1 else None
    shape = shape_of(result)
    if op.name == "qcc.reshape":
        moved = reshaped(shape_of(known[0]), axes[known[0]], shape)
        return None if moved is None else moved[0]
    if op.name not in TIED:
        return None
    return next((axis for x in known if (axis := _tied_axis(op, x, axes[x], shape)) is not None), None)


def _tied_axis(op: Any, x: Any, axis: int, shape: list[int]) -> int | None:
    """The channel axis that the result of `op`, of `shape`, has from operand `x` with channels along `axis`."""
    channels = shape_of(x)[axis]
    match op.name:
        case "qcc.transpose":
            axis = op_attribute(op, "permutation").index(axis)
        case "qcc.reduce":
            reduced = op_attribute(op, "axes")
            if axis in reduced:
                return None
            axis -= 0 if op_attribute(op, "keepdims") else sum(a < axis for a in reduced)
        case "qcc.pad":
            if op_attribute(op, "low")[axis] or op_attribute(op, "high")[axis]:
                return None
        case "qcc.slice":
            if op_attribute(op, "offsets")[axis] or op_attribute(op, "strides")[axis] != 1:
                return None
        case _:
            axis += len(shape) - len(shape_of(x))
    return axis if shape[axis] == channels else None
