// RUN: qcc-opt %s --split-input-file --verify-diagnostics

// Every instruction is an op whose operands are attributes.
func.func @program() {
  "qisa.load_parameters"() {address = 0, parameter = 0, count = 16, signal = ["post"]} : () -> ()
  "qisa.execute"() {line = 0, activation = 0, tiles = 1, groups = 1, accumulate = 0, emit = 1, wait = ["load"]} : () -> ()
  "qisa.finish"() : () -> ()
  return
}

// -----

// An operand that does not fit its field is refused.
func.func @too_many_tiles() {
  // expected-error @+1 {{attribute 'tiles' is 4096 : i64, expected an integer in 0..4095}}
  "qisa.execute"() {line = 0, activation = 0, tiles = 4096, groups = 1, accumulate = 0, emit = 1} : () -> ()
  return
}

// -----

// A unit cannot wait for itself.
func.func @waits_for_itself() {
  // expected-error @+1 {{'wait' names store, which runs the instruction itself}}
  "qisa.finish"() {wait = ["store"]} : () -> ()
  return
}
