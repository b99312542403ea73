// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-quantized-pooling)' | filecheck %s

!x = !quant.uniform<u8:f32, 5.000000e-01:3>
!y = !quant.uniform<u8:f32, 2.500000e-01>

// CHECK-LABEL: @avg_pool
// CHECK-NEXT: "qcc.avg_pool2d"(%arg0) {count_include_pad = false, kernel = array<i64: 2, 2>, multipliers = dense<2.000000e+00> : tensor<1xf32>, padding = array<i64: 1, 0, 0, 0>
// CHECK-NEXT: return
func.func @avg_pool(%x: tensor<1x1x3x4x!x>) -> tensor<1x1x2x2x!y> {
  %f = "qcc.dequantize"(%x) : (tensor<1x1x3x4x!x>) -> tensor<1x1x3x4xf32>
  %p = "qcc.avg_pool2d"(%f) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 1, 0, 0, 0>, count_include_pad = false} : (tensor<1x1x3x4xf32>) -> tensor<1x1x2x2xf32>
  %q = "qcc.quantize"(%p) : (tensor<1x1x2x2xf32>) -> tensor<1x1x2x2x!y>
  return %q : tensor<1x1x2x2x!y>
}

// The mean over both spatial axes is pooling with the full kernel.
// CHECK-LABEL: @spatial_mean
// CHECK-NEXT: %[[P:.*]] = "qcc.avg_pool2d"(%arg0) {count_include_pad = true, kernel = array<i64: 3, 4>{{.*}} -> tensor<1x2x1x1x!
// CHECK-NEXT: "qcc.reshape"(%[[P]]) {{.*}} -> tensor<1x2x!
func.func @spatial_mean(%x: tensor<1x2x3x4x!x>) -> tensor<1x2x!y> {
  %f = "qcc.dequantize"(%x) : (tensor<1x2x3x4x!x>) -> tensor<1x2x3x4xf32>
  %p = "qcc.reduce"(%f) {kind = "mean", axes = array<i64: 2, 3>, keepdims = false} : (tensor<1x2x3x4xf32>) -> tensor<1x2xf32>
  %q = "qcc.quantize"(%p) : (tensor<1x2xf32>) -> tensor<1x2x!y>
  return %q : tensor<1x2x!y>
}

// A sum over tokens: 5 times the mean, as a column kernel over [1, 1, tokens, width].
// CHECK-LABEL: @token_sum
// CHECK-NEXT: %[[R:.*]] = "qcc.reshape"(%arg0) {{.*}} -> tensor<2x1x5x8x!
// CHECK-NEXT: %[[P:.*]] = "qcc.avg_pool2d"(%[[R]]) {count_include_pad = true, kernel = array<i64: 5, 1>, multipliers = dense<1.000000e+01>
// CHECK-NEXT: "qcc.reshape"(%[[P]]) {{.*}} -> tensor<2x1x8x!
func.func @token_sum(%x: tensor<2x5x8x!x>) -> tensor<2x1x8x!y> {
  %f = "qcc.dequantize"(%x) : (tensor<2x5x8x!x>) -> tensor<2x5x8xf32>
  %p = "qcc.reduce"(%f) {kind = "sum", axes = array<i64: 1>, keepdims = true} : (tensor<2x5x8xf32>) -> tensor<2x1x8xf32>
  %q = "qcc.quantize"(%p) : (tensor<2x1x8xf32>) -> tensor<2x1x8x!y>
  return %q : tensor<2x1x8x!y>
}

// The maximum needs no scale of its own; another scale is a requantize behind it.
// CHECK-LABEL: @spatial_max
// CHECK-NEXT: %[[P:.*]] = "qcc.max_pool2d"(%arg0)
// CHECK-NEXT: "qcc.requantize"(%[[P]]) {mode = "f32", multiplier = dense<2.000000e+00> : tensor<1xf32>}
func.func @spatial_max(%x: tensor<1x2x3x4x!x>) -> tensor<1x2x1x1x!y> {
  %f = "qcc.dequantize"(%x) : (tensor<1x2x3x4x!x>) -> tensor<1x2x3x4xf32>
  %p = "qcc.reduce"(%f) {kind = "max", axes = array<i64: 2, 3>, keepdims = true} : (tensor<1x2x3x4xf32>) -> tensor<1x2x1x1xf32>
  %q = "qcc.quantize"(%p) : (tensor<1x2x1x1xf32>) -> tensor<1x2x1x1x!y>
  return %q : tensor<1x2x1x1x!y>
}

// Axes that are not neighbours, and a float input, stay.
// CHECK-LABEL: @unfit
// CHECK-COUNT-2: qcc.reduce
func.func @unfit(%x: tensor<2x5x8x!x>, %g: tensor<2x5x8xf32>) -> (tensor<5x!y>, tensor<5x!y>) {
  %f = "qcc.dequantize"(%x) : (tensor<2x5x8x!x>) -> tensor<2x5x8xf32>
  %p = "qcc.reduce"(%f) {kind = "mean", axes = array<i64: 0, 2>, keepdims = false} : (tensor<2x5x8xf32>) -> tensor<5xf32>
  %r = "qcc.reduce"(%g) {kind = "mean", axes = array<i64: 0, 2>, keepdims = false} : (tensor<2x5x8xf32>) -> tensor<5xf32>
  %q = "qcc.quantize"(%p) : (tensor<5xf32>) -> tensor<5x!y>
  %s = "qcc.quantize"(%r) : (tensor<5xf32>) -> tensor<5x!y>
  return %q, %s : tensor<5x!y>, tensor<5x!y>
}

// The sum of 32769 values of 16 bits takes more than 32.
// CHECK-LABEL: func.func @wide_sum(
// CHECK: "qcc.reduce"
func.func @wide_sum(%x: tensor<32769x!quant.uniform<u16:f32, 0.5>>) -> tensor<1x!quant.uniform<u16:f32, 0.5>> {
  %f = "qcc.dequantize"(%x) : (tensor<32769x!quant.uniform<u16:f32, 0.5>>) -> tensor<32769xf32>
  %m = "qcc.reduce"(%f) {kind = "mean", axes = array<i64: 0>, keepdims = true} : (tensor<32769xf32>) -> tensor<1xf32>
  %q = "qcc.quantize"(%m) : (tensor<1xf32>) -> tensor<1x!quant.uniform<u16:f32, 0.5>>
  return %q : tensor<1x!quant.uniform<u16:f32, 0.5>>
}
