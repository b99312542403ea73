"""Forms of ONNX operators that torch-mlir converts to something that computes other numbers; they are refused before the import.

A wrong answer is worse than a refusal. Every entry of `REFUSALS` is as narrow as the node tests of the onnx package show the error to be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from qcc.compiler.frontend.onnx_graph import OnnxGraph, attributes, error_at_node

_PROTO = onnx.TensorProto
NARROW_INTEGERS: dict[int, str] = {_PROTO.INT2: "int2", _PROTO.UINT2: "uint2", _PROTO.INT4: "int4", _PROTO.UINT4: "uint4"}
FLOATS: frozenset[int] = frozenset({_PROTO.FLOAT, _PROTO.FLOAT16, _PROTO.BFLOAT16, _PROTO.DOUBLE})
LENGTH_TOLERANCE = 1e-4  # elements; a scale is a float32, so that of a whole length misses it by a rounding


@dataclass(frozen=True)
class Refusal:
    """One form of an operator. `found` says what of a node is converted wrongly, or None for a node that is converted well."""

    operator: str
    found: Callable[[OnnxGraph, onnx.NodeProto], str | None]
    reason: str
    remedy: str


def require_right_conversions(graph: OnnxGraph) -> None:
    """Raise QccError for the first node, also inside subgraphs, whose conversion computes wrong numbers. Needs `graph.kinds`."""
    for node in _every(graph.nodes):
        for refusal in REFUSALS:
            if node.op_type != refusal.operator or node.domain:
                continue
            found = refusal.found(graph, node)
            if found is not None:
                raise error_at_node(node, f"onnx.{node.op_type} with {found} cannot be compiled: {refusal.reason}; {refusal.remedy}")


def _every(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
            yield from _every(itertools.chain.from_iterable(graph.node for graph in graphs))


def _input(node: onnx.NodeProto, index: int) -> str:
    return node.input[index] if index < len(node.input) else ""


def _nearest_samples(_: OnnxGraph, node: onnx.NodeProto) -> str | None:
    return "mode 'nearest'" if attributes(node).get("mode") == "nearest" else None


def _samples_outside(graph: OnnxGraph, node: onnx.NodeProto) -> str | None:
    grid = graph.array(_input(node, 1))  # [n, h, w, 2], -1 to 1 is the image
    if attributes(node).get("padding_mode", "zeros") != "zeros":
        return None
    if grid is None:  # the converted operator reads beyond the image, so what only run time knows must be refused as well
        return "padding_mode 'zeros' and a grid that is computed at run time"
    if np.all(np.abs(grid) <= 1):
        return None
    return f"padding_mode 'zeros' and a grid that reaches {np.max(np.abs(grid)):.3g}"


def _fractional_length(graph: OnnxGraph, node: onnx.NodeProto) -> str | None:
    """ONNX spreads the corners over the length before it is rounded, `size * scale`; torch over the rounded one."""
    given = attributes(node)
    scales = graph.array(_input(node, 2))
    if given.get("coordinate_transformation_mode") != "align_corners" or given.get("mode", "nearest") not in ("linear", "cubic"):
        return None
    if scales is None or scales.size == 0 or not {node.input[0], node.output[0]} <= graph.kinds.keys():
        return None
    sizes, results = (graph.kinds[name][1] for name in (node.input[0], node.output[0]))
    axes = given.get("axes") or range(len(sizes))
    for axis, scale in zip(axes, scales, strict=True):
        size, result = sizes[axis], results[axis]
        if size is not None and result is not None and abs(size * float(scale) - result) > LENGTH_TOLERANCE:
            length = size * float(scale)
            return f"coordinate_transformation_mode 'align_corners' and scale {float(scale):.4g} of axis {axis} from {size} to {length:.4g}"
    return None


def _narrow_target(graph: OnnxGraph, node: onnx.NodeProto) -> str | None:
    source, target = (graph.kinds.get(_input(node, index), (0, ()))[0] for index in (0, 1))
    return f"element type {NARROW_INTEGERS[target]} from floats" if source in FLOATS and target in NARROW_INTEGERS else None


def _shift_outside(graph: OnnxGraph, node: onnx.NodeProto) -> str | None:
    counts = graph.array(_input(node, 1))
    if counts is None or counts.size == 0:
        return None
    width = 8 * counts.dtype.itemsize
    low, high = int(counts.min()), int(counts.max())
    return None if low >= 0 and high < width else f"a shift count of {low if low < 0 else high} for {width} bits"


WRONG = "the conversion of this form gives wrong numbers"

REFUSALS = (
    Refusal("GridSample", _nearest_samples, WRONG, "export the model with mode 'linear' and a grid within -1 to 1"),
    Refusal("GridSample", _samples_outside, WRONG + " outside -1 to 1", "export the model with a grid that is clipped to -1 to 1"),
    Refusal("Resize", _fractional_length, WRONG, "export the model with sizes, with scales of whole lengths, or with mode 'half_pixel'"),
    Refusal("CastLike", _narrow_target, "the conversion gives wrong numbers or none", "export the model with QuantizeLinear or with int8"),
    Refusal(
        "BitShift", _shift_outside, "the conversion leaves such counts undefined", "export the model with counts from 0 to below the width"
    ),
)
