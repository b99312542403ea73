// RUN: qcc-opt %s --pass-pipeline='builtin.module(merge-repeated-heads)' | filecheck %s

// One query: its heads are rows; a mask over all heads stays as it is.
// CHECK-LABEL: func.func @one_query
// CHECK: %[[Q:.*]] = "qcc.reshape"(%arg0) : (tensor<2x8x1x32xf32>) -> tensor<2x4x2x32xf32>
// CHECK: %[[Y:.*]] = "qcc.attention"(%[[Q]], %arg1, %arg2, %arg3) {causal = false, scale = 5.000000e-01 : f64} : (tensor<2x4x2x32xf32>, tensor<2x4x64x32xf32>, tensor<2x4x64x16xf32>, tensor<1x1x1x64xf32>) -> tensor<2x4x2x16xf32>
// CHECK: %[[R:.*]] = "qcc.reshape"(%[[Y]]) : (tensor<2x4x2x16xf32>) -> tensor<2x8x1x16xf32>
// CHECK-NEXT: return %[[R]]
func.func @one_query(%q: tensor<2x8x1x32xf32>, %k: tensor<2x4x64x32xf32>, %v: tensor<2x4x64x16xf32>, %m: tensor<1x1x1x64xf32>) -> tensor<2x8x1x16xf32> {
  %k0 = "qcc.reshape"(%k) : (tensor<2x4x64x32xf32>) -> tensor<2x4x1x64x32xf32>
  %k1 = "qcc.broadcast"(%k0) : (tensor<2x4x1x64x32xf32>) -> tensor<2x4x2x64x32xf32>
  %k2 = "qcc.reshape"(%k1) : (tensor<2x4x2x64x32xf32>) -> tensor<2x8x64x32xf32>
  %v0 = "qcc.reshape"(%v) : (tensor<2x4x64x16xf32>) -> tensor<2x4x1x64x16xf32>
  %v1 = "qcc.broadcast"(%v0) : (tensor<2x4x1x64x16xf32>) -> tensor<2x4x2x64x16xf32>
  %v2 = "qcc.reshape"(%v1) : (tensor<2x4x2x64x16xf32>) -> tensor<2x8x64x16xf32>
  %y = "qcc.attention"(%q, %k2, %v2, %m) {scale = 0.5, causal = false} : (tensor<2x8x1x32xf32>, tensor<2x8x64x32xf32>, tensor<2x8x64x16xf32>, tensor<1x1x1x64xf32>) -> tensor<2x8x1x16xf32>
  return %y : tensor<2x8x1x16xf32>
}

// Several queries: a mask over all heads is repeated for each.
// CHECK-LABEL: func.func @queries
// CHECK: "qcc.reshape"(%arg3) : (tensor<3x64xf32>) -> tensor<1x1x1x3x64xf32>
// CHECK: "qcc.broadcast"({{.*}}) : (tensor<1x1x1x3x64xf32>) -> tensor<1x1x2x3x64xf32>
// CHECK: "qcc.reshape"({{.*}}) : (tensor<1x1x2x3x64xf32>) -> tensor<1x1x6x64xf32>
// CHECK: "qcc.attention"({{.*}}) {{.*}} : (tensor<1x4x6x32xf32>, tensor<1x4x64x32xf32>, tensor<1x4x64x32xf32>, tensor<1x1x6x64xf32>) -> tensor<1x4x6x32xf32>
func.func @queries(%q: tensor<1x8x3x32xf32>, %k: tensor<1x4x64x32xf32>, %v: tensor<1x4x64x32xf32>, %m: tensor<3x64xf32>) -> tensor<1x8x3x32xf32> {
  %k0 = "qcc.reshape"(%k) : (tensor<1x4x64x32xf32>) -> tensor<1x4x1x64x32xf32>
  %k1 = "qcc.broadcast"(%k0) : (tensor<1x4x1x64x32xf32>) -> tensor<1x4x2x64x32xf32>
  %k2 = "qcc.reshape"(%k1) : (tensor<1x4x2x64x32xf32>) -> tensor<1x8x64x32xf32>
  %v0 = "qcc.reshape"(%v) : (tensor<1x4x64x32xf32>) -> tensor<1x4x1x64x32xf32>
  %v1 = "qcc.broadcast"(%v0) : (tensor<1x4x1x64x32xf32>) -> tensor<1x4x2x64x32xf32>
  %v2 = "qcc.reshape"(%v1) : (tensor<1x4x2x64x32xf32>) -> tensor<1x8x64x32xf32>
  %y = "qcc.attention"(%q, %k2, %v2, %m) {scale = 0.5, causal = false} : (tensor<1x8x3x32xf32>, tensor<1x8x64x32xf32>, tensor<1x8x64x32xf32>, tensor<3x64xf32>) -> tensor<1x8x3x32xf32>
  return %y : tensor<1x8x3x32xf32>
}

// Values of their own, or keys whose copies lie one behind the other as a whole: nothing to merge.
// CHECK-LABEL: func.func @not_shared
// CHECK: "qcc.attention"(%arg0, {{.*}}, %arg2) {{.*}} : (tensor<1x8x1x32xf32>, tensor<1x8x64x32xf32>, tensor<1x8x64x32xf32>)
// CHECK: "qcc.attention"(%arg0, {{.*}}) {{.*}} : (tensor<1x8x1x32xf32>, tensor<1x8x64x32xf32>, tensor<1x8x64x32xf32>)
func.func @not_shared(%q: tensor<1x8x1x32xf32>, %k: tensor<1x4x64x32xf32>, %v: tensor<1x8x64x32xf32>) -> (tensor<1x8x1x32xf32>, tensor<1x8x1x32xf32>) {
  %k0 = "qcc.reshape"(%k) : (tensor<1x4x64x32xf32>) -> tensor<1x4x1x64x32xf32>
  %k1 = "qcc.broadcast"(%k0) : (tensor<1x4x1x64x32xf32>) -> tensor<1x4x2x64x32xf32>
  %k2 = "qcc.reshape"(%k1) : (tensor<1x4x2x64x32xf32>) -> tensor<1x8x64x32xf32>
  %y = "qcc.attention"(%q, %k2, %v) {scale = 0.5, causal = false} : (tensor<1x8x1x32xf32>, tensor<1x8x64x32xf32>, tensor<1x8x64x32xf32>) -> tensor<1x8x1x32xf32>
  %k3 = "qcc.reshape"(%k) : (tensor<1x4x64x32xf32>) -> tensor<1x1x4x64x32xf32>
  %k4 = "qcc.broadcast"(%k3) : (tensor<1x1x4x64x32xf32>) -> tensor<1x2x4x64x32xf32>
  %k5 = "qcc.reshape"(%k4) : (tensor<1x2x4x64x32xf32>) -> tensor<1x8x64x32xf32>
  %z = "qcc.attention"(%q, %k5, %k5) {scale = 0.5, causal = false} : (tensor<1x8x1x32xf32>, tensor<1x8x64x32xf32>, tensor<1x8x64x32xf32>) -> tensor<1x8x1x32xf32>
  return %y, %z : tensor<1x8x1x32xf32>, tensor<1x8x1x32xf32>
}
