"""The array and the post unit in Amaranth's simulator give what the functional simulator gives, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from qcc.dialects.accelerator import Configuration
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.machine import Machine
from test.rtl.compute import Bench

SMALL = {"weight_lines": 32, "activation_words": 64, "residual_words": 64, "output_words": 96, "parameter_entries": 32}
SHAPES = [(2, 2, 32, 1), (4, 2, 32, 2)]  # larger ones run as whole programs, in a compiled simulator


def random_machine(rng: np.random.Generator, configuration: Configuration) -> Machine:
    """Buffers full of anything that a program may have put there."""
    machine = Machine(configuration, np.zeros((1, configuration.word_bytes), np.uint8))
    for buffer in (machine.lines, machine.activations, machine.residuals):
        buffer[:] = rng.integers(0, 256, buffer.shape)
    machine.line_plane[:] = rng.integers(0, 5, machine.line_plane.shape)
    machine.line_index[:] = rng.integers(0, 4, machine.line_index.shape)
    machine.line_last[:] = rng.random(machine.line_last.shape) < 0.4
    machine.line_last[-1] = True
    count = len(machine.parameters)
    bits = rng.integers(1, 31, count)  # of the multiplier: the shift leaves about ten bits of most results
    machine.parameters[:, 0] = rng.integers(-(1 << 10), 1 << 10, count)
    machine.parameters[:, 1] = rng.integers(-(1 << bits), 1 << bits)
    machine.parameters[:, 2] = np.clip(bits + rng.integers(-6, 6, count), 0, 62)
    extreme = rng.random(count) < 0.2
    machine.parameters[extreme, :2] = rng.choice([-(1 << 31), (1 << 31) - 1, -1, 0, 1], (int(extreme.sum()), 2))
    machine.parameters[extreme, 2] = rng.integers(0, 63, int(extreme.sum()))
    return machine


def bounds(rng: np.random.Generator, bits: int) -> tuple[int, int]:
    """The least and greatest stored value, of up to `bits` bits and a sign."""
    bits = int(rng.integers(1, bits + 1))
    low = int(rng.integers(-(1 << bits), 1 << bits))
    return low, int(rng.integers(max(low, 0), 1 << bits))


def random_words(rng: np.random.Generator, machine: Machine, residual: bool) -> list[Word]:
    """Modes, and executes with their posts, within the buffers."""
    c = machine.configuration
    planes, bits = int(rng.integers(1, 6)), int(rng.integers(1, 9))
    other = int(rng.integers(1, 8))
    (low, high), (low_sum, high_sum) = (bounds(rng, size) for size in (17 if residual else 31, 17))
    scale = int(rng.integers(4, 30))
    execute = {"planes": planes, "signed": int(rng.integers(2)), "weight_planes": 5, "weight_signed": int(rng.integers(2))}
    words = [
        Word("execute_mode", {**execute, "bipolar": int(rng.integers(2)), "vector_words": 4 * planes}),
        Word(
            "post_requantize",
            {
                "zero_point": int(rng.integers(-(1 << 17), 1 << 17) >> rng.integers(18)),
                "low": low,
                "high": high,
                "bits": bits,
                "rounding": int(rng.integers(2)),
                "channels": int(rng.integers(c.word_bits // 2, 2 * c.word_bits)),
            },
        ),
        Word(
            "post_residual_scale",
            {
                "multiplier_a": int(rng.integers(-(1 << scale), 1 << scale)),
                "multiplier_b": int(rng.integers(-(1 << 31), 1 << 31)),
                "shift": int(rng.integers(scale - 4, scale + 4)),
                "zero_a": int(rng.integers(-(1 << 17), 1 << 17)),
                "zero_b": int(rng.integers(-(1 << 17), 1 << 17)),
            },
        ),
        Word(
            "post_residual",
            {
                "enable": int(residual),
                "planes": other,
                "signed": int(rng.integers(2)),
                "zero_point": int(rng.integers(-(1 << 17), 1 << 17) >> rng.integers(18)),
                "low": low_sum,
                "high": high_sum,
                "residual_words": 2 * other,
            },
        ),
    ]
    ends = np.flatnonzero(machine.line_last)
    for _ in range(8):
        window, groups = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        line = int(ends[rng.integers(0, len(ends) // 2)]) + 1
        held = int((ends >= line).sum())
        tiles = max(window * int(rng.integers(1, 5)), window)
        tiles = min(tiles, held // window * window)
        if not tiles:
            continue
        channel = int(rng.integers(0, c.word_bits // c.rows)) * c.rows
        split = tiles == groups == window == 1
        if split:
            words.append(Word("execute", {"line": 0, "activation": 1, "tiles": 1, "groups": 1, "accumulate": 0, "emit": 0}))
        words.append(
            Word(
                "execute",
                {
                    "line": line,
                    "activation": int(rng.integers(0, 20)),
                    "tiles": tiles,
                    "groups": groups,
                    "accumulate": int(split),
                    "emit": 1,
                },
            )
        )
        words.append(
            Word(
                "post",
                {
                    "tiles": tiles,
                    "groups": groups,
                    "window": window,
                    "parameter": int(rng.integers(0, 32 - 4 * c.rows + 1)),
                    "channel": channel,
                    "output": int(rng.integers(0, 30)),
                    "output_words": 2 * bits,
                    "residual": int(rng.integers(0, 64 - 4 * other)),
                },
            )
        )
    return words


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_the_rtl_computes_what_the_simulator_does(shape: tuple[int, int, int, int], residual: bool, seed: int) -> None:
    rows, columns, word_bits, lanes = shape
    configuration = Configuration(rows=rows, columns=columns, word_bits=word_bits, post_lanes=lanes, **SMALL)
    rng = np.random.default_rng(seed)
    machine = random_machine(rng, configuration)
    words = random_words(rng, machine, residual) + random_words(rng, machine, residual)
    bench = Bench(machine)
    rtl = Machine(configuration, machine.dram)
    for name in ("lines", "line_plane", "line_index", "line_last", "activations", "residuals", "parameters"):
        setattr(rtl, name, getattr(machine, name).copy())
    bench.machine = rtl
    bench.run(words)
    for word in words:
        machine.run(word)
    assert np.array_equal(rtl.outputs, machine.outputs)
    assert len(np.unique(machine.outputs)) > 2
