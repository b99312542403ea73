// RUN: qcc-opt %s --pass-pipeline='builtin.module(select-sparse-format{isa=avx512_vnni})' | filecheck %s
// RUN: qcc-opt %s --pass-pipeline='builtin.module(select-sparse-format{isa=avx512_vnni})' --print-remarks 2>&1 | filecheck %s --check-prefix=FACTS
// RUN: qcc-opt %s --pass-pipeline='builtin.module(select-sparse-format)' | filecheck %s --check-prefix=NONE
// RUN: qcc-opt %s --pass-pipeline='builtin.module(select-sparse-format{isa=avx512_vnni storage=bitmap})' | filecheck %s --check-prefix=ASKED
// RUN: qcc-opt %s --pass-pipeline='builtin.module(select-sparse-format{isa=avx512_vnni optimize=size})' | filecheck %s --check-prefix=SIZE

// Without an instruction set there are no codelets, and everything stays dense.
// NONE-NOT: qcc.sparse

!x = !quant.uniform<u8:f32, 1.000000e+00>
!w = !quant.uniform<i8:f32, 1.000000e+00>
!z = !quant.uniform<i8:f32, 1.000000e+00:3>

// Nothing is left of a large layer: compressed rows are predicted faster than reading zeros.
// CHECK-LABEL: @empty
// SIZE-LABEL: @empty
// SIZE: #qcc.sparse<"csr"
// CHECK: #qcc.sparse<"csr", {index_bits = 16 : i64, relative = false}, "raw">
// FACTS: empty: {{.*}}100% zeros: compressed rows {{.*}}x as fast as dense (pays from {{.*}}% zeros); bitmap + expand
func.func @empty(%x: tensor<1x2048xf32>) -> tensor<1x2048xf32> {
  %w = "qcc.constant"() {value = dense<0.0> : tensor<2048x2048xf32>} : () -> tensor<2048x2048xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<1x2048xf32>, tensor<2048x2048xf32>) -> tensor<1x2048xf32> loc("empty")
  return %y : tensor<1x2048xf32>
}

// With many rows of x and few zeros the arithmetic of dense products is cheaper. Whoever asks for a form gets it.
// CHECK-LABEL: @many_rows
// CHECK-NOT: qcc.sparse
// FACTS: many_rows: {{.*}}unstructured 12% zeros: {{.*}}; kept dense, which is fastest
// ASKED-LABEL: @many_rows
// ASKED: #qcc.sparse<"bitmap", {}, "raw">
func.func @many_rows(%x: tensor<64x4xf32>) -> tensor<64x16xf32> {
  %w = "qcc.constant"() {value = dense<[[1.1, 2.1, 3.1, 4.1], [1.1, 0.0, 3.1, 4.1], [1.1, 2.1, 3.1, 4.1], [0.0, 2.1, 3.1, 4.1], [1.1, 2.1, 3.1, 4.1], [1.1, 2.1, 0.0, 4.1], [1.1, 2.1, 3.1, 4.1], [1.1, 0.0, 3.1, 4.1], [1.1, 2.1, 3.1, 4.1], [0.0, 2.1, 3.1, 4.1], [1.1, 2.1, 3.1, 4.1], [1.1, 2.1, 0.0, 4.1], [1.1, 2.1, 3.1, 4.1], [1.1, 0.0, 3.1, 4.1], [1.1, 2.1, 3.1, 4.1], [0.0, 2.1, 3.1, 4.1]]> : tensor<16x4xf32>} : () -> tensor<16x4xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<64x4xf32>, tensor<16x4xf32>) -> tensor<64x16xf32> loc("many_rows")
  return %y : tensor<64x16xf32>
}

// A weight that something else reads as well keeps its type.
// CHECK-LABEL: @shared
// CHECK-NOT: qcc.sparse
// ASKED-LABEL: @shared
// ASKED-NOT: qcc.sparse
func.func @shared(%x: tensor<1x2xf32>) -> (tensor<1x2xf32>, tensor<2x2xf32>) {
  %w = "qcc.constant"() {value = dense<[[1.1, 0.0], [0.0, 0.0]]> : tensor<2x2xf32>} : () -> tensor<2x2xf32>
  %y = "qcc.linear"(%x, %w) : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %y, %w : tensor<1x2xf32>, tensor<2x2xf32>
}

// Whether integer products leave zeros out is found with their codelet: what would be stored is said. Zero is the zero point.
// CHECK-LABEL: @integers
// CHECK-NOT: qcc.sparse
// FACTS: integers: {{.*}}channel 0 would take 9 of 16 bytes, but no codelet for 1 row of such x leaves out zeros
func.func @integers(%x: tensor<1x8x!x>) -> tensor<1x2xi32> {
  %w = "qcc.constant"() {value = dense<[[3, 3, 3, 3, 3, 3, 3, 3], [0, 1, 2, 1, 0, 5, 6, 7]]> : tensor<2x8xi8>} : () -> tensor<2x8x!z>
  %a = "qcc.linear"(%x, %w) : (tensor<1x8x!x>, tensor<2x8x!z>) -> tensor<1x2xi32> loc("integers")
  return %a : tensor<1x2xi32>
}
