"""A pass that leaves invalid IR is a bug of qcc: the error and its reproducer name it, although IR is verified only later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qcc.compiler.driver import InternalError, compile_model
from qcc.compiler.options import CompileOptions
from qcc.dialects.mlir import ir, walk
from qcc.passes.integer.fold_gelu import FoldGeluPass

TEXT = """
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = "qcc.clamp"(%x) {min = 0.0 : f64, max = 6.0 : f64} : (tensor<4xf32>) -> tensor<4xf32>
  return %y : tensor<4xf32>
}
"""


def test_reproducer_begins_with_the_pass_that_left_invalid_ir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def spoil(self: Any, module: ir.Module, context: Any) -> None:
        for op in walk(module, "qcc.clamp"):
            op.attributes["min"] = ir.StringAttr.get("none")

    model = tmp_path / "model.mlir"
    model.write_text(TEXT)
    monkeypatch.setattr(FoldGeluPass, "run", spoil)
    with pytest.raises(InternalError, match=r"pass 'fold-gelu' failed: .*attribute 'min' is \"none\", expected a number") as caught:
        compile_model(model, CompileOptions())
    folder = caught.value.reproducer
    assert folder is not None
    assert "builtin.module(fold-gelu,fuse-attention," in (folder / "command.sh").read_text()
    assert "min = 0.000000e+00" in (folder / "before.mlir").read_text()
