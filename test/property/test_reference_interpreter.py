"""Whole layers in the integer form, from IR through the interpreter, against ONNX's reference evaluator and plain formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from qcc.dialects import element_types
from qcc.dialects.mlir import create, create_context, dense_f32, ir
from qcc.runtime.reference import interpreter
from test.tiers import draws

CONTEXT = create_context()
common = draws(40)
seeds = st.integers(0, 1 << 30)


def tensor(shape: list[int], element: ir.Type) -> ir.RankedTensorType:
    return ir.RankedTensorType.get(shape, element)


def conv_module(x: Any, w: Any, y: Any, stored: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, **window: Any) -> ir.Module:
    """main(x) = requantize(conv2d(x, w, bias)); types x, w, y are tensor types."""
    module = ir.Module.create()
    with ir.InsertionPoint(module.body):
        kind = ir.FunctionType.get([x], [y])
        attributes = {"sym_name": ir.StringAttr.get("main"), "function_type": ir.TypeAttr.get(kind)}
        function = ir.Operation.create("func.func", attributes=attributes, regions=1)
        block = function.regions[0].blocks.append(x)
        with ir.InsertionPoint(block):
            weights = create("qcc.constant", [], [w], {"value": stored}).result
            biases = create("qcc.constant", [], [tensor([len(bias)], ir.IntegerType.get_signless(32))], {"value": bias}).result
            acc = tensor(list(y.shape), ir.IntegerType.get_signless(48))
            sums = create("qcc.conv2d", [block.arguments[0], weights, biases], [acc], window).result
            attributes = {"multiplier": dense_f32(multiplier), "axis": 1, "mode": "f32"}
            result = create("qcc.requantize", [sums], [y], attributes).result
            ir.Operation.create("func.return", operands=[result])
    assert module.operation.verify()
    return module


@common
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(1, 3), min_size=2, max_size=2),
    st.lists(st.integers(1, 2), min_size=2, max_size=2), st.lists(st.integers(1, 2), min_size=2, max_size=2),
    st.lists(st.integers(0, 2), min_size=4, max_size=4), st.booleans(), seeds,
)  # fmt: skip
def test_convolution_layer_equals_qlinearconv(
    n: int,
    groups: int,
    width: int,
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    padding: list[int],
    signed: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    inside, outside = groups * width, groups * int(rng.integers(1, 4))
    size = [dilations[i] * (kernel[i] - 1) + 1 + int(rng.integers(0, 5)) for i in (0, 1)]
    dtype, low, high = (np.int8, -128, 127) if signed else (np.uint8, 0, 255)
    zx, zy = int(rng.integers(low, high)), int(rng.integers(low, high))
    sx, sy, sw = np.float32(0.03), np.float32(0.11), rng.uniform(0.001, 0.1, outside).astype(np.float32)
    x = rng.integers(low, high, (n, inside, *size), endpoint=True).astype(dtype)
    w = rng.integers(-128, 127, (outside, width, *kernel), endpoint=True).astype(np.int8)
    bias = rng.integers(-2000, 2000, outside).astype(np.int32)
    inputs = [helper.make_tensor_value_info("x", TensorProto.INT8 if signed else TensorProto.UINT8, x.shape)]
    arrays = {"sx": sx, "zx": dtype(zx), "w": w, "sw": sw, "zw": np.zeros(outside, np.int8), "sy": sy, "zy": dtype(zy), "b": bias}
    node = helper.make_node("QLinearConv", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"], ["y"],
                            strides=strides, dilations=dilations, pads=padding, group=groups)  # fmt: skip
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT8 if signed else TensorProto.UINT8, None)]
    initializers = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()]
    graph = helper.make_graph([node], "g", inputs, outputs, initializers)
    (expected,) = ReferenceEvaluator(helper.make_model(graph)).run(None, {"x": x})
    with CONTEXT, ir.Location.unknown():
        module = conv_module(
            tensor(list(x.shape), element_types.affine_type(sx, zx, signed=signed)),
            tensor(list(w.shape), element_types.affine_type(sw, np.zeros(outside, int), axis=0)),
            tensor(list(expected.shape), element_types.affine_type(sy, zy, signed=signed)),
            w, bias, sx * sw / sy, strides=strides, dilations=dilations, padding=padding, groups=groups,
        )  # fmt: skip
    (found,) = interpreter.run(module, [x])
    assert found.dtype == expected.dtype and found.shape == expected.shape
    step = np.abs(found.astype(int) - expected.astype(int))
    assert step.max() <= 1 and (step > 0).mean() <= 0.02  # ties and the order of the scales' product


@common
@given(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 16]), st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 16]), st.booleans(), st.booleans(), seeds)
def test_convolution_layer_of_any_widths_equals_the_formula(x_bits: int, w_bits: int, x_signed: bool, y_signed: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def bounds(bits: int, signed: bool) -> tuple[int, int]:
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)

    zx, zw, zy = (int(rng.integers(*bounds(b, s), endpoint=True)) for b, s in ((x_bits, x_signed), (w_bits, True), (x_bits, y_signed)))
    m = rng.uniform(1e-4, 1, 3).astype(np.float32)
    with CONTEXT, ir.Location.unknown():
        x_type = tensor([2, 2, 4, 5], element_types.affine_type(0.1, zx, bits=x_bits, signed=x_signed))
        w_type = tensor([3, 2, 2, 3], element_types.affine_type([0.1, 0.2, 0.3], [zw] * 3, bits=w_bits, axis=0))
        y_type = tensor([2, 3, 3, 3], element_types.affine_type(0.1, zy, bits=x_bits, signed=y_signed))
        x = rng.integers(*bounds(x_bits, x_signed), (2, 2, 4, 5), endpoint=True).astype(element_types.storage_dtype(x_type))
        w = rng.integers(*bounds(w_bits, True), (3, 2, 2, 3), endpoint=True).astype(element_types.storage_dtype(w_type))
        bias = rng.integers(-50, 50, 3).astype(np.int32)
        module = conv_module(x_type, w_type, y_type, w, bias, m, strides=[1, 1], dilations=[1, 1], padding=[0, 0, 0, 0], groups=1)
    (found,) = interpreter.run(module, [x])
    low, high = bounds(x_bits, y_signed)
    for n, o, i, j in np.ndindex(2, 3, 3, 3):
        window = x[n, :, i : i + 2, j : j + 3].astype(int) - zx
        acc = int((window * (w[o].astype(int) - zw)).sum()) + int(bias[o])
        assert found[n, o, i, j] == min(max(int(np.rint(np.float32(acc) * m[o])) + zy, low), high)
