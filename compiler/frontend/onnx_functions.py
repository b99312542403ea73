"""ONNX operators that torch-mlir has no conversion for, written out by the function bodies of their own definitions."""

from __future__ import annotations

from typing import Any

import onnx

from qcc.compiler.frontend.onnx_graph import OnnxGraph, node_value_info, rename

# Operators whose definition in the ONNX standard is a function of types and attributes. torch-mlir converts others that have one.
EXPANDED = frozenset({"Attention", "RMSNormalization"})


def expand_functions(graph: OnnxGraph) -> bool:
    """Replace every node of an operator in `EXPANDED` by its body; whether there was one. Needs `graph.kinds`."""
    nodes: list[onnx.NodeProto] = []
    for source in graph.nodes:
        body = _body(graph, source) if source.op_type in EXPANDED and not source.domain else None
        nodes += [source] if body is None else graph.inline(body, source)
    changed = len(nodes) != len(graph.nodes)
    graph.nodes = nodes
    return changed


def _body(graph: OnnxGraph, source: onnx.NodeProto) -> onnx.GraphProto | None:
    """The operator's definition for the types and attributes at hand, or None where it has none."""
    schema: Any = onnx.defs.get_schema(source.op_type, max_inclusive_version=graph.opset, domain="")
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= graph.opset]
    if not versions or any(name and name not in graph.kinds for name in source.input):
        return None
    kinds = [node_value_info(graph, name).type if name else onnx.TypeProto() for name in source.input]
    text = schema.get_context_dependent_function_with_opset_version(
        max(versions), source.SerializeToString(), [kind.SerializeToString() for kind in kinds]
    )
    if not text:
        return None
    definition = onnx.FunctionProto()
    definition.ParseFromString(text)
    given = [*source.input, *[""] * len(definition.input)]
    names = dict(zip(definition.input, given, strict=False))
    outputs = [onnx.ValueInfoProto(name=inner) for inner, outer in zip(definition.output, source.output, strict=False) if outer]
    body = onnx.GraphProto(node=definition.node, output=outputs)
    for inner in body.node:
        rename(inner, names)
    return body
