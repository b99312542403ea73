// RUN: qcc-opt %s --split-input-file --pass-pipeline='builtin.module(partition-accelerator)' | filecheck %s

!x = !quant.uniform<u8:f32, 0.5:3>
!w = !quant.uniform<i4:f32, 0.5>

// Products and their requantize run on the accelerator, real functions around them on the host.
// CHECK-LABEL: @main
// CHECK-NEXT: %[[Q:.*]] = call @host_0(%arg0)
// CHECK-NEXT: %[[R:.*]] = call @accelerator_1(%[[Q]])
// CHECK-NEXT: %[[S:.*]] = call @host_2(%[[R]])
// CHECK-NEXT: return %[[S]]
// CHECK: @host_0({{.*}} attributes {qcc.segment = "host"}
// CHECK-NEXT: qcc.quantize
// CHECK-NEXT: return
// CHECK: @accelerator_1({{.*}} attributes {qcc.segment = "accelerator"}
// CHECK-NEXT: qcc.constant
// CHECK-NEXT: qcc.linear
// CHECK-NEXT: qcc.requantize
// CHECK-NEXT: return
// CHECK: @host_2
// CHECK-NEXT: qcc.dequantize
// CHECK-NEXT: qcc.softmax
func.func @main(%x: tensor<2x3xf32>) -> tensor<2x2xf32> {
  %w = "qcc.constant"() {value = dense<[[1, -2, 3], [4, 5, -6]]> : tensor<2x3xi8>} : () -> tensor<2x3x!w>
  %q = "qcc.quantize"(%x) : (tensor<2x3xf32>) -> tensor<2x3x!x>
  %a = "qcc.linear"(%q, %w) : (tensor<2x3x!x>, tensor<2x3x!w>) -> tensor<2x2xi32>
  %r = "qcc.requantize"(%a) {mode = "fixed", multiplier = dense<5> : tensor<1xi32>, shift = dense<3> : tensor<1xi32>, rounding = "half_away"} : (tensor<2x2xi32>) -> tensor<2x2x!x>
  %f = "qcc.dequantize"(%r) : (tensor<2x2x!x>) -> tensor<2x2xf32>
  %s = "qcc.softmax"(%f) {axis = 1 : i64} : (tensor<2x2xf32>) -> tensor<2x2xf32>
  return %s : tensor<2x2xf32>
}

// -----

!x = !quant.uniform<u8:f32, 0.5:3>
!w = !quant.uniform<i4:f32, 0.5>

// A requantize in mode f32 stays on the host; the accumulator comes back.
// CHECK-LABEL: @main
// CHECK: call @accelerator_1
// CHECK-SAME: -> tensor<2x2xi32>
// CHECK: call @host_2
func.func @main(%q: tensor<2x3x!x>) -> tensor<2x2x!x> {
  %w = "qcc.constant"() {value = dense<[[1, -2, 3], [4, 5, -6]]> : tensor<2x3xi8>} : () -> tensor<2x3x!w>
  %a = "qcc.linear"(%q, %w) : (tensor<2x3x!x>, tensor<2x3x!w>) -> tensor<2x2xi32>
  %r = "qcc.requantize"(%a) {mode = "f32", multiplier = dense<0.5> : tensor<1xf32>} : (tensor<2x2xi32>) -> tensor<2x2x!x>
  return %r : tensor<2x2x!x>
}

// -----

!x = !quant.uniform<u8:f32, 0.5:3>
!w = !quant.uniform<i4:f32, 0.5>

// A transpose between layers that reduce over different axes moves bits, so it is done by the host.
// CHECK-LABEL: @main
// CHECK: call @accelerator_1
// CHECK: call @host_2
// CHECK: call @accelerator_3
// CHECK: @host_2
// CHECK-NEXT: qcc.transpose
// CHECK-NEXT: return
func.func @main(%q: tensor<2x2x!x>) -> tensor<2x2xi32> {
  %w = "qcc.constant"() {value = dense<[[1, -2], [4, 5]]> : tensor<2x2xi8>} : () -> tensor<2x2x!w>
  %a = "qcc.linear"(%q, %w) : (tensor<2x2x!x>, tensor<2x2x!w>) -> tensor<2x2xi32>
  %r = "qcc.requantize"(%a) {mode = "fixed", multiplier = dense<5> : tensor<1xi32>, shift = dense<3> : tensor<1xi32>, rounding = "half_away"} : (tensor<2x2xi32>) -> tensor<2x2x!x>
  %t = "qcc.transpose"(%r) {permutation = array<i64: 1, 0>} : (tensor<2x2x!x>) -> tensor<2x2x!x>
  %b = "qcc.linear"(%t, %w) : (tensor<2x2x!x>, tensor<2x2x!w>) -> tensor<2x2xi32>
  return %b : tensor<2x2xi32>
}

// -----

!x = !quant.uniform<u8:f32, 0.5:3>

// An addition in mode fixed runs on the accelerator, also alone; of a constant it takes one that varies along channels only.
// CHECK-LABEL: @main
// CHECK-NEXT: call @accelerator_1
// CHECK-NEXT: call @host_2
// CHECK: @accelerator_1
// CHECK: qcc.add
// CHECK: qcc.add
// CHECK-NEXT: return
// CHECK: @host_2
// CHECK: qcc.add
// CHECK-NEXT: return
func.func @main(%a: tensor<2x2x!x>, %b: tensor<2x2x!x>) -> tensor<2x2x!x> {
  %c = "qcc.constant"() {value = dense<[1, 2]> : tensor<2xui8>} : () -> tensor<2x!x>
  %d = "qcc.constant"() {value = dense<[[1], [2]]> : tensor<2x1xui8>} : () -> tensor<2x1x!x>
  %x = "qcc.add"(%a, %b) {mode = "fixed", multipliers = dense<[3, 5]> : tensor<2xi32>, shift = dense<3> : tensor<1xi32>, rounding = "half_even"} : (tensor<2x2x!x>, tensor<2x2x!x>) -> tensor<2x2x!x>
  %y = "qcc.add"(%c, %x) {mode = "fixed", multipliers = dense<[3, 5]> : tensor<2xi32>, shift = dense<3> : tensor<1xi32>, rounding = "half_even"} : (tensor<2x!x>, tensor<2x2x!x>) -> tensor<2x2x!x>
  %z = "qcc.add"(%y, %d) {mode = "fixed", multipliers = dense<[3, 5]> : tensor<2xi32>, shift = dense<3> : tensor<1xi32>, rounding = "half_even"} : (tensor<2x2x!x>, tensor<2x1x!x>) -> tensor<2x2x!x>
  return %z : tensor<2x2x!x>
}
