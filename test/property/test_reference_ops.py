"""The numpy meanings against PyTorch (in float64 where that is exact) on random shapes, strides, paddings, dilations and groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st

from qcc.runtime.reference import qcc as meaning
from test.tiers import draws

pytestmark = pytest.mark.filterwarnings("ignore")
common = draws(60)
seeds = st.integers(0, 1 << 30)


def t(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """A two-dimensional window that fits its input: kernel, strides, padding [t, l, b, r], dilations and the input's height and width."""
    pair = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, strides, dilations = draw(pair), draw(pair), draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = [draw(st.integers(0, 3)) for _ in range(4)]
    least = [max(1, dilations[i] * (kernel[i] - 1) + 1 - padding[i] - padding[i + 2]) for i in (0, 1)]
    size = [draw(st.integers(n, n + 7)) for n in least]
    return {"kernel": kernel, "strides": strides, "dilations": dilations, "padding": padding, "size": size}


def padded(x: np.ndarray, padding: list[int], value: float = 0.0) -> torch.Tensor:
    top, left, bottom, right = padding
    return F.pad(t(x), (left, right, top, bottom), value=value)


@common
@given(windows(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 16), st.integers(1, 8), seeds)
def test_integer_convolution_is_exact(
    w: dict[str, Any], n: int, groups: int, inside: int, outside: int, x_bits: int, w_bits: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-(1 << x_bits), 1 << x_bits, (n, groups * inside, *w["size"]))
    k = rng.integers(-(1 << w_bits), 1 << w_bits, (groups * outside, inside, *w["kernel"]))
    b = rng.integers(-1000, 1000, groups * outside)
    found = meaning.conv2d(x, k, b, strides=w["strides"], padding=w["padding"], dilations=w["dilations"], groups=groups)
    expected = F.conv2d(padded(x.astype(np.float64), w["padding"]), t(k.astype(np.float64)), t(b.astype(np.float64)), w["strides"], 0,
                        w["dilations"], groups)  # fmt: skip
    assert found.dtype == np.int64 and np.array_equal(found, expected.numpy().astype(np.int64))


@common
@given(windows(), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), seeds)
def test_float_convolution_is_the_rounded_double(w: dict[str, Any], n: int, groups: int, inside: int, outside: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, groups * inside, *w["size"])).astype(np.float32)
    k = rng.standard_normal((groups * outside, inside, *w["kernel"])).astype(np.float32)
    found = meaning.conv2d(x, k, strides=w["strides"], padding=w["padding"], dilations=w["dilations"], groups=groups)
    expected = F.conv2d(padded(x.astype(np.float64), w["padding"]), t(k.astype(np.float64)), None, w["strides"], 0, w["dilations"], groups)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-7, atol=1e-12)


