"""The real functions that `qcc.unary` names, on numpy arrays, computed in the precision of their input."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np

Function = Callable[[np.ndarray, float | None], np.ndarray]

_erf = np.frompyfunc(math.erf, 1, 1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def erf(x: np.ndarray) -> np.ndarray:
    """Error function, correctly rounded to the precision of `x`."""
    return np.asarray(_erf(x.astype(np.float64)), dtype=x.dtype)


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _round_bf16(x: np.ndarray) -> np.ndarray:
    """The nearest bfloat16, half to even."""
    import ml_dtypes

    return x.astype(ml_dtypes.bfloat16)


_FUNCTIONS: dict[str, Function] = {
    "gelu": lambda x, a: x / 2 * (1 + erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x, a: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x, a: x * _sigmoid(x),
    "sigmoid": lambda x, a: _sigmoid(x),
    "tanh": lambda x, a: np.tanh(x),
    "exp": lambda x, a: np.exp(x),
    "log": lambda x, a: np.log(x),
    "erf": lambda x, a: erf(x),
    "sqrt": lambda x, a: np.sqrt(x),
    "rsqrt": lambda x, a: 1 / np.sqrt(x),
    "reciprocal": lambda x, a: 1 / x,
    "neg": lambda x, a: -x,
    "abs": lambda x, a: np.abs(x),
    "hardswish": lambda x, a: x * np.clip(x + 3, 0, 6) / 6,
    "hardsigmoid": lambda x, a: np.clip(x * (1 / 6 if a is None else a) + 0.5, 0, 1),
    "leaky_relu": lambda x, a: np.where(x >= 0, x, x * (0.01 if a is None else a)),
    "elu": lambda x, a: np.where(x >= 0, x, (1.0 if a is None else a) * np.expm1(x)),
    "softplus": lambda x, a: _softplus(x),
    "mish": lambda x, a: x * np.tanh(_softplus(x)),
    "sign": lambda x, a: np.nan_to_num(np.sign(x), nan=0.0),
    "binarize": lambda x, a: np.where(x >= 0, 1.0, np.where(x < 0, -1.0, x)),
    "floor": lambda x, a: np.floor(x),
    "ceil": lambda x, a: np.ceil(x),
    "round": lambda x, a: np.rint(x),
    "round_bf16": lambda x, a: _round_bf16(x),
    "sin": lambda x, a: np.sin(x),
    "cos": lambda x, a: np.cos(x),
    "round_e4m3": lambda x, a: np.clip(x, -448, 448).astype(ml_dtypes.float8_e4m3fn),
    "round_e5m2": lambda x, a: x.astype(ml_dtypes.float8_e5m2),
    "log2": lambda x, a: np.log2(x),
    "exp2": lambda x, a: np.exp2(x),
    "at_least": lambda x, a: np.where(x >= (0.0 if a is None else a), 1.0, 0.0),
    "round_f16": lambda x, a: x.astype(np.float16),
}


def unary(kind: str, x: np.ndarray, alpha: float | None = None) -> np.ndarray:
    """`kind` of every element of `x` (f32 or f64) in the dtype of `x`; outside its domain a function gives NaN or infinity."""
    with np.errstate(all="ignore"):
        return np.asarray(_FUNCTIONS[kind](x, alpha), dtype=x.dtype)
