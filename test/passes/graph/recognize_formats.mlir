// RUN: qcc-opt %s -p recognize-formats | filecheck %s
// RUN: qcc-opt %s -p recognize-formats --print-remarks 2>&1 | filecheck %s --check-prefix=FACTS

!i8 = !quant.uniform<i8:f32, 5.000000e-01>

// One amplitude per output channel.
// CHECK-LABEL: @binary
// CHECK: !qcc.binary<dense<{{\[}}[5.000000e-01], [2.000000e+00]]> : tensor<2x1xf32>>
// FACTS: binary: recognized = binary, scale per channel
func.func @binary(%x: tensor<1x16xf32>) -> tensor<1x2xf32> {
  %w = "qcc.constant"() {value = dense<[[0.5, -0.5, 0.5, 0.5, -0.5, 0.5, -0.5, 0.5, 0.5, -0.5, 0.5, 0.5, -0.5, 0.5, -0.5, 0.5], [2.0, -2.0, 2.0, 2.0, -2.0, 2.0, -2.0, 2.0, 2.0, -2.0, 2.0, 2.0, -2.0, 2.0, -2.0, 2.0]]> : tensor<2x16xf32>} : () -> tensor<2x16xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<1x16xf32>, tensor<2x16xf32>) -> tensor<1x2xf32> loc("binary")
  return %y : tensor<1x2xf32>
}

// Integers from -3 to 3 times 0.25.
// CHECK-LABEL: @integers
// CHECK: quant.uniform<i3<-3:3>:f32, 2.500000e-01>
// FACTS: integers: recognized = 3-bit integers, scale per tensor
func.func @integers(%x: tensor<1x16xf32>) -> tensor<1x2xf32> {
  %w = "qcc.constant"() {value = dense<[[0.25, -0.5, 0.75, 0.5, 0.0, 0.25, 0.5, 0.75, -0.75, 0.0, 0.25, -0.25, 0.5, 0.5, 0.0, 0.0], [0.25, -0.5, 0.75, 0.5, 0.0, 0.25, 0.5, 0.75, -0.75, 0.0, 0.25, -0.25, 0.5, 0.5, 0.0, 0.25]]> : tensor<2x16xf32>} : () -> tensor<2x16xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<1x16xf32>, tensor<2x16xf32>) -> tensor<1x2xf32> loc("integers")
  return %y : tensor<1x2xf32>
}

// Ternary values in 8 bits; the common divisor goes into the scale.
// CHECK-LABEL: @container
// CHECK: quant.uniform<i2<-1:1>:f32, 5.000000e+01>
// FACTS: container: recognized = ternary in a container of 8 bits
func.func @container(%x: tensor<1x4xf32>) -> tensor<1x2xf32> {
  %c = "qcc.constant"() {value = dense<[[100, 0, -100, 100], [0, -100, 100, 0]]> : tensor<2x4xi8>} : () -> tensor<2x4x!i8>
  %w = "qcc.dequantize"(%c) : (tensor<2x4x!i8>) -> tensor<2x4xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32> loc("container")
  return %y : tensor<1x2xf32>
}

// Tied weights: the layer gets the narrow ones, the look-up keeps the floats.
// CHECK-LABEL: @tied
// CHECK: "qcc.embedding"({{.*}}tensor<2x16xf32>
// CHECK: "qcc.linear"({{.*}}, %[[W:.*]]) :
// FACTS: tied: recognized = ternary, scale per tensor
func.func @tied(%i: tensor<3xi64>) -> tensor<3x2xf32> {
  %w = "qcc.constant"() {value = dense<[[0.5, -0.5, 0.0, 0.5, 0.0, 0.5, -0.5, 0.5, 0.5, 0.0, 0.5, 0.5, 0.0, 0.5, 0.0, 0.0], [0.5, -0.5, 0.5, 0.5, 0.0, 0.5, 0.5, 0.5, -0.5, 0.0, 0.5, -0.5, 0.5, 0.5, 0.0, 0.5]]> : tensor<2x16xf32>} : () -> tensor<2x16xf32>
  %x = "qcc.embedding"(%w, %i) : (tensor<2x16xf32>, tensor<3xi64>) -> tensor<3x16xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<3x16xf32>, tensor<2x16xf32>) -> tensor<3x2xf32> loc("tied")
  return %y : tensor<3x2xf32>
}

// Nothing in common.
// CHECK-LABEL: @any
// CHECK-NOT: qcc.dequantize
func.func @any(%x: tensor<1x16xf32>) -> tensor<1x2xf32> {
  %w = "qcc.constant"() {value = dense<[[0.113, -0.567, 0.771, 0.512, 0.31, 0.257, 0.541, 0.728, -0.779, 0.03, 0.225, -0.299, 0.554, 0.517, 0.09, 0.01], [0.115, -0.523, 0.702, 0.501, 0.02, 0.233, 0.535, 0.781, -0.713, 0.012, 0.296, -0.267, 0.588, 0.595, 0.0, 0.254]]> : tensor<2x16xf32>} : () -> tensor<2x16xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<1x16xf32>, tensor<2x16xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}
