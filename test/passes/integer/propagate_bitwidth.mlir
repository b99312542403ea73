// RUN: qcc-opt %s --pass-pipeline='builtin.module(propagate-bitwidth)' --split-input-file --verify-diagnostics | filecheck %s

!u4 = !quant.uniform<u4:f32, 1.000000e+00>
!u8 = !quant.uniform<u8:f32, 1.000000e+00:3>
!w = !quant.uniform<i8:f32, 1.000000e+00>

// 0..15 times 1 and -2: from -30 to 15.
// CHECK-LABEL: @signs
// CHECK: "qcc.linear"{{.*}} -> tensor<1x1xi6>
func.func @signs(%x: tensor<1x2x!u4>) -> tensor<1x1x!u8> {
  %w = "qcc.constant"() {value = dense<[[1, -2]]> : tensor<1x2xi8>} : () -> tensor<1x2x!w>
  %a = "qcc.linear"(%x, %w) : (tensor<1x2x!u4>, tensor<1x2x!w>) -> tensor<1x1xi32>
  %q = "qcc.requantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>, mode = "f32"} : (tensor<1x1xi32>) -> tensor<1x1x!u8>
  return %q : tensor<1x1x!u8>
}

// -3..252 times 2 plus 10, and times -1 minus 20: 4..514 and -272..-17.
// CHECK-LABEL: @channels_and_bias
// CHECK: "qcc.linear"{{.*}} -> tensor<1x2xi11>
func.func @channels_and_bias(%x: tensor<1x1x!u8>) -> tensor<1x2xf32> {
  %w = "qcc.constant"() {value = dense<[[2], [-1]]> : tensor<2x1xi8>} : () -> tensor<2x1x!w>
  %b = "qcc.constant"() {value = dense<[10, -20]> : tensor<2xi32>} : () -> tensor<2xi32>
  %a = "qcc.linear"(%x, %w, %b) : (tensor<1x1x!u8>, tensor<2x1x!w>, tensor<2xi32>) -> tensor<1x2xi32>
  %f = "qcc.dequantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>} : (tensor<1x2xi32>) -> tensor<1x2xf32>
  return %f : tensor<1x2xf32>
}

// Weights with a zero point: (5 - 4) * 15 at most.
// CHECK-LABEL: @weight_zero_point
// CHECK: "qcc.linear"{{.*}} -> tensor<1x1xi5>
func.func @weight_zero_point(%x: tensor<1x1x!u4>) -> tensor<1x1xf32> {
  %w = "qcc.constant"() {value = dense<5> : tensor<1x1xi8>} : () -> tensor<1x1x!quant.uniform<i8:f32, 1.000000e+00:4>>
  %a = "qcc.linear"(%x, %w) : (tensor<1x1x!u4>, tensor<1x1x!quant.uniform<i8:f32, 1.000000e+00:4>>) -> tensor<1x1xi32>
  %f = "qcc.dequantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>} : (tensor<1x1xi32>) -> tensor<1x1xf32>
  return %f : tensor<1x1xf32>
}

// Inputs 10..20 with bias -17 give -7..3; padding adds the sum 0, hence -17.
// CHECK-LABEL: @padding
// CHECK: "qcc.conv2d"{{.*}} -> tensor<1x1x1x1xi4>
// CHECK: "qcc.conv2d"{{.*}} -> tensor<1x1x3x3xi6>
func.func @padding(%x: tensor<1x1x1x1x!quant.uniform<u8<10:20>:f32, 1.000000e+00>>) -> (tensor<1x1x1x1xf32>, tensor<1x1x3x3xf32>) {
  %w = "qcc.constant"() {value = dense<1> : tensor<1x1x1x1xi8>} : () -> tensor<1x1x1x1x!w>
  %b = "qcc.constant"() {value = dense<-17> : tensor<1xi32>} : () -> tensor<1xi32>
  %a = "qcc.conv2d"(%x, %w, %b) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x1x1x!quant.uniform<u8<10:20>:f32, 1.000000e+00>>, tensor<1x1x1x1x!w>, tensor<1xi32>) -> tensor<1x1x1x1xi32>
  %c = "qcc.conv2d"(%x, %w, %b) {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x1x1x!quant.uniform<u8<10:20>:f32, 1.000000e+00>>, tensor<1x1x1x1x!w>, tensor<1xi32>) -> tensor<1x1x3x3xi32>
  %f = "qcc.dequantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>} : (tensor<1x1x1x1xi32>) -> tensor<1x1x1x1xf32>
  %g = "qcc.dequantize"(%c) {multiplier = dense<1.0> : tensor<1xf32>} : (tensor<1x1x3x3xi32>) -> tensor<1x1x3x3xf32>
  return %f, %g : tensor<1x1x1x1xf32>, tensor<1x1x3x3xf32>
}

