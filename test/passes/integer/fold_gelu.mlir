// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-gelu)' | filecheck %s

// CHECK-LABEL: @gelu
// CHECK-NEXT: %[[Y:.*]] = "qcc.unary"(%arg0) {kind = "gelu"}
// CHECK-NEXT: return %[[Y]]
func.func @gelu(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %root = "qcc.constant"() {value = dense<1.41421354> : tensor<f32>} : () -> tensor<f32>
  %one = "qcc.constant"() {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  %half = "qcc.constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %d = "qcc.div"(%x, %root) : (tensor<4x8xf32>, tensor<f32>) -> tensor<4x8xf32>
  %e = "qcc.unary"(%d) {kind = "erf"} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %a = "qcc.add"(%e, %one) : (tensor<4x8xf32>, tensor<f32>) -> tensor<4x8xf32>
  %m = "qcc.mul"(%x, %a) : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %y = "qcc.mul"(%m, %half) : (tensor<4x8xf32>, tensor<f32>) -> tensor<4x8xf32>
  return %y : tensor<4x8xf32>
}

// The half first, and a product with sqrt(1/2).
// CHECK-LABEL: @other_order
// CHECK-NEXT: "qcc.unary"(%arg0) {kind = "gelu"}
// CHECK-NEXT: return
func.func @other_order(%x: tensor<8xf32>) -> tensor<8xf32> {
  %root = "qcc.constant"() {value = dense<0.707106769> : tensor<f32>} : () -> tensor<f32>
  %one = "qcc.constant"() {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  %half = "qcc.constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %h = "qcc.mul"(%x, %half) : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  %d = "qcc.mul"(%x, %root) : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  %e = "qcc.unary"(%d) {kind = "erf"} : (tensor<8xf32>) -> tensor<8xf32>
  %a = "qcc.add"(%e, %one) : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  %y = "qcc.mul"(%h, %a) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  return %y : tensor<8xf32>
}

// Another divisor is another function.
// CHECK-LABEL: @not_gelu
// CHECK: "qcc.unary"(%{{.*}}) {kind = "erf"}
func.func @not_gelu(%x: tensor<8xf32>) -> tensor<8xf32> {
  %two = "qcc.constant"() {value = dense<2.0> : tensor<f32>} : () -> tensor<f32>
  %one = "qcc.constant"() {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  %half = "qcc.constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %d = "qcc.div"(%x, %two) : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  %e = "qcc.unary"(%d) {kind = "erf"} : (tensor<8xf32>) -> tensor<8xf32>
  %a = "qcc.add"(%e, %one) : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  %m = "qcc.mul"(%x, %a) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %y = "qcc.mul"(%m, %half) : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  return %y : tensor<8xf32>
}

// The approximation by tanh as GPT-2 writes it.
// CHECK-LABEL: @by_tanh
// CHECK-NEXT: %[[Y:.*]] = "qcc.unary"(%arg0) {kind = "gelu_tanh"}
// CHECK-NEXT: return %[[Y]]
func.func @by_tanh(%x: tensor<8xf32>) -> tensor<8xf32> {
  %half = "qcc.constant"() {value = dense<0.5> : tensor<1xf32>} : () -> tensor<1xf32>
  %one = "qcc.constant"() {value = dense<1.0> : tensor<1xf32>} : () -> tensor<1xf32>
  %part = "qcc.constant"() {value = dense<0.044715> : tensor<1xf32>} : () -> tensor<1xf32>
  %scale = "qcc.constant"() {value = dense<0.79788456> : tensor<1xf32>} : () -> tensor<1xf32>
  %h = "qcc.mul"(%x, %half) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %2 = "qcc.mul"(%x, %x) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %3 = "qcc.mul"(%2, %x) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %p = "qcc.mul"(%3, %part) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %s = "qcc.add"(%x, %p) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %t = "qcc.mul"(%s, %scale) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %f = "qcc.unary"(%t) {kind = "tanh"} : (tensor<8xf32>) -> tensor<8xf32>
  %a = "qcc.add"(%f, %one) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %y = "qcc.mul"(%h, %a) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  return %y : tensor<8xf32>
}

// The same with x before the sum.
// CHECK-LABEL: @by_tanh_with_x_outside
// CHECK-NEXT: "qcc.unary"(%arg0) {kind = "gelu_tanh"}
// CHECK-NEXT: return
func.func @by_tanh_with_x_outside(%x: tensor<8xf32>) -> tensor<8xf32> {
  %half = "qcc.constant"() {value = dense<0.5> : tensor<1xf32>} : () -> tensor<1xf32>
  %one = "qcc.constant"() {value = dense<1.0> : tensor<1xf32>} : () -> tensor<1xf32>
  %part = "qcc.constant"() {value = dense<0.044715> : tensor<1xf32>} : () -> tensor<1xf32>
  %scale = "qcc.constant"() {value = dense<0.79788456> : tensor<1xf32>} : () -> tensor<1xf32>
  %h = "qcc.mul"(%x, %half) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %1 = "qcc.mul"(%x, %part) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %p = "qcc.mul"(%1, %x) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %s = "qcc.add"(%p, %one) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %c = "qcc.mul"(%x, %scale) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %t = "qcc.mul"(%c, %s) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %f = "qcc.unary"(%t) {kind = "tanh"} : (tensor<8xf32>) -> tensor<8xf32>
  %a = "qcc.add"(%f, %one) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %y = "qcc.mul"(%h, %a) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  return %y : tensor<8xf32>
}

// A square where the cube should be.
// CHECK-LABEL: @not_by_tanh
// CHECK: "qcc.unary"(%{{.*}}) {kind = "tanh"}
func.func @not_by_tanh(%x: tensor<8xf32>) -> tensor<8xf32> {
  %half = "qcc.constant"() {value = dense<0.5> : tensor<1xf32>} : () -> tensor<1xf32>
  %one = "qcc.constant"() {value = dense<1.0> : tensor<1xf32>} : () -> tensor<1xf32>
  %part = "qcc.constant"() {value = dense<0.044715> : tensor<1xf32>} : () -> tensor<1xf32>
  %scale = "qcc.constant"() {value = dense<0.79788456> : tensor<1xf32>} : () -> tensor<1xf32>
  %h = "qcc.mul"(%x, %half) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %2 = "qcc.mul"(%x, %x) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %p = "qcc.mul"(%2, %part) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %s = "qcc.add"(%x, %p) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %t = "qcc.mul"(%s, %scale) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %f = "qcc.unary"(%t) {kind = "tanh"} : (tensor<8xf32>) -> tensor<8xf32>
  %a = "qcc.add"(%f, %one) : (tensor<8xf32>, tensor<1xf32>) -> tensor<8xf32>
  %y = "qcc.mul"(%h, %a) : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  return %y : tensor<8xf32>
}
