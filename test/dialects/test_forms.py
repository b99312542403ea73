"""Every form refuses what does not belong to it, by layer name."""

from __future__ import annotations

import pytest

from qcc.dialects import forms
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import create_context, parse_module

X = "!quant.uniform<u8:f32, 1.0>"


def _check(form: str, body: str) -> None:
    forms.check(form, parse_module(body, create_context()))


def test_float_and_quantized_layers_are_in_the_graph_and_integer_forms() -> None:
    body = f"""func.func @main(%x: tensor<1x2xf32>) -> tensor<1x2x{X}> {{
      %q = "qcc.quantize"(%x) : (tensor<1x2xf32>) -> tensor<1x2x{X}>
      return %q : tensor<1x2x{X}> }}"""
    for form in ("torch", "graph", "integer"):
        _check(form, body)


def test_torch_operations_are_named_with_their_layer() -> None:
    body = """func.func @main(%x: !torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32> {
      %y = torch.aten.relu %x : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32> loc("block.act")
      return %y : !torch.vtensor<[2],f32> }"""
    with pytest.raises(QccError, match=r"layer 'block.act': 'torch.aten.relu' of dialect 'torch' has no conversion"):
        _check("graph", body)


def test_generic_functions_may_hold_loops_where_the_entry_may_not() -> None:
    loop = """%lo = arith.constant 0 : index
      scf.for %i = %lo to %lo step %lo { }
      return %x : tensor<2xf32> }"""
    _check("integer", 'func.func private @g(%x: tensor<2xf32>) -> tensor<2xf32> attributes {qcc.generic = "loop: no codelet"} {' + loop)
    with pytest.raises(QccError, match=r"'scf.for' of dialect 'scf'"):
        _check("integer", "func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {" + loop)


def test_dynamic_shapes_are_refused_with_the_remedy() -> None:
    with pytest.raises(QccError, match=r"dynamic shape tensor<\?x2xf32>, expected a static one; fix it by example inputs or --batch"):
        _check("graph", "func.func @main(%x: tensor<?x2xf32>) -> tensor<?x2xf32> { return %x : tensor<?x2xf32> }")


def test_an_accumulator_must_be_requantized_or_dequantized() -> None:
    body = f"""func.func @main(%x: tensor<1x2x{X}>, %w: tensor<2x2x{X}>) -> tensor<1x2xi32> {{
      %a = "qcc.linear"(%x, %w) : (tensor<1x2x{X}>, tensor<2x2x{X}>) -> tensor<1x2xi32>
      %b = "qcc.add"(%a, %a) : (tensor<1x2xi32>, tensor<1x2xi32>) -> tensor<1x2xi32> loc("sum")
      return %b : tensor<1x2xi32> }}"""
    _check("graph", body)
    with pytest.raises(QccError, match=r"layer 'sum': 'qcc.add' reads an accumulator of i32"):
        _check("integer", body)


def test_a_normalisation_does_not_reach_the_integer_form() -> None:
    body = """func.func @main(%x: tensor<1x2xf32>, %p: tensor<2xf32>) -> tensor<1x2xf32> {
      %y = "qcc.batch_norm"(%x, %p, %p, %p, %p) {epsilon = 1.0e-5} : (tensor<1x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>,
        tensor<2xf32>) -> tensor<1x2xf32>
      return %y : tensor<1x2xf32> }"""
    _check("graph", body)
    with pytest.raises(QccError, match="run fold-batch-norm"):
        _check("integer", body)


def test_the_tiled_form_holds_buffers_and_calls_only() -> None:
    _check(
        "tiled",
        """func.func @main() {
      %x = "qtile.buffer"() {space = "input", index = 0 : i64, offset_bytes = 0 : i64, size_bytes = 8 : i64} : () -> memref<2xf32>
      func.call @c(%x) : (memref<2xf32>) -> ()
      return }
      func.func private @c(memref<2xf32>)""",
    )
    with pytest.raises(QccError, match="no codelet computes it"):
        _check(
            "tiled",
            f"""func.func @main() {{
          %x = "qcc.constant"() {{value = dense<1> : tensor<2xui8>}} : () -> tensor<2x{X}>
          return }}""",
        )
    with pytest.raises(QccError, match="the entry function has arguments"):
        _check("tiled", "func.func @main(%x: memref<2xf32>) { return }")


def test_the_llvm_form_and_unknown_forms() -> None:
    with pytest.raises(QccError, match=r"'func.func' is not lowered to LLVM"):
        _check("llvm", "func.func @main() { return }")
    with pytest.raises(QccError, match="no form is called 'asm'"):
        _check("asm", "func.func @main() { return }")
