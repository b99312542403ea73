// RUN: qcc-opt %s --pass-pipeline='builtin.module(keep-layer-outputs)' | filecheck %s
// RUN: qcc-opt %s --pass-pipeline='builtin.module(keep-layer-outputs{enabled=false})' | filecheck %s --check-prefix=OFF

!q = !quant.uniform<i8:f32, 5.000000e-01>

// The layers' outputs follow the model's own; the accumulator, the constant and the reshape are not among them.
// CHECK-LABEL: func.func @main
// CHECK-SAME: -> (tensor<4xf32>, tensor<1x4x!quant.uniform<i8:f32, 5.000000e-01>>, tensor<1x4x!quant.uniform<i8:f32, 5.000000e-01>>, tensor<4x!quant.uniform<i8:f32, 5.000000e-01>>)
// CHECK-SAME: qcc.kept_layers = 3 : i64
// CHECK-SAME: qcc.outputs = ["y", "fc", "fc#2", "relu"]
// CHECK: %[[Q:.*]] = "qcc.quantize"
// CHECK: %[[R:.*]] = "qcc.requantize"
// CHECK: %[[C:.*]] = "qcc.clamp"
// CHECK: %[[Y:.*]] = "qcc.dequantize"
// CHECK: return %[[Y]], %[[Q]], %[[R]], %[[C]]
// OFF-LABEL: func.func @main
// OFF-SAME: -> tensor<4xf32>
func.func @main(%x: tensor<1x4xf32>) -> tensor<4xf32> attributes {qcc.outputs = ["y"]} {
  %q = "qcc.quantize"(%x) : (tensor<1x4xf32>) -> tensor<1x4x!q> loc("fc")
  %w = "qcc.constant"() {value = dense<1> : tensor<4x4xi8>} : () -> tensor<4x4x!q>
  %a = "qcc.linear"(%q, %w) : (tensor<1x4x!q>, tensor<4x4x!q>) -> tensor<1x4xi32> loc("fc")
  %r = "qcc.requantize"(%a) {multiplier = dense<0.5> : tensor<1xf32>, mode = "f32"} : (tensor<1x4xi32>) -> tensor<1x4x!q> loc("fc")
  %v = "qcc.reshape"(%r) : (tensor<1x4x!q>) -> tensor<4x!q> loc("view")
  %c = "qcc.clamp"(%v) {min = 0.0, max = 6.0} : (tensor<4x!q>) -> tensor<4x!q> loc("relu")
  %y = "qcc.dequantize"(%c) : (tensor<4x!q>) -> tensor<4xf32> loc("out")
  return %y : tensor<4xf32>
}

// Only @main is the model.
// CHECK-LABEL: func.func private @part
// CHECK-SAME: -> tensor<4xf32>
func.func private @part(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = "qcc.clamp"(%x) {min = 0.0, max = 6.0} : (tensor<4xf32>) -> tensor<4xf32>
  return %y : tensor<4xf32>
}
