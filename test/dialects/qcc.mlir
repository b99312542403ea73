// RUN: qcc-opt %s -p canonicalize | filecheck %s

// A quantized convolution with its requantize survives printing and parsing; unused operations go.
// CHECK-LABEL: func.func @conv
// CHECK: "qcc.conv2d"
// CHECK-NOT: "qcc.unary"
// CHECK: "qcc.requantize"(%{{.*}}) {axis = 1 : i64, mode = "f32"
func.func @conv(%x: tensor<1x4x8x8x!quant.uniform<u8:f32, 0.1>>, %f: tensor<4xf32>) -> tensor<1x2x8x8x!quant.uniform<u8:f32, 0.1>> {
  %w = "qcc.constant"() {value = dense<1> : tensor<2x4x3x3xi8>} : () -> tensor<2x4x3x3x!quant.uniform<i4:f32:0, {0.5,0.25}>>
  %0 = "qcc.conv2d"(%x, %w) {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x4x8x8x!quant.uniform<u8:f32, 0.1>>, tensor<2x4x3x3x!quant.uniform<i4:f32:0, {0.5,0.25}>>) -> tensor<1x2x8x8xi32>
  %unused = "qcc.unary"(%f) {kind = "gelu"} : (tensor<4xf32>) -> tensor<4xf32>
  %1 = "qcc.requantize"(%0) {multiplier = dense<[0.1, 0.2]> : tensor<2xf32>, axis = 1 : i64, mode = "f32"} : (tensor<1x2x8x8xi32>) -> tensor<1x2x8x8x!quant.uniform<u8:f32, 0.1>>
  return %1 : tensor<1x2x8x8x!quant.uniform<u8:f32, 0.1>>
}
