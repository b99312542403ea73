"""Integer values between quantization operators, brought into the form `convert-onnx-quantization` takes.

* Data movement and max pooling on stored integers (the QOperator format has them) becomes the same operator on real values between a
  DequantizeLinear and a QuantizeLinear, where later passes find it like any other.
* Scales and zero points that are computed at run time have no place in a type, and integers that other operators read (MatMulInteger) or
  make are plain numbers: those operators become float arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from qcc.compiler.frontend.onnx_dynamic import is_dynamic
from qcc.compiler.frontend.onnx_graph import SMALL_FLOATS, OnnxGraph, attributes, error_at_node, label, node, used_names

MOVEMENT = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Identity", "Concat", "Expand", "Split",
            "Tile", "Gather")  # fmt: skip
TWO_BITS = (TensorProto.INT2, TensorProto.UINT2)
RANGES: dict[int, tuple[int, int]] = {
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT2: (-2, 1),
    TensorProto.UINT2: (0, 3),
}

STATED = ("bits", "narrow")  # attributes of `onnx_quantization`


@dataclass(frozen=True)
class _Parameters:
    """Of a per-tensor quantized value: names of scale and zero point, and what is stated of its width."""

    scale: str
    zero_point: str
    stated: tuple[tuple[str, int], ...]


def connect(graph: OnnxGraph) -> None:
    """Rewrite in place; needs `graph.kinds`, and leaves them inferred."""
    _move_on_real_values(graph)
    _state_two_bits(graph)
    whole = _Quantized(graph)
    dynamic = {n.output[0]: n for n in graph.nodes if n.op_type == "DynamicQuantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    for source in graph.nodes:
        if source.op_type == "QuantizeLinear" and not whole.in_type(source):
            nodes += _quantize_arithmetic(graph, source)
        elif source.op_type == "DequantizeLinear" and not whole.in_type(source) and not is_dynamic(source, dynamic):
            nodes += _dequantize_arithmetic(graph, source)
        else:
            if source.op_type == "QuantizeLinear" and (others := whole.other_users(source.output[0])):
                nodes += _separate_integers(graph, source, others)
            nodes.append(source)
    graph.nodes = nodes
    graph.infer()


def _state_two_bits(graph: OnnxGraph) -> None:
    """Torch types have no 2-bit integers, so they travel in bytes and the operators say `bits`."""
    for source in graph.nodes:
        if source.op_type in ("QuantizeLinear", "DequantizeLinear"):
            kind = graph.kinds.get(_stored(source), (0, ()))
            if kind[0] in TWO_BITS and "bits" not in attributes(source):
                source.attribute.append(helper.make_attribute("bits", 2))


class _Quantized:
    """Which quantization operators a type can express: constant parameters, and integers that nothing else looks at."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self.makers = {n.output[0]: n for n in graph.nodes if n.op_type == "QuantizeLinear"}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for source in graph.nodes:
            for name in used_names(source):
                self.users.setdefault(name, []).append(source)

    def in_type(self, source: onnx.NodeProto) -> bool:
        if _parameters_vary(self.graph, source):
            return False
        stored = _stored(source)
        if stored in self.graph.arrays or source.input[0] in self.graph.arrays:
            return True
        if self.graph.arrays[source.input[1]].ndim > 1:  # activations in blocks: no integer arithmetic serves them
            return False
        if source.op_type == "QuantizeLinear":
            return True
        maker = self.makers.get(stored)
        if maker is not None:
            return not _parameters_vary(self.graph, maker) and self.agree(maker, source)
        is_input = not _is_float(self.graph, source) and any(stored == i.name for i in self.graph.inputs)
        return is_input and all(n.op_type == "DequantizeLinear" and self.agree(source, n) for n in self.users[stored])

    def other_users(self, stored: str) -> list[onnx.NodeProto]:
        """Users of quantized integers that are not the dequantize of the same parameters."""
        maker = self.makers[stored]
        return [n for n in self.users.get(stored, []) if n.op_type != "DequantizeLinear" or not self.agree(maker, n)]

    def agree(self, a: onnx.NodeProto, b: onnx.NodeProto) -> bool:
        """Whether two quantization operators have the same parameters."""
        if _parameters_vary(self.graph, a) or _parameters_vary(self.graph, b):
            return False
        left, right = _trimmed(a), _trimmed(b)
        rank = self.graph.rank(_stored(a)) or 1
        axes = [int(attributes(n).get("axis", 1)) % rank for n in (a, b)]
        others = [[attributes(n).get(key, 0) for key in ("bits", "narrow", "block_size")] for n in (a, b)]
        if len(left) != len(right) or others[0] != others[1]:
            return False
        if any(x != y and not np.array_equal(self.graph.arrays[x], self.graph.arrays[y]) for x, y in zip(left, right, strict=True)):
            return False
        return axes[0] == axes[1] or self.graph.arrays[left[0]].size == 1


