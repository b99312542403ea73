// RUN: qcc-opt %s --pass-pipeline='builtin.module(outline-generic)' | filecheck %s

// Generic operations that feed each other share one function; the constant they use moves along, the other becomes qcc.constant.
// CHECK-LABEL: func.func @group
// CHECK: %[[C:.*]] = "qcc.constant"() {value = dense<2.000000e+00> : tensor<4xf32>}
// CHECK: %[[A:.*]] = "qcc.clamp"(%arg0)
// CHECK: %[[G:.*]] = call @generic_0(%[[A]]) {qcc.generic = "math.sin, math.cos, arith.addf: no codelet"}
// CHECK: "qcc.add"(%[[G]], %[[C]])
func.func @group(%x: tensor<4xf32>) -> tensor<4xf32> {
  %two = arith.constant dense<2.0> : tensor<4xf32>
  %one = arith.constant dense<1.0> : tensor<4xf32>
  %0 = "qcc.clamp"(%x) {min = 0.0, max = 6.0} : (tensor<4xf32>) -> tensor<4xf32>
  %1 = math.sin %0 : tensor<4xf32>
  %2 = math.cos %1 : tensor<4xf32>
  %3 = arith.addf %2, %one : tensor<4xf32>
  %4 = "qcc.add"(%3, %two) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %4 : tensor<4xf32>
}

// A qcc operation between two generic ones keeps them apart: one function would need its own result.
// CHECK-LABEL: func.func @diamond
// CHECK: %[[S:.*]] = call @generic_1(%arg0)
// CHECK: %[[Q:.*]] = "qcc.clamp"(%[[S]])
// CHECK: call @generic_2(%[[S]], %[[Q]])
func.func @diamond(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = math.sin %x : tensor<4xf32>
  %1 = "qcc.clamp"(%0) {min = 0.0, max = 6.0} : (tensor<4xf32>) -> tensor<4xf32>
  %2 = arith.addf %0, %1 : tensor<4xf32>
  return %2 : tensor<4xf32>
}

// Operations are put in order where a group starts before and ends after an independent qcc operation that feeds it.
// CHECK-LABEL: func.func @order
// CHECK: "qcc.clamp"(%arg1)
// CHECK: %[[G:.*]]:2 = call @generic_3(%{{.*}}, %{{.*}})
// CHECK: "qcc.clamp"(%[[G]]#0)
func.func @order(%x: tensor<4xf32>, %y: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %x1 = "qcc.clamp"(%x) {min = 0.0, max = 6.0} : (tensor<4xf32>) -> tensor<4xf32>
  %0 = math.sin %x1 : tensor<4xf32>
  %1 = "qcc.clamp"(%0) {min = 0.0, max = 6.0} : (tensor<4xf32>) -> tensor<4xf32>
  %y1 = "qcc.clamp"(%y) {min = 0.0, max = 6.0} : (tensor<4xf32>) -> tensor<4xf32>
  %2 = arith.addf %0, %y1 : tensor<4xf32>
  return %1, %2 : tensor<4xf32>, tensor<4xf32>
}

// A scalar computed from a tensor is computed again where it is needed; only tensors cross a call.
// CHECK-LABEL: func.func @scalar
// CHECK: call @generic_4(%arg0)
// CHECK-NOT: tensor.extract
// CHECK: return
func.func @scalar(%x: tensor<4xf32>) -> tensor<4xf32> {
  %i = arith.constant 1 : index
  %s = tensor.extract %x[%i] : tensor<4xf32>
  %t = tensor.splat %s : tensor<4xf32>
  %0 = arith.addf %x, %t : tensor<4xf32>
  return %0 : tensor<4xf32>
}

// The functions stand behind the model; empty tensors are made inside.
// CHECK: func.func private @generic_0
// CHECK: arith.constant dense<1.000000e+00>
