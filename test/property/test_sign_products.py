"""Products of -1, 0 and 1 by population counts: every mix of planes, border and instruction set equals the reference bit for bit."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.dialects.sign_codelet import BYTE_STEPS, WORD_BITS
from qcc.passes.tile.codelets import sign_products
from test.property.test_codelets import EXAMPLES, _tensor
from test.property.tiled_executor import Text, Tiled, check, dense, quantized
from test.tiers import draws

INSTRUCTION_SETS = [
    ("avx512_vbmi", True),
    ("avx512_vnni", False),
    ("avx512", False),
    ("avx_vnni", False),
    ("avx2", False),
    ("generic", False),
]
CASES = [pytest.param(isa, marks=[pytest.mark.slow] * (isa[0] != "avx2")) for isa in INSTRUCTION_SETS]
SIGNS = "!quant.uniform<i2<-1:1>:f32, 1.0>"
LEAST_CHANNELS = BYTE_STEPS * WORD_BITS + 1  # of which a pixel's words are more than sums of bytes allow
FEW = draws(8, EXAMPLES)


def _name(isa: tuple[str, bool]) -> str:
    return isa[0]


def _always(text: str, inputs: list[np.ndarray], isa: tuple[str, bool]) -> Tiled:
    with mock.patch.object(sign_products, "GAIN", np.inf):
        found = check(text, inputs, isa[0], popcount=isa[1])
    assert "popcount_words" in found.text if isa[1] else "popcount_bytes" in found.text
    return found


def _signs(rng: np.random.Generator, shape: tuple[int, ...], zeros: bool) -> np.ndarray:
    found = rng.integers(0, 2, shape) * 2 - 1
    return (found * (rng.random(shape) < 0.6) if zeros else found).astype(np.int8)


def _input(t: Text, shape: tuple[int, ...], zeros: bool) -> str:
    """An operand of signs made while running: sign(x), with zeros where x is 0, or binarize(x), which never gives 0."""
    x = t.argument(_tensor(shape, "f32"))
    y = t.op("qcc.unary", [x], _tensor(shape, "f32"), f'kind = "{"sign" if zeros else "binarize"}"')
    return t.op("qcc.quantize", [y], _tensor(shape, SIGNS))


def _finish(t: Text, rng: np.random.Generator, acc: str, shape: list[int], axis: int, terms: int) -> str:
    multiplier = (rng.uniform(20, 80, shape[axis]) / terms**0.5).astype(np.float32)
    kind = _tensor(shape, quantized(8, True, 0.5, int(rng.integers(-9, 9))))
    return t.op("qcc.requantize", [acc], kind, f'multiplier = {dense(multiplier, "f32")}, axis = {axis} : i64, mode = "f32"')


@pytest.mark.parametrize("isa", CASES, ids=_name)
@FEW
@given(
    seed=st.integers(0, 1 << 30),
    channels=st.sampled_from([3, 20, 31, 32, 33, 64, 100, 160, LEAST_CHANNELS]),
    out=st.sampled_from([1, 8, 17, 33, 64]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilation=st.sampled_from([1, 1, 2]),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    zeros=st.tuples(st.booleans(), st.booleans()),
    bias=st.booleans(),
)
def test_convolution(
    isa: tuple[str, bool], seed: int, channels: int, out: int, kernel: Any, strides: Any, dilation: int, padding: Any, size: Any,
    zeros: tuple[bool, bool], bias: bool,
) -> None:  # fmt: skip
    if channels == LEAST_CHANNELS:
        dilation, out = 1, min(out, 17)  # pixels cut into parts are no run
    rng, t = np.random.default_rng(seed), Text()
    reach = [dilation * (k - 1) + 1 for k in kernel]
    size = [max(n, r - padding[i] - padding[i + 2]) for i, (n, r) in enumerate(zip(size, reach, strict=True))]
    y_size = [(size[i] + padding[i] + padding[i + 2] - reach[i]) // strides[i] + 1 for i in (0, 1)]
    x_shape, w_shape, shape = (2, channels, *size), (out, channels, *kernel), [2, out, *y_size]
    q = _input(t, x_shape, zeros[0])
    weights = _signs(rng, w_shape, zeros[1])
    operands = [q, t.constant(weights, _tensor(w_shape, SIGNS))]
    if bias:
        operands.append(t.constant(rng.integers(-50, 50, out).astype(np.int32), _tensor([out], "i32")))
    attributes = (
        f"strides = array<i64: {strides[0]}, {strides[1]}>, padding = array<i64: {', '.join(map(str, padding))}>, "
        f"dilations = array<i64: {dilation}, {dilation}>, groups = 1 : i64"
    )
    acc = t.op("qcc.conv2d", operands, _tensor(shape, "i32"), attributes)
    y = _finish(t, rng, acc, shape, 1, channels * kernel[0] * kernel[1])
    x = rng.standard_normal(x_shape).astype(np.float32) * (rng.random(x_shape) < 0.8)
    _always(t.module(y), [x.astype(np.float32)], isa)


@pytest.mark.parametrize("isa", CASES, ids=_name)
@EXAMPLES
@given(
    seed=st.integers(0, 1 << 30),
    batch=st.sampled_from([(), (1,), (5,), (2, 3)]),
    inside=st.sampled_from([1, 31, 32, 70, 256, LEAST_CHANNELS, 2 * LEAST_CHANNELS]),
    out=st.sampled_from([1, 16, 40]),
    zeros=st.tuples(st.booleans(), st.booleans()),
    unsigned=st.booleans(),
)
def test_linear(
    isa: tuple[str, bool], seed: int, batch: tuple[int, ...], inside: int, out: int, zeros: tuple[bool, bool], unsigned: bool
) -> None:
    """Also x of 0 and 1, a caller's bytes."""
    rng, t = np.random.default_rng(seed), Text()
    x_shape, shape = (*batch, inside), [*batch, out]
    if unsigned:
        q, x = t.argument(_tensor(x_shape, quantized(1, False, 0.5, 0))), rng.integers(0, 2, x_shape).astype(np.uint8)
    else:
        q, x = _input(t, x_shape, zeros[0]), rng.standard_normal(x_shape).astype(np.float32)
    weight = t.constant(_signs(rng, (out, inside), zeros[1]), _tensor([out, inside], SIGNS))
    acc = t.op("qcc.linear", [q, weight], _tensor(shape, "i32"))
    _always(t.module(_finish(t, rng, acc, shape, len(batch), inside)), [x], isa)


def test_layers_that_do_not_pay_stay_products_of_bytes() -> None:
    """Words of 32 channels of which few are used."""
    rng, t = np.random.default_rng(0), Text()
    q = _input(t, (1, 3, 8, 8), False)
    weights = t.constant(_signs(rng, (64, 3, 3, 3), False), _tensor((64, 3, 3, 3), SIGNS))
    attributes = "strides = array<i64: 1, 1>, padding = array<i64: 1, 1, 1, 1>, dilations = array<i64: 1, 1>, groups = 1 : i64"
    acc = t.op("qcc.conv2d", [q, weights], _tensor((1, 64, 8, 8), "i32"), attributes)
    found = check(t.module(acc), [rng.standard_normal((1, 3, 8, 8)).astype(np.float32)], "avx512_vbmi", popcount=True)
    assert "popcount" not in found.text
