"""Turn products between dequantized operands into exact integer products, and quantize behind them into requantize.

Before:

    %xf = qcc.dequantize %x : tensor<1x4x!quant.uniform<u8:f32, 0.5:3>>
    %wf = qcc.dequantize %w : tensor<2x4x!quant.uniform<i8:f32:0, {0.25, 0.5}>>
    %y  = qcc.linear %xf, %wf, %bias
    %r  = qcc.clamp %y {min = 0.0, max = inf}
    %q  = qcc.quantize %r : tensor<1x2x!quant.uniform<u8:f32, 1.0>>

After:

    %a = qcc.linear %x, %w, %ibias : tensor<1x2xi32>            // ibias = rint(bias / (0.5 * {0.25, 0.5}))
    %q = qcc.requantize %a {multiplier = [0.125, 0.25], axis = 1, mode = "f32"} : tensor<1x2x!quant.uniform<u8:f32, 1.0>>

Products of a real input with quantized constant weights stay as they are (fact weight_only). A product whose result stays real becomes
`qcc.dequantize` of its accumulator, with a float bias. `quantize(clamp(dequantize(x)))` with another scale, or with a clamp, becomes a
`qcc.requantize` of the quantized tensor, and disappears where nothing changes.

Requires: graph form after propagate-quantization; x per tensor, weights per tensor or per output channel.
Guarantees: every conv2d, linear and matmul of two such operands computes on integers; results differ from the source graph only by the
rounding of binary32 sums and of the bias, which is at most `bias_error` steps of the result (a layer above that keeps its bias real).
The accumulator is i32, or i64 where the types alone do not exclude overflow of i32; propagate-bitwidth states the proven width.
Why: compiler/decisions/0001; Jacob et al., "Quantization and training of neural networks ...", CVPR 2018, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects.element_types import Affine
from qcc.dialects.mlir import create, dense_f32, ir, layer_name, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import (
    affine_of,
    attributes_of,
    clamp_attribute,
    clamped_range,
    dequantized,
    erase_dead,
    float_array,
    make_constant,
    per_tensor,
    producer,
    retyped,
    shape_of,
    used_once,
)

_PRODUCTS = ("qcc.conv2d", "qcc.linear", "qcc.matmul")


@dataclass(frozen=True)
class Options:
    """`bias_error`: greatest error, in steps of the result, that rounding a bias to the accumulator's scale may cause."""

    bias_error: float = 0.25


class FoldQdqPass(Pass):
    """See the module's docstring."""

    name = "fold-qdq"
    Options = Options

    def run(self, module: ir.Module, context: PassContext) -> None:
        """First products to accumulators, then quantize to requantize."""
        for op in walk(module):
            if op.name in _PRODUCTS:
                _fold_product(op, context)
        erase_dead(module)
        for op in walk(module, "qcc.quantize"):
            _fold_quantize(op, self.options.bias_error, context)
        erase_dead(module)


def _fold_product(op: Any, context: PassContext) -> None:
    """Make `op` an integer product followed by the dequantize of its accumulator, where both operands allow it."""
    x, w = dequantized(op.operands[0]), dequantized(op.operands[1])
    if x is None and w is not None and producer(w, "qcc.constant") is not None:
        context.fact(layer_name(op.location), weight_only=True)
    if x is None or w is None:
        return
    x_kind, w_kind = per_tensor(x), affine_of(w) if op.name != "qcc.matmul" else per_tensor(w)
    if x_kind is None or w_kind is None or w_kind.axis not in (None, 0) or (w_kind.axis is None and w_kind.scales.size != 1):
        context.remarks.append(f"{layer_name(op.location) or op.name}: computed in float, because {_reason(op, x_kind, w)}")
        return
    multiplier = x_kind.scales.astype(np.float64) * w_kind.scales.astype(np.float64)
    if not _representable(multiplier):
        context.remarks.append(
            f"{layer_name(op.location) or op.name}: computed in float, because the product of its scales is not a binary32"
        )
        return
    shape = shape_of(op.results[0])
    at = ir.InsertionPoint(op)
    width = _width_from_types(op, x_kind, w_kind)
    kind = retyped(op.results[0], ir.IntegerType.get_signless(width))
    acc = create(op.name, [x, w], [kind], attributes_of(op), loc=op.location, ip=at).results[0]
    bias = op.operands[2] if len(op.operands) > 2 else None
    axis = None if op.name == "qcc.matmul" else 1 if op.name == "qcc.conv2d" else len(shape) - 1
    attributes = {"multiplier": dense_f32(multiplier), "axis": axis}
    replace_op(op, create("qcc.dequantize", [acc, bias], [op.results[0].type], attributes, loc=op.location, ip=at).results)


def _reason(op: Any, x_kind: Affine | None, w: Any) -> str:
    if x_kind is None:
        return "its input is not quantized per tensor"
    if op.name == "qcc.matmul":
        return "its second operand is not quantized per tensor"
    return f"no integer product exists for weights of {ir.RankedTensorType(w.type).element_type}"[:200]


