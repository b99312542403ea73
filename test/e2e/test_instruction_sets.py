"""Artefacts of every instruction set: equal to the reference where this machine runs them, and free of what the CPU lacks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcc
from qcc.compiler import driver
from qcc.compiler.emit.machine_code import assembly
from qcc.compiler.options import CompileOptions
from qcc.compiler.targets.cpu import ISA_FEATURES, PRESETS, CpuTarget
from qcc.dialects import instruction_sets
from qcc.dialects.mlir import create_context, parse_module
from qcc.runtime.reference import interpreter
from test.property.tiled_executor import Text, quantized
from test.tiers import slow_except

CPUS = {
    "amx": "sapphirerapids",
    "avx512_bf16": "znver4",
    "avx512_vbmi": "icelake-server",
    "avx512_vnni": "cascadelake",
    "avx512": "skylake-avx512",
    "avx_vnni": "alderlake",
    "avx2": "x86-64-v3",
    "generic": "x86-64-v2",
}
U8 = quantized(8, False, 0.05, 3)


def _layers(kind: str) -> tuple[str, np.ndarray[Any, Any]]:
    """Convolutions 3x3, 1x1 and depthwise and a linear layer of one x, with their accumulators as results; `extreme` or `random`.

    Extreme values are what makes 16-bit sums of two products overflow: every byte of x is 255, most weights are -128 or 127.
    """
    rng = np.random.default_rng(11)
    t = Text()

    def weights(*shape: int) -> str:
        values = np.clip(np.rint(rng.standard_normal(shape) * 40), -128, 127)
        if kind == "extreme":
            values = np.where(rng.random(shape) < 0.5, -128, np.where(rng.random(shape) < 0.8, 127, values))
        return t.constant(values.astype(np.int8), f"tensor<{'x'.join(map(str, shape))}x{quantized(8, True, 0.01, 0)}>")

    def layer(op: str, x: str, w: str, shape: list[int], attributes: str = "") -> str:
        sized = "x".join(map(str, shape))
        acc = t.op(f"qcc.{op}", [x, w], f"tensor<{sized}xi32>", attributes)
        return t.op("qcc.dequantize", [acc], f"tensor<{sized}xf32>", "multiplier = dense<1.0> : tensor<1xf32>")

    def convolution(x: str, out: int, kernel: int, groups: int = 1) -> str:
        pad = kernel // 2
        attributes = f"strides = array<i64: 1, 1>, padding = array<i64: {pad}, {pad}, {pad}, {pad}>, dilations = array<i64: 1, 1>"
        w = weights(out, 20 // groups, kernel, kernel)
        return layer("conv2d", x, w, [1, out, 9, 9], f"{attributes}, groups = {groups} : i64")

    x = t.argument(f"tensor<1x20x9x9x{U8}>")
    images = [convolution(x, 41, 3), convolution(x, 20, 3, groups=20), convolution(x, 24, 1)]
    flat = t.op("qcc.reshape", [x], f"tensor<9x180x{U8}>")
    shape = (1, 20, 9, 9)
    inputs = np.full(shape, 255, np.uint8) if kind == "extreme" else rng.integers(0, 256, shape).astype(np.uint8)
    return t.module(*images, layer("linear", flat, weights(19, 180), [9, 19])), inputs


def test_every_instruction_set_has_a_cpu_and_every_cpu_an_instruction_set() -> None:
    assert list(instruction_sets.ISAS) == list(ISA_FEATURES) == list(CPUS)
    assert {name: CpuTarget(cpu).isa for name, cpu in CPUS.items()} == {name: name for name in CPUS}
    assert {CpuTarget(cpu).isa for cpu in PRESETS} == set(CPUS)


@pytest.mark.parametrize("kind", slow_except(["random", "extreme"], "random"))
@pytest.mark.parametrize("cpu", slow_except(CPUS.values(), CPUS["avx2"]))
def test_equals_the_reference(cpu: str, kind: str, tmp_path: Path) -> None:
    target = CpuTarget(cpu)
    if not target.runs_here:
        pytest.skip(f"this machine lacks features of {cpu}")
    text, x = _layers(kind)
    path = tmp_path / "layers.mlir"
    path.write_text(text)
    for got, want in zip(qcc.compile(path, target=target)(x), interpreter.run(parse_module(text, create_context()), [x]), strict=True):
        assert len(np.unique(want)) > 10
        np.testing.assert_array_equal(got, want)


EVEX = r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]|\{%k|\{1to"
ABSENT = {
    "amx": r"\{vex\}",
    "avx_vnni": EVEX,
    "avx2": EVEX + r"|vpdpbusd",
    "generic": r"%ymm|%zmm|\tv",
    "avx512": "vpdp(busd|wssd)",
    "avx512_bf16": r"\{vex\}",
    "avx512_vbmi": r"\{vex\}",
    "avx512_vnni": r"\{vex\}|vperm[it]2b",
}
PRESENT = {
    "amx": r"tdpbusd",
    "avx512_bf16": r"vpdpbusd.*%zmm",
    "avx512_vbmi": r"vpdpbusd.*%zmm",
    "avx512_vnni": r"vpdpbusd.*%zmm",
    "avx512": r"vpmadd(ubsw|wd).*%zmm",
    "avx_vnni": r"\{vex\} vpdpbusd.*%ymm",
    "avx2": r"vpmaddubsw.*%ymm",
    "generic": r"mulps|pmulld|pmaddwd",
}


@pytest.mark.parametrize("name", slow_except(CPUS, "avx2"))
def test_uses_the_instructions_of_its_cpu_and_no_others(name: str, tmp_path: Path) -> None:
    path = tmp_path / "layers.mlir"
    path.write_text(_layers("random")[0])
    compilation = driver.start(path, CompileOptions(cpu=CPUS[name]))
    lines = assembly(compilation.run_to("llvm")).splitlines()
    assert any(re.search(PRESENT[name], line) for line in lines)
    assert not [line for line in lines if re.search(ABSENT[name], line)][:5]
