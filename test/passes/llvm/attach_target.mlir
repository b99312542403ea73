// RUN: qcc-opt %s --pass-pipeline='builtin.module(attach-target{cpu=x86-64-v3 features=+avx2,+fma})' | filecheck %s

// A function with a body gets CPU and features behind what it has; a declaration gets nothing.
// CHECK: llvm.func @f() attributes {passthrough = {{\[\[}}"prefer-vector-width", "512"], ["target-cpu", "x86-64-v3"], ["target-features", "+avx2,+fma"]]}
llvm.func @f() attributes {passthrough = [["prefer-vector-width", "512"]]} {
  llvm.return
}
// One that names its own keeps it.
// CHECK: llvm.func @g() attributes {passthrough = {{\[\[}}"target-cpu", "znver4"]]}
llvm.func @g() attributes {passthrough = [["target-cpu", "znver4"]]} {
  llvm.return
}
// CHECK: llvm.func @h(){{$}}
llvm.func @h()
