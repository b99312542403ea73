"""Dynamic quantization (onnxruntime.quantization.quantize_dynamic): integer products of levels found while running.

DynamicQuantizeLinear, MatMulInteger with constant weights, Cast to float and Mul with the product of both scales become the same
product between DequantizeLinear operators, where `convert-onnx-quantization` and `fold-dynamic-qdq` find it. What does not match is left to
`onnx_integers`, which makes float arithmetic of it.
Source: ONNX operators DynamicQuantizeLinear (opset 11) and MatMulInteger (opset 10).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from qcc.compiler.frontend.onnx_graph import OnnxGraph, attributes, label, node

DYNAMIC, DEQUANTIZE = "DynamicQuantizeLinear", "DequantizeLinear"


def recognise(graph: OnnxGraph) -> None:
    """Rewrite in place; needs `graph.kinds`, and leaves them inferred."""
    makers = {name: n for n in graph.nodes for name in n.output if name}
    uses = graph.users()
    replaced: dict[str, list[onnx.NodeProto]] = {}
    for scaled in graph.nodes:
        if scaled.op_type == "Mul" and not scaled.domain:
            found = next((m for a, b in (scaled.input, scaled.input[::-1]) if (m := _match(graph, makers, uses, a, b))), None)
            if found is not None:
                replaced[scaled.output[0]] = _product(graph, scaled, *found)
    if replaced:
        graph.nodes = [n for s in graph.nodes for n in replaced.get(s.output[0] if s.output else "", [s])]
        graph.remove_dead()
        graph.infer()


def is_dynamic(source: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """Whether `source` dequantizes what a DynamicQuantizeLinear made, with its own parameters."""
    maker = makers.get(source.input[0])
    return source.op_type == DEQUANTIZE and maker is not None and maker.op_type == DYNAMIC and list(maker.output) == list(source.input)


def _match(
    graph: OnnxGraph, makers: dict[str, onnx.NodeProto], uses: dict[str, int], product: str, scales: str
) -> tuple[onnx.NodeProto, onnx.NodeProto, str] | None:
    """(the DynamicQuantizeLinear, the MatMulInteger, the scale of its weights) where Mul(`product`, `scales`) is their rescaling."""
    cast, both = makers.get(product), makers.get(scales)
    if cast is None or both is None or cast.op_type != "Cast" or both.op_type != "Mul" or uses.get(product) != 1:
        return None
    integer = makers.get(cast.input[0])
    if integer is None or integer.op_type != "MatMulInteger" or uses.get(cast.input[0]) != 1 or attributes(cast)["to"] != TensorProto.FLOAT:
        return None
    levels = makers.get(integer.input[0])
    if levels is None or levels.op_type != DYNAMIC or len(integer.input) < 3 or integer.input[2] != levels.output[2]:
        return None
    for of_x, of_w in (both.input, both.input[::-1]):
        if of_x == levels.output[1] and _fits(graph, integer, of_w):
            return levels, integer, of_w
    return None


def _fits(graph: OnnxGraph, integer: onnx.NodeProto, scale: str) -> bool:
    """Whether weights, their scale and zero point are constants of one matrix, per tensor or per column."""
    w = graph.arrays.get(integer.input[1])
    if w is None or w.ndim != 2 or scale not in graph.arrays:
        return False
    zero = integer.input[3] if len(integer.input) > 3 else ""
    parameters = [graph.arrays[scale], *([graph.arrays.get(zero, np.zeros(0))] if zero else [])]
    return all(p.size in (1, w.shape[1]) and p.ndim <= 1 for p in parameters)


def _product(graph: OnnxGraph, scaled: onnx.NodeProto, levels: onnx.NodeProto, integer: onnx.NodeProto, scale: str) -> list[onnx.NodeProto]:
    name = label(integer)
    x, w = graph.fresh(integer.input[0]), graph.fresh(integer.input[1])
    stored = graph.arrays[integer.input[1]]
    given = graph.arrays[integer.input[3]] if len(integer.input) > 3 and integer.input[3] else np.zeros((), stored.dtype)
    scales, zeros = np.broadcast_arrays(graph.arrays[scale], given)
    per_column = scales.size > 1
    shape = (-1,) if per_column else ()
    parameters = [
        graph.constant(values.astype(dtype).reshape(shape), f"{name}.{what}")
        for values, dtype, what in ((scales, np.float32, "scale"), (zeros, stored.dtype, "zero_point"))
    ]
    return [
        node(DEQUANTIZE, list(levels.output), [x], name),
        node(DEQUANTIZE, [integer.input[1], *parameters], [w], name, axis=1),
        node("MatMul", [x, w], [scaled.output[0]], name),
    ]
