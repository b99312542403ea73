"""Functions of upstream operations through bufferization, memory planning and LLVM, against numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qcc.compiler.emit.machine_code import MachineCode
from qcc.dialects.mlir import create_context, parse_module
from test.runtime.cpu.generic_program import compile_text, llvm_form

RNG = np.random.default_rng(7)


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(dtype)


def test_matmul_exp_pad_concat_and_slices() -> None:
    exe, _ = compile_text("""
func.func @f(%x: tensor<4x8xf32>, %w: tensor<8x6xf32>) -> tensor<5x12xf32> {
  %e = tensor.empty() : tensor<4x6xf32>
  %z = arith.constant 0.0 : f32
  %i = linalg.fill ins(%z : f32) outs(%e : tensor<4x6xf32>) -> tensor<4x6xf32>
  %m = linalg.matmul ins(%x, %w : tensor<4x8xf32>, tensor<8x6xf32>) outs(%i : tensor<4x6xf32>) -> tensor<4x6xf32>
  %n = math.exp %m : tensor<4x6xf32>
  %c = tensor.concat dim(1) %m, %n : (tensor<4x6xf32>, tensor<4x6xf32>) -> tensor<4x12xf32>
  %p = tensor.pad %c low[1, 0] high[0, 0] { ^bb0(%a: index, %b: index): tensor.yield %z : f32 } : tensor<4x12xf32> to tensor<5x12xf32>
  return %p : tensor<5x12xf32>
}""")
    x, w = normal(4, 8), normal(8, 6)
    m = np.zeros((4, 6), np.float32)
    for k in range(8):  # the order of additions of the source
        m = m + x[:, k : k + 1] * w[k]
    expected = np.pad(np.concatenate([m, np.exp(m)], 1), ((1, 0), (0, 0)))
    np.testing.assert_allclose(exe(x, w), expected, rtol=1e-6)


def test_the_order_of_loops_does_not_change_sums() -> None:
    """The product is computed row by row for vectors, and every sum still runs over k upwards."""
    exe, _ = compile_text("""
func.func @f(%x: tensor<3x50xf32>, %w: tensor<50x40xf32>, %s: tensor<3x40xf32>) -> tensor<3x40xf32> {
  %m = linalg.matmul ins(%x, %w : tensor<3x50xf32>, tensor<50x40xf32>) outs(%s : tensor<3x40xf32>) -> tensor<3x40xf32>
  return %m : tensor<3x40xf32>
}""")
    x, w, s = normal(3, 50), normal(50, 40), normal(3, 40)
    expected = s.copy()
    for k in range(50):
        expected = expected + x[:, k : k + 1] * w[k]
    assert np.array_equal(exe(x, w, s), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution(stride: int) -> None:
    out = (9 - 3) // stride + 1
    exe, _ = compile_text(f"""
func.func @f(%x: tensor<2x3x9x9xf32>, %w: tensor<5x3x3x3xf32>) -> tensor<2x5x{out}x{out}xf32> {{
  %e = tensor.empty() : tensor<2x5x{out}x{out}xf32>
  %z = arith.constant 0.0 : f32
  %i = linalg.fill ins(%z : f32) outs(%e : tensor<2x5x{out}x{out}xf32>) -> tensor<2x5x{out}x{out}xf32>
  %c = linalg.conv_2d_nchw_fchw {{strides = dense<{stride}> : tensor<2xi64>, dilations = dense<1> : tensor<2xi64>}}
    ins(%x, %w : tensor<2x3x9x9xf32>, tensor<5x3x3x3xf32>) outs(%i : tensor<2x5x{out}x{out}xf32>) -> tensor<2x5x{out}x{out}xf32>
  return %c : tensor<2x5x{out}x{out}xf32>
}}""")
    x, w = normal(2, 3, 9, 9), normal(5, 3, 3, 3)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    np.testing.assert_allclose(exe(x, w), np.einsum("nchwij,ocij->nohw", windows, w), rtol=1e-4, atol=1e-5)


def test_a_loop_that_carries_a_tensor() -> None:
    """Each iteration makes a new tensor out of all of the one before: memory of one may not be that of the next."""
    exe, _ = compile_text("""
