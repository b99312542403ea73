// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-quantized-softmax)' | filecheck %s

!x = !quant.uniform<u2:f32, 1.000000e+00:1>
!y = !quant.uniform<u8:f32, 3.906250e-03>
!wide = !quant.uniform<u16:f32, 1.000000e+00>

// exp(0), exp(-1), exp(-2), exp(-3) in units of 1/32767, and 1/scale of the result.
// CHECK-LABEL: @softmax
// CHECK-NEXT: "qcc.softmax"(%arg0) {axis = 1 : i64, multiplier = dense<2.560000e+02> : tensor<1xf32>, table = dense<[32767, 12054, 4435, 1631]> : tensor<4xi16>}
// CHECK-NEXT: return
func.func @softmax(%x: tensor<2x5x!x>) -> tensor<2x5x!y> {
  %f = "qcc.dequantize"(%x) : (tensor<2x5x!x>) -> tensor<2x5xf32>
  %s = "qcc.softmax"(%f) {axis = 1 : i64} : (tensor<2x5xf32>) -> tensor<2x5xf32>
  %q = "qcc.quantize"(%s) : (tensor<2x5xf32>) -> tensor<2x5x!y>
  return %q : tensor<2x5x!y>
}

// 16 bits have too many differences for a table.
// CHECK-LABEL: @wide
// CHECK: "qcc.softmax"(%{{.*}}) {axis = 1 : i64} : (tensor<2x5xf32>)
func.func @wide(%x: tensor<2x5x!wide>) -> tensor<2x5x!y> {
  %f = "qcc.dequantize"(%x) : (tensor<2x5x!wide>) -> tensor<2x5xf32>
  %s = "qcc.softmax"(%f) {axis = 1 : i64} : (tensor<2x5xf32>) -> tensor<2x5xf32>
  %q = "qcc.quantize"(%s) : (tensor<2x5xf32>) -> tensor<2x5x!y>
  return %q : tensor<2x5x!y>
}
