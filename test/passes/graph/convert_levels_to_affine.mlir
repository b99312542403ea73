// RUN: qcc-opt %s --pass-pipeline='builtin.module(convert-levels-to-affine)' | filecheck %s

// CHECK-LABEL: @binary
// CHECK: dense<{{\[\[}}1, -1], [-1, 1]]> : tensor<2x2xi8>{{.*}}!quant.uniform<i2<-1:1>:f32:0, {5.000000e-01,2.500000e-01}>
// CHECK-NEXT: qcc.dequantize
// CHECK-NEXT: qcc.linear
func.func @binary(%x: tensor<1x2xf32>) -> tensor<1x2xf32> {
  %w = "qcc.constant"() {value = dense<[[1, -1], [-1, 1]]> : tensor<2x2xi8>} : () -> tensor<2x2x!qcc.binary<dense<[[0.5], [0.25]]> : tensor<2x1xf32>>>
  %f = "qcc.dequantize"(%w) : (tensor<2x2x!qcc.binary<dense<[[0.5], [0.25]]> : tensor<2x1xf32>>>) -> tensor<2x2xf32>
  %y = "qcc.linear"(%x, %f) : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// Levels of different size have no common scale and become floats; equal ones have one.
// CHECK-LABEL: @ternary
// CHECK: dense<[2.500000e-01, 0.000000e+00, -5.000000e-01]> : tensor<3xf32>
// CHECK: dense<[1, 0, -1]> : tensor<3xi8>{{.*}}!quant.uniform<i2<-1:1>:f32, 5.000000e-01>
func.func @ternary() -> (tensor<3xf32>, tensor<3xf32>) {
  %w = "qcc.constant"() {value = dense<[1, 0, -1]> : tensor<3xi8>} : () -> tensor<3x!qcc.ternary<dense<0.5> : tensor<1xf32>, dense<0.25> : tensor<1xf32>>>
  %f = "qcc.dequantize"(%w) : (tensor<3x!qcc.ternary<dense<0.5> : tensor<1xf32>, dense<0.25> : tensor<1xf32>>>) -> tensor<3xf32>
  %v = "qcc.constant"() {value = dense<[1, 0, -1]> : tensor<3xi8>} : () -> tensor<3x!qcc.ternary<dense<0.5> : tensor<1xf32>, dense<0.5> : tensor<1xf32>>>
  %g = "qcc.dequantize"(%v) : (tensor<3x!qcc.ternary<dense<0.5> : tensor<1xf32>, dense<0.5> : tensor<1xf32>>>) -> tensor<3xf32>
  return %f, %g : tensor<3xf32>, tensor<3xf32>
}

// Stored +-k is +-2^(least + k - 1): with least -3 these are 1, 2 and -8 eighths, in 4 bits.
// CHECK-LABEL: @log2
// CHECK: dense<[1, 2, 0, -8]> : tensor<4xi8>{{.*}}!quant.uniform<i4<-8:2>:f32, 1.250000e-01>
func.func @log2() -> tensor<4xf32> {
  %w = "qcc.constant"() {value = dense<[1, 2, 0, -4]> : tensor<4xi8>} : () -> tensor<4x!qcc.log2<4 : i64, true, -3 : i64, dense<1.0> : tensor<1xf32>>>
  %f = "qcc.dequantize"(%w) : (tensor<4x!qcc.log2<4 : i64, true, -3 : i64, dense<1.0> : tensor<1xf32>>>) -> tensor<4xf32>
  return %f : tensor<4xf32>
}

// A codebook of real levels is looked up at compile time.
// CHECK-LABEL: @codebook
// CHECK: dense<[0.000000e+00, 4.000000e+00]> : tensor<2xf32>
// CHECK-NEXT: return
func.func @codebook() -> tensor<2xf32> {
  %w = "qcc.constant"() {value = dense<[1, 2]> : tensor<2xui8>} : () -> tensor<2x!qcc.codebook<dense<[-1.5, 0.0, 2.0]> : tensor<3xf32>, dense<2.0> : tensor<1xf32>>>
  %f = "qcc.dequantize"(%w) : (tensor<2x!qcc.codebook<dense<[-1.5, 0.0, 2.0]> : tensor<3xf32>, dense<2.0> : tensor<1xf32>>>) -> tensor<2xf32>
  return %f : tensor<2xf32>
}

// As weights of a linear layer it stays: the layer looks levels up while it reads them.
// CHECK-LABEL: @codebook_weights
// CHECK: qcc.constant{{.*}}!qcc.codebook
// CHECK-NEXT: qcc.dequantize
// CHECK-NEXT: qcc.linear
func.func @codebook_weights(%x: tensor<1x2xf32>) -> tensor<1x1xf32> {
  %w = "qcc.constant"() {value = dense<[[1, 2]]> : tensor<1x2xui8>} : () -> tensor<1x2x!qcc.codebook<dense<[-1.5, 0.0, 2.0]> : tensor<3xf32>, dense<2.0> : tensor<1xf32>>>
  %f = "qcc.dequantize"(%w) : (tensor<1x2x!qcc.codebook<dense<[-1.5, 0.0, 2.0]> : tensor<3xf32>, dense<2.0> : tensor<1xf32>>>) -> tensor<1x2xf32>
  %y = "qcc.linear"(%x, %f) : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x1xf32>
  return %y : tensor<1x1xf32>
}
