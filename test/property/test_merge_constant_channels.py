"""Constant channels: the same integers after `merge-constant-channels`, and `remove-zero-channels` takes most of them."""

from __future__ import annotations

import numpy as np
import pytest

from qcc.dialects.mlir import create_context, ir, parse_module, walk
from qcc.passes.base import PassContext, make_pass
from qcc.passes.values import shape_of
from qcc.runtime.reference import interpreter
from test.property.tiled_executor import Text, quantized

ATTRIBUTES = "strides = array<i64: 1, 1>, padding = array<i64: {0}, {0}, {0}, {0}>, dilations = array<i64: 1, 1>, groups = 1 : i64"


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("zero", [0, 100])
def test_same_results(bits: int, fixed: bool, zero: int) -> None:
    rng = np.random.default_rng(bits + zero + fixed)
    channels, most = 40, (1 << (bits - 1)) - 1
    kept = np.arange(channels) % 5 == 0
    t = Text()
    kind = quantized(8, False, 0.1, zero)
    x = t.argument(f"tensor<1x3x6x5x{quantized(8, False, 0.1, 7)}>")
    first = rng.integers(-most, most + 1, (channels, 3, 1, 1)).astype(np.int8) * kept.reshape(-1, 1, 1, 1).astype(np.int8)
    w = t.constant(first, f"tensor<{channels}x3x1x1x{quantized(8, True, 0.1, 0)}>")
    bias = t.constant(rng.integers(-3000, 6000, channels).astype(np.int32), f"tensor<{channels}xi32>")
    a = t.op("qcc.conv2d", [x, w, bias], f"tensor<1x{channels}x6x5xi32>", ATTRIBUTES.format(0))
    scales = np.where(kept | (rng.random(channels) < 0.5) | fixed, rng.uniform(0.01, 0.05, channels), 1.7).astype(np.float32)
    if fixed:
        multipliers = ", ".join(str(int(m)) for m in np.rint(scales * 2**30))
        how = f'multiplier = dense<[{multipliers}]> : tensor<{channels}xi32>, shift = dense<30> : tensor<1xi32>, mode = "fixed"'
        how += ', rounding = "half_away"'
    else:
        how = f'multiplier = dense<[{", ".join(repr(float(m)) for m in scales)}]> : tensor<{channels}xf32>, mode = "f32"'
    q = t.op("qcc.requantize", [a], f"tensor<1x{channels}x6x5x{kind}>", f"{how}, axis = 1 : i64, clamp = array<i64: {zero}, 255>")
    second = rng.integers(-most, most + 1, (9, channels, 3, 3)).astype(np.int8)
    v = t.constant(second, f"tensor<9x{channels}x3x3x{quantized(bits, True, 0.1, 0)}>")
    b = t.op("qcc.conv2d", [q, v], "tensor<1x9x6x5xi32>", ATTRIBUTES.format(1))
    with create_context() as context, ir.Location.unknown():
        module = parse_module(t.module(b), context)
        given = rng.integers(0, 256, (1, 3, 6, 5)).astype(np.uint8)
        expected = interpreter.run(module, [given])[0]
        make_pass("merge-constant-channels").run(module, PassContext())
        np.testing.assert_array_equal(interpreter.run(module, [given])[0], expected)
        make_pass("remove-zero-channels").run(module, PassContext())
        module.operation.verify()
        np.testing.assert_array_equal(interpreter.run(module, [given])[0], expected)
        inputs = [shape_of(op.operands[0])[1] for op in walk(module, "qcc.conv2d")][-1]
    assert inputs <= kept.sum() + (8 if bits == 8 else 22), "32 constants of any size become 7 at most; in 2 bits it may not pay"
