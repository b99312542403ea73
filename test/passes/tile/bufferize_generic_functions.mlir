// RUN: qcc-opt %s --pass-pipeline='builtin.module(bufferize-generic-functions)' --split-input-file --verify-diagnostics | filecheck %s

// The temporary is a view of a scratch operand, which stands before the result.
// CHECK: %[[s:.*]] = "qtile.buffer"() {offset_bytes = 0 : i64, size_bytes = 64 : i64, space = "scratch"} : () -> memref<64xi8>
// CHECK: call @f(%{{.*}}, %[[s]], %{{.*}}) {qtile.layer = "l"}
// CHECK: func.func private @f(%{{.*}}: memref<4xf32>, %[[a:.*]]: memref<64xi8>, %[[y:.*]]: memref<4xf32>)
// CHECK: %[[v:.*]] = memref.view %[[a]][%{{.*}}][] : memref<64xi8> to memref<4xf32>
// CHECK: outs(%[[v]] : memref<4xf32>)
// CHECK: outs(%[[y]] : memref<4xf32>)
#id = affine_map<(d0) -> (d0)>
func.func @main() {
  %x = "qtile.buffer"() {space = "input", index = 0, offset_bytes = 0} : () -> memref<4xf32>
  %y = "qtile.buffer"() {space = "output", index = 0, offset_bytes = 0} : () -> memref<4xf32>
  func.call @f(%x, %y) {qtile.layer = "l"} : (memref<4xf32>, memref<4xf32>) -> ()
  return
}
func.func private @f(%x: memref<4xf32>, %y: memref<4xf32>) attributes {qcc.generic = "reversal"} {
  %t = bufferization.to_tensor %x restrict : memref<4xf32> to tensor<4xf32>
  %e = math.exp %t : tensor<4xf32>
  %n = tensor.empty() : tensor<4xf32>
  %r = linalg.generic {indexing_maps = [#id], iterator_types = ["parallel"]} outs(%n : tensor<4xf32>) {
  ^bb0(%o: f32):
    %i = linalg.index 0 : index
    %c3 = arith.constant 3 : index
    %k = arith.subi %c3, %i : index
    %v = tensor.extract %e[%k] : tensor<4xf32>
    linalg.yield %v : f32
  } -> tensor<4xf32>
  bufferization.materialize_in_destination %r in restrict writable %y : (tensor<4xf32>, memref<4xf32>) -> ()
  return
}

// -----

// A product reduces in the middle loop, so that the innermost one runs along the rows of the result.
// CHECK: iterator_types = ["parallel", "reduction", "parallel"]
func.func @main() {
  %a = "qtile.buffer"() {space = "input", index = 0, offset_bytes = 0} : () -> memref<4x8xf32>
  %b = "qtile.buffer"() {space = "input", index = 1, offset_bytes = 0} : () -> memref<8x6xf32>
  %y = "qtile.buffer"() {space = "output", index = 0, offset_bytes = 0} : () -> memref<4x6xf32>
  func.call @f(%a, %b, %y) : (memref<4x8xf32>, memref<8x6xf32>, memref<4x6xf32>) -> ()
  return
}
func.func private @f(%x: memref<4x8xf32>, %w: memref<8x6xf32>, %y: memref<4x6xf32>) attributes {qcc.generic = "matmul"} {
  %a = bufferization.to_tensor %x restrict : memref<4x8xf32> to tensor<4x8xf32>
  %b = bufferization.to_tensor %w restrict : memref<8x6xf32> to tensor<8x6xf32>
  %e = tensor.empty() : tensor<4x6xf32>
  %z = arith.constant 0.0 : f32
  %i = linalg.fill ins(%z : f32) outs(%e : tensor<4x6xf32>) -> tensor<4x6xf32>
  %m = linalg.matmul ins(%a, %b : tensor<4x8xf32>, tensor<8x6xf32>) outs(%i : tensor<4x6xf32>) -> tensor<4x6xf32>
  bufferization.materialize_in_destination %m in restrict writable %y : (tensor<4x6xf32>, memref<4x6xf32>) -> ()
  return
}

// -----

// An index that comes from data is clamped; a loop counter is not.
// CHECK: memref.load %{{.*}} : memref<4xi64>
// CHECK: %[[i:.*]] = arith.index_cast
// CHECK: %[[low:.*]] = arith.maxsi %[[i]], %c0
// CHECK: %[[in:.*]] = arith.minsi %[[low]], %c8
// CHECK: memref.load %{{.*}}[%[[in]]] : memref<9xf32>
func.func @main() {
  %x = "qtile.buffer"() {space = "input", index = 0, offset_bytes = 0} : () -> memref<9xf32>
  %i = "qtile.buffer"() {space = "input", index = 1, offset_bytes = 0} : () -> memref<4xi64>
  %y = "qtile.buffer"() {space = "output", index = 0, offset_bytes = 0} : () -> memref<4xf32>
  func.call @f(%x, %i, %y) : (memref<9xf32>, memref<4xi64>, memref<4xf32>) -> ()
  return
}
func.func private @f(%x: memref<9xf32>, %i: memref<4xi64>, %y: memref<4xf32>) attributes {qcc.generic = "index"} {
  %t = bufferization.to_tensor %x restrict : memref<9xf32> to tensor<9xf32>
  %n = bufferization.to_tensor %i restrict : memref<4xi64> to tensor<4xi64>
  %e = tensor.empty() : tensor<4xf32>
  %r = linalg.generic {indexing_maps = [affine_map<(d0) -> (d0)>], iterator_types = ["parallel"]} outs(%e : tensor<4xf32>) {
  ^bb0(%o: f32):
    %k = linalg.index 0 : index
    %j = tensor.extract %n[%k] : tensor<4xi64>
    %c = arith.index_cast %j : i64 to index
    %v = tensor.extract %t[%c] : tensor<9xf32>
    linalg.yield %v : f32
  } -> tensor<4xf32>
  bufferization.materialize_in_destination %r in restrict writable %y : (tensor<4xf32>, memref<4xf32>) -> ()
  return
}

// -----

// A generic function that nothing calls is removed.
// CHECK: func.func @main()
// CHECK-NOT: @unused
func.func @main() {
  return
}
func.func private @unused() attributes {qcc.generic = "nothing"} {
  return
}

// -----

// What upstream cannot bufferize is said with its reason.
func.func @main() {
  %y = "qtile.buffer"() {space = "output", index = 0, offset_bytes = 0} : () -> memref<4xf32>
  // expected-error @+1 {{the generic path cannot compile 'mystery'}}
  func.call @f(%y) : (memref<4xf32>) -> ()
  return
}
func.func private @f(%y: memref<4xf32>) attributes {qcc.generic = "mystery"} {
  %t = "qcc.constant"() {value = dense<1.0> : tensor<4xf32>} : () -> tensor<4xf32>
  bufferization.materialize_in_destination %t in restrict writable %y : (tensor<4xf32>, memref<4xf32>) -> ()
  return
}
