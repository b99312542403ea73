// RUN: qcc-opt %s --pass-pipeline='builtin.module(assign-layout)' | filecheck %s

// The producer of what a padded convolution reads gets a border; neighbours follow the convolution's layout.
// CHECK-LABEL: @conv
// CHECK: "qcc.quantize"{{.*}}qtile.halo = array<i64: 1, 1, 1, 1>, qtile.layout = "channels_last"
// CHECK: "qcc.conv2d"{{.*}}qtile.layout = "channels_last"
// CHECK: "qcc.requantize"
// CHECK-NOT: qtile.halo
// CHECK-SAME: qtile.layout = "channels_last"
func.func @conv(%x: tensor<1x4x8x8xf32>, %w: tensor<8x4x3x3x!quant.uniform<i8:f32, 0.1>>) -> tensor<1x8x8x8x!quant.uniform<u8:f32, 0.2>> {
  %q = "qcc.quantize"(%x) : (tensor<1x4x8x8xf32>) -> tensor<1x4x8x8x!quant.uniform<u8:f32, 0.5>>
  %a = "qcc.conv2d"(%q, %w) {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1}
     : (tensor<1x4x8x8x!quant.uniform<u8:f32, 0.5>>, tensor<8x4x3x3x!quant.uniform<i8:f32, 0.1>>) -> tensor<1x8x8x8xi32>
  %r = "qcc.requantize"(%a) {multiplier = dense<0.1> : tensor<1xf32>, mode = "f32"}
     : (tensor<1x8x8x8xi32>) -> tensor<1x8x8x8x!quant.uniform<u8:f32, 0.2>>
  return %r : tensor<1x8x8x8x!quant.uniform<u8:f32, 0.2>>
}

// A stride that never reaches the last padded column needs no border there.
// CHECK-LABEL: @stride
// CHECK: "qcc.quantize"{{.*}}qtile.halo = array<i64: 1, 1, 0, 0>
func.func @stride(%x: tensor<1x4x8x8xf32>, %w: tensor<8x4x3x3x!quant.uniform<i8:f32, 0.1>>) -> tensor<1x8x4x4xi32> {
  %q = "qcc.quantize"(%x) : (tensor<1x4x8x8xf32>) -> tensor<1x4x8x8x!quant.uniform<u8:f32, 0.5>>
  %a = "qcc.conv2d"(%q, %w) {strides = array<i64: 2, 2>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1}
     : (tensor<1x4x8x8x!quant.uniform<u8:f32, 0.5>>, tensor<8x4x3x3x!quant.uniform<i8:f32, 0.1>>) -> tensor<1x8x4x4xi32>
  return %a : tensor<1x8x4x4xi32>
}

// Without images nothing changes.
// CHECK-LABEL: @rows
// CHECK-NOT: qtile
func.func @rows(%x: tensor<2x8xf32>) -> tensor<2x8x!quant.uniform<u8:f32, 0.5>> {
  %q = "qcc.quantize"(%x) : (tensor<2x8xf32>) -> tensor<2x8x!quant.uniform<u8:f32, 0.5>>
  return %q : tensor<2x8x!quant.uniform<u8:f32, 0.5>>
}
