// RUN: qcc-opt %s --pass-pipeline='builtin.module(propagate-quantization)' | filecheck %s

!x = !quant.uniform<u8:f32, 5.000000e-01:3>
!y = !quant.uniform<u8:f32, 1.000000e+00:10>

// Dequantize sinks below a chain of movements.
// CHECK-LABEL: @sink
// CHECK: %[[R:.*]] = "qcc.reshape"(%arg0) : (tensor<2x4x!{{.*}}>) -> tensor<8x!
// CHECK: %[[P:.*]] = "qcc.pad"(%[[R]])
// CHECK: "qcc.dequantize"(%[[P]])
// CHECK-NEXT: return
func.func @sink(%x: tensor<2x4x!x>) -> tensor<10xf32> {
  %f = "qcc.dequantize"(%x) : (tensor<2x4x!x>) -> tensor<2x4xf32>
  %r = "qcc.reshape"(%f) : (tensor<2x4xf32>) -> tensor<8xf32>
  %p = "qcc.pad"(%r) {low = array<i64: 1>, high = array<i64: 1>, value = 0.0} : (tensor<8xf32>) -> tensor<10xf32>
  return %p : tensor<10xf32>
}

// Padding with another number than 0 has no zero point to pad with.
// CHECK-LABEL: @pad_with_one
// CHECK: qcc.dequantize
// CHECK-NEXT: "qcc.pad"
func.func @pad_with_one(%x: tensor<8x!x>) -> tensor<10xf32> {
  %f = "qcc.dequantize"(%x) : (tensor<8x!x>) -> tensor<8xf32>
  %p = "qcc.pad"(%f) {low = array<i64: 1>, high = array<i64: 1>, value = 1.0} : (tensor<8xf32>) -> tensor<10xf32>
  return %p : tensor<10xf32>
}

// Max pooling between dequantize and quantize of one type works on stored integers.
// CHECK-LABEL: @max_pool
// CHECK-NEXT: %[[P:.*]] = "qcc.max_pool2d"(%arg0)
// CHECK-NEXT: return %[[P]]
func.func @max_pool(%x: tensor<1x1x4x4x!x>) -> tensor<1x1x2x2x!x> {
  %f = "qcc.dequantize"(%x) : (tensor<1x1x4x4x!x>) -> tensor<1x1x4x4xf32>
  %p = "qcc.max_pool2d"(%f) {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>} : (tensor<1x1x4x4xf32>) -> tensor<1x1x2x2xf32>
  %q = "qcc.quantize"(%p) : (tensor<1x1x2x2xf32>) -> tensor<1x1x2x2x!x>
  return %q : tensor<1x1x2x2x!x>
}

// Quantize rises above movements to the layer that computes.
// CHECK-LABEL: @hoist
// CHECK: qcc.linear
// CHECK-NEXT: %[[Q:.*]] = "qcc.quantize"
// CHECK-NEXT: %[[T:.*]] = "qcc.transpose"(%[[Q]])
// CHECK-NEXT: %[[R:.*]] = "qcc.reshape"(%[[T]])
// CHECK-NEXT: return %[[R]]
func.func @hoist(%x: tensor<2x3xf32>, %w: tensor<4x3xf32>) -> tensor<8x!x> {
  %y = "qcc.linear"(%x, %w) : (tensor<2x3xf32>, tensor<4x3xf32>) -> tensor<2x4xf32>
  %t = "qcc.transpose"(%y) {permutation = array<i64: 1, 0>} : (tensor<2x4xf32>) -> tensor<4x2xf32>
  %r = "qcc.reshape"(%t) : (tensor<4x2xf32>) -> tensor<8xf32>
  %q = "qcc.quantize"(%r) : (tensor<8xf32>) -> tensor<8x!x>
  return %q : tensor<8x!x>
}

// A layer whose real result is used elsewhere is not quantized twice.
// CHECK-LABEL: @other_use
// CHECK: qcc.reshape
// CHECK-NEXT: qcc.quantize
func.func @other_use(%x: tensor<2x3xf32>, %w: tensor<4x3xf32>) -> (tensor<8x!x>, tensor<2x4xf32>) {
  %y = "qcc.linear"(%x, %w) : (tensor<2x3xf32>, tensor<4x3xf32>) -> tensor<2x4xf32>
  %r = "qcc.reshape"(%y) : (tensor<2x4xf32>) -> tensor<8xf32>
  %q = "qcc.quantize"(%r) : (tensor<8xf32>) -> tensor<8x!x>
  return %q, %y : tensor<8x!x>, tensor<2x4xf32>
}

