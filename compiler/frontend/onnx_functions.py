"""ONNX operators that torch-mlir has no conversion for, written out by the function bodies of their own definitions."""

from __future__ import annotations

from typing import Any

import onnx

from qcc.compiler.frontend.onnx_graph import OnnxGraph, node_value_info, rename

# Operators whose definition in the ONNX standard is a function. torch-mlir converts others that have one.
EXPANDED = frozenset({
    "Attention", "GroupNormalization", "NegativeLogLikelihoodLoss", "RMSNormalization", "RotaryEmbedding", "SoftmaxCrossEntropyLoss",
    "Softsign", "SwiGLU", "Swish",
})  # fmt: skip


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
    versions = [v for v in [*schema.context_dependent_function_opset_versions, *schema.function_opset_versions] if v <= graph.opset]
    if not versions or any(name and name not in graph.kinds for name in source.input):
        return None
    if schema.has_context_dependent_function:
        kinds = [node_value_info(graph, name).type if name else onnx.TypeProto() for name in source.input]
        text = schema.get_context_dependent_function_with_opset_version(
            max(versions), source.SerializeToString(), [kind.SerializeToString() for kind in kinds]
        )
    else:
        text = schema.get_function_with_opset_version(max(versions))
    if not text:
        return None
    definition = onnx.FunctionProto()
    definition.ParseFromString(text)
    given = [*source.input, *[""] * len(definition.input)]
    names = dict(zip(definition.input, given, strict=False))
    outputs = [onnx.ValueInfoProto(name=inner) for inner, outer in zip(definition.output, source.output, strict=False) if outer]
    body = onnx.GraphProto(node=definition.node, output=outputs)
    attributes = {name: kind.default_value for name, kind in schema.attributes.items()} | {a.name: a for a in source.attribute}
    for inner in body.node:
        rename(inner, names)
        _bind(inner, attributes)
    return body


def _bind(of: onnx.NodeProto, given: dict[str, onnx.AttributeProto]) -> None:
    """Give attributes that stand for one of the function's that one's value, also inside subgraphs; drop those without a value."""
    bound: list[onnx.AttributeProto] = []
    for attribute in of.attribute:
        value = onnx.AttributeProto()
        value.CopyFrom(given[attribute.ref_attr_name] if attribute.ref_attr_name else attribute)
        value.name = attribute.name
        if value.type != onnx.AttributeProto.UNDEFINED:
            bound.append(value)
        for inner in value.g.node:
            _bind(inner, given)
    del of.attribute[:]
    of.attribute.extend(bound)
