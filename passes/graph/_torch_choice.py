"""Rules for comparisons, minimum and maximum, logic and selections: what masks, positions and bounds are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects import weights
from qcc.dialects.mlir import ir
from qcc.dialects.qcc_choice import COMPARISONS
from qcc.passes.graph._torch_reader import IDENTITIES, Reader, like, require, rule

NUMBERS = ("f32", "i64", "i32", "i1")


@rule(*(f"torch.aten.{kind}.{other}" for kind in COMPARISONS for other in ("Scalar", "Tensor")))
def _compare(r: Reader, op: Any) -> Sequence[Any]:
    kind, (x, other) = op.name.split(".")[2], op.operands
    bound = one_number(r, other)
    if kind in ("gt", "ge") and bound is not None and isinstance(r.type(x).element_type, ir.F32Type):
        # more than a bound is at least the next f32 behind it
        least = bound if kind == "ge" else float(np.nextafter(np.float32(bound), np.float32(np.inf)))
        if _becomes_numbers(r, op, least) or (kind == "ge" and bound == 0 and _becomes_signs(r, op)):
            return []
    element = _common(r, x, other)
    return [r.make("qcc.compare", [operand(r, v, element) for v in (x, other)], result_type(r, op), kind=kind)]


def _becomes_numbers(r: Reader, op: Any, bound: float) -> bool:
    """Whether all that is read of a comparison are its truth values as f32, which are then made."""
    readers = [use.owner.operation for use in op.results[0].uses]
    same = float(np.float32(bound)) == bound
    if not same or any(u.name not in IDENTITIES or not isinstance(r.type(u.results[0]).element_type, ir.F32Type) for u in readers):
        return False
    for reader in readers:
        r.replace_early(reader, _unary(r, op.operands[0], "at_least", bound))
    return bool(readers)


def _becomes_signs(r: Reader, op: Any) -> bool:
    """Whether x >= 0 only chooses between a and -a for numbers a; these selections are then made."""
    x, levels = op.operands[0], list[float]()
    selections = [use.owner.operation for use in op.results[0].uses]
    for selection in selections:
        if selection.name != "torch.aten.where.self" or selection.operands[0] != op.results[0]:
            return False
        above, below = (one_number(r, v) for v in list(selection.operands)[1:])
        kind = r.type(selection.results[0])
        if above is None or below is None or above != -below or kind != r.type(x):
            return False
        levels.append(above)
    for selection, level in zip(selections, levels, strict=True):
        signs = _unary(r, x, "binarize")
        scale = r.constant(np.array([level], np.float32))
        r.replace_early(selection, signs if level == 1 else r.make("qcc.mul", [signs, scale], signs.type))
    return bool(selections)


def _unary(r: Reader, x: Any, kind: str, alpha: float | None = None) -> Any:
    return r.make("qcc.unary", [r.builtin(x)], r.type(x), kind=kind, alpha=alpha)


@rule("torch.aten.maximum", "torch.aten.minimum")
def _extreme(r: Reader, op: Any) -> Sequence[Any]:
    kind, (a, b) = op.name.removeprefix("torch.aten."), op.operands
    element = r.type(op.results[0]).element_type
    if isinstance(element, ir.FloatType) and not isinstance(element, ir.F32Type):
        return [_extreme_of_other_floats(r, op)]
    return [r.make(f"qcc.{kind}", [operand(r, v, element) for v in (a, b)], result_type(r, op))]


def _extreme_of_other_floats(r: Reader, op: Any) -> Any:
    """On the generic path, where upstream's comparison loses a NaN of a: where(a != a, a, maximum(a, b))."""
    a, b = op.operands
    sizes = ",".join(map(str, r.shape(a)))
    unordered = r.make("torch.aten.ne.Tensor", [a, a], ir.Type.parse(f"!torch.vtensor<[{sizes}],i1>"))
    chosen = r.make(op.name, [a, b], op.results[0].type)
    return r.builtin(r.make("torch.aten.where.self", [unordered, a, chosen], op.results[0].type))


LOGIC = {"logical_and": "minimum", "logical_or": "maximum", "bitwise_and.Tensor": "minimum", "bitwise_or.Tensor": "maximum"}


@rule(*(f"torch.aten.{name}" for name in LOGIC))
def _logic(r: Reader, op: Any) -> Sequence[Any]:
    return [r.make(f"qcc.{LOGIC[op.name.removeprefix('torch.aten.')]}", _booleans(r, *op.operands), result_type(r, op))]


@rule("torch.aten.logical_xor", "torch.aten.bitwise_xor.Tensor")
def _exclusive_or(r: Reader, op: Any) -> Sequence[Any]:
    return [r.make("qcc.compare", _booleans(r, *op.operands), result_type(r, op), kind="ne")]


