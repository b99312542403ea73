"""Make float constants of compressed weights whose layers compute in float and have no code that decodes on the way.

Before:

    %c = qcc.constant : tensor<8x4x3x3x!quant.uniform<i4:f32, 0.5>>
    %w = qcc.dequantize %c
    %y = qcc.conv2d %x, %w : (tensor<1x4x8x8xf32>, tensor<8x4x3x3xf32>) -> ...

After:

    %w = qcc.constant : tensor<8x4x3x3xf32>
    %y = qcc.conv2d %x, %w

Requires: integer form, after fold-qdq: what is still dequantized in front of a product stays so.
Guarantees: values unchanged. Weights of linear layers stay compressed: batch 1 streams them.
Why: decoding in every run costs more than the bytes of a convolution, which reads each weight for many pixels.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects import compressed_types, element_types
from qcc.dialects.mlir import ir, layer_name, replace_op, walk
from qcc.dialects.real_values import decode
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import constant_array, erase_dead, make_float_constant, producer, users


class DecodeWeightsPass(Pass):
    """See the module's docstring."""

    name = "decode-weights"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Decode the constants that only convolutions read."""
        for op in walk(module, "qcc.dequantize"):
            constant = None if "multiplier" in op.attributes else producer(op.operands[0], "qcc.constant")
            readers = users(op.results[0])
            if constant is None or not readers or any(u.name != "qcc.conv2d" or u.operands[1] != op.results[0] for u in readers):
                continue
            kind: Any = ir.RankedTensorType(constant.results[0].type)
            stored = constant_array(constant.results[0])
            if stored is None or (element_types.affine(kind) is None and compressed_types.describe(kind) is None):
                continue
            replace_op(op, [make_float_constant(decode(stored, kind), op, loc=constant.location, name=layer_name(constant.location))])
        erase_dead(module)
