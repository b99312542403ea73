// RUN: qcc-opt %s --pass-pipeline='builtin.module(convert-onnx-quantization)' --split-input-file --verify-diagnostics | filecheck %s

// Scale and zero point move into the type, and the integers between the two operators disappear.
// CHECK-LABEL: @activation
// CHECK: %[[X:.*]] = torch_c.to_builtin_tensor %arg0
// CHECK-NEXT: %[[Q:.*]] = "qcc.quantize"(%[[X]]) : (tensor<1x4xf32>) -> tensor<1x4x!quant.uniform<u8:f32, 5.000000e-01:3>>
// CHECK-NEXT: %[[D:.*]] = "qcc.dequantize"(%[[Q]])
// CHECK-NEXT: %[[Y:.*]] = torch_c.from_builtin_tensor %[[D]]
// CHECK-NEXT: return %[[Y]]
func.func @activation(%x: !torch.vtensor<[1,4],f32>) -> !torch.vtensor<[1,4],f32> {
  %s = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.5> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %z = torch.operator "onnx.Constant"() {torch.onnx.value = dense<3> : tensor<ui8>} : () -> !torch.vtensor<[],ui8>
  %q = torch.operator "onnx.QuantizeLinear"(%x, %s, %z) : (!torch.vtensor<[1,4],f32>, !torch.vtensor<[],f32>, !torch.vtensor<[],ui8>) -> !torch.vtensor<[1,4],ui8>
  %d = torch.operator "onnx.DequantizeLinear"(%q, %s, %z) : (!torch.vtensor<[1,4],ui8>, !torch.vtensor<[],f32>, !torch.vtensor<[],ui8>) -> !torch.vtensor<[1,4],f32>
  return %d : !torch.vtensor<[1,4],f32>
}

// -----

// A weight has one scale per output channel; `bits` and `narrow` say what its container cannot.
// CHECK-LABEL: @weight
// CHECK: %[[W:.*]] = "qcc.constant"() {value = dense<{{\[\[}}-1, 0, 3], [1, -3, 2]]> : tensor<2x3xi8>} : () -> tensor<2x3x!quant.uniform<i3<-3:3>:f32:0, {2.500000e-01,5.000000e-01}>>
// CHECK-NEXT: "qcc.dequantize"(%[[W]])
func.func @weight() -> !torch.vtensor<[2,3],f32> {
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[[-1, 0, 3], [1, -3, 2]]> : tensor<2x3xsi8>} : () -> !torch.vtensor<[2,3],si8>
  %s = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[0.25, 0.5]> : tensor<2xf32>} : () -> !torch.vtensor<[2],f32>
  %d = torch.operator "onnx.DequantizeLinear"(%w, %s) {torch.onnx.axis = 0 : si64, torch.onnx.bits = 3 : si64, torch.onnx.narrow = 1 : si64} : (!torch.vtensor<[2,3],si8>, !torch.vtensor<[2],f32>) -> !torch.vtensor<[2,3],f32>
  return %d : !torch.vtensor<[2,3],f32>
}

// -----

// Blocks along an axis become a sub-channel type (whose text shows zero point 8 of u4 as -8).
// CHECK-LABEL: @blocked
// CHECK: tensor<1x4x!quant.uniform<u4:f32:{0:1, 1:2}, {{[{][{]}}5.000000e-01:-8, 2.500000e-01:7{{[}][}]}}>>
func.func @blocked() -> !torch.vtensor<[1,4],f32> {
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[[1, 2, 3, 15]]> : tensor<1x4xui8>} : () -> !torch.vtensor<[1,4],ui4>
  %s = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[[0.5, 0.25]]> : tensor<1x2xf32>} : () -> !torch.vtensor<[1,2],f32>
  %z = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[[8, 7]]> : tensor<1x2xui8>} : () -> !torch.vtensor<[1,2],ui4>
  %d = torch.operator "onnx.DequantizeLinear"(%w, %s, %z) {torch.onnx.axis = 1 : si64, torch.onnx.block_size = 2 : si64} : (!torch.vtensor<[1,4],ui4>, !torch.vtensor<[1,2],f32>, !torch.vtensor<[1,2],ui4>) -> !torch.vtensor<[1,4],f32>
  return %d : !torch.vtensor<[1,4],f32>
}

// -----

