"""A hand-written program in tiled form with one codelet in the LLVM dialect: y[i] = x[i] + w[i], 4 tasks of 16 elements, twice."""

from __future__ import annotations

from typing import Any

from qcc.dialects.mlir import create_context, parse_module
from qcc.passes.base import parse_pipeline, run_pipeline

PIPELINE = "builtin.module(plan-memory,emit-step-table{cpu-features=0})"

TEXT = """
func.func @main() attributes {qcc.inputs = [{name = "x", type = tensor<4x16xf32>}], qcc.outputs = [{name = "y", type = tensor<4x16xf32>}]} {
  %x = "qtile.buffer"() {space = "input", index = 0, offset_bytes = 0, size_bytes = 256} : () -> memref<4x16xf32>
  %w = "qtile.buffer"() {space = "weights", offset_bytes = 0, size_bytes = 256, value = dense<1.5> : tensor<64xf32>} : () -> memref<64xf32>
  %v = "qtile.buffer"() {space = "weights", offset_bytes = 0, size_bytes = 256, value = dense<-4.0> : tensor<64xf32>} : () -> memref<64xf32>
  %a = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 256} : () -> memref<4x16xf32>
  %y = "qtile.buffer"() {space = "output", index = 0, offset_bytes = 0, size_bytes = 256} : () -> memref<4x16xf32>
  func.call @add(%x, %w, %a) {qtile.tasks = 4, qtile.layer = "first"} : (memref<4x16xf32>, memref<64xf32>, memref<4x16xf32>) -> ()
  func.call @add(%a, %v, %y) {qtile.tasks = 4, qtile.layer = "second"} : (memref<4x16xf32>, memref<64xf32>, memref<4x16xf32>) -> ()
  return
}
func.func private @add(memref<4x16xf32>, memref<64xf32>, memref<4x16xf32>)
    attributes {qtile.codelet = {kind = "add"}, qtile.scratch_bytes = 64}
"""

CODELET = """
llvm.func @add(%buffers: !llvm.ptr, %begin: i64, %end: i64, %scratch: !llvm.ptr) {
  %c16 = llvm.mlir.constant(16 : i64) : i64
  %c1 = llvm.mlir.constant(1 : i64) : i64
  %px = llvm.load %buffers : !llvm.ptr -> !llvm.ptr
  %aw = llvm.getelementptr %buffers[1] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr
  %pw = llvm.load %aw : !llvm.ptr -> !llvm.ptr
  %ay = llvm.getelementptr %buffers[2] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr
  %py = llvm.load %ay : !llvm.ptr -> !llvm.ptr
  %first = llvm.mul %begin, %c16 : i64
  %last = llvm.mul %end, %c16 : i64
  llvm.br ^head(%first : i64)
^head(%i: i64):
  %more = llvm.icmp "slt" %i, %last : i64
  llvm.cond_br %more, ^body, ^done
^body:
  %ax = llvm.getelementptr %px[%i] : (!llvm.ptr, i64) -> !llvm.ptr, f32
  %bw = llvm.getelementptr %pw[%i] : (!llvm.ptr, i64) -> !llvm.ptr, f32
  %by = llvm.getelementptr %py[%i] : (!llvm.ptr, i64) -> !llvm.ptr, f32
  %xv = llvm.load %ax : !llvm.ptr -> f32
  %wv = llvm.load %bw : !llvm.ptr -> f32
  %sum = llvm.fadd %xv, %wv : f32
  llvm.store %sum, %scratch : f32, !llvm.ptr
  %again = llvm.load %scratch : !llvm.ptr -> f32
  llvm.store %again, %by : f32, !llvm.ptr
  %next = llvm.add %i, %c1 : i64
  llvm.br ^head(%next : i64)
^done:
  llvm.return
}
"""


def llvm_module() -> Any:
    """The program in llvm form, its codelet put in place of the declaration."""
    context = create_context()
    module = parse_module(TEXT, context)
    run_pipeline(module, parse_pipeline(PIPELINE))
    return parse_module(replace_declaration(str(module)), context)


def replace_declaration(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.strip().startswith("llvm.func @add(")]
    assert lines[-1] == "}"
    return "\n".join([*lines[:-1], CODELET, "}"])
