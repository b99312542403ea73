"""Pool on stored integers: means with one rescaling, maxima without any.

Before:

    %f = qcc.dequantize %x : tensor<1x8x7x7x!quant.uniform<u8:f32, 0.5:3>>
    %m = qcc.reduce %f {kind = "mean", axes = [2, 3], keepdims = true}
    %q = qcc.quantize %m : tensor<1x8x1x1x!quant.uniform<u8:f32, 0.25>>

After:

    %q = qcc.avg_pool2d %x {kernel = [7, 7], multipliers = [2.0], count_include_pad = true, ...}

Reductions over neighbouring axes are pooling of a reshaped tensor: [..., r, ...] is [outer, 1, r, inner] with a kernel of [r, 1].
A sum is a mean times the number of elements.

Requires: graph form after propagate-quantization; both types per tensor; sums of a window that 32 bits hold.
Guarantees: quantize(clamp(avg_pool2d or reduce mean/sum/max (dequantize(x)))) computes on integers; results differ from the source
graph only by ties and the rounding of binary32 sums, maxima over both spatial axes not at all.
Why: the global mean before a classifier and squeeze-and-excite blocks would otherwise be float islands.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qcc.dialects.element_types import Affine
from qcc.dialects.mlir import create, dense_f32, ir, op_attribute, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import (
    attributes_of,
    clamp_attribute,
    clamped_range,
    dequantized,
    element_of,
    erase_dead,
    per_tensor,
    producer,
    retyped,
    shape_of,
)

_MOST = 1 << 31  # that the sum of a window may reach


class FoldQuantizedPoolingPass(Pass):
    """See the module's docstring."""

    name = "fold-quantized-pooling"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Fold every quantize of a pooled or reduced dequantize."""
        for op in walk(module, "qcc.quantize"):
            _fold(op)
        erase_dead(module)


def _fold(op: Any) -> None:
    kind = per_tensor(op.results[0])
    if kind is None:
        return
    value, low, high = clamped_range(op.operands[0], kind)
    source = producer(value, "qcc.avg_pool2d", "qcc.reduce")
    x = None if source is None else dequantized(source.operands[0])
    x_kind = None if x is None else per_tensor(x)
    if source is None or x_kind is None:
        return
    if _window(source) << x_kind.bits > _MOST:
        return
    multiplier, clamp = float(x_kind.scales[0]) / float(kind.scales[0]), clamp_attribute(low, high, kind)
    if source.name == "qcc.avg_pool2d":
        if (m := _rescale(multiplier)) is not None:
            attributes = {**attributes_of(source), **m, "clamp": clamp}
            made = create("qcc.avg_pool2d", [x], [op.results[0].type], attributes, loc=source.location, ip=ir.InsertionPoint(op))
            replace_op(op, made.results)
    elif op_attribute(source, "kind") in ("mean", "sum"):
        _fold_mean(op, source, x, multiplier, clamp)
    elif op_attribute(source, "kind") == "max":
        _fold_max(op, source, x, kind, clamp, multiplier)


def _window(source: Any) -> int:
    """Elements of x in one of the result."""
    if source.name == "qcc.avg_pool2d":
        return math.prod(op_attribute(source, "kernel"))
    shape = shape_of(source.operands[0])
    return math.prod(shape[axis] for axis in op_attribute(source, "axes"))


def _rescale(multiplier: float) -> dict[str, Any] | None:
    info = np.finfo(np.float32)
    return {"multipliers": dense_f32([multiplier])} if info.tiny <= multiplier <= info.max else None


def _fold_mean(op: Any, source: Any, x: Any, multiplier: float, clamp: list[int] | None) -> None:
    axes = sorted(op_attribute(source, "axes"))
    shape = shape_of(x)
    if not axes or axes != list(range(axes[0], axes[0] + len(axes))):
        return
    count = math.prod(shape[a] for a in axes)
    rescale = _rescale(multiplier * (count if op_attribute(source, "kind") == "sum" else 1))
    if rescale is None:
        return
    if len(shape) == 4 and axes == [2, 3]:
        view, kernel = shape, shape[2:]
    else:
        inner = math.prod(shape[axes[-1] + 1 :])
        view, kernel = [math.prod(shape[: axes[0]]), 1, count, inner], [count, 1]
    pooled = [view[0], view[1], view[2] // kernel[0], view[3] // kernel[1]]
    attributes = {"kernel": kernel, "strides": [1, 1], "padding": [0, 0, 0, 0], "count_include_pad": True, **rescale, "clamp": clamp}
    y = _reshaped(x, view, source, op)
    at = ir.InsertionPoint(op)
    pool = create("qcc.avg_pool2d", [y], [retyped(y, element_of(op.results[0]), pooled)], attributes, loc=source.location, ip=at)
    replace_op(op, [_reshaped(pool.results[0], shape_of(op.results[0]), source, op)])


def _fold_max(op: Any, source: Any, x: Any, kind: Affine, clamp: list[int] | None, multiplier: float) -> None:
    shape = shape_of(x)
    if len(shape) != 4 or sorted(op_attribute(source, "axes")) != [2, 3]:
        return
    attributes = {"kernel": shape[2:], "strides": [1, 1], "padding": [0, 0, 0, 0], "dilations": [1, 1]}
    at = ir.InsertionPoint(op)
    pool = create("qcc.max_pool2d", [x], [retyped(x, element_of(x), [*shape[:2], 1, 1])], attributes, loc=source.location, ip=at)
    y = _reshaped(pool.results[0], shape_of(op.results[0]), source, op)
    if y.type != op.results[0].type or clamp is not None:
        rescale = _rescale(multiplier)
        if rescale is None:
            return
        changed = {"multiplier": rescale["multipliers"], "mode": "f32", "clamp": clamp}
        y = create("qcc.requantize", [y], [op.results[0].type], changed, loc=source.location, ip=at).results[0]
    replace_op(op, [y])


def _reshaped(value: Any, shape: list[int], source: Any, before: Any) -> Any:
    if shape_of(value) == shape:
        return value
    kind = retyped(value, element_of(value), shape)
    return create("qcc.reshape", [value], [kind], loc=source.location, ip=ir.InsertionPoint(before)).results[0]
