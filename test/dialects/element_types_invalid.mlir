// RUN: qcc-opt %s --split-input-file --verify-diagnostics

// A scale must be positive and finite.
func.func @scale() {
  // expected-error@+1 {{scale 0.0 found, expected positive finite numbers}}
  %0 = "qcc.constant"() {value = dense<[1, -1]> : tensor<2xi8>} : () -> tensor<2x!qcc.binary<dense<0.0> : tensor<1xf32>>>
  return
}

// -----

// Scales fit the tensor's shape.
func.func @scales() {
  // expected-error@+1 {{scales have shape [3, 1], expected one entry, or one size per axis that divides [2, 2]}}
  %0 = "qcc.constant"() {value = dense<1> : tensor<2x2xi8>} : () -> tensor<2x2x!qcc.binary<dense<1.0> : tensor<3x1xf32>>>
  return
}

// -----

// A parameter of another kind is answered with the form.
func.func @kind() {
  // expected-error@+1 {{expected !qcc.log2<bits, signed, least, scales>}}
  %0 = "qcc.constant"() {value = dense<1> : tensor<2xi8>} : () -> tensor<2x!qcc.log2<"four", true, -6, dense<1.0> : tensor<1xf32>>>
  return
}

// -----

// A binary tensor has no zero.
func.func @binary() {
  // expected-error@+1 {{'value' holds 0, expected only -1 and 1}}
  %0 = "qcc.constant"() {value = dense<[1, 0]> : tensor<2xi8>} : () -> tensor<2x!qcc.binary<dense<1.0> : tensor<1xf32>>>
  return
}

// -----

// An index must have its level.
func.func @codebook() {
  // expected-error@+1 {{'value' holds 0..3, expected 0..2}}
  %0 = "qcc.constant"() {value = dense<[0, 3]> : tensor<2xui8>} : () -> tensor<2x!qcc.codebook<dense<[0.0, 1.0, 2.0]> : tensor<3xf32>, dense<1.0> : tensor<1xf32>>>
  return
}

// -----

// Blocks of a microscaling type divide the tensor.
func.func @block() {
  // expected-error@+1 {{blockscaled has blocks of [1, 3], expected one size per axis that divides [2, 4]}}
  %0 = "qcc.constant"() {value = dense<1.5> : tensor<2x4xf4E2M1FN>} : () -> tensor<2x4x!qcc.blockscaled<f4E2M1FN, array<i64: 1, 3>, dense<1.0> : tensor<2x1xf8E8M0FNU>>>
  return
}

// -----

func.func @encoding_kind() {
  // expected-error@+1 {{sparse kind is 'blocks', expected one of: dense, channel, block, n:m}}
  %0 = "qcc.constant"() {value = dense<0.0> : tensor<4x4xf32>} : () -> tensor<4x4xf32, #qcc.sparse<"blocks", {}, "raw">>
  return
}

// -----

func.func @encoding_parameter() {
  // expected-error@+1 {{sparse kind 'n:m' has n = 4, expected 1 to 3}}
  %0 = "qcc.constant"() {value = dense<0.0> : tensor<4x4xf32>} : () -> tensor<4x4xf32, #qcc.sparse<"n:m", {n = 4 : i64, m = 4 : i64, axis = 1 : i64}, "raw">>
  return
}

// -----

func.func @codec() {
  // expected-error@+1 {{codec is 'zip', expected one of: raw, huffman, rans}}
  %0 = "qcc.constant"() {value = dense<0.0> : tensor<4x4xf32>} : () -> tensor<4x4xf32, #qcc.sparse<"bitmap", {}, "zip">>
  return
}

// -----

// Types whose values are no integers times a scale cannot be accumulated in integers.
func.func @accumulate(%x: tensor<1x4x!quant.uniform<u8:f32, 0.1>>, %w: tensor<2x4x!qcc.scaled<f8E4M3FN, dense<1.0> : tensor<1xf32>>>) {
  // expected-error@+1 {{has no integers to accumulate; insert qcc.dequantize}}
  %0 = "qcc.linear"(%x, %w) : (tensor<1x4x!quant.uniform<u8:f32, 0.1>>, tensor<2x4x!qcc.scaled<f8E4M3FN, dense<1.0> : tensor<1xf32>>>) -> tensor<1x2xi32>
  return
}

// -----

// Group scales differ inside of the sum.
func.func @groups(%x: tensor<1x4x!quant.uniform<u8:f32, 0.1>>, %w: tensor<2x4x!quant.uniform<i4:f32:{1:2}, {0.5, 0.25}>>) {
  // expected-error@+1 {{scales differ along a summed axis (sub-channel type)}}
  %0 = "qcc.linear"(%x, %w) : (tensor<1x4x!quant.uniform<u8:f32, 0.1>>, tensor<2x4x!quant.uniform<i4:f32:{1:2}, {0.5, 0.25}>>) -> tensor<1x2xi32>
  return
}
