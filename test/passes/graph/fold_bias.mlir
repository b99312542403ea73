// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-bias)' | filecheck %s

// A constant of one entry per output becomes the bias.
// CHECK-LABEL: @linear
// CHECK: %[[B:.*]] = "qcc.constant"() {value = dense<[1.000000e+00, 2.000000e+00]>
// CHECK-NEXT: %[[Y:.*]] = "qcc.linear"(%arg0, %arg1, %[[B]])
// CHECK-NEXT: return %[[Y]]
func.func @linear(%x: tensor<4x3xf32>, %w: tensor<2x3xf32>) -> tensor<4x2xf32> {
  %b = "qcc.constant"() {value = dense<[1.0, 2.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<4x3xf32>, tensor<2x3xf32>) -> tensor<4x2xf32>
  %z = "qcc.add"(%b, %y) : (tensor<2xf32>, tensor<4x2xf32>) -> tensor<4x2xf32>
  return %z : tensor<4x2xf32>
}

// A convolution's bias lies along axis 1, and is subtracted from the bias that is there.
// CHECK-LABEL: @conv_with_bias
// CHECK: value = dense<[2.000000e+00, 1.000000e+00]>
// CHECK: qcc.conv2d
// CHECK-NEXT: return
func.func @conv_with_bias(%x: tensor<1x1x2x2xf32>, %w: tensor<2x1x1x1xf32>) -> tensor<1x2x2x2xf32> {
  %a = "qcc.constant"() {value = dense<3.0> : tensor<2xf32>} : () -> tensor<2xf32>
  %b = "qcc.constant"() {value = dense<[[[1.0]], [[2.0]]]> : tensor<2x1x1xf32>} : () -> tensor<2x1x1xf32>
  %y = "qcc.conv2d"(%x, %w, %a) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>, tensor<2xf32>) -> tensor<1x2x2x2xf32>
  %z = "qcc.sub"(%y, %b) : (tensor<1x2x2x2xf32>, tensor<2x1x1xf32>) -> tensor<1x2x2x2xf32>
  return %z : tensor<1x2x2x2xf32>
}

// A constant that varies over rows, or a layer used elsewhere, is not folded.
// CHECK-LABEL: @unfit
// CHECK-COUNT-2: qcc.add
func.func @unfit(%x: tensor<2x3xf32>, %w: tensor<2x3xf32>) -> (tensor<2x2xf32>, tensor<2x2xf32>, tensor<2x2xf32>) {
  %r = "qcc.constant"() {value = dense<[[1.0], [2.0]]> : tensor<2x1xf32>} : () -> tensor<2x1xf32>
  %b = "qcc.constant"() {value = dense<[1.0, 2.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x2xf32>
  %z = "qcc.add"(%y, %r) : (tensor<2x2xf32>, tensor<2x1xf32>) -> tensor<2x2xf32>
  %u = "qcc.linear"(%x, %w) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x2xf32>
  %v = "qcc.add"(%u, %b) : (tensor<2x2xf32>, tensor<2xf32>) -> tensor<2x2xf32>
  return %z, %u, %v : tensor<2x2xf32>, tensor<2x2xf32>, tensor<2x2xf32>
}
