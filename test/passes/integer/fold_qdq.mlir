// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-qdq)' | filecheck %s

!x = !quant.uniform<u8:f32, 5.000000e-01:3>
!w = !quant.uniform<i8:f32:0, {2.500000e-01,5.000000e-01}>
!y = !quant.uniform<u8:f32, 1.000000e+00:10>

// Bias at the accumulator's scale {0.125, 0.25}, half to even; relu raises the lower limit to the zero point.
// CHECK-LABEL: @linear
// CHECK: %[[W:.*]] = "qcc.constant"
// CHECK: %[[B:.*]] = "qcc.constant"() {value = dense<[8, -12]> : tensor<2xi32>}
// CHECK: %[[A:.*]] = "qcc.linear"(%arg0, %[[W]], %[[B]]) : {{.*}} -> tensor<1x2xi32>
// CHECK: "qcc.requantize"(%[[A]]) {axis = 1 : i64, clamp = array<i64: 10, 255>, mode = "f32", multiplier = dense<[1.250000e-01, 2.500000e-01]> : tensor<2xf32>}
// CHECK-NEXT: return
func.func @linear(%x: tensor<1x3x!x>) -> tensor<1x2x!y> {
  %w = "qcc.constant"() {value = dense<1> : tensor<2x3xi8>} : () -> tensor<2x3x!w>
  %b = "qcc.constant"() {value = dense<[1.0, -3.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %xf = "qcc.dequantize"(%x) : (tensor<1x3x!x>) -> tensor<1x3xf32>
  %wf = "qcc.dequantize"(%w) : (tensor<2x3x!w>) -> tensor<2x3xf32>
  %y = "qcc.linear"(%xf, %wf, %b) : (tensor<1x3xf32>, tensor<2x3xf32>, tensor<2xf32>) -> tensor<1x2xf32>
  %r = "qcc.clamp"(%y) {min = 0.0, max = 0x7FF0000000000000 : f64} : (tensor<1x2xf32>) -> tensor<1x2xf32>
  %q = "qcc.quantize"(%r) : (tensor<1x2xf32>) -> tensor<1x2x!y>
  return %q : tensor<1x2x!y>
}

// An int32 bias arrives through a dequantize; a relu6 has two limits.
// CHECK-LABEL: @conv_with_integer_bias
// CHECK: value = dense<[4, 6]> : tensor<2xi32>} : () -> tensor<2xi32>
// CHECK: qcc.conv2d{{.*}} -> tensor<1x2x2x2xi32>
// CHECK: clamp = array<i64: 10, 16>
func.func @conv_with_integer_bias(%x: tensor<1x1x2x2x!x>) -> tensor<1x2x2x2x!y> {
  %w = "qcc.constant"() {value = dense<1> : tensor<2x1x1x1xi8>} : () -> tensor<2x1x1x1x!w>
  %b = "qcc.constant"() {value = dense<[4, 6]> : tensor<2xi32>} : () -> tensor<2x!quant.uniform<i32:f32:0, {1.250000e-01,2.500000e-01}>>
  %xf = "qcc.dequantize"(%x) : (tensor<1x1x2x2x!x>) -> tensor<1x1x2x2xf32>
  %wf = "qcc.dequantize"(%w) : (tensor<2x1x1x1x!w>) -> tensor<2x1x1x1xf32>
  %bf = "qcc.dequantize"(%b) : (tensor<2x!quant.uniform<i32:f32:0, {1.250000e-01,2.500000e-01}>>) -> tensor<2xf32>
  %y = "qcc.conv2d"(%xf, %wf, %bf) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>, tensor<2xf32>) -> tensor<1x2x2x2xf32>
  %r = "qcc.clamp"(%y) {min = 0.0, max = 6.0} : (tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %q = "qcc.quantize"(%r) : (tensor<1x2x2x2xf32>) -> tensor<1x2x2x2x!y>
  return %q : tensor<1x2x2x2x!y>
}

// A real result comes from the accumulator, its bias stays float.
// CHECK-LABEL: @real_result
// CHECK: %[[B:.*]] = "qcc.constant"() {value = dense<[1.000000e+00, -3.000000e+00]>
// CHECK: %[[A:.*]] = "qcc.linear"(%arg0, %{{.*}}) : {{.*}} -> tensor<1x2xi32>
// CHECK: "qcc.dequantize"(%[[A]], %[[B]]) {axis = 1 : i64, multiplier = dense<[1.250000e-01, 2.500000e-01]>
func.func @real_result(%x: tensor<1x3x!x>) -> tensor<1x2xf32> {
  %w = "qcc.constant"() {value = dense<1> : tensor<2x3xi8>} : () -> tensor<2x3x!w>
  %b = "qcc.constant"() {value = dense<[1.0, -3.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %xf = "qcc.dequantize"(%x) : (tensor<1x3x!x>) -> tensor<1x3xf32>
  %wf = "qcc.dequantize"(%w) : (tensor<2x3x!w>) -> tensor<2x3xf32>
  %y = "qcc.linear"(%xf, %wf, %b) : (tensor<1x3xf32>, tensor<2x3xf32>, tensor<2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// A result used both ways has one accumulator: requantize adds the integer bias, dequantize the real one.
// CHECK-LABEL: @both
// CHECK: %[[A:.*]] = "qcc.linear"(%arg0, %{{[0-9]+}}) :
// CHECK-DAG: "qcc.dequantize"(%[[A]], %{{.*}}) {axis = 1
// CHECK-DAG: "qcc.requantize"(%[[A]], %{{.*}}) {axis = 1
func.func @both(%x: tensor<1x3x!x>) -> (tensor<1x2xf32>, tensor<1x2x!y>) {
  %w = "qcc.constant"() {value = dense<1> : tensor<2x3xi8>} : () -> tensor<2x3x!w>
  %b = "qcc.constant"() {value = dense<[1.0, -3.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %xf = "qcc.dequantize"(%x) : (tensor<1x3x!x>) -> tensor<1x3xf32>
  %wf = "qcc.dequantize"(%w) : (tensor<2x3x!w>) -> tensor<2x3xf32>
  %y = "qcc.linear"(%xf, %wf, %b) : (tensor<1x3xf32>, tensor<2x3xf32>, tensor<2xf32>) -> tensor<1x2xf32>
  %q = "qcc.quantize"(%y) : (tensor<1x2xf32>) -> tensor<1x2x!y>
  return %y, %q : tensor<1x2xf32>, tensor<1x2x!y>
}

// Two computed operands: one multiplier for the whole result.
// CHECK-LABEL: @matmul
// CHECK: "qcc.matmul"(%arg0, %arg1) : {{.*}} -> tensor<2x2xi32>
// CHECK: "qcc.requantize"(%{{.*}}) {mode = "f32", multiplier = dense<2.500000e-01> : tensor<1xf32>}
func.func @matmul(%a: tensor<2x3x!x>, %b: tensor<3x2x!x>) -> tensor<2x2x!y> {
  %af = "qcc.dequantize"(%a) : (tensor<2x3x!x>) -> tensor<2x3xf32>
  %bf = "qcc.dequantize"(%b) : (tensor<3x2x!x>) -> tensor<3x2xf32>
  %y = "qcc.matmul"(%af, %bf) : (tensor<2x3xf32>, tensor<3x2xf32>) -> tensor<2x2xf32>
  %q = "qcc.quantize"(%y) : (tensor<2x2xf32>) -> tensor<2x2x!y>
  return %q : tensor<2x2x!y>
}

// Another scale is a requantize, the same scale nothing, the same scale with relu a clamp.
// CHECK-LABEL: @between_quantized
// CHECK: %[[A:.*]] = "qcc.requantize"(%arg0) {mode = "f32", multiplier = dense<5.000000e-01> : tensor<1xf32>}
// CHECK: %[[C:.*]] = "qcc.requantize"(%arg0) {clamp = array<i64: 3, 255>, mode = "f32", multiplier = dense<1.000000e+00> : tensor<1xf32>}
// CHECK: return %[[A]], %arg0, %[[C]]
func.func @between_quantized(%x: tensor<4x!x>) -> (tensor<4x!y>, tensor<4x!x>, tensor<4x!x>) {
  %f = "qcc.dequantize"(%x) : (tensor<4x!x>) -> tensor<4xf32>
  %a = "qcc.quantize"(%f) : (tensor<4xf32>) -> tensor<4x!y>
  %b = "qcc.quantize"(%f) : (tensor<4xf32>) -> tensor<4x!x>
  %r = "qcc.clamp"(%f) {min = 0.0, max = 0x7FF0000000000000 : f64} : (tensor<4xf32>) -> tensor<4xf32>
  %c = "qcc.quantize"(%r) : (tensor<4xf32>) -> tensor<4x!x>
  return %a, %b, %c : tensor<4x!y>, tensor<4x!x>, tensor<4x!x>
}

// Weight-only quantization and scales along the wrong axis stay float.
// CHECK-LABEL: @stays_float
// CHECK-COUNT-2: "qcc.linear"({{.*}} -> tensor<1x2xf32>
// CHECK-NOT: qcc.requantize
func.func @stays_float(%f: tensor<1x2xf32>, %x: tensor<1x2x!x>) -> (tensor<1x2x!y>, tensor<1x2x!y>) {
  %w = "qcc.constant"() {value = dense<1> : tensor<2x2xi8>} : () -> tensor<2x2x!w>
  %v = "qcc.constant"() {value = dense<1> : tensor<2x2xi8>} : () -> tensor<2x2x!quant.uniform<i8:f32:1, {2.500000e-01,5.000000e-01}>>
  %wf = "qcc.dequantize"(%w) : (tensor<2x2x!w>) -> tensor<2x2xf32>
  %vf = "qcc.dequantize"(%v) : (tensor<2x2x!quant.uniform<i8:f32:1, {2.500000e-01,5.000000e-01}>>) -> tensor<2x2xf32>
  %xf = "qcc.dequantize"(%x) : (tensor<1x2x!x>) -> tensor<1x2xf32>
  %y = "qcc.linear"(%f, %wf) : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  %z = "qcc.linear"(%xf, %vf) : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  %p = "qcc.quantize"(%y) : (tensor<1x2xf32>) -> tensor<1x2x!y>
  %q = "qcc.quantize"(%z) : (tensor<1x2xf32>) -> tensor<1x2x!y>
  return %p, %q : tensor<1x2x!y>, tensor<1x2x!y>
}

// A bias that is coarse at the accumulator's scale (2 real per step of 1) keeps its float path.
// CHECK-LABEL: @coarse_bias
// CHECK: qcc.linear
// CHECK: "qcc.dequantize"(%{{.*}}, %{{.*}}) {axis
// CHECK: qcc.quantize
func.func @coarse_bias(%x: tensor<1x1x!quant.uniform<u8:f32, 2.000000e+00>>) -> tensor<1x1x!y> {
  %w = "qcc.constant"() {value = dense<1> : tensor<1x1xi8>} : () -> tensor<1x1x!quant.uniform<i8:f32, 1.000000e+00>>
  %b = "qcc.constant"() {value = dense<1.0> : tensor<1xf32>} : () -> tensor<1xf32>
  %xf = "qcc.dequantize"(%x) : (tensor<1x1x!quant.uniform<u8:f32, 2.000000e+00>>) -> tensor<1x1xf32>
  %wf = "qcc.dequantize"(%w) : (tensor<1x1x!quant.uniform<i8:f32, 1.000000e+00>>) -> tensor<1x1xf32>
  %y = "qcc.linear"(%xf, %wf, %b) : (tensor<1x1xf32>, tensor<1x1xf32>, tensor<1xf32>) -> tensor<1x1xf32>
  %q = "qcc.quantize"(%y) : (tensor<1x1xf32>) -> tensor<1x1x!y>
  return %q : tensor<1x1x!y>
}
