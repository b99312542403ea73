// RUN: qcc-opt %s --pass-pipeline='builtin.module(emit-step-table)' --split-input-file --verify-diagnostics | filecheck %s

// One step: three operands (input 0, weights at 64, output 0), four tasks, layer name at offset 0 of the strings.
// CHECK: module attributes {qcc.arena_bytes = 0 : i64, qcc.inputs = {{.*}}, qcc.outputs = {{.*}}, qcc.steps = [{bytes = 6 : i64, codelet = "linear", layer = "fc", tasks = 4 : i64, weights = array<i64: 64>}], qcc.weights = [{offset_bytes = 64 : i64, value = dense<[1, 2]> : tensor<2xi8>}], qcc.weights_bytes = 128 : i64}
// CHECK: llvm.func @linear(!llvm.ptr, i64, i64, !llvm.ptr) attributes {qtile.codelet = {kind = "linear"}, qtile.scratch_bytes = 256 : i64}
// CHECK: @qcc_steps(dense<{{\[\[}}0, 3, 4, 0]]> : tensor<1x4xi64>)
// CHECK: @qcc_operands(dense<{{\[\[}}0, 0, 0], [3, 0, 64], [1, 0, 0]]> : tensor<3x3xi64>)
// CHECK: @qcc_strings("fc\00")
// CHECK: llvm.mlir.addressof @linear
// CHECK: llvm.mlir.global external constant @qcc_model_program
// CHECK: llvm.mlir.constant(256 : i64)
func.func @main() attributes {qcc.inputs = [{name = "x", type = tensor<2xi8>}], qcc.outputs = [{name = "y", type = tensor<2xi8>}], qtile.arena_bytes = 0, qtile.weights_bytes = 128} {
  %x = "qtile.buffer"() {space = "input", index = 0, offset_bytes = 0, size_bytes = 2} : () -> memref<2xi8>
  %w = "qtile.buffer"() {space = "weights", offset_bytes = 64, size_bytes = 2, value = dense<[1, 2]> : tensor<2xi8>} : () -> memref<2xi8>
  %y = "qtile.buffer"() {space = "output", index = 0, offset_bytes = 0, size_bytes = 2} : () -> memref<2xi8>
  func.call @linear(%x, %w, %y) {qtile.tasks = 4, qtile.layer = "fc"} : (memref<2xi8>, memref<2xi8>, memref<2xi8>) -> ()
  return
}
func.func private @linear(memref<2xi8>, memref<2xi8>, memref<2xi8>) attributes {qtile.codelet = {kind = "linear"}, qtile.scratch_bytes = 256}

// -----

// Memory must be planned first.
// expected-error @+1 {{'main' has no attribute 'qtile.arena_bytes', expected the tiled form after plan-memory}}
func.func @main() attributes {qcc.inputs = [], qcc.outputs = []} {
  return
}

// -----

// A group gives its steps for every slice, whose operands lie `slice_bytes` further on.
// CHECK: qcc.steps = [{{.*}}codelet = "f"{{.*}}codelet = "g"{{.*}}codelet = "f"{{.*}}codelet = "g"
// CHECK: @qcc_operands(dense<{{\[\[}}0, 0, 0], [2, 0, 64], [2, 0, 64], [1, 0, 0], [0, 0, 4], [2, 0, 64], [2, 0, 64], [1, 0, 2]]> : tensor<8x3xi64>)
func.func @main() attributes {qcc.inputs = [{name = "x", type = tensor<8xi8>}], qcc.outputs = [{name = "y", type = tensor<4xi8>}], qtile.arena_bytes = 128, qtile.weights_bytes = 0} {
  %x = "qtile.buffer"() {space = "input", index = 0, offset_bytes = 0, size_bytes = 8} : () -> memref<8xi8>
  %a = "qtile.buffer"() {space = "arena", offset_bytes = 64, size_bytes = 4} : () -> memref<4xi8>
  %y = "qtile.buffer"() {space = "output", index = 0, offset_bytes = 0, size_bytes = 4} : () -> memref<4xi8>
  func.call @f(%x, %a) {qtile.group = 0, qtile.slices = 2, qtile.slice_bytes = array<i64: 4, 0>} : (memref<8xi8>, memref<4xi8>) -> ()
  func.call @g(%a, %y) {qtile.group = 0, qtile.slices = 2, qtile.slice_bytes = array<i64: 0, 2>} : (memref<4xi8>, memref<4xi8>) -> ()
  return
}
func.func private @f(memref<8xi8>, memref<4xi8>) attributes {qtile.codelet = {kind = "linear"}}
func.func private @g(memref<4xi8>, memref<4xi8>) attributes {qtile.codelet = {kind = "linear"}}

// -----

