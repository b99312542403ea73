"""Turn a product with a constant on either side into `qcc.linear`, whose weights are stored [out, in].

Before:

    %w = qcc.constant : tensor<3x2x!quant.uniform<i8:f32:1, {0.5, 0.25}>>
    %f = qcc.dequantize %w : tensor<3x2xf32>
    %y = qcc.matmul %x, %f : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>

After:

    %w = qcc.constant : tensor<2x3x!quant.uniform<i8:f32:0, {0.5, 0.25}>>
    %f = qcc.dequantize %w : tensor<2x3xf32>
    %y = qcc.linear %x, %f

Requires: graph form; fold-constants before it, so that a constant side is a constant or a dequantized or quantized one.
Guarantees: every `qcc.matmul` with a constant [k, n] right-hand side (leading axes of size 1 allowed) is a `qcc.linear`; the
transposition is left as a `qcc.transpose` of the constant, which fold-constants removes. With a constant [m, k] left-hand side it is one
of the transposed other side, transposed.
Why: one layout of weights, output channel first, makes per-channel scales an axis-0 affair for convolution and linear alike; and weights
of `w @ x` or an einsum are recognised, pruned and streamed as those of any layer.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import create, ir, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import constant_array, element_of, producer, retyped, shape_of


class ConvertMatmulToLinearPass(Pass):
    """See the module's docstring."""

    name = "convert-matmul-to-linear"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Convert every matmul with a constant side."""
        for op in walk(module, "qcc.matmul"):
            a, b = op.operands
            if _is_constant(a) and not _is_constant(b):
                _convert_left(op)
            else:
                _convert(op)


def _convert_left(op: Any) -> None:
    """a @ b = transpose(linear(transpose(b), a))."""
    a, b = op.operands
    a_shape, b_shape, y_shape = shape_of(a), shape_of(b), shape_of(op.results[0])
    if any(n != 1 for n in a_shape[:-2]) or not 2 <= len(a_shape) <= len(b_shape):
        return
    at = ir.InsertionPoint(op)
    order = [*range(len(b_shape) - 2), len(b_shape) - 1, len(b_shape) - 2]

    def turned(value: Any, shape: list[int]) -> Any:
        kind = retyped(value, element_of(value), [shape[i] for i in order])
        return create("qcc.transpose", [value], [kind], {"permutation": order}, loc=op.location, ip=at).results[0]

    if len(a_shape) > 2:
        a = create("qcc.reshape", [a], [retyped(a, element_of(a), a_shape[-2:])], loc=op.location, ip=at).results[0]
    y = retyped(op.results[0], element_of(op.results[0]), [y_shape[i] for i in order])
    made = create("qcc.linear", [turned(b, b_shape), a], [y], loc=op.location, ip=at).results[0]
    replace_op(op, [turned(made, [y_shape[i] for i in order])])


def _convert(op: Any) -> None:
    a, b = op.operands
    b_shape = shape_of(b)
    if not _is_constant(b) or any(n != 1 for n in b_shape[:-2]) or len(b_shape) > len(shape_of(a)):
        return
    at = ir.InsertionPoint(op)
    element = element_of(b)
    if len(b_shape) > 2:
        b = create("qcc.reshape", [b], [retyped(b, element, b_shape[-2:])], loc=op.location, ip=at).results[0]
    turned = retyped(b, element, b_shape[:-3:-1])
    weight = create("qcc.transpose", [b], [turned], {"permutation": [1, 0]}, loc=op.location, ip=at).results[0]
    replace_op(op, [create("qcc.linear", [a, weight], [op.results[0].type], loc=op.location, ip=at).results[0]])


def _is_constant(value: Any) -> bool:
    while (op := producer(value, "qcc.dequantize", "qcc.quantize", "qcc.reshape", "qcc.transpose")) is not None:
        value = op.operands[0]
    return constant_array(value) is not None
