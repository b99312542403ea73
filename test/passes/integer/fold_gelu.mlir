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