@common
@given(st.lists(st.integers(1, 3), max_size=3), st.integers(1, 5), st.integers(1, 40), st.integers(1, 5), st.integers(1, 40), seeds)
def test_linear_and_matmul(batch: list[int], m: int, k: int, n: int, bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(-(1 << min(bits, 20)), 1 << min(bits, 20), (*batch, m, k))
    b = rng.integers(-(1 << min(bits, 20)), 1 << min(bits, 20), (n, k))
    expected = np.einsum("...mk,nk->...mn", a, b)
    assert np.array_equal(meaning.linear(a, b), expected)
    assert np.array_equal(meaning.linear(a, b, np.arange(n)), expected + np.arange(n))
    assert np.array_equal(meaning.matmul(a, b.T), expected)
    x, y = (v.astype(np.float32) / np.float32(7) for v in (a, b))
    np.testing.assert_allclose(meaning.linear(x, y), (t(x).double() @ t(y).double().T).numpy(), rtol=1e-6, atol=1e-30)


@common
@given(windows(), st.booleans(), seeds)
def test_pooling(w: dict[str, Any], count_include_pad: bool, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((2, 3, *w["size"])).astype(np.float32)
    found = meaning.max_pool2d(x, kernel=w["kernel"], strides=w["strides"], padding=w["padding"], dilations=w["dilations"])
    expected = F.max_pool2d(padded(x, w["padding"], -np.inf), w["kernel"], w["strides"], 0, w["dilations"])
    assert np.array_equal(found, expected.numpy())
    window = {"kernel": w["kernel"], "strides": w["strides"], "padding": w["padding"]}
    if min(w["size"][i] + w["padding"][i] + w["padding"][i + 2] - w["kernel"][i] for i in (0, 1)) < 0:
        return
    mean = meaning.avg_pool2d(x, **window, count_include_pad=count_include_pad)
    total = F.avg_pool2d(padded(x, w["padding"]).double(), w["kernel"], w["strides"], divisor_override=1)
    ones = padded(np.ones_like(x), w["padding"], float(count_include_pad)).double()
    count = F.avg_pool2d(ones, w["kernel"], w["strides"], divisor_override=1).clamp(min=1)
    np.testing.assert_allclose(mean, (total / count).numpy(), rtol=1e-5, atol=1e-6)
    # quantized: the exact sum, then binary32
    q = np.random.default_rng(seed).integers(0, 256, x.shape).astype(np.uint8)
    m0 = np.float32(0.37)
    y = meaning.avg_pool2d_quantized(q, **window, count_include_pad=count_include_pad, multiplier=m0,
                                     zero_points=(np.int64(7), np.int64(3)), low=0, high=255)  # fmt: skip
    sums = F.avg_pool2d(padded(q.astype(np.float64) - 7, w["padding"]), w["kernel"], w["strides"], divisor_override=1).numpy()
    product = sums.astype(np.float32) * (m0 / count.numpy().astype(np.float32))
    assert np.array_equal(y, np.clip(np.rint(product) + 3, 0, 255))


@common
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3) | st.lists(st.integers(1, 8), min_size=4, max_size=4), st.data(), seeds)
def test_softmax_norms_and_reductions(shape: list[int], data: st.DataObject, seed: int) -> None:
    x = (np.random.default_rng(seed).standard_normal(shape) * 4).astype(np.float32)
    axis = data.draw(st.integers(0, len(shape) - 1))
    np.testing.assert_allclose(meaning.softmax(x, axis=axis), torch.softmax(t(x).double(), axis).numpy(), rtol=2e-6, atol=1e-12)
    tail = shape[axis:]
    gamma, beta = np.linspace(0.5, 2, int(np.prod(tail)), dtype=np.float32).reshape(tail), np.full(tail, 0.25, np.float32)
    expected = F.layer_norm(t(x).double(), tail, t(gamma).double(), t(beta).double(), 1e-5)
    np.testing.assert_allclose(meaning.layer_norm(x, gamma, beta, axes=len(tail), epsilon=1e-5), expected.numpy(), rtol=2e-4, atol=2e-5)
    expected = F.rms_norm(t(x).double(), tail, t(gamma).double(), 1e-5)
    np.testing.assert_allclose(meaning.rms_norm(x, gamma, axes=len(tail), epsilon=1e-5), expected.numpy(), rtol=2e-6, atol=1e-12)
    axes = sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    for kind, function in {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min}.items():
        for keepdims in (False, True):
            wanted = function(x.astype(np.float64), axis=tuple(axes), keepdims=keepdims)
            found = meaning.reduce(x, kind=kind, axes=axes, keepdims=keepdims)
            assert found.dtype == np.float32 and found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * float(np.abs(x).sum()))


