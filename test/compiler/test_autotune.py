"""Measured register tiles: answers are kept, change nothing but time, and give the same artefact again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.compiler.cost import autotune
from qcc.compiler.driver import Observer, compile_model
from qcc.compiler.options import CompileOptions
from qcc.dialects import machine
from qcc.dialects.codelet import Contraction, Operand

MODEL = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"


def layer(width: int = 14, rows_per_task: int = 14) -> Contraction:
    return Contraction(
        isa="avx512_vnni", compute="dot4_u8s8", sizes=(1, 1, 14, width, 64), x=Operand(0, "u8", (0, 0, 64 * width, 64, 0)),
        w=Operand(1, "s8", (0, 0, 0, 0, 4096)), taps=(1, 1), tap_strides=(0, 0), run=64, tile=(1, 2, 4), chunks=(1, rows_per_task),
        operands=(), steps=(), y=Operand(2, "i32", (0, 0, 64 * width, 64, 1)),
    )  # fmt: skip


def test_candidates_fit_registers_and_tasks() -> None:
    vnni = machine.DEFAULTS["emerald-rapids-vnni"]
    tiles = autotune.candidates(layer(), vnni)
    assert tiles[0] == (1, 2) and 1 < len(tiles) <= autotune.CANDIDATES and len(set(tiles)) == len(tiles)
    for rows, columns in autotune.candidates(layer(width=3), vnni):
        assert rows * columns * 4 + 4 + 1 <= 32 and (rows == 1 or columns == 3)
    assert {rows for rows, _ in autotune.candidates(layer(width=2, rows_per_task=3), vnni)} <= {1, 3}
    assert all(rows == 1 for rows, _ in autotune.candidates(replace(layer(width=2), w=Operand(1, "s8", (0, 0, 4096, 0, 4096))), vnni))


def test_a_damaged_cache_is_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "tiles" / "x.json"
    assert autotune.read_cache(file) == {}
    autotune.write_cache(file, {"contraction_a": (2, 7)})
    assert autotune.read_cache(file) == {"contraction_a": (2, 7)}
    file.write_text('{"contraction_a": 3')
    assert autotune.read_cache(file) == {}


@pytest.mark.slow
def test_tuned_code_computes_the_same_and_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen: list[str] = []

    def compiled(path: Path) -> None:
        observer = Observer(progress=lambda text, fraction: seen.append(text))
        executable = compile_model(str(MODEL), CompileOptions(autotune=True), observer=observer, threads=1)
        executable.save(path)

    compiled(tmp_path / "first.so")
    assert any(text.startswith("autotune") for text in seen)
    seen.clear()
    compiled(tmp_path / "second.so")
    assert not any(text.startswith("autotune") for text in seen)
    assert (tmp_path / "first.so").read_bytes() == (tmp_path / "second.so").read_bytes()
    x = np.random.default_rng(0).standard_normal(qcc.compile(MODEL).inputs[0].shape).astype(np.float32)
    assert np.array_equal(qcc.load(tmp_path / "first.so")(x), qcc.compile(MODEL)(x))
