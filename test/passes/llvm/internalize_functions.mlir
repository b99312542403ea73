// RUN: qcc-opt %s --pass-pipeline='builtin.module(internalize-functions)' | filecheck %s

// CHECK: llvm.func internal @codelet()
llvm.func @codelet() {
  llvm.return
}
// The way into the program, and what a library defines, stay external.
// CHECK: llvm.func @qcc_program_address()
llvm.func @qcc_program_address() {
  llvm.return
}
// CHECK: llvm.func @expf(f32) -> f32
llvm.func @expf(f32) -> f32
