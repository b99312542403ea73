// RUN: qcc-opt %s --pass-pipeline='builtin.module(convert-torch-to-qcc,lower-torch-to-linalg)' | filecheck %s

// A convolution keeps its window; symmetric torch padding becomes top, left, bottom, right.
// CHECK-LABEL: func.func @conv
// CHECK: "qcc.conv2d"(%arg0, %{{.*}}) {dilations = array<i64: 1, 2>, groups = 2 : i64, padding = array<i64: 1, 0, 1, 0>, strides = array<i64: 2, 1>}
func.func @conv(%x: !torch.vtensor<[1,4,8,8],f32>, %w: !torch.vtensor<[6,2,3,3],f32>) -> !torch.vtensor<[1,6,4,4],f32> {
  %none = torch.constant.none
  %0 = torch.constant.int 0
  %1 = torch.constant.int 1
  %2 = torch.constant.int 2
  %strides = torch.prim.ListConstruct %2, %1 : (!torch.int, !torch.int) -> !torch.list<int>
  %padding = torch.prim.ListConstruct %1, %0 : (!torch.int, !torch.int) -> !torch.list<int>
  %dilations = torch.prim.ListConstruct %1, %2 : (!torch.int, !torch.int) -> !torch.list<int>
  %y = torch.aten.conv2d %x, %w, %none, %strides, %padding, %dilations, %2 : !torch.vtensor<[1,4,8,8],f32>, !torch.vtensor<[6,2,3,3],f32>, !torch.none, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.int -> !torch.vtensor<[1,6,4,4],f32>
  return %y : !torch.vtensor<[1,6,4,4],f32>
}

// The range decides the width: [-8, 7] in int8 is a 4-bit weight, [0, 127] in uint8 a 7-bit activation.
// CHECK-LABEL: func.func @ranges
// CHECK: "qcc.constant"() {value = dense<{{.*}}> : tensor<2x2xi8>} : () -> tensor<2x2x!quant.uniform<i4:f32:0, {5.000000e-01,2.500000e-01}>>
// CHECK: "qcc.quantize"(%arg0) : (tensor<1x2xf32>) -> tensor<1x2x!quant.uniform<u7:f32, 1.250000e-01:3>>
// CHECK-NOT: torch.
func.func @ranges(%x: !torch.vtensor<[1,2],f32>) -> !torch.vtensor<[1,2],f32> {
  %none = torch.constant.none
  %0 = torch.constant.int 0
  %1 = torch.constant.int 1
  %3 = torch.constant.int 3
  %7 = torch.constant.int 7
  %m8 = torch.constant.int -8
  %127 = torch.constant.int 127
  %s = torch.constant.float 1.250000e-01
  %stored = torch.vtensor.literal(dense<[[-8, 7], [1, 2]]> : tensor<2x2xsi8>) : !torch.vtensor<[2,2],si8>
  %scales = torch.vtensor.literal(dense<[0.5, 0.25]> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  %zeros = torch.vtensor.literal(dense<0> : tensor<2xsi64>) : !torch.vtensor<[2],si64>
  %w = torch.quantized_decomposed.dequantize_per_channel %stored, %scales, %zeros, %0, %m8, %7, %1, %none : !torch.vtensor<[2,2],si8>, !torch.vtensor<[2],f32>, !torch.vtensor<[2],si64>, !torch.int, !torch.int, !torch.int, !torch.int, !torch.none -> !torch.vtensor<[2,2],f32>
  %q = torch.quantized_decomposed.quantize_per_tensor %x, %s, %3, %0, %127, %0 : !torch.vtensor<[1,2],f32>, !torch.float, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,2],ui8>
  %d = torch.quantized_decomposed.dequantize_per_tensor %q, %s, %3, %0, %127, %0, %none : !torch.vtensor<[1,2],ui8>, !torch.float, !torch.int, !torch.int, !torch.int, !torch.int, !torch.none -> !torch.vtensor<[1,2],f32>
  %y = torch.aten.linear %d, %w, %none : !torch.vtensor<[1,2],f32>, !torch.vtensor<[2,2],f32>, !torch.none -> !torch.vtensor<[1,2],f32>
  return %y : !torch.vtensor<[1,2],f32>
}

