// RUN: qcc-opt %s --pass-pipeline='builtin.module(separate-state)' --split-input-file --verify-diagnostics | filecheck %s

// The last argument and the last result become operations; what the attributes say of inputs and outputs is what is left.
// CHECK-LABEL: func.func @main(%arg0: tensor<4xf32>) -> tensor<4xf32> attributes {qcc.inputs = ["x"], qcc.outputs = ["y"]}
// CHECK-NEXT: %[[S:.*]] = "qcc.read_state"() {state = "sum", value = dense<2.000000e+00> : tensor<4xf32>} : () -> tensor<4xf32>
// CHECK-NEXT: %[[Y:.*]] = "qcc.add"(%[[S]], %arg0)
// CHECK-NEXT: "qcc.write_state"(%[[Y]]) {state = "sum"} : (tensor<4xf32>) -> ()
// CHECK-NEXT: return %[[Y]] : tensor<4xf32>
func.func @main(%x: tensor<4xf32>, %sum: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)
    attributes {qcc.inputs = ["x", "sum"], qcc.outputs = ["y", "sum"], qcc.states = [{name = "sum", value = dense<2.0> : tensor<4xf32>}]} {
  %y = "qcc.add"(%sum, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return %y, %y : tensor<4xf32>, tensor<4xf32>
}

// -----

// Two states that change places; one that nothing reads is not kept.
// CHECK-LABEL: func.func @main(%arg0: tensor<2xi64>) -> tensor<2xi64>
// CHECK-NEXT: %[[A:.*]] = "qcc.read_state"() {state = "a"}
// CHECK-NEXT: %[[B:.*]] = "qcc.read_state"() {state = "b"}
// CHECK-NEXT: "qcc.write_state"(%[[B]]) {state = "a"}
// CHECK-NEXT: "qcc.write_state"(%[[A]]) {state = "b"}
// CHECK-NEXT: return %arg0
func.func @main(%x: tensor<2xi64>, %a: tensor<2xi64>, %b: tensor<2xi64>, %c: tensor<2xi64>) -> (tensor<2xi64>, tensor<2xi64>, tensor<2xi64>, tensor<2xi64>)
    attributes {qcc.states = [{name = "a"}, {name = "b"}, {name = "c"}]} {
  return %x, %b, %a, %x : tensor<2xi64>, tensor<2xi64>, tensor<2xi64>, tensor<2xi64>
}

// -----

// A state has one type.
// expected-error @+1 {{state 's' is read as 'tensor<2xf32>' and written as 'tensor<3xf32>', expected one type}}
func.func @main(%x: tensor<3xf32>, %s: tensor<2xf32>) -> tensor<3xf32> attributes {qcc.states = [{name = "s"}]} {
  return %x : tensor<3xf32>
}