// A rescaled and clamped activation (0..5) narrows the next layer; an accumulator keeps its width through a reshape.
// CHECK-LABEL: @chain
// CHECK: %[[A:.*]] = "qcc.linear"{{.*}} -> tensor<1x1xi6>
// CHECK: "qcc.reshape"(%[[A]]) : (tensor<1x1xi6>) -> tensor<1xi6>
func.func @chain(%x: tensor<1x2x!u4>) -> tensor<1xf32> {
  %w = "qcc.constant"() {value = dense<[[-2, -2]]> : tensor<1x2xi8>} : () -> tensor<1x2x!w>
  %y = "qcc.requantize"(%x) {multiplier = dense<0.5> : tensor<1xf32>, mode = "f32", clamp = array<i64: 0, 5>} : (tensor<1x2x!u4>) -> tensor<1x2x!u4>
  %a = "qcc.linear"(%y, %w) : (tensor<1x2x!u4>, tensor<1x2x!w>) -> tensor<1x1xi32>
  %r = "qcc.reshape"(%a) : (tensor<1x1xi32>) -> tensor<1xi32>
  %f = "qcc.dequantize"(%r) {multiplier = dense<1.0> : tensor<1xf32>} : (tensor<1xi32>) -> tensor<1xf32>
  return %f : tensor<1xf32>
}

// The second rescaling is 0 up to 4 and 4 from 10 on (7 / 2 is 3.5, to even 4): the first need not tell more apart.
// CHECK-LABEL: @demand
// CHECK: "qcc.requantize"(%arg0) {clamp = array<i64: 4, 10>
func.func @demand(%x: tensor<1x!u8>) -> tensor<1x!u4> {
  %a = "qcc.requantize"(%x) {multiplier = dense<1.0> : tensor<1xf32>, mode = "f32"} : (tensor<1x!u8>) -> tensor<1x!u8>
  %b = "qcc.requantize"(%a) {multiplier = dense<0.5> : tensor<1xf32>, mode = "f32", clamp = array<i64: 0, 4>} : (tensor<1x!u8>) -> tensor<1x!u4>
  return %b : tensor<1x!u4>
}

// A table that is constant outside 1..3 makes its producer saturate there; two users demand the union.
// CHECK-LABEL: @demand_of_tables
// CHECK: "qcc.requantize"(%arg0) {clamp = array<i64: 1, 3>
func.func @demand_of_tables(%x: tensor<1x!u4>) -> (tensor<1x!u4>, tensor<1x!u4>) {
  %a = "qcc.requantize"(%x) {multiplier = dense<1.0> : tensor<1xf32>, mode = "f32"} : (tensor<1x!u4>) -> tensor<1x!quant.uniform<u2:f32, 1.000000e+00>>
  %b = "qcc.lut"(%a) {table = dense<[7, 7, 9, 9]> : tensor<4xui8>} : (tensor<1x!quant.uniform<u2:f32, 1.000000e+00>>) -> tensor<1x!u4>
  %c = "qcc.lut"(%a) {table = dense<[7, 7, 9, 8]> : tensor<4xui8>} : (tensor<1x!quant.uniform<u2:f32, 1.000000e+00>>) -> tensor<1x!u4>
  return %b, %c : tensor<1x!u4>, tensor<1x!u4>
}

// Sums of 0..15 halved reach 0..8: the clamp says that 4 bits of the 8 are enough.
// CHECK-LABEL: @reached
// CHECK: "qcc.requantize"{{.*}}clamp = array<i64: 0, 8>
func.func @reached(%x: tensor<1x1x!u4>) -> tensor<1x1x!quant.uniform<u8:f32, 1.000000e+00>> {
  %w = "qcc.constant"() {value = dense<1> : tensor<1x1xi8>} : () -> tensor<1x1x!w>
  %a = "qcc.linear"(%x, %w) : (tensor<1x1x!u4>, tensor<1x1x!w>) -> tensor<1x1xi32>
  %q = "qcc.requantize"(%a) {multiplier = dense<0.5> : tensor<1xf32>, mode = "f32"} : (tensor<1x1xi32>) -> tensor<1x1x!quant.uniform<u8:f32, 1.000000e+00>>
  return %q : tensor<1x1x!quant.uniform<u8:f32, 1.000000e+00>>
}

// Two computed operands: 3 terms, each from -3 * 15 to 252 * 15.
// CHECK-LABEL: @matmul
// CHECK: -> tensor<1x1xi15>
func.func @matmul(%x: tensor<1x3x!u8>, %y: tensor<3x1x!u4>) -> tensor<1x1xf32> {
  %a = "qcc.matmul"(%x, %y) : (tensor<1x3x!u8>, tensor<3x1x!u4>) -> tensor<1x1xi32>
  %f = "qcc.dequantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>} : (tensor<1x1xi32>) -> tensor<1x1xf32>
  return %f : tensor<1x1xf32>
}

// -----

// 65 bits do not fit any accumulator.
func.func @too_wide(%x: tensor<1x1x!quant.uniform<u32:f32, 1.000000e+00>>) -> tensor<1x1xf32> {
  %w = "qcc.constant"() {value = dense<4294967295> : tensor<1x1xui32>} : () -> tensor<1x1x!quant.uniform<u32:f32, 1.000000e+00>>
  // expected-error@+1 {{its accumulator needs 65 bits, expected at most 64; quantize its operands to fewer bits}}
  %a = "qcc.linear"(%x, %w) : (tensor<1x1x!quant.uniform<u32:f32, 1.000000e+00>>, tensor<1x1x!quant.uniform<u32:f32, 1.000000e+00>>) -> tensor<1x1xi64>
  %f = "qcc.dequantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>} : (tensor<1x1xi64>) -> tensor<1x1xf32>
  return %f : tensor<1x1xf32>
}
