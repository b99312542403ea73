// RUN: qcc-opt %s --pass-pipeline='builtin.module(convert-matmul-to-linear,fold-constants)' | filecheck %s

// A constant right-hand side becomes weights [out, in] with the channel axis first.
// CHECK-LABEL: @quantized_weight
// CHECK: value = dense<{{\[\[}}1, 3, 5], [2, 4, 6]]>{{.*}}!quant.uniform<i8:f32:0, {5.000000e-01,2.500000e-01}>
// CHECK: "qcc.linear"(%{{.*}}, %{{.*}}) : (tensor<7x4x3xf32>, tensor<2x3xf32>) -> tensor<7x4x2xf32>
// CHECK-NOT: qcc.transpose
func.func @quantized_weight(%x: tensor<7x4x3xf32>) -> tensor<7x4x2xf32> {
  %w = "qcc.constant"() {value = dense<[[1, 2], [3, 4], [5, 6]]> : tensor<3x2xi8>} : () -> tensor<3x2x!quant.uniform<i8:f32:1, {0.5,0.25}>>
  %f = "qcc.dequantize"(%w) : (tensor<3x2x!quant.uniform<i8:f32:1, {0.5,0.25}>>) -> tensor<3x2xf32>
  %y = "qcc.matmul"(%x, %f) : (tensor<7x4x3xf32>, tensor<3x2xf32>) -> tensor<7x4x2xf32>
  return %y : tensor<7x4x2xf32>
}

// Leading axes of size 1 are dropped.
// CHECK-LABEL: @unit_batch
// CHECK: value = dense<{{\[\[}}1.000000e+00, 2.000000e+00]]> : tensor<1x2xf32>
// CHECK: qcc.linear
func.func @unit_batch(%x: tensor<3x4x2xf32>) -> tensor<3x4x1xf32> {
  %w = "qcc.constant"() {value = dense<[[[1.0], [2.0]]]> : tensor<1x2x1xf32>} : () -> tensor<1x2x1xf32>
  %y = "qcc.matmul"(%x, %w) : (tensor<3x4x2xf32>, tensor<1x2x1xf32>) -> tensor<3x4x1xf32>
  return %y : tensor<3x4x1xf32>
}

// Two computed operands, or one matrix per batch entry, stay a matmul.
// CHECK-LABEL: @computed
// CHECK-COUNT-2: qcc.matmul
// CHECK-NOT: qcc.linear
func.func @computed(%x: tensor<2x4x2xf32>, %z: tensor<2x2x1xf32>) -> (tensor<2x4x1xf32>, tensor<2x4x1xf32>) {
  %w = "qcc.constant"() {value = dense<1.0> : tensor<2x2x1xf32>} : () -> tensor<2x2x1xf32>
  %y = "qcc.matmul"(%x, %z) : (tensor<2x4x2xf32>, tensor<2x2x1xf32>) -> tensor<2x4x1xf32>
  %v = "qcc.matmul"(%x, %w) : (tensor<2x4x2xf32>, tensor<2x2x1xf32>) -> tensor<2x4x1xf32>
  return %y, %v : tensor<2x4x1xf32>, tensor<2x4x1xf32>
}

// Weights on the left: the other side and the result are transposed instead.
// CHECK-LABEL: @left
// CHECK: %[[T:.*]] = "qcc.transpose"(%arg0) {permutation = array<i64: 0, 2, 1>} : (tensor<5x3x2xf32>) -> tensor<5x2x3xf32>
// CHECK: %[[Y:.*]] = "qcc.linear"(%[[T]], %{{.*}}) : (tensor<5x2x3xf32>, tensor<4x3xf32>) -> tensor<5x2x4xf32>
// CHECK: "qcc.transpose"(%[[Y]]) {permutation = array<i64: 0, 2, 1>} : (tensor<5x2x4xf32>) -> tensor<5x4x2xf32>
func.func @left(%x: tensor<5x3x2xf32>) -> tensor<5x4x2xf32> {
  %w = "qcc.constant"() {value = dense<1.0> : tensor<1x4x3xf32>} : () -> tensor<1x4x3xf32>
  %y = "qcc.matmul"(%w, %x) : (tensor<1x4x3xf32>, tensor<5x3x2xf32>) -> tensor<5x4x2xf32>
  return %y : tensor<5x4x2xf32>
}
