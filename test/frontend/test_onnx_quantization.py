"""Every spelling of quantization in ONNX against ONNX's own reference, ONNX Runtime, or the formula of the operator."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import qcc
from qcc.dialects import element_types
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import walk
from test.frontend.onnx_models import FLOAT, evaluate, graph_form, model, operations, runtime_result
from test.tiers import slow_except

UINT8, INT8, INT32 = onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.INT32
CONTAINERS = {
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int4": ml_dtypes.int4,
    "uint4": ml_dtypes.uint4,
    "int2": ml_dtypes.int2,
    "uint2": ml_dtypes.uint2,
}


def constant_types(source: Any) -> list[Any]:
    """Affine parameters of the quantized constants in the graph form."""
    module = graph_form(source)  # alive as long as its types are looked at
    kinds = [op.results[0].type for op in walk(module, "qcc.constant")]
    return [a for kind in kinds if (a := element_types.affine(kind)) is not None]


@pytest.mark.parametrize("name", CONTAINERS)
def test_quantize_and_dequantize_of_every_width(name: str) -> None:
    dtype = CONTAINERS[name]
    info = ml_dtypes.iinfo(dtype)
    zero = np.array((int(info.min) + int(info.max) + 1) // 2, dtype)
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]), helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    source = model(nodes, {"x": (FLOAT, [2, 50])}, ["y"], {"s": np.float32(0.037), "z": zero}, opset=25)
    x = np.linspace(-4, 4, 100, dtype=np.float32).reshape(2, 50)
    expected = (np.clip(np.rint(x / np.float32(0.037)) + int(zero), info.min, info.max) - int(zero)) * np.float32(0.037)
    assert np.array_equal(evaluate(source, x)[0], expected.astype(np.float32))
    assert set(operations(graph_form(source))) == {"qcc.quantize", "qcc.dequantize", "func.return"}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("axis", slow_except([0, -1], 0))
def test_weights_per_channel_of_every_width(name: str, axis: int) -> None:
    dtype = CONTAINERS[name]
    info = ml_dtypes.iinfo(dtype)
    rng = np.random.default_rng(3)
    w = rng.integers(int(info.min), int(info.max) + 1, (6, 4)).astype(dtype)
    channels = w.shape[axis]
    scale, zero = rng.uniform(0.01, 0.1, channels).astype(np.float32), rng.integers(0, 2, channels).astype(dtype)
    nodes = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=axis), helper.make_node("MatMul", ["x", "d"], ["y"])]
    source = model(nodes, {"x": (FLOAT, [3, 6])}, ["y"], {"w": w, "s": scale, "z": zero}, opset=25)
    x = rng.normal(size=(3, 6)).astype(np.float32)
    shape = (-1, 1) if axis == 0 else (1, -1)
    real = (w.astype(np.float32) - zero.astype(np.float32).reshape(shape)) * scale.reshape(shape)
    np.testing.assert_allclose(evaluate(source, x)[0], x @ real, rtol=2e-4, atol=1e-5)
    (kind,) = constant_types(source)
    assert (kind.bits, kind.signed) == (info.bits, name.startswith("int"))


@pytest.mark.parametrize("name", ["int4", "uint4", "int8"])
def test_weights_in_blocks(name: str) -> None:
    dtype = CONTAINERS[name]
    info = ml_dtypes.iinfo(dtype)
    rng = np.random.default_rng(4)
    w = rng.integers(int(info.min), int(info.max) + 1, (8, 5)).astype(dtype)
    scale, zero = rng.uniform(0.01, 0.1, (2, 5)).astype(np.float32), rng.integers(0, 7, (2, 5)).astype(dtype)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0, block_size=4),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    source = model(nodes, {"x": (FLOAT, [3, 8])}, ["y"], {"w": w, "s": scale, "z": zero})
    x = rng.normal(size=(3, 8)).astype(np.float32)
    real = (w.astype(np.float32) - np.repeat(zero, 4, 0).astype(np.float32)) * np.repeat(scale, 4, 0)
    np.testing.assert_allclose(evaluate(source, x)[0], x @ real, rtol=2e-4, atol=1e-5)


def test_a_bias_of_32_bits_stays_integer() -> None:
    constants = {"b": np.array([1 << 20, -7], np.int32), "s": np.array([0.5, 0.25], np.float32)}
    nodes = [helper.make_node("DequantizeLinear", ["b", "s"], ["d"], axis=0), helper.make_node("Add", ["x", "d"], ["y"])]
    source = model(nodes, {"x": (FLOAT, [3, 2])}, ["y"], constants)
    (kind,) = constant_types(source)
    assert (kind.bits, kind.signed, kind.axis) == (32, True, 0)
    assert np.array_equal(evaluate(source, np.zeros((1, 2), np.float32).repeat(3, 0))[0][0], [1 << 19, -1.75])


def test_an_instance_norm_with_a_bias_of_32_bits() -> None:
    """As ONNX Runtime's static quantization writes every norm of a convolutional network."""
    rng = np.random.default_rng(3)
    constants = {
        "g": rng.integers(1, 128, 6).astype(np.int8),
        "gs": np.float32(0.01),
        "b": rng.integers(-9000, 9000, 6).astype(np.int32),
        "bs": np.float32(0.0001),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["g", "gs"], ["gamma"]),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["beta"]),
        helper.make_node("InstanceNormalization", ["x", "gamma", "beta"], ["y"]),
    ]
    source = model(nodes, {"x": (FLOAT, [2, 6, 5, 7])}, ["y"], constants)
    x = rng.normal(size=(2, 6, 5, 7)).astype(np.float32)
    expected = runtime_result(source, x=x)
    assert "qcc.layer_norm" in operations(graph_form(source))
    np.testing.assert_allclose(evaluate(source, x)[0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(qcc.compile(source, threads=1)(x), expected, rtol=1e-5, atol=1e-5)


def test_a_padding_whose_value_is_quantized() -> None:
    """As ONNX Runtime's static quantization writes constant padding; the result is integers all the way."""
    constants = {"s": np.float32(0.05), "z": np.uint8(7), "v": np.uint8(0), "vs": np.float32(1), "pads": np.array([0, 1, 2, 0])}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["v", "vs", "v"], ["value"]),
        helper.make_node("Pad", ["d", "pads", "value"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "s", "z"], ["pq"]),
        helper.make_node("DequantizeLinear", ["pq", "s", "z"], ["y"]),
    ]
    source = model(nodes, {"x": (FLOAT, [4, 5])}, ["y"], constants)
    x = np.random.default_rng(0).normal(0, 3, (4, 5)).astype(np.float32)
    assert np.array_equal(evaluate(source, x)[0], runtime_result(source, x=x))
    assert set(operations(graph_form(source))) == {"qcc.quantize", "qcc.dequantize", "qcc.pad", "func.return"}


