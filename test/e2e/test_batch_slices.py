"""A batch that runs slice by slice gives what the reference gives for all of it, on every instruction set and number of threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.compiler.targets.cpu import CpuTarget
from qcc.dialects.mlir import create_context, parse_module
from qcc.passes.tile import slice_batch
from qcc.runtime.reference import interpreter
from test.e2e.test_instruction_sets import CPUS
from test.property.tiled_executor import Text, quantized
from test.tiers import slow_except

BATCH = 4
U8, S8 = quantized(8, False, 0.05, 3), quantized(8, True, 0.01, 0)


def _residual_block(size: int) -> str:
    """Float images, quantized; 3x3 with a border, 1x1, a residual sum, max pooling; then the mean over the image for all images at once."""
    rng, t = np.random.default_rng(5), Text()

    def image(channels: int, edge: int, element: str) -> str:
        return f"tensor<{BATCH}x{channels}x{edge}x{edge}x{element}>"

    def layer(x: str, inside: int, out: int, kernel: int, stride: int = 1) -> str:
        values = np.clip(np.rint(rng.standard_normal((out, inside, kernel, kernel)) * 30), -128, 127).astype(np.int8)
        w = t.constant(values, f"tensor<{out}x{inside}x{kernel}x{kernel}x{S8}>")
        pad, edge = kernel // 2, size // stride
        window = f"padding = array<i64: {pad}, {pad}, {pad}, {pad}>, dilations = array<i64: 1, 1>, groups = 1 : i64"
        acc = t.op("qcc.conv2d", [x, w], image(out, edge, "i32"), f"strides = array<i64: {stride}, {stride}>, {window}")
        return t.op("qcc.requantize", [acc], image(out, edge, U8), 'multiplier = dense<0.004> : tensor<1xf32>, mode = "f32"')

    x = t.op("qcc.quantize", [t.argument(image(8, size, "f32"))], image(8, size, U8))
    wide = layer(x, 8, 32, 1)
    branch = layer(layer(wide, 32, 32, 3), 32, 32, 1)
    total = t.op("qcc.add", [branch, wide], image(32, size, U8), 'multipliers = dense<[0.5, 0.75]> : tensor<2xf32>, mode = "f32"')
    pooling = "kernel = array<i64: 3, 3>, strides = array<i64: 2, 2>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>"
    pooled = t.op("qcc.max_pool2d", [total], image(32, size // 2, U8), f"{pooling}, ceil_mode = false")
    w = t.constant(rng.integers(-9, 9, (24, 32, 3, 3)).astype(np.int8), f"tensor<24x32x3x3x{S8}>")
    window = "padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64, strides = array<i64: 2, 2>"
    last = t.op("qcc.conv2d", [pooled, w], image(24, size // 4, "i32"), window)
    return t.module(t.op("qcc.dequantize", [last], image(24, size // 4, "f32"), "multiplier = dense<1.0> : tensor<1xf32>"))


@pytest.mark.parametrize("cpu", slow_except(CPUS.values(), CPUS["avx2"]))
@pytest.mark.parametrize("resident_bytes", slow_except([5_000, 40_000], 5_000))
def test_slices_equal_the_whole_batch(cpu: str, resident_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CpuTarget(cpu).runs_here:
        pytest.skip(f"this machine lacks features of {cpu}")
    monkeypatch.setattr(slice_batch, "RESIDENT_BYTES", resident_bytes)
    text = _residual_block(16)
    path = tmp_path / "block.mlir"
    path.write_text(text)
    x = np.random.default_rng(1).standard_normal((BATCH, 8, 16, 16)).astype(np.float32) * 4
    executable = qcc.compile(path, target=CpuTarget(cpu), threads=2)
    layers = [step["codelet"] for step in executable.info["steps"]]
    assert len(layers) > len(set(layers)) + 2, "no part of the model ran in slices"
    want = interpreter.run(parse_module(text, create_context()), [x])[0]
    assert len(np.unique(want)) > 50
    np.testing.assert_array_equal(executable(x), want)
