// RUN: qcc-opt %s --split-input-file --verify-diagnostics --pass-pipeline='builtin.module(schedule-tokens)' | filecheck %s

// A load that fills what execute reads is waited for; a load into what execute still reads waits for it; one token says it once.
// CHECK: load_activations{{.*}}activation = 0{{.*}}signal = ["execute"]
// CHECK: qisa.execute"{{.*}}activation = 0 : i64{{.*}}signal = ["load"]{{.*}}wait = ["load"]
// CHECK: load_activations{{.*}}activation = 64{{.*}}signal = ["execute"], x =
// CHECK: load_activations{{.*}}activation = 0{{.*}}wait = ["execute"]
// CHECK: qisa.execute"{{.*}}activation = 64 : i64{{.*}}tiles = 1 : i64, wait = ["load"]}
func.func private @program() {
  "qisa.execute_mode"() {planes = 8, signed = 0, weight_planes = 4, weight_signed = 1, bipolar = 0, vector_words = 64} : () -> ()
  "qisa.load_geometry"() {height = 1, width = 4, kernel_y = 1, kernel_x = 1, dilation_y = 1, dilation_x = 1, stride_x = 1, run_words = 64} : () -> ()
  "qisa.load_layout"() {padding = 0, pixel_words = 64, row_words = 256, vector_words = 64, coding = "raw"} : () -> ()
  "qisa.load_activations"() {address = 0, activation = 0, first = 0, count = 4, y = 0, x = 0} : () -> ()
  "qisa.execute"() {line = 0, activation = 0, tiles = 1, groups = 1, accumulate = 0, emit = 1, line_count = 4} : () -> ()
  "qisa.load_activations"() {address = 0, activation = 64, first = 0, count = 4, y = 0, x = 0} : () -> ()
  "qisa.load_activations"() {address = 0, activation = 0, first = 0, count = 4, y = 0, x = 0} : () -> ()
  "qisa.execute"() {line = 0, activation = 64, tiles = 1, groups = 1, accumulate = 0, emit = 1, line_count = 4} : () -> ()
  return
}

// -----

// A layer's loads wait for the stores of the pixels that they read, and only for those.
// CHECK: qisa.store"{{.*}}address = 0 : i64{{.*}}signal = ["load"]
// CHECK: qisa.store"{{.*}}address = 64 : i64
// CHECK-NOT: signal
// CHECK: load_activations{{.*}}wait = ["store"]
func.func private @program() {
  "qisa.load_geometry"() {height = 1, width = 4, kernel_y = 1, kernel_x = 1, dilation_y = 1, dilation_x = 1, stride_x = 1, run_words = 8} : () -> ()
  "qisa.load_layout"() {padding = 0, pixel_words = 8, row_words = 32, vector_words = 8, coding = "raw"} : () -> ()
  "qisa.store"() {address = 0, output = 0, count = 4, run_words = 8, pixel_words = 8, output_words = 8, coding = "raw"} : () -> ()
  "qisa.store"() {address = 64, output = 0, count = 4, run_words = 8, pixel_words = 8, output_words = 8, coding = "raw"} : () -> ()
  "qisa.load_activations"() {address = 0, activation = 0, first = 0, count = 4, y = 0, x = 0} : () -> ()
  return
}

// -----

// An instruction without the state it needs is refused.
func.func private @program() {
  // expected-error @+1 {{'qisa.execute' stands before the qisa.execute_mode that sets it up}}
  "qisa.execute"() {line = 0, activation = 0, tiles = 1, groups = 1, accumulate = 0, emit = 1} : () -> ()
  return
}