def linear_convolution() -> tuple[onnx.ModelProto, np.ndarray]:
    rng = np.random.default_rng(5)
    constants = {
        "xs": np.float32(0.02), "xz": np.uint8(130), "w": rng.integers(-128, 128, (6, 2, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.001, 0.01, 6).astype(np.float32), "wz": np.zeros(6, np.int8),
        "ys": np.float32(0.03), "yz": np.uint8(100), "b": rng.integers(-900, 900, 6).astype(np.int32),
        "shape": np.array([2, -1]),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node(
            "QLinearConv", ["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["c"], name="conv", group=2, pads=[1, 0, 1, 2]
        ),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "shape"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "ys", "yz"], ["y"]),
    ]
    source = model(nodes, {"x": (FLOAT, [2, 4, 8, 8])}, ["y"], constants)
    return source, rng.normal(0, 1, (2, 4, 8, 8)).astype(np.float32)


def test_linear_convolution_then_movement_of_integers() -> None:
    source, x = linear_convolution()
    (found,) = evaluate(source, x)
    (expected,) = ReferenceEvaluator(source).run(None, {"x": x})
    assert np.array_equal(found, expected)
    assert "quant.scast" not in operations(graph_form(source))


def test_linear_matmul() -> None:
    rng = np.random.default_rng(6)
    constants = {
        "as": np.float32(0.02), "az": np.uint8(128), "b": rng.integers(0, 256, (8, 5)).astype(np.uint8), "bs": np.float32(0.01),
        "bz": np.uint8(120), "ys": np.float32(0.05), "yz": np.uint8(110),
    }  # fmt: skip
    nodes = [
        helper.make_node("QLinearMatMul", ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["y"], name="matmul"),
    ]
    source = model(nodes, {"a": (UINT8, [3, 8])}, ["y"], constants, output_type=UINT8)
    a = rng.integers(0, 256, (3, 8)).astype(np.uint8)
    (found,) = evaluate(source, a)
    (expected,) = ReferenceEvaluator(source).run(None, {"a": a})
    assert found.dtype == expected.dtype
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert "quant.scast" not in operations(graph_form(source))


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_microsoft_binary(op: str) -> None:
    rng = np.random.default_rng(7)
    constants = {
        "sa": np.float32(0.02), "za": np.uint8(128), "sb": np.float32(0.03), "zb": np.uint8(100),
        "sy": np.float32(0.05), "zy": np.uint8(128),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["a", "sa", "za"], ["aq"]),
        helper.make_node("QuantizeLinear", ["b", "sb", "zb"], ["bq"]),
        helper.make_node(op, ["aq", "sa", "za", "bq", "sb", "zb", "sy", "zy"], ["yq"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zy"], ["y"]),
    ]
    source = model(nodes, {"a": (FLOAT, [2, 40]), "b": (FLOAT, [2, 40])}, ["y"], constants)
    a, b = rng.normal(size=(2, 2, 40)).astype(np.float32)
    assert np.abs(evaluate(source, a, b)[0] - runtime_result(source, a=a, b=b)).max() <= 0.0501


def test_microsoft_pool_concat_sigmoid_and_gemm() -> None:
    rng = np.random.default_rng(8)
    constants = {
        "s": np.float32(0.02), "z": np.uint8(128), "s2": np.float32(0.01), "z2": np.uint8(5),
        "w": rng.integers(-100, 100, (6, 7)).astype(np.int8),
        "ws": rng.uniform(0.01, 0.02, 7).astype(np.float32), "wz": np.zeros(7, np.int8), "b": rng.integers(-99, 99, 7).astype(np.int32),
        "shape": np.array([2, 6]),
    }  # fmt: skip
    microsoft: dict[str, Any] = {"domain": "com.microsoft"}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("QLinearSigmoid", ["xq", "s", "z", "s2", "z2"], ["sig"], **microsoft),
        helper.make_node("QLinearConcat", ["s", "z", "xq", "s", "z", "sig", "s2", "z2"], ["cat"], axis=1, **microsoft),
        helper.make_node("QLinearGlobalAveragePool", ["cat", "s", "z", "s2", "z"], ["pool"], channels_last=0, **microsoft),
        helper.make_node("Reshape", ["pool", "shape"], ["flat"]),
        helper.make_node("QGemm", ["flat", "s2", "z", "w", "ws", "wz", "b"], ["y"], alpha=1.0, transA=0, transB=0, **microsoft),
    ]
    source = model(nodes, {"x": (FLOAT, [2, 3, 4, 4])}, ["y"], constants)
    x = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(evaluate(source, x)[0], runtime_result(source, x=x), atol=0.03)


