// RUN: qcc-opt %s --pass-pipeline='builtin.module(plan-accelerator-memory)' | filecheck %s

// The output takes the place of what is dead by then; weights have a space of their own.
// CHECK: qcc.accelerator_memory = {arena_bytes = 192 : i64, weights_bytes = 128 : i64}
// CHECK: offset_bytes = 128 : i64, size_bytes = 64 : i64, space = "input"
// CHECK: offset_bytes = 128 : i64, size_bytes = 64 : i64, space = "output"
// CHECK: offset_bytes = 0 : i64, size_bytes = 100 : i64, space = "arena"
// CHECK: offset_bytes = 0 : i64, size_bytes = 40 : i64, space = "weights"
// CHECK: offset_bytes = 64 : i64, size_bytes = 64 : i64, space = "weights"
func.func private @accelerator_1_tiles() attributes {qtile.segment = @accelerator_1} {
  %x = "qtile.buffer"() {space = "input", index = 0 : i64, offset_bytes = 0 : i64, size_bytes = 64 : i64} : () -> memref<64xi8>
  %y = "qtile.buffer"() {space = "output", index = 0 : i64, offset_bytes = 0 : i64, size_bytes = 64 : i64} : () -> memref<64xi8>
  %a = "qtile.buffer"() {space = "arena", offset_bytes = 0 : i64, size_bytes = 100 : i64} : () -> memref<100xi8>
  %v = "qtile.buffer"() {space = "weights", offset_bytes = 0 : i64, size_bytes = 40 : i64} : () -> memref<40xi8>
  %w = "qtile.buffer"() {space = "weights", offset_bytes = 0 : i64, size_bytes = 64 : i64} : () -> memref<64xi8>
  "qtile.matmul_tiles"(%x, %v, %a) {window = {}, layout = {}, format = {}, post = {}, chunks = [], parameters_word = 0 : i64, padding_word = 0 : i64} : (memref<64xi8>, memref<40xi8>, memref<100xi8>) -> ()
  "qtile.matmul_tiles"(%a, %w, %y) {window = {}, layout = {}, format = {}, post = {}, chunks = [], parameters_word = 0 : i64, padding_word = 0 : i64} : (memref<100xi8>, memref<64xi8>, memref<64xi8>) -> ()
  return
}