// A transposed convolution of constant weights is a convolution for every phase of its stride; of computed weights it takes the generic path.
// CHECK-LABEL: func.func @phases
// CHECK-DAG: %[[W:.*]] = "qcc.constant"() {value = dense<{{.*}}1.000000e+00{{.*}}2.000000e+00{{.*}}3.000000e+00{{.*}}4.000000e+00{{.*}}> : tensor<4x1x1x1xf32>}
// CHECK: "qcc.conv2d"(%{{.*}}, %[[W]]) {{.*}} -> tensor<1x4x2x2xf32>
// CHECK: "qcc.transpose"{{.*}}permutation = array<i64: 0, 1, 4, 5, 2, 6, 3>
// CHECK: return %{{.*}} : tensor<1x1x4x4xf32>
func.func @phases(%x: !torch.vtensor<[1,1,2,2],f32>) -> !torch.vtensor<[1,1,4,4],f32> {
  %w = torch.vtensor.literal(dense<[[[[1.0, 2.0], [3.0, 4.0]]]]> : tensor<1x1x2x2xf32>) : !torch.vtensor<[1,1,2,2],f32>
  %none = torch.constant.none
  %true = torch.constant.bool true
  %0 = torch.constant.int 0
  %1 = torch.constant.int 1
  %2 = torch.constant.int 2
  %ones = torch.prim.ListConstruct %1, %1 : (!torch.int, !torch.int) -> !torch.list<int>
  %twos = torch.prim.ListConstruct %2, %2 : (!torch.int, !torch.int) -> !torch.list<int>
  %zeros = torch.prim.ListConstruct %0, %0 : (!torch.int, !torch.int) -> !torch.list<int>
  %y = torch.aten.convolution %x, %w, %none, %twos, %zeros, %ones, %true, %zeros, %1 : !torch.vtensor<[1,1,2,2],f32>, !torch.vtensor<[1,1,2,2],f32>, !torch.none, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.bool, !torch.list<int>, !torch.int -> !torch.vtensor<[1,1,4,4],f32>
  return %y : !torch.vtensor<[1,1,4,4],f32>
}

// CHECK-LABEL: func.func @declined
// CHECK-NOT: qcc.conv2d
// CHECK: linalg.
func.func @declined(%x: !torch.vtensor<[1,1,2,2],f32>, %w: !torch.vtensor<[1,1,2,2],f32>) -> !torch.vtensor<[1,1,3,3],f32> {
  %none = torch.constant.none
  %true = torch.constant.bool true
  %0 = torch.constant.int 0
  %1 = torch.constant.int 1
  %ones = torch.prim.ListConstruct %1, %1 : (!torch.int, !torch.int) -> !torch.list<int>
  %zeros = torch.prim.ListConstruct %0, %0 : (!torch.int, !torch.int) -> !torch.list<int>
  %y = torch.aten.convolution %x, %w, %none, %ones, %zeros, %ones, %true, %zeros, %1 : !torch.vtensor<[1,1,2,2],f32>, !torch.vtensor<[1,1,2,2],f32>, !torch.none, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.bool, !torch.list<int>, !torch.int -> !torch.vtensor<[1,1,3,3],f32>
  return %y : !torch.vtensor<[1,1,3,3],f32>
}

