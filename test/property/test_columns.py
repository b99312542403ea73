"""Linear layers that skip what is 0 in their input: bit for bit the reference, whatever the input really holds."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.passes.tile.codelets import columns
from test.property.test_codelets import EXAMPLES, _stored, _tensor
from test.property.tiled_executor import Text, check, dense, quantized
from test.tiers import draws, slow_except

INSTRUCTION_SETS = ["avx512_vnni", "avx512", "avx_vnni", "avx2"]


@pytest.mark.parametrize("isa", slow_except(INSTRUCTION_SETS, "avx2"))
@draws(8, EXAMPLES)
@given(
    seed=st.integers(0, 1 << 30),
    inside=st.integers(1, 70),
    out=st.sampled_from([1, 7, 16, 40, 64, 100, 130, 600, 1030]),
    share=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    signed=st.booleans(),
    kind=st.sampled_from(["bytes", "floats", "accumulators"]),
    bias=st.booleans(),
    residual=st.booleans(),
)
def test_linear(isa: str, seed: int, inside: int, out: int, share: float, signed: bool, kind: str, bias: bool, residual: bool) -> None:
    rng, t = np.random.default_rng(seed), Text()
    zero = -128 if signed else 0
    x_kind, y_kind = quantized(8, signed, 0.1, zero), quantized(8, True, 0.5, 3)
    x = t.argument(_tensor([1, inside], x_kind))
    other = t.argument(_tensor([1, out], y_kind)) if residual and kind == "bytes" else None
    weight = t.constant(_stored(rng, (out, inside), 8, True), _tensor([out, inside], quantized(8, True, 0.1, 0)))
    operands = [x, weight]
    if bias:
        operands.append(t.constant(rng.integers(-5000, 5000, out).astype(np.int32), _tensor([out], "i32")))
    y = t.op("qcc.linear", operands, _tensor([1, out], "i32"), "qcc.zeros = 0.75 : f64")
    spread = 5000.0 * inside**0.5
    if kind == "bytes":
        multiplier = (rng.uniform(20, 80, out) / spread).astype(np.float32)
        y = t.op("qcc.requantize", [y], _tensor([1, out], y_kind), f'multiplier = {dense(multiplier, "f32")}, axis = 1 : i64, mode = "f32"')
    elif kind == "floats":
        y = t.op("qcc.dequantize", [y], _tensor([1, out], "f32"), "multiplier = dense<0.01> : tensor<1xf32>")
    if other is not None:
        y = t.op("qcc.add", [y, other], _tensor([1, out], y_kind), "multipliers = dense<[0.5, 0.75]> : tensor<2xf32>")
    given_x = np.where(rng.random((1, inside)) < share, zero, _stored(rng, (1, inside), 8, signed))
    inputs = [given_x.astype(np.int8 if signed else np.uint8)]
    if other is not None:
        inputs.append(_stored(rng, (1, out), 8, True))
    with mock.patch.object(columns, "GAIN", np.inf):
        assert 'kind = "columns"' in check(t.module(y), inputs, isa).text


@pytest.mark.parametrize(("measured", "zero", "rows"), [("", 0, 1), ("qcc.zeros = 0.9 : f64", 5, 1), ("qcc.zeros = 0.9 : f64", 0, 2)])
def test_where_columns_cannot_be_skipped(measured: str, zero: int, rows: int) -> None:
    """Nothing was measured; zeros are not stored as 0; a column of several rows is seldom 0 in all."""
    t, rng = Text(), np.random.default_rng(0)
    x = t.argument(_tensor([rows, 64], quantized(8, False, 0.1, zero)))
    w = t.constant(rng.integers(-9, 9, (32, 64)).astype(np.int8), _tensor([32, 64], quantized(8, True, 0.1, 0)))
    y = t.op("qcc.linear", [x, w], _tensor([rows, 32], "i32"), measured)
    with mock.patch.object(columns, "GAIN", np.inf):
        found = check(t.module(y), [rng.integers(0, 255, (rows, 64)).astype(np.uint8)], "avx512_vnni")
    assert "contraction" in found.text and "columns" not in found.text


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_predictions(isa: str) -> None:
    """Of 16 MB of weights: three quarters of zeros are worth more than half of the time, none are worth nothing."""
    compute = "dot4_u8s8" if "vnni" in isa else "dot2_s16"
    for density, least, most in ((1.0, 0.8, 1.5), (0.25, 0.1, 0.5)):
        ours, every = columns._microseconds(isa, columns.Plan(compute, 1024, density), 4096, 4096)
        assert least * every < ours < most * every, density
