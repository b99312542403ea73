// RUN: qcc-opt %s --pass-pipeline='builtin.module(round-products-to-bf16)' | filecheck %s

// A computed operand is rounded where it is made, in front of views, and all its readers read that; weights are rounded here.
// CHECK-LABEL: @operands
// CHECK: %[[R:.*]] = "qcc.unary"(%arg0) {{.*}}kind = "round_bf16"
// CHECK: %[[V:.*]] = "qcc.reshape"(%[[R]])
// CHECK: %[[W:.*]] = "qcc.constant"() {{.*}}1.0078125
// CHECK: %[[Y:.*]] = "qcc.linear"(%[[V]], %[[W]])
// CHECK: "qcc.add"(%[[Y]], %[[R]])
func.func @operands(%x: tensor<2x1xf32>) -> tensor<2x2xf32> {
  %v = "qcc.reshape"(%x) : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %w = "qcc.constant"() {value = dense<[[1.001], [1.0071]]> : tensor<2x1xf32>} : () -> tensor<2x1xf32>
  %y = "qcc.linear"(%v, %w) : (tensor<2x1xf32>, tensor<2x1xf32>) -> tensor<2x2xf32>
  %s = "qcc.add"(%y, %x) : (tensor<2x2xf32>, tensor<2x1xf32>) -> tensor<2x2xf32>
  return %s : tensor<2x2xf32>
}

// What the model returns stays as it is, and a value is rounded once.
// CHECK-LABEL: @result
// CHECK: %[[E:.*]] = "qcc.unary"(%arg0) {{.*}}kind = "exp"
// CHECK-NEXT: %[[R:.*]] = "qcc.unary"(%[[E]]) {{.*}}kind = "round_bf16"
// CHECK-NEXT: "qcc.matmul"(%[[R]], %[[R]])
// CHECK-NEXT: return %[[E]]
func.func @result(%x: tensor<2x2xf32>) -> (tensor<2x2xf32>, tensor<2x2xf32>) {
  %e = "qcc.unary"(%x) {kind = "exp"} : (tensor<2x2xf32>) -> tensor<2x2xf32>
  %y = "qcc.matmul"(%e, %e) : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
  return %e, %y : tensor<2x2xf32>, tensor<2x2xf32>
}

// The parts of a concatenation are rounded, so that each is stored once; a value that is a part of two is rounded once.
// CHECK-LABEL: @parts
// CHECK: %[[R:.*]] = "qcc.unary"(%arg0) {{.*}}kind = "round_bf16"
// CHECK: %[[E:.*]] = "qcc.unary"(%[[R]]) {{.*}}kind = "exp"
// CHECK-NEXT: %[[S:.*]] = "qcc.unary"(%[[E]]) {{.*}}kind = "round_bf16"
// CHECK-NEXT: %[[C:.*]] = tensor.concat dim(1) %[[R]], %[[S]]
// CHECK-NOT: round_bf16
// CHECK: "qcc.matmul"(%[[C]], %[[C]])
func.func @parts(%x: tensor<2x1xf32>) -> tensor<2x2xf32> {
  %e = "qcc.unary"(%x) {kind = "exp"} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %c = tensor.concat dim(1) %x, %e : (tensor<2x1xf32>, tensor<2x1xf32>) -> tensor<2x2xf32>
  %y = "qcc.matmul"(%c, %c) : (tensor<2x2xf32>, tensor<2x2xf32>) -> tensor<2x2xf32>
  return %y : tensor<2x2xf32>
}

// Attention of many queries are two products; that of a few, which reads keys and values once, stays.
// CHECK-LABEL: @attention
// CHECK: %[[S:.*]] = "qcc.matmul"(%[[Q:.*]], %[[K:.*]]) {{.*}}tensor<9x4xf32>
// CHECK: %[[A:.*]] = "qcc.mul"(%[[S]]
// CHECK: %[[P:.*]] = "qcc.softmax"(%[[A]]) {axis = 1 : i64}
// CHECK: %[[R:.*]] = "qcc.unary"(%[[P]]) {{.*}}kind = "round_bf16"
// CHECK: "qcc.matmul"(%[[R]], %{{.*}}) {{.*}}tensor<9x6xf32>
// CHECK: "qcc.attention"
func.func @attention(%q: tensor<9x5xf32>, %r: tensor<2x5xf32>, %k: tensor<4x5xf32>, %v: tensor<4x6xf32>) -> (tensor<9x6xf32>, tensor<2x6xf32>) {
  %a = "qcc.attention"(%q, %k, %v) {scale = 0.5 : f64, causal = false} : (tensor<9x5xf32>, tensor<4x5xf32>, tensor<4x6xf32>) -> tensor<9x6xf32>
  %b = "qcc.attention"(%r, %k, %v) {scale = 0.5 : f64, causal = false} : (tensor<2x5xf32>, tensor<4x5xf32>, tensor<4x6xf32>) -> tensor<2x6xf32>
  return %a, %b : tensor<9x6xf32>, tensor<2x6xf32>
}

// Keys after the query, and a mask, are terms of the scores.
// CHECK-LABEL: @causal
// CHECK: %[[M:.*]] = "qcc.mul"(
// CHECK: %[[T:.*]] = "qcc.add"(%[[M]], %arg3)
// CHECK: %[[C:.*]] = "qcc.add"(%[[T]], %{{.*}})
// CHECK: "qcc.softmax"(%[[C]])
func.func @causal(%q: tensor<9x5xf32>, %k: tensor<9x5xf32>, %v: tensor<9x6xf32>, %m: tensor<9xf32>) -> tensor<9x6xf32> {
  %a = "qcc.attention"(%q, %k, %v, %m) {scale = 0.5 : f64, causal = true} : (tensor<9x5xf32>, tensor<9x5xf32>, tensor<9x6xf32>, tensor<9xf32>) -> tensor<9x6xf32>
  return %a : tensor<9x6xf32>
}
