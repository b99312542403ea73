"""Models in half precision: what they compute in float16 or bfloat16 becomes float, between conversions of their inputs and outputs.

`widen-half` does this for what torch-mlir imports; here it comes before anything is written out, which is done in float. A conversion to a
half that only conversions to float read stays, as rounding that the model asks for.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from qcc.compiler.frontend.onnx_graph import OnnxGraph, attributes, node, rename, used_names

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_TYPES = ("to", "dtype", "output_dtype")  # attributes that are a type


def widen(graph: OnnxGraph) -> None:
    """Rewrite in place."""
    for name, array in graph.arrays.items():
        if array.dtype.name in ("float16", "bfloat16"):
            graph.arrays[name] = array.astype(np.float32)
    kept = _roundings(graph.nodes)
    _widen_nodes(n for n in graph.nodes if n.output[0] not in kept)
    borders = {
        value.name: (graph.fresh(value.name), value.type.tensor_type.elem_type)
        for value in [*graph.inputs, *graph.outputs]
        if value.type.tensor_type.elem_type in HALVES
    }
    for n in graph.nodes:
        rename(n, {name: inner for name, (inner, _) in borders.items()})
    inputs = [i.name for i in graph.inputs if i.name in borders]
    outputs = [o.name for o in graph.outputs if o.name in borders]
    graph.nodes = [
        *(node("Cast", [name], [borders[name][0]], name, to=TensorProto.FLOAT) for name in inputs),
        *graph.nodes,
        *(node("Cast", [borders[name][0]], [name], name, to=borders[name][1]) for name in outputs if name not in inputs),
    ]


def _roundings(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """What conversions to a half give that only conversions to float read."""
    to_half = {n.output[0] for n in nodes if n.op_type == "Cast" and attributes(n)["to"] in HALVES}
    others = {name for n in nodes for name in used_names(n) if n.op_type != "Cast" or attributes(n)["to"] != TensorProto.FLOAT}
    return to_half - others


def _widen_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for n in nodes:
        for attribute in n.attribute:
            if attribute.name in _TYPES and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT
            if attribute.t.data_type in HALVES:
                attribute.t.CopyFrom(_widened(attribute.t))
            for inner in [attribute.g, *attribute.graphs]:
                for tensor in inner.initializer:
                    if tensor.data_type in HALVES:
                        tensor.CopyFrom(_widened(tensor))
                for value in [*inner.input, *inner.output, *inner.value_info]:
                    if value.type.tensor_type.elem_type in HALVES:
                        value.type.tensor_type.elem_type = TensorProto.FLOAT
                _widen_nodes(inner.node)


def _widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