@pytest.mark.parametrize("op", ["MatMulInteger", "ConvInteger"])
def test_integer_operators_are_exact(op: str) -> None:
    rng = np.random.default_rng(9)
    shapes = {"MatMulInteger": ([3, 8], (8, 5)), "ConvInteger": ([1, 2, 6, 6], (3, 2, 3, 3))}[op]
    constants = {"w": rng.integers(-128, 128, shapes[1]).astype(np.int8), "xz": np.uint8(7), "wz": np.int8(0)}
    source = model([helper.make_node(op, ["x", "w", "xz", "wz"], ["y"])], {"x": (UINT8, shapes[0])}, ["y"], constants, output_type=INT32)
    x = rng.integers(0, 256, shapes[0]).astype(np.uint8)
    (expected,) = ReferenceEvaluator(source).run(None, {"x": x})
    assert np.array_equal(evaluate(source, x.view(np.int8))[0], expected)  # builtin integers have no sign; the type is i8


def test_integers_that_other_operators_read_are_plain_numbers() -> None:
    rng = np.random.default_rng(9)
    constants = {"s": np.float32(0.02), "z": np.uint8(100), "w": rng.integers(-128, 128, (8, 5)).astype(np.int8), "as": np.float32(0.5)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["acc"]),
        helper.make_node("DequantizeLinear", ["acc", "as"], ["real"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["same"]),
        helper.make_node("DequantizeLinear", ["q", "as", "z"], ["other"]),
    ]
    source = model(nodes, {"x": (FLOAT, [3, 8])}, ["real", "same", "other"], constants)
    x = rng.normal(size=(3, 8)).astype(np.float32)
    for found, expected in zip(evaluate(source, x), ReferenceEvaluator(source).run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_dynamic_quantization() -> None:
    rng = np.random.default_rng(10)
    constants = {"w": rng.integers(-128, 128, (8, 5)).astype(np.int8), "wz": np.int8(0), "ws": np.float32(0.01)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["acc"]),
        helper.make_node("Cast", ["acc"], ["real"], to=FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["scale"]),
        helper.make_node("Mul", ["real", "scale"], ["y"]),
    ]
    source = model(nodes, {"x": (FLOAT, [3, 8])}, ["y"], constants)
    x = rng.normal(size=(3, 8)).astype(np.float32)
    (expected,) = ReferenceEvaluator(source).run(None, {"x": x})
    np.testing.assert_allclose(evaluate(source, x)[0], expected, rtol=1e-5, atol=1e-5)


