"""Softmax of stored integers: exponentials from a table, exact integer sums, one rescaling per row.

Before:

    %f = qcc.dequantize %x : tensor<4x128x!quant.uniform<u8:f32, 0.1:3>>
    %s = qcc.softmax %f {axis = 1}
    %q = qcc.quantize %s : tensor<4x128x!quant.uniform<u8:f32, 0.00390625>>

After:

    %q = qcc.softmax %x {axis = 1, multiplier = 256.0, table = dense<[32767, 29649, ...]> : tensor<256xi16>}

What is subtracted from the greatest element of a row is a multiple of x's scale, so exp has at most 256 arguments. The table holds 15 bits.

Requires: graph form after propagate-quantization; both types per tensor and of at most 8 bits; at most SOFTMAX_LONGEST elements in a row.
Guarantees: results differ from the source graph by the rounding of the exponentials to 2^-15 of the row's greatest one.
Why: no polynomial per element, and bytes instead of floats between the products of an attention; sums of integers have no order.
The idea is I-BERT's integer softmax (Kim et al., 2021, section 3.5) with a table in place of its polynomial.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects.mlir import create, dense_f32, ir, op_attribute, replace_op, walk
from qcc.dialects.qcc import SOFTMAX_LONGEST, SOFTMAX_ONE
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import dequantized, erase_dead, per_tensor, producer, shape_of

LEAST_SCALE = 2.0**-24  # results before clamping must fit i32


class FoldQuantizedSoftmaxPass(Pass):
    """See the module's docstring."""

    name = "fold-quantized-softmax"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Fold every quantize of a softmax of a dequantize."""
        for op in walk(module, "qcc.quantize"):
            _fold(op)
        erase_dead(module)


def _fold(op: Any) -> None:
    softmax = producer(op.operands[0], "qcc.softmax")
    x = None if softmax is None else dequantized(softmax.operands[0])
    if softmax is None or x is None:
        return
    kind, result = per_tensor(x), per_tensor(op.results[0])
    axis = op_attribute(softmax, "axis")
    if kind is None or result is None or max(kind.bits, result.bits) > 8 or shape_of(x)[axis] > SOFTMAX_LONGEST:
        return
    if result.scales[0] < LEAST_SCALE:
        return
    differences = np.arange(kind.qmax - kind.qmin + 1, dtype=np.float64)
    table = np.rint(np.exp(-differences * np.float64(kind.scales[0])) * SOFTMAX_ONE).astype(np.int16)
    attributes = {"axis": axis, "table": table, "multiplier": dense_f32([float(np.float32(1) / np.float32(result.scales[0]))])}
    at = ir.InsertionPoint(op)
    replace_op(op, create("qcc.softmax", [x], [op.results[0].type], attributes, loc=softmax.location, ip=at).results)
