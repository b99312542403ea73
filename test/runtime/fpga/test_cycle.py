"""The cycle model: the same results as the functional simulation, and times that follow from the machine's rules."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from test_machine import C, linear_program, result

from qcc.dialects.errors import QccError
from qcc.runtime.fpga import cycle, functional
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.machine import Machine


def timed(seed=0, configuration=C, change=None, **shape):
    program, machine, expected, place = linear_program(np.random.default_rng(seed), **shape)
    machine = Machine(configuration, machine.dram)
    timing = cycle.run(machine, change(program) if change else program)
    np.testing.assert_array_equal(result(machine, place, expected.shape[1]), expected)
    return timing, program


SHAPE = {"n": 4, "k": 70, "out": 8, "a_bits": 4, "a_signed": False, "w_bits": 3, "w_signed": True}


def test_execute_takes_lines_times_planes():
    timing, _ = timed(**SHAPE, coding=0)
    lines, tiles, groups = 3 * 3, 2, 2  # words x weight planes
    assert timing.busy["execute"] == groups * (tiles * lines * 4 + cycle.GROUP_CYCLES) + 1  # and one cycle for execute_mode


def test_zero_words_take_no_time():
    """Zero skipping (Cnvlutin: Albericio et al., ISCA 2016)."""
    dense, _ = timed(**SHAPE)
    sparse, _ = timed(**SHAPE, density=0.02)
    assert sparse.busy["execute"] < dense.busy["execute"]
    assert sparse.read_bytes < dense.read_bytes


def test_halving_the_bits_halves_the_time():
    """Bit-serial hardware (Stripes: Judd et al., MICRO 2016)."""
    wide, _ = timed(**{**SHAPE, "a_bits": 8, "w_bits": 4, "k": 320, "out": 4}, coding=0)
    narrow, _ = timed(**{**SHAPE, "a_bits": 4, "w_bits": 4, "k": 320, "out": 4}, coding=0)
    assert 1.8 < wide.busy["execute"] / narrow.busy["execute"] < 2.1


def test_a_wider_bus_and_a_faster_memory_never_slow_a_program_down():
    slow, _ = timed(**SHAPE)
    for change in ({"bus_bytes_per_cycle": 16}, {"dram_latency_cycles": 8}, {"post_lanes": 8}):
        fast, _ = timed(**SHAPE, configuration=dataclasses.replace(C, **change))
        assert fast.cycles <= slow.cycles, change


def test_every_instruction_waits_for_its_tokens_and_its_unit():
    timing, program = timed(**SHAPE)
    at = {word.name: i for i, word in enumerate(program)}
    assert timing.start[at["execute"]] >= timing.end[at["load_parameters"]]
    assert timing.start[at["store"]] >= timing.end[at["post"]]
    for unit in range(4):
        own = [i for i, w in enumerate(program) if w.unit == unit]
        assert all(timing.start[a] <= timing.start[b] for a, b in itertools.pairwise(own))
    assert timing.cycles == max(timing.end)


def test_the_functional_simulation_moves_the_same_bytes():
    program, machine, _, _ = linear_program(np.random.default_rng(0), **SHAPE)
    moved = functional.run(machine, program)
    timing, _ = timed(**SHAPE)
    assert (moved.read_bytes, moved.write_bytes, moved.instruction_bytes) == (
        timing.read_bytes,
        timing.write_bytes,
        timing.instruction_bytes,
    )


def test_a_program_without_a_needed_token_is_reported_not_hung():
    def drop(program):
        return [Word(w.name, w.fields, w.wait, 0) if w.name == "load_parameters" else w for w in program]

    with pytest.raises(QccError, match=r"deadlocked: execute at instruction \d+ \(execute\), post at"):
        timed(**SHAPE, change=drop)


def test_post_must_take_what_execute_emits():
    def other(program):
        return [Word(w.name, {**w.fields, "groups": 1}, w.wait, w.signal) if w.name == "post" else w for w in program]

    with pytest.raises(QccError, match="post takes 2 x 1 tiles behind an execute of 2 x 2, expected the same"):
        timed(**SHAPE, change=other)
