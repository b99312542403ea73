"""Layer counts against figures worked out by hand, and what the models derive from them."""

from __future__ import annotations

import pytest

from qcc.compiler.cost import energy, layers, machine
from qcc.dialects.mlir import create_context, parse_module

CONV = """
func.func @main(%x: tensor<2x4x8x8x!quant.uniform<u8:f32, 0.1>>) -> tensor<2x2x4x4x!quant.uniform<u8:f32, 0.1>> {
  %w = "qcc.constant"() {value = dense<[[[[1, 0, 1], [0, 0, 0], [2, 0, 0]]], [[[1, 1, 1], [1, 1, 1], [1, 1, 1]]]]> : tensor<2x1x3x3xi8>}
    : () -> tensor<2x1x3x3x!quant.uniform<i4:f32, 0.5>>
  %0 = "qcc.conv2d"(%s, %w) {strides = array<i64: 2, 2>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 2 : i64}
    : (tensor<2x2x8x8x!quant.uniform<u8:f32, 0.1>>, tensor<2x1x3x3x!quant.uniform<i4:f32, 0.5>>) -> tensor<2x2x4x4xi14> loc("stem")
  %1 = "qcc.requantize"(%0) {multiplier = dense<0.5> : tensor<1xf32>, mode = "f32"}
    : (tensor<2x2x4x4xi14>) -> tensor<2x2x4x4x!quant.uniform<u8:f32, 0.1>>
  return %1 : tensor<2x2x4x4x!quant.uniform<u8:f32, 0.1>>
}
"""


@pytest.fixture
def conv() -> layers.LayerCount:
    text = CONV.replace("%s, %w", "%x, %w").replace("2x4x8x8", "2x2x8x8")
    (found,) = layers.count(parse_module(text, create_context()))
    return found


def test_a_convolution_is_counted(conv: layers.LayerCount) -> None:
    assert (conv.name, conv.op) == ("stem", "conv2d")
    assert conv.macs == 2 * 2 * 4 * 4 * 9
    assert conv.weights == 18 and conv.density == pytest.approx(12 / 18)
    assert conv.nonzero_macs == round(conv.macs * 12 / 18)
    assert (conv.weight_bits, conv.activation_bits, conv.accumulator_bits) == (4, 8, 14)
    assert conv.weight_bytes == 9  # 18 weights of 4 bits
    assert conv.input_bytes == 2 * 2 * 8 * 8
    assert conv.output_bytes == 2 * 2 * 4 * 4  # what leaves the layer is the requantized byte, not the accumulator


def test_energy_counts_operations_and_bytes(conv: layers.LayerCount) -> None:
    table = energy.EnergyTable()
    expected = conv.nonzero_macs * (0.2 * 4 * 8 / 64 + 0.1) + 9 / 8 * 1300 + (256 + 64) / 8 * 100
    assert energy.layer_energy_pj(conv, table) == pytest.approx(expected)
    assert table.mac_pj(0, 32) == pytest.approx(3.7 + 0.9)


def test_a_layer_takes_the_longer_of_compute_and_traffic(conv: layers.LayerCount) -> None:
    slow_memory = machine.Machine("m", int8_gmacs=1e9, fp32_gmacs=1, elementwise_gbytes=1.0, dram_gbytes=1.0, step_ns=0.0)
    slow_compute = machine.Machine("c", int8_gmacs=1.0, fp32_gmacs=1, elementwise_gbytes=1e9, dram_gbytes=1e9, step_ns=0.0)
    assert slow_memory.predict_us(conv) == pytest.approx((9 + 256 + 64) / 1000)
    assert slow_compute.predict_us(conv) == pytest.approx(conv.macs / 1000)
