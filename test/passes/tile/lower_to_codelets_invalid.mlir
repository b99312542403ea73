// RUN: qcc-opt %s --pass-pipeline='builtin.module(lower-to-codelets)' --verify-diagnostics

// An operation without a codelet is named with its layer.
func.func @main(%x: tensor<2xf32>) -> tensor<2xf32> {
  // expected-error @+1 {{no codelet computes 'math.exp', expected qcc operations or calls of generic functions}}
  %y = math.exp %x : tensor<2xf32>
  return %y : tensor<2xf32>
}
