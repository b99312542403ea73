// RUN: qcc-opt %s --split-input-file --verify-diagnostics | filecheck %s

// CHECK-LABEL: func.func @rows
// CHECK: "qcc.insert"({{.*}}) {axis = 1 : i64}
func.func @rows(%r: tensor<2x1x4xf32>, %p: tensor<1xi64>) -> tensor<2x8x4xf32> {
  %k = "qcc.read_state"() {state = "keys"} : () -> tensor<2x8x4xf32>
  %y = "qcc.insert"(%k, %r, %p) {axis = 1} : (tensor<2x8x4xf32>, tensor<2x1x4xf32>, tensor<1xi64>) -> tensor<2x8x4xf32>
  "qcc.write_state"(%y) {state = "keys"} : (tensor<2x8x4xf32>) -> ()
  return %y : tensor<2x8x4xf32>
}

// -----

func.func @value() -> tensor<3xf32> {
  // expected-error @+1 {{'qcc.read_state': result has shape [3], expected [2] from 'value'}}
  %s = "qcc.read_state"() {state = "s", value = dense<1.0> : tensor<2xf32>} : () -> tensor<3xf32>
  return %s : tensor<3xf32>
}

// -----

func.func @name(%x: tensor<3xf32>) {
  // expected-error @+1 {{'qcc.write_state': attribute 'state' is missing, expected a string}}
  "qcc.write_state"(%x) : (tensor<3xf32>) -> ()
  return
}

// -----

func.func @count(%x: tensor<8x4xf32>, %r: tensor<2x4xf32>, %p: tensor<1xi64>) -> tensor<8x4xf32> {
  // expected-error @+1 {{'qcc.insert': rows have shape [2, 4], expected that of x, [8, 4], with 1 at axis 0}}
  %y = "qcc.insert"(%x, %r, %p) {axis = 0} : (tensor<8x4xf32>, tensor<2x4xf32>, tensor<1xi64>) -> tensor<8x4xf32>
  return %y : tensor<8x4xf32>
}

// -----

func.func @axis(%x: tensor<8xf32>, %r: tensor<1xf32>, %p: tensor<1xi64>) -> tensor<8xf32> {
  // expected-error @+1 {{'qcc.insert': 'axis' is 1, expected one of the 1 axes of x}}
  %y = "qcc.insert"(%x, %r, %p) {axis = 1} : (tensor<8xf32>, tensor<1xf32>, tensor<1xi64>) -> tensor<8xf32>
  return %y : tensor<8xf32>
}

// -----

func.func @positions(%x: tensor<8xf32>, %r: tensor<1xf32>, %p: tensor<1xf32>) -> tensor<8xf32> {
  // expected-error @+1 {{'qcc.insert': 'positions' is}}
  %y = "qcc.insert"(%x, %r, %p) {axis = 0} : (tensor<8xf32>, tensor<1xf32>, tensor<1xf32>) -> tensor<8xf32>
  return %y : tensor<8xf32>
}
