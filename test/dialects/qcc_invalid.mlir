// RUN: qcc-opt %s --split-input-file --verify-diagnostics

// A window list of the wrong length is named, with what was expected.
func.func @strides(%x: tensor<1x4x8x8xf32>, %w: tensor<2x4x3x3xf32>) {
  // expected-error@+1 {{attribute 'strides' is array<i64: 1>, expected 2 integers, each at least 1}}
  %0 = "qcc.conv2d"(%x, %w) {strides = array<i64: 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x4x8x8xf32>, tensor<2x4x3x3xf32>) -> tensor<1x2x8x8xf32>
  return
}

// -----

// Channels and groups must agree.
func.func @groups(%x: tensor<1x4x8x8xf32>, %w: tensor<2x4x3x3xf32>) {
  // expected-error@+1 {{x has 4 channels and w 4 per group with 2 outputs in 2 groups}}
  %0 = "qcc.conv2d"(%x, %w) {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 2 : i64} : (tensor<1x4x8x8xf32>, tensor<2x4x3x3xf32>) -> tensor<1x2x8x8xf32>
  return
}

// -----

// Quantized operands give an integer accumulator, never a float.
func.func @accumulator(%x: tensor<1x4x!quant.uniform<u8:f32, 0.1>>, %w: tensor<2x4x!quant.uniform<i8:f32, 0.1>>) {
  // expected-error@+1 {{result is f32, expected an integer accumulator such as i32 because both operands are quantized}}
  %0 = "qcc.linear"(%x, %w) : (tensor<1x4x!quant.uniform<u8:f32, 0.1>>, tensor<2x4x!quant.uniform<i8:f32, 0.1>>) -> tensor<1x2xf32>
  return
}

// -----

// Rows that are rounded by their own range may be all zero, so the least scale is stated.
func.func @rows(%x: tensor<2x4xf32>) {
  // expected-error@+1 {{'rows' with x tensor<2x4xf32> and epsilon None, expected x of one axis or more and an epsilon above 0}}
  %0 = "qcc.round_dynamic"(%x) {rows = "symmetric"} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  return
}

// -----

// A selection takes booleans, not numbers that happen to be 0 and 1.
func.func @select(%m: tensor<4xi32>, %x: tensor<4xf32>) {
  // expected-error@+1 {{'condition' has elements i32, expected i1}}
  %0 = "qcc.select"(%m, %x, %x) : (tensor<4xi32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

// Integers and floats are compared only once one has become the other.
func.func @compare(%i: tensor<4xi64>, %x: tensor<4xf32>) {
  // expected-error@+1 {{elements are i64 before and f32 after, expected the same}}
  %0 = "qcc.compare"(%i, %x) {kind = "lt"} : (tensor<4xi64>, tensor<4xf32>) -> tensor<4xi1>
  return
}
