// RUN: qcc-opt %s --pass-pipeline='builtin.module(select-sparse-format{formats=n:m+block+bitmap+channel})' | filecheck %s
// RUN: qcc-opt %s --pass-pipeline='builtin.module(select-sparse-format)' --print-remarks 2>&1 | filecheck %s --check-prefix=FACTS
// RUN: qcc-opt %s --pass-pipeline='builtin.module(select-sparse-format)' | filecheck %s --check-prefix=NONE
// RUN: qcc-opt %s --pass-pipeline='builtin.module(select-sparse-format{formats=bitmap density=0.1})' | filecheck %s --check-prefix=NONE
// RUN: qcc-opt %s --pass-pipeline='builtin.module(select-sparse-format{formats=bitmap density=0.1 optimize=size})' | filecheck %s --check-prefix=SIZE

// A target without code for a format keeps the dense form, and so does one for which the density is above the break-even.
// NONE-NOT: qcc.sparse

!x = !quant.uniform<u8:f32, 1.000000e+00>
!w = !quant.uniform<i8:f32, 1.000000e+00>
!z = !quant.uniform<i8:f32, 1.000000e+00:3>

// Two of four neighbours: 4 bytes of index and 16 of values instead of 32.
// CHECK-LABEL: @two_of_four
// CHECK: #qcc.sparse<"n:m", {axis = 1 : i64, m = 4 : i64, n = 2 : i64}, "raw">
// SIZE-LABEL: @two_of_four
// SIZE: #qcc.sparse<"bitmap", {}, "raw">
func.func @two_of_four(%x: tensor<1x8x!x>) -> tensor<1x4xi32> {
  %w = "qcc.constant"() {value = dense<[[1, 0, 2, 0, 0, 3, 0, 4], [0, 0, 1, 1, 1, 0, 0, 1], [1, 1, 0, 0, 0, 1, 0, 1], [0, 1, 1, 0, 1, 0, 1, 0]]> : tensor<4x8xi8>} : () -> tensor<4x8x!w>
  %a = "qcc.linear"(%x, %w) : (tensor<1x8x!x>, tensor<4x8x!w>) -> tensor<1x4xi32>
  return %a : tensor<1x4xi32>
}

// Zero is the zero point: a channel of 3 is empty, the others have no 3.
// CHECK-LABEL: @empty_channel
// CHECK: #qcc.sparse<"channel", {axis = 0 : i64}, "raw">
func.func @empty_channel(%x: tensor<1x8x!x>) -> tensor<1x2xi32> {
  %w = "qcc.constant"() {value = dense<[[3, 3, 3, 3, 3, 3, 3, 3], [0, 1, 2, 1, 0, 5, 6, 7]]> : tensor<2x8xi8>} : () -> tensor<2x8x!z>
  %a = "qcc.linear"(%x, %w) : (tensor<1x8x!x>, tensor<2x8x!z>) -> tensor<1x2xi32>
  return %a : tensor<1x2xi32>
}

// Without zeros nothing is to be saved.
// CHECK-LABEL: @full
// CHECK-NOT: qcc.sparse
// FACTS: full: {{.*}}storage{{.*}}dense{{.*}}no sparse form saves 10%: dense takes 8 of 8 bytes
func.func @full(%x: tensor<1x8x!x>) -> tensor<1x1xi32> {
  %w = "qcc.constant"() {value = dense<5> : tensor<1x8xi8>} : () -> tensor<1x8x!w>
  %a = "qcc.linear"(%x, %w) : (tensor<1x8x!x>, tensor<1x8x!w>) -> tensor<1x1xi32> loc("full")
  return %a : tensor<1x1xi32>
}
