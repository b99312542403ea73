// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-dynamic-qdq)' | filecheck %s

!w = !quant.uniform<i8:f32, 2.500000e-01>

// CHECK-LABEL: @linear
// CHECK-NEXT: %[[W:.*]] = "qcc.constant"
// CHECK-NEXT: "qcc.dynamic_linear"(%arg0, %[[W]]) : (tensor<4x2xf32>, {{.*}}) -> tensor<4x3xf32>
// CHECK-NEXT: return
func.func @linear(%x: tensor<4x2xf32>) -> tensor<4x3xf32> {
  %w = "qcc.constant"() {value = dense<[[1, 2], [3, 4], [5, 6]]> : tensor<3x2xi8>} : () -> tensor<3x2x!w>
  %f = "qcc.dequantize"(%w) : (tensor<3x2x!w>) -> tensor<3x2xf32>
  %r = "qcc.round_dynamic"(%x) : (tensor<4x2xf32>) -> tensor<4x2xf32>
  %y = "qcc.linear"(%r, %f) : (tensor<4x2xf32>, tensor<3x2xf32>) -> tensor<4x3xf32>
  return %y : tensor<4x3xf32>
}

// Weights that are computed stay with the float layer.
// CHECK-LABEL: @computed
// CHECK: "qcc.linear"
func.func @computed(%x: tensor<4x2xf32>, %w: tensor<3x2x!w>) -> tensor<4x3xf32> {
  %f = "qcc.dequantize"(%w) : (tensor<3x2x!w>) -> tensor<3x2xf32>
  %r = "qcc.round_dynamic"(%x) : (tensor<4x2xf32>) -> tensor<4x2xf32>
  %y = "qcc.linear"(%r, %f) : (tensor<4x2xf32>, tensor<3x2xf32>) -> tensor<4x3xf32>
  return %y : tensor<4x3xf32>
}

// A range for each row stays one.
// CHECK-LABEL: @rows
// CHECK: "qcc.dynamic_linear"(%arg0, %{{.*}}) {epsilon = 9.9999999999999995E-8 : f64, rows = "symmetric"}
func.func @rows(%x: tensor<4x2xf32>) -> tensor<4x3xf32> {
  %w = "qcc.constant"() {value = dense<[[1, 2], [3, 4], [5, 6]]> : tensor<3x2xi8>} : () -> tensor<3x2x!w>
  %f = "qcc.dequantize"(%w) : (tensor<3x2x!w>) -> tensor<3x2xf32>
  %r = "qcc.round_dynamic"(%x) {rows = "symmetric", epsilon = 1.0e-7 : f64} : (tensor<4x2xf32>) -> tensor<4x2xf32>
  %y = "qcc.linear"(%r, %f) : (tensor<4x2xf32>, tensor<3x2xf32>) -> tensor<4x3xf32>
  return %y : tensor<4x3xf32>
}
