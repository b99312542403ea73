// RUN: qcc-opt %s --pass-pipeline='builtin.module(slice-batch)' --split-input-file | filecheck %s

// Four images of 1.6 MB leave the cache: quantize, product and requantize run image by image, and the two are not torn apart.
// CHECK: func.func private @slice_0(%[[X:.*]]: tensor<1x32x224x224xf32>) -> tensor<1x32x224x224x!quant
// CHECK: "qcc.quantize"(%[[X]])
// CHECK: "qcc.conv2d"
// CHECK: %[[R:.*]] = "qcc.requantize"
// CHECK-NEXT: return %[[R]]
// CHECK: func.func @main(%[[A:.*]]: tensor<4x
// CHECK: %[[Y:.*]] = "qtile.for_each_slice"(%[[A]]) {callee = @slice_0, count = 4 : i64}
// CHECK-NEXT: return %[[Y]]
func.func @main(%x: tensor<4x32x224x224xf32>) -> tensor<4x32x224x224x!quant.uniform<i8:f32, 0.25>> {
  %w = "qcc.constant"() {value = dense<3> : tensor<32x32x3x3xi8>} : () -> tensor<32x32x3x3x!quant.uniform<i8:f32, 0.1>>
  %q = "qcc.quantize"(%x) : (tensor<4x32x224x224xf32>) -> tensor<4x32x224x224x!quant.uniform<u8:f32, 0.5>>
  %a = "qcc.conv2d"(%q, %w) {padding = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<4x32x224x224x!quant.uniform<u8:f32, 0.5>>, tensor<32x32x3x3x!quant.uniform<i8:f32, 0.1>>) -> tensor<4x32x224x224xi32>
  %r = "qcc.requantize"(%a) {multiplier = dense<0.1> : tensor<1xf32>, mode = "f32"} : (tensor<4x32x224x224xi32>) -> tensor<4x32x224x224x!quant.uniform<i8:f32, 0.25>>
  return %r : tensor<4x32x224x224x!quant.uniform<i8:f32, 0.25>>
}

// -----

// What fits in the cache stays whole.
// CHECK-NOT: for_each_slice
// CHECK: func.func @main(%{{.*}}: tensor<4x32x8x8x
// CHECK-NOT: for_each_slice
// CHECK: return
func.func @main(%q: tensor<4x32x8x8x!quant.uniform<u8:f32, 0.5>>) -> tensor<4x32x8x8x!quant.uniform<i8:f32, 0.25>> {
  %w = "qcc.constant"() {value = dense<3> : tensor<32x32x1x1xi8>} : () -> tensor<32x32x1x1x!quant.uniform<i8:f32, 0.1>>
  %a = "qcc.conv2d"(%q, %w) {padding = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64} : (tensor<4x32x8x8x!quant.uniform<u8:f32, 0.5>>, tensor<32x32x1x1x!quant.uniform<i8:f32, 0.1>>) -> tensor<4x32x8x8xi32>
  %r = "qcc.requantize"(%a) {multiplier = dense<0.1> : tensor<1xf32>, mode = "f32"} : (tensor<4x32x8x8xi32>) -> tensor<4x32x8x8x!quant.uniform<i8:f32, 0.25>>
  return %r : tensor<4x32x8x8x!quant.uniform<i8:f32, 0.25>>
}

// -----

// A sum along the batch mixes images.
// CHECK-NOT: for_each_slice
// CHECK: func.func @main(%{{.*}}: tensor<4x32x224x224xf32>
// CHECK-NOT: for_each_slice
// CHECK: return
func.func @main(%x: tensor<4x32x224x224xf32>) -> tensor<1x32x224x224xf32> {
  %y = "qcc.reduce"(%x) {kind = "sum", axes = array<i64: 0>, keepdims = true} : (tensor<4x32x224x224xf32>) -> tensor<1x32x224x224xf32>
  return %y : tensor<1x32x224x224xf32>
}
