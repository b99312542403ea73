// RUN: qcc-opt %s --pass-pipeline='builtin.module(retile-contractions{tiles=contraction_a=2x7;contraction_gone=1x1})' | filecheck %s
// RUN: not qcc-opt %s --pass-pipeline='builtin.module(retile-contractions{tiles=contraction_a=2x6})' 2>&1 | filecheck %s --check-prefix=MISFIT
// RUN: not qcc-opt %s --pass-pipeline='builtin.module(retile-contractions{tiles=contraction_a=2})' 2>&1 | filecheck %s --check-prefix=FORM

// Rows and columns change, vectors do not.
// CHECK: @contraction_a
// CHECK-SAME: tile = array<i64: 2, 7, 4>
// MISFIT: tile 2x6 does not fit 'contraction_a' of 14x7 pixels
// FORM: tiles has 'contraction_a=2', expected NAME=ROWSxCOLUMNS
"func.func"() ({}) {sym_name = "contraction_a", sym_visibility = "private", function_type = () -> (), qtile.codelet = {
  kind = "contraction", isa = "avx512_vnni", compute = "dot4_u8s8", sizes = [1, 1, 14, 7, 64],
  x = {buffer = 0, element = "u8", strides = [0, 0, 448, 64, 0], offset = 0}, w = {buffer = 1, element = "s8", strides = [0, 0, 0, 0, 4096], offset = 0},
  taps = [1, 1], tap_strides = [0, 0], run = 64, tile = [1, 7, 4], chunks = [1, 14], operands = [], steps = [],
  y = {buffer = 2, element = "i32", strides = [0, 0, 448, 64, 1], offset = 0}, sums = -1, params = -1}} : () -> ()

// Another codelet is left alone.
// CHECK: @contraction_b
// CHECK-SAME: tile = [1, 7, 4]
"func.func"() ({}) {sym_name = "contraction_b", sym_visibility = "private", function_type = () -> (), qtile.codelet = {
  kind = "contraction", tile = [1, 7, 4]}} : () -> ()
