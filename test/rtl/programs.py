"""Random segments of a few layers, compiled, for the RTL: alone from a seed, so that a failure can be called again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga import cycle, rtl_simulation
from qcc.runtime.fpga.machine import Machine
from test.property.test_accelerator_segments import Builder, compiled, memory

# Every parameter that the RTL is generated from has other values than elsewhere.
SMALL = Configuration(
    rows=4, columns=2, word_bits=32, weight_lines=128, activation_words=256, residual_words=64, output_words=64, parameter_entries=64,
    bus_bytes_per_cycle=4, post_lanes=2, dram_latency_cycles=20, queue_instructions=8, accumulator_tiles=3,
)  # fmt: skip
ODD = Configuration(
    rows=2, columns=3, word_bits=32, weight_lines=48, activation_words=96, residual_words=40, output_words=40, parameter_entries=36,
    bus_bytes_per_cycle=4, post_lanes=1, dram_latency_cycles=5, queue_instructions=4, accumulator_tiles=1,
)  # fmt: skip
WIDE = Configuration(
    rows=4, columns=2, word_bits=128, weight_lines=256, activation_words=128, residual_words=64, output_words=64, parameter_entries=128,
    bus_bytes_per_cycle=16, post_lanes=2, dram_latency_cycles=60,
)  # fmt: skip
FLAGS = replace(SMALL, activation_codings=2)


def build(seed: int) -> tuple[Builder, Any]:
    """A few layers behind each other: a convolution or linear layer, then perhaps another, a sum, a pooling."""
    rng = np.random.default_rng(seed)
    bits, signed = int(rng.integers(1, 9)), bool(rng.integers(0, 2))
    zero = int(rng.integers(-(1 << bits - 1) if signed else 0, 1 << bits - signed))
    channels = int(rng.integers(1, 40))
    if rng.random() < 0.3:
        shape = [int(rng.integers(1, 7)), channels]
        builder = Builder(rng, shape, bits, signed, zero)
        acc, shape = builder.linear(("%x", builder.tensor(shape, builder.argument[0])), shape, int(rng.integers(1, 40)))
        return builder, acc if rng.random() < 0.3 else builder.requantize(acc, shape, 1)

    shape = [1, channels, int(rng.integers(3, 7)), int(rng.integers(3, 7))]
    builder = Builder(rng, shape, bits, signed, zero)
    x = "%x", builder.tensor(shape, builder.argument[0])
    groups, kernel = (channels if rng.random() < 0.3 else 1), [int(k) for k in rng.integers(1, 4, 2)]
    outputs = groups * int(rng.integers(1, 3)) if groups > 1 else int(rng.integers(1, 20))
    strides, padding = [int(s) for s in rng.integers(1, 3, 2)], [int(p) for p in rng.integers(0, 2, 4)]
    acc, shape = builder.conv(x, shape, outputs, kernel, strides, [1, 1], padding, groups)
    result = builder.requantize(acc, shape, 1)
    kind = rng.choice(["sum", "pool", "none"])
    if kind == "sum":
        acc, shape = builder.conv(result[:2], shape, outputs, [3, 3], [1, 1], [1, 1], [1] * 4, 1)
        again, out = builder.requantize(acc, shape, 1), builder.result_kind()
        scale = builder.fixed(2, "multipliers") + builder.clamp(out)
        result = *builder.emit('"qcc.add"', [again[:2], result[:2]], scale, builder.tensor(shape, out[0])), shape, out
    elif kind == "pool" and min(shape[2:]) > 1:
        window = "kernel = array<i64: 2, 2>, strides = array<i64: 1, 1>, padding = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>"
        shape = [*shape[:2], shape[2] - 1, shape[3] - 1]
        element = result[2 + 1][0]
        result = *builder.emit('"qcc.max_pool2d"', [result[:2]], window, builder.tensor(shape, element)), shape, result[3]
    return builder, result


def run(seed: int, configuration: Configuration, unsteady: int = 0) -> tuple[cycle.Timing, cycle.Timing]:
    """The times that the RTL takes and that the cycle simulator predicts. Raises AssertionError where the RTL leaves the reference."""
    builder, result = build(seed)
    emitted, segment, x, wanted = compiled(builder, result, configuration)
    machine = Machine(configuration, memory(builder.rng, emitted, segment, x))
    predicted = cycle.run(Machine(configuration, machine.dram.copy()), segment.words)
    timing = rtl_simulation.run(machine, segment.words, unsteady=unsteady)
    np.testing.assert_array_equal(segment.outputs[0].read(machine.dram), wanted, err_msg=f"seed {seed}\n{builder.text(result)}")
    return timing, predicted
