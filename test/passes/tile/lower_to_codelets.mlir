// RUN: qcc-opt %s --pass-pipeline='builtin.module(lower-to-codelets{isa=avx512_vnni})' --split-input-file | filecheck %s
// RUN: qcc-opt %s --pass-pipeline='builtin.module(lower-to-codelets{isa=avx512_vnni streamed=true})' --split-input-file | filecheck %s --check-prefix=STREAMED

// A product and the requantize that alone uses it are one call; the interface keeps its tensor types.
// CHECK: func.func @main() attributes {qcc.inputs = [{name = "input_0", type = tensor<2x8x!quant.uniform<u8:f32, 5.000000e-01>>}]
// CHECK: %[[X:.*]] = "qtile.buffer"(){{.*}}space = "input"
// CHECK: space = "output"
// CHECK: call @map_{{.*}}(%[[X]],
// CHECK-NEXT: call @contraction_{{.*}}qtile.tasks = 1
// CHECK-NEXT: call @map_
// CHECK-NEXT: return
// CHECK: func.func private @contraction_{{.*}}compute = "dot4_u8s8"{{.*}}bounds = "byte"{{.*}}op = "requantize"
func.func @main(%x: tensor<2x8x!quant.uniform<u8:f32, 0.5>>) -> tensor<2x4x!quant.uniform<i8:f32, 0.25>> {
  %w = "qcc.constant"() {value = dense<3> : tensor<4x8xi8>} : () -> tensor<4x8x!quant.uniform<i8:f32, 0.1>>
  %a = "qcc.linear"(%x, %w) : (tensor<2x8x!quant.uniform<u8:f32, 0.5>>, tensor<4x8x!quant.uniform<i8:f32, 0.1>>) -> tensor<2x4xi32>
  %r = "qcc.requantize"(%a) {multiplier = dense<0.1> : tensor<1xf32>, mode = "f32"} : (tensor<2x4xi32>) -> tensor<2x4x!quant.uniform<i8:f32, 0.25>>
  return %r : tensor<2x4x!quant.uniform<i8:f32, 0.25>>
}

// -----

// Real results go straight into the caller's memory, but for one that something else reads.
// CHECK: %[[X:.*]] = "qtile.buffer"(){{.*}}space = "input"
// CHECK: %[[A:.*]] = "qtile.buffer"(){{.*}}space = "arena"
// CHECK: %[[S:.*]] = "qtile.buffer"(){{.*}}index = 1{{.*}}space = "output"
// CHECK: %[[B:.*]] = "qtile.buffer"(){{.*}}index = 2{{.*}}space = "output"
// CHECK: %[[Y:.*]] = "qtile.buffer"(){{.*}}index = 0{{.*}}space = "output"
// CHECK: call @contraction_{{.*}}, %[[A]])
// CHECK-NEXT: call @rows_{{.*}}(%[[A]], %[[S]])
// CHECK-NEXT: call @contraction_{{.*}}, %[[B]])
// CHECK-NEXT: call @map_{{.*}}(%[[A]], %[[Y]])
// CHECK-NEXT: return
func.func @main(%x: tensor<2x8xf32>) -> (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>) {
  %w = "qcc.constant"() {value = dense<3.0> : tensor<4x8xf32>} : () -> tensor<4x8xf32>
  %a = "qcc.linear"(%x, %w) : (tensor<2x8xf32>, tensor<4x8xf32>) -> tensor<2x4xf32>
  %s = "qcc.softmax"(%a) {axis = 1 : i64} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %b = "qcc.linear"(%x, %w) : (tensor<2x8xf32>, tensor<4x8xf32>) -> tensor<2x4xf32>
  return %a, %s, %b : tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x4xf32>
}

// -----

