// RUN: qcc-opt %s --pass-pipeline='builtin.module(record-activation-zeros{zeros=fc%%201=0.625;gone=0.5})' | filecheck %s
// RUN: qcc-opt %s --pass-pipeline='builtin.module(record-activation-zeros)' | filecheck %s --check-prefix=NONE

// CHECK: "qcc.linear"{{.*}}qcc.zeros = 6.250000e-01 : f64
// CHECK: "qcc.linear"
// CHECK-NOT: qcc.zeros
// NONE-NOT: qcc.zeros
func.func @main(%x: tensor<1x2x!quant.uniform<u8:f32, 0.5>>) -> (tensor<1x1xi32>, tensor<1x1xi32>) {
  %w = "qcc.constant"() {value = dense<[[7, -3]]> : tensor<1x2xi8>} : () -> tensor<1x2x!quant.uniform<i8:f32, 0.5>>
  %y = "qcc.linear"(%x, %w) : (tensor<1x2x!quant.uniform<u8:f32, 0.5>>, tensor<1x2x!quant.uniform<i8:f32, 0.5>>) -> tensor<1x1xi32> loc("fc 1")
  %z = "qcc.linear"(%x, %w) : (tensor<1x2x!quant.uniform<u8:f32, 0.5>>, tensor<1x2x!quant.uniform<i8:f32, 0.5>>) -> tensor<1x1xi32> loc("fc 2")
  return %y, %z : tensor<1x1xi32>, tensor<1x1xi32>
}
