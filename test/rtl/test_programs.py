"""Whole programs on the simulated RTL: bit for bit the reference, the bytes that the simulators count, about the cycles they predict."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.dialects.accelerator import Configuration
from qcc.dialects.errors import QccError
from qcc.runtime.fpga import cycle, rtl_simulation
from qcc.runtime.fpga.encoder import Word
from qcc.runtime.fpga.machine import Machine
from test.rtl import programs
from test.runtime.fpga.test_machine import linear_program
from test.tiers import slow_except

EXAMPLES = Path(__file__).parents[2] / "examples"
PREDICTED = 0.05, 500  # how far the RTL's cycles may be from those of level cycle: a share, and cycles, which are most of short programs


def same_traffic(timing: Any, predicted: Any, configuration: Configuration, segments: int = 1) -> None:
    assert (timing.read_bytes, timing.write_bytes) == (predicted.read_bytes, predicted.write_bytes)
    ahead = timing.instruction_bytes - predicted.instruction_bytes
    assert 0 <= ahead <= segments * rtl_simulation.AHEAD_WORDS * configuration.word_bytes


def check(seed: int, configuration: Configuration, unsteady: int) -> None:
    timing, predicted = programs.run(seed, configuration, unsteady)
    same_traffic(timing, predicted, configuration)
    if not unsteady:
        assert abs(timing.cycles - predicted.cycles) <= PREDICTED[0] * predicted.cycles + PREDICTED[1]


@pytest.mark.parametrize("unsteady", [0, 1], ids=["steady", "unsteady"])
@pytest.mark.parametrize("seed", slow_except(range(40), *range(6), 10))
def test_random_segments_on_a_small_accelerator(seed: int, unsteady: int) -> None:
    check(seed, programs.SMALL, unsteady * (seed + 1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("name", ["ODD", "WIDE", "FLAGS"])
def test_random_segments_on_other_accelerators(name: str, seed: int) -> None:
    check(seed, getattr(programs, name), seed % 2 * (seed + 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "file, device",
    [("digits_cnn.mlir", "ecp5-85k"), ("digits_mixer.mlir", "ecp5-85k"), ("digits_cnn.mlir", "ecp5-85k,activation_codings=2")],
)
def test_digits_on_ecp5_85k(file: str, device: str) -> None:
    executable = qcc.compile(EXAMPLES / file, target=qcc.FpgaTarget(device))
    image = np.load(EXAMPLES / "digits.npz")["images"][:1]
    found, predicted = (executable.simulate(image, level=level) for level in ("rtl", "cycle"))
    np.testing.assert_array_equal(found.outputs[0], predicted.outputs[0])
    same_traffic(found.trace, predicted.trace, executable.package.configuration, len(executable.package.segments))
    assert abs(found.trace.cycles / predicted.trace.cycles - 1) <= 0.03  # 12 segments of the mixer start anew each


SHAPE = {"n": 4, "k": 70, "out": 8, "a_bits": 4, "a_signed": False, "w_bits": 3, "w_signed": True}


def changed(change) -> tuple[Machine, list[Word]]:
    """A program in words of 32 bits with `change` made to every instruction, on a machine that has an RTL simulator already."""
    program, machine, _, _ = linear_program(np.random.default_rng(0), **SHAPE)
    return Machine(programs.SMALL, machine.dram), [change(word) for word in program]


def test_a_program_without_a_needed_token_ends_with_an_error() -> None:
    machine, words = changed(lambda w: Word(w.name, w.fields, w.wait, 0) if w.name == "load_parameters" else w)
    with pytest.raises(QccError, match="deadlocked: execute at instruction"):  # the prediction of its cycles finds it
        rtl_simulation.run(machine, words)


def test_a_program_that_does_not_finish_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, words = changed(lambda w: w)
    held = cycle.predict(machine.configuration, machine.dram, words)
    monkeypatch.setattr(cycle, "predict", lambda *_: held)
    monkeypatch.setattr(rtl_simulation, "CHUNK_CYCLES", 1000)
    words = [Word(w.name, w.fields, w.wait, 0) if w.name == "load_parameters" else w for w in words]
    with pytest.raises(
        QccError, match=r"not finished after \d+ cycles, expected about \d+; load took 5 instructions and did 5, execute took 1"
    ):
        rtl_simulation.run(machine, words)


def test_leaving_memory_is_an_error() -> None:
    machine, words = changed(lambda w: Word(w.name, {**w.fields, "address": 10**6}, w.wait, w.signal) if w.name == "store" else w)
    with pytest.raises(QccError, match="the program reaches DRAM word 1000000, memory has"):
        rtl_simulation.run(machine, words)


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtl_simulation, "TOOLS", ("amaranth", "no-such-tool"))
    with pytest.raises(QccError, match=r"RTL simulation needs no-such-tool, which is not installed; run: pip install 'qcc\[fpga\]'"):
        rtl_simulation.library_path(programs.SMALL)


def test_a_simulator_is_built_again_when_what_it_is_made_of_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = rtl_simulation._compiler()
    key = rtl_simulation._key(programs.SMALL, compiler)
    assert key != rtl_simulation._key(dataclasses.replace(programs.SMALL, rows=2), compiler)
    monkeypatch.setattr(rtl_simulation, "SOURCES", ("isa.py",))
    assert key != rtl_simulation._key(programs.SMALL, compiler)


def test_the_rtl_is_made_of_the_sources_that_its_simulators_are_known_by() -> None:
    """A module that the RTL imports and SOURCES does not have would leave an old simulator in the cache."""
    here = Path(rtl_simulation.__file__).resolve().parent
    known = {file.resolve() for pattern in rtl_simulation.SOURCES for file in here.glob(pattern)}
    for file in (here / "rtl").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qcc."):
                parts = node.module.removeprefix("qcc.").split(".")
                place = here.parents[1].joinpath(*parts)
                found = [place.with_suffix(".py")] if place.with_suffix(".py").exists() else [place / f"{n.name}.py" for n in node.names]
                assert set(found) - {here.parents[1] / "dialects" / "errors.py"} <= known, f"{file.name} imports {node.module}"
