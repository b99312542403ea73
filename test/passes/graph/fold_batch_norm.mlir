// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-batch-norm)' --split-input-file --verify-diagnostics | filecheck %s

// factor = scale / sqrt(var) = [2, -1]; the weights are multiplied, the bias becomes (b - mean) * factor + bias.
// CHECK-LABEL: @float_weight
// CHECK: value = dense<{{\[\[\[\[}}6.000000e+00]]], {{\[\[\[}}-5.000000e+00]]]]>
// CHECK: value = dense<[1.000000e+00, 2.000000e+00]>
// CHECK: qcc.conv2d
// CHECK-NEXT: return
func.func @float_weight(%x: tensor<1x1x2x2xf32>) -> tensor<1x2x2x2xf32> {
  %w = "qcc.constant"() {value = dense<[[[[3.0]]], [[[5.0]]]]> : tensor<2x1x1x1xf32>} : () -> tensor<2x1x1x1xf32>
  %s = "qcc.constant"() {value = dense<[4.0, -2.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %b = "qcc.constant"() {value = dense<[3.0, 1.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %m = "qcc.constant"() {value = dense<[1.0, 1.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %v = "qcc.constant"() {value = dense<[4.0, 4.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %y = "qcc.conv2d"(%x, %w) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>) -> tensor<1x2x2x2xf32>
  %z = "qcc.batch_norm"(%y, %s, %b, %m, %v) {epsilon = 0.0} : (tensor<1x2x2x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x2x2xf32>
  return %z : tensor<1x2x2x2xf32>
}

// -----

// Quantized weights keep their integers: the factor goes into the scales, its sign into the integers.
// CHECK-LABEL: @quantized_weight
// CHECK: value = dense<{{\[\[}}3, 4], [-5, 6]]> : tensor<2x2xi8>
// CHECK-SAME: !quant.uniform<i8:f32:0, {1.000000e+00,5.000000e-01}>
// CHECK: qcc.dequantize
// CHECK: qcc.linear
// CHECK-NEXT: return
func.func @quantized_weight(%x: tensor<1x2xf32>) -> tensor<1x2xf32> {
  %w = "qcc.constant"() {value = dense<[[3, 4], [5, -6]]> : tensor<2x2xi8>} : () -> tensor<2x2x!quant.uniform<i8:f32, 5.000000e-01>>
  %f = "qcc.dequantize"(%w) : (tensor<2x2x!quant.uniform<i8:f32, 5.000000e-01>>) -> tensor<2x2xf32>
  %s = "qcc.constant"() {value = dense<[4.0, -2.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %o = "qcc.constant"() {value = dense<0.0> : tensor<2xf32>} : () -> tensor<2xf32>
  %v = "qcc.constant"() {value = dense<4.0> : tensor<2xf32>} : () -> tensor<2xf32>
  %y = "qcc.linear"(%x, %f) : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  %z = "qcc.batch_norm"(%y, %s, %o, %o, %v) {epsilon = 0.0} : (tensor<1x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2xf32>
  return %z : tensor<1x2xf32>
}

// -----

// -128 has no negative in i8, so the layer is left and the normalisation becomes a multiply and an add.
// CHECK-LABEL: @sign_overflow
// CHECK: qcc.linear
// CHECK: qcc.mul
// CHECK-NEXT: qcc.constant
// CHECK-NEXT: qcc.add
func.func @sign_overflow(%x: tensor<1x1xf32>) -> tensor<1x1xf32> {
  %w = "qcc.constant"() {value = dense<-128> : tensor<1x1xi8>} : () -> tensor<1x1x!quant.uniform<i8:f32, 5.000000e-01>>
  %f = "qcc.dequantize"(%w) : (tensor<1x1x!quant.uniform<i8:f32, 5.000000e-01>>) -> tensor<1x1xf32>
  %s = "qcc.constant"() {value = dense<-1.0> : tensor<1xf32>} : () -> tensor<1xf32>
  %y = "qcc.linear"(%x, %f) : (tensor<1x1xf32>, tensor<1x1xf32>) -> tensor<1x1xf32>
  %v = "qcc.constant"() {value = dense<1.0> : tensor<1xf32>} : () -> tensor<1xf32>
  %z = "qcc.batch_norm"(%y, %s, %s, %s, %v) {epsilon = 0.0} : (tensor<1x1xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xf32>) -> tensor<1x1xf32>
  return %z : tensor<1x1xf32>
}

// -----

// Parameters that are computed cannot be folded: the user exported a model in training mode.
func.func @computed(%x: tensor<1x1xf32>, %s: tensor<1xf32>) -> tensor<1x1xf32> {
  // expected-error@+1 {{'scale' of the batch normalisation is computed, expected a constant; export the model in evaluation mode}}
  %z = "qcc.batch_norm"(%x, %s, %s, %s, %s) {epsilon = 0.0} : (tensor<1x1xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xf32>) -> tensor<1x1xf32>
  return %z : tensor<1x1xf32>
}
