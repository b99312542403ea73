"""Rules for element-wise operations: activations and arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects import weights
from qcc.dialects.mlir import ir
from qcc.passes.graph._torch_choice import clamped, one_number, operand, result_type
from qcc.passes.graph._torch_reader import Reader, require, rule

UNARY = {
    "silu": "silu", "sigmoid": "sigmoid", "tanh": "tanh", "exp": "exp", "log": "log", "erf": "erf", "sqrt": "sqrt", "rsqrt": "rsqrt",
    "reciprocal": "reciprocal", "neg": "neg", "abs": "abs", "hardswish": "hardswish", "hardsigmoid": "hardsigmoid", "mish": "mish",
    "sign": "sign", "sgn": "sign", "floor": "floor", "ceil": "ceil", "round": "round", "sin": "sin", "cos": "cos", "log2": "log2",
    "exp2": "exp2",
}  # fmt: skip


@rule(*(f"torch.aten.{name}" for name in UNARY))
def _unary(r: Reader, op: Any) -> Sequence[Any]:
    return [_make_unary(r, op, UNARY[op.name.removeprefix("torch.aten.")])]


def _make_unary(r: Reader, op: Any, kind: str, alpha: float | None = None) -> Any:
    r.f32(op.operands[0], op.results[0])
    return _make(r, op.operands[0], kind, alpha)


def _make(r: Reader, x: Any, kind: str, alpha: float | None = None) -> Any:
    return r.make("qcc.unary", [r.builtin(x)], r.type(x), kind=kind, alpha=alpha)


@rule("torch.aten.gelu")
def _gelu(r: Reader, op: Any) -> Sequence[Any]:
    return [_make_unary(r, op, "gelu_tanh" if r.scalar(op.operands[1]) == "tanh" else "gelu")]


@rule("torch.aten.leaky_relu")
def _leaky_relu(r: Reader, op: Any) -> Sequence[Any]:
    return [_make_unary(r, op, "leaky_relu", r.number(op.operands[1]))]


@rule("torch.aten.prelu")
def _prelu(r: Reader, op: Any) -> Sequence[Any]:
    """max(x, 0) + slope * min(x, 0), the slope one number or one per channel (axis 1)."""
    x, slope = op.operands
    r.f32(x, slope)
    kind = r.type(x)
    require(len(kind.shape) >= 2 and len(r.shape(slope)) == 1, "a slope of another rank than one")
    require(r.shape(slope)[0] in (1, kind.shape[1]), "a slope that is neither one number nor one per channel")
    value, factor = r.builtin(x), r.reshape(r.builtin(slope), [r.shape(slope)[0], *[1] * (len(kind.shape) - 2)])
    above = r.make("qcc.clamp", [value], kind, min=0.0, max=math.inf)
    below = r.make("qcc.clamp", [value], kind, min=-math.inf, max=0.0)
    return [r.make("qcc.add", [above, r.make("qcc.mul", [below, factor], kind)], kind)]


@rule("torch.aten.elu")
def _elu(r: Reader, op: Any) -> Sequence[Any]:
    _, alpha, scale, input_scale = op.operands
    require(r.number(scale) == 1 and r.number(input_scale) == 1, "a scaled elu")
    return [_make_unary(r, op, "elu", r.number(alpha))]


@rule("torch.aten.softplus")
def _softplus(r: Reader, op: Any) -> Sequence[Any]:
    require(r.number(op.operands[1]) == 1, "a softplus with beta")
    return [_make_unary(r, op, "softplus")]


@rule("torch.aten.relu", "torch.aten.relu6", "torch.aten.hardtanh", "torch.aten.clamp", "torch.aten.clamp_min", "torch.aten.clamp_max")
def _clamp(r: Reader, op: Any) -> Sequence[Any]:
    x, kind = op.operands[0], op.name.removeprefix("torch.aten.")
    r.f32(x, op.results[0])
    low, high = -math.inf, math.inf
    if kind in ("relu", "relu6"):
        low, high = 0.0, 6.0 if kind == "relu6" else math.inf
    elif kind == "clamp_max":
        high = r.number(op.operands[1])
    else:
        low = _bound(r, op.operands[1], low)
        high = _bound(r, op.operands[2], high) if len(op.operands) > 2 else high
    return [r.make("qcc.clamp", [r.builtin(x)], r.type(x), min=min(low, high), max=high)]


@rule("torch.aten.clamp.Tensor", "torch.aten.clamp_min.Tensor", "torch.aten.clamp_max.Tensor")
def _clamp_to_tensors(r: Reader, op: Any) -> Sequence[Any]:
    """Bounds that are constants of one number, as ONNX's Clip has them, are attributes."""
    x, kind = op.operands[0], op.name.removeprefix("torch.aten.").removesuffix(".Tensor")
    r.f32(x, op.results[0])
    low, high = {"clamp": list(op.operands)[1:], "clamp_min": [op.operands[1], None], "clamp_max": [None, op.operands[1]]}[kind]
    given = [None if v is None or r.is_none(v) else v for v in (low, high)]
    numbers = [default if v is None else one_number(r, v) for v, default in zip(given, (-math.inf, math.inf), strict=True)]
    if numbers[0] is None or numbers[1] is None or not numbers[0] <= numbers[1] or r.shape(x) != r.shape(op.results[0]):
        return [clamped(r, op, x, *given)]
    return [r.make("qcc.clamp", [r.builtin(x)], r.type(x), min=float(numbers[0]), max=float(numbers[1]))]


