"""3x3 convolutions by F(4x4, 3x3): integers bit for bit, also at the edge of their range; floats within a bound."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.dialects.unary_functions import unary
from qcc.passes.tile.codelets import winograd
from test.property.test_codelets import EXAMPLES, _convolution, _tensor
from test.property.tiled_executor import Text, Tiled, check, quantized
from test.tiers import slow_except

INSTRUCTION_SETS = ["avx512_vnni", "avx512", "avx2"]
ATTRIBUTES = "strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64"


def _always(text: str, inputs: list[np.ndarray], isa: str, tolerance: float = 0.0) -> Tiled:
    with mock.patch.object(winograd, "GAIN", np.inf):
        found = check(text, inputs, isa, tolerance=tolerance)
    assert 'kind = "winograd"' in found.text
    return found


@pytest.mark.slow
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@EXAMPLES
@given(
    seed=st.integers(0, 1 << 30),
    n=st.integers(1, 2),
    channels=st.sampled_from([32, 64]),
    out=st.sampled_from([32, 64, 96]),
    edges=st.tuples(st.integers(4, 13), st.integers(4, 13)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    signed=st.tuples(st.booleans(), st.booleans()),
    residual=st.booleans(),
    bias=st.booleans(),
)
def test_integers(
    isa: str, seed: int, n: int, channels: int, out: int, edges: Any, padding: Any, signed: Any, residual: bool, bias: bool
) -> None:
    size = tuple(edges[i] + 2 - padding[i] - padding[i + 2] for i in (0, 1))
    case = {
        "seed": seed, "n": n, "groups": 1, "c": channels, "o": out, "depthwise": False, "kernel": (3, 3), "strides": (1, 1),
        "dilations": (1, 1), "padding": padding, "size": size, "x_bits": 8, "x_signed": signed[0], "w_bits": 7, "w_signed": True,
        "y_signed": signed[1], "residual": residual, "bias": bias,
    }  # fmt: skip
    _always(*_convolution(case), isa)


@pytest.mark.parametrize("isa", slow_except(INSTRUCTION_SETS, "avx2"))
@pytest.mark.parametrize(("n", "height", "width"), slow_except([(2, 6, 10), (1, 8, 6), (3, 10, 4), (1, 14, 14)], (2, 6, 10)))
def test_narrow_tiles(isa: str, n: int, height: int, width: int) -> None:
    """Edges of 2 results have tiles of their own, whose x is transformed otherwise and multiplied by the same weights."""
    t, rng = Text(), np.random.default_rng(height * width)
    x = t.argument(_tensor([n, 32, height, width], quantized(8, False, 0.5, 7)))
    values = rng.integers(-127, 128, (64, 32, 3, 3)).astype(np.int8)
    w = t.constant(values, _tensor(values.shape, quantized(8, True, 0.25, 0)))
    bias = t.constant(rng.integers(-(1 << 20), 1 << 20, 64).astype(np.int32), "tensor<64xi32>")
    acc = t.op("qcc.conv2d", [x, w, bias], _tensor([n, 64, height, width], "i32"), ATTRIBUTES)
    predict = winograd._predict

    def no_others(*arguments: Any) -> winograd.Plan:
        plan = predict(*arguments)
        return plan if plan.narrow else dataclasses.replace(plan, microseconds=np.inf)

    with mock.patch.object(winograd, "_predict", no_others):
        found = _always(t.module(acc), [rng.integers(0, 256, (n, 32, height, width)).astype(np.uint8)], isa)
    assert "narrow = true" in found.text


@pytest.mark.parametrize("isa", slow_except(INSTRUCTION_SETS, "avx2"))
@pytest.mark.parametrize(
    ("channels", "weight", "fits"), slow_except([(96, 127, True), (96, -128, True), (128, 127, False)], (96, -128, True))
)
def test_sums_at_the_edge_of_26_bits(isa: str, channels: int, weight: int, fits: bool) -> None:
    """All of x and w at their largest: exact where the sum fits, and the direct loop where it does not."""
    t = Text()
    x = t.argument(_tensor([1, channels, 4, 4], quantized(8, False, 0.5, 0)))
    values = np.full((32, channels, 3, 3), weight, np.int8)
    w = t.constant(values, _tensor(values.shape, quantized(8, True, 0.25, 0)))
    acc = t.op("qcc.conv2d", [x, w], _tensor([1, 32, 4, 4], "i32"), ATTRIBUTES)
    text, inputs = t.module(acc), [np.full((1, channels, 4, 4), 255, np.uint8)]
    if fits:
        _always(text, inputs, isa)
    else:
        with mock.patch.object(winograd, "GAIN", np.inf):
            assert 'kind = "winograd"' not in check(text, inputs, isa).text


@pytest.mark.parametrize("isa", slow_except(INSTRUCTION_SETS, "avx2"))
@pytest.mark.parametrize(("channels", "width"), slow_except([(32, 9), (128, 9), (32, 10)], (32, 9)))
def test_floats(isa: str, channels: int, width: int) -> None:
    """Within 5e-5 of the reference for results of standard deviation 1: F(4x4) loses some 5 bits to its coefficients."""
    t, rng = Text(), np.random.default_rng(6)
    x = t.argument(_tensor([2, channels, 12, width], "f32"))
    values = (rng.standard_normal((64, channels, 3, 3)) / (9 * channels) ** 0.5).astype(np.float32)
    operands = [
        x,
        t.constant(values, _tensor(values.shape, "f32")),
        t.constant(rng.standard_normal(64).astype(np.float32), "tensor<64xf32>"),
    ]
    y = t.op("qcc.conv2d", operands, _tensor([2, 64, 12, width], "f32"), ATTRIBUTES)
    _always(t.module(y), [rng.standard_normal((2, channels, 12, width)).astype(np.float32)], isa, tolerance=5e-5)


def test_bfloat16() -> None:
    """x that is stored in two bytes, where products of pairs would take longer."""
    t, rng = Text(), np.random.default_rng(8)
    x = t.argument(_tensor([1, 32, 8, 10], "f32"))
    rounded = t.op("qcc.unary", [x], t.types[x], 'kind = "round_bf16"')
    values = unary("round_bf16", (rng.standard_normal((64, 32, 3, 3)) / 17).astype(np.float32))
    y = t.op("qcc.conv2d", [rounded, t.constant(values, _tensor(values.shape, "f32"))], _tensor([1, 64, 8, 10], "f32"), ATTRIBUTES)
    found = _always(t.module(y), [rng.standard_normal((1, 32, 8, 10)).astype(np.float32)], "avx512_bf16", tolerance=5e-5)
    assert 'element = "bf16"' in found.text
