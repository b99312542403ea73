// RUN: qcc-opt %s --pass-pipeline='builtin.module(tile-for-accelerator{rows=2 columns=2 word-bits=32 activation-words=16},plan-accelerator-memory,select-instructions)' | filecheck %s
// RUN: qcc-opt %s --pass-pipeline='builtin.module(tile-for-accelerator{rows=2 columns=2 word-bits=32 activation-words=16 activation-codings=2},plan-accelerator-memory,select-instructions)' | filecheck %s --check-prefix=FLAGS
// RUN: qcc-opt %s --pass-pipeline='builtin.module(tile-for-accelerator{rows=2 columns=2 word-bits=128 activation-words=16 activation-codings=3},plan-accelerator-memory,select-instructions)' | filecheck %s --check-prefix=RUNS

!x = !quant.uniform<u4:f32, 0.5:3>
!w = !quant.uniform<i8:f32, 0.5>

// Six pixels of four words take two tiles of two groups; the second goes to the other half of the buffers. Weights are loaded once.
// CHECK-LABEL: @accelerator_1_program() attributes {qisa.segment = @accelerator_1}
// CHECK-NEXT: qisa.post_requantize
// CHECK-NEXT: qisa.post_residual
// CHECK-NEXT: qisa.load_parameters
// CHECK-NEXT: qisa.load_weights
// CHECK-NEXT: qisa.load_geometry
// CHECK-NEXT: qisa.load_layout
// CHECK-NEXT: "qisa.load_activations"() {activation = 0 : i64, address = 0 : i64, count = 4 : i64
// CHECK-NEXT: qisa.execute_mode
// CHECK-NEXT: "qisa.execute"() {accumulate = 0 : i64, activation = 0 : i64
// CHECK-NEXT: "qisa.post"() {{.*}}output = 0 : i64
// CHECK-NEXT: "qisa.store"() {{.*}}count = 4 : i64
// CHECK-NEXT: "qisa.load_activations"() {activation = 8 : i64, address = 0 : i64, count = 2 : i64, first = 0 : i64, x = 4 : i64
// CHECK-NEXT: "qisa.execute"() {accumulate = 0 : i64, activation = 8 : i64
// CHECK-NEXT: "qisa.post"() {{.*}}output = 256 : i64
// CHECK-NEXT: "qisa.store"() {{.*}}count = 2 : i64
// CHECK-NEXT: qisa.finish
func.func private @accelerator_1(%q: tensor<6x3x!x>) -> tensor<6x2x!x> attributes {qcc.segment = "accelerator"} {
  %w = "qcc.constant"() {value = dense<[[1, -2, 3], [1, 2, -2]]> : tensor<2x3xi8>} : () -> tensor<2x3x!w>
  %a = "qcc.linear"(%q, %w) : (tensor<6x3x!x>, tensor<2x3x!w>) -> tensor<6x2xi32>
  %r = "qcc.requantize"(%a) {mode = "fixed", multiplier = dense<5> : tensor<1xi32>, shift = dense<3> : tensor<1xi32>, rounding = "half_away"} : (tensor<6x2xi32>) -> tensor<6x2x!x>
  return %r : tensor<6x2x!x>
}

// Where load and store know zero flags, a tensor between two layers has them if that is expected to move fewer words; the ends have not.
// Four planes of three channels in words of 128 bits are a byte of 16 each: run lengths move fewer still, in slots of 6 words.
// FLAGS-LABEL: @accelerator_2_program
// FLAGS: qisa.load_layout"() {coding = "raw"
// FLAGS: qisa.store"() {{.*}}coding = "flags"
// FLAGS: qisa.load_layout"() {coding = "flags"
// FLAGS: qisa.store"() {{.*}}coding = "raw"
// RUNS-LABEL: @accelerator_2_program
// RUNS: qisa.store"() {{.*}}coding = "run_lengths"{{.*}}pixel_words = 6 : i64
// RUNS: qisa.load_layout"() {coding = "run_lengths"
// RUNS: qisa.store"() {{.*}}coding = "raw"
func.func private @accelerator_2(%q: tensor<6x3x!x>) -> tensor<6x3x!x> attributes {qcc.segment = "accelerator"} {
  %w = "qcc.constant"() {value = dense<[[1, -2, 3], [1, 2, -2], [3, 1, 1]]> : tensor<3x3xi8>} : () -> tensor<3x3x!w>
  %a = "qcc.linear"(%q, %w) : (tensor<6x3x!x>, tensor<3x3x!w>) -> tensor<6x3xi32>
  %r = "qcc.requantize"(%a) {mode = "fixed", multiplier = dense<5> : tensor<1xi32>, shift = dense<3> : tensor<1xi32>, rounding = "half_away"} : (tensor<6x3xi32>) -> tensor<6x3x!x>
  %b = "qcc.linear"(%r, %w) {qcc.zeros = 0.9 : f64} : (tensor<6x3x!x>, tensor<3x3x!w>) -> tensor<6x3xi32>
  %s = "qcc.requantize"(%b) {mode = "fixed", multiplier = dense<5> : tensor<1xi32>, shift = dense<3> : tensor<1xi32>, rounding = "half_away"} : (tensor<6x3xi32>) -> tensor<6x3x!x>
  return %s : tensor<6x3x!x>
}
