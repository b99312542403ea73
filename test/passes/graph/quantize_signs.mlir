// RUN: qcc-opt %s --pass-pipeline='builtin.module(quantize-signs)' | filecheck %s

// A number times the signs is the scale; what moves them comes behind.
// CHECK-LABEL: @scaled
// CHECK: %[[S:.*]] = "qcc.mul"
// CHECK-NEXT: %[[Q:.*]] = "qcc.quantize"(%[[S]]) {{.*}}!quant.uniform<i2<-1:1>:f32, 5.000000e-01>
// CHECK-NEXT: %[[F:.*]] = "qcc.dequantize"(%[[Q]])
// CHECK-NEXT: %[[R:.*]] = "qcc.reshape"(%[[F]])
// CHECK: "qcc.linear"(%[[R]]
func.func @scaled(%x: tensor<2x1x2xf32>) -> tensor<2x2xf32> {
  %h = "qcc.constant"() {value = dense<0.5> : tensor<1xf32>} : () -> tensor<1xf32>
  %s = "qcc.unary"(%x) {kind = "binarize"} : (tensor<2x1x2xf32>) -> tensor<2x1x2xf32>
  %m = "qcc.mul"(%s, %h) : (tensor<2x1x2xf32>, tensor<1xf32>) -> tensor<2x1x2xf32>
  %r = "qcc.reshape"(%m) : (tensor<2x1x2xf32>) -> tensor<2x2xf32>
  %w = "qcc.constant"() {value = dense<[[1, -1], [-1, 1]]> : tensor<2x2xi8>} : () -> tensor<2x2x!quant.uniform<i2<-1:1>:f32:0, {0.5, 0.25}>>
  %f = "qcc.dequantize"(%w) : (tensor<2x2x!quant.uniform<i2<-1:1>:f32:0, {0.5, 0.25}>>) -> tensor<2x2xf32>
  %y = "qcc.linear"(%r, %f) : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
  return %y : tensor<2x2xf32>
}

// Another user keeps the real signs.
// CHECK-LABEL: @shared
// CHECK: %[[S:.*]] = "qcc.unary"
// CHECK: "qcc.quantize"(%[[S]])
// CHECK-NEXT: %[[F:.*]] = "qcc.dequantize"
// CHECK-NEXT: "qcc.linear"(%[[F]]
// CHECK: return %{{.*}}, %[[S]]
func.func @shared(%x: tensor<1x2xf32>) -> (tensor<1x1xf32>, tensor<1x2xf32>) {
  %s = "qcc.unary"(%x) {kind = "sign"} : (tensor<1x2xf32>) -> tensor<1x2xf32>
  %w = "qcc.constant"() {value = dense<[[7, -3]]> : tensor<1x2xi8>} : () -> tensor<1x2x!quant.uniform<i8:f32, 0.5>>
  %f = "qcc.dequantize"(%w) : (tensor<1x2x!quant.uniform<i8:f32, 0.5>>) -> tensor<1x2xf32>
  %y = "qcc.linear"(%s, %f) : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x1xf32>
  return %y, %s : tensor<1x1xf32>, tensor<1x2xf32>
}

// Real weights have no integer product, and a border of ones is no sign's.
// CHECK-LABEL: @declined
// CHECK-NOT: qcc.quantize
func.func @declined(%x: tensor<1x2xf32>, %v: tensor<1x2xf32>) -> (tensor<1x1xf32>, tensor<1x1xf32>) {
  %s = "qcc.unary"(%x) {kind = "sign"} : (tensor<1x2xf32>) -> tensor<1x2xf32>
  %y = "qcc.linear"(%s, %v) : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x1xf32>
  %p = "qcc.pad"(%s) {low = array<i64: 0, 1>, high = array<i64: 0, 0>, value = 1.0 : f64} : (tensor<1x2xf32>) -> tensor<1x3xf32>
  %w = "qcc.constant"() {value = dense<[[7, -3, 1]]> : tensor<1x3xi8>} : () -> tensor<1x3x!quant.uniform<i8:f32, 0.5>>
  %f = "qcc.dequantize"(%w) : (tensor<1x3x!quant.uniform<i8:f32, 0.5>>) -> tensor<1x3xf32>
  %z = "qcc.linear"(%p, %f) : (tensor<1x3xf32>, tensor<1x3xf32>) -> tensor<1x1xf32>
  return %y, %z : tensor<1x1xf32>, tensor<1x1xf32>
}
