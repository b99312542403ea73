// RUN: qcc-opt %s --pass-pipeline='builtin.module(lower-to-codelets{isa=avx512_vnni activations=float})' | filecheck %s
// RUN: qcc-opt %s --pass-pipeline='builtin.module(lower-to-codelets{isa=avx512_vnni})' | filecheck %s --check-prefix=INT16

// Weights that only linear layers of a real x read are never expanded: 4 bits of 16 lanes times 8 k, and 16 scales.
// CHECK: space = "weights"{{.*}}memref<128xi8>
// CHECK: call @stream_
// CHECK-NEXT: return
// CHECK: func.func private @stream_{{.*}}compute = "f32", decoder = "table"
// INT16: func.func private @stream_{{.*}}compute = "int16", decoder = "planes"
func.func @main(%x: tensor<2x8xf32>) -> tensor<2x4xf32> {
  %w = "qcc.constant"() {value = dense<[[-7, 7, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6, 7], [1, 1, 1, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2, 2, 2]]> : tensor<4x8xi8>} : () -> tensor<4x8x!quant.uniform<i4:f32, 0.1>>
  %f = "qcc.dequantize"(%w) : (tensor<4x8x!quant.uniform<i4:f32, 0.1>>) -> tensor<4x8xf32>
  %y = "qcc.linear"(%x, %f) : (tensor<2x8xf32>, tensor<4x8xf32>) -> tensor<2x4xf32>
  %r = "qcc.clamp"(%y) {min = 0.0 : f32, max = 6.0 : f32} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  return %r : tensor<2x4xf32>
}