def _representable(scales: np.ndarray) -> bool:
    """Whether `scales` survive rounding to binary32 as normal, positive numbers."""
    info = np.finfo(np.float32)
    return bool((scales >= info.tiny).all() and (scales <= info.max).all())


def _width_from_types(op: Any, x: Affine, w: Affine) -> int:
    """32, or 64 where the longest sum of the types' extreme products (and a 31-bit bias) could leave 32 bits."""
    terms = int(np.prod(shape_of(op.operands[1])[1:])) if op.name != "qcc.matmul" else shape_of(op.operands[0])[-1]
    greatest = max(abs(x.qmin - int(x.zero_points[0])), abs(x.qmax - int(x.zero_points[0]))) * max(
        int(np.abs(w.qmin - w.zero_points).max()), int(np.abs(w.qmax - w.zero_points).max())
    )
    return 32 if terms * greatest < 1 << 31 else 64


def _fold_quantize(op: Any, bias_error: float, context: PassContext) -> None:
    result = op.results[0]
    kind = per_tensor(result)
    if kind is None:
        return
    value, low, high = clamped_range(op.operands[0], kind)
    source = producer(value, "qcc.dequantize")
    if source is None:
        return
    if "multiplier" in source.attributes:
        _fold_accumulator(op, source, kind, (low, high), bias_error, context)
        return
    x = source.operands[0]
    clamp = clamp_attribute(low, high, kind)
    if x.type == result.type and clamp is None:
        replace_op(op, [x])
        return
    x_kind = per_tensor(x)
    if x_kind is None:
        return
    multiplier = x_kind.scales.astype(np.float64) / kind.scales
    if _representable(multiplier):
        attributes = {"multiplier": dense_f32(multiplier), "mode": "f32", "clamp": clamp}
        replace_op(op, create("qcc.requantize", [x], [result.type], attributes, loc=op.location, ip=ir.InsertionPoint(op)).results)


def _fold_accumulator(op: Any, source: Any, kind: Affine, limits: tuple[int, int], bias_error: float, context: PassContext) -> None:
    """Make quantize `op` of the dequantized accumulator `source` a requantize of the accumulator."""
    acc = source.operands[0]
    product = producer(acc, *_PRODUCTS)
    x_kind, w_kind = affine_of(product.operands[0]), affine_of(product.operands[1])
    if x_kind is None or w_kind is None:
        return
    scales = x_kind.scales.astype(np.float64) * w_kind.scales.astype(np.float64)
    multiplier = scales / kind.scales
    if not _representable(multiplier):
        return
    bias = None
    if len(source.operands) > 1:
        bias = _integer_bias(source, scales, multiplier, bias_error, ir.RankedTensorType(acc.type).element_type)
        if bias is None:
            context.remarks.append(
                f"{layer_name(product.location) or product.name}: bias kept real, because an integer one would be too coarse"
            )
            return
    at, location = ir.InsertionPoint(op), product.location
    if bias is not None and used_once(acc) and _only_for(source.results[0], op):
        constant = make_constant(bias, ir.IntegerType.get_signless(32), product, loc=location, name=layer_name(location))
        operands = [*product.operands, constant]
        biased = create(product.name, operands, [acc.type], attributes_of(product), loc=location, ip=ir.InsertionPoint(product))
        acc, bias = biased.results[0], None
    shared = None if bias is None else make_constant(bias, ir.IntegerType.get_signless(32), op, loc=location, name=layer_name(location))
    attributes = {
        "multiplier": dense_f32(multiplier),
        "axis": None if "axis" not in source.attributes else source.attributes["axis"],
        "mode": "f32",
        "clamp": clamp_attribute(*limits, kind),
    }
    replace_op(op, create("qcc.requantize", [acc, shared], [op.results[0].type], attributes, loc=location, ip=at).results)


def _only_for(value: Any, quantize: Any) -> bool:
    """Whether `value` serves nothing but `quantize`, directly or through clamps."""
    while used_once(value):
        user = next(iter(value.uses)).owner.operation
        if user == quantize:
            return True
        if user.name != "qcc.clamp":
            return False
        value = user.results[0]
    return False


def _integer_bias(source: Any, scales: np.ndarray, multiplier: np.ndarray, bias_error: float, element: Any) -> np.ndarray | None:
    """The bias of dequantize `source` at the accumulator's scale, [channels] i32; None where it does not fit or is too coarse."""
    real = float_array(source.operands[1])
    if real is None or not np.isfinite(real).all():
        return None
    exact = real / scales
    rounded = np.rint(exact)
    if np.abs(rounded).max(initial=0) >= 1 << 30 or (np.abs(exact - rounded) * multiplier).max(initial=0) > bias_error:
        return None
    return rounded.astype(np.int32)