def test_scales_at_run_time_are_float_arithmetic() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1),
    ]
    source = model(nodes, {"x": (FLOAT, [2, 3, 4]), "s": (FLOAT, [3]), "z": (INT8, [3])}, ["y"], {})
    x = np.random.default_rng(11).normal(size=(2, 3, 4)).astype(np.float32)
    scale, zero = np.array([0.1, 0.01, 1.0], np.float32), np.array([0, 5, -100], np.int8)
    (expected,) = ReferenceEvaluator(source).run(None, {"x": x, "s": scale, "z": zero})
    np.testing.assert_allclose(evaluate(source, x, scale, zero)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("with_zero", [True, False])
def test_matmul_nbits(bits: int, with_zero: bool) -> None:
    rng = np.random.default_rng(12)
    k, n, block = 64, 6, 32
    blocks = k // block
    constants = {
        "w": rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8),
        "s": rng.uniform(0.01, 0.1, n * blocks).astype(np.float32),
        "z": rng.integers(0, 256, n * -(-blocks * bits // 8)).astype(np.uint8),
    }
    operands = ["x", "w", "s", "z"] if with_zero else ["x", "w", "s"]
    nodes = [helper.make_node("MatMulNBits", operands, ["y"], domain="com.microsoft", K=k, N=n, bits=bits, block_size=block)]
    source = model(nodes, {"x": (FLOAT, [2, k])}, ["y"], constants)
    x = rng.normal(size=(2, k)).astype(np.float32)
    np.testing.assert_allclose(evaluate(source, x)[0], runtime_result(source, x=x), rtol=1e-3, atol=1e-3)
    (kind,) = constant_types(source)
    assert (kind.bits, kind.signed, kind.block) == (bits, False, (1, block))


# -- QONNX ---------------------------------------------------------------------------------------------------------------------------


def quant_formula(x: np.ndarray, scale: np.ndarray, zero: float, bits: int, signed: bool, narrow: bool) -> np.ndarray:
    """Quant as the QONNX paper defines it."""
    low = -(2 ** (bits - 1)) + narrow if signed else 0
    high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
    return ((np.clip(np.round(x / scale + zero), low, high) - zero) * scale).astype(np.float32)


@pytest.mark.parametrize("bits", slow_except([1, 2, 3, 4, 5, 8, 9, 12, 16], 1, 4, 8))
@pytest.mark.parametrize(("signed", "narrow"), [(True, True), (True, False), (False, False)])
def test_quant_of_activations(bits: int, signed: bool, narrow: bool) -> None:
    if bits == 1 and signed and narrow:
        pytest.skip("leaves only zero")
    nodes = [helper.make_node("Quant", ["x", "s", "z", "b"], ["y"], domain="qonnx.custom_op.general", signed=signed, narrow=narrow)]
    constants = {"s": np.float32(0.05), "z": np.float32(0), "b": np.float32(bits)}
    source = model(nodes, {"x": (FLOAT, [1, 3, 5, 5])}, ["y"], constants, opset=17)
    x = np.random.default_rng(bits).normal(0, 3, (1, 3, 5, 5)).astype(np.float32)
    assert np.array_equal(evaluate(source, x)[0], quant_formula(x, np.float32(0.05), 0, bits, signed, narrow))
    assert f"{'i' if signed else 'u'}{bits}" in str(graph_form(source))


def test_quant_of_weights_per_channel() -> None:
    rng = np.random.default_rng(13)
    w, scale = rng.normal(size=(4, 3, 3, 3)).astype(np.float32), rng.uniform(0.1, 0.5, (4, 1, 1, 1)).astype(np.float32)
    constants = {"w": w, "s": scale, "z": np.float32(0), "b": np.float32(3)}
    nodes = [
        helper.make_node("Quant", ["w", "s", "z", "b"], ["wq"], domain="onnx.brevitas", signed=1, narrow=1, rounding_mode="ROUND"),
        helper.make_node("Conv", ["x", "wq"], ["y"]),
    ]
    source = model(nodes, {"x": (FLOAT, [1, 3, 6, 6])}, ["y"], constants, opset=17)
    (kind,) = constant_types(source)
    assert (kind.bits, kind.qmin, kind.qmax, kind.axis) == (3, -3, 3, 0)
    x = rng.normal(size=(1, 3, 6, 6)).astype(np.float32)
    real = quant_formula(w, scale, 0, 3, True, True)
    plain = model([helper.make_node("Conv", ["x", "w"], ["y"])], {"x": (FLOAT, [1, 3, 6, 6])}, ["y"], {"w": real})
    np.testing.assert_allclose(evaluate(source, x)[0], ReferenceEvaluator(plain).run(None, {"x": x})[0], rtol=1e-4, atol=1e-4)


def test_bipolar_quant() -> None:
    rng = np.random.default_rng(14)
    w = rng.normal(size=(8, 5)).astype(np.float32)
    domain = "finn.custom_op.general"
    nodes = [
        helper.make_node("BipolarQuant", ["w", "ws"], ["wq"], domain=domain),
        helper.make_node("BipolarQuant", ["x", "xs"], ["xq"], domain=domain),
        helper.make_node("MatMul", ["xq", "wq"], ["y"]),
    ]
    source = model(nodes, {"x": (FLOAT, [3, 8])}, ["y"], {"w": w, "ws": np.float32(0.5), "xs": np.float32(2)}, opset=17)
    x = rng.normal(size=(3, 8)).astype(np.float32)
    x[0, 0] = 0
    expected = np.where(x >= 0, 2, -2) @ np.where(w >= 0, 0.5, -0.5)
    assert np.array_equal(evaluate(source, x)[0], expected.astype(np.float32))


def quant(constants: dict[str, np.ndarray], **given: Any) -> onnx.ModelProto:
    base = {"s": np.float32(0.05), "z": np.float32(0), "b": np.float32(4)}
    nodes = [helper.make_node("Quant", ["x", "s", "z", "b"], ["y"], name="act", domain="qonnx.custom_op.general", **given)]
    return model(nodes, {"x": (FLOAT, [2, 2])}, ["y"], base | constants, opset=17)


@pytest.mark.parametrize(
    ("constants", "given", "message"),
    [
        ({"b": np.float32(2.5)}, {}, r"layer 'act': the bit width of Quant is \[2.5\], expected one whole number"),
        ({"b": np.float32(20)}, {}, r"layer 'act': Quant has bit width 20 on a run-time value, expected 1 to 16"),
        ({"z": np.float32(0.5)}, {}, r"layer 'act': the zero point of Quant is 0.5, expected an integer"),
        ({"s": np.float32(-1)}, {}, r"layer 'act': a scale is -1.0, expected a positive finite number"),
        ({"s": np.ones((2, 2), np.float32) * np.array([[1, 2], [3, 4]], np.float32)}, {}, r"expected them to vary along one axis only"),
        ({}, {"rounding_mode": "SOMEHOW"}, r"layer 'act': rounding_mode of Quant is SOMEHOW, expected one of ROUND"),
    ],
)
def test_bad_quant(constants: dict[str, np.ndarray], given: dict[str, Any], message: str) -> None:
    with pytest.raises(QccError, match=message):
        graph_form(quant(constants, **given))


ROUNDINGS = {
    "ROUND": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda v: np.sign(v) * np.ceil(np.abs(v)),
    "DOWN": np.trunc,
    "HALF_UP": lambda v: np.sign(v) * np.floor(np.abs(v) + 0.5),
    "HALF_DOWN": lambda v: np.sign(v) * np.ceil(np.abs(v) - 0.5),
}


@pytest.mark.parametrize("mode", ROUNDINGS)
def test_quant_rounds_run_time_values_in_every_mode(mode: str) -> None:
    x = np.random.default_rng(5).integers(-40, 40, (2, 60)).astype(np.float32) / 8  # halves and quarters of the step
    given = {"rounding_mode": mode, "signed": 1, "narrow": 0}
    nodes = [helper.make_node("Quant", ["x", "s", "z", "b"], ["y"], domain="qonnx.custom_op.general", **given)]
    source = model(nodes, {"x": (FLOAT, [2, 60])}, ["y"], {"s": np.float32(0.5), "z": np.float32(2), "b": np.float32(4)}, opset=17)
    expected = (np.clip(ROUNDINGS[mode](x / 0.5 + 2), -8, 7) - 2) * 0.5
    assert np.array_equal(evaluate(source, x)[0], expected.astype(np.float32))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("mode", ["FLOOR", "ROUND"])
def test_trunc(version: int, mode: str) -> None:
    """From 8 to 4 bits behind an average, as qonnx executes it."""
    domain, given = "qonnx.custom_op.general", {"rounding_mode": mode}
    inputs = ["x", "s", "z", "b8", *(["s4"] if version == 2 else []), "b4"]
    nodes = [helper.make_node("Trunc", inputs, ["y"], domain=domain, **given | ({"signed": 0, "narrow": 0} if version == 2 else {}))]
    constants = {"s": np.float32(0.25), "z": np.float32(0), "b8": np.float32(8), "b4": np.float32(4), "s4": np.float32(4)}
    source = model(nodes, {"x": (FLOAT, [3, 100])}, ["y"], {k: v for k, v in constants.items() if k in inputs}, opset=17)
    x = np.random.default_rng(6).integers(0, 256, (3, 100)).astype(np.float32) / 4
    upper = ROUNDINGS[mode](np.rint(x / 0.25) / 16)
    expected = np.clip(upper, 0, 15) * 4 if version == 2 else upper * 0.25
    assert np.array_equal(evaluate(source, x)[0], expected.astype(np.float32))
    assert ("u4" if version == 2 else "i5" if mode == "FLOOR" else "i6") in str(graph_form(source))


# -- QCDQ ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "zero", "low", "high", "words"),
    [
        (np.uint8, 0, 0, 15, "u4:f32"),
        (np.int8, 0, -7, 7, "i4<-7:7>:f32"),
        (np.int8, 0, -1, 1, "i2<-1:1>:f32"),
        (np.uint8, 3, 0, 7, "u3:f32"),
        (np.uint8, 0, 0, 1, "u1:f32"),
        (np.int8, 0, -5, 6, "i4:f32"),  # no range of a width: cut in front
        (np.uint8, 100, 0, 15, "u7:f32"),  # the zero point is none of the values
    ],
)
def test_a_clip_of_integers_is_a_width(dtype: Any, zero: int, low: int, high: int, words: str) -> None:
    """Max pooling and a reshape of the integers between, as on the way to the next layer."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("Clip", ["q", "low", "high"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("DequantizeLinear", ["f", "s", "z"], ["y"]),
    ]
    constants = {"s": np.float32(0.3), "z": dtype(zero), "low": dtype(low), "high": dtype(high)}
    source = model(nodes, {"x": (FLOAT, [1, 2, 6, 6])}, ["y"], constants, opset=19)
    x = np.random.default_rng(7).normal(0, 4, (1, 2, 6, 6)).astype(np.float32)
    assert np.array_equal(evaluate(source, x)[0], runtime_result(source, x=x))
    text = str(graph_form(source))
    assert words in text and set(operations(graph_form(source))) <= {
        "qcc.quantize", "qcc.dequantize", "qcc.max_pool2d", "qcc.reshape", "qcc.clamp", "func.return",
    }  # fmt: skip


def test_a_clip_of_many_constant_integers_is_done_at_once() -> None:
    rng = np.random.default_rng(8)
    w = rng.integers(-128, 128, (300, 300)).astype(np.int8)  # more than constants are folded of
    nodes = [
        helper.make_node("Clip", ["w", "low", "high"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    constants = {"w": w, "low": np.int8(-7), "high": np.int8(7), "s": np.float32(0.1), "z": np.int8(0)}
    source = model(nodes, {"x": (FLOAT, [2, 300])}, ["y"], constants, opset=19)
    (kind,) = constant_types(source)
    assert kind.bits == 8
    x = rng.normal(size=(2, 300)).astype(np.float32)
    np.testing.assert_allclose(evaluate(source, x)[0], runtime_result(source, x=x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("low", "high"), [(0, 6), (-448, 448), (None, 2), (-1.5, None)])
def test_a_clip_of_real_values_is_a_clamp(low: float | None, high: float | None) -> None:
    constants = {name: np.float32(v) for name, v in (("low", low), ("high", high)) if v is not None}
    nodes = [helper.make_node("Clip", ["x", "low" if low is not None else "", *(["high"] if high is not None else [])], ["y"])]
    source = model(nodes, {"x": (FLOAT, [2, 50])}, ["y"], constants)
    x = np.random.default_rng(9).normal(0, 300, (2, 50)).astype(np.float32)
    assert np.array_equal(evaluate(source, x)[0], runtime_result(source, x=x))
    assert operations(graph_form(source)) == ["qcc.clamp", "func.return"]
