"""Codelets of every instruction set against the reference, over random shapes, strides, paddings, groups and bit widths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from qcc.dialects import instruction_sets
from test.property.tiled_executor import Text, check, dense, quantized
from test.tiers import draws, slow_except

ISAS = slow_except(
    [isa for isa in instruction_sets.ISAS if isa != "avx512_bf16"], "avx2"
)  # but for bf16, that is avx512_vbmi (test_bf16.py)
EXAMPLES = draws(12, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def _range(bits: int, signed: bool) -> tuple[int, int]:
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _stored(rng: np.random.Generator, shape: tuple[int, ...], bits: int, signed: bool) -> np.ndarray:
    low, high = _range(bits, signed)
    dtype = f"{'' if signed else 'u'}int{8 if bits <= 8 else 16}"
    return rng.integers(low, high + 1, shape).astype(dtype)


def _tensor(shape: tuple[int, ...] | list[int], element: str) -> str:
    return f"tensor<{''.join(f'{n}x' for n in shape)}{element}>"


def _kind(rng: np.random.Generator, bits: int, signed: bool) -> str:
    low, high = _range(bits, signed)
    return quantized(bits, signed, float(np.float32(rng.uniform(0.01, 0.2))), int(rng.integers(low, high + 1)))


def _requantize(t: Text, rng: np.random.Generator, acc: str, shape: list[int], axis: int, bits: int, signed: bool, spread: float) -> str:
    """`spread` is about the standard deviation of the accumulator, so that most results fall inside the range."""
    multiplier = (rng.uniform(20, 80, shape[axis]) / spread).astype(np.float32)
    attributes = f'multiplier = {dense(multiplier, "f32")}, axis = {axis} : i64, mode = "f32"'
    return t.op("qcc.requantize", [acc], _tensor(shape, _kind(rng, bits, signed)), attributes)


def _spread(x_bits: int, w_bits: int, terms: int) -> float:
    return terms**0.5 * 2.0 ** (x_bits + w_bits - 2)


@st.composite
def convolutions(draw: Any) -> dict[str, Any]:
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    return {
        "seed": draw(st.integers(0, 1 << 30)),
        "n": draw(st.integers(1, 2)),
        "groups": groups,
        "c": groups * draw(st.integers(1, 9)),
        "o": groups * draw(st.sampled_from([1, 3, 8, 16, 17, 33])),
        "depthwise": draw(st.booleans()) and groups > 1,
        "kernel": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "strides": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "dilations": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "padding": tuple(draw(st.integers(0, 2)) for _ in range(4)),
        "size": (draw(st.integers(5, 12)), draw(st.integers(5, 12))),
        "x_bits": draw(st.sampled_from([8, 8, 8, 7, 5, 4, 2, 1, 10, 16])),
        "x_signed": draw(st.booleans()),
        "w_bits": draw(st.sampled_from([8, 8, 8, 6, 4, 3, 2, 1, 12, 16])),
        "w_signed": draw(st.booleans()),
        "y_signed": draw(st.booleans()),
        "residual": draw(st.booleans()),
        "bias": draw(st.booleans()),
    }


def _convolution(case: dict[str, Any]) -> tuple[str, list[np.ndarray]]:
    rng = np.random.default_rng(case["seed"])
    n, c, o, groups = case["n"], case["c"], case["o"], case["groups"]
    if case["depthwise"]:
        c = o = groups = case["c"]
    (kh, kw), (sh, sw), (dh, dw), pad, (h, w) = (case[k] for k in ("kernel", "strides", "dilations", "padding", "size"))
    oh = (h + pad[0] + pad[2] - dh * (kh - 1) - 1) // sh + 1
    ow = (w + pad[1] + pad[3] - dw * (kw - 1) - 1) // sw + 1
    t = Text()
    x = t.argument(_tensor([n, c, h, w], "f32"))
    x_kind = _kind(rng, case["x_bits"], case["x_signed"])
    q = t.op("qcc.quantize", [x], _tensor([n, c, h, w], x_kind))
    w_shape = (o, c // groups, kh, kw)
    w_kind = _kind(rng, case["w_bits"], case["w_signed"])
    weight = t.constant(_stored(rng, w_shape, case["w_bits"], case["w_signed"]), _tensor(w_shape, w_kind))
    if case.get("zeros"):
        weight = t.constant(np.zeros(w_shape, np.int8), _tensor(w_shape, quantized(8, True, 0.1, 0)))
    operands = [q, weight]
    if case["bias"]:
        operands.append(t.constant(rng.integers(-500, 500, o).astype(np.int32), _tensor([o], "i32")))
    attributes = (
        f"strides = array<i64: {sh}, {sw}>, padding = array<i64: {', '.join(map(str, pad))}>, "
        f"dilations = array<i64: {dh}, {dw}>, groups = {groups} : i64"
    )
    shape = [n, o, oh, ow]
    width = 32 if case["x_bits"] + case["w_bits"] <= 22 else 64
    acc = t.op("qcc.conv2d", operands, _tensor(shape, f"i{width}"), attributes)
    y = _requantize(t, rng, acc, shape, 1, 8, case["y_signed"], _spread(case["x_bits"], case["w_bits"], kh * kw * c // groups))
    inputs = [rng.standard_normal((n, c, h, w)).astype(np.float32) * 3]
    if case["residual"]:
        r = t.argument(_tensor(shape, "f32"))
        inputs.append(rng.standard_normal(shape).astype(np.float32) * 3)
        rq = t.op("qcc.quantize", [r], _tensor(shape, _kind(rng, 8, True)))
        # written behind the convolution, so the residual is not there yet; swap the lines so that it is
        t.lines.insert(0, t.lines.pop())
        pair = f"multipliers = {dense(rng.uniform(0.1, 1, 2).astype(np.float32), 'f32')}, clamp = array<i64: -100, 101>"
        y = t.op("qcc.add", [rq, y] if case["seed"] % 2 else [y, rq], _tensor(shape, _kind(rng, 8, True)), pair)
    return t.module(y), inputs


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution_by_zeros(isa: str, depthwise: bool) -> None:
    """As of a block whose last normalisation was initialised to zero and never trained."""
    case = {"seed": 1, "n": 1, "c": 4, "o": 24, "groups": 1, "depthwise": depthwise, "size": (9, 8), "padding": (0, 0, 0, 0)}
    case |= {name: (1, 1) for name in ("kernel", "strides", "dilations")} | {"x_bits": 8, "x_signed": False, "w_bits": 8, "w_signed": True}
    check(*_convolution(case | {"y_signed": False, "residual": False, "bias": True, "zeros": True}), isa)


@pytest.mark.parametrize("isa", ISAS)
@EXAMPLES
@given(case=convolutions())
def test_convolution(isa: str, case: dict[str, Any]) -> None:
    check(*_convolution(case), isa)


@pytest.mark.parametrize("isa", ISAS)
@EXAMPLES
@given(
    case=convolutions(),
    channels=st.sampled_from([5, 16, 24, 32, 52, 64, 80, 150]),
    kernel=st.sampled_from([(3, 3), (3, 3), (5, 5), (1, 7), (2, 2), (4, 1)]),
)
def test_depthwise(isa: str, case: dict[str, Any], channels: int, kernel: tuple[int, int]) -> None:
    """Every mix of channel blocks; kernels and rows wider and narrower than a tile."""
    size = tuple(max(n, (k - 1) * d + 1) for n, k, d in zip(case["size"], kernel, case["dilations"], strict=True))
    check(*_convolution({**case, "depthwise": True, "c": channels, "kernel": kernel, "size": size}), isa)


@pytest.mark.parametrize("isa", ISAS)
@EXAMPLES
@given(
    seed=st.integers(0, 1 << 30),
    batch=st.lists(st.integers(1, 3), min_size=0, max_size=3),
    inside=st.integers(1, 70),
    out=st.integers(1, 70),
    x_bits=st.sampled_from([8, 8, 8, 12, 16, 4, 1]),
    w_bits=st.sampled_from([8, 8, 4, 2, 12, 16, 1]),
    signed=st.tuples(st.booleans(), st.booleans()),
    width=st.sampled_from([32, 32, 40]),
)
def test_linear(isa: str, seed: int, batch: list[int], inside: int, out: int, x_bits: int, w_bits: int, signed: Any, width: int) -> None:
    if x_bits + w_bits > 20 or (x_bits == 16 and not signed[0]):
        width = 48
    rng = np.random.default_rng(seed)
    t = Text()
    shape = [*batch, inside]
    x = t.argument(_tensor(shape, _kind(rng, x_bits, signed[0])))
    weight = t.constant(_stored(rng, (out, inside), w_bits, signed[1]), _tensor([out, inside], _kind(rng, w_bits, signed[1])))
    acc = t.op("qcc.linear", [x, weight], _tensor([*batch, out], f"i{width}"))
    y = _requantize(t, rng, acc, [*batch, out], len(batch), 8, True, _spread(x_bits, w_bits, inside))
    check(t.module(y), [_stored(rng, tuple(shape), x_bits, signed[0])], isa)


@pytest.mark.parametrize("isa", ISAS)
@EXAMPLES
@given(
    seed=st.integers(0, 1 << 30),
    batch=st.sampled_from([((), ()), ((2,), (2,)), ((2, 3), (2, 3)), ((2, 3), (1, 3)), ((2, 1), (3,)), ((2, 1, 3, 2), (2, 3, 1))]),
    m=st.integers(1, 20),
    k=st.integers(1, 20),
    n=st.integers(1, 40),
    transposed=st.booleans(),
    signed=st.tuples(st.booleans(), st.booleans()),
)
def test_matmul(isa: str, seed: int, batch: Any, m: int, k: int, n: int, transposed: bool, signed: Any) -> None:
    rng = np.random.default_rng(seed)
    t = Text()
    a_shape, b_shape = [*batch[0], m, k], [*batch[1], k, n]
    out = [*np.broadcast_shapes(*batch), m, n]
    a = t.argument(_tensor(a_shape, _kind(rng, 8, signed[0])))
    kind = _kind(rng, 8, signed[1])
    stored = [*b_shape[:-2], n, k] if transposed else b_shape
    b = t.argument(_tensor(stored, kind))
    inputs = [_stored(rng, tuple(a_shape), 8, signed[0]), _stored(rng, tuple(stored), 8, signed[1])]
    if transposed:
        order = [*range(len(batch[1])), len(batch[1]) + 1, len(batch[1])]
        b = t.op("qcc.transpose", [b], _tensor(b_shape, kind), f"permutation = array<i64: {', '.join(map(str, order))}>")
    acc = t.op("qcc.matmul", [a, b], _tensor(out, "i32"))
    y = t.op("qcc.requantize", [acc], _tensor(out, _kind(rng, 8, True)), 'multiplier = dense<0.003> : tensor<1xf32>, mode = "f32"')
    check(t.module(y), inputs, isa)


@pytest.mark.parametrize("isa", ISAS)
@EXAMPLES
@given(
    seed=st.integers(0, 1 << 30),
    shapes=st.sampled_from([((3, 5), (3, 5)), ((2, 3, 17), (17,)), ((2, 3, 1), (3, 40)), ((1, 2, 4, 5), (1, 2, 1, 1)), ((70000,), (1,))]),
    kind=st.sampled_from(["add", "sub", "mul"]),
    bits=st.sampled_from([8, 16]),
    signed=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    swap=st.booleans(),
)
def test_quantized_elementwise(isa: str, seed: int, shapes: Any, kind: str, bits: int, signed: Any, swap: bool) -> None:
    rng = np.random.default_rng(seed)
    t = Text()
    first, second = shapes[::-1] if swap else shapes
    a, b = (t.argument(_tensor(s, _kind(rng, bits, f))) for s, f in zip((first, second), signed, strict=False))
    count = 1 if kind == "mul" else 2
    scale = 2.56 / (1 << bits) if kind == "mul" else 1
    attributes = f"multipliers = {dense((rng.uniform(0.1, 1, count) * scale).astype(np.float32), 'f32')}"
    y = t.op(f"qcc.{kind}", [a, b], _tensor(np.broadcast_shapes(first, second), _kind(rng, bits, signed[2])), attributes)
    check(t.module(y), [_stored(rng, s, bits, f) for s, f in zip((first, second), signed, strict=False)], isa)


@pytest.mark.parametrize("isa", ISAS)
@EXAMPLES
@given(
    seed=st.integers(0, 1 << 30),
    shape=st.sampled_from([(1, 3, 9, 10), (2, 16, 7, 7), (1, 83, 8, 6)]),
    kernel=st.sampled_from(
        [((2, 2), (2, 2), (0, 0, 0, 0)), ((3, 3), (2, 2), (1, 1, 1, 1)), ((3, 2), (1, 2), (1, 0, 0, 1)), ((6, 6), (1, 1), (0, 0, 0, 0))]
    ),
    average=st.booleans(),
    count_pad=st.booleans(),
    bits=st.sampled_from([8, 16, 32]),
    signed=st.booleans(),
)
def test_pooling(isa: str, seed: int, shape: Any, kernel: Any, average: bool, count_pad: bool, bits: int, signed: bool) -> None:
    """Of 8 or 16 bits, or of f32."""
    rng = np.random.default_rng(seed)
    (kh, kw), (sh, sw), pad = kernel
    oh, ow = (shape[2] + pad[0] + pad[2] - kh) // sh + 1, (shape[3] + pad[1] + pad[3] - kw) // sw + 1
    t = Text()
    x = t.argument(_tensor(shape, "f32"))
    real = bits == 32
    kind = "f32" if real else _kind(rng, bits, signed)
    value = x if real else t.op("qcc.quantize", [x], _tensor(shape, kind))
    attributes = f"kernel = array<i64: {kh}, {kw}>, strides = array<i64: {sh}, {sw}>, padding = array<i64: {', '.join(map(str, pad))}>"
    out = [*shape[:2], oh, ow]
    if average:
        attributes += f", count_include_pad = {str(count_pad).lower()}"
        if not real:
            attributes += ", multipliers = dense<0.7> : tensor<1xf32>"
            kind = _kind(rng, bits, signed)
        y = t.op("qcc.avg_pool2d", [value], _tensor(out, kind), attributes)
    else:
        y = t.op("qcc.max_pool2d", [value], _tensor(out, kind), attributes + ", dilations = array<i64: 1, 1>")
    check(t.module(y), [rng.standard_normal(shape).astype(np.float32)], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bias", [False, True])
def test_requantize_beyond_32_bits(isa: str, bias: bool) -> None:
    """Accumulators whose scaled values leave i32 saturate to the bound of their own sign."""
    t = Text()
    x = t.argument(_tensor([3, 256], quantized(16, True, 0.1, 0)))
    weight = t.constant(np.full((16, 256), 2047, np.int16), _tensor([16, 256], quantized(12, True, 0.1, 0)))
    operands = [t.op("qcc.linear", [x, weight], "tensor<3x16xi48>")]
    if bias:
        operands.append(t.constant(np.arange(16, dtype=np.int32) * 1000, "tensor<16xi32>"))
    attributes = 'multiplier = dense<0.4999> : tensor<1xf32>, axis = 1 : i64, mode = "f32"'
    y = t.op("qcc.requantize", operands, _tensor([3, 16], quantized(8, True, 0.5, 3)), attributes)
    check(t.module(y), [np.array([32767, -32768, 0], np.int16)[:, None].repeat(256, 1)], isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rounding", ["half_even", "half_away"])
def test_fixed_point_requantize(isa: str, rounding: str) -> None:
    rng = np.random.default_rng(3)
    t = Text()
    x = t.argument(_tensor([4, 37], "i32"))
    multiplier, shift = rng.integers(1, 1 << 30, 37).astype(np.int32), rng.integers(20, 40, 37).astype(np.int32)
    attributes = (
        f'multiplier = {dense(multiplier, "i32")}, shift = {dense(shift, "i32")}, axis = 1 : i64, mode = "fixed", rounding = "{rounding}"'
    )
    y = t.op("qcc.requantize", [x], _tensor([4, 37], quantized(8, True, 0.5, 3)), attributes)
    check(t.module(y), [rng.integers(-5000, 5000, (4, 37)).astype(np.int32)], isa)
