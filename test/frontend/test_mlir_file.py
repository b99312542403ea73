"""MLIR files in every state that qcc takes: torch (raw, contract, open batch), linalg, and qcc's own forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcc.compiler.frontend import load
from qcc.compiler.pipeline import IMPORT
from qcc.dialects import forms
from qcc.dialects.errors import QccError
from qcc.dialects.mlir import layer_name, walk
from qcc.passes.base import run_pipeline
from qcc.runtime.reference import interpreter


def read(folder: Path, text: str, **options: Any) -> Any:
    (folder / "model.mlir").write_text(text)
    return load(folder / "model.mlir", **options)


def graph_form(folder: Path, text: str, **options: Any) -> Any:
    imported = read(folder, text, **options)
    run_pipeline(imported.module, IMPORT)
    forms.check("graph", imported.module)
    return imported


RAW = """
func.func @forward(%x: !torch.vtensor<[2,3],f32>) -> !torch.vtensor<[2,3],f32> {
  %c1 = torch.constant.int 1
  %0 = torch.copy.to_tensor %x : !torch.tensor<[2,3],f32>
  %1 = torch.aten.add_.Tensor %0, %0, %c1 : !torch.tensor<[2,3],f32>, !torch.tensor<[2,3],f32>, !torch.int -> !torch.tensor<[2,3],f32>
  %2 = torch.copy.to_vtensor %1 : !torch.vtensor<[2,3],f32>
  return %2 : !torch.vtensor<[2,3],f32>
}
"""


def test_raw_torch_with_mutation(tmp_path: Path) -> None:
    imported = graph_form(tmp_path, RAW)
    assert (imported.inputs, imported.outputs) == (("input",), ("output",))
    x = np.float32([[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(interpreter.run(imported.module, [x])[0], 2 * x)
    assert [op.name for op in walk(imported.main)][1:] == ["qcc.add", "func.return"]


OPEN = """
func.func @main(%x: !torch.vtensor<[?,3],f32>) -> !torch.vtensor<[?,3],f32> {
  %0 = torch.aten.relu %x : !torch.vtensor<[?,3],f32> -> !torch.vtensor<[?,3],f32>
  return %0 : !torch.vtensor<[?,3],f32>
}
"""


def test_open_first_axis_gets_the_batch(tmp_path: Path) -> None:
    imported = graph_form(tmp_path, OPEN, batch=5)
    assert "(tensor<5x3xf32>) -> tensor<5x3xf32>" in str(imported.main.attributes["function_type"])


def test_layers_without_a_name_get_one(tmp_path: Path) -> None:
    imported = graph_form(tmp_path, OPEN)
    assert [layer_name(op.location) for op in walk(imported.module, "qcc.clamp")] == ["relu_0"]


ONNX = """
func.func @main_graph(%x: !torch.vtensor<[?,3],f32>) -> !torch.vtensor<[?,3],f32>
    attributes {torch.onnx_meta.ir_version = 8 : si64, torch.onnx_meta.opset_version = 17 : si64} {
  %0 = torch.operator "onnx.Relu"(%x) : (!torch.vtensor<[?,3],f32>) -> !torch.vtensor<[?,3],f32> loc("act")
  return %0 : !torch.vtensor<[?,3],f32>
}
"""


def test_onnx_operators_as_torch_mlir_imports_them(tmp_path: Path) -> None:
    imported = graph_form(tmp_path, ONNX, batch=2)
    (clamp,) = walk(imported.module, "qcc.clamp")
    assert layer_name(clamp.location) == "act"
    assert str(clamp.results[0].type) == "tensor<2x3xf32>"


LINALG = """
#map = affine_map<(d0, d1) -> (d0, d1)>
func.func @main(%x: tensor<2x3xf32>) -> tensor<2x4xf32> {
  %w = arith.constant dense<0.5> : tensor<3x4xf32>
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<2x4xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<2x4xf32>) -> tensor<2x4xf32>
  %0 = linalg.matmul ins(%x, %w : tensor<2x3xf32>, tensor<3x4xf32>) outs(%f : tensor<2x4xf32>) -> tensor<2x4xf32>
  %1 = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%0 : tensor<2x4xf32>) outs(%e : tensor<2x4xf32>) {
  ^bb0(%in: f32, %out: f32):
    %2 = math.exp %in : f32
    linalg.yield %2 : f32
  } -> tensor<2x4xf32>
  return %1 : tensor<2x4xf32>
}
"""


def test_linalg_is_one_generic_function(tmp_path: Path) -> None:
    imported = graph_form(tmp_path, LINALG)
    assert [op.name for op in walk(imported.main)][1:] == ["func.call", "func.return"]
    (call,) = walk(imported.module, "func.call")
    assert call.attributes["qcc.generic"].value == "linalg.matmul, exp: no codelet"
    assert len(call.operands) == 1


def test_graph_form_passes_unchanged_also_a_second_time(tmp_path: Path) -> None:
    imported = graph_form(tmp_path, LINALG)
    text = str(imported.module)
    again = graph_form(tmp_path, text)
    assert str(again.module) == text


def test_weights_of_a_file_are_readable(tmp_path: Path) -> None:
    array = np.arange(100, dtype=np.float32)
    blob = "0x" + (4).to_bytes(4, "little").hex() + array.tobytes().hex()
    text = f"""
