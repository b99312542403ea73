// RUN: qcc-opt %s --split-input-file --verify-diagnostics

// An empty range clamps nothing.
func.func @clamp(%x: tensor<4xf32>) {
  // expected-error@+1 {{min is 6.0 and max 0.0, expected min <= max}}
  %0 = "qcc.clamp"(%x) {min = 6.0 : f32, max = 0.0 : f32} : (tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

// Functions of reals need reals.
func.func @unary(%x: tensor<4x!quant.uniform<i8:f32, 0.5>>) {
  // expected-error@+1 {{'x' has elements !quant.uniform<i8:f32, 5.000000e-01>, expected float; insert qcc.dequantize}}
  %0 = "qcc.unary"(%x) {kind = "exp"} : (tensor<4x!quant.uniform<i8:f32, 0.5>>) -> tensor<4x!quant.uniform<i8:f32, 0.5>>
  return
}

// -----

// A window larger than its padded input has no position.
func.func @window(%x: tensor<1x4x2x2xf32>) {
  // expected-error@+1 {{the window does not fit: input [1, 4, 2, 2], kernel [3, 3], padding [0, 0, 0, 0]}}
  %0 = "qcc.max_pool2d"(%x) {kernel = array<i64: 3, 3>, strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>} : (tensor<1x4x2x2xf32>) -> tensor<1x4x1x1xf32>
  return
}

// -----

// Data movement does not change what the stored numbers mean.
func.func @movement(%x: tensor<4x!quant.uniform<i8:f32, 0.5>>) {
  // expected-error@+1 {{expected the same; insert qcc.requantize}}
  %0 = "qcc.reshape"(%x) : (tensor<4x!quant.uniform<i8:f32, 0.5>>) -> tensor<2x2x!quant.uniform<i8:f32, 0.25>>
  return
}

// -----

// A slice stays inside.
func.func @slice(%x: tensor<8xf32>) {
  // expected-error@+1 {{axis 0 reads up to index 9, expected below 8}}
  %0 = "qcc.slice"(%x) {offsets = array<i64: 1>, strides = array<i64: 4>} : (tensor<8xf32>) -> tensor<3xf32>
  return
}

// -----

// Reduced axes are kept as ones or gone.
func.func @reduce(%x: tensor<2x3x4xf32>) {
  // expected-error@+1 {{result has shape [2, 4], expected [2, 1, 4] from axes and keepdims}}
  %0 = "qcc.reduce"(%x) {kind = "sum", axes = array<i64: 1>, keepdims = true} : (tensor<2x3x4xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @attention(%q: tensor<2x5x8xf32>, %k: tensor<2x7x4xf32>, %v: tensor<2x7x8xf32>) {
  // expected-error@+1 {{q, k and v have shapes [2, 5, 8], [2, 7, 4] and [2, 7, 8]}}
  %0 = "qcc.attention"(%q, %k, %v) {scale = 1.0 : f32, causal = false} : (tensor<2x5x8xf32>, tensor<2x7x4xf32>, tensor<2x7x8xf32>) -> tensor<2x5x8xf32>
  return
}
