"""The comparison names the layer that went wrong, and only that one."""

import math

import numpy as np
import pytest

from qcc.compiler import compare
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, parse_module
from qcc.passes.base import parse_pipeline, run_pipeline
from qcc.runtime.reference import interpreter

MODEL = """
!q = !quant.uniform<i8:f32, 5.000000e-01>
func.func @main(%x: tensor<1x4xf32>) -> tensor<1x4xf32> {
  %w = "qcc.constant"() {value = dense<[[1, 0, 0, 2], [0, 1, 0, 0], [0, 3, 1, 0], [1, 1, 1, 1]]> : tensor<4x4xi8>} : () -> tensor<4x4x!q>
  %q = "qcc.quantize"(%x) : (tensor<1x4xf32>) -> tensor<1x4x!q> loc("in")
  %a = "qcc.linear"(%q, %w) : (tensor<1x4x!q>, tensor<4x4x!q>) -> tensor<1x4xi32> loc("first")
  %r = "qcc.requantize"(%a) {multiplier = dense<0.5> : tensor<1xf32>, mode = "f32"} : (tensor<1x4xi32>) -> tensor<1x4x!q> loc("first")
  %b = "qcc.linear"(%r, %w) : (tensor<1x4x!q>, tensor<4x4x!q>) -> tensor<1x4xi32> loc("second")
  %s = "qcc.requantize"(%b) {multiplier = dense<0.5> : tensor<1xf32>, mode = "f32"} : (tensor<1x4xi32>) -> tensor<1x4x!q> loc("second")
  %f = "qcc.dequantize"(%s) : (tensor<1x4x!q>) -> tensor<1x4xf32> loc("out")
  %y = "qcc.softmax"(%f) {axis = 1 : i64} : (tensor<1x4xf32>) -> tensor<1x4xf32> loc("softmax")
  return %y : tensor<1x4xf32>
}
"""
SECOND = """
!q = !quant.uniform<i8:f32, 5.000000e-01>
func.func @main(%r: tensor<1x4x!q>) -> tensor<1x4x!q> {
  %w = "qcc.constant"() {value = dense<[[1, 0, 0, 2], [0, 1, 0, 0], [0, 3, 1, 0], [1, 1, 1, 1]]> : tensor<4x4xi8>} : () -> tensor<4x4x!q>
  %b = "qcc.linear"(%r, %w) : (tensor<1x4x!q>, tensor<4x4x!q>) -> tensor<1x4xi32>
  %s = "qcc.requantize"(%b) {multiplier = dense<0.5> : tensor<1xf32>, mode = "f32"} : (tensor<1x4xi32>) -> tensor<1x4x!q>
  return %s : tensor<1x4x!q>
}
"""
NAMES = ("output_0", "in", "first", "second", "out")
X = np.array([[1.0, 2.0, -3.0, 4.0]], np.float32)


def kept() -> tuple[object, list[np.ndarray]]:
    """The model with kept layers, and what a correct compiled program would return."""
    module = parse_module(MODEL, create_context())
    run_pipeline(module, parse_pipeline("keep-layer-outputs"))
    return module, interpreter.run(module, [X])


def test_a_correct_program_stays_with_the_reference() -> None:
    module, outputs = kept()
    result = compare.module_outputs(module, [X], outputs)
    assert result.same
    assert [layer.name for layer in result.layers] == ["in", "first", "second", "out", "output_0"]
    assert all(layer.own.sqnr_db == math.inf for layer in result.layers)
    assert "no layer leaves the reference: 5 of 5" in result.text


def test_the_layer_at_fault_is_named_and_not_those_behind_it() -> None:
    module, outputs = kept()
    wrong = dict(zip(NAMES, outputs, strict=True))
    error = np.array([[0, 2, 0, 0]], np.int8)
    wrong["first"] = wrong["first"] + error
    wrong["second"] = interpreter.run(parse_module(SECOND, create_context()), [wrong["first"]])[0]  # right, for what it was given
    wrong["out"] = wrong["second"] * np.float32(0.5)
    wrong["output_0"] = (lambda e: e / e.sum())(np.exp(wrong["out"] - wrong["out"].max()))
    result = compare.module_outputs(module, [X], [wrong[n] for n in NAMES])
    assert result.first is not None
    assert [layer.name for layer in result.layers if layer.leaves] == ["first"]
    assert (result.first.own.differing, result.first.steps, result.first.own.max_abs) == (1, 2, 1.0)  # two steps of 0.5
    assert "first layer that leaves the reference: 'first' (qcc.requantize): 1 of 4 values differ, by at most 2 steps" in result.verdict
    second = result.layers[2]
    assert second.own.sqnr_db == math.inf and second.since_input.sqnr_db < 30


