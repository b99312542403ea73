"""Static shapes for an ONNX graph: dynamic sizes of the inputs are fixed, what follows from constants alone is computed here.

torch-mlir needs every rank and qcc every size, so shape arithmetic (Shape -> Gather -> Concat -> Reshape) is evaluated with the onnx
package's reference implementation once the inputs' sizes are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from qcc.compiler.frontend.onnx_graph import OnnxGraph, attributes, error_at_node, node_value_info
from qcc.dialects.errors import QccError

FOLD_ELEMENTS = 1 << 16  # nodes with constant inputs are evaluated here when inputs and outputs have at most this many elements
MOVEMENT = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Concat", "Split", "Cast")
KEPT = ("QuantizeLinear", "DequantizeLinear", "Quant", "BipolarQuant", "Trunc", "FloatQuant", "DynamicQuantizeLinear", "RandomNormal",
        "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "If", "Loop", "Scan",
        "Dropout")  # fmt: skip


def fix_input_shapes(graph: OnnxGraph, example_inputs: Sequence[Any] | None, batch: int) -> None:
    """Give every input a static shape: that of its example, or `batch` for a dynamic first axis.

    Raises QccError that names the input where that is not enough or the example contradicts the model.
    """
    inputs = graph.inputs
    if example_inputs is not None and len(example_inputs) != len(inputs):
        names = ", ".join(f"'{i.name}'" for i in inputs)
        raise QccError(f"found {len(example_inputs)} example inputs, expected {len(inputs)}: {names}")
    known: dict[str, int] = {}  # dim_param -> size
    first_axis_is_dynamic = False
    for index, value in enumerate(inputs):
        if not value.type.HasField("tensor_type"):
            raise QccError(f"input '{value.name}' is a {value.type.WhichOneof('value')}, expected a tensor")
        if not value.type.tensor_type.HasField("shape"):
            if example_inputs is None:
                raise QccError(f"input '{value.name}' has no shape in the model; give example inputs")
            for _ in np.shape(example_inputs[index]):
                value.type.tensor_type.shape.dim.add()
        dims = value.type.tensor_type.shape.dim
        example = None if example_inputs is None else list(np.shape(example_inputs[index]))
        if example is not None and len(example) != len(dims):
            raise QccError(f"the example for input '{value.name}' has shape {example}, expected {len(dims)} axes")
        for axis, dim in enumerate(dims):
            dynamic = not dim.HasField("dim_value")
            first_axis_is_dynamic |= dynamic and axis == 0
            if example is None and not dynamic:
                continue
            if example is not None:
                size = example[axis]
                if not dynamic and dim.dim_value != size:
                    raise QccError(
                        f"the example for input '{value.name}' has size {size} on axis {axis}, expected {dim.dim_value} as in the model"
                    )
            elif dim.dim_param in known:
                size = known[dim.dim_param]
            elif axis == 0:
                size = batch
            else:
                raise QccError(
                    f"input '{value.name}' has the dynamic size '{dim.dim_param or '?'}' on axis {axis}, expected a fixed one; "
                    "give example inputs or export the model with fixed sizes"
                )
            if dim.dim_param:
                known[dim.dim_param] = size
            dim.ClearField("dim_param")
            dim.dim_value = size
    if batch != 1 and example_inputs is None and inputs and not first_axis_is_dynamic:
        raise QccError(
            f"batch is {batch} but no input of the model has a dynamic first axis; "
            "export the model with a dynamic batch axis, or leave --batch out"
        )
    for output in graph.outputs:  # symbolic sizes of the outputs are inferred anew
        output.type.tensor_type.ClearField("shape")


def fold_constants(graph: OnnxGraph) -> None:
    """Infer shapes, evaluate what depends on constants and static shapes only, and choose known branches, until nothing changes."""
    while True:
        graph.infer()
        kept: list[onnx.NodeProto] = []
        outputs = {o.name for o in graph.outputs}
        changed = False
        for node in graph.nodes:
            if node.op_type == "If" and (condition := graph.array(node.input[0])) is not None:
                branch = "then_branch" if bool(condition) else "else_branch"
                kept += graph.inline(attributes(node)[branch], node)
                changed = True
                continue
            values = None if outputs & set(node.output) else _evaluate(graph, node)
            if values is None:
                kept.append(node)
            else:
                graph.arrays.update({name: value for name, value in zip(node.output, values, strict=True) if name})
                changed = True
        graph.nodes = kept
        if not changed:
            return


def require_known_operators(graph: OnnxGraph) -> None:
    """Raise QccError for the first node of another domain than ONNX's: what has a rule is written out by now."""
    graph.remove_dead()
    for node in graph.nodes:
        if node.domain:
            remedy = "export the model without it"
            if node.domain.startswith("com.microsoft.nchwc"):
                remedy = "its layout is one machine's: save the optimized model at ORT_ENABLE_EXTENDED"
            raise error_at_node(
                node, f"ONNX operator {node.domain}.{node.op_type} is not known, or the shapes of what it reads are not fixed; {remedy}"
            )