func.func @main(%x: !torch.vtensor<[100],f32>) -> !torch.vtensor<[100],f32> {{
  %c1 = torch.constant.int 1
  %w = torch.vtensor.literal(dense_resource<w> : tensor<100xf32>) : !torch.vtensor<[100],f32>
  %0 = torch.aten.add.Tensor %x, %w, %c1 : !torch.vtensor<[100],f32>, !torch.vtensor<[100],f32>, !torch.int -> !torch.vtensor<[100],f32>
  return %0 : !torch.vtensor<[100],f32>
}}
{{-# dialect_resources: {{ builtin: {{ w: "{blob}" }} }} #-}}
"""
    imported = graph_form(tmp_path, text)
    np.testing.assert_array_equal(interpreter.run(imported.module, [array])[0], 2 * array)


QUANTIZED = """
func.func @main(%x: !torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32> {{
  %none = torch.constant.none
  %zero = torch.constant.int 0
  %low = torch.constant.int {low}
  %high = torch.constant.int {high}
  %scale = torch.constant.float {scale}
  %q = torch.quantized_decomposed.quantize_per_tensor %x, %scale, %zero, %low, %high, %zero
      : !torch.vtensor<[2],f32>, !torch.float, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[2],si8> loc("conv1")
  %d = torch.quantized_decomposed.dequantize_per_tensor %q, %scale, %zero, %low, %high, %zero, %none
      : !torch.vtensor<[2],si8>, !torch.float, !torch.int, !torch.int, !torch.int, !torch.int, !torch.none -> !torch.vtensor<[2],f32>
  return %d : !torch.vtensor<[2],f32>
}}
"""


class TestBadInput:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"low": 7, "high": -8, "scale": "1.0"}, r"layer 'conv1': quant_min is 7 and quant_max -8, expected quant_min below"),
            ({"low": -8, "high": 7, "scale": "0.0"}, r"layer 'conv1': found a scale of 0.0, expected finite scales above zero"),
            ({"low": -8, "high": 7, "scale": "0x7FF8000000000000"}, r"layer 'conv1': found a scale of nan"),
        ],
    )
    def test_quantization_parameters(self, tmp_path: Path, values: dict[str, Any], message: str) -> None:
        with pytest.raises(QccError, match=message):
            graph_form(tmp_path, QUANTIZED.format(**values))

    def test_operation_that_nothing_lowers(self, tmp_path: Path) -> None:
        text = """
func.func @main(%x: !torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32> {
  %0 = torch.operator "torch.mine.special"(%x) : (!torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32> loc("block.3")
  return %0 : !torch.vtensor<[2],f32>
}
"""
        with pytest.raises(QccError, match=r"layer 'block.3': torch.mine.special cannot be lowered"):
            graph_form(tmp_path, text)

    def test_open_axis_behind_the_first(self, tmp_path: Path) -> None:
        with pytest.raises(QccError, match=r"input 'input' is .*expected a static shape"):
            read(tmp_path, OPEN.replace("[?,3]", "[2,?]"))

    def test_malformed_text(self, tmp_path: Path) -> None:
        with pytest.raises(QccError, match=r"cannot parse .*model.mlir as MLIR: .*expected"):
            read(tmp_path, "func.func @main(")

    def test_binary_rubbish(self, tmp_path: Path) -> None:
        (tmp_path / "m.mlir").write_bytes(bytes(range(128, 256)))
        with pytest.raises(QccError, match=r"neither MLIR text nor MLIR bytecode"):
            load(tmp_path / "m.mlir")

    def test_no_function(self, tmp_path: Path) -> None:
        with pytest.raises(QccError, match=r"has functions none, expected one public function"):
            read(tmp_path, "module {}")

    def test_unknown_extension(self, tmp_path: Path) -> None:
        (tmp_path / "m.tflite").write_bytes(b"")
        with pytest.raises(QccError, match=r"ends in '.tflite', expected one of .mlir"):
            load(tmp_path / "m.tflite")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(QccError, match=r"is not a file"):
            load(tmp_path / "m.mlir")