#id = affine_map<(d0) -> (d0)>
#flip = affine_map<(d0) -> (-d0 + 7)>
func.func @f(%x: tensor<8xf32>) -> tensor<8xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c5 = arith.constant 5 : index
  %r = scf.for %i = %c0 to %c5 step %c1 iter_args(%t = %x) -> tensor<8xf32> {
    %g = tensor.generate {
    ^bb0(%j: index):
      %c7 = arith.constant 7 : index
      %k = arith.subi %c7, %j : index
      %a = tensor.extract %t[%j] : tensor<8xf32>
      %b = tensor.extract %t[%k] : tensor<8xf32>
      %d = arith.subf %a, %b : f32
      %h = arith.addf %d, %a : f32
      tensor.yield %h : f32
    } : tensor<8xf32>
    scf.yield %g : tensor<8xf32>
  }
  return %r : tensor<8xf32>
}""")
    x = expected = np.arange(8, dtype=np.float32) ** 2
    for _ in range(5):
        expected = (expected - expected[::-1]) + expected
    assert np.array_equal(exe(x), expected)
    assert np.array_equal(exe(x), expected)


def test_a_branch() -> None:
    exe, _ = compile_text("""
func.func @f(%x: tensor<4xf32>, %flag: tensor<1xi1>) -> tensor<4xf32> {
  %c0 = arith.constant 0 : index
  %b = tensor.extract %flag[%c0] : tensor<1xi1>
  %r = scf.if %b -> tensor<4xf32> {
    %a = math.sqrt %x : tensor<4xf32>
    scf.yield %a : tensor<4xf32>
  } else {
    scf.yield %x : tensor<4xf32>
  }
  return %r : tensor<4xf32>
}""")
    x = np.array([1, 4, 9, 16], np.float32)
    assert np.array_equal(exe(x, np.array([True])), np.sqrt(x))
    assert np.array_equal(exe(x, np.array([False])), x)


def test_gather_by_index() -> None:
    exe, _ = compile_text("""
