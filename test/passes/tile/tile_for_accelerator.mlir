// RUN: qcc-opt %s --split-input-file --verify-diagnostics --pass-pipeline='builtin.module(tile-for-accelerator{rows=2 columns=2 word-bits=32 output-words=8})' | filecheck %s

!x = !quant.uniform<u4:f32, 0.5:3>
!w = !quant.uniform<i8:f32, 0.5>

// A linear layer becomes one nest of tiles. Weights from -2 to 3 take 3 planes, whatever their type says.
// CHECK: qcc.accelerator = {{.*}}word_bits = 32
// CHECK: @accelerator_1(tensor<{{.*}}qtile.inputs = [{
// CHECK: @accelerator_1_tiles
// CHECK: %[[X:.*]] = "qtile.buffer"() {{.*}}space = "input"
// CHECK: %[[Y:.*]] = "qtile.buffer"() {{.*}}space = "output"
// CHECK: %[[W:.*]] = "qtile.buffer"() {{.*}}space = "weights"
// CHECK: "qtile.matmul_tiles"(%[[X]], %[[W]], %[[Y]])
// CHECK-SAME: planes = 4 : i64{{.*}}weight_planes = 3 : i64, weight_signed = 1 : i64
func.func private @accelerator_1(%q: tensor<2x3x!x>) -> tensor<2x2x!x> attributes {qcc.segment = "accelerator"} {
  %w = "qcc.constant"() {value = dense<[[1, -2, 3], [1, 2, -2]]> : tensor<2x3xi8>} : () -> tensor<2x3x!w>
  %a = "qcc.linear"(%q, %w) : (tensor<2x3x!x>, tensor<2x3x!w>) -> tensor<2x2xi32>
  %r = "qcc.requantize"(%a) {mode = "fixed", multiplier = dense<5> : tensor<1xi32>, shift = dense<3> : tensor<1xi32>, rounding = "half_away"} : (tensor<2x2xi32>) -> tensor<2x2x!x>
  return %r : tensor<2x2x!x>
}

// -----

!x = !quant.uniform<u4:f32, 0.5:3>
!w = !quant.uniform<i8:f32, 0.5>

// Weights that are all -1 or 1 take one bipolar plane.
// CHECK: bipolar = 1 : i64{{.*}}weight_planes = 1 : i64
func.func private @accelerator_1(%q: tensor<2x3x!x>) -> tensor<2x2x!x> attributes {qcc.segment = "accelerator"} {
  %w = "qcc.constant"() {value = dense<[[1, -1, 1], [1, 1, -1]]> : tensor<2x3xi8>} : () -> tensor<2x3x!w>
  %a = "qcc.linear"(%q, %w) : (tensor<2x3x!x>, tensor<2x3x!w>) -> tensor<2x2xi32>
  %r = "qcc.requantize"(%a) {mode = "fixed", multiplier = dense<5> : tensor<1xi32>, shift = dense<3> : tensor<1xi32>, rounding = "half_away"} : (tensor<2x2xi32>) -> tensor<2x2x!x>
  return %r : tensor<2x2x!x>
}

// -----

!x = !quant.uniform<u4:f32, 0.5:3>
!w = !quant.uniform<i8:f32, 0.5>

// A raw accumulator of 32 planes does not fit an output buffer of 8 words.
func.func private @accelerator_1(%q: tensor<2x3x!x>) -> tensor<2x2xi32> attributes {qcc.segment = "accelerator"} {
  %w = "qcc.constant"() {value = dense<[[1, -2, 3], [1, 2, -2]]> : tensor<2x3xi8>} : () -> tensor<2x3x!w>
  // expected-error @+1 {{one word of 32 channels with 32 planes needs more than the accelerator's 8 output words}}
  %a = "qcc.linear"(%q, %w) : (tensor<2x3x!x>, tensor<2x3x!w>) -> tensor<2x2xi32>
  return %a : tensor<2x2xi32>
}

// -----

!x = !quant.uniform<u4:f32, 0.5:3>
!w = !quant.uniform<i8:f32, 0.5>

// Of an input with few channels the driver packs whole windows, so the layer reads one word of 8 bits per pixel.
// CHECK: qtile.inputs = [{{.*}}gather = {{.*}}kernel = array<i64: 2, 2>{{.*}}value = 3 : i64
// CHECK-SAME: shape = array<i64: 1, 8, 3, 3>
// CHECK: window = {{.*}}kernel = array<i64: 1, 1>
func.func private @accelerator_1(%q: tensor<1x2x4x4x!x>) -> tensor<1x1x3x3x!x> attributes {qcc.segment = "accelerator"} {
  %w = "qcc.constant"() {value = dense<[[[[1, -2], [3, 1]], [[1, -2], [3, 1]]]]> : tensor<1x2x2x2xi8>} : () -> tensor<1x2x2x2x!w>
  %a = "qcc.conv2d"(%q, %w) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x2x4x4x!x>, tensor<1x2x2x2x!w>) -> tensor<1x1x3x3xi32>
  %r = "qcc.requantize"(%a) {mode = "fixed", multiplier = dense<5> : tensor<1xi32>, shift = dense<3> : tensor<1xi32>, rounding = "half_away"} : (tensor<1x1x3x3xi32>) -> tensor<1x1x3x3x!x>
  return %r : tensor<1x1x3x3x!x>
}
