// RUN: qcc-opt %s --pass-pipeline='builtin.module(factor-low-rank{isa=avx2})' | filecheck %s
// RUN: qcc-opt %s --pass-pipeline='builtin.module(factor-low-rank{isa=avx2})' --print-remarks 2>&1 | filecheck %s --check-prefix=FACTS
// RUN: qcc-opt %s --pass-pipeline='builtin.module(factor-low-rank{isa=avx2 enabled=false})' | filecheck %s --check-prefix=OFF

// All weights are equal: rank 1. The bias belongs to the second layer, which keeps the name.
// CHECK-LABEL: @linear
// CHECK: %[[V:.*]] = "qcc.constant"() {{.*}} -> tensor<1x256xf32>
// CHECK: %[[H:.*]] = "qcc.linear"(%arg0, %[[V]])
// CHECK: %[[U:.*]] = "qcc.constant"() {{.*}} -> tensor<128x1xf32>
// CHECK: "qcc.linear"(%[[H]], %[[U]], %arg1)
// FACTS-DAG: linear: low_rank = rank 1 of 128: two layers have 85.3x fewer weights, predicted {{.*}}x as fast
// OFF-LABEL: @linear
// OFF: tensor<128x256xf32>
// OFF-NOT: tensor<128x1xf32>
func.func @linear(%x: tensor<8x256xf32>, %b: tensor<128xf32>) -> tensor<8x128xf32> {
  %w = "qcc.constant"() {value = dense<0.7> : tensor<128x256xf32>} : () -> tensor<128x256xf32>
  %y = "qcc.linear"(%x, %w, %b) : (tensor<8x256xf32>, tensor<128x256xf32>, tensor<128xf32>) -> tensor<8x128xf32> loc("linear")
  return %y : tensor<8x128xf32>
}

// Of rank 1 in every way: the input channels go first, then the kernel of what is left is cut from the output channels.
// CHECK-LABEL: @conv
// CHECK: -> tensor<1x64x1x1xf32>
// CHECK: -> tensor<1x1x3x3xf32>
// CHECK: "qcc.conv2d"{{.*}} padding = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>}{{.*}} -> tensor<1x1x7x7xf32>
// CHECK: -> tensor<64x1x1x1xf32>
// CHECK: "qcc.conv2d"
// CHECK-NOT: "qcc.conv2d"
// FACTS-DAG: conv: low_rank = rank 1 of 64: {{.*}}; then rank 1 of 9: two layers
func.func @conv(%x: tensor<1x64x14x14xf32>) -> tensor<1x64x7x7xf32> {
  %w = "qcc.constant"() {value = dense<0.7> : tensor<64x64x3x3xf32>} : () -> tensor<64x64x3x3xf32>
  %y = "qcc.conv2d"(%x, %w) {strides = array<i64: 2, 2>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1} : (tensor<1x64x14x14xf32>, tensor<64x64x3x3xf32>) -> tensor<1x64x7x7xf32> loc("conv")
  return %y : tensor<1x64x7x7xf32>
}

// Quantized weights and computed ones stay.
// CHECK-LABEL: @stay
// CHECK-COUNT-2: "qcc.linear"
// CHECK-NOT: "qcc.linear"
func.func @stay(%x: tensor<8x64xf32>, %v: tensor<64x64xf32>) -> tensor<8x64xf32> {
  %c = "qcc.constant"() {value = dense<3> : tensor<64x64xi8>} : () -> tensor<64x64x!quant.uniform<i8:f32, 0.5>>
  %w = "qcc.dequantize"(%c) : (tensor<64x64x!quant.uniform<i8:f32, 0.5>>) -> tensor<64x64xf32>
  %h = "qcc.linear"(%x, %w) : (tensor<8x64xf32>, tensor<64x64xf32>) -> tensor<8x64xf32>
  %y = "qcc.linear"(%h, %v) : (tensor<8x64xf32>, tensor<64x64xf32>) -> tensor<8x64xf32>
  return %y : tensor<8x64xf32>
}
