// RUN: qcc-opt %s --pass-pipeline='builtin.module(lower-requantize-to-fixed)' | filecheck %s
// RUN: qcc-opt %s --pass-pipeline='builtin.module(lower-requantize-to-fixed{bits=8 rounding=half_away})' | filecheck %s --check-prefix=SHORT
// RUN: qcc-opt %s --pass-pipeline='builtin.module(lower-requantize-to-fixed{enabled=false})' | filecheck %s --check-prefix=OFF

!u8 = !quant.uniform<u8:f32, 1.000000e+00:3>
// OFF-NOT: fixed

// 0.375 is 3 * 2^29 / 2^32, and 0.75 the same with a shift of 31: every channel has its own.
// CHECK-LABEL: @channels
// CHECK: mode = "fixed", multiplier = dense<1610612736> : tensor<2xi32>, rounding = "half_even", shift = dense<[32, 31]> : tensor<2xi32>
// SHORT: mode = "fixed", multiplier = dense<192> : tensor<2xi32>, rounding = "half_away", shift = dense<[9, 8]> : tensor<2xi32>
func.func @channels(%a: tensor<1x2xi32>) -> tensor<1x2x!u8> {
  %q = "qcc.requantize"(%a) {multiplier = dense<[0.375, 0.75]> : tensor<2xf32>, axis = 1 : i64, mode = "f32"} : (tensor<1x2xi32>) -> tensor<1x2x!u8>
  return %q : tensor<1x2x!u8>
}

// An exact 1 multiplies by nothing; 2 is 2^30 / 2^29.
// CHECK-LABEL: @one_and_two
// CHECK: clamp = array<i64: 3, 9>, mode = "fixed", multiplier = dense<1> : tensor<1xi32>, rounding = "half_even", shift = dense<0>
// CHECK: multiplier = dense<1073741824> : tensor<1xi32>, rounding = "half_even", shift = dense<29>
func.func @one_and_two(%x: tensor<1x2x!u8>) -> tensor<1x2x!u8> {
  %q = "qcc.requantize"(%x) {multiplier = dense<1.0> : tensor<1xf32>, mode = "f32", clamp = array<i64: 3, 9>} : (tensor<1x2x!u8>) -> tensor<1x2x!u8>
  %r = "qcc.requantize"(%q) {multiplier = dense<2.0> : tensor<1xf32>, mode = "f32"} : (tensor<1x2x!u8>) -> tensor<1x2x!u8>
  return %r : tensor<1x2x!u8>
}

// The products of a sum share one shift, the one of the greater multiplier.
// CHECK-LABEL: @add
// CHECK: mode = "fixed", multipliers = dense<[1073741824, 536870912]> : tensor<2xi32>, rounding = "half_even", shift = dense<30> : tensor<1xi32>
func.func @add(%x: tensor<2x!u8>, %y: tensor<2x!u8>) -> tensor<2x!u8> {
  %q = "qcc.add"(%x, %y) {multipliers = dense<[1.0, 0.5]> : tensor<2xf32>} : (tensor<2x!u8>, tensor<2x!u8>) -> tensor<2x!u8>
  return %q : tensor<2x!u8>
}

// Four elements per window: 1/4 in the multiplier. Windows of different counts keep the f32 mode.
// CHECK-LABEL: @pool
// CHECK: mode = "fixed", multipliers = dense<1073741824> : tensor<1xi32>, {{.*}}shift = dense<32>
// CHECK: multipliers = dense<1.000000e+00>
func.func @pool(%x: tensor<1x1x4x4x!u8>) -> tensor<1x1x3x3x!u8> {
  %p = "qcc.avg_pool2d"(%x) {kernel = array<i64: 2, 2>, strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, count_include_pad = false, multipliers = dense<1.0> : tensor<1xf32>} : (tensor<1x1x4x4x!u8>) -> tensor<1x1x3x3x!u8>
  %q = "qcc.avg_pool2d"(%p) {kernel = array<i64: 2, 2>, strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 0, 0>, count_include_pad = false, multipliers = dense<1.0> : tensor<1xf32>} : (tensor<1x1x3x3x!u8>) -> tensor<1x1x3x3x!u8>
  return %q : tensor<1x1x3x3x!u8>
}

// A 40-bit accumulator leaves 62 - 39 = 23 bits to its multiplier.
// CHECK-LABEL: @wide
// CHECK: multiplier = dense<4194304> : tensor<1xi32>, rounding = "half_even", shift = dense<23>
func.func @wide(%a: tensor<2xi40>) -> tensor<2x!u8> {
  %q = "qcc.requantize"(%a) {multiplier = dense<0.5> : tensor<1xf32>, mode = "f32"} : (tensor<2xi40>) -> tensor<2x!u8>
  return %q : tensor<2x!u8>
}
