// RUN: qcc-opt %s --pass-pipeline='builtin.module(fuse-attention)' | filecheck %s

// CHECK-LABEL: func.func @masked
// CHECK-NEXT: %[[Y:.*]] = "qcc.attention"(%arg0, %arg1, %arg2, %arg3) {causal = false, scale = 2.500000e-01 : f64} : (tensor<2x8x3x32xf32>, tensor<2x8x64x32xf32>, tensor<2x8x64x16xf32>, tensor<2x1x1x64xf32>) -> tensor<2x8x3x16xf32>
// CHECK-NEXT: return %[[Y]]
func.func @masked(%q: tensor<2x8x3x32xf32>, %k: tensor<2x8x64x32xf32>, %v: tensor<2x8x64x16xf32>, %m: tensor<2x1x1x64xf32>) -> tensor<2x8x3x16xf32> {
  %scale = "qcc.constant"() {value = dense<0.25> : tensor<f32>} : () -> tensor<f32>
  %t = "qcc.transpose"(%k) {permutation = array<i64: 0, 1, 3, 2>} : (tensor<2x8x64x32xf32>) -> tensor<2x8x32x64xf32>
  %s = "qcc.matmul"(%q, %t) : (tensor<2x8x3x32xf32>, tensor<2x8x32x64xf32>) -> tensor<2x8x3x64xf32>
  %f = "qcc.mul"(%s, %scale) : (tensor<2x8x3x64xf32>, tensor<f32>) -> tensor<2x8x3x64xf32>
  %a = "qcc.add"(%f, %m) : (tensor<2x8x3x64xf32>, tensor<2x1x1x64xf32>) -> tensor<2x8x3x64xf32>
  %w = "qcc.softmax"(%a) {axis = 3 : i64} : (tensor<2x8x3x64xf32>) -> tensor<2x8x3x64xf32>
  %y = "qcc.matmul"(%w, %v) : (tensor<2x8x3x64xf32>, tensor<2x8x64x16xf32>) -> tensor<2x8x3x16xf32>
  return %y : tensor<2x8x3x16xf32>
}

// Neither mask nor scale; keys that were split and transposed in one step.
// CHECK-LABEL: func.func @plain
// CHECK: %[[T:.*]] = "qcc.transpose"(%arg1) {permutation = array<i64: 0, 2, 3, 1>}
// CHECK: %[[K:.*]] = "qcc.transpose"(%[[T]]) {permutation = array<i64: 0, 1, 3, 2>} : (tensor<1x2x16x9xf32>) -> tensor<1x2x9x16xf32>
// CHECK: "qcc.attention"(%arg0, %[[K]], %arg2) {causal = false, scale = 1.000000e+00 : f64}
func.func @plain(%q: tensor<1x2x1x16xf32>, %k: tensor<1x9x2x16xf32>, %v: tensor<1x2x9x16xf32>) -> tensor<1x2x1x16xf32> {
  %t = "qcc.transpose"(%k) {permutation = array<i64: 0, 2, 3, 1>} : (tensor<1x9x2x16xf32>) -> tensor<1x2x16x9xf32>
  %s = "qcc.matmul"(%q, %t) : (tensor<1x2x1x16xf32>, tensor<1x2x16x9xf32>) -> tensor<1x2x1x9xf32>
  %w = "qcc.softmax"(%s) {axis = 3 : i64} : (tensor<1x2x1x9xf32>) -> tensor<1x2x1x9xf32>
  %y = "qcc.matmul"(%w, %v) : (tensor<1x2x1x9xf32>, tensor<1x2x9x16xf32>) -> tensor<1x2x1x16xf32>
  return %y : tensor<1x2x1x16xf32>
}

// A factor of queries and one of keys, as torch writes attention in ONNX: keys are not multiplied.
// CHECK-LABEL: func.func @factors
// CHECK-NEXT: "qcc.attention"(%arg0, %arg1, %arg2) {causal = false, scale = 2.500000e-01 : f64}
func.func @factors(%q: tensor<1x2x1x16xf32>, %k: tensor<1x2x9x16xf32>, %v: tensor<1x2x9x16xf32>) -> tensor<1x2x1x16xf32> {
  %root = "qcc.constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %t = "qcc.transpose"(%k) {permutation = array<i64: 0, 1, 3, 2>} : (tensor<1x2x9x16xf32>) -> tensor<1x2x16x9xf32>
  %a = "qcc.mul"(%q, %root) : (tensor<1x2x1x16xf32>, tensor<f32>) -> tensor<1x2x1x16xf32>
  %b = "qcc.mul"(%t, %root) : (tensor<1x2x16x9xf32>, tensor<f32>) -> tensor<1x2x16x9xf32>
  %s = "qcc.matmul"(%a, %b) : (tensor<1x2x1x16xf32>, tensor<1x2x16x9xf32>) -> tensor<1x2x1x9xf32>
  %w = "qcc.softmax"(%s) {axis = 3 : i64} : (tensor<1x2x1x9xf32>) -> tensor<1x2x1x9xf32>
  %y = "qcc.matmul"(%w, %v) : (tensor<1x2x1x9xf32>, tensor<1x2x9x16xf32>) -> tensor<1x2x1x16xf32>
  return %y : tensor<1x2x1x16xf32>
}