def _bound(r: Reader, value: Any, default: float) -> float:
    given = r.optional(value)
    return default if given is None else float(given)


ARITHMETIC = {"add": "qcc.add", "sub": "qcc.sub", "mul": "qcc.mul", "div": "qcc.div"}


@rule("torch.aten.add.Tensor", "torch.aten.sub.Tensor", "torch.aten.mul.Tensor", "torch.aten.div.Tensor")
def _binary(r: Reader, op: Any) -> Sequence[Any]:
    kind, result = op.name.split(".")[2], _computed(r, op)
    a, b = (operand(r, v, result.element_type) for v in list(op.operands)[:2])
    if len(op.operands) > 2:
        b = _scaled(r, b, r.number(op.operands[2]))
    return [r.make(ARITHMETIC[kind], [a, b], result)]


@rule("torch.aten.add.Scalar", "torch.aten.sub.Scalar", "torch.aten.mul.Scalar", "torch.aten.div.Scalar", "torch.aten.rsub.Scalar")
def _binary_scalar(r: Reader, op: Any) -> Sequence[Any]:
    kind, result = op.name.split(".")[2], _computed(r, op)
    a, b = operand(r, op.operands[0], result.element_type), r.number(op.operands[1])
    alpha = r.number(op.operands[2]) if len(op.operands) > 2 else 1.0
    if kind == "rsub":  # scalar - alpha * tensor
        return [r.make("qcc.sub", [_one(r, b, result), _scaled(r, a, alpha)], result)]
    return [r.make(ARITHMETIC[kind], [a, _one(r, b * alpha, result)], result)]


def _computed(r: Reader, op: Any) -> ir.RankedTensorType:
    """The type of arithmetic: f32, or integers but for quotients."""
    kind = result_type(r, op)
    expected = ("f32",) if ".div." in op.name else ("f32", "i64", "i32")
    require(str(kind.element_type) in expected, f"computes in {kind.element_type}, expected {' or '.join(expected)}")
    return kind


def _one(r: Reader, value: float, kind: Any) -> Any:
    """A number of the element type of tensor type `kind`."""
    dtype = weights.numpy_dtype(kind.element_type)
    require(dtype.kind == "f" or (value == int(value) and abs(value) < 2**53), f"{value} is no {kind.element_type}")
    return r.constant(np.array([value], dtype))


def _scaled(r: Reader, value: Any, factor: float) -> Any:
    return value if factor == 1 else r.make("qcc.mul", [value, _one(r, factor, ir.RankedTensorType(value.type))], value.type)


@rule("torch.aten.square")
def _square(r: Reader, op: Any) -> Sequence[Any]:
    r.f32(op.operands[0])
    x = r.builtin(op.operands[0])
    return [r.make("qcc.mul", [x, x], x.type)]


@rule("torch.aten.pow.Tensor_Scalar")
def _power(r: Reader, op: Any) -> Sequence[Any]:
    r.f32(op.operands[0], op.results[0])
    exponent = r.number(op.operands[1])
    kinds = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if exponent in kinds:
        return [_make_unary(r, op, kinds[exponent])]
    require(exponent in (2, 3, 4), f"a power of {exponent}")
    (square,), x = _square(r, op), r.builtin(op.operands[0])
    return [square if exponent == 2 else r.make("qcc.mul", [square, x if exponent == 3 else square], square.type)]


@rule("torch.aten.pow.Scalar")
def _power_of_two(r: Reader, op: Any) -> Sequence[Any]:
    base, x = op.operands
    r.f32(x, op.results[0])
    require(r.number(base) == 2, "a power of another number than 2")
    return [_make(r, x, "exp2")]