// A concatenation of equal types needs no arithmetic; of different types every operand gets the result's scale.
// CHECK-LABEL: @concat
// CHECK: %[[F:.*]] = "qcc.dequantize"(%arg1)
// CHECK: %[[A:.*]] = tensor.concat dim(0) %arg0, %arg0
// CHECK: %[[Q:.*]] = "qcc.quantize"(%[[F]])
// CHECK: %[[B:.*]] = tensor.concat dim(0) %arg0, %[[Q]]
// CHECK-NEXT: return %[[A]], %[[B]]
func.func @concat(%x: tensor<2x!x>, %z: tensor<2x!y>) -> (tensor<4x!x>, tensor<4x!x>) {
  %f = "qcc.dequantize"(%x) : (tensor<2x!x>) -> tensor<2xf32>
  %g = "qcc.dequantize"(%z) : (tensor<2x!y>) -> tensor<2xf32>
  %c = tensor.concat dim(0) %f, %f : (tensor<2xf32>, tensor<2xf32>) -> tensor<4xf32>
  %d = tensor.concat dim(0) %f, %g : (tensor<2xf32>, tensor<2xf32>) -> tensor<4xf32>
  %p = "qcc.quantize"(%c) : (tensor<4xf32>) -> tensor<4x!x>
  %q = "qcc.quantize"(%d) : (tensor<4xf32>) -> tensor<4x!x>
  return %p, %q : tensor<4x!x>, tensor<4x!x>
}

// A relu before an operation that is not quantize becomes a clamp of the stored integers; 0.3 is between two steps and stays.
// CHECK-LABEL: @clamp
// CHECK: %[[R:.*]] = "qcc.requantize"(%arg0) {clamp = array<i64: 3, 255>, mode = "f32", multiplier = dense<1.000000e+00> : tensor<1xf32>}
// CHECK-NEXT: %[[F:.*]] = "qcc.dequantize"(%[[R]])
// CHECK: qcc.softmax
// CHECK: qcc.clamp
func.func @clamp(%x: tensor<2x!x>) -> (tensor<2xf32>, tensor<2xf32>) {
  %f = "qcc.dequantize"(%x) : (tensor<2x!x>) -> tensor<2xf32>
  %r = "qcc.clamp"(%f) {min = 0.0, max = 0x7FF0000000000000 : f64} : (tensor<2xf32>) -> tensor<2xf32>
  %s = "qcc.softmax"(%r) {axis = 0 : i64} : (tensor<2xf32>) -> tensor<2xf32>
  %c = "qcc.clamp"(%f) {min = 0.0, max = 0.3} : (tensor<2xf32>) -> tensor<2xf32>
  return %s, %c : tensor<2xf32>, tensor<2xf32>
}

// A relu between a concatenation and its quantize goes along, so that each operand is clamped while it is rescaled.
// CHECK-LABEL: @clamped_concat
// CHECK-COUNT-2: qcc.clamp
// CHECK: %[[Y:.*]] = tensor.concat {{.*}} -> tensor<4x!
// CHECK-NEXT: return %[[Y]]
func.func @clamped_concat(%x: tensor<2x!x>, %z: tensor<2x!y>) -> tensor<4x!x> {
  %f = "qcc.dequantize"(%x) : (tensor<2x!x>) -> tensor<2xf32>
  %g = "qcc.dequantize"(%z) : (tensor<2x!y>) -> tensor<2xf32>
  %c = tensor.concat dim(0) %f, %g : (tensor<2xf32>, tensor<2xf32>) -> tensor<4xf32>
  %r = "qcc.clamp"(%c) {min = 0.0, max = 6.0} : (tensor<4xf32>) -> tensor<4xf32>
  %q = "qcc.quantize"(%r) : (tensor<4xf32>) -> tensor<4x!x>
  return %q : tensor<4x!x>
}

// Rows of a quantized table are looked up before they become real.
// CHECK-LABEL: @embedding
// CHECK: %[[R:.*]] = "qcc.embedding"(%arg0, %arg1) : {{.*}} -> tensor<4x2x!
// CHECK-NEXT: "qcc.dequantize"(%[[R]])
func.func @embedding(%t: tensor<9x2x!x>, %ids: tensor<4xi64>) -> tensor<4x2xf32> {
  %f = "qcc.dequantize"(%t) : (tensor<9x2x!x>) -> tensor<9x2xf32>
  %y = "qcc.embedding"(%f, %ids) : (tensor<9x2xf32>, tensor<4xi64>) -> tensor<4x2xf32>
  return %y : tensor<4x2xf32>
}
