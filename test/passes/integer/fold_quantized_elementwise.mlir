// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-quantized-elementwise)' | filecheck %s

!x = !quant.uniform<u8:f32, 5.000000e-01:3>
!z = !quant.uniform<i8:f32, 2.500000e-01>
!y = !quant.uniform<u8:f32, 1.000000e+00:10>

// A residual sum with relu: one multiplier per operand, the relu in the clamp.
// CHECK-LABEL: @add
// CHECK-NEXT: "qcc.add"(%arg0, %arg1) {clamp = array<i64: 10, 255>, multipliers = dense<[5.000000e-01, 2.500000e-01]> : tensor<2xf32>}
// CHECK-NEXT: return
func.func @add(%a: tensor<4x!x>, %b: tensor<4x!z>) -> tensor<4x!y> {
  %f = "qcc.dequantize"(%a) : (tensor<4x!x>) -> tensor<4xf32>
  %g = "qcc.dequantize"(%b) : (tensor<4x!z>) -> tensor<4xf32>
  %s = "qcc.add"(%f, %g) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %r = "qcc.clamp"(%s) {min = 0.0, max = 0x7FF0000000000000 : f64} : (tensor<4xf32>) -> tensor<4xf32>
  %q = "qcc.quantize"(%r) : (tensor<4xf32>) -> tensor<4x!y>
  return %q : tensor<4x!y>
}

// A product has the one multiplier 0.5 * 0.25 / 1, and operands broadcast.
// CHECK-LABEL: @mul
// CHECK-NEXT: "qcc.mul"(%arg0, %arg1) {multipliers = dense<1.250000e-01> : tensor<1xf32>} : {{.*}} -> tensor<3x4x
func.func @mul(%a: tensor<3x4x!x>, %b: tensor<4x!z>) -> tensor<3x4x!y> {
  %f = "qcc.dequantize"(%a) : (tensor<3x4x!x>) -> tensor<3x4xf32>
  %g = "qcc.dequantize"(%b) : (tensor<4x!z>) -> tensor<4xf32>
  %s = "qcc.mul"(%f, %g) : (tensor<3x4xf32>, tensor<4xf32>) -> tensor<3x4xf32>
  %q = "qcc.quantize"(%s) : (tensor<3x4xf32>) -> tensor<3x4x!y>
  return %q : tensor<3x4x!y>
}

// A float operand keeps the sum float.
// CHECK-LABEL: @float_operand
// CHECK: "qcc.add"(%{{.*}}) : (tensor<4xf32>, tensor<4xf32>)
// CHECK: qcc.quantize
func.func @float_operand(%a: tensor<4x!x>, %g: tensor<4xf32>) -> tensor<4x!y> {
  %f = "qcc.dequantize"(%a) : (tensor<4x!x>) -> tensor<4xf32>
  %s = "qcc.add"(%f, %g) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %q = "qcc.quantize"(%s) : (tensor<4xf32>) -> tensor<4x!y>
  return %q : tensor<4x!y>
}
