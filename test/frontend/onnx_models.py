"""Small ONNX models for tests, and their evaluation through the graph form with the numpy reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import qcc
from qcc.compiler import pipeline
from qcc.compiler.frontend import onnx as front_end
from qcc.dialects.mlir import ir
from qcc.passes.base import run_pipeline
from qcc.runtime.reference import interpreter

FLOAT = onnx.TensorProto.FLOAT


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str | None]]],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray],
    opset: int = 21,
    output_type: int = FLOAT,
) -> onnx.ModelProto:
    """A model with `inputs` name -> (element type, shape) and constants as initializers."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, output_type, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    domains = {"", *(n.domain for n in nodes)}
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(d, opset if d == "" else 1) for d in sorted(domains)], ir_version=10)


def graph_form(source: Any, **options: Any) -> ir.Module:
    """`source` imported and brought to the graph form."""
    imported = front_end.import_model(source, **options)
    run_pipeline(imported.module, pipeline.IMPORT)
    return imported.module


def evaluate(source: Any, *inputs: np.ndarray, **options: Any) -> list[np.ndarray]:
    """Outputs of the graph form of `source` by the numpy reference."""
    return interpreter.run(graph_form(source, **options), list(inputs))


def runtime_result(source: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    """The first output by ONNX Runtime; not for products of full-range u8 and s8, which saturate in it on CPUs without VNNI."""
    return runtime_results(source, **inputs)[0]


def runtime_results(source: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    """All outputs by ONNX Runtime, whose optimizer is off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return [np.asarray(value) for value in onnxruntime.InferenceSession(source.SerializeToString(), options).run(None, inputs)]


def contributed(operator: str, operands: str, constants: dict[str, Any], results: str = "y", **given: Any) -> tuple[Any, dict[str, Any]]:
    """A model of one operator, and its inputs: those values among `constants` whose name is in capitals."""
    names = ["" if name == "-" else name for name in operands.split()]
    node = helper.make_node(operator, names, results.split(), name="layer", domain="com.microsoft", **given)
    inputs = {name: value for name, value in constants.items() if name.isupper()}
    declared = {name: (helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) for name, value in inputs.items()}
    rest = {name: value for name, value in constants.items() if name not in inputs}
    return model([node], declared, results.split(), rest, 17), inputs


def check_import(source: onnx.ModelProto, inputs: dict[str, Any], tolerance: float = 2e-6) -> None:
    """Results of the graph form equal ONNX Runtime's as far as `tolerance`."""
    for a, b in zip(evaluate(source, *inputs.values()), runtime_results(source, **inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def check(source: onnx.ModelProto, inputs: dict[str, Any], tolerance: float = 2e-6, generic: int = 0) -> Any:
    """qcc's results equal ONNX Runtime's as far as `tolerance`; `generic` layers have no codelet. The executable."""
    executable = qcc.compile(source, threads=1)
    found = executable(*inputs.values())
    for a, b in zip(found if isinstance(found, tuple | list) else [found], runtime_results(source, **inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    assert sum(bool(row["generic"]) for row in executable.report["layers"]) == generic
    return executable


def operations(module: ir.Module) -> list[str]:
    """Names of the operations of `@main` in order."""
    main = next(op for op in module.body.operations if op.operation.name == "func.func" and op.attributes["sym_name"].value == "main")
    return [op.operation.name for op in main.regions[0].blocks[0].operations]


def relu_quantized_convolution(groups: int = 1, pads: Sequence[int] = (1, 1, 1, 1), bias: bool = True) -> onnx.ModelProto:
    """QDQ convolution as ONNX Runtime writes it: u8 activations with zero points, s8 weights per channel, i32 bias, batch 2."""
    rng = np.random.default_rng(groups)
    channels, outputs = 3 * groups, 5 * groups
    weight_scale = rng.uniform(0.005, 0.02, outputs).astype(np.float32)
    constants = {
        "xs": np.float32(0.05),
        "xz": np.uint8(120),
        "w": rng.integers(-127, 128, (outputs, 3, 3, 2)).astype(np.int8),
        "ws": weight_scale,
        "wz": np.zeros(outputs, np.int8),
        "b": rng.integers(-500, 500, outputs).astype(np.int32),
        "bs": (np.float32(0.05) * weight_scale).astype(np.float32),
        "bz": np.zeros(outputs, np.int32),
        "ys": np.float32(0.11),
        "yz": np.uint8(0),
    }
    convolution = ["xd", "wd", "bd"] if bias else ["xd", "wd"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], name="x/quantize"),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], name="x/dequantize"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="w/dequantize", axis=0),
        helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bd"], name="b/dequantize", axis=0),
        helper.make_node("Conv", convolution, ["c"], name="layer1/conv", pads=list(pads), strides=[2, 1], group=groups),
        helper.make_node("Relu", ["c"], ["r"], name="layer1/relu"),
        helper.make_node("QuantizeLinear", ["r", "ys", "yz"], ["rq"], name="y/quantize"),
        helper.make_node("DequantizeLinear", ["rq", "ys", "yz"], ["y"], name="y/dequantize"),
    ]
    return model(nodes, {"x": (FLOAT, [2, channels, 7, 9])}, ["y"], constants)
