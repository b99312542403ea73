// RUN: qcc-opt %s --pass-pipeline='builtin.module(widen-half)' --print-remarks | filecheck %s

// CHECK: // remark: what the model computes in f16 is computed in f32
// CHECK: // remark: what the model computes in bf16 is computed in f32
// CHECK: // remark: what the model computes in bf16 and f16 is computed in f32

// Arguments and results keep their type; constants, and operands that name a type, follow what is between.
// CHECK-LABEL: func.func @between(
// CHECK-SAME: %arg0: !torch.vtensor<[2],f16>) -> !torch.vtensor<[2],f16>
// CHECK: [[X:%.+]] = torch.aten.to.dtype %arg0, %{{.*}} -> !torch.vtensor<[2],f32>
// CHECK: torch.vtensor.literal(dense<[1.500000e+00, -2.000000e+00]> : tensor<2xf32>) : !torch.vtensor<[2],f32>
// CHECK: torch.aten.mul.Tensor [[X]], %{{.*}} -> !torch.vtensor<[2],f32>
// CHECK: [[F32:%.+]] = torch.constant.int 6
// CHECK: [[SUM:%.+]] = torch.aten.sum %{{.*}}, [[F32]] : {{.*}} -> !torch.vtensor<[],f32>
// CHECK: [[Y:%.+]] = torch.aten.mul.Tensor %{{.*}}, [[SUM]] : {{.*}} -> !torch.vtensor<[2],f32>
// CHECK: [[F16:%.+]] = torch.constant.int 5
// CHECK: torch.aten.to.dtype [[Y]], [[F16]], %{{.*}} -> !torch.vtensor<[2],f16>
func.func @between(%x: !torch.vtensor<[2],f16>) -> !torch.vtensor<[2],f16> {
  %half = torch.constant.int 5
  %c = torch.vtensor.literal(dense<[1.5, -2.0]> : tensor<2xf16>) : !torch.vtensor<[2],f16>
  %m = torch.aten.mul.Tensor %x, %c : !torch.vtensor<[2],f16>, !torch.vtensor<[2],f16> -> !torch.vtensor<[2],f16>
  %s = torch.aten.sum %m, %half : !torch.vtensor<[2],f16>, !torch.int -> !torch.vtensor<[],f16>
  %y = torch.aten.mul.Tensor %m, %s : !torch.vtensor<[2],f16>, !torch.vtensor<[],f16> -> !torch.vtensor<[2],f16>
  return %y : !torch.vtensor<[2],f16>
}

// Lists of tensors too.
// CHECK-LABEL: func.func @list(
// CHECK: torch.prim.ListConstruct {{.*}} -> !torch.list<vtensor<[2],f32>>
// CHECK: torch.aten.cat {{.*}} -> !torch.vtensor<[4],f32>
func.func @list(%x: !torch.vtensor<[2],bf16>) -> !torch.vtensor<[4],bf16> {
  %axis = torch.constant.int 0
  %l = torch.prim.ListConstruct %x, %x : (!torch.vtensor<[2],bf16>, !torch.vtensor<[2],bf16>) -> !torch.list<vtensor<[2],bf16>>
  %y = torch.aten.cat %l, %axis : !torch.list<vtensor<[2],bf16>>, !torch.int -> !torch.vtensor<[4],bf16>
  return %y : !torch.vtensor<[4],bf16>
}

// Rounding of f32 stays what it is; conversions at the border of a part in f16 vanish with it.
// CHECK-LABEL: func.func @rounding(
// CHECK: [[R:%.+]] = torch.aten.to.dtype %arg0, %{{.*}} -> !torch.vtensor<[2],bf16>
// CHECK: [[B:%.+]] = torch.aten.to.dtype [[R]], %{{.*}} -> !torch.vtensor<[2],f32>
// CHECK: torch.aten.to.dtype [[B]], %int6{{.*}} -> !torch.vtensor<[2],f32>
// CHECK: torch.aten.relu %{{.*}} -> !torch.vtensor<[2],f32>
func.func @rounding(%x: !torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32> {
  %bf16 = torch.constant.int 15
  %f16 = torch.constant.int 5
  %f32 = torch.constant.int 6
  %no = torch.constant.bool false
  %none = torch.constant.none
  %a = torch.aten.to.dtype %x, %bf16, %no, %no, %none : !torch.vtensor<[2],f32>, !torch.int, !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[2],bf16>
  %b = torch.aten.to.dtype %a, %f32, %no, %no, %none : !torch.vtensor<[2],bf16>, !torch.int, !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[2],f32>
  %c = torch.aten.to.dtype %b, %f16, %no, %no, %none : !torch.vtensor<[2],f32>, !torch.int, !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[2],f16>
  %d = torch.aten.relu %c : !torch.vtensor<[2],f16> -> !torch.vtensor<[2],f16>
  %e = torch.aten.to.dtype %d, %f32, %no, %no, %none : !torch.vtensor<[2],f16>, !torch.int, !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[2],f32>
  return %e : !torch.vtensor<[2],f32>
}

// Bits of a half are not those of an f32.
// CHECK-LABEL: func.func @bits(
// CHECK: torch.aten.view.dtype %arg0, %{{.*}} : !torch.vtensor<[2],f16>
func.func @bits(%x: !torch.vtensor<[2],f16>) -> !torch.vtensor<[2],si16> {
  %int = torch.constant.int 2
  %y = torch.aten.view.dtype %x, %int : !torch.vtensor<[2],f16>, !torch.int -> !torch.vtensor<[2],si16>
  return %y : !torch.vtensor<[2],si16>
}
