"""Layer counts against figures worked out by hand, and what the models derive from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qcc.compiler.cost import energy, layers
from qcc.dialects.errors import QccError
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


def test_a_layer_that_quantizes_its_input_while_running_is_counted() -> None:
    """As torchao's dynamic quantization makes it: x comes and goes in f32, products are of bytes."""
    text = """func.func @main(%x: tensor<2x16xf32>) -> tensor<2x8xf32> {
      %w = "qcc.constant"() {value = dense<1> : tensor<8x16xi8>} : () -> tensor<8x16x!quant.uniform<i8:f32, 0.5>>
      %y = "qcc.dynamic_linear"(%x, %w) : (tensor<2x16xf32>, tensor<8x16x!quant.uniform<i8:f32, 0.5>>) -> tensor<2x8xf32> loc("fc")
      return %y : tensor<2x8xf32> }"""
    (found,) = layers.count(parse_module(text, create_context()))
    assert (found.macs, found.weights, found.weight_bits, found.input_bytes) == (2 * 8 * 16, 128, 8, 2 * 16 * 4)
    assert (found.activation_bits, found.accumulator_bits, found.arithmetic) == (8, 32, "int")
    assert found.weight_format == "int8, scale per tensor"


def test_energy_counts_operations_and_bytes(conv: layers.LayerCount) -> None:
    counts = energy.count(conv)
    outputs = 2 * 2 * 4 * 4
    assert counts.multiplications == {"int4x8": conv.nonzero_macs, "fp32": outputs}
    assert counts.additions == {"int14": conv.nonzero_macs + outputs}
    assert counts.weight_bytes == {"dram": 9} and counts.activation_bytes == {"cache_8k": 256 + 64}
    parts = counts.parts_pj(energy.EnergyTable())
    assert parts["compute"] == pytest.approx(384 * (0.2 * 4 * 8 / 64) + 64 * 3.7 + (384 + 64) * 0.1 * 14 / 32)
    assert parts["weights"] == pytest.approx(9 / 8 * 1300) and parts["activations"] == pytest.approx(320 / 8 * 10)
    row = energy.row_entries(counts.with_weight_bytes(5), energy.EnergyTable())
    assert row["energy_nj"] == pytest.approx((parts["compute"] + 5 / 8 * 1300 + 400) / 1000)


def test_the_figures_of_the_table_are_those_of_their_widths() -> None:
    table = energy.EnergyTable()
    assert [table.multiplication_pj(k) for k in ("int8x8", "int32x32", "fp16", "fp32")] == pytest.approx([0.2, 3.1, 1.1, 3.7])
    assert [table.addition_pj(k) for k in ("int8", "int32", "fp16", "fp32")] == pytest.approx([0.03, 0.1, 0.4, 0.9])
    assert table.multiplication_pj("int1x1") == pytest.approx(0.2 / 64) and table.addition_pj("int16") == pytest.approx(0.05)
    assert [table.access_pj(k, 8) for k in table.memory_64bit_pj] == [10, 20, 100, 1300]


def test_weights_of_one_magnitude_need_no_multiplier_and_floats_are_floats(conv: layers.LayerCount) -> None:
    assert energy.count(replace(conv, unit_weights=True)).multiplications == {"fp32": 64}, "only the rescaling is left"
    counts = energy.count(replace(conv, arithmetic="fp32", weight_bits=32))
    assert counts.multiplications == counts.additions == {"fp32": conv.nonzero_macs}
    big = energy.count(replace(conv, input_bytes=900_000, output_bytes=200_000))
    assert big.activation_bytes == {"dram": 1_100_000}
    assert energy.count(replace(conv, input_bytes=30_000, output_bytes=2_000)).activation_bytes == {"cache_32k": 32_000}


def test_a_table_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text('{"name": "mine", "add_pj": {"int32": 1}, "memory_64bit_pj": {"dram": 2600}}')
    table = energy.read_table(str(path))
    assert (table.name, table.add_pj["int32"], table.add_pj["int8"], table.memory_64bit_pj["dram"]) == ("mine", 1.0, 0.03, 2600.0)
    assert energy.read_table(None) == energy.EnergyTable()
    for text, words in (
        ("{", "is not JSON"),
        ("[1]", "holds a list, expected an object with name, add_pj"),
        ('{"add": {}}', "has 'add', expected some of name, add_pj"),
        ('{"add_pj": 3}', "expected an object with some of int8"),
        ('{"add_pj": {"int7": 3}}', "has 'int7' in 'add_pj', expected an object with some of int8"),
        ('{"add_pj": {"int8": -3}}', "has -3 for 'int8' in 'add_pj', expected picojoules"),
        ('{"add_pj": {"int8": "x"}}', "has 'x' for 'int8'"),
    ):
        path.write_text(text)
        with pytest.raises(QccError, match=words):
            energy.read_table(str(path))
    with pytest.raises(QccError, match=r"cannot read energy table .*: No such file"):
        energy.read_table(str(tmp_path / "none.json"))


@pytest.mark.slow
def test_the_report_uses_the_table_of_the_user(tmp_path: Path) -> None:
    import qcc

    path = tmp_path / "table.json"
    path.write_text('{"name": "only DRAM", "add_pj": {"int8": 0, "int32": 0, "fp16": 0, "fp32": 0},'
                    '"multiply_pj": {"int8": 0, "int32": 0, "fp16": 0, "fp32": 0},'
                    '"memory_64bit_pj": {"cache_8k": 0, "cache_32k": 0, "cache_1m": 0, "dram": 8}}')  # fmt: skip
    report = qcc.compile(Path(__file__).parents[2] / "examples" / "digits_cnn.mlir", energy_table=str(path)).report
    stored = sum(row["stored_bytes"] for row in report["layers"] if row.get("stored_bytes"))
    assert report["energy_table"]["name"] == "only DRAM"
    assert report["totals"]["energy_nj"] == pytest.approx(stored / 1000), "1 pJ per stored byte"


def test_decoding_constant_weights_is_no_layer_of_its_own() -> None:
    text = """
    !w = !quant.uniform<i4<-7:7>:f32, 0.5>
    func.func @main(%x: tensor<1x64xf32>) -> tensor<1x64xf32> {
      %c = "qcc.constant"() {value = dense<3> : tensor<64x64xi8>} : () -> tensor<64x64x!w>
      %w = "qcc.dequantize"(%c) : (tensor<64x64x!w>) -> tensor<64x64xf32>
      %y = "qcc.linear"(%x, %w) : (tensor<1x64xf32>, tensor<64x64xf32>) -> tensor<1x64xf32> loc("fc")
      return %y : tensor<1x64xf32>
    }"""
    with create_context() as context:
        (only,) = layers.count(parse_module(text, context))
    assert (only.name, only.weight_bits, only.weight_bytes, only.macs) == ("fc", 4, 64 * 64 // 2, 64 * 64)
