"""An ONNX graph that is easy to rewrite: its nodes as a list, its constants as numpy arrays beside the protobuf.

Payloads leave the protobuf when a model is read and never return to it, so shape inference, checks and version conversion of a model of
half a gigabyte cost what its structure costs.
"""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from qcc.dialects.errors import QccError

SHAPE_ELEMENTS = 256  # constants up to this size stay visible to shape inference: shapes, axes, pads and the like
OLDEST_OPSET = 13  # torch-mlir reads operators as they are since opset 13; older models are converted
STRUCTURE_OPSET = 17  # what older models are converted to
CEIL_OPSET = 22  # since when it is said that pooling in ceil mode leaves out windows that begin behind the image
NARROW_OPSET = {"float8_e4m3fn": 19, "float8_e5m2": 19, "int16": 21, "uint16": 21, "int4": 21, "uint4": 21, "int2": 25, "uint2": 25}
"""Since when these can be quantized to."""
SMALL_FLOATS = (onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT8E5M2)

Kind = tuple[int, tuple[int | None, ...]]  # onnx.TensorProto.DataType, shape; None is a dynamic size


class OnnxGraph:
    """The main graph of a model. `arrays` holds every constant by name; `nodes` is in topological order."""

    def __init__(self, model: onnx.ModelProto, numbers: Iterator[int] | None = None) -> None:
        """`numbers` are those of new names, which go on where a graph takes the place of another one."""
        self.model = model
        self.arrays: dict[str, np.ndarray] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.kinds: dict[str, Kind] = {}
        self.numbers = itertools.count() if numbers is None else numbers
        self._take_payloads()

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """The graph's inputs without those that have an initial value."""
        return [i for i in self.model.graph.input if i.name not in self.arrays]

    @property
    def outputs(self) -> list[onnx.ValueInfoProto]:
        return list(self.model.graph.output)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return next((o.version for o in self.model.opset_import if o.domain == ""), 1)

    def constant(self, array: np.ndarray | float, hint: str) -> str:
        """Name of a new constant."""
        name = self.fresh(hint)
        self.arrays[name] = np.asarray(array)
        return name

    def fresh(self, hint: str) -> str:
        """A value name that is not taken."""
        return f"{hint}#{next(self.numbers)}"

    def array(self, name: str) -> np.ndarray | None:
        """The constant called `name`, or None where that value is computed at run time or absent."""
        return self.arrays.get(name) if name else None

    def rank(self, name: str) -> int | None:
        """Rank of a value, or None where it is unknown."""
        if name in self.arrays:
            return self.arrays[name].ndim
        return len(self.kinds[name][1]) if name in self.kinds else None

    def users(self) -> dict[str, int]:
        """How often every value is used, by nodes and as output of the graph."""
        count: dict[str, int] = {}
        for node in self.nodes:
            for name in used_names(node):
                count[name] = count.get(name, 0) + 1
        for output in self.outputs:
            count[output.name] = count.get(output.name, 0) + 1
        return count

    def inline(self, chosen: onnx.GraphProto, of: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes of a subgraph without inputs, with names of their own, and its outputs as the outputs of node `of`."""
        own = {t.name for t in chosen.initializer} | {name for inner in chosen.node for name in inner.output if name}
        renamed = {name: self.fresh(name) for name in sorted(own)}
        for tensor in chosen.initializer:
            self.arrays[renamed[tensor.name]] = _array(tensor)
        nodes: list[onnx.NodeProto] = []
        for inner in chosen.node:
            value = _constant_value(inner)
            if value is not None:
                self.arrays[renamed[inner.output[0]]] = value
                continue
            copied = _normal(inner)
            copied.name = label(of)
            rename(copied, renamed)
            nodes.append(copied)
        for value, output in zip(chosen.output, [name for name in of.output if name], strict=True):
            nodes.append(node("Identity", [renamed.get(value.name, value.name)], [output], label(of)))
        return nodes

    def remove_dead(self) -> None:
        """Drop nodes and constants that nothing uses."""
        needed = {o.name for o in self.outputs}
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.output):
                needed.update(used_names(node))
                kept.append(node)
        self.nodes = kept[::-1]
        self.arrays = {name: array for name, array in self.arrays.items() if name in needed}

    def skeleton(self) -> onnx.ModelProto:
        """The model with the graph's present nodes; constants above `SHAPE_ELEMENTS` have a type but no contents."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.graph.node.extend(self.nodes)
        for name, array in self.arrays.items():
            if array.size <= SHAPE_ELEMENTS:
                model.graph.initializer.append(numpy_helper.from_array(array, name))
            else:
                tensor = model.graph.initializer.add(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
                tensor.dims.extend(array.shape)
        return model

    def infer(self) -> None:
        """Infer the element type and shape of every value into `kinds`. Raises QccError where the model contradicts itself."""
        try:
            inferred = onnx.shape_inference.infer_shapes(self.skeleton(), check_type=True, strict_mode=True, data_prop=True)
        except Exception as error:  # the binding raises bare classes that derive from Exception only
            raise QccError(f"the ONNX model is inconsistent: {_one_line(error)}") from None
        graph = inferred.graph
        self.kinds = {}
        for value in itertools.chain(graph.input, graph.value_info, graph.output):
            if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
                self.kinds[value.name] = _kind(value.type)
        for name, array in self.arrays.items():
            self.kinds[name] = (helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for output, found in zip(self.model.graph.output, graph.output, strict=True):
            if output.name in self.arrays:
                output.type.CopyFrom(helper.make_tensor_type_proto(*self.kinds[output.name]))
            elif found.type.HasField("tensor_type") and found.type.tensor_type.HasField("shape"):
                output.type.CopyFrom(found.type)

    def _take_payloads(self) -> None:
        graph = self.model.graph
        for tensor in graph.initializer:
            self.arrays[tensor.name] = _array(tensor)
        for sparse in graph.sparse_initializer:
            self.arrays[sparse.values.name] = _dense(sparse)
        for node in graph.node:
            value = _constant_value(node)
            if value is None:
                self.nodes.append(_normal(node))
            else:
                self.arrays[node.output[0]] = value
        self.nodes = _in_order(self.nodes)
        produced = set(self.arrays) | {i.name for i in graph.input} | {n for node in self.nodes for n in node.output}
        for output in graph.output:
            if output.name not in produced:
                raise QccError(f"no node of the ONNX model computes its output '{output.name}'")
        del graph.initializer[:], graph.sparse_initializer[:], graph.node[:], graph.value_info[:]
        kept = [i for i in graph.input if i.name not in self.arrays]
        del graph.input[:]
        graph.input.extend(kept)


def read(source: Path | onnx.ModelProto) -> OnnxGraph:
    """The main graph of a file or protobuf: functions inlined, operators at least at opset `OLDEST_OPSET`.

    Raises QccError for a damaged file, missing external data and graphs without outputs.
    """
    model = _load(source) if isinstance(source, Path) else _copy(source)
    if not model.graph.output:
        raise QccError("the ONNX model has no graph with outputs; expected a model saved by onnx.save or torch.onnx.export")
    _normalise_opsets(model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    graph = OnnxGraph(model)
    rounded_up = any(attributes(n).get("ceil_mode") for n in graph.nodes)
    needed = CEIL_OPSET if rounded_up else STRUCTURE_OPSET if graph.opset < OLDEST_OPSET else 0
    upsampled = {n.output[0] for n in graph.nodes if n.op_type == "Upsample"}
    graph = convert_opset(graph, needed) if graph.opset < needed else graph
    for n in graph.nodes:
        if n.op_type == "Resize" and n.output[0] in upsampled:  # onnx's conversion leaves the coordinates at the default of Resize
            n.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            n.attribute.append(helper.make_attribute("nearest_mode", "floor"))
    return graph


def with_quantized_types(graph: OnnxGraph) -> OnnxGraph:
    """The graph at an opset whose QuantizeLinear knows the types that are used; com.microsoft's knew some of them earlier."""
    used = {graph.arrays[n].dtype.name for node in graph.nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear")
            for n in node.input if n in graph.arrays}  # fmt: skip
    blocked = any(a.name == "block_size" and a.i for node in graph.nodes for a in node.attribute if node.op_type == "DequantizeLinear")
    needed = max([NARROW_OPSET.get(name, 0) for name in used] + [21 if blocked else 0])
    return convert_opset(graph, needed) if graph.opset < needed else graph


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], name: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    """A node; attributes that are None are left out."""
    given = {k: v for k, v in attributes.items() if v is not None}
    return helper.make_node(op, list(inputs), list(outputs), name=name, domain=domain, **given)


def node_value_info(graph: OnnxGraph, name: str) -> onnx.ValueInfoProto:
    """Declaration of a value whose type is inferred."""
    element, shape = graph.kinds[name]
    return helper.make_tensor_value_info(name, element, list(shape))


def attributes(of: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python values; bytes are decoded."""
    values = {a.name: helper.get_attribute_value(a) for a in of.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def used_names(of: onnx.NodeProto) -> set[str]:
    """Every value a node reads, also from inside its subgraphs."""
    names = {n for n in of.input if n}
    for attribute in of.attribute:
        graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
        for graph in graphs:
            for inner in graph.node:
                names |= used_names(inner)
            names |= {o.name for o in graph.output}
    return names


def rename(of: onnx.NodeProto, names: dict[str, str]) -> None:
    """Replace value names of a node, also inside its subgraphs where they are not names of the subgraph's own."""
    for values in (of.input, of.output):
        for index, name in enumerate(values):
            values[index] = names.get(name, name)
    for attribute in of.attribute:
        graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
        for graph in graphs:
            own = {i.name for i in graph.input} | {t.name for t in graph.initializer} | {n for inner in graph.node for n in inner.output}
            outer = {old: new for old, new in names.items() if old not in own}
            for inner in graph.node:
                rename(inner, outer)
            for value in graph.output:
                value.name = outer.get(value.name, value.name)


def label(of: onnx.NodeProto) -> str:
    """The layer name of a node: its own, or that of its first output."""
    return of.name or next((o for o in of.output if o), of.op_type)


def error_at_node(of: onnx.NodeProto, message: str) -> QccError:
    """A QccError that names the node; raise what this returns."""
    return QccError(message, layer=label(of))


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise QccError(f"'{path}' is not a readable ONNX file: {_one_line(error)}") from None
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # the checker's and the file system's errors share no base class
        raise QccError(
            f"'{path}' keeps weights in another file that cannot be read: {_one_line(error)}; expected it in '{path.parent}'"
        ) from None
    return model


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _normalise_opsets(model: onnx.ModelProto) -> None:
    """Call the default domain by its empty name, and name each domain of a node."""
    for entry in model.opset_import:
        if entry.domain == "ai.onnx":
            entry.domain = ""
    known = {entry.domain for entry in model.opset_import}
    if "" not in known:  # only operators of other domains: any version does for what rewriting adds
        model.opset_import.append(helper.make_opsetid("", STRUCTURE_OPSET))
        known.add("")
    for domain in sorted({n.domain if n.domain != "ai.onnx" else "" for n in model.graph.node} - known):
        model.opset_import.append(helper.make_opsetid(domain, 1))


def _normal(of: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(of)
    copied.name = label(of)
    if copied.domain == "ai.onnx":
        copied.domain = ""
    while copied.input and not copied.input[-1]:  # optional inputs that are absent; upstream's conversions of some operators crash on them
        copied.input.pop()
    return copied


def _in_order(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """`nodes`, each behind those whose results it reads, as ONNX demands and ONNX Runtime does not."""
    makers = {name: i for i, n in enumerate(nodes) for name in n.output if name}
    before = {i: {makers[name] for name in used_names(n) if name in makers} for i, n in enumerate(nodes)}
    if all(max(sources, default=-1) < i for i, sources in before.items()):
        return nodes
    try:
        return [nodes[i] for i in graphlib.TopologicalSorter(before).static_order()]
    except graphlib.CycleError as error:
        raise error_at_node(nodes[error.args[1][0]], "the node reads what is computed from its own result") from None


def convert_opset(graph: OnnxGraph, opset: int) -> OnnxGraph:
    """The graph with its operators as of `opset`. Nodes of other domains pass through unchanged."""
    try:
        converted = onnx.version_converter.convert_version(graph.skeleton(), opset)
    except Exception as error:  # the binding raises bare classes that derive from Exception only
        raise QccError(
            f"the model's operators are of opset {graph.opset} and cannot be converted to {opset}: {_one_line(error)}; "
            "export it again with a newer opset"
        ) from None
    arrays = graph.arrays
    for tensor in list(converted.graph.initializer):
        if tensor.name in arrays and arrays[tensor.name].size > SHAPE_ELEMENTS:
            converted.graph.initializer.remove(tensor)
    result = OnnxGraph(converted, graph.numbers)
    result.arrays.update({name: array for name, array in arrays.items() if name not in result.arrays})
    return result


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    try:
        return np.array(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise QccError(f"the contents of tensor '{tensor.name}' do not fit its shape {list(tensor.dims)}: {_one_line(error)}") from None


def _dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    values, indices, shape = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices), tuple(sparse.dims)
    out = np.zeros(int(np.prod(shape)), values.dtype)
    out[indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)] = values
    return out.reshape(shape)


def _constant_value(of: onnx.NodeProto) -> np.ndarray | None:
    if of.op_type != "Constant" or of.domain not in ("", "ai.onnx"):
        return None
    attribute = next(iter(of.attribute), None)
    if attribute is None:
        raise error_at_node(of, "a Constant node has no value")
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return _array(value)
    if attribute.name == "sparse_value":
        return _dense(value)
    if attribute.name in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    return None  # strings


def _kind(kind: onnx.TypeProto) -> Kind:
    tensor = kind.tensor_type
    return tensor.elem_type, tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