@common
@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 16), st.sampled_from(["none", "causal", "bool", "float"]), seeds
)
def test_attention(heads: int, queries: int, keys: int, width: int, mask: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((2, heads, n, width)).astype(np.float32) for n in (queries, keys, keys))
    given_mask: np.ndarray | None = None
    if mask == "bool":
        given_mask = rng.random((queries, keys)) < 0.7
        given_mask[:, 0] = True
    elif mask == "float":
        given_mask = rng.standard_normal((queries, keys)).astype(np.float32)
    found = meaning.attention(q, k, v, given_mask, scale=0.3, causal=mask == "causal")
    wide = None if given_mask is None else t(given_mask) if mask == "bool" else t(given_mask).double()
    expected = F.scaled_dot_product_attention(*(t(a).double() for a in (q, k, v)), attn_mask=wide, is_causal=mask == "causal", scale=0.3)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@common
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data(), seeds)
def test_data_movement(shape: list[int], data: st.DataObject, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)
    rank = len(shape)
    low, high = (data.draw(st.lists(st.integers(0, 3), min_size=rank, max_size=rank)) for _ in range(2))
    around = [p for pair in zip(reversed(low), reversed(high), strict=True) for p in pair]
    assert np.array_equal(meaning.pad(x, low=low, high=high, value=np.int8(5)), F.pad(t(x), around, value=5).numpy())
    offsets = [data.draw(st.integers(0, s - 1)) for s in shape]
    strides = data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    sizes = [data.draw(st.integers(1, 1 + (s - 1 - o) // k)) for s, o, k in zip(shape, offsets, strides, strict=True)]
    found = meaning.slice_(x, offsets=offsets, strides=strides, shape=sizes)
    assert found.shape == tuple(sizes)
    for index in np.ndindex(*sizes):
        assert found[index] == x[tuple(o + i * k for o, i, k in zip(offsets, index, strides, strict=True))]
    order = data.draw(st.permutations(range(rank)))
    assert np.array_equal(meaning.transpose(x, permutation=order), t(x).permute(order).numpy())
    assert np.array_equal(meaning.concat([x, x[:1]], dim=0), torch.cat([t(x), t(x[:1])]).numpy())
    assert np.array_equal(meaning.broadcast(x, shape=[2, *shape]), np.stack([x, x]))


@common
@given(st.integers(1, 8), st.integers(0, 255), st.integers(0, 255), st.floats(0.001, 4), st.floats(0.001, 4), st.floats(0.01, 4), seeds)
def test_quantized_elementwise_stays_within_half_a_step_of_real_arithmetic(
    bits: int, za: int, zb: int, sa: float, sb: float, sy: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    top = (1 << bits) - 1
    a, b = (rng.integers(0, top, (5, 7), endpoint=True).astype(np.uint8) for _ in range(2))
    za, zb = za & top, zb & top
    zero_points = (np.int64(za), np.int64(zb), np.int64(3))
    real_a, real_b = (a.astype(np.int64) - za) * np.float64(sa), (b.astype(np.int64) - zb) * np.float64(sb)
    for function, real, multipliers in (
        (meaning.add_quantized, real_a + real_b, [sa / sy, sb / sy]),
        (meaning.sub_quantized, real_a - real_b, [sa / sy, sb / sy]),
        (meaning.mul_quantized, real_a * real_b, [sa * sb / sy]),
    ):
        limit = 1 << 40
        y = function(a, b, zero_points=zero_points, multipliers=np.float32(multipliers), low=-limit, high=limit)
        assert (np.abs(y - 3 - real / sy) <= 0.5 + 1e-5 * (np.abs(real_a) + np.abs(real_b) + np.abs(real)) / sy).all()
        shift = 20
        fixed = [np.int32(min((1 << 31) - 1, round(m * (1 << shift)))) for m in multipliers]
        y = function(a, b, zero_points=zero_points, multipliers=np.array(fixed), low=-limit, high=limit, shift=np.int32(shift),
                     rounding="half_even")  # fmt: skip
        exact = [(int(p) - za, int(q) - zb) for p, q in zip(a.reshape(-1), b.reshape(-1), strict=True)]
        for (da, db), found in zip(exact, y.reshape(-1).tolist(), strict=True):
            if function is meaning.mul_quantized:
                total = da * db * int(fixed[0])
            else:
                total = da * int(fixed[0]) + (1 if function is meaning.add_quantized else -1) * db * int(fixed[1])
            floor, rest = divmod(total, 1 << shift)
            half = 1 << (shift - 1)
            assert found - 3 == floor + (rest > half or (rest == half and floor % 2 == 1))


@common
@example(16, False, 1.3654977690278223, 348)
@given(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 16]), st.booleans(), st.floats(1e-3, 10), seeds)
def test_quantize_equals_pytorch(bits: int, signed: bool, scale: float, seed: int) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    rng = np.random.default_rng(seed)
    zero_point = int(rng.integers(low, high, endpoint=True))
    x = (rng.standard_normal(500) * scale * (high - low)).astype(np.float32)
    stored = meaning.quantize(x, scale=np.float32(scale), zero_point=np.int64(zero_point), qmin=low, qmax=high)
    real = meaning.dequantize(stored, scale=np.float32(scale), zero_point=np.int64(zero_point))
    expected = torch.fake_quantize_per_tensor_affine(t(x), float(np.float32(scale)), zero_point, low, high).numpy()
    step = np.abs(real - expected) / np.float32(scale)  # PyTorch multiplies by the reciprocal, so ties may fall to the other side
    rounding = 2.0**-22 * (high - low + 1)  # of both real values, in steps
    assert (step <= 1 + rounding).all() and (step > rounding).mean() < 0.02
