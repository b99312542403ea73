// RUN: qcc-opt %s --pass-pipeline='builtin.module(drop-zero-taps{outputs=2})' | filecheck %s
// RUN: qcc-opt %s --pass-pipeline='builtin.module(drop-zero-taps{shift=false})' | filecheck %s --check-prefix=OFF

!x = !quant.uniform<u8:f32, 1.000000e+00:7>
!w = !quant.uniform<i8:f32, 1.000000e+00>

// Nothing but the centre: a 1x1 layer without padding.
// CHECK-LABEL: @centre
// CHECK: dense<5> : tensor<1x1x1x1xi8>
// CHECK: padding = array<i64: 0, 0, 0, 0>
func.func @centre(%x: tensor<1x1x4x4x!x>) -> tensor<1x1x4x4xi32> {
  %w = "qcc.constant"() {value = dense<[[[[0, 0, 0], [0, 5, 0], [0, 0, 0]]]]> : tensor<1x1x3x3xi8>} : () -> tensor<1x1x3x3x!w>
  %a = "qcc.conv2d"(%x, %w) {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x4x4x!x>, tensor<1x1x3x3x!w>) -> tensor<1x1x4x4xi32>
  return %a : tensor<1x1x4x4xi32>
}

// Without padding the rows that nothing reads are cut from x.
// CHECK-LABEL: @unpadded
// CHECK: "qcc.slice"(%{{.*}}) {offsets = array<i64: 0, 0, 0, 2>, {{.*}} -> tensor<1x1x2x2x
func.func @unpadded(%x: tensor<1x1x4x4x!x>) -> tensor<1x1x2x2xi32> {
  %w = "qcc.constant"() {value = dense<[[[[0, 0, 5], [0, 0, 0], [0, 0, 0]]]]> : tensor<1x1x3x3xi8>} : () -> tensor<1x1x3x3x!w>
  %a = "qcc.conv2d"(%x, %w) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x4x4x!x>, tensor<1x1x3x3x!w>) -> tensor<1x1x2x2xi32>
  return %a : tensor<1x1x2x2xi32>
}

// One tap per input channel.
// CHECK-LABEL: @shift
// CHECK: "qcc.conv2d"{{.*}}groups = 2 : i64
// CHECK: "qcc.requantize"{{.*}}dense<1.000000e+00>
// CHECK: "qcc.conv2d"{{.*}}padding = array<i64: 0, 0, 0, 0>
// OFF-LABEL: @shift
// OFF-NOT: qcc.requantize
func.func @shift(%x: tensor<1x2x4x4x!x>) -> tensor<1x2x4x4xi32> {
  %w = "qcc.constant"() {value = dense<[[[[4, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 3]]], [[[1, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 2]]]]> : tensor<2x2x3x3xi8>} : () -> tensor<2x2x3x3x!w>
  %a = "qcc.conv2d"(%x, %w) {strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x2x4x4x!x>, tensor<2x2x3x3x!w>) -> tensor<1x2x4x4xi32>
  return %a : tensor<1x2x4x4xi32>
}