def test_float_layers_may_differ_by_rounding_only() -> None:
    module, outputs = kept()
    near = [outputs[0] * np.float32(1 + 1e-6), *outputs[1:]]
    assert compare.module_outputs(module, [X], near).same
    far = [outputs[0] + np.float32(0.01), *outputs[1:]]
    result = compare.module_outputs(module, [X], far)
    assert result.first is not None and result.first.name == "output_0" and result.first.steps is None
    nan = [outputs[0] * np.float32(np.nan), *outputs[1:]]
    assert not compare.module_outputs(module, [X], nan).same


def test_outputs_of_another_model_are_refused() -> None:
    module, outputs = kept()
    with pytest.raises(QccError, match="gives 4 values, the model 5"):
        compare.module_outputs(module, [X], outputs[1:])
    with pytest.raises(QccError, match="expected the model it was compiled from"):
        compare.module_outputs(module, [X], [outputs[0].T, *outputs[1:]])


def test_sqnr_is_the_ratio_of_powers_in_decibel() -> None:
    error = compare.Error.of(np.array([3.0, 4.0, 0.5]), np.array([3.0, 4.0, 0.0]))
    assert error.sqnr_db == pytest.approx(10 * math.log10(25 / 0.25))
    assert (error.differing, error.count, error.max_abs) == (1, 3, 0.5)
    assert error.mean_abs == pytest.approx(0.5 / 3)


GRAPH = """
!narrow = !quant.uniform<u8:f32, 0.01>
!fits = !quant.uniform<i8:f32, 0.1>
func.func @main(%x: tensor<64xf32>) -> tensor<64xf32> {
  %a = "qcc.quantize"(%x) : (tensor<64xf32>) -> tensor<64x!fits> loc("in")
  %b = "qcc.dequantize"(%a) : (tensor<64x!fits>) -> tensor<64xf32>
  %c = "qcc.unary"(%b) {kind = "exp"} : (tensor<64xf32>) -> tensor<64xf32> loc("layer")
  %d = "qcc.quantize"(%c) : (tensor<64xf32>) -> tensor<64x!narrow> loc("behind")
  %e = "qcc.dequantize"(%d) : (tensor<64x!narrow>) -> tensor<64xf32>
  %f = "qcc.add"(%e, %e) : (tensor<64xf32>, tensor<64xf32>) -> tensor<64xf32> loc("sum")
  %g = "qcc.quantize"(%f) : (tensor<64xf32>) -> tensor<64x!fits> loc("sum")
  %y = "qcc.dequantize"(%g) : (tensor<64x!fits>) -> tensor<64xf32>
  return %y : tensor<64xf32>
}
"""


def test_the_layer_whose_range_is_wrong_is_named() -> None:
    """The values of 'layer' reach 4.5 and its range ends at 2.55; what is behind it has a range that fits, and is not blamed."""
    x = np.linspace(-1.5, 1.5, 64, dtype=np.float32)
    found = compare.roundings(parse_module(GRAPH, create_context()), [x])
    by_name = {name: rounding for (name, _), rounding in found.items()}
    assert by_name["in"].sqnr_db > 25 and by_name["sum"].sqnr_db > 25
    assert by_name["layer"].sqnr_db < 15 and by_name["layer"] == by_name["behind"]
    assert by_name["layer"].outside == pytest.approx(np.mean(np.exp(x) > 2.555))
    worst = compare.Comparison([compare.Layer(name, "", *[compare.Error.of(x, x)] * 2, 0, 1.0, None, r) for name, r in by_name.items()])
    assert "quantization costs most at 'behind'" in worst.costliest and "lie outside of 0..2.55" in worst.costliest