// Masks: a comparison of positions and a boolean choose between scores and a number; "and" of booleans is their minimum.
// CHECK-LABEL: func.func @masked
// CHECK: %[[SEEN:.*]] = "qcc.compare"(%arg1, %arg2) {kind = "le"} : (tensor<1x4xi64>, tensor<4x1xi64>) -> tensor<4x4xi1>
// CHECK: %[[BOTH:.*]] = "qcc.minimum"(%[[SEEN]], %arg3) : (tensor<4x4xi1>, tensor<4x4xi1>) -> tensor<4x4xi1>
// CHECK: "qcc.select"(%[[BOTH]], %arg0, %{{.*}}) : (tensor<4x4xi1>, tensor<4x4xf32>, tensor<1xf32>) -> tensor<4x4xf32>
func.func @masked(%scores: !torch.vtensor<[4,4],f32>, %k: !torch.vtensor<[1,4],si64>, %q: !torch.vtensor<[4,1],si64>, %kept: !torch.vtensor<[4,4],i1>) -> !torch.vtensor<[4,4],f32> {
  %low = torch.vtensor.literal(dense<-1.0e9> : tensor<f32>) : !torch.vtensor<[],f32>
  %seen = torch.aten.le.Tensor %k, %q : !torch.vtensor<[1,4],si64>, !torch.vtensor<[4,1],si64> -> !torch.vtensor<[4,4],i1>
  %both = torch.aten.logical_and %seen, %kept : !torch.vtensor<[4,4],i1>, !torch.vtensor<[4,4],i1> -> !torch.vtensor<[4,4],i1>
  %y = torch.aten.where.self %both, %scores, %low : !torch.vtensor<[4,4],i1>, !torch.vtensor<[4,4],f32>, !torch.vtensor<[],f32> -> !torch.vtensor<[4,4],f32>
  return %y : !torch.vtensor<[4,4],f32>
}

// Bytes are no numbers of ours.
// CHECK-LABEL: func.func @compared_bytes
// CHECK-NOT: qcc.compare
func.func @compared_bytes(%a: !torch.vtensor<[4],ui8>, %b: !torch.vtensor<[4],ui8>) -> !torch.vtensor<[4],i1> {
  %y = torch.aten.lt.Tensor %a, %b : !torch.vtensor<[4],ui8>, !torch.vtensor<[4],ui8> -> !torch.vtensor<[4],i1>
  return %y : !torch.vtensor<[4],i1>
}

// ScatterND of rows, as upstream writes it: numbers count from the end themselves, and are as narrow as they were.
// CHECK-LABEL: func.func @rows
// CHECK: %[[NUMBERS:.*]] = "qcc.reshape"(%arg1) : (tensor<2x1xi32>) -> tensor<2xi32>
// CHECK: "qcc.insert"(%arg0, %arg2, %[[NUMBERS]]) {axis = 0 : i64}
func.func @rows(%x: !torch.vtensor<[24,16],f32>, %n: !torch.vtensor<[2,1],si32>, %rows: !torch.vtensor<[2,16],f32>) -> !torch.vtensor<[24,16],f32> {
  %none = torch.constant.none
  %false = torch.constant.bool false
  %0 = torch.constant.int 0
  %1 = torch.constant.int 1
  %2 = torch.constant.int 2
  %4 = torch.constant.int 4
  %16 = torch.constant.int 16
  %24 = torch.constant.int 24
  %wide = torch.aten.to.dtype %n, %4, %false, %false, %none : !torch.vtensor<[2,1],si32>, !torch.int, !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[2,1],si64>
  %below = torch.aten.lt.Scalar %wide, %0 : !torch.vtensor<[2,1],si64>, !torch.int -> !torch.vtensor<[2,1],i1>
  %wrapped = torch.aten.add.Scalar %wide, %24, %1 : !torch.vtensor<[2,1],si64>, !torch.int, !torch.int -> !torch.vtensor<[2,1],si64>
  %chosen = torch.aten.where.self %below, %wrapped, %wide : !torch.vtensor<[2,1],i1>, !torch.vtensor<[2,1],si64>, !torch.vtensor<[2,1],si64> -> !torch.vtensor<[2,1],si64>
  %shape = torch.prim.ListConstruct %2, %16 : (!torch.int, !torch.int) -> !torch.list<int>
  %numbers = torch.aten.expand %chosen, %shape, %false : !torch.vtensor<[2,1],si64>, !torch.list<int>, !torch.bool -> !torch.vtensor<[2,16],si64>
  %y = torch.aten.scatter.src %x, %0, %numbers, %rows : !torch.vtensor<[24,16],f32>, !torch.int, !torch.vtensor<[2,16],si64>, !torch.vtensor<[2,16],f32> -> !torch.vtensor<[24,16],f32>
  return %y : !torch.vtensor<[24,16],f32>
}
