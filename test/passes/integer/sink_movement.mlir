// RUN: qcc-opt %s --pass-pipeline='builtin.module(sink-movement)' | filecheck %s

!q = !quant.uniform<u8:f32, 5.000000e-01:3>
!w = !quant.uniform<i8:f32, 2.500000e-01>

// The reshapes around a linear layer cancel, and the multiplier stays along the last axis.
// CHECK-LABEL: @linear
// CHECK-NEXT: %[[A:.*]] = "qcc.linear"(%arg0, %arg1) {{.*}} -> tensor<1x2x3xi32>
// CHECK-NEXT: %[[Q:.*]] = "qcc.requantize"(%[[A]]) {axis = 2 : i64, {{.*}} -> tensor<1x2x3x!
// CHECK-NEXT: return %[[Q]]
func.func @linear(%x: tensor<1x2x4x!q>, %w: tensor<3x4x!w>) -> tensor<1x2x3x!q> {
  %r = "qcc.reshape"(%x) : (tensor<1x2x4x!q>) -> tensor<2x4x!q>
  %a = "qcc.linear"(%r, %w) : (tensor<2x4x!q>, tensor<3x4x!w>) -> tensor<2x3xi32>
  %q = "qcc.requantize"(%a) {axis = 1 : i64, mode = "f32", multiplier = dense<[1.0, 2.0, 3.0]> : tensor<3xf32>} : (tensor<2x3xi32>) -> tensor<2x3x!q>
  %s = "qcc.reshape"(%q) : (tensor<2x3x!q>) -> tensor<1x2x3x!q>
  return %s : tensor<1x2x3x!q>
}

// A function acts before heads are split.
// CHECK-LABEL: @heads
// CHECK-NEXT: %[[C:.*]] = "qcc.requantize"(%arg0)
// CHECK-NEXT: %[[R:.*]] = "qcc.reshape"(%[[C]])
// CHECK-NEXT: "qcc.transpose"(%[[R]])
func.func @heads(%x: tensor<5x6x!q>) -> tensor<2x5x3x!q> {
  %r = "qcc.reshape"(%x) : (tensor<5x6x!q>) -> tensor<5x2x3x!q>
  %t = "qcc.transpose"(%r) {permutation = array<i64: 1, 0, 2>} : (tensor<5x2x3x!q>) -> tensor<2x5x3x!q>
  %q = "qcc.requantize"(%t) {mode = "f32", multiplier = dense<2.0> : tensor<1xf32>} : (tensor<2x5x3x!q>) -> tensor<2x5x3x!q>
  return %q : tensor<2x5x3x!q>
}

// A reshape that changes the reduction stays above; a tensor that others use stays where it is.
// CHECK-LABEL: @stays
// CHECK-NEXT: %[[R:.*]] = "qcc.reshape"(%arg0)
// CHECK-NEXT: "qcc.linear"(%[[R]]
// CHECK-NEXT: %[[T:.*]] = "qcc.transpose"(%[[R]])
// CHECK-NEXT: "qcc.requantize"(%[[T]])
func.func @stays(%x: tensor<2x2x4x!q>, %w: tensor<3x8x!w>) -> (tensor<2x3xi32>, tensor<8x2x!q>, tensor<8x2x!q>) {
  %r = "qcc.reshape"(%x) : (tensor<2x2x4x!q>) -> tensor<2x8x!q>
  %a = "qcc.linear"(%r, %w) : (tensor<2x8x!q>, tensor<3x8x!w>) -> tensor<2x3xi32>
  %t = "qcc.transpose"(%r) {permutation = array<i64: 1, 0>} : (tensor<2x8x!q>) -> tensor<8x2x!q>
  %q = "qcc.requantize"(%t) {mode = "f32", multiplier = dense<2.0> : tensor<1xf32>} : (tensor<8x2x!q>) -> tensor<8x2x!q>
  return %a, %q, %t : tensor<2x3xi32>, tensor<8x2x!q>, tensor<8x2x!q>
}
