"""Write an exported program of quantized_decomposed and aten operations as ONNX.

Ranges that ONNX has a type for (int8, uint8, int4, uint4) become QuantizeLinear / DequantizeLinear; every other width becomes a QONNX
`Quant` node with its bit width, and weights of -1 and 1 only become `BipolarQuant` (https://github.com/fastmachinelearning/qonnx).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from export_torch import layer_names
from onnx import TensorProto, helper
from torch import fx

QONNX = "qonnx.custom_op.general"
TYPES = {(-128, 127): TensorProto.INT8, (0, 255): TensorProto.UINT8, (-8, 7): TensorProto.INT4, (0, 15): TensorProto.UINT4}


class Writer:
    """The ONNX graph under construction; values keep the names of their torch.fx nodes."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.constants: dict[str, np.ndarray] = {}  # by placeholder name
        signature = program.graph_signature
        for node, name in (signature.inputs_to_parameters | signature.inputs_to_buffers).items():
            self.constants[node] = program.state_dict[name].detach().numpy()
        self.layers = layer_names(program)

    def constant(self, name: str, value: Any, kind: int | None = None) -> str:
        """Initializer `name` holding `value`; `kind` is a TensorProto type narrower than numpy's."""
        array = np.asarray(value)
        self.initializers[name] = (
            onnx.numpy_helper.from_array(array, name)
            if kind is None
            else helper.make_tensor(name, kind, array.shape, array.flatten().tolist())
        )
        return name

    def emit(self, kind: str, inputs: list[str], output: str, name: str, *, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, domain=domain, **attributes))
        return output

    def value(self, argument: Any) -> str:
        """The name of an fx argument; a constant becomes an initializer; '' where it is None."""
        if argument is None:
            return ""
        if argument.name in self.constants and argument.name not in self.initializers:
            self.constant(argument.name, self.constants[argument.name])
        return argument.name


def quantize_weight(writer: Writer, node: fx.Node, transposed: bool) -> str:
    """The real value of per-channel weight `node` (a dequantize_per_channel); [in, out] where `transposed`."""
    stored, scale = (writer.constants[node.args[i].name] for i in (0, 1))
    low, high = node.args[4], node.args[5]
    name, layer, axis = node.args[0].name.removeprefix("b_"), writer.layers[node], 0
    if transposed:
        stored, axis = np.ascontiguousarray(stored.T), 1
    if (kind := TYPES.get((low, high))) is not None:
        inputs = [
            writer.constant(f"{name}_stored", stored, kind),
            writer.constant(f"{name}_scale", scale),
            writer.constant(f"{name}_zero_point", np.zeros(len(scale), np.int8), kind),
        ]
        return writer.emit("DequantizeLinear", inputs, name, f"{layer}/weight", axis=axis)
    column = scale.reshape([-1 if i == axis else 1 for i in range(stored.ndim)])
    inputs = [writer.constant(f"{name}_real", stored.astype(np.float32) * column), writer.constant(f"{name}_scale", column)]
    if (low, high) == (-1, 1) and bool((stored != 0).all()):
        return writer.emit("BipolarQuant", inputs, name, f"{layer}/weight", domain=QONNX)
    bits = (high - low + 1).bit_length() - (high + low == -1)  # [-2, 1] and [-1, 1] are both of 2 bits, the second is narrow
    inputs += [writer.constant(f"{name}_zero_point", np.float32(0)), writer.constant(f"{name}_bits", np.float32(bits))]
    return writer.emit("Quant", inputs, name, f"{layer}/weight", domain=QONNX, signed=1, narrow=int(high + low == 0), rounding_mode="ROUND")


def quantize_activation(writer: Writer, node: fx.Node) -> None:
    """A quantize_per_tensor and the dequantize_per_tensor `node` that follows it."""
    quantize = node.args[0]
    _, scale, zero_point, low, high, _ = node.args
    layer, x = writer.layers[node], writer.value(quantize.args[0])
    scale_name = writer.constant(f"{node.name}_scale", np.float32(scale))
    if (kind := TYPES.get((low, high))) is not None:
        parameters = [scale_name, writer.constant(f"{node.name}_zero_point", np.array(zero_point), kind)]
        writer.emit("QuantizeLinear", [x, *parameters], quantize.name, f"{layer}/quantize")
        writer.emit("DequantizeLinear", [quantize.name, *parameters], node.name, f"{layer}/dequantize")
        return
    parameters = [
        scale_name,
        writer.constant(f"{node.name}_zero_point", np.float32(zero_point)),
        writer.constant(f"{node.name}_bits", np.float32((high - low).bit_length())),
    ]
    writer.emit("Quant", [x, *parameters], node.name, layer, domain=QONNX, signed=int(low < 0), narrow=0, rounding_mode="ROUND")


