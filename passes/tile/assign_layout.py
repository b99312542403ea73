"""assign-layout: which activations are stored channels-last, and which get a border for a padded convolution.

Before:
    %q = qcc.quantize %x : tensor<1x3x8x8x!quant.uniform<u8:f32, 0.5>>
    %a = qcc.conv2d %q, %w {padding = [1, 1, 1, 1], ...} : tensor<1x16x8x8xi32>

After:
    %q = qcc.quantize %x {qtile.layout = "channels_last", qtile.halo = [1, 1, 1, 1]}
    %a = qcc.conv2d %q, %w {padding = [1, 1, 1, 1], qtile.layout = "channels_last", ...}

Requires: integer form.
Guarantees: only discardable attributes change. Absent attributes mean row-major and no border. A border is asked for on results that a
codelet stores, never on views or arguments: a convolution that reads one of those is given a copy by lower-to-codelets.
Why: with channels innermost, a reduction over kernel columns and channels is one contiguous run, and vectors of output channels are
stored whole (decision 0002). Element-wise operations take the layout of their neighbours, so that no copies appear between layers.
Units: the border [top, left, bottom, right] counts pixels.
"""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import ir, op_attribute, to_attribute, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.tile.codelets.border import read_border
from qcc.passes.values import producer, shape_of

WINDOWS = ("qcc.conv2d", "qcc.max_pool2d", "qcc.avg_pool2d")
ELEMENTWISE = (
    "qcc.quantize",
    "qcc.dequantize",
    "qcc.requantize",
    "qcc.add",
    "qcc.sub",
    "qcc.mul",
    "qcc.div",
    "qcc.clamp",
    "qcc.unary",
    "qcc.lut",
    "qcc.maximum",
    "qcc.minimum",
    "qcc.compare",
    "qcc.select",
    "qcc.pad",
    "tensor.concat",
)


class AssignLayoutPass(Pass):
    name = "assign-layout"

    def run(self, module: ir.Module, context: PassContext) -> None:
        for function in walk(module, "func.func"):
            if "qcc.generic" not in function.attributes:
                _channels_last(function)
                _borders(function)


def _channels_last(function: Any) -> None:
    """Window operations want it; what is between them follows, forwards and backwards, until nothing changes."""
    ops = [op for op in walk(function) if op.name in WINDOWS or op.name in ELEMENTWISE]
    marked = {op for op in ops if op.name in WINDOWS}
    changed = True
    while changed:
        before = len(marked)
        for op in ops:
            if op not in marked and _images(op) and any(_marked_producer(v, marked) for v in op.operands):
                marked.add(op)
        for op in reversed(ops):
            if op in marked:
                for value in op.operands:
                    made = producer(value, *ELEMENTWISE)
                    if made is not None and len(shape_of(value)) == 4:
                        marked.add(made)
        changed = len(marked) != before
    for op in marked:
        op.attributes["qtile.layout"] = to_attribute("channels_last")


def _images(op: Any) -> bool:
    return len(shape_of(op.results[0])) == 4


def _marked_producer(value: Any, marked: set[Any]) -> bool:
    made = producer(value)
    return made is not None and made in marked


def _borders(function: Any) -> None:
    for op in walk(function, "qcc.conv2d"):
        made = producer(op.operands[0])
        if made is None or "qtile.layout" not in made.attributes:
            continue
        border = [max(a, b) for a, b in zip(read_border(op), op_attribute(made, "qtile.halo", [0] * 4), strict=True)]
        if any(border):
            made.attributes["qtile.halo"] = to_attribute(border)
