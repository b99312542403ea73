"""Move reshapes and transposes below linear layers and element-wise functions, so that what follows a product stands right behind it.

Before:

    %r = qcc.reshape %x : tensor<1x128x384x!q> -> tensor<128x384x!q>
    %a = qcc.linear %r, %w
    %q = qcc.requantize %a {axis = 1, ...}
    %s = qcc.reshape %q : tensor<128x1536x!q> -> tensor<1x128x1536x!q>
    %t = qcc.transpose %s {permutation = [0, 2, 1]}
    %g = qcc.lut %t {table = ...}

After:

    %a = qcc.linear %x, %w
    %q = qcc.requantize %a {axis = 2, ...}
    %g = qcc.lut %q {table = ...}
    %t = qcc.transpose %g {permutation = [0, 2, 1]}

A reshape passes a linear layer (also a dynamic one) where it keeps the last axis. Element-wise functions of one tensor (lut, requantize,
clamp, unary, float arithmetic with one number, and behind a reshape that keeps the last axis also quantize and dequantize) move above
reshape and transpose where nothing else uses the moved
tensor. Reshapes of reshapes are one, and one that changes nothing disappears.

Requires: integer form; types per tensor, multipliers per tensor or along the last axis.
Guarantees: the same values: each of these operations treats elements, or rows of the last axis, alike.
Why: exporters wrap linear layers in reshapes to two axes (ONNX Gemm), and split heads before they scale or look up; a codelet can fuse only
what stands directly behind its product, and a function of a tensor that lies in order is one run of bytes.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects import element_types
from qcc.dialects.mlir import create, ir, op_attribute, replace_op, to_attribute, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import (
    affine_of,
    attributes_of,
    constant_array,
    element_of,
    erase_dead,
    producer,
    rebuilt,
    retyped,
    shape_of,
    used_once,
)

_LINEAR = ("qcc.linear", "qcc.dynamic_linear")
_FUNCTIONS = ("qcc.lut", "qcc.requantize", "qcc.clamp", "qcc.unary")
_ARITHMETIC = ("qcc.add", "qcc.sub", "qcc.mul", "qcc.div")
_CONVERSIONS = ("qcc.quantize", "qcc.dequantize")


class SinkMovementPass(Pass):
    """See the module's docstring."""

    name = "sink-movement"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """One sweep in program order: what sinks below an operation meets the next one in its turn."""
        for op in walk(module):
            if op.name in (*_LINEAR, "qcc.reshape", *_FUNCTIONS, *_ARITHMETIC, *_CONVERSIONS):
                _sink_below(op)
        erase_dead(module)


def _sink_below(op: Any) -> None:
    """Move what made `op`'s operand below `op`, as often as there is something."""
    while op is not None:
        if op.name == "qcc.reshape":
            _merge(op)
            return
        moved = producer(op.operands[0], "qcc.reshape", "qcc.transpose")
        if moved is None or not _passes(op, moved):
            return
        op = _exchange(op, moved)


def _merge(op: Any) -> None:
    before = producer(op.operands[0], "qcc.reshape")
    source = op.operands[0] if before is None else before.operands[0]
    if source.type == op.results[0].type:
        replace_op(op, [source])
    elif before is not None:
        replace_op(op, [rebuilt(op, [source], op.results[0].type)])


def _passes(op: Any, moved: Any) -> bool:
    """Whether `op` may act on what `moved` moves."""
    rows = moved.name == "qcc.reshape" and _keeps_last(moved)
    if op.name in _LINEAR:
        return rows
    if op.name in _ARITHMETIC:
        number = shape_of(op.operands[1])
        return used_once(op.operands[0]) and number in ([], [1]) and constant_array(op.operands[1]) is not None and _is_float(op.results[0])
    if not used_once(op.operands[0]) or _along_axis(op.operands[0]) or _along_axis(op.results[0]):
        return False
    axis = op_attribute(op, "axis")
    if any(axis is None or len(shape_of(v)) != 1 for v in list(op.operands)[1:]):
        return False
    if axis is not None and not (rows and axis == len(shape_of(op.operands[0])) - 1):
        return False
    return op.name in _FUNCTIONS or rows


def _keeps_last(reshape: Any) -> bool:
    before, after = shape_of(reshape.operands[0]), shape_of(reshape.results[0])
    return bool(before) and bool(after) and before[-1] == after[-1]


def _along_axis(value: Any) -> bool:
    """Whether the element type of `value` has more than one scale."""
    if element_types.affine(ir.RankedTensorType(value.type)) is None:
        return str(element_of(value)).startswith("!")
    kind = affine_of(value)
    return kind is None or kind.axis is not None


def _is_float(value: Any) -> bool:
    return isinstance(element_of(value), ir.FloatType)


def _exchange(op: Any, moved: Any) -> Any:
    """moved(op(x)) in place of op(moved(x)); the new `op`, or None where it was the last."""
    source, result = moved.operands[0], op.results[0]
    shape = shape_of(source)
    if op.name in _LINEAR:
        shape = [*shape[:-1], shape_of(result)[-1]]
    attributes = attributes_of(op)
    if "axis" in attributes:
        attributes["axis"] = to_attribute(len(shape) - 1)
    at = ir.InsertionPoint(op)
    operands = [source, *list(op.operands)[1:]]
    made = create(op.name, operands, [retyped(result, element_of(result), shape)], attributes, loc=op.location, ip=at)
    after = create(moved.name, [made.results[0]], [result.type], attributes_of(moved), loc=moved.location, ip=at)
    replace_op(op, after.results)
    if not list(moved.results[0].uses):
        moved.erase()
    return made.operation
