"""Bad input gets one readable sentence, exit status 1, and nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.tools import qcc as qcc_tool
from qcc.tools import qcc_run
from test.tiers import slow_except

GOOD = """
func.func @main(%x: tensor<1x4xf32>) -> tensor<1x2xf32> {
  %w = "qcc.constant"() {value = dense<[[1, 2, 3, 4], [-1, -2, -3, -4]]> : tensor<2x4xi8>} : () -> tensor<2x4x!quant.uniform<i8:f32, 0.5>>
  %q = "qcc.quantize"(%x) : (tensor<1x4xf32>) -> tensor<1x4x!quant.uniform<u8:f32, 0.1:3>>
  %d = "qcc.dequantize"(%q) : (tensor<1x4x!quant.uniform<u8:f32, 0.1:3>>) -> tensor<1x4xf32>
  %f = "qcc.dequantize"(%w) : (tensor<2x4x!quant.uniform<i8:f32, 0.5>>) -> tensor<2x4xf32>
  %y = "qcc.linear"(%d, %f) : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32> loc("head")
  return %y : tensor<1x2xf32>
}
"""


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    source, out = tmp_path / "good.mlir", tmp_path / "good.so"
    source.write_text(GOOD)
    assert qcc_tool.main([str(source), "-o", str(out), "--quiet"]) == 0
    return out


def fails(capsys: pytest.CaptureFixture[str], status: int, *words: str) -> None:
    """The tool ended with status 1 and said each of `words`, without a traceback."""
    err = capsys.readouterr().err
    assert status == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err


def compile_text(tmp_path: Path, text: str, *options: str, name: str = "m.mlir") -> int:
    source = tmp_path / name
    source.write_text(text)
    status = qcc_tool.main([str(source), "-o", str(tmp_path / "out.so"), "--quiet", *options])
    assert status == 0 or not (tmp_path / "out.so").exists(), "a failed compilation left an artefact"
    return status


def test_the_good_model_runs(compiled: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[0.1, 0.2, 0.3, 0.4]], np.float32))
    assert qcc_run.main([str(compiled), "--input", str(tmp_path / "x.npy"), "--output", str(tmp_path / "y.npy")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), [[1.5, -1.5]], rtol=1e-6)


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, qcc_tool.main([str(tmp_path / "none.onnx"), "-o", str(tmp_path / "o")]), "none.onnx")


@pytest.mark.parametrize("name", ["m.mlir", "m.onnx", "m.pt2", "m.xyz"])
def test_malformed_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    fails(capsys, compile_text(tmp_path, "this is no model", name=name), name)


def test_unknown_operation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, compile_text(tmp_path, GOOD.replace("qcc.linear", "qcc.lineal")), "qcc.lineal")


def test_shapes_that_do_not_fit_name_the_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = GOOD.replace("tensor<1x2xf32>", "tensor<1x3xf32>")
    fails(capsys, compile_text(tmp_path, text), "head", "expected [1, 2]")


def test_dynamic_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        GOOD.replace("tensor<1x4xf32>", "tensor<?x4xf32>")
        .replace("tensor<1x4x!", "tensor<?x4x!")
        .replace("tensor<1x2xf32>", "tensor<?x2xf32>")
    )
    fails(capsys, compile_text(tmp_path, text), "static shape")


@pytest.mark.parametrize("scale", ["0.0", "0x7FC00000", "-0.5"])
def test_bad_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str], scale: str) -> None:
    fails(capsys, compile_text(tmp_path, GOOD.replace("f32, 0.5", f"f32, {scale}")), "scale")


def test_quant_min_above_quant_max(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, compile_text(tmp_path, GOOD.replace("i8:f32, 0.5", "i8<5:-5>:f32, 0.5")), "m.mlir")


def test_unwritable_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "good.mlir"
    source.write_text(GOOD)
    fails(capsys, qcc_tool.main([str(source), "-o", str(tmp_path / "no" / "folder" / "o.so")]), "cannot write")
    fails(capsys, qcc_tool.main([str(source), "-o", str(tmp_path)]), "it is a folder")


def test_unknown_cpu_and_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, compile_text(tmp_path, GOOD, "--cpu", "z80"), "z80")
    fails(capsys, compile_text(tmp_path, GOOD, "--target", "fpga", "--device", "breadboard"), "breadboard")


def test_outputs_that_are_no_new_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, pipe = tmp_path / "good.mlir", tmp_path / "pipe"
    source.write_text(GOOD)
    os.mkfifo(pipe)
    fails(capsys, qcc_tool.main([str(source), "-o", str(pipe)]), "pipe", "no regular file")
    assert pipe.is_fifo()
    fails(capsys, qcc_tool.main([str(source), "-o", str(tmp_path / "." / "good.mlir")]), "the model itself")
    assert source.read_text() == GOOD
    (tmp_path / "link.so").symlink_to(tmp_path / "real.so")
    assert qcc_tool.main([str(source), "-o", str(tmp_path / "link.so"), "--quiet"]) == 0
    assert (tmp_path / "real.so").is_file() and (tmp_path / "link.so").is_symlink()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--print-ir-after", "fold-everything"], "fold-everything"),
        (["--device", "ecp5-45k"], "--target fpga"),
        (["--emit", "integer", "--report", "r.html"], "--report"),
        (["--emit", "isa"], "object"),
    ],
)
def test_options_without_effect_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str) -> None:
    fails(capsys, compile_text(tmp_path, GOOD, *options), words)


@pytest.mark.parametrize("options", [["--batch", "many"], ["--target", "gpu"], ["--no-such"]])
def test_wrong_options_end_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        compile_text(tmp_path, GOOD, *options)
    fails(capsys, int(str(stopped.value)), "error: ")


def test_run_options(compiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, qcc_run.main([str(compiled), "--layers"]), "--benchmark")
    for seconds in ("0", "-1", "nan"):
        fails(capsys, qcc_run.main([str(compiled), "--benchmark", "--seconds", seconds]), "seconds")
    assert qcc_run.main([str(compiled), "--profile"]) == 0
    assert "head" in capsys.readouterr().out


def test_an_unknown_option_of_compile(tmp_path: Path) -> None:
    (tmp_path / "good.mlir").write_text(GOOD)
    with pytest.raises(qcc.QccError, match="no option 'optimise', expected some of: target"):
        qcc.compile(tmp_path / "good.mlir", optimise="size")


def test_missing_compiler(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    fails(capsys, compile_text(tmp_path, GOOD), "compiler")


def test_wrong_input_shape_and_dtype(compiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "shape.npy", np.zeros((1, 5), np.float32))
    fails(capsys, qcc_run.main([str(compiled), "--input", str(tmp_path / "shape.npy")]), "[1, 5]", "[1, 4]")
    np.save(tmp_path / "dtype.npy", np.zeros((1, 4), np.complex64))
    fails(capsys, qcc_run.main([str(compiled), "--input", str(tmp_path / "dtype.npy")]), "complex64", "float32")
    fails(capsys, qcc_run.main([str(compiled)]), "input")


@pytest.mark.parametrize("keep", slow_except([0, 3, 1000, 0.5, 0.99], 0.5))
def test_truncated_artefact(compiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], keep: float) -> None:
    data = compiled.read_bytes()
    cut = tmp_path / "cut.so"
    cut.write_bytes(data[: int(keep if keep >= 1 or keep == 0 else len(data) * keep)])
    fails(capsys, qcc_run.main([str(cut), "--info"]), "cut.so")


def test_altered_artefact(compiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(compiled.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.so").write_bytes(data)
    fails(capsys, qcc_run.main([str(tmp_path / "bad.so"), "--info"]), "bad.so")


def test_some_other_shared_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("cc") is None:
        pytest.fail("a C compiler is needed")
    (tmp_path / "a.c").write_text("int a;")
    subprocess.run(["cc", "-shared", "-o", str(tmp_path / "a.so"), str(tmp_path / "a.c")], check=True)
    fails(capsys, qcc_run.main([str(tmp_path / "a.so"), "--info"]), "a.so")


def test_help_teaches() -> None:
    for tool in ("qcc", "qcc_opt", "qcc_run"):
        done = subprocess.run([sys.executable, "-m", f"qcc.tools.{tool}", "--help"], capture_output=True, text=True)
        assert done.returncode == 0 and "examples:" in done.stdout
