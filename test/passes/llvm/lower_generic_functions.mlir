// RUN: qcc-opt %s --pass-pipeline='builtin.module(lower-generic-functions)' --split-input-file --verify-diagnostics | filecheck %s

// The declaration becomes a codelet that unpacks its buffers; the loops get bare pointers that do not alias.
// CHECK: llvm.func @f(%[[b:.*]]: !llvm.ptr, %{{.*}}: i64, %{{.*}}: i64, %{{.*}}: !llvm.ptr) attributes {qcc.generic = "exp"}
// CHECK: %[[a0:.*]] = llvm.getelementptr %[[b]][0]
// CHECK: %[[p0:.*]] = llvm.load %[[a0]]
// CHECK: %[[a1:.*]] = llvm.getelementptr %[[b]][1]
// CHECK: %[[p1:.*]] = llvm.load %[[a1]]
// CHECK: llvm.call @f.body(%[[p0]], %[[p1]])
// CHECK: llvm.func internal @f.body(%{{.*}}: !llvm.ptr {llvm.noalias}, %{{.*}}: !llvm.ptr {llvm.noalias})
// CHECK: llvm.intr.exp
// CHECK-NOT: func.func
#id = affine_map<(d0) -> (d0)>
llvm.func @f(!llvm.ptr, i64, i64, !llvm.ptr) attributes {qcc.generic = "exp"}
func.func private @f.body(%x: memref<4xf32>, %y: memref<4xf32>) attributes {qcc.generic = "exp"} {
  linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel"]} ins(%x : memref<4xf32>) outs(%y : memref<4xf32>) {
  ^bb0(%in: f32, %o: f32):
    %e = math.exp %in : f32
    linalg.yield %e : f32
  }
  return
}

// -----

// The constants that it reads come along.
// CHECK: llvm.mlir.global private constant @f.__c(dense<[1.000000e+00, 2.000000e+00]> : tensor<2xf32>)
// CHECK-NOT: memref.global
llvm.func @f(!llvm.ptr, i64, i64, !llvm.ptr) attributes {qcc.generic = "copy"}
func.func private @f.body(%y: memref<2xf32>) attributes {qcc.generic = "copy"} {
  %c = memref.get_global @f.__c : memref<2xf32>
  memref.copy %c, %y : memref<2xf32> to memref<2xf32>
  return
}
memref.global "private" constant @f.__c : memref<2xf32> = dense<[1.0, 2.0]>

// -----

// The step table declares it first.
// expected-error @+1 {{generic function 'f' is not declared for LLVM; emit-step-table runs before this pass}}
func.func private @f.body() attributes {qcc.generic = "nothing"} {
  return
}