// Transposed with one batch axis instead of two: a reshape of the source.
// CHECK-LABEL: func.func @one_batch_axis
// CHECK-NEXT: %[[K:.*]] = "qcc.reshape"(%arg1) : (tensor<2x1x9x16xf32>) -> tensor<1x2x9x16xf32>
// CHECK-NEXT: "qcc.attention"(%arg0, %[[K]], %arg2)
func.func @one_batch_axis(%q: tensor<1x2x1x16xf32>, %k: tensor<2x1x9x16xf32>, %v: tensor<1x2x9x16xf32>) -> tensor<1x2x1x16xf32> {
  %f = "qcc.reshape"(%k) : (tensor<2x1x9x16xf32>) -> tensor<2x9x16xf32>
  %t = "qcc.transpose"(%f) {permutation = array<i64: 0, 2, 1>} : (tensor<2x9x16xf32>) -> tensor<2x16x9xf32>
  %r = "qcc.reshape"(%t) : (tensor<2x16x9xf32>) -> tensor<1x2x16x9xf32>
  %s = "qcc.matmul"(%q, %r) : (tensor<1x2x1x16xf32>, tensor<1x2x16x9xf32>) -> tensor<1x2x1x9xf32>
  %w = "qcc.softmax"(%s) {axis = 3 : i64} : (tensor<1x2x1x9xf32>) -> tensor<1x2x1x9xf32>
  %y = "qcc.matmul"(%w, %v) : (tensor<1x2x1x9xf32>, tensor<1x2x9x16xf32>) -> tensor<1x2x1x16xf32>
  return %y : tensor<1x2x1x16xf32>
}

// Many queries, and scores that leave the model.
// CHECK-LABEL: func.func @products
// CHECK-NOT: qcc.attention
// CHECK: return
func.func @products(%q: tensor<1x2x9x16xf32>, %o: tensor<1x2x1x16xf32>, %t: tensor<1x2x16x9xf32>, %v: tensor<1x2x9x16xf32>) -> (tensor<1x2x9x16xf32>, tensor<1x2x1x16xf32>, tensor<1x2x1x9xf32>) {
  %s = "qcc.matmul"(%q, %t) : (tensor<1x2x9x16xf32>, tensor<1x2x16x9xf32>) -> tensor<1x2x9x9xf32>
  %w = "qcc.softmax"(%s) {axis = 3 : i64} : (tensor<1x2x9x9xf32>) -> tensor<1x2x9x9xf32>
  %y = "qcc.matmul"(%w, %v) : (tensor<1x2x9x9xf32>, tensor<1x2x9x16xf32>) -> tensor<1x2x9x16xf32>
  %s1 = "qcc.matmul"(%o, %t) : (tensor<1x2x1x16xf32>, tensor<1x2x16x9xf32>) -> tensor<1x2x1x9xf32>
  %w1 = "qcc.softmax"(%s1) {axis = 3 : i64} : (tensor<1x2x1x9xf32>) -> tensor<1x2x1x9xf32>
  %y1 = "qcc.matmul"(%w1, %v) : (tensor<1x2x1x9xf32>, tensor<1x2x9x16xf32>) -> tensor<1x2x1x16xf32>
  return %y, %y1, %s1 : tensor<1x2x9x16xf32>, tensor<1x2x1x16xf32>, tensor<1x2x1x9xf32>
}

// Quantized values: integer products.
// CHECK-LABEL: func.func @quantized
// CHECK-NOT: qcc.attention
// CHECK: return
func.func @quantized(%q: tensor<1x2x1x16xf32>, %c: tensor<1x2x9x16x!quant.uniform<i8:f32, 0.1>>, %v: tensor<1x2x9x16xf32>) -> tensor<1x2x1x16xf32> {
  %k = "qcc.dequantize"(%c) : (tensor<1x2x9x16x!quant.uniform<i8:f32, 0.1>>) -> tensor<1x2x9x16xf32>
  %t = "qcc.transpose"(%k) {permutation = array<i64: 0, 1, 3, 2>} : (tensor<1x2x9x16xf32>) -> tensor<1x2x16x9xf32>
  %s = "qcc.matmul"(%q, %t) : (tensor<1x2x1x16xf32>, tensor<1x2x16x9xf32>) -> tensor<1x2x1x9xf32>
  %w = "qcc.softmax"(%s) {axis = 3 : i64} : (tensor<1x2x1x9xf32>) -> tensor<1x2x1x9xf32>
  %y = "qcc.matmul"(%w, %v) : (tensor<1x2x1x9xf32>, tensor<1x2x9x16xf32>) -> tensor<1x2x1x16xf32>
  return %y : tensor<1x2x1x16xf32>
}