def convolution(writer: Writer, node: fx.Node) -> None:
    x, weight, bias, strides, padding, dilations, groups = [*node.args, *[None, [1, 1], [0, 0], [1, 1], 1][len(node.args) - 2 :]]
    inputs = [writer.value(x), quantize_weight(writer, weight, False), writer.value(bias)]
    writer.emit(
        "Conv",
        inputs if bias is not None else inputs[:2],
        node.name,
        writer.layers[node],
        strides=list(strides),
        pads=[*padding, *padding],
        dilations=list(dilations),
        group=groups,
        kernel_shape=list(weight.meta["val"].shape[2:]),
    )


def linear(writer: Writer, node: fx.Node) -> None:
    x, weight, bias = node.args
    if len(x.meta["val"].shape) == 2:
        inputs = [writer.value(x), quantize_weight(writer, weight, False), writer.value(bias)]
        writer.emit("Gemm", inputs, node.name, writer.layers[node], transB=1)
        return
    product = writer.emit("MatMul", [writer.value(x), quantize_weight(writer, weight, True)], f"{node.name}_product", writer.layers[node])
    writer.emit("Add", [product, writer.value(bias)], node.name, f"{writer.layers[node]}/bias")


def simple(kind: str, inputs: int, attributes: Callable[[fx.Node], dict[str, Any]] = lambda node: {}) -> Callable[[Writer, fx.Node], None]:
    """A writer for an operation whose first `inputs` arguments are its ONNX inputs."""

    def write(writer: Writer, node: fx.Node) -> None:
        writer.emit(kind, [writer.value(a) for a in node.args[:inputs]], node.name, writer.layers[node], **attributes(node))

    return write


def reshape(writer: Writer, node: fx.Node) -> None:
    shape = writer.constant(f"{node.name}_shape", np.array(node.meta["val"].shape, np.int64))
    writer.emit("Reshape", [writer.value(node.args[0]), shape], node.name, writer.layers[node])


def mean(writer: Writer, node: fx.Node) -> None:
    axes = writer.constant(f"{node.name}_axes", np.array(node.args[1], np.int64))
    writer.emit("ReduceMean", [writer.value(node.args[0]), axes], node.name, writer.layers[node], keepdims=0)


def layer_norm(writer: Writer, node: fx.Node) -> None:
    x, shape, gamma, beta = node.args[:4]
    inputs = [writer.value(v) for v in (x, gamma, beta)]
    writer.emit("LayerNormalization", inputs, node.name, writer.layers[node], axis=-len(shape), epsilon=1e-5)


def swapped_axes(node: fx.Node) -> dict[str, Any]:
    order = list(range(len(node.meta["val"].shape)))
    a, b = node.args[1:3]
    order[a], order[b] = order[b], order[a]
    return {"perm": order}


aten = torch.ops.aten
WRITERS: dict[Any, Callable[[Writer, fx.Node], None]] = {
    torch.ops.quantized_decomposed.quantize_per_tensor.default: lambda writer, node: None,  # written with its dequantize
    torch.ops.quantized_decomposed.dequantize_per_tensor.default: quantize_activation,
    torch.ops.quantized_decomposed.dequantize_per_channel.default: lambda writer, node: None,  # written with the layer that uses it
    aten.conv2d.default: convolution,
    aten.linear.default: linear,
    aten.relu.default: simple("Relu", 1),
    aten.gelu.default: simple("Gelu", 1),
    aten.add.Tensor: simple("Add", 2),
    aten.max_pool2d.default: simple("MaxPool", 1, lambda node: {"kernel_shape": node.args[1], "strides": node.args[1]}),
    aten.adaptive_avg_pool2d.default: simple("GlobalAveragePool", 1),
    aten.batch_norm.default: simple("BatchNormalization", 5, lambda node: {"epsilon": node.args[7]}),
    aten.flatten.using_ints: reshape,
    aten.transpose.int: simple("Transpose", 1, swapped_axes),
    aten.mean.dim: mean,
    aten.layer_norm.default: layer_norm,
}


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write `program`, a model with one input and one output, to `path`. Raises KeyError at an operation without an entry in WRITERS."""
    writer = Writer(program)
    inputs, outputs = [], []
    for node in program.graph.nodes:
        if node.op == "call_function":
            WRITERS[node.target](writer, node)
        elif node.op == "placeholder" and node.name not in writer.constants:
            inputs.append(helper.make_tensor_value_info(node.name, TensorProto.FLOAT, list(node.meta["val"].shape)))
        elif node.op == "output":
            result = node.args[0][0]
            outputs.append(helper.make_tensor_value_info(result.name, TensorProto.FLOAT, list(result.meta["val"].shape)))
    graph = helper.make_graph(writer.nodes, path.stem, inputs, outputs, list(writer.initializers.values()))
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(QONNX, 1)], ir_version=10, producer_name="qcc examples"
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
