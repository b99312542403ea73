// RUN: qcc-opt %s --pass-pipeline='builtin.module(remove-zero-channels)' | filecheck %s
// RUN: qcc-opt %s --pass-pipeline='builtin.module(remove-zero-channels{granule=4})' | filecheck %s --check-prefix=GRANULE
// RUN: qcc-opt %s --pass-pipeline='builtin.module(remove-zero-channels)' --print-remarks 2>&1 | filecheck %s --check-prefix=FACTS

!x = !quant.uniform<u8:f32, 1.000000e+00>
!w = !quant.uniform<i8:f32, 1.000000e+00>

// The second of three outputs is 0, the third is its bias 5, which goes into the next layer's bias: 7 + 5 * 2.
// CHECK-LABEL: @constants
// CHECK: dense<{{\[}}[1, 2]]> : tensor<1x2xi8>
// CHECK: "qcc.requantize"{{.*}} -> tensor<1x1x!quant
// CHECK: dense<3> : tensor<1x1xi8>
// CHECK: dense<17> : tensor<1xi32>
// CHECK: "qcc.linear"({{.*}}) : (tensor<1x1x!quant.uniform<u8:f32, 1.000000e+00>>, {{.*}} -> tensor<1x1xi32>
// Three channels cannot become a multiple of four.
// GRANULE-LABEL: @constants
// GRANULE: -> tensor<1x3xi32>
// FACTS: layer: channels = 3, channels_removed = 2, inputs_removed = 0
func.func @constants(%x: tensor<1x2x!x>) -> tensor<1x1xi32> {
  %w = "qcc.constant"() {value = dense<[[1, 2], [0, 0], [0, 0]]> : tensor<3x2xi8>} : () -> tensor<3x2x!w>
  %b = "qcc.constant"() {value = dense<[1, 0, 5]> : tensor<3xi32>} : () -> tensor<3xi32>
  %a = "qcc.linear"(%x, %w, %b) : (tensor<1x2x!x>, tensor<3x2x!w>, tensor<3xi32>) -> tensor<1x3xi32> loc("layer")
  %q = "qcc.requantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>, mode = "f32"} : (tensor<1x3xi32>) -> tensor<1x3x!x>
  %v = "qcc.constant"() {value = dense<[[3, 4, 2]]> : tensor<1x3xi8>} : () -> tensor<1x3x!w>
  %c = "qcc.constant"() {value = dense<7> : tensor<1xi32>} : () -> tensor<1xi32>
  %y = "qcc.linear"(%q, %v, %c) : (tensor<1x3x!x>, tensor<1x3x!w>, tensor<1xi32>) -> tensor<1x1xi32>
  return %y : tensor<1x1xi32>
}

// Outside of the image the padded layer reads 0, inside 5: the channel stays. The one of 0 leaves.
// CHECK-LABEL: @padded
// CHECK: "qcc.requantize"{{.*}} -> tensor<1x2x2x2x!quant
func.func @padded(%x: tensor<1x1x2x2x!x>) -> tensor<1x1x2x2xi32> {
  %w = "qcc.constant"() {value = dense<[[[[1]]], [[[0]]], [[[0]]]]> : tensor<3x1x1x1xi8>} : () -> tensor<3x1x1x1x!w>
  %b = "qcc.constant"() {value = dense<[1, 0, 5]> : tensor<3xi32>} : () -> tensor<3xi32>
  %a = "qcc.conv2d"(%x, %w, %b) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x2x2x!x>, tensor<3x1x1x1x!w>, tensor<3xi32>) -> tensor<1x3x2x2xi32>
  %q = "qcc.requantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>, mode = "f32"} : (tensor<1x3x2x2xi32>) -> tensor<1x3x2x2x!x>
  %v = "qcc.constant"() {value = dense<1> : tensor<1x3x3x3xi8>} : () -> tensor<1x3x3x3x!w>
  %y = "qcc.conv2d"(%q, %v) {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x3x2x2x!x>, tensor<1x3x3x3x!w>) -> tensor<1x1x2x2xi32>
  return %y : tensor<1x1x2x2xi32>
}

// A channel that every reader multiplies by zero is not needed, and neither is what only it reads.
// CHECK-LABEL: @unread
// CHECK: dense<1> : tensor<1x2xi8>
// CHECK: dense<1> : tensor<1x1xi8>
func.func @unread(%x: tensor<1x2x!x>) -> tensor<1x1xi32> {
  %w = "qcc.constant"() {value = dense<1> : tensor<3x2xi8>} : () -> tensor<3x2x!w>
  %a = "qcc.linear"(%x, %w) : (tensor<1x2x!x>, tensor<3x2x!w>) -> tensor<1x3xi32>
  %q = "qcc.requantize"(%a) {multiplier = dense<1.0> : tensor<1xf32>, mode = "f32"} : (tensor<1x3xi32>) -> tensor<1x3x!x>
  %v = "qcc.constant"() {value = dense<[[0, 1, 0]]> : tensor<1x3xi8>} : () -> tensor<1x3x!w>
  %y = "qcc.linear"(%q, %v) : (tensor<1x3x!x>, tensor<1x3x!w>) -> tensor<1x1xi32>
  return %y : tensor<1x1xi32>
}

// The results of the function keep their channels.
// CHECK-LABEL: @result
// CHECK: return %{{.*}} : tensor<1x2xi32>
func.func @result(%x: tensor<1x2x!x>) -> tensor<1x2xi32> {
  %w = "qcc.constant"() {value = dense<0> : tensor<2x2xi8>} : () -> tensor<2x2x!w>
  %a = "qcc.linear"(%x, %w) : (tensor<1x2x!x>, tensor<2x2x!w>) -> tensor<1x2xi32>
  return %a : tensor<1x2xi32>
}
