// RUN: qcc-opt %s --pass-pipeline='builtin.module(plan-memory)' --split-input-file --verify-diagnostics | filecheck %s

// A chain reuses the place of a buffer that is dead: %c lies where %a was.
// CHECK: func.func @main() attributes {qtile.arena_bytes = 256 : i64, qtile.arena_floor_bytes = 256 : i64, qtile.weights_bytes = 0 : i64}
// CHECK: offset_bytes = 0 : i64, size_bytes = 100 : i64, space = "arena"
// CHECK: offset_bytes = 128 : i64, size_bytes = 100 : i64, space = "arena"
// CHECK: offset_bytes = 0 : i64, size_bytes = 100 : i64, space = "arena"
func.func @main() {
  %x = "qtile.buffer"() {space = "input", index = 0, offset_bytes = 0, size_bytes = 100} : () -> memref<100xi8>
  %a = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 100} : () -> memref<100xi8>
  %b = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 100} : () -> memref<100xi8>
  %c = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 100} : () -> memref<100xi8>
  func.call @f(%x, %a) : (memref<100xi8>, memref<100xi8>) -> ()
  func.call @f(%a, %b) : (memref<100xi8>, memref<100xi8>) -> ()
  func.call @f(%b, %c) : (memref<100xi8>, memref<100xi8>) -> ()
  return
}
func.func private @f(memref<100xi8>, memref<100xi8>)

// -----

// Weights with the same bytes share one place; others follow in the order of their first use.
// CHECK: qtile.weights_bytes = 128 : i64
// CHECK: offset_bytes = 64 : i64, size_bytes = 4 : i64, space = "weights", value = dense<[5, 6, 7, 8]>
// CHECK: offset_bytes = 0 : i64, size_bytes = 4 : i64, space = "weights", value = dense<[1, 2, 3, 4]>
// CHECK: offset_bytes = 0 : i64, size_bytes = 4 : i64, space = "weights", value = dense<[1, 2, 3, 4]>
func.func @main() {
  %v = "qtile.buffer"() {space = "weights", offset_bytes = 0, size_bytes = 4, value = dense<[5, 6, 7, 8]> : tensor<4xi8>} : () -> memref<4xi8>
  %u = "qtile.buffer"() {space = "weights", offset_bytes = 0, size_bytes = 4, value = dense<[1, 2, 3, 4]> : tensor<4xi8>} : () -> memref<4xi8>
  %w = "qtile.buffer"() {space = "weights", offset_bytes = 0, size_bytes = 4, value = dense<[1, 2, 3, 4]> : tensor<4xi8>} : () -> memref<4xi8>
  func.call @f(%u, %w) : (memref<4xi8>, memref<4xi8>) -> ()
  func.call @f(%w, %v) : (memref<4xi8>, memref<4xi8>) -> ()
  return
}
func.func private @f(memref<4xi8>, memref<4xi8>)

// -----

// A scratch buffer belongs to one call.
func.func @main() {
  // expected-error @+1 {{scratch buffer is an operand of calls 0 to 1, expected one call}}
  %s = "qtile.buffer"() {space = "scratch", offset_bytes = 0, size_bytes = 4} : () -> memref<4xi8>
  func.call @f(%s) : (memref<4xi8>) -> ()
  func.call @f(%s) : (memref<4xi8>) -> ()
  return
}
func.func private @f(memref<4xi8>)

// -----

// A group runs slice by slice: what is inside (%b) has the size of a slice and may lie where the dead %i lay; what leaves it (%c) is written
// in every turn, so it must not lie where the group's first call reads (%a).
// CHECK: qtile.arena_bytes = 192 : i64
// CHECK: offset_bytes = [[A:.*]] : i64, size_bytes = 60
// CHECK: offset_bytes = [[B:.*]] : i64, size_bytes = 61
// CHECK-NOT: offset_bytes = [[A]] : i64, size_bytes = 62
func.func @main() {
  %x = "qtile.buffer"() {space = "input", index = 0, offset_bytes = 0, size_bytes = 60} : () -> memref<60xi8>
  %a = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 60} : () -> memref<60xi8>
  %b = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 61} : () -> memref<61xi8>
  %c = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 62} : () -> memref<62xi8>
  func.call @f(%x, %a) : (memref<60xi8>, memref<60xi8>) -> ()
  func.call @g(%a, %b) {qtile.group = 0, qtile.slices = 2, qtile.slice_bytes = array<i64: 30, 0>} : (memref<60xi8>, memref<61xi8>) -> ()
  func.call @h(%b, %c) {qtile.group = 0, qtile.slices = 2, qtile.slice_bytes = array<i64: 0, 31>} : (memref<61xi8>, memref<62xi8>) -> ()
  func.call @i(%c, %x) : (memref<62xi8>, memref<60xi8>) -> ()
  return
}
func.func private @f(memref<60xi8>, memref<60xi8>)
func.func private @g(memref<60xi8>, memref<61xi8>)
func.func private @h(memref<61xi8>, memref<62xi8>)
func.func private @i(memref<62xi8>, memref<60xi8>)

// -----

// States come first and nothing else lies there, although one of them is not used until the end.
// CHECK: func.func @main() attributes {qtile.arena_bytes = 256 : i64, qtile.arena_floor_bytes = 256 : i64, qtile.state_bytes = 192 : i64, qtile.weights_bytes = 0 : i64}
// CHECK: name = "k", offset_bytes = 0 : i64, size_bytes = 100 : i64, space = "state"
// CHECK: name = "v", offset_bytes = 128 : i64, size_bytes = 64 : i64, space = "state"
// CHECK: offset_bytes = 192 : i64, size_bytes = 64 : i64, space = "arena"
func.func @main() {
  %k = "qtile.buffer"() {space = "state", name = "k", index = 0, offset_bytes = 0, size_bytes = 100} : () -> memref<64xi8>
  %v = "qtile.buffer"() {space = "state", name = "v", index = 1, offset_bytes = 0, size_bytes = 64} : () -> memref<64xi8>
  %a = "qtile.buffer"() {space = "arena", offset_bytes = 0, size_bytes = 64} : () -> memref<64xi8>
  func.call @f(%k, %a) : (memref<64xi8>, memref<64xi8>) -> ()
  func.call @f(%a, %v) : (memref<64xi8>, memref<64xi8>) -> ()
  return
}
func.func private @f(memref<64xi8>, memref<64xi8>)
