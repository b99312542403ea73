// RUN: qcc-opt %s --pass-pipeline='builtin.module(generate-codelets)' | filecheck %s

// A map: task loop over a chunk of the split dimension, load, steps, store.
// CHECK: llvm.func @double
// CHECK: scf.for
// CHECK: llvm.load {{.*}} vector<16xi8>
// CHECK: llvm.zext
// CHECK: llvm.add
// CHECK: llvm.trunc
// CHECK: llvm.store
// CHECK: llvm.return
llvm.func @double(!llvm.ptr, i64, i64, !llvm.ptr) attributes {qtile.codelet = {kind = "map", isa = "generic",
  sizes = array<i64: 4, 16>, operands = [{buffer = 0, element = "u8", strides = array<i64: 16, 1>, offset = 0}],
  steps = [{op = "offset", args = array<i64: 0>, kind = "", swapped = false}], params = 1,
  y = {buffer = 2, element = "u8", strides = array<i64: 16, 1>, offset = 0}, split = 0, chunk = 2}}

// A contraction on VNNI: two vectors of channels by three pixels need six accumulators; declarations may be func.func too.
// CHECK: llvm.func @dot
// CHECK-COUNT-6: llvm.x86.avx512.vpdpbusd.512
// CHECK-NOT: vpdpbusd
func.func private @dot(memref<12xi8>, memref<128xi8>, memref<96xi32>) attributes {qtile.codelet = {kind = "contraction",
  isa = "avx512_vnni", compute = "dot4_u8s8", sizes = array<i64: 1, 1, 1, 3, 32>,
  x = {buffer = 0, element = "u8", strides = array<i64: 0, 0, 0, 4, 0>, offset = 0},
  w = {buffer = 1, element = "s8", strides = array<i64: 0, 0, 0, 0, 128>, offset = 0},
  taps = array<i64: 1, 1>, tap_strides = array<i64: 0, 0>, run = 4, tile = array<i64: 1, 3, 2>, chunks = array<i64: 1, 1>,
  operands = [], steps = [], params = -1, sums = -1,
  y = {buffer = 2, element = "i32", strides = array<i64: 0, 0, 0, 32, 1>, offset = 0}}}
