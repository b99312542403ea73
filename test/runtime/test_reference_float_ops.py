"""Accuracy of the float functions in units in the last place, and the exact order of the sums."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from scipy import special

from qcc.dialects.qcc import UNARY_KINDS
from qcc.runtime.reference import float_ops
from qcc.runtime.reference import qcc as meaning

Function = Callable[[np.ndarray], np.ndarray]


def small_float(x: np.ndarray, mantissa: int, least: int, greatest: float, beyond: float) -> np.ndarray:
    """The nearest number with `mantissa` bits behind the leading one, normal from 2^least on; `beyond` above `greatest`."""
    exponent = np.maximum(np.frexp(np.where(x == 0, 1, x))[1] - 1, least)
    y = np.ldexp(np.rint(np.ldexp(x, mantissa - exponent)), exponent - mantissa)
    return np.where(np.abs(y) > greatest, np.copysign(beyond, x), y)


# kind -> (the function in binary64, greatest error in ulp of the result, or where that is cancellation, absolute error)
EXPECTED: dict[str, tuple[Function, float, float]] = {
    "exp": (np.exp, 1.0, 0),
    "log": (np.log, 1.0, 0),
    "log2": (np.log2, 2.0, 0),
    "exp2": (np.exp2, 1.5, 0),
    "at_least": (lambda x: np.where(x >= 0, 1.0, 0.0), 0, 0),
    "tanh": (np.tanh, 1.5, 0),
    "erf": (special.erf, 2.5, 0),
    "sigmoid": (special.expit, 2.5, 1e-37),
    "silu": (lambda x: x * special.expit(x), 3.0, 2e-36),
    "gelu": (lambda x: x * special.ndtr(x), 2.0, 5e-8),
    "gelu_tanh": (lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), 3.0, 5e-8),
    "softplus": (lambda x: np.logaddexp(0, x), 3.0, 0),
    "mish": (lambda x: x * np.tanh(np.logaddexp(0, x)), 5.0, 2e-36),
    "elu": (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), 3.0, 0),
    "sin": (np.sin, 2.0, 0),
    "cos": (np.cos, 2.0, 0),
    "sqrt": (np.sqrt, 0.5, 0),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 1.5, 0),
    "reciprocal": (lambda x: 1 / x, 0.5, 0),
    "hardswish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), 2.0, 1e-7),
    "hardsigmoid": (lambda x: np.clip(x / 6 + 0.5, 0, 1), 2.0, 1e-7),
    "leaky_relu": (lambda x: np.where(x >= 0, x, np.float64(np.float32(0.01)) * x), 0.5, 0),
    "neg": (np.negative, 0, 0),
    "abs": (np.abs, 0, 0),
    "sign": (np.sign, 0, 0),
    "binarize": (lambda x: np.where(x >= 0, 1.0, -1.0), 0, 0),
    "floor": (np.floor, 0, 0),
    "ceil": (np.ceil, 0, 0),
    "round": (np.rint, 0, 0),
    "round_e4m3": (lambda x: small_float(x, 3, -6, 448.0, 448.0), 0, 0),
    "round_e5m2": (lambda x: small_float(x, 2, -14, 57344.0, np.inf), 0, 0),
    "round_f16": (lambda x: small_float(x, 10, -14, 65504.0, np.inf), 0, 0),
    "round_bf16": (lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float64), 0, 0),
}


def arguments(kind: str) -> np.ndarray:
    spread = np.logspace(-30, 1.9, 20000)
    x = np.concatenate([np.linspace(-80, 80, 100001), spread, -spread]).astype(np.float32)
    return np.abs(x[x != 0]) if kind in ("log", "log2", "sqrt", "rsqrt") else x[x != 0] if kind == "reciprocal" else x


def test_every_kind_has_an_expectation() -> None:
    assert set(EXPECTED) == set(UNARY_KINDS) == set(float_ops.UNARY)


@pytest.mark.parametrize("kind", UNARY_KINDS)
def test_accuracy(kind: str) -> None:
    function, ulp, absolute = EXPECTED[kind]
    x = arguments(kind)
    with np.errstate(all="ignore"):
        y, exact = meaning.unary(x, kind=kind), function(x.astype(np.float64))
    assert y.dtype == np.float32
    error = np.abs(y - exact)
    allowed = np.maximum(ulp * np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64), absolute) * (1 + 1e-6)
    normal = np.abs(exact) >= 2.0**-126
    assert (error <= allowed)[normal].all(), (x[normal][(error / allowed)[normal].argmax()], (error / allowed)[normal].max())


@pytest.mark.parametrize("kind", UNARY_KINDS)
def test_nan_stays_nan(kind: str) -> None:
    assert np.isnan(meaning.unary(np.array([np.nan, 1], np.float32), kind=kind)).tolist() == [kind not in ("at_least", "sign"), False]


def test_limits() -> None:
    x = np.array([np.inf, -np.inf, 0, 100, -100], np.float32)
    for kind, expected in {
        "exp": [np.inf, 0, 1, np.inf, 0],
        "exp2": [np.inf, 0, 1, 2.0**100, 2.0**-100],
        "at_least": [1, 0, 1, 1, 0],
        "tanh": [1, -1, 0, 1, -1],
        "erf": [1, -1, 0, 1, -1],
        "sigmoid": [1, 0, 0.5, 1, 0],
        "elu": [np.inf, -1, 0, 100, -1],
        "softplus": [np.inf, 0, np.float32(np.log(2)), 100, 0],
    }.items():
        assert np.array_equal(meaning.unary(x, kind=kind), np.float32(expected)), kind
    assert np.array_equal(meaning.unary(np.float32([0, -1, np.inf]), kind="log"), np.float32([-np.inf, np.nan, np.inf]), equal_nan=True)


def test_alpha() -> None:
    x = np.float32([-2, 2])
    assert meaning.unary(x, kind="leaky_relu", alpha=0.25).tolist() == [-0.5, 2]
    assert meaning.unary(x, kind="hardsigmoid", alpha=0.125).tolist() == [0.25, 0.75]
    np.testing.assert_allclose(meaning.unary(x, kind="elu", alpha=3.0), [3 * np.expm1(-2), 2], rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 63, 64, 65, 127, 128, 1000])
def test_lane_sum_adds_in_the_stated_order(n: int) -> None:
    x = (np.random.default_rng(n).standard_normal(n) * 1e3).astype(np.float32)
    lanes = [np.float32(0)] * 64
    for i, value in enumerate(x):
        lanes[i % 64] = np.float32(lanes[i % 64] + value)
    for half in (32, 16, 8, 4, 2, 1):
        lanes = [np.float32(lanes[j] + lanes[j + half]) for j in range(half)]
    assert float_ops.lane_sum(x) == lanes[0]
    assert np.array_equal(float_ops.lane_sum(np.stack([x, -x])), np.array([lanes[0], -lanes[0]]))


def test_masked_softmax_gives_exact_zeros() -> None:
    y = float_ops.softmax(np.float32([[0, -np.inf, 1, -200]]))
    assert y[0, 1] == 0 and y[0, 3] == 0 and abs(float(y.sum()) - 1) < 1e-6


def test_powers_of_two_are_exact() -> None:
    whole = np.arange(-149, 128, dtype=np.float32)
    powers = np.ldexp(np.float32(1), whole.astype(np.int32))
    assert np.array_equal(meaning.unary(whole, kind="exp2"), powers) and np.array_equal(meaning.unary(powers, kind="log2"), whole)
