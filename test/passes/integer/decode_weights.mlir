// RUN: qcc-opt %s -p decode-weights | filecheck %s

!w = !quant.uniform<i4:f32:0, {5.000000e-01, 2.000000e+00}>

// A float convolution reads each weight many times.
// CHECK-LABEL: @convolution
// CHECK: dense<{{\[}}{{\[}}{{\[}}[5.000000e-01]]], {{\[}}{{\[}}[-6.000000e+00]]]]> : tensor<2x1x1x1xf32>
// CHECK-NOT: qcc.dequantize
func.func @convolution(%x: tensor<1x1x2x2xf32>) -> tensor<1x2x2x2xf32> {
  %c = "qcc.constant"() {value = dense<[[[[1]]], [[[-3]]]]> : tensor<2x1x1x1xi8>} : () -> tensor<2x1x1x1x!w>
  %w = "qcc.dequantize"(%c) : (tensor<2x1x1x1x!w>) -> tensor<2x1x1x1xf32>
  %y = "qcc.conv2d"(%x, %w) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>) -> tensor<1x2x2x2xf32>
  return %y : tensor<1x2x2x2xf32>
}

// The weights of a linear layer stay compressed.
// CHECK-LABEL: @linear
// CHECK: qcc.dequantize
func.func @linear(%x: tensor<1x1xf32>) -> tensor<1x2xf32> {
  %c = "qcc.constant"() {value = dense<[[1], [-3]]> : tensor<2x1xi8>} : () -> tensor<2x1x!w>
  %w = "qcc.dequantize"(%c) : (tensor<2x1x!w>) -> tensor<2x1xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<1x1xf32>, tensor<2x1xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}
