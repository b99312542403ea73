"""The integer meanings against formulas written out by hand, element by element."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, parse_module
from qcc.runtime.reference import interpreter
from qcc.runtime.reference import qcc as meaning


def test_quantize_rounds_ties_to_even_and_saturates() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e30, -1e30, np.inf, -np.inf, np.nan], np.float32)
    y = meaning.quantize(x, scale=np.float32(1), zero_point=np.int64(3), qmin=-8, qmax=7)
    assert y.tolist() == [3, 5, 5, 3, 1, 7, -8, 7, -8, -8]


def test_quantize_saturates_at_bounds_that_binary32_cannot_hold() -> None:
    x = np.array([1e30, -1e30], np.float32)
    y = meaning.quantize(x, scale=np.float32(1), zero_point=np.int64(1), qmin=-(1 << 31), qmax=(1 << 31) - 1)
    assert y.tolist() == [(1 << 31) - 1, -(1 << 31)]


def test_requantize_rounds_each_step_to_binary32() -> None:
    acc = np.array([16777217, 16777219, -16777217], np.int64)  # not binary32 numbers: the conversion rounds first
    y = meaning.requantize(acc, multiplier=np.float32(1), zero_point=np.int64(0), low=-(1 << 31), high=(1 << 31) - 1)
    assert y.tolist() == [16777216, 16777220, -16777216]


@pytest.mark.parametrize("rounding", ["half_away", "half_even"])
def test_fixed_requantize_equals_exact_rational_arithmetic(rounding: str) -> None:
    rng = np.random.default_rng(1)
    acc = np.concatenate([rng.integers(-(1 << 30), 1 << 30, 200), np.arange(-40, 40)])
    for multiplier, shift in [(1, 0), (1, 1), (3, 2), (1 << 30, 31), (1518500250, 40), ((1 << 31) - 1, 62)]:
        found = meaning.requantize_fixed(
            acc,
            multiplier=np.int64(multiplier),
            shift=np.int64(shift),
            rounding=rounding,
            zero_point=np.int64(5),
            low=-(1 << 40),
            high=1 << 40,
        )
        for a, y in zip(acc.tolist(), found.tolist(), strict=True):
            real = Fraction(a * multiplier, 1 << shift)
            away = int(math.copysign(math.floor(abs(real) + Fraction(1, 2)), real))
            assert y - 5 == (round(real) if rounding == "half_even" else away), (a, multiplier, shift)


def test_fixed_requantize_reports_a_product_beyond_63_bits() -> None:
    with pytest.raises(OverflowError, match="more than 63 bits"):
        meaning.requantize_fixed(
            np.array([1 << 40]),
            multiplier=np.int64(1 << 30),
            shift=np.int64(1),
            rounding="half_even",
            zero_point=np.int64(0),
            low=0,
            high=1,
        )


def test_integer_products_beyond_binary64_stay_exact() -> None:
    x = np.full((1, 4), (1 << 30) - 1, np.int64)
    assert meaning.linear(x, x)[0, 0] == 4 * ((1 << 30) - 1) ** 2


ACCUMULATOR = """
func.func @main(%x: tensor<1x4x!quant.uniform<u8:f32, 0.1:3>>) -> tensor<1x2xi12> {
  %w = "qcc.constant"() {value = dense<[[7, -8, 1, 2], [0, 0, 0, 1]]> : tensor<2x4xi8>} : () -> tensor<2x4x!quant.uniform<i4:f32, 0.5>>
  %b = "qcc.constant"() {value = dense<[10, -10]> : tensor<2xi32>} : () -> tensor<2xi32>
  %0 = "qcc.linear"(%x, %w, %b)
    : (tensor<1x4x!quant.uniform<u8:f32, 0.1:3>>, tensor<2x4x!quant.uniform<i4:f32, 0.5>>, tensor<2xi32>) -> tensor<1x2xi12>
  return %0 : tensor<1x2xi12>
}
"""


def test_accumulator_subtracts_zero_points_and_adds_the_bias() -> None:
    module = parse_module(ACCUMULATOR, create_context())
    seen: list[str] = []
    x = np.array([[3, 4, 5, 255]], np.uint8)
    (y,) = interpreter.run(module, [x], on_op=lambda op, results: seen.append(op.name))
    assert y.tolist() == [[0 * 7 + 1 * -8 + 2 * 1 + 252 * 2 + 10, 252 - 10]]
    assert seen == ["qcc.constant", "qcc.constant", "qcc.linear"]


def test_an_accumulator_that_does_not_fit_its_type_is_an_error() -> None:
    module = parse_module(ACCUMULATOR.replace("xi12>", "xi9>"), create_context())
    with pytest.raises(QccError, match=r"242\.\.508, which i9 cannot hold"):
        interpreter.run(module, [np.array([[3, 4, 5, 255]], np.uint8)])


def test_inputs_of_another_shape_or_dtype_are_errors() -> None:
    module = parse_module(ACCUMULATOR, create_context())
    with pytest.raises(QccError, match=r"has shape \[1, 5\] and dtype uint8, expected \[1, 4\] and uint8"):
        interpreter.run(module, [np.zeros((1, 5), np.uint8)])
    with pytest.raises(QccError, match="dtype int8, expected"):
        interpreter.run(module, [np.zeros((1, 4), np.int8)])
    with pytest.raises(QccError, match="no function 'other', expected one of: main"):
        interpreter.run(module, [], function="other")


def test_upstream_operations_and_functions_run_through_the_generic_path() -> None:
    module = parse_module(
        """
        func.func private @double(%x: tensor<2x3xf32>) -> tensor<2x3xf32> attributes {qcc.generic = "test"} {
          %0 = arith.addf %x, %x : tensor<2x3xf32>
          return %0 : tensor<2x3xf32>
        }
        func.func @main(%x: tensor<2x3xf32>) -> (tensor<6xf32>, tensor<2x6xf32>) {
          %0 = func.call @double(%x) : (tensor<2x3xf32>) -> tensor<2x3xf32>
          %1 = tensor.collapse_shape %0 [[0, 1]] : tensor<2x3xf32> into tensor<6xf32>
          %2 = tensor.concat dim(1) %x, %0 : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x6xf32>
          return %1, %2 : tensor<6xf32>, tensor<2x6xf32>
        }
        """,
        create_context(),
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    flat, joined = interpreter.run(module, [x])
    assert np.array_equal(flat, 2 * x.reshape(-1))
    assert np.array_equal(joined, np.concatenate([x, 2 * x], axis=1))


def test_upstream_operations_on_scalars_and_with_captured_values() -> None:
    module = parse_module(
        """
        #map = affine_map<(i) -> (i)>
        func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
          %c = arith.constant 2.5 : f32
          %d = arith.addf %c, %c : f32
          %e = tensor.empty() : tensor<4xf32>
          %f = linalg.fill ins(%d : f32) outs(%e : tensor<4xf32>) -> tensor<4xf32>
          %0 = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel"]}
               ins(%x : tensor<4xf32>) outs(%f : tensor<4xf32>) {
          ^bb0(%a: f32, %o: f32):
            %1 = arith.mulf %a, %c : f32
            %2 = arith.addf %1, %o : f32
            linalg.yield %2 : f32
          } -> tensor<4xf32>
          return %0 : tensor<4xf32>
        }
        """,
        create_context(),
    )
    (y,) = interpreter.run(module, [np.float32([0, 1, 2, 3])])
    assert y.tolist() == [5, 7.5, 10, 12.5]


def test_requantize_to_levels_takes_the_nearest_of_the_real_value() -> None:
    module = parse_module(
        """
        func.func @main(%acc: tensor<2x3xi32>) -> (tensor<2x3x!qcc.binary<dense<1.0> : tensor<1xf32>>>,
                                                   tensor<2x3x!qcc.log2<3, true, -1, dense<1.0> : tensor<1xf32>>>) {
          %0 = "qcc.requantize"(%acc) {multiplier = dense<0.25> : tensor<1xf32>, mode = "f32"}
             : (tensor<2x3xi32>) -> tensor<2x3x!qcc.binary<dense<1.0> : tensor<1xf32>>>
          %1 = "qcc.requantize"(%acc) {multiplier = dense<[0.25, 0.5]> : tensor<2xf32>, axis = 0 : i64, mode = "f32"}
             : (tensor<2x3xi32>) -> tensor<2x3x!qcc.log2<3, true, -1, dense<1.0> : tensor<1xf32>>>
          return %0, %1 : tensor<2x3x!qcc.binary<dense<1.0> : tensor<1xf32>>>,
                          tensor<2x3x!qcc.log2<3, true, -1, dense<1.0> : tensor<1xf32>>>
        }
        """,
        create_context(),
    )
    binary, power = interpreter.run(module, [np.array([[4, -2, 0], [4, -2, 0]], np.int32)])
    assert binary.tolist() == [[1, -1, 1], [1, -1, 1]]
    assert power.tolist() == [[2, -1, 0], [3, -2, 0]]  # 1, -1/2, 0 and 2, -1, 0