// A constant that the model quantizes is rounded here, half to even.
// CHECK-LABEL: @constant_is_quantized
// CHECK: value = dense<[2, 4, -128]> : tensor<3xi8>
// CHECK-NOT: qcc.quantize
func.func @constant_is_quantized() -> !torch.vtensor<[3],f32> {
  %w = torch.operator "onnx.Constant"() {torch.onnx.value = dense<[1.25, 1.75, -500.0]> : tensor<3xf32>} : () -> !torch.vtensor<[3],f32>
  %s = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.5> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %z = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0> : tensor<si8>} : () -> !torch.vtensor<[],si8>
  %q = torch.operator "onnx.QuantizeLinear"(%w, %s, %z) : (!torch.vtensor<[3],f32>, !torch.vtensor<[],f32>, !torch.vtensor<[],si8>) -> !torch.vtensor<[3],si8>
  %d = torch.operator "onnx.DequantizeLinear"(%q, %s, %z) : (!torch.vtensor<[3],si8>, !torch.vtensor<[],f32>, !torch.vtensor<[],si8>) -> !torch.vtensor<[3],f32>
  return %d : !torch.vtensor<[3],f32>
}

// -----

// Integers that enter or leave the model are the same bytes under another type.
// CHECK-LABEL: @boundary
// CHECK: quant.scast %{{.*}} : tensor<4xi8> to tensor<4x!quant.uniform<i8:f32, 5.000000e-01>>
// CHECK: "qcc.quantize"
// CHECK-NEXT: quant.scast %{{.*}} : tensor<4x!quant.uniform<i8:f32, 2.500000e-01>> to tensor<4xi8>
func.func @boundary(%x: !torch.vtensor<[4],si8>) -> !torch.vtensor<[4],si8> {
  %s = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.5> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %t = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.25> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %d = torch.operator "onnx.DequantizeLinear"(%x, %s) : (!torch.vtensor<[4],si8>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  %q = torch.operator "onnx.QuantizeLinear"(%d, %t) : (!torch.vtensor<[4],f32>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],si8>
  return %q : !torch.vtensor<[4],si8>
}

// -----

func.func @zero_scale(%x: !torch.vtensor<[4],si8>) -> !torch.vtensor<[4],f32> {
  %s = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.0> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  // expected-error @+1 {{a scale is 0.0, expected a positive finite number; calibrate this layer again}}
  %d = torch.operator "onnx.DequantizeLinear"(%x, %s) : (!torch.vtensor<[4],si8>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  return %d : !torch.vtensor<[4],f32>
}

// -----

func.func @wrong_channel_count(%x: !torch.vtensor<[4,2],si8>) -> !torch.vtensor<[4,2],f32> {
  %s = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.5> : tensor<3xf32>} : () -> !torch.vtensor<[3],f32>
  // expected-error @+1 {{the scale has shape [3] for data [4, 2], expected one value, one per index of axis 0, or one per block along it}}
  %d = torch.operator "onnx.DequantizeLinear"(%x, %s) {torch.onnx.axis = 0 : si64} : (!torch.vtensor<[4,2],si8>, !torch.vtensor<[3],f32>) -> !torch.vtensor<[4,2],f32>
  return %d : !torch.vtensor<[4,2],f32>
}

// -----

func.func @zero_point_out_of_range(%x: !torch.vtensor<[4],si8>) -> !torch.vtensor<[4],f32> {
  %s = torch.operator "onnx.Constant"() {torch.onnx.value = dense<0.5> : tensor<f32>} : () -> !torch.vtensor<[],f32>
  %z = torch.operator "onnx.Constant"() {torch.onnx.value = dense<9> : tensor<si8>} : () -> !torch.vtensor<[],si8>
  // expected-error @+1 {{a zero point lies in 9..9, expected -8..7 of 4 bits}}
  %d = torch.operator "onnx.DequantizeLinear"(%x, %s, %z) {torch.onnx.bits = 4 : si64} : (!torch.vtensor<[4],si8>, !torch.vtensor<[],f32>, !torch.vtensor<[],si8>) -> !torch.vtensor<[4],f32>
  return %d : !torch.vtensor<[4],f32>
}

// -----

func.func @scale_at_run_time(%x: !torch.vtensor<[4],si8>, %s: !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32> {
  // expected-error @+1 {{the scale is computed at run time, expected a constant}}
  %d = torch.operator "onnx.DequantizeLinear"(%x, %s) : (!torch.vtensor<[4],si8>, !torch.vtensor<[],f32>) -> !torch.vtensor<[4],f32>
  return %d : !torch.vtensor<[4],f32>
}
