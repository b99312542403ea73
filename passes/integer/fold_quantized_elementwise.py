"""Compute sums, differences and products of dequantized tensors on the stored integers.

Before:

    %af = qcc.dequantize %a : tensor<4x!quant.uniform<u8:f32, 0.5>>
    %bf = qcc.dequantize %b : tensor<4x!quant.uniform<i8:f32, 0.25>>
    %s  = qcc.add %af, %bf
    %r  = qcc.clamp %s {min = 0.0, max = inf}
    %q  = qcc.quantize %r : tensor<4x!quant.uniform<u8:f32, 1.0:10>>

After:

    %q = qcc.add %a, %b {multipliers = [0.5, 0.25], clamp = [10, 255]} : tensor<4x!quant.uniform<u8:f32, 1.0:10>>

The product of one operand with itself, or of a tensor with a quantized constant, is folded in the same way.

Requires: graph form after propagate-quantization; all three types per tensor.
Guarantees: results differ from the source graph only by ties and the rounding of binary32 sums. Sums whose real result is used
elsewhere are folded too; the float sum then stays for the other users.
Why: residual connections run between convolutions; a float sum there would cost eight bytes of traffic per element instead of three.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects.mlir import create, dense_f32, ir, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import clamp_attribute, clamped_range, dequantized, erase_dead, per_tensor, producer


class FoldQuantizedElementwisePass(Pass):
    """See the module's docstring."""

    name = "fold-quantized-elementwise"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Fold every quantize of a sum, difference or product."""
        for op in walk(module, "qcc.quantize"):
            _fold(op)
        erase_dead(module)


def _fold(op: Any) -> None:
    result = op.results[0]
    kind = per_tensor(result)
    if kind is None:
        return
    value, low, high = clamped_range(op.operands[0], kind)
    source = producer(value, "qcc.add", "qcc.sub", "qcc.mul")
    if source is None:
        return
    a, b = (dequantized(operand) for operand in source.operands)
    a_kind, b_kind = (None if x is None else per_tensor(x) for x in (a, b))
    if a_kind is None or b_kind is None:
        return
    scales = [float(k.scales[0]) for k in (a_kind, b_kind)]
    step = float(kind.scales[0])
    real = [scales[0] * scales[1] / step] if source.name == "qcc.mul" else [scales[0] / step, scales[1] / step]
    multipliers = np.array(real, np.float32)
    if not (np.isfinite(multipliers).all() and (multipliers >= np.finfo(np.float32).tiny).all()):
        return
    attributes = {"multipliers": dense_f32(multipliers), "clamp": clamp_attribute(low, high, kind)}
    at = ir.InsertionPoint(op)
    replace_op(op, create(source.name, [a, b], [result.type], attributes, loc=source.location, ip=at).results)
