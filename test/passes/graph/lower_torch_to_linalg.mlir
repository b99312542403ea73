// RUN: qcc-opt %s --pass-pipeline='builtin.module(lower-torch-to-linalg)' | filecheck %s

// What is left of torch becomes linalg between qcc operations, which stay, and casts disappear.
// CHECK-LABEL: func.func @between
// CHECK-SAME: (%arg0: tensor<4xf32>) -> tensor<4xf32>
// CHECK: %[[A:.*]] = "qcc.clamp"(%arg0)
// CHECK: linalg.generic
// CHECK: math.sin
// CHECK-NOT: torch
func.func @between(%x: !torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32> attributes {torch.assume_strict_symbolic_shapes} {
  %0 = torch_c.to_builtin_tensor %x : !torch.vtensor<[4],f32> -> tensor<4xf32>
  %1 = "qcc.clamp"(%0) {min = 0.0, max = 6.0} : (tensor<4xf32>) -> tensor<4xf32>
  %2 = torch_c.from_builtin_tensor %1 : tensor<4xf32> -> !torch.vtensor<[4],f32>
  %3 = torch.aten.sin %2 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  return %3 : !torch.vtensor<[4],f32>
}