def require_static_shapes(graph: OnnxGraph) -> None:
    """Raise QccError for the first value whose type, rank or a size is not known."""
    for node in graph.nodes:
        for name in node.output:
            if not name:
                continue
            kind = graph.kinds.get(name)
            if kind is None:
                raise error_at_node(
                    node, f"ONNX operator {node.op_type} is not known, or the shape of its output '{name}' cannot be inferred"
                )
            if None in kind[1]:
                shape = ["?" if d is None else d for d in kind[1]]
                raise error_at_node(
                    node,
                    f"output '{name}' of {node.op_type} has the dynamic shape {shape}, expected fixed sizes; "
                    "qcc cannot compile shapes that depend on the data",
                )


def _evaluate(graph: OnnxGraph, node: onnx.NodeProto) -> list[np.ndarray] | None:
    """The outputs of a node whose inputs are known, or None where it must stay."""
    if node.domain or node.op_type in KEPT:
        return None
    if node.op_type == "Shape":
        return _shape(graph, node)
    if node.op_type == "Size":
        shape = graph.kinds.get(node.input[0], (0, (None,)))[1]
        return None if None in shape else [np.asarray(int(np.prod([d or 0 for d in shape])), np.int64)]
    if not all(name in graph.arrays for name in node.input if name) or any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
        return None
    sizes = [graph.arrays[name].size for name in node.input if name]
    produced = [graph.kinds.get(name) for name in node.output if name]
    limit = 1 << 62 if node.op_type in MOVEMENT else FOLD_ELEMENTS
    if max(sizes, default=0) > limit:
        return None
    for kind in produced:
        if kind is None or None in kind[1] or int(np.prod([d or 0 for d in kind[1]])) > limit:
            return None
    return _run(graph, node)


def _shape(graph: OnnxGraph, node: onnx.NodeProto) -> list[np.ndarray] | None:
    kind = graph.kinds.get(node.input[0])
    if kind is None:
        return None
    given = attributes(node)
    part = kind[1][given.get("start", 0) : given.get("end")]
    return None if None in part else [np.asarray(part, np.int64)]


def _run(graph: OnnxGraph, node: onnx.NodeProto) -> list[np.ndarray] | None:
    names = list(dict.fromkeys(name for name in node.input if name))
    typed = [node_value_info(graph, n) for n in names]
    results = [node_value_info(graph, n) for n in node.output if n]
    body = helper.make_graph([node], "constant", typed, results)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", graph.opset)])
    try:
        values = ReferenceEvaluator(model).run(None, {n: graph.arrays[n] for n in names})
    except Exception:  # whatever the reference implementation cannot do is left to the compiled program
        return None
    given = iter(values)
    found = [np.asarray(next(given)) if name else np.zeros(0) for name in node.output]
    for name, value in zip(node.output, found, strict=True):
        if name and (helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) != graph.kinds[name]:
            return None
    return found