// Rows go into a state's own buffer where nothing else reads what it held; what a run returns or exchanges is copied behind that.
// CHECK: func.func @main() attributes {{.*}}qcc.states = [{name = "k", type = tensor<2x8x16xf32>}, {name = "n", type = tensor<4xf32>}]
// CHECK: %[[K:.*]] = "qtile.buffer"() {index = 0 : i64, name = "k", {{.*}}space = "state"} : () -> memref<2x8x16xf32
// CHECK: %[[N:.*]] = "qtile.buffer"() {index = 1 : i64, name = "n", {{.*}}space = "state", value = dense<2.000000e+00> : tensor<4xf32>}
// CHECK: call @insert_{{[0-9a-f_]+}}(%{{.*}}, %{{.*}}, %[[K]])
// CHECK-NOT: call @{{.*}}%[[K]])
// CHECK: call @map_{{.*}}, %[[N]])
// CHECK-NEXT: return
func.func @main(%r: tensor<2x1x16xf32>, %p: tensor<1xi64>, %x: tensor<4xf32>) -> (tensor<2x16xf32>, tensor<4xf32>) {
  %k = "qcc.read_state"() {state = "k"} : () -> tensor<2x8x16xf32>
  %n = "qcc.read_state"() {state = "n", value = dense<2.0> : tensor<4xf32>} : () -> tensor<4xf32>
  %i = "qcc.insert"(%k, %r, %p) {axis = 1} : (tensor<2x8x16xf32>, tensor<2x1x16xf32>, tensor<1xi64>) -> tensor<2x8x16xf32>
  %s = "qcc.reduce"(%i) {kind = "sum", axes = array<i64: 1>, keepdims = false} : (tensor<2x8x16xf32>) -> tensor<2x16xf32>
  "qcc.write_state"(%i) {state = "k"} : (tensor<2x8x16xf32>) -> ()
  "qcc.write_state"(%x) {state = "n"} : (tensor<4xf32>) -> ()
  return %s, %n : tensor<2x16xf32>, tensor<4xf32>
}

// -----

// Equal operations on parts of buffers share one function: calls say how far from the start of a buffer an operand begins.
// CHECK: call @map_[[F:[0-9a-f]+]](%[[X:.*]], %[[Y:.*]]) {qtile.layer = "", qtile.offset_bytes = array<i64: 16, 0>
// CHECK: call @map_[[F]](%[[X]], %{{.*}}) {qtile.layer = "", qtile.offset_bytes = array<i64: 32, 0>
// CHECK: func.func private @map_{{.*}}operands = [{buffer = 0 : i64, element = "f32", offset = 0 : i64
// CHECK-NOT: func.func private @map_
func.func @main(%x: tensor<3x4xf32>) -> (tensor<1x4xf32>, tensor<1x4xf32>) {
  %a = "qcc.slice"(%x) {offsets = array<i64: 1, 0>, strides = array<i64: 1, 1>} : (tensor<3x4xf32>) -> tensor<1x4xf32>
  %b = "qcc.slice"(%x) {offsets = array<i64: 2, 0>, strides = array<i64: 1, 1>} : (tensor<3x4xf32>) -> tensor<1x4xf32>
  %s = "qcc.unary"(%a) {kind = "tanh"} : (tensor<1x4xf32>) -> tensor<1x4xf32>
  %t = "qcc.unary"(%b) {kind = "tanh"} : (tensor<1x4xf32>) -> tensor<1x4xf32>
  return %s, %t : tensor<1x4xf32>, tensor<1x4xf32>
}

// -----

// Where weights are decoded right before they are read, 6 MB of them are three calls of one function, each for its part of the results.
// CHECK: call @contraction_
// CHECK-NEXT: return
// STREAMED: func.func @main() {{.*}}tensor<1x4096xf32>
// STREAMED: "qtile.buffer"(){{.*}}space = "weights"{{.*}}memref<524288xf32>
// STREAMED: call @[[PART:contraction_[0-9a-f]*]](%[[X:.*]], %{{.*}}, %[[Y:.*]]) {qtile.layer
// STREAMED-NEXT: call @[[PART]](%[[X]], %{{.*}}, %[[Y]]) {qtile.layer = "", qtile.offset_bytes = array<i64: 0, 0, 512>, qtile.operation = 0
// STREAMED-NEXT: call @[[PART]](%[[X]], %{{.*}}, %[[Y]]) {qtile.layer = "", qtile.offset_bytes = array<i64: 0, 0, 1024>, qtile.operation = 0
// STREAMED-NEXT: return
func.func @main(%x: tensor<1x4096xf32>) -> tensor<1x384xf32> {
  %w = "qcc.constant"() {value = dense<0.1> : tensor<384x4096xf32>} : () -> tensor<384x4096xf32>
  %a = "qcc.linear"(%x, %w) : (tensor<1x4096xf32>, tensor<384x4096xf32>) -> tensor<1x384xf32>
  return %a : tensor<1x384xf32>
}
