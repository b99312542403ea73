// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-padding)' | filecheck %s

!x = !quant.uniform<u8:f32, 1.000000e+00:7>
!w = !quant.uniform<i8:f32, 1.000000e+00>

// What a convolution has already is added to; whoever else reads the padded image keeps it.
// CHECK-LABEL: @same
// CHECK: qcc.pad
// CHECK-NOT: qcc.pad
// CHECK: "qcc.conv2d"(%arg0, %{{.*}}) {{.*}}padding = array<i64: 0, 1, 2, 3>
// CHECK: "qcc.max_pool2d"
func.func @same(%x: tensor<1x1x4x4x!x>) -> (tensor<1x1x4x6xi32>, tensor<1x1x4x4x!x>) {
  %w = "qcc.constant"() {value = dense<1> : tensor<1x1x3x3xi8>} : () -> tensor<1x1x3x3x!w>
  %p = "qcc.pad"(%x) {low = array<i64: 0, 0, 0, 0>, high = array<i64: 0, 0, 1, 1>, value = 0.0 : f64} : (tensor<1x1x4x4x!x>) -> tensor<1x1x5x5x!x>
  %q = "qcc.pad"(%p) {low = array<i64: 0, 0, 0, 1>, high = array<i64: 0, 0, 1, 1>, value = 0.0 : f64} : (tensor<1x1x5x5x!x>) -> tensor<1x1x6x7x!x>
  %a = "qcc.conv2d"(%q, %w) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x6x7x!x>, tensor<1x1x3x3x!w>) -> tensor<1x1x4x6xi32>
  %m = "qcc.max_pool2d"(%p) {kernel = array<i64: 2, 2>, strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>} : (tensor<1x1x5x5x!x>) -> tensor<1x1x4x4x!x>
  return %a, %m : tensor<1x1x4x6xi32>, tensor<1x1x4x4x!x>
}

// Ones around an image and more channels are no padding.
// CHECK-LABEL: @others
// CHECK: qcc.pad
// CHECK: padding = array<i64: 0, 0, 0, 0>
// CHECK: qcc.pad
// CHECK: padding = array<i64: 0, 0, 0, 0>
func.func @others(%x: tensor<1x1x4x4xf32>) -> (tensor<1x1x5x5xf32>, tensor<1x1x4x4xf32>) {
  %w = "qcc.constant"() {value = dense<1.0> : tensor<1x1x1x1xf32>} : () -> tensor<1x1x1x1xf32>
  %v = "qcc.constant"() {value = dense<1.0> : tensor<1x2x1x1xf32>} : () -> tensor<1x2x1x1xf32>
  %p = "qcc.pad"(%x) {low = array<i64: 0, 0, 0, 0>, high = array<i64: 0, 0, 1, 1>, value = 1.0 : f64} : (tensor<1x1x4x4xf32>) -> tensor<1x1x5x5xf32>
  %a = "qcc.conv2d"(%p, %w) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x1x5x5xf32>, tensor<1x1x1x1xf32>) -> tensor<1x1x5x5xf32>
  %r = "qcc.pad"(%x) {low = array<i64: 0, 1, 0, 0>, high = array<i64: 0, 0, 0, 0>, value = 0.0 : f64} : (tensor<1x1x4x4xf32>) -> tensor<1x2x4x4xf32>
  %c = "qcc.conv2d"(%r, %v) {strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<1x2x4x4xf32>, tensor<1x2x1x1xf32>) -> tensor<1x1x4x4xf32>
  return %a, %c : tensor<1x1x5x5xf32>, tensor<1x1x4x4xf32>
}

// Of means, what stood around the image counts in the divisor; padding of a mean's own that does not count is of another kind.
// CHECK-LABEL: @means
// CHECK: [[P:%.+]] = "qcc.pad"(%arg0)
// CHECK: "qcc.avg_pool2d"(%arg0) {{.*}}count_include_pad = true{{.*}}padding = array<i64: 0, 0, 1, 1>
// CHECK: "qcc.avg_pool2d"([[P]]) {{.*}}count_include_pad = false{{.*}}padding = array<i64: 1, 1, 1, 1>
func.func @means(%x: tensor<1x1x4x4xf32>) -> (tensor<1x1x4x4xf32>, tensor<1x1x6x6xf32>) {
  %p = "qcc.pad"(%x) {low = array<i64: 0, 0, 0, 0>, high = array<i64: 0, 0, 1, 1>, value = 0.0 : f64} : (tensor<1x1x4x4xf32>) -> tensor<1x1x5x5xf32>
  %a = "qcc.avg_pool2d"(%p) {kernel = array<i64: 2, 2>, strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, count_include_pad = false} : (tensor<1x1x5x5xf32>) -> tensor<1x1x4x4xf32>
  %b = "qcc.avg_pool2d"(%p) {kernel = array<i64: 2, 2>, strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, count_include_pad = false} : (tensor<1x1x5x5xf32>) -> tensor<1x1x6x6xf32>
  return %a, %b : tensor<1x1x4x4xf32>, tensor<1x1x6x6xf32>
}
