// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-constants)' | filecheck %s

// A float constant is quantized with ties to even and saturation.
// CHECK-LABEL: @quantize
// CHECK: "qcc.constant"() {value = dense<[0, 2, 2, 127]> : tensor<4xi8>}
// CHECK-NOT: qcc.quantize
func.func @quantize() -> tensor<4x!quant.uniform<i8:f32, 5.000000e-01>> {
  %w = "qcc.constant"() {value = dense<[0.25, 0.75, 1.25, 100.0]> : tensor<4xf32>} : () -> tensor<4xf32>
  %q = "qcc.quantize"(%w) : (tensor<4xf32>) -> tensor<4x!quant.uniform<i8:f32, 5.000000e-01>>
  return %q : tensor<4x!quant.uniform<i8:f32, 5.000000e-01>>
}

// A transposed weight keeps its integers, and its channel axis moves along; the dequantize stays.
// CHECK-LABEL: @transpose_behind_dequantize
// CHECK: "qcc.constant"() {value = dense<{{\[\[}}1, 3, 5], [2, 4, 6]]> : tensor<2x3xi8>}
// CHECK-SAME: tensor<2x3x!quant.uniform<i8:f32:0, {5.000000e-01,2.500000e-01}>>
// CHECK-NEXT: "qcc.dequantize"
// CHECK-NEXT: return
func.func @transpose_behind_dequantize() -> tensor<2x3xf32> {
  %w = "qcc.constant"() {value = dense<[[1, 2], [3, 4], [5, 6]]> : tensor<3x2xi8>} : () -> tensor<3x2x!quant.uniform<i8:f32:1, {0.5,0.25}>>
  %f = "qcc.dequantize"(%w) : (tensor<3x2x!quant.uniform<i8:f32:1, {0.5,0.25}>>) -> tensor<3x2xf32>
  %t = "qcc.transpose"(%f) {permutation = array<i64: 1, 0>} : (tensor<3x2xf32>) -> tensor<2x3xf32>
  return %t : tensor<2x3xf32>
}

// A slice along the channel axis takes the scales of the channels it keeps.
// CHECK-LABEL: @slice_channels
// CHECK: dense<{{\[\[}}2], [3]]> : tensor<2x1xi8>{{.*}}!quant.uniform<i8:f32:0, {2.500000e-01,1.250000e-01}>
func.func @slice_channels() -> tensor<2x1x!quant.uniform<i8:f32:0, {0.25,0.125}>> {
  %w = "qcc.constant"() {value = dense<[[1], [2], [3]]> : tensor<3x1xi8>} : () -> tensor<3x1x!quant.uniform<i8:f32:0, {0.5,0.25,0.125}>>
  %s = "qcc.slice"(%w) {offsets = array<i64: 1, 0>, strides = array<i64: 1, 1>} : (tensor<3x1x!quant.uniform<i8:f32:0, {0.5,0.25,0.125}>>) -> tensor<2x1x!quant.uniform<i8:f32:0, {0.25,0.125}>>
  return %s : tensor<2x1x!quant.uniform<i8:f32:0, {0.25,0.125}>>
}

// Arithmetic on float constants happens in binary32 at compile time.
// CHECK-LABEL: @arithmetic
// CHECK: value = dense<[1.500000e+00, 0.000000e+00]>
// CHECK-NEXT: return
func.func @arithmetic() -> tensor<2xf32> {
  %a = "qcc.constant"() {value = dense<[1.0, -2.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %b = "qcc.constant"() {value = dense<0.5> : tensor<1xf32>} : () -> tensor<1xf32>
  %s = "qcc.add"(%a, %b) : (tensor<2xf32>, tensor<1xf32>) -> tensor<2xf32>
  %y = "qcc.clamp"(%s) {min = 0.0, max = 0x7FF0000000000000 : f64} : (tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}

// A reshape that splits the channel axis is left: the scales would need a new kind of type.
// CHECK-LABEL: @split_axis
// CHECK: qcc.reshape
func.func @split_axis() -> tensor<2x2x1xf32> {
  %w = "qcc.constant"() {value = dense<1> : tensor<4x1xi8>} : () -> tensor<4x1x!quant.uniform<i8:f32:0, {0.5,0.25,1.0,2.0}>>
  %f = "qcc.dequantize"(%w) : (tensor<4x1x!quant.uniform<i8:f32:0, {0.5,0.25,1.0,2.0}>>) -> tensor<4x1xf32>
  %t = "qcc.reshape"(%f) : (tensor<4x1xf32>) -> tensor<2x2x1xf32>
  return %t : tensor<2x2x1xf32>
}

// A bias of 32 bits is as large as floats, and broadcasting and adding know only these.
// CHECK-LABEL: @bias
// CHECK: "qcc.constant"() {value = dense<[1.500000e+00, -1.000000e+00]>
// CHECK-NEXT: return
func.func @bias() -> tensor<2xf32> {
  %b = "qcc.constant"() {value = dense<[3, -4]> : tensor<2xi32>} : () -> tensor<2x!quant.uniform<i32:f32:0, {0.5,0.25}>>
  %f = "qcc.dequantize"(%b) : (tensor<2x!quant.uniform<i32:f32:0, {0.5,0.25}>>) -> tensor<2xf32>
  return %f : tensor<2xf32>
}

// A dequantized weight is not expanded to floats.
// CHECK-LABEL: @keep_weight
// CHECK: qcc.dequantize
func.func @keep_weight() -> tensor<2xf32> {
  %w = "qcc.constant"() {value = dense<[1, 2]> : tensor<2xi8>} : () -> tensor<2x!quant.uniform<i8:f32, 5.000000e-01>>
  %f = "qcc.dequantize"(%w) : (tensor<2x!quant.uniform<i8:f32, 5.000000e-01>>) -> tensor<2xf32>
  return %f : tensor<2xf32>
}

// Blocks of a group-wise type move with their axes.
// CHECK-LABEL: @transpose_of_blocks
// CHECK: value = dense<{{\[\[}}1, 2, 3, 4], [5, 6, 7, 8]]>
// CHECK-SAME: tensor<2x4x!quant.uniform<i8:f32:{0:1, 1:2}, {{[{][{]}}1.000000e+00, 3.000000e+00}, {2.000000e+00, 4.000000e+00{{[}][}]}}>>
func.func @transpose_of_blocks() -> tensor<2x4x!quant.uniform<i8:f32:{0:1, 1:2}, {{1.0, 3.0}, {2.0, 4.0}}>> {
  %w = "qcc.constant"() {value = dense<[[1, 5], [2, 6], [3, 7], [4, 8]]> : tensor<4x2xi8>} : () -> tensor<4x2x!quant.uniform<i8:f32:{0:2, 1:1}, {{1.0, 2.0}, {3.0, 4.0}}>>
  %t = "qcc.transpose"(%w) {permutation = array<i64: 1, 0>} : (tensor<4x2x!quant.uniform<i8:f32:{0:2, 1:1}, {{1.0, 2.0}, {3.0, 4.0}}>>) -> tensor<2x4x!quant.uniform<i8:f32:{0:1, 1:2}, {{1.0, 3.0}, {2.0, 4.0}}>>
  return %t : tensor<2x4x!quant.uniform<i8:f32:{0:1, 1:2}, {{1.0, 3.0}, {2.0, 4.0}}>>
}