// States lie in the arena; what they hold at first is a constant beside the program.
// CHECK: qcc.states = [{name = "s", offset_bytes = 64 : i64, type = tensor<2xi8>}]
// CHECK: @qcc_operands(dense<{{\[\[}}2, 0, 64], [1, 0, 0]]> : tensor<2x3xi64>)
// CHECK: llvm.mlir.global internal constant @qcc_initial("{{.*00.05.06.00.*}}")
// CHECK: llvm.mlir.addressof @qcc_initial
func.func @main() attributes {qcc.inputs = [], qcc.outputs = [{name = "y", type = tensor<2xi8>}], qcc.states = [{name = "s", type = tensor<2xi8>}], qtile.state_bytes = 128, qtile.arena_bytes = 128, qtile.weights_bytes = 0} {
  %s = "qtile.buffer"() {space = "state", name = "s", index = 0, offset_bytes = 64, size_bytes = 2, value = dense<[5, 6]> : tensor<2xi8>} : () -> memref<2xi8>
  %y = "qtile.buffer"() {space = "output", index = 0, offset_bytes = 0, size_bytes = 2} : () -> memref<2xi8>
  func.call @f(%s, %y) : (memref<2xi8>, memref<2xi8>) -> ()
  return
}
func.func private @f(memref<2xi8>, memref<2xi8>) attributes {qtile.codelet = {kind = "linear"}}

// -----

// An operand may begin behind the start of its buffer.
// CHECK: weights = array<i64: 64>
// CHECK: @qcc_operands(dense<{{\[\[}}0, 0, 4], [3, 0, 66], [1, 0, 0]]> : tensor<3x3xi64>)
func.func @main() attributes {qcc.inputs = [{name = "x", type = tensor<8xi8>}], qcc.outputs = [{name = "y", type = tensor<2xi8>}], qtile.arena_bytes = 0, qtile.weights_bytes = 128} {
  %x = "qtile.buffer"() {space = "input", index = 0, offset_bytes = 0, size_bytes = 8} : () -> memref<8xi8>
  %w = "qtile.buffer"() {space = "weights", offset_bytes = 64, size_bytes = 4, value = dense<3> : tensor<4xi8>} : () -> memref<4xi8>
  %y = "qtile.buffer"() {space = "output", index = 0, offset_bytes = 0, size_bytes = 2} : () -> memref<2xi8>
  func.call @f(%x, %w, %y) {qtile.offset_bytes = array<i64: 4, 2, 0>} : (memref<8xi8>, memref<4xi8>, memref<2xi8>) -> ()
  return
}
func.func private @f(memref<8xi8>, memref<4xi8>, memref<2xi8>) attributes {qtile.codelet = {kind = "linear"}}

// -----

// Two calls for one operation say so; a table of which rows are looked up is marked, so that it need not be decoded for a few of them.
// CHECK: qcc.steps = [{{.*}}codelet = "f"{{.*}}operation = 3{{.*}}codelet = "f"{{.*}}operation = 3{{.*}}codelet = "e"
// CHECK-SAME: qcc.weights = [{offset_bytes = 0 : i64, value = {{[^,]*}}}, {looked_up, offset_bytes = 64 : i64
func.func @main() attributes {qcc.inputs = [{name = "x", type = tensor<2xi8>}], qcc.outputs = [{name = "y", type = tensor<2xi8>}], qtile.arena_bytes = 0, qtile.weights_bytes = 128} {
  %x = "qtile.buffer"() {space = "input", index = 0, offset_bytes = 0, size_bytes = 2} : () -> memref<2xi8>
  %w = "qtile.buffer"() {space = "weights", offset_bytes = 0, size_bytes = 2, value = dense<1> : tensor<2xi8>} : () -> memref<2xi8>
  %t = "qtile.buffer"() {space = "weights", offset_bytes = 64, size_bytes = 2, value = dense<2> : tensor<2xi8>} : () -> memref<2xi8>
  %y = "qtile.buffer"() {space = "output", index = 0, offset_bytes = 0, size_bytes = 2} : () -> memref<2xi8>
  func.call @f(%x, %w, %y) {qtile.operation = 3} : (memref<2xi8>, memref<2xi8>, memref<2xi8>) -> ()
  func.call @f(%x, %w, %y) {qtile.operation = 3, qtile.offset_bytes = array<i64: 0, 0, 1>} : (memref<2xi8>, memref<2xi8>, memref<2xi8>) -> ()
  func.call @e(%t, %x, %y) : (memref<2xi8>, memref<2xi8>, memref<2xi8>) -> ()
  return
}
func.func private @f(memref<2xi8>, memref<2xi8>, memref<2xi8>) attributes {qtile.codelet = {kind = "linear"}}
func.func private @e(memref<2xi8>, memref<2xi8>, memref<2xi8>) attributes {qtile.codelet = {kind = "embedding", table = {buffer = 0 : i64}}}