def _stored(source: onnx.NodeProto) -> str:
    """The value of a quantization operator that holds integers."""
    return source.output[0] if source.op_type == "QuantizeLinear" else source.input[0]


def _trimmed(source: onnx.NodeProto) -> list[str]:
    return [name for name in source.input[1:] if name]


def _separate_integers(graph: OnnxGraph, source: onnx.NodeProto, others: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The integers once more, by arithmetic, for the users that are not dequantize operators."""
    plain = onnx.NodeProto()
    plain.CopyFrom(source)
    plain.output[0] = graph.fresh(source.output[0])
    graph.kinds[plain.output[0]] = graph.kinds[source.output[0]]
    for user in others:
        for index, name in enumerate(user.input):
            if name == source.output[0]:
                user.input[index] = plain.output[0]
    return _quantize_arithmetic(graph, plain)


def _move_on_real_values(graph: OnnxGraph) -> None:
    quantized = _moved_constants(graph)
    nodes: list[onnx.NodeProto] = []
    for source in graph.nodes:
        data = list(source.input) if source.op_type == "Concat" else list(source.input[:1])
        known = [quantized.get(name) for name in data]
        if source.op_type == "QuantizeLinear" and not _parameters_vary(graph, source) and _per_tensor(graph, source):
            quantized[source.output[0]] = _parameters(source)
        elif source.op_type == "DequantizeLinear" and (found := quantized.get(source.input[0])) is not None:
            given = attributes(source)
            source.attribute.extend(helper.make_attribute(key, value) for key, value in found.stated if key not in given)
        elif source.op_type in MOVEMENT and not source.domain and known and all(k is not None and _same(graph, k, known[0]) for k in known):
            assert known[0] is not None, "checked"
            nodes += _between_real(graph, source, data, known[0], quantized)
            continue
        nodes.append(source)
    graph.nodes = nodes


def _moved_constants(graph: OnnxGraph) -> dict[str, _Parameters]:
    """Constants that are dequantized behind what moves them, such as tables of embeddings behind Gather, which stay in integers."""
    makers = {n.output[0]: n for n in graph.nodes if n.op_type in MOVEMENT and n.op_type != "Concat" and n.input[0] in graph.arrays}
    found: dict[str, _Parameters] = {}
    for source in graph.nodes:
        maker = makers.get(source.input[0]) if source.op_type == "DequantizeLinear" else None
        if maker is not None and not _parameters_vary(graph, source) and _per_tensor(graph, source):
            found[maker.input[0]] = _parameters(source)
    return found


def _parameters(source: onnx.NodeProto) -> _Parameters:
    stated = tuple((key, int(value)) for key, value in attributes(source).items() if key in STATED)
    return _Parameters(source.input[1], source.input[2] if len(source.input) > 2 else "", stated)


def _between_real(
    graph: OnnxGraph, source: onnx.NodeProto, data: list[str], parameters: _Parameters, quantized: dict[str, _Parameters]
) -> list[onnx.NodeProto]:
    """Dequantize the inputs `data`, run `source` on real values, quantize its outputs again."""
    name, suffix, stated = label(source), [p for p in (parameters.scale, parameters.zero_point) if p], dict(parameters.stated)
    moved = onnx.NodeProto()
    moved.CopyFrom(source)
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []
    for index, value in enumerate(data):
        moved.input[index] = graph.fresh(value)
        before.append(node("DequantizeLinear", [value, *suffix], [moved.input[index]], name, "", **stated))
    for index, value in enumerate(source.output):
        if value and not (source.op_type == "MaxPool" and index):  # the second output of MaxPool is positions
            moved.output[index] = graph.fresh(value)
            after.append(node("QuantizeLinear", [moved.output[index], *suffix], [value], name, "", **stated))
            quantized[value] = parameters
    return [*before, moved, *after]


def _same(graph: OnnxGraph, a: _Parameters, b: _Parameters | None) -> bool:
    if b is None or a.stated != b.stated:
        return False
    return all(
        x == y or (x in graph.arrays and y in graph.arrays and np.array_equal(graph.arrays[x], graph.arrays[y]))
        for x, y in ((a.scale, b.scale), (a.zero_point, b.zero_point))
    )


def _per_tensor(graph: OnnxGraph, source: onnx.NodeProto) -> bool:
    return graph.arrays[source.input[1]].size == 1


def _parameters_vary(graph: OnnxGraph, source: onnx.NodeProto) -> bool:
    """Whether scale or zero point is computed at run time, or the values are floats that have no function to round to them."""
    if any(name and name not in graph.arrays for name in source.input[1:3]):
        return True
    return _is_float(graph, source) and graph.kinds[_stored(source)][0] not in SMALL_FLOATS


def _is_float(graph: OnnxGraph, source: onnx.NodeProto) -> bool:
    return "FLOAT" in TensorProto.DataType.Name(graph.kinds.get(_stored(source), (TensorProto.INT8,))[0])


def _quantize_arithmetic(graph: OnnxGraph, source: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Cast(Clip(Round(x / scale) + zero_point)), as the operator's definition says it."""
    work = _Arithmetic(graph, source, graph.kinds[source.input[1]][0])
    x = work.to_float(source.input[0])
    stored_kind = graph.kinds[source.output[0]][0]
    scale = work.parameter(source.input[1])
    y = work.add("Div", [x, scale])
    if not _is_float(graph, source):
        y = work.add("Round", [y])
    if len(source.input) > 2 and source.input[2]:
        y = work.add("Add", [y, work.parameter(source.input[2])])
    if not _is_float(graph, source):
        low, high = _range(stored_kind)
        y = work.add("Min", [work.add("Max", [y, work.number(low)]), work.number(high)])
    work.add("Cast", [y], source.output[0], to=stored_kind)
    return work.nodes


def _dequantize_arithmetic(graph: OnnxGraph, source: onnx.NodeProto) -> list[onnx.NodeProto]:
    """(x - zero_point) * scale."""
    work = _Arithmetic(graph, source, graph.kinds[source.input[1]][0])
    x = work.to_float(source.input[0])
    if len(source.input) > 2 and source.input[2]:
        x = work.add("Sub", [x, work.parameter(source.input[2])])
    work.add("Mul", [x, work.parameter(source.input[1])], source.output[0])
    return work.nodes


class _Arithmetic:
    """Float nodes that replace one quantization operator, computing in the type of its scale."""

    def __init__(self, graph: OnnxGraph, source: onnx.NodeProto, element: int) -> None:
        self.graph, self.source, self.element = graph, source, element
        self.given = attributes(source)
        self.shape = [d or 0 for d in graph.kinds[source.input[0]][1]]
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op: str, inputs: list[str], output: str = "", **given: Any) -> str:
        output = output or self.graph.fresh(self.source.output[0])
        self.nodes.append(node(op, inputs, [output], label(self.source), **given))
        return output

    def number(self, value: float) -> str:
        return self.graph.constant(np.asarray(value, helper.tensor_dtype_to_np_dtype(self.element)), f"{label(self.source)}.bound")

    def to_float(self, name: str) -> str:
        return name if self.graph.kinds[name][0] == self.element else self.add("Cast", [name], to=self.element)

    def parameter(self, name: str) -> str:
        """A scale or zero point as float, shaped to broadcast against the data."""
        shape = [d or 0 for d in self.graph.kinds[name][1]]
        value = self.to_float(name)
        axis, rank, block = int(self.given.get("axis", 1)), len(self.shape), int(self.given.get("block_size", 0))
        if int(np.prod(shape)) == 1:
            return self.reshape(value, [])
        if len(shape) == 1 and not block:
            return self.reshape(value, [shape[0] if i == axis % rank else 1 for i in range(rank)])
        if len(shape) != rank:
            raise error_at_node(
                self.source,
                f"the scale has shape {shape}, expected one value, one per channel or one per block of {self.shape}",
            )
        axis %= rank
        if not block:
            block = -(-self.shape[axis] // shape[axis])
        spread = [*shape[: axis + 1], block, *shape[axis + 1 :]]
        value = self.reshape(value, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
        value = self.add("Expand", [value, self.graph.constant(np.asarray(spread, np.int64), "shape")])
        whole = [*shape[:axis], shape[axis] * block, *shape[axis + 1 :]]
        value = self.reshape(value, whole)
        if whole[axis] == self.shape[axis]:
            return value
        start, stop = (self.graph.constant(np.asarray([v], np.int64), "bound") for v in (0, self.shape[axis]))
        return self.add("Slice", [value, start, stop, self.graph.constant(np.asarray([axis], np.int64), "axis")])

    def reshape(self, name: str, shape: list[int]) -> str:
        return self.add("Reshape", [name, self.graph.constant(np.asarray(shape, np.int64), "shape")])


def _range(element: int) -> tuple[int, int]:
    if element in RANGES:
        return RANGES[element]
    info = np.iinfo(helper.tensor_dtype_to_np_dtype(element))
    return int(info.min), int(info.max)
