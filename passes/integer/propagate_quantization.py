"""Move quantize and dequantize through operations that only move or select elements, so that integers travel as far as possible.

Before:

    %f = qcc.dequantize %x : tensor<2x8x!quant.uniform<u8:f32, 0.5:3>>
    %r = qcc.reshape %f : tensor<16xf32>
    %y = qcc.linear %r, %w
    %t = qcc.transpose %y {permutation = [1, 0]}
    %q = qcc.quantize %t

After:

    %r = qcc.reshape %x : tensor<16x!quant.uniform<u8:f32, 0.5:3>>
    %f = qcc.dequantize %r
    %y = qcc.linear %f, %w
    %q = qcc.quantize %y
    %t = qcc.transpose %q {permutation = [1, 0]}

Downwards, dequantize passes reshape, transpose, slice, broadcast, pad with 0, embedding, max pooling, concatenation of tensors of one
type, and clamps whose limits are exact in the tensor's steps (a requantize with multiplier 1 and `clamp`). Upwards, quantize passes all
of these but embedding (taking clamps along), and goes to every operand of a concatenation, where all uses of their input are quantized
alike.

Requires: graph form; types per tensor.
Guarantees: values unchanged: each of these operations commutes with an element-wise monotone function that keeps 0. A quantize of a
dequantize of the same type disappears.
Why: the fewer float values, the fewer bytes, and the more patterns fold-qdq sees.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects.element_types import Affine
from qcc.dialects.mlir import create, dense_f32, ir, op_attribute, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import (
    MOVEMENT,
    attributes_of,
    clamp_attribute,
    clamped_range,
    dequantized,
    element_of,
    erase_dead,
    per_tensor,
    producer,
    rebuilt,
    retyped,
    shape_of,
    used_once,
    users,
)

_ONE_OPERAND = MOVEMENT | {"qcc.max_pool2d"}


class PropagateQuantizationPass(Pass):
    """See the module's docstring."""

    name = "propagate-quantization"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """One sweep downwards in program order, one upwards against it."""
        for op in walk(module):
            if op.name in _ONE_OPERAND or op.name == "qcc.embedding":
                _sink(op)
            elif op.name == "tensor.concat":
                _sink_concat(op)
            elif op.name == "qcc.clamp":
                _sink_clamp(op)
        erase_dead(module)
        pending = list(walk(module, "qcc.quantize"))
        while pending:
            pending += _hoist(pending.pop())
        erase_dead(module)


def _sink(op: Any) -> None:
    """movement(dequantize(x)) becomes dequantize(movement(x))."""
    x = dequantized(op.operands[0])
    if x is None or per_tensor(x) is None or not _keeps_zero(op):
        return
    result = op.results[0]
    moved = rebuilt(op, [x, *list(op.operands)[1:]], retyped(result, element_of(x)))
    replace_op(op, create("qcc.dequantize", [moved], [result.type], loc=op.location, ip=ir.InsertionPoint(op)).results)


def _sink_concat(op: Any) -> None:
    parts = [dequantized(operand) for operand in op.operands]
    if any(p is None for p in parts) or per_tensor(parts[0]) is None or len({str(element_of(p)) for p in parts}) != 1:
        return
    result = op.results[0]
    joined = rebuilt(op, parts, retyped(result, element_of(parts[0])))
    replace_op(op, create("qcc.dequantize", [joined], [result.type], loc=op.location, ip=ir.InsertionPoint(op)).results)


def _sink_clamp(op: Any) -> None:
    """clamp(dequantize(x)) with exact limits becomes dequantize(requantize(x)), unless quantize alone reads it and folds it."""
    x = dequantized(op.operands[0])
    kind = None if x is None else per_tensor(x)
    if x is None or kind is None or all(_reaches_quantize_only(user) for user in users(op.results[0])):
        return
    if not all(_is_exact(op_attribute(op, name), kind) for name in ("min", "max")):
        return
    _, low, high = clamped_range(op.results[0], kind)
    attributes = {"multiplier": dense_f32([1.0]), "mode": "f32", "clamp": clamp_attribute(low, high, kind)}
    at = ir.InsertionPoint(op)
    clamped = x if attributes["clamp"] is None else create("qcc.requantize", [x], [x.type], attributes, loc=op.location, ip=at).results[0]
    replace_op(op, create("qcc.dequantize", [clamped], [op.results[0].type], loc=op.location, ip=at).results)


def _reaches_quantize_only(user: Any) -> bool:
    while user.name in _ONE_OPERAND or user.name == "qcc.clamp":
        followers = users(user.results[0])
        if len(followers) != 1:
            return False
        user = followers[0]
    return user.name == "qcc.quantize"


def _is_exact(bound: float, kind: Affine) -> bool:
    """Whether clamping at `bound` and at its nearest stored integer are the same for every real value of `kind`."""
    scale, zero = np.float32(kind.scales[0]), int(kind.zero_points[0])
    least, greatest = np.float32(kind.qmin - zero) * scale, np.float32(kind.qmax - zero) * scale
    if bound <= least or bound >= greatest:
        return True
    return float(np.float32(np.rint(np.float32(bound) / scale)) * scale) == float(np.float32(bound))


def _keeps_zero(op: Any) -> bool:
    return op.name != "qcc.pad" or op_attribute(op, "value", 0.0) == 0.0


def _hoist(op: Any) -> list[Any]:
    """quantize(movement(v)) becomes movement(quantize(v)); the quantizes made, for going on."""
    result, value = op.results[0], op.operands[0]
    kind = per_tensor(result)
    if kind is None:
        return []
    x = dequantized(value)
    if x is not None and x.type == result.type:
        replace_op(op, [x])
        return []
    if _hoist_clamp(value):
        return [op]
    source = producer(value, "tensor.concat", *_ONE_OPERAND)
    if source is None or not used_once(value) or not _keeps_zero(source):
        return []
    if not all(dequantized(v) is not None or _quantized_alike(v, element_of(result)) for v in source.operands):
        return []
    at, location = ir.InsertionPoint(source), op.location
    made = [
        create("qcc.quantize", [operand], [retyped(operand, element_of(result), shape_of(operand))], loc=location, ip=at)
        for operand in source.operands
    ]
    moved = create(source.name, [m.results[0] for m in made], [result.type], attributes_of(source), loc=source.location, ip=at)
    replace_op(op, moved.results)
    source.erase()
    return [m.operation for m in made]


def _hoist_clamp(value: Any) -> bool:
    """Where `value` is clamp(movement(v)) and nothing else uses either, make it movement(clamp(v)); whether it was."""
    clamp = producer(value, "qcc.clamp")
    source = None if clamp is None else producer(clamp.operands[0], "tensor.concat", *_ONE_OPERAND)
    if clamp is None or source is None or not used_once(value) or not used_once(source.results[0]) or not _keeps_zero(source):
        return False
    if source.name == "qcc.pad" and not op_attribute(clamp, "min") <= 0 <= op_attribute(clamp, "max"):
        return False
    parts = [rebuilt(clamp, [operand], operand.type, before=source) for operand in source.operands]
    replace_op(clamp, [rebuilt(source, parts, source.results[0].type)])
    source.erase()
    return True


def _quantized_alike(value: Any, element: Any) -> bool:
    """Whether all that becomes of `value`, behind operations that only move elements, is quantized to `element`."""
    for user in users(value):
        if user.name == "qcc.quantize":
            if element_of(user.results[0]) != element:
                return False
        elif user.name not in _ONE_OPERAND | {"tensor.concat"} or not _keeps_zero(user) or not _quantized_alike(user.results[0], element):
            return False
    return True
