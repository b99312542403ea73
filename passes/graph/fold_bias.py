"""Make the addition of a per-channel constant after a convolution or linear layer that layer's bias.

Before:

    %y = qcc.linear %x, %w : tensor<4x2xf32>
    %z = qcc.add %y, %b : (tensor<4x2xf32>, tensor<2xf32>)

After:

    %z = qcc.linear %x, %w, %b

Requires: graph form; the sum's constant is float, or the dequantize of a constant.
Guarantees: values unchanged up to the association of one float addition. A layer that has a constant bias already gets the sum.
A layer whose result has other uses is left alone.
Why: ONNX MatMul and some torch exports carry the bias as an addition, which on integers is an initial value of the accumulator.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects.mlir import ir, op_attribute, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import erase_dead, float_array, make_float_constant, producer, rebuilt, shape_of, used_once


class FoldBiasPass(Pass):
    """See the module's docstring."""

    name = "fold-bias"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Fold every addition and subtraction of a constant."""
        for op in walk(module):
            if op.name in ("qcc.add", "qcc.sub"):
                _fold(op)
        erase_dead(module)


def _fold(op: Any) -> None:
    a, b = op.operands
    if op.name == "qcc.add" and producer(a, "qcc.conv2d", "qcc.linear") is None:
        a, b = b, a
    layer = producer(a, "qcc.conv2d", "qcc.linear")
    if layer is None or not used_once(a) or shape_of(a) != shape_of(op.results[0]):
        return
    added = _per_channel(b, a, axis=1 if layer.name == "qcc.conv2d" else len(shape_of(a)) - 1)
    bias = float_array(layer.operands[2]) if len(layer.operands) > 2 else np.zeros(1)
    if added is None or bias is None or op_attribute(op, "multipliers") is not None:
        return
    total = bias + (added if op.name == "qcc.add" else -added)
    constant = make_float_constant(total.astype(np.float32), op, loc=layer.location)
    replace_op(op, [rebuilt(layer, [layer.operands[0], layer.operands[1], constant], op.results[0].type, before=op)])


def _per_channel(value: Any, like: Any, axis: int) -> np.ndarray | None:
    """The constant `value` as one number per index of `axis` of `like`, or None where it is not constant or varies elsewhere."""
    array = float_array(value)
    if array is None:
        return None
    shape = shape_of(like)
    wide = array.reshape([1] * (len(shape) - array.ndim) + list(array.shape))
    if any(n != 1 for i, n in enumerate(wide.shape) if i != axis):
        return None
    return np.broadcast_to(wide.reshape(-1), (shape[axis],))
