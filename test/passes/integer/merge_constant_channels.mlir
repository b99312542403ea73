// RUN: qcc-opt %s -p merge-constant-channels,remove-zero-channels | filecheck %s

!x = !quant.uniform<u8:f32, 5.000000e-01>
!w = !quant.uniform<i8:f32, 1.000000e+00>

// Four of five channels are the constants 3, 5, 7 and 9: one constant 1 with the weights 3 + 2 * 5 - 7 + 9 = 15 does the same.
// CHECK-LABEL: @constants
// CHECK: dense<[0, 1]> : tensor<2xi32>
// CHECK: tensor<1x2x2x2xi32>
// CHECK: dense<{{\[}}{{\[}}{{\[}}[4]], {{\[}}[15]]]]> : tensor<1x2x1x1xi8>
// CHECK: "qcc.conv2d"({{.*}} (tensor<1x2x2x2x!quant
func.func @constants(%x: tensor<1x1x2x2x!x>) -> tensor<1x1x4x4xi32> {
  %u = "qcc.constant"() {value = dense<[[[[1]]], [[[0]]], [[[0]]], [[[0]]], [[[0]]]]> : tensor<5x1x1x1xi8>} : () -> tensor<5x1x1x1x!w>
  %c = "qcc.constant"() {value = dense<[0, 3, 5, 7, 9]> : tensor<5xi32>} : () -> tensor<5xi32>
  %a = "qcc.conv2d"(%x, %u, %c) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x2x2x!x>, tensor<5x1x1x1x!w>, tensor<5xi32>) -> tensor<1x5x2x2xi32>
  %q = "qcc.requantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>, mode = "f32"} : (tensor<1x5x2x2xi32>) -> tensor<1x5x2x2x!x>
  %v = "qcc.constant"() {value = dense<[[[[4]], [[1]], [[2]], [[-1]], [[1]]]]> : tensor<1x5x1x1xi8>} : () -> tensor<1x5x1x1x!w>
  %b = "qcc.conv2d"(%q, %v) {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x5x2x2x!x>, tensor<1x5x1x1x!w>) -> tensor<1x1x4x4xi32>
  return %b : tensor<1x1x4x4xi32>
}

// One constant channel stays as it is.
// CHECK-LABEL: @single
// CHECK: dense<[0, 3]>
func.func @single(%x: tensor<1x1x2x2x!x>) -> tensor<1x1x4x4xi32> {
  %u = "qcc.constant"() {value = dense<[[[[1]]], [[[0]]]]> : tensor<2x1x1x1xi8>} : () -> tensor<2x1x1x1x!w>
  %c = "qcc.constant"() {value = dense<[0, 3]> : tensor<2xi32>} : () -> tensor<2xi32>
  %a = "qcc.conv2d"(%x, %u, %c) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x2x2x!x>, tensor<2x1x1x1x!w>, tensor<2xi32>) -> tensor<1x2x2x2xi32>
  %q = "qcc.requantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>, mode = "f32"} : (tensor<1x2x2x2xi32>) -> tensor<1x2x2x2x!x>
  %v = "qcc.constant"() {value = dense<[[[[4]], [[1]]]]> : tensor<1x2x1x1xi8>} : () -> tensor<1x2x1x1x!w>
  %b = "qcc.conv2d"(%q, %v) {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x2x2x2x!x>, tensor<1x2x1x1x!w>) -> tensor<1x1x4x4xi32>
  return %b : tensor<1x1x4x4xi32>
}
