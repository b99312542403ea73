"""Rules for element-wise operations: activations and arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects.mlir import ir
from qcc.passes.graph._torch_reader import IDENTITIES, Reader, require, rule

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


@rule("torch.aten.ge.Scalar", "torch.aten.ge.Tensor")
def _binarize(r: Reader, op: Any) -> Sequence[Any]:
    """where(x >= 0, a, -a) for a number a, wherever the comparison is used."""
    x, limit = op.operands
    r.f32(x)
    bound = _number(r, limit) if op.name.endswith("Tensor") else r.number(limit)
    if _becomes_numbers(r, op, bound):
        return []
    require(bound == 0, "a comparison with something else than 0")
    selections, levels = [use.owner.operation for use in op.results[0].uses], list[float]()
    for selection in selections:
        require(selection.name == "torch.aten.where.self" and selection.operands[0] == op.results[0], "a comparison")
        require(r.shape(selection.results[0]) == r.shape(x), "a selection that broadcasts")
        above, below = (_number(r, v) for v in list(selection.operands)[1:])
        r.f32(selection.results[0])
        require(above == -below, "a selection between other numbers than a and -a")
        levels.append(above)
    for selection, level in zip(selections, levels, strict=True):
        r.replace_early(selection, _scaled(r, _make(r, x, "binarize"), level))
    return []


@rule("torch.aten.gt.Scalar")
def _greater(r: Reader, op: Any) -> Sequence[Any]:
    """1 where x is at least the next f32 behind the bound."""
    r.f32(op.operands[0])
    bound = np.nextafter(np.float32(r.number(op.operands[1])), np.float32(np.inf))
    require(_becomes_numbers(r, op, float(bound)), "a comparison")
    return []


def _becomes_numbers(r: Reader, op: Any, bound: float) -> bool:
    """Whether all that is read of a comparison are its truth values as f32, which are then made."""
    readers = [use.owner.operation for use in op.results[0].uses]
    same = float(np.float32(bound)) == bound
    if not same or any(u.name not in IDENTITIES or not isinstance(r.type(u.results[0]).element_type, ir.F32Type) for u in readers):
        return False
    for reader in readers:
        r.replace_early(reader, _make(r, op.operands[0], "at_least", bound))
    return bool(readers)


def _number(r: Reader, value: Any) -> float:
    """The one element of a constant."""
    array = r.array(value)
    require(array.size == 1, "a tensor where a number is expected")
    return float(array.reshape(-1)[0])


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
    """Bounds that are constants of one number, as ONNX's Clip has them."""
    x, kind = op.operands[0], op.name.removeprefix("torch.aten.").removesuffix(".Tensor")
    r.f32(x, op.results[0])
    bounds = [-math.inf, math.inf]
    given = {"clamp": list(op.operands)[1:], "clamp_min": [op.operands[1]], "clamp_max": [None, op.operands[1]]}[kind]
    for i, value in enumerate(given):
        if value is not None and not r.is_none(value):
            known = r.known(value)
            require(known is not None and known.size == 1, "bounds that are computed, or several")
            bounds[i] = float(known.reshape(-1)[0]) if known is not None else 0.0
    require(bounds[0] <= bounds[1], "a lower bound above the upper one")
    require(r.shape(x) == r.shape(op.results[0]), "bounds of more axes than x")
    return [r.make("qcc.clamp", [r.builtin(x)], r.type(x), min=bounds[0], max=bounds[1])]


def _bound(r: Reader, value: Any, default: float) -> float:
    given = r.optional(value)
    return default if given is None else float(given)


ARITHMETIC = {"add": "qcc.add", "sub": "qcc.sub", "mul": "qcc.mul", "div": "qcc.div"}


@rule("torch.aten.add.Tensor", "torch.aten.sub.Tensor", "torch.aten.mul.Tensor", "torch.aten.div.Tensor")
def _binary(r: Reader, op: Any) -> Sequence[Any]:
    kind = op.name.split(".")[2]
    a, b = _operand(r, op, op.operands[0]), _operand(r, op, op.operands[1])
    if len(op.operands) > 2:
        b = _scaled(r, b, r.number(op.operands[2]))
    return [r.make(ARITHMETIC[kind], [a, b], r.type(op.results[0]))]


@rule("torch.aten.add.Scalar", "torch.aten.sub.Scalar", "torch.aten.mul.Scalar", "torch.aten.div.Scalar", "torch.aten.rsub.Scalar")
def _binary_scalar(r: Reader, op: Any) -> Sequence[Any]:
    kind = op.name.split(".")[2]
    r.f32(op.results[0])
    a, b = _operand(r, op, op.operands[0]), r.number(op.operands[1])
    alpha = r.number(op.operands[2]) if len(op.operands) > 2 else 1.0
    if kind == "rsub":  # scalar - alpha * tensor
        return [r.make("qcc.sub", [_one(r, b), _scaled(r, a, alpha)], r.type(op.results[0]))]
    return [r.make(ARITHMETIC[kind], [a, _one(r, b * alpha)], r.type(op.results[0]))]


def _operand(r: Reader, op: Any, value: Any) -> Any:
    """A float operand; a constant of another type or of rank zero becomes a float of rank one."""
    r.f32(op.results[0])
    require(len(r.shape(op.results[0])) > 0, "a scalar result")
    known = r.known(value)
    if known is not None and known.size == 1 and (known.ndim == 0 or known.dtype != np.float32):
        return _one(r, float(known.reshape(-1)[0]))
    if known is not None and known.dtype.kind in "iub":
        return r.constant(known.astype(np.float32))
    r.f32(value)
    x = r.builtin(value)
    return x if r.shape(value) else r.reshape(x, [1])


def _one(r: Reader, value: float) -> Any:
    return r.constant(np.array([value], np.float32))


def _scaled(r: Reader, value: Any, factor: float) -> Any:
    return value if factor == 1 else r.make("qcc.mul", [value, _one(r, factor)], value.type)


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
