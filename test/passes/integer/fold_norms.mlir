// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-norms)' | filecheck %s

// As Llama writes it, gamma in front.
// CHECK-LABEL: @llama
// CHECK: %[[G:.*]] = "qcc.constant"() {{.*}} tensor<8xf32>
// CHECK-NEXT: %[[Y:.*]] = "qcc.rms_norm"(%arg0, %[[G]]) {axes = 1 : i64, epsilon = {{9.99.*E-7|1.0.*E-6}} : f64}
// CHECK-NEXT: return %[[Y]]
func.func @llama(%x: tensor<1x4x8xf32>) -> tensor<1x4x8xf32> {
  %epsilon = "qcc.constant"() {value = dense<1.0e-6> : tensor<1xf32>} : () -> tensor<1xf32>
  %gamma = "qcc.constant"() {value = dense<[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]> : tensor<8xf32>} : () -> tensor<8xf32>
  %s = "qcc.mul"(%x, %x) : (tensor<1x4x8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  %m = "qcc.reduce"(%s) {kind = "mean", axes = array<i64: 2>, keepdims = true} : (tensor<1x4x8xf32>) -> tensor<1x4x1xf32>
  %v = "qcc.add"(%m, %epsilon) : (tensor<1x4x1xf32>, tensor<1xf32>) -> tensor<1x4x1xf32>
  %r = "qcc.unary"(%v) {kind = "rsqrt"} : (tensor<1x4x1xf32>) -> tensor<1x4x1xf32>
  %n = "qcc.mul"(%x, %r) : (tensor<1x4x8xf32>, tensor<1x4x1xf32>) -> tensor<1x4x8xf32>
  %y = "qcc.mul"(%gamma, %n) : (tensor<8xf32>, tensor<1x4x8xf32>) -> tensor<1x4x8xf32>
  return %y : tensor<1x4x8xf32>
}

// A quotient of the root, over two axes; gamma has axes of size one in front.
// CHECK-LABEL: @divided
// CHECK: %[[G:.*]] = "qcc.constant"() {{.*}} tensor<4x8xf32>
// CHECK-NEXT: %[[Y:.*]] = "qcc.rms_norm"(%arg0, %[[G]]) {axes = 2 : i64, epsilon = 5.0{{0*}}e-01 : f64}
// CHECK-NEXT: return %[[Y]]
func.func @divided(%x: tensor<3x4x8xf32>) -> tensor<3x4x8xf32> {
  %epsilon = "qcc.constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %gamma = "qcc.constant"() {value = dense<2.0> : tensor<1x4x8xf32>} : () -> tensor<1x4x8xf32>
  %s = "qcc.mul"(%x, %x) : (tensor<3x4x8xf32>, tensor<3x4x8xf32>) -> tensor<3x4x8xf32>
  %m = "qcc.reduce"(%s) {kind = "mean", axes = array<i64: 1, 2>, keepdims = true} : (tensor<3x4x8xf32>) -> tensor<3x1x1xf32>
  %v = "qcc.add"(%epsilon, %m) : (tensor<f32>, tensor<3x1x1xf32>) -> tensor<3x1x1xf32>
  %r = "qcc.unary"(%v) {kind = "sqrt"} : (tensor<3x1x1xf32>) -> tensor<3x1x1xf32>
  %n = "qcc.div"(%x, %r) : (tensor<3x4x8xf32>, tensor<3x1x1xf32>) -> tensor<3x4x8xf32>
  %y = "qcc.mul"(%n, %gamma) : (tensor<3x4x8xf32>, tensor<1x4x8xf32>) -> tensor<3x4x8xf32>
  return %y : tensor<3x4x8xf32>
}

// One over the root; a factor of the rows is no gamma.
// CHECK-LABEL: @one_over_root
// CHECK: %[[N:.*]] = "qcc.rms_norm"(%arg0) {axes = 1 : i64, epsilon = 5.0{{0*}}e-01 : f64}
// CHECK-NEXT: %[[Y:.*]] = "qcc.mul"(%[[N]], %{{.*}})
// CHECK-NEXT: return %[[Y]]
func.func @one_over_root(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
  %epsilon = "qcc.constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %one = "qcc.constant"() {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  %rows = "qcc.constant"() {value = dense<[[2.0], [3.0]]> : tensor<2x1xf32>} : () -> tensor<2x1xf32>
  %s = "qcc.mul"(%x, %x) : (tensor<2x8xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %m = "qcc.reduce"(%s) {kind = "mean", axes = array<i64: 1>, keepdims = true} : (tensor<2x8xf32>) -> tensor<2x1xf32>
  %v = "qcc.add"(%m, %epsilon) : (tensor<2x1xf32>, tensor<f32>) -> tensor<2x1xf32>
  %q = "qcc.unary"(%v) {kind = "sqrt"} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %r = "qcc.div"(%one, %q) : (tensor<f32>, tensor<2x1xf32>) -> tensor<2x1xf32>
  %n = "qcc.mul"(%r, %x) : (tensor<2x1xf32>, tensor<2x8xf32>) -> tensor<2x8xf32>
  %y = "qcc.mul"(%n, %rows) : (tensor<2x8xf32>, tensor<2x1xf32>) -> tensor<2x8xf32>
  return %y : tensor<2x8xf32>
}

// x without its mean is a layer norm; gamma and beta behind it are its own.
// CHECK-LABEL: @layer_norm
// CHECK: %[[G:.*]] = "qcc.constant"() {value = dense<[1.000000e+00, 2.000000e+00]>
// CHECK-NEXT: %[[B:.*]] = "qcc.constant"() {value = dense<[3.000000e+00, 4.000000e+00]>
// CHECK-NEXT: %[[Y:.*]] = "qcc.layer_norm"(%arg0, %[[G]], %[[B]]) {axes = 1 : i64, epsilon = 5.0{{0*}}e-01 : f64}
// CHECK-NEXT: return %[[Y]]
func.func @layer_norm(%x: tensor<4x2xf32>) -> tensor<4x2xf32> {
  %epsilon = "qcc.constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %gamma = "qcc.constant"() {value = dense<[1.0, 2.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %beta = "qcc.constant"() {value = dense<[3.0, 4.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %mean = "qcc.reduce"(%x) {kind = "mean", axes = array<i64: 1>, keepdims = true} : (tensor<4x2xf32>) -> tensor<4x1xf32>
  %d = "qcc.sub"(%x, %mean) : (tensor<4x2xf32>, tensor<4x1xf32>) -> tensor<4x2xf32>
  %s = "qcc.mul"(%d, %d) : (tensor<4x2xf32>, tensor<4x2xf32>) -> tensor<4x2xf32>
  %m = "qcc.reduce"(%s) {kind = "mean", axes = array<i64: 1>, keepdims = true} : (tensor<4x2xf32>) -> tensor<4x1xf32>
  %v = "qcc.add"(%m, %epsilon) : (tensor<4x1xf32>, tensor<f32>) -> tensor<4x1xf32>
  %r = "qcc.unary"(%v) {kind = "sqrt"} : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %n = "qcc.div"(%d, %r) : (tensor<4x2xf32>, tensor<4x1xf32>) -> tensor<4x2xf32>
  %g = "qcc.mul"(%n, %gamma) : (tensor<4x2xf32>, tensor<2xf32>) -> tensor<4x2xf32>
  %y = "qcc.add"(%beta, %g) : (tensor<2xf32>, tensor<4x2xf32>) -> tensor<4x2xf32>
  return %y : tensor<4x2xf32>
}

// A root mean square norm has no beta, and a norm that is read elsewhere keeps its own gamma.
// CHECK-LABEL: @not_its_own
// CHECK: %[[N:.*]] = "qcc.rms_norm"(%arg0) {{.*}} -> tensor<2x8xf32>
// CHECK-NEXT: %[[A:.*]] = "qcc.add"(%[[N]], %{{.*}})
// CHECK-NEXT: %[[M:.*]] = "qcc.mul"(%[[N]], %{{.*}})
// CHECK-NEXT: return %[[A]], %[[M]]
func.func @not_its_own(%x: tensor<2x8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>) {
  %two = "qcc.constant"() {value = dense<2.0> : tensor<f32>} : () -> tensor<f32>
  %n = "qcc.rms_norm"(%x) {axes = 1 : i64, epsilon = 0.5 : f64} : (tensor<2x8xf32>) -> tensor<2x8xf32>
  %a = "qcc.add"(%n, %two) : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  %m = "qcc.mul"(%n, %two) : (tensor<2x8xf32>, tensor<f32>) -> tensor<2x8xf32>
  return %a, %m : tensor<2x8xf32>, tensor<2x8xf32>
}

// The mean of another value's squares, and one over other axes than the last.
// CHECK-LABEL: @not_rms
// CHECK-NOT: "qcc.rms_norm"
// CHECK: return
func.func @not_rms(%x: tensor<4x4xf32>, %z: tensor<4x4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>) {
  %epsilon = "qcc.constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %s = "qcc.mul"(%x, %x) : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %m = "qcc.reduce"(%s) {kind = "mean", axes = array<i64: 1>, keepdims = true} : (tensor<4x4xf32>) -> tensor<4x1xf32>
  %v = "qcc.add"(%m, %epsilon) : (tensor<4x1xf32>, tensor<f32>) -> tensor<4x1xf32>
  %r = "qcc.unary"(%v) {kind = "rsqrt"} : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %a = "qcc.mul"(%z, %r) : (tensor<4x4xf32>, tensor<4x1xf32>) -> tensor<4x4xf32>
  %columns = "qcc.reduce"(%s) {kind = "mean", axes = array<i64: 0>, keepdims = true} : (tensor<4x4xf32>) -> tensor<1x4xf32>
  %w = "qcc.add"(%columns, %epsilon) : (tensor<1x4xf32>, tensor<f32>) -> tensor<1x4xf32>
  %q = "qcc.unary"(%w) {kind = "rsqrt"} : (tensor<1x4xf32>) -> tensor<1x4xf32>
  %b = "qcc.mul"(%x, %q) : (tensor<4x4xf32>, tensor<1x4xf32>) -> tensor<4x4xf32>
  return %a, %b : tensor<4x4xf32>, tensor<4x4xf32>
}
