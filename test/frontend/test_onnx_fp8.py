"""Weights and activations in 8-bit floats and smaller (FP8 of DequantizeLinear, FloatQuant) against the formulas of the operators."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import helper

import qcc
from qcc.dialects import compressed_types as types
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import walk
from test.frontend.onnx_models import FLOAT, evaluate, graph_form, model
from test.tiers import slow_except


def float_quant_formula(x: np.ndarray, scale: np.ndarray, exponent: int, mantissa: int, bias: int, most: float) -> np.ndarray:
    """FloatQuant as qonnx executes it, rounding half to even."""
    v = x / scale
    step = np.exp2(np.maximum(np.floor(np.log2(np.abs(v) + np.finfo(np.float32).tiny)) - mantissa, 1 - bias - mantissa))
    return (np.clip(step * np.round(v / step), -most, most) * scale).astype(np.float32)


@pytest.mark.parametrize(
    ("exponent", "mantissa", "bias", "most"),
    slow_except(
        [(4, 3, 7, 448.0), (5, 2, 15, 57344.0), (2, 1, 1, 6.0), (3, 2, 3, 28.0), (2, 3, 1, 7.5)], (4, 3, 7, 448.0), (3, 2, 3, 28.0)
    ),
)
@pytest.mark.parametrize("constant", [True, False])
def test_float_quant(exponent: int, mantissa: int, bias: int, most: float, constant: bool) -> None:
    rng = np.random.default_rng(exponent)
    given = {"has_inf": 0, "has_nan": 1, "has_subnormal": 1, "saturation": 1, "rounding_mode": "ROUND"}
    inputs = ["w" if constant else "x", "s", "e", "m", "b", "most"]
    nodes = [helper.make_node("FloatQuant", inputs, ["q"], name="act", domain="qonnx.custom_op.general", **given)]
    scale = np.array([[0.5], [0.03], [2]], np.float32) if constant else np.float32(0.5)
    values = (rng.standard_normal((3, 200)) * np.exp2(rng.integers(-12, 10, (3, 200)))).astype(np.float32)
    constants = {"s": scale, "e": np.float32(exponent), "m": np.float32(mantissa), "b": np.float32(bias), "most": np.float32(most)}
    if constant:
        nodes.append(helper.make_node("Add", ["x", "q"], ["y"]))
        constants["w"] = values
    else:
        nodes.append(helper.make_node("Identity", ["q"], ["y"]))
    source = model(nodes, {"x": (FLOAT, [3, 200])}, ["y"], constants, opset=17)
    expected = float_quant_formula(values, scale, exponent, mantissa, bias, most)
    assert np.array_equal(evaluate(source, np.zeros_like(values) if constant else values)[0], expected)


def test_bad_float_quant() -> None:
    names = ["x", "s", "e", "m", "b", "most"]
    nodes = [helper.make_node("FloatQuant", names, ["y"], name="act", domain="qonnx.custom_op.general", saturation=1)]
    constants = dict(zip(names[1:], (np.float32(v) for v in (1, 8, 7, 127, 3e38)), strict=True))
    with pytest.raises(QccError, match="layer 'act': FloatQuant rounds a run-time value to 8 exponent bits, expected at most 5"):
        graph_form(model(nodes, {"x": (FLOAT, [2, 2])}, ["y"], constants, opset=17))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("axis", slow_except([None, 0, 1], 1))
@pytest.mark.parametrize("road", ["DequantizeLinear", "FloatQuant"])
def test_weights_in_8_bit_floats_stay_so(name: str, axis: int | None, road: str) -> None:
    """FP8 with a scale per tensor, per row or per output channel (axis 1): stored and streamed in 8 bits; 32 outputs fill any vector."""
    dtype, rng = np.dtype(getattr(ml_dtypes, name)), np.random.default_rng(3)
    stored = rng.normal(size=(64, 32)).astype(dtype)
    scale = rng.uniform(0.01, 0.1, {None: 1, 0: 64, 1: 32}[axis]).astype(np.float32)
    along = scale.reshape([-1 if i == axis else 1 for i in range(2)])
    real = stored.astype(np.float32) * along
    constants: dict[str, Any] = {"s": scale if axis is not None else scale[0]}
    if road == "FloatQuant":
        widths = {"e": 4, "m": 3, "b": 7, "most": 448} if name == "float8_e4m3fn" else {"e": 5, "m": 2, "b": 15, "most": 57344}
        constants = {"w": real, "s": along, **{key: np.float32(v) for key, v in widths.items()}}
        nodes = [helper.make_node("FloatQuant", ["w", "s", *widths], ["d"], domain="qonnx.custom_op.general")]
    else:
        constants["w"] = stored
        nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=axis or 0)]
    source = model([*nodes, helper.make_node("MatMul", ["x", "d"], ["y"])], {"x": (FLOAT, [3, 64])}, ["y"], constants)
    x = rng.normal(size=(3, 64)).astype(np.float32)
    np.testing.assert_allclose(evaluate(source, x)[0], x @ real, rtol=2e-4, atol=1e-5)
    module = graph_form(source)  # alive as long as its types are looked at
    described = [types.describe(op.results[0].type) for op in walk(module, "qcc.constant")]
    assert [d is not None and d.bits for d in described] == [8]
    executable = qcc.compile(source, threads=1)
    np.testing.assert_allclose(executable(x), x @ real, rtol=2e-4, atol=1e-5)
    (layer,) = executable.report["layers"]
    assert layer["stored_bits"] < (9 if axis != 0 else 33), "scales along the sum are multiplied out"


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("per_channel", slow_except([False, True], True))
def test_activations_in_8_bit_floats_are_compiled(name: str, per_channel: bool) -> None:
    """FP8 activations between QuantizeLinear and DequantizeLinear: a function in a codelet, saturating, no generic path."""
    dtype, rng = np.dtype(getattr(ml_dtypes, name)), np.random.default_rng(4)
    most = float(ml_dtypes.finfo(dtype).max)
    scale = rng.uniform(0.01, 0.1, 6).astype(np.float32) if per_channel else np.float32(0.037)
    constants: dict[str, Any] = {"s": scale, "z": np.zeros(scale.shape, dtype)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=1),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    source = model(nodes, {"x": (FLOAT, [50, 6])}, ["y"], constants)
    x = (rng.standard_normal((50, 6)) * np.exp2(rng.integers(-20, 13, (50, 6)))).astype(np.float32)
    x[0] *= 1e7
    expected = np.maximum(np.clip(x / scale, -most, most).astype(dtype).astype(np.float32) * scale, 0)
    executable = qcc.compile(source, threads=1)
    np.testing.assert_array_equal(evaluate(source, x)[0], expected)
    np.testing.assert_array_equal(executable(x), expected)
    assert not any(row["generic"] for row in executable.report["layers"])