#map = affine_map<(d0, d1) -> (d0)>
#out = affine_map<(d0, d1) -> (d0, d1)>
func.func @f(%t: tensor<10x3xf32>, %i: tensor<4xi64>) -> tensor<4x3xf32> {
  %e = tensor.empty() : tensor<4x3xf32>
  %r = linalg.generic {indexing_maps = [#map, #out], iterator_types = ["parallel", "parallel"]}
    ins(%i : tensor<4xi64>) outs(%e : tensor<4x3xf32>) {
  ^bb0(%in: i64, %o: f32):
    %row = arith.index_cast %in : i64 to index
    %col = linalg.index 1 : index
    %v = tensor.extract %t[%row, %col] : tensor<10x3xf32>
    linalg.yield %v : f32
  } -> tensor<4x3xf32>
  return %r : tensor<4x3xf32>
}""")
    t, i = normal(10, 3), np.array([9, 0, 3, 3])
    assert np.array_equal(exe(t, i), t[i])


@pytest.mark.parametrize("name, dtype", [("bf16", ml_dtypes.bfloat16), ("f16", np.float16), ("f64", np.float64)])
def test_other_floats(name: str, dtype: Any) -> None:
    exe, _ = compile_text(f"""
func.func @f(%x: tensor<3x16x{name}>) -> tensor<3x16x{name}> {{
  %a = arith.mulf %x, %x : tensor<3x16x{name}>
  %b = arith.addf %a, %x : tensor<3x16x{name}>
  return %b : tensor<3x16x{name}>
}}""")
    x = normal(3, 16, dtype=dtype)
    found = exe(x)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, x * x + x)
    torch = pytest.importorskip("torch")
    kind = {"bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}[name]
    tensor = torch.from_numpy(x.astype(np.float64)).to(kind)
    result = exe(tensor)
    assert result.dtype == kind and torch.equal(result, tensor * tensor + tensor)


def test_booleans_and_small_integers() -> None:
    exe, _ = compile_text("""
func.func @f(%x: tensor<9xi8>, %m: tensor<9xi1>) -> (tensor<9xi8>, tensor<9xi1>) {
  %s = arith.addi %x, %x : tensor<9xi8>
  %y = arith.select %m, %s, %x : tensor<9xi1>, tensor<9xi8>
  %c = arith.cmpi sgt, %y, %x : tensor<9xi8>
  return %y, %c : tensor<9xi8>, tensor<9xi1>
}""")
    x, m = np.arange(-4, 5, dtype=np.int8), np.arange(9) % 2 == 0
    y, c = exe(x, m)
    assert np.array_equal(y, np.where(m, x + x, x)) and np.array_equal(c, y > x) and c.dtype == np.bool_


def test_large_constants_are_weights() -> None:
    values = ", ".join(f"{i}.0" for i in range(100))
    exe, _ = compile_text(f"""
func.func @f(%x: tensor<100xf32>) -> tensor<100xf32> {{
  %w = arith.constant dense<[{values}]> : tensor<100xf32>
  %y = arith.addf %x, %w : tensor<100xf32>
  return %y : tensor<100xf32>
}}""")
    assert exe.info["weights_bytes"] == 448
    x = normal(100)
    assert np.array_equal(exe(x), x + np.arange(100, dtype=np.float32))


def test_small_constants_stay_in_the_code() -> None:
    exe, _ = compile_text("""
func.func @f(%x: tensor<3xf32>) -> tensor<3xf32> {
  %w = arith.constant dense<[1.0, 2.0, 4.0]> : tensor<3xf32>
  %y = arith.addf %x, %w : tensor<3xf32>
  return %y : tensor<3xf32>
}""")
    assert exe.info["weights_bytes"] == 0
    x = normal(3)
    assert np.array_equal(exe(x), x + np.array([1, 2, 4], np.float32))


def test_an_object_file_of_a_generic_function(tmp_path: Path) -> None:
    """Before anything has run, as when compiling for another CPU: its internal functions are in it."""
    text = "func.func @f(%x: tensor<5xf32>) -> tensor<5xf32> { %y = math.sqrt %x : tensor<5xf32> return %y : tensor<5xf32> }"
    module, _ = llvm_form(parse_module(text, create_context()), "f")
    MachineCode(module).write_object(tmp_path / "f.o")
    assert b"qcc_model_program" in (tmp_path / "f.o").read_bytes()


def test_an_input_may_be_a_result() -> None:
    exe, _ = compile_text(
        "func.func @f(%x: tensor<5xf32>) -> (tensor<5xf32>, tensor<5xf32>) { return %x, %x : tensor<5xf32>, tensor<5xf32> }"
    )
    x = normal(5)
    assert all(np.array_equal(y, x) for y in exe(x))


def test_a_size_known_only_while_running_is_allocated_and_freed() -> None:
    exe, context = compile_text("""
func.func @f(%x: tensor<16xf32>, %n: tensor<1xi64>) -> tensor<1xf32> {
  %c0 = arith.constant 0 : index
  %k = tensor.extract %n[%c0] : tensor<1xi64>
  %size = arith.index_cast %k : i64 to index
  %z = arith.constant 0.0 : f32
  %s = tensor.extract_slice %x[0] [%size] [1] : tensor<16xf32> to tensor<?xf32>
  %q = math.sqrt %s : tensor<?xf32>
  %e = tensor.empty() : tensor<1xf32>
  %i = linalg.fill ins(%z : f32) outs(%e : tensor<1xf32>) -> tensor<1xf32>
  %a = tensor.cast %q : tensor<?xf32> to tensor<?xf32>
  %t = linalg.generic {indexing_maps = [affine_map<(d0) -> (d0)>, affine_map<(d0) -> (0)>], iterator_types = ["reduction"]}
    ins(%a : tensor<?xf32>) outs(%i : tensor<1xf32>) {
  ^bb0(%in: f32, %o: f32):
    %u = arith.addf %in, %o : f32
    linalg.yield %u : f32
  } -> tensor<1xf32>
  %g = tensor.generate %size {
  ^bb0(%j: index):
    %v = tensor.extract %q[%j] : tensor<?xf32>
    tensor.yield %v : f32
  } : tensor<?xf32>
  %last = arith.subi %size, %size : index
  %w = tensor.extract %g[%last] : tensor<?xf32>
  %h = tensor.insert %w into %e[%c0] : tensor<1xf32>
  %r = arith.addf %t, %h : tensor<1xf32>
  return %r : tensor<1xf32>
}""")
    x = np.arange(1, 17, dtype=np.float32)
    for n in (1, 7, 16):
        np.testing.assert_allclose(exe(x, np.array([n])), [np.sqrt(x[:n]).sum() + 1], rtol=1e-6)
    assert any("allocated in each run" in remark for remark in context.remarks)


def test_temporaries_share_memory() -> None:
    """Ten steps in a row need two temporaries of 4 KiB at a time, not ten."""
    lines, last = [], "%x"
    for i in range(10):
        lines.append(f"%t{i} = tensor.generate {{ ^bb0(%j{i}: index):")
        lines.append(f"%c{i} = arith.constant 1023 : index\n%k{i} = arith.subi %c{i}, %j{i} : index")
        lines.append(f"%v{i} = tensor.extract {last}[%k{i}] : tensor<1024xf32>\ntensor.yield %v{i} : f32 }} : tensor<1024xf32>")
        last = f"%t{i}"
    body = "\n".join(lines)
    exe, _ = compile_text(f"func.func @f(%x: tensor<1024xf32>) -> tensor<1024xf32> {{\n{body}\nreturn {last} : tensor<1024xf32>\n}}")
    x = normal(1024)
    assert np.array_equal(exe(x), x)
    assert exe.info["arena_bytes"] <= 8192