@rule("torch.aten.logical_not", "torch.aten.bitwise_not")
def _not(r: Reader, op: Any) -> Sequence[Any]:
    (x,) = _booleans(r, op.operands[0])
    return [r.make("qcc.compare", [x, r.constant(np.array([False]))], result_type(r, op), kind="eq")]


def _booleans(r: Reader, *values: Any) -> list[Any]:
    element = r.type(values[0]).element_type
    require(str(element) == "i1", f"logic of {element}, expected i1")
    return [operand(r, v, element) for v in values]


@rule("torch.aten.where.self")
def _where(r: Reader, op: Any) -> Sequence[Any]:
    condition, a, b = op.operands
    element = r.type(op.results[0]).element_type
    require(str(r.type(condition).element_type) == "i1", "a condition of another type than i1")
    chosen = [operand(r, v, element) for v in (a, b)]
    return [r.make("qcc.select", [operand(r, condition, r.type(condition).element_type), *chosen], result_type(r, op))]


def clamped(r: Reader, op: Any, x: Any, low: Any, high: Any) -> Any:
    """min(max(x, low), high) of f32 with bounds that are tensors, or None; x where it equals one, NaN where any of them is."""
    value, kind = operand(r, x, r.type(x).element_type), result_type(r, op)
    for name, bound in (("maximum", low), ("minimum", high)):
        if bound is not None:
            limit = operand(r, bound, kind.element_type)
            value = r.make(f"qcc.{name}", [limit, value], like(kind, r.broadcast_shape(limit, value)))
    require(value.type == kind, "bounds of another shape")
    return value


def converted(r: Reader, x: Any, result: ir.RankedTensorType) -> Any:
    """A conversion between booleans and numbers, None where it is another one."""
    before, after = str(r.type(x).element_type), str(result.element_type)
    if before == after or "i1" not in (before, after) or not {before, after} <= set(NUMBERS) or not result.shape:
        return None
    if before == "i1":
        return _as_numbers(r, r.builtin(x), result.element_type)
    zero = r.constant(np.zeros(1, weights.numpy_dtype(r.type(x).element_type)))
    return r.make("qcc.compare", [r.builtin(x), zero], result, kind="ne")


def _as_numbers(r: Reader, x: Any, element: ir.Type) -> Any:
    """1 and 0 of `element` for booleans (builtin)."""
    one, zero = (r.constant(np.array([n], weights.numpy_dtype(element))) for n in (1, 0))
    kind = ir.RankedTensorType(x.type)
    return r.make("qcc.select", [x, one, zero], like(kind, kind.shape, element))


# -- operands --------------------------------------------------------------------------------------------------------


def result_type(r: Reader, op: Any) -> ir.RankedTensorType:
    """Type of the result; declines where it is a scalar."""
    kind = r.type(op.results[0])
    require(len(kind.shape) > 0, "a scalar result")
    return kind


def operand(r: Reader, value: Any, element: ir.Type) -> Any:
    """`value` (a tensor, or a number for constants) as a builtin tensor of `element` and of one axis at least.

    Booleans and constants of another type are converted; declines where that changes an integer, and for other tensors of another type.
    """
    require(str(element) in NUMBERS, f"computes in {element}, expected f32 or i64, i32 or i1")
    number = one_number(r, value)
    known = r.known(value) if _is_tensor(value) else np.asarray(number)
    dtype = weights.numpy_dtype(element)
    if known is not None and (known.ndim == 0 or known.dtype != dtype):
        made = known.astype(dtype)
        require(dtype.kind == "f" or bool((made == known).all()), f"a constant that is no {element}")
        return r.constant(made if made.ndim else made.reshape(1))
    kind = r.type(value)
    boolean = str(kind.element_type) == "i1"
    require((boolean or kind.element_type == element) and ",ui" not in str(value.type), f"{value.type} where {element} is expected")
    x = r.builtin(value)
    x = x if kind.shape else r.reshape(x, [1])
    return _as_numbers(r, x, element) if boolean and kind.element_type != element else x


def one_number(r: Reader, value: Any) -> float | int | bool | None:
    """The number that a constant of one element or a scalar is, None for anything else."""
    if not _is_tensor(value):
        return r.scalar(value) if not isinstance(r.scalar(value), str) else None  # type: ignore[return-value]
    known = r.known(value)
    return known.reshape(-1)[0].item() if known is not None and known.size == 1 else None


def _is_tensor(value: Any) -> bool:
    return "tensor<" in str(value.type)


def _common(r: Reader, a: Any, b: Any) -> ir.Type:
    """The type that two operands are compared in: that of the one which is no number."""
    first = b if _is_tensor(b) and one_number(r, a) is not None else a
    return r.type(first).element_type
