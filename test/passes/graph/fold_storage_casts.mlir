// RUN: qcc-opt %s --pass-pipeline='builtin.module(fold-storage-casts)' | filecheck %s

// An argument and a result that are only reinterpreted take the quantized type.
// CHECK-LABEL: func.func @boundary(
// CHECK-SAME: %arg0: tensor<4x!quant.uniform<u8:f32, 5.000000e-01>>) -> tensor<4x!quant.uniform<u8:f32, 5.000000e-01>>
// CHECK-NEXT: return %arg0
func.func @boundary(%x: tensor<4xi8>) -> tensor<4xi8> {
  %q = quant.scast %x : tensor<4xi8> to tensor<4x!quant.uniform<u8:f32, 0.5>>
  %i = quant.scast %q : tensor<4x!quant.uniform<u8:f32, 0.5>> to tensor<4xi8>
  return %i : tensor<4xi8>
}

// A result that is quantized here keeps its quantized type; the dequantize beside it is untouched.
// CHECK-LABEL: func.func @result(
// CHECK-SAME: -> (tensor<4x!quant.uniform<i8:f32, 5.000000e-01>>, tensor<4xf32>)
// CHECK-NOT: quant.scast
func.func @result(%x: tensor<4xf32>) -> (tensor<4xi8>, tensor<4xf32>) {
  %q = "qcc.quantize"(%x) : (tensor<4xf32>) -> tensor<4x!quant.uniform<i8:f32, 0.5>>
  %i = quant.scast %q : tensor<4x!quant.uniform<i8:f32, 0.5>> to tensor<4xi8>
  %d = "qcc.dequantize"(%q) : (tensor<4x!quant.uniform<i8:f32, 0.5>>) -> tensor<4xf32>
  return %i, %d : tensor<4xi8>, tensor<4xf32>
}

// An argument that is also read as a plain integer stays one.
// CHECK-LABEL: func.func @plain_use(
// CHECK-SAME: %arg0: tensor<4xi8>) -> (tensor<4x!quant.uniform<i8:f32, 5.000000e-01>>, tensor<4xi8>)
// CHECK-NEXT: quant.scast
func.func @plain_use(%x: tensor<4xi8>) -> (tensor<4x!quant.uniform<i8:f32, 0.5>>, tensor<4xi8>) {
  %q = quant.scast %x : tensor<4xi8> to tensor<4x!quant.uniform<i8:f32, 0.5>>
  return %q, %x : tensor<4x!quant.uniform<i8:f32, 0.5>>, tensor<4xi8>
}
