"""Store the signs that products with quantized weights read as integers of two bits.

Before:

    %s = qcc.unary %x {kind = "sign"} : tensor<1x8xf32>
    %y = qcc.linear %s, %w

After:

    %q = qcc.quantize %s : tensor<1x8x!quant.uniform<i2<-1:1>:f32, 1.0>>
    %f = qcc.dequantize %q
    %y = qcc.linear %f, %w

sign and binarize may be multiplied by one number, which becomes the scale, and moved (reshape, transpose, pad with 0, max pooling, ...) on
their way to the product. Other users of the signs keep the real values.

Requires: graph form; weights that are dequantized constants with one scale or one per output channel.
Guarantees: values unchanged, but NaN, which becomes -1.
Why: networks with binary activations (XNOR-Net, Rastegari et al., ECCV 2016) say so by a sign function only; their products are then exact
integers, and bits where the target counts them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects import element_types
from qcc.dialects.mlir import create, ir, op_attribute, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import MOVEMENT, affine_of, constant_array, dequantized, producer, retyped, scalar

_KINDS = ("sign", "binarize")
_PRODUCTS = ("qcc.conv2d", "qcc.linear")
_MOVING = MOVEMENT | {"qcc.max_pool2d"}


class QuantizeSignsPass(Pass):
    """See the module's docstring."""

    name = "quantize-signs"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Every product on its own: equal results are merged by cse."""
        for op in walk(module):
            if op.name in _PRODUCTS and _has_integer_weights(op.operands[1]):
                _convert(op)


def _has_integer_weights(w: Any) -> bool:
    stored = dequantized(w)
    if stored is None or constant_array(stored) is None:
        return False
    kind = affine_of(stored)
    return kind is not None and (kind.axis == 0 or (kind.axis is None and kind.scales.size == 1))


def _convert(op: Any) -> None:
    reader = op
    while (moving := producer(reader.operands[0], *_MOVING)) is not None:
        if moving.name == "qcc.pad" and op_attribute(moving, "value", 0.0) != 0.0:
            return
        reader = moving
    value = reader.operands[0]
    scale = _scale(value)
    if scale is None:
        return
    kind = element_types.affine_type(scale, bits=2, signed=True, qmin=-1, qmax=1)
    at = ir.InsertionPoint(reader)
    stored = create("qcc.quantize", [value], [retyped(value, kind)], loc=reader.location, ip=at).results[0]
    reader.operands[0] = create("qcc.dequantize", [stored], [value.type], loc=reader.location, ip=at).results[0]


def _scale(value: Any) -> float | None:
    """The magnitude of signs times a number, a normal binary32; None for anything else."""
    scale = 1.0
    while (op := producer(value, "qcc.mul")) is not None:
        first, factor = op.operands
        number = scalar(factor)
        if number is None or first.type != value.type:
            return None
        value, scale = first, float(np.float32(scale) * np.float32(number))
    op = producer(value, "qcc.unary")
    if op is None or op_attribute(op, "kind") not in _KINDS or not np.finfo(np.float32).tiny <= abs(scale) < np.inf:
        return None
    return abs(scale)
