"""Linear layers of dynamically quantized activations become integer products.

Before:

    %r = qcc.round_dynamic %x : tensor<4x8xf32>
    %f = qcc.dequantize %w : tensor<16x8x!quant.uniform<i8:f32:0, {...}>>
    %y = qcc.linear %r, %f, %bias

After:

    %y = qcc.dynamic_linear %x, %w, %bias

Requires: graph form; constant weights of at most 8 bits, one scale per tensor or output channel; a constant bias.
Guarantees: the value that ONNX's DynamicQuantizeLinear, MatMulInteger, Cast and Mul have, or torchao's with a range for each row; the sum
exact, two roundings behind it.
Why: the levels are bytes, and products of bytes are what the machine does fastest; other uses of the rounded values stay in float.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import create, ir, op_attribute, replace_op, walk
from qcc.dialects.qcc import DYNAMIC_LONGEST
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import affine_of, constant_array, dequantized, erase_dead, producer, shape_of


class FoldDynamicQdqPass(Pass):
    """See the module's docstring."""

    name = "fold-dynamic-qdq"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Fold every linear layer of a dynamically rounded tensor."""
        for op in walk(module, "qcc.linear"):
            _fold(op)
        erase_dead(module)


def _fold(op: Any) -> None:
    rounded = producer(op.operands[0], "qcc.round_dynamic")
    w = dequantized(op.operands[1])
    kind = None if w is None else affine_of(w)
    if rounded is None or kind is None or constant_array(w) is None or kind.bits > 8 or kind.axis not in (None, 0):
        return
    if shape_of(w)[1] > DYNAMIC_LONGEST or any(constant_array(v) is None for v in list(op.operands)[2:]):
        return
    operands = [rounded.operands[0], w, *list(op.operands)[2:]]
    at = ir.InsertionPoint(op)
    given = {key: value for key in ("rows", "epsilon") if (value := op_attribute(rounded, key)) is not None}
    replace_op(op, create("qcc.dynamic_linear", operands, [op.results[0].type], given, loc=op.location, ip=at).results)
