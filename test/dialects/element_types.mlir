// RUN: qcc-opt %s | filecheck %s

// Every element type of qcc parses, verifies and prints; constants hold the stored elements.
// CHECK-LABEL: func.func @levels
func.func @levels() {
  // CHECK: tensor<2x2x!qcc.binary<dense<{{.*}}5.000000e-01{{.*}}> : tensor<2x1xf32>>>
  %0 = "qcc.constant"() {value = dense<[[1, -1], [-1, -1]]> : tensor<2x2xi8>} : () -> tensor<2x2x!qcc.binary<dense<[[0.5], [0.25]]> : tensor<2x1xf32>>>
  // CHECK: !qcc.ternary<dense<1.000000e+00> : tensor<1xf32>, dense<2.000000e+00> : tensor<1xf32>>
  %1 = "qcc.constant"() {value = dense<[1, 0, -1]> : tensor<3xi8>} : () -> tensor<3x!qcc.ternary<dense<1.0> : tensor<1xf32>, dense<2.0> : tensor<1xf32>>>
  // CHECK: !qcc.log2<4 : i64, true, -6 : i64, dense<1.000000e+00> : tensor<1xf32>>
  %2 = "qcc.constant"() {value = dense<[7, 0, -7]> : tensor<3xi8>} : () -> tensor<3x!qcc.log2<4, true, -6, dense<1.0> : tensor<1xf32>>>
  // CHECK: !qcc.codebook<dense<[-3, 0, 1, 5]> : tensor<4xi8>, dense<1.000000e-01> : tensor<1xf32>>
  %3 = "qcc.constant"() {value = dense<[0, 3, 1]> : tensor<3xui8>} : () -> tensor<3x!qcc.codebook<dense<[-3, 0, 1, 5]> : tensor<4xi8>, dense<0.1> : tensor<1xf32>>>
  return
}

// CHECK-LABEL: func.func @floats
func.func @floats() {
  // CHECK: !qcc.scaled<f8E4M3FN, dense<{{.*}}> : tensor<1xf32>>
  %0 = "qcc.constant"() {value = dense<[1.5, -448.0]> : tensor<2xf8E4M3FN>} : () -> tensor<2x!qcc.scaled<f8E4M3FN, dense<0.1> : tensor<1xf32>>>
  // CHECK: !qcc.blockscaled<f4E2M1FN, array<i64: 1, 4>, dense<{{.*}}> : tensor<2x1xf8E8M0FNU>>
  %1 = "qcc.constant"() {value = dense<1.5> : tensor<2x4xf4E2M1FN>} : () -> tensor<2x4x!qcc.blockscaled<f4E2M1FN, array<i64: 1, 4>, dense<[[0.5], [2.0]]> : tensor<2x1xf8E8M0FNU>>>
  // CHECK: !qcc.minifloat<3 : i64, 4 : i64, 3 : i64, "none", dense<1.000000e+00> : tensor<1xf32>>
  %2 = "qcc.constant"() {value = dense<[0, 255]> : tensor<2xui8>} : () -> tensor<2x!qcc.minifloat<3, 4, 3, "none", dense<1.0> : tensor<1xf32>>>
  return
}

// Encodings stand on any element type, floats too.
// CHECK-LABEL: func.func @encodings
func.func @encodings() {
  // CHECK: tensor<4x4x!quant.uniform<i4:f32:{1:2}, {5.000000e-01, 2.500000e-01}>, #qcc.sparse<"n:m", {axis = 1 : i64, m = 4 : i64, n = 2 : i64}, "rans">>
  %0 = "qcc.constant"() {value = dense<0> : tensor<4x4xi8>} : () -> tensor<4x4x!quant.uniform<i4:f32:{1:2}, {0.5, 0.25}>, #qcc.sparse<"n:m", {n = 2 : i64, m = 4 : i64, axis = 1 : i64}, "rans">>
  // CHECK: tensor<4x4xf32, #qcc.sparse<"block", {shape = array<i64: 2, 2>}, "raw">>
  %1 = "qcc.constant"() {value = dense<0.0> : tensor<4x4xf32>} : () -> tensor<4x4xf32, #qcc.sparse<"block", {shape = array<i64: 2, 2>}, "raw">>
  return
}
