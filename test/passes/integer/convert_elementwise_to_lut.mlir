// RUN: qcc-opt %s --pass-pipeline='builtin.module(convert-elementwise-to-lut)' | filecheck %s

!x = !quant.uniform<u2:f32, 1.000000e+00:1>
!y = !quant.uniform<i8:f32, 5.000000e-01>

// Stored 0..3 mean -1, 0, 1, 2; the squares are 1, 0, 1, 4; in steps of 0.5 that is 2, 0, 2, 8.
// CHECK-LABEL: @tree
// CHECK-NEXT: "qcc.lut"(%arg0) {table = dense<[2, 0, 2, 8]> : tensor<4xi8>}
// CHECK-NEXT: return
func.func @tree(%x: tensor<4x!x>) -> tensor<4x!y> {
  %f = "qcc.dequantize"(%x) : (tensor<4x!x>) -> tensor<4xf32>
  %a = "qcc.unary"(%f) {kind = "abs"} : (tensor<4xf32>) -> tensor<4xf32>
  %s = "qcc.mul"(%a, %f) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %t = "qcc.unary"(%s) {kind = "abs"} : (tensor<4xf32>) -> tensor<4xf32>
  %q = "qcc.quantize"(%t) : (tensor<4xf32>) -> tensor<4x!y>
  return %q : tensor<4x!y>
}

// One-number constants are part of the function: (x + 3) / 2.
// CHECK-LABEL: @constants
// CHECK: "qcc.lut"(%arg0) {table = dense<[2, 3, 4, 5]> : tensor<4xi8>}
func.func @constants(%x: tensor<4x!x>) -> tensor<4x!y> {
  %three = "qcc.constant"() {value = dense<3.0> : tensor<1xf32>} : () -> tensor<1xf32>
  %two = "qcc.constant"() {value = dense<2.0> : tensor<4xf32>} : () -> tensor<4xf32>
  %f = "qcc.dequantize"(%x) : (tensor<4x!x>) -> tensor<4xf32>
  %a = "qcc.add"(%f, %three) : (tensor<4xf32>, tensor<1xf32>) -> tensor<4xf32>
  %s = "qcc.div"(%a, %two) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %q = "qcc.quantize"(%s) : (tensor<4xf32>) -> tensor<4x!y>
  return %q : tensor<4x!y>
}

// NaN (the logarithm of -1) is the least value, minus infinity too.
// CHECK-LABEL: @domain
// CHECK: table = dense<[-128, -128, 0, 1]>
func.func @domain(%x: tensor<4x!x>) -> tensor<4x!y> {
  %f = "qcc.dequantize"(%x) : (tensor<4x!x>) -> tensor<4xf32>
  %a = "qcc.unary"(%f) {kind = "log"} : (tensor<4xf32>) -> tensor<4xf32>
  %q = "qcc.quantize"(%a) : (tensor<4xf32>) -> tensor<4x!y>
  return %q : tensor<4x!y>
}

// Two tensors, 16 bits, a clamp alone, and a real result are no tables.
// CHECK-LABEL: @unfit
// CHECK-NOT: qcc.lut
func.func @unfit(%x: tensor<4x!x>, %z: tensor<4x!x>, %w: tensor<4x!quant.uniform<i16:f32, 1.0>>) -> (tensor<4x!y>, tensor<4x!y>, tensor<4x!y>, tensor<4xf32>) {
  %f = "qcc.dequantize"(%x) : (tensor<4x!x>) -> tensor<4xf32>
  %g = "qcc.dequantize"(%z) : (tensor<4x!x>) -> tensor<4xf32>
  %h = "qcc.dequantize"(%w) : (tensor<4x!quant.uniform<i16:f32, 1.0>>) -> tensor<4xf32>
  %a = "qcc.add"(%f, %g) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %b = "qcc.unary"(%h) {kind = "abs"} : (tensor<4xf32>) -> tensor<4xf32>
  %c = "qcc.clamp"(%f) {min = 0.0, max = 1.0} : (tensor<4xf32>) -> tensor<4xf32>
  %d = "qcc.unary"(%f) {kind = "abs"} : (tensor<4xf32>) -> tensor<4xf32>
  %p = "qcc.quantize"(%a) : (tensor<4xf32>) -> tensor<4x!y>
  %q = "qcc.quantize"(%b) : (tensor<4xf32>) -> tensor<4x!y>
  %r = "qcc.quantize"(%c) : (tensor<4xf32>) -> tensor<4x!y>
  return %p, %q, %r, %d : tensor<4x!y>, tensor<4x!y>, tensor<4x!y>, tensor<4xf32>
}

// Tables compose: |x| in steps of 0.5 (2, 0, 2, 4), then times x.
// CHECK-LABEL: @composition
// CHECK-NEXT: "qcc.lut"(%arg0) {table = dense<[-2, 0, 2, 8]> : tensor<4xi8>}
// CHECK-NEXT: return
func.func @composition(%x: tensor<4x!x>) -> tensor<4x!y> {
  %f = "qcc.dequantize"(%x) : (tensor<4x!x>) -> tensor<4xf32>
  %a = "qcc.unary"(%f) {kind = "abs"} : (tensor<4xf32>) -> tensor<4xf32>
  %q = "qcc.quantize"(%a) : (tensor<4xf32>) -> tensor<4x!y>
  %g = "qcc.dequantize"(%q) : (tensor<4x!y>) -> tensor<4xf32>
  %m = "qcc.mul"(%g, %f) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %r = "qcc.quantize"(%m) : (tensor<4xf32>) -> tensor<4x!y>
  return %r : tensor<4x!y>
}
