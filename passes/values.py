"""Questions about SSA values that passes ask: who made this, who uses it, is it a constant, what does it quantize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qcc.dialects import element_types, weights
from qcc.dialects.element_types import Affine
from qcc.dialects.mlir import create, ir, op_attribute, walk

VIEWS = ("qcc.reshape", "qcc.transpose", "qcc.slice")  # elements that are there already, seen in another order
MOVEMENT = frozenset({"qcc.reshape", "qcc.transpose", "qcc.slice", "qcc.pad", "qcc.broadcast"})
"""Operations that only move elements (and pad): they act on any element type alike."""

_ERASABLE = ("qcc.", "tensor.", "arith.", "math.", "linalg.")


def producer(value: Any, *names: str) -> Any:
    """The operation that made `value` if it is called one of `names` (any operation where none are given), else None."""
    owner = value.owner
    if isinstance(owner, ir.Block):
        return None
    operation = owner.operation
    return operation if not names or operation.name in names else None


def users(value: Any) -> list[Any]:
    """The operations that use `value`, one entry per use."""
    return [use.owner.operation for use in value.uses]


def used_once(value: Any) -> bool:
    """Whether exactly one operand in the module is `value`."""
    return sum(1 for _ in value.uses) == 1


def constant_array(value: Any) -> np.ndarray | None:
    """The stored elements of a constant (`qcc.constant`, or a tensor `arith.constant`), or None where `value` is computed."""
    op = producer(value, "qcc.constant", "arith.constant")
    if op is None or not weights.is_elements(op.attributes["value"]):
        return None
    return weights.array_of(op.attributes["value"])


def float_array(value: Any) -> np.ndarray | None:
    """Real values, as float64, of a float constant or of a dequantized affine constant; None where `value` is computed."""
    if (array := constant_array(value)) is not None:
        kind = affine_of(value)
        if kind is not None:
            return (array.astype(np.float64) - kind.per_axis(kind.zero_points, array.ndim)) * kind.per_axis(kind.scales, array.ndim).astype(
                np.float64
            )
        return array.astype(np.float64) if isinstance(element_of(value), ir.FloatType) else None
    source = dequantized(value)
    return float_array(source) if source is not None and producer(source, "qcc.constant") is not None else None


def scalar(value: Any) -> float | None:
    """The number that every element of constant `value` has, or None; looks through dequantize, broadcast and reshape."""
    while (op := producer(value, "qcc.broadcast", "qcc.reshape")) is not None:
        value = op.operands[0]
    array = float_array(value)
    if array is None or array.size == 0:
        return None
    first = float(array.reshape(-1)[0])
    return first if array.size == 1 or bool((array == first).all()) else None


def dequantized(value: Any) -> Any:
    """The quantized tensor that `value` is the real value of, or None (also for a dequantized accumulator)."""
    op = producer(value, "qcc.dequantize")
    return None if op is None or "multiplier" in op.attributes else op.operands[0]


def affine_of(value: Any) -> Affine | None:
    """Affine parameters (per tensor or per axis, not per group) of the elements of tensor `value`, or None."""
    kind = element_types.affine(value.type) if isinstance(value.type, ir.RankedTensorType) else None
    return kind if kind is not None and kind.block is None else None


def per_tensor(value: Any) -> Affine | None:
    """Affine parameters of `value` where one scale and zero point serve the whole tensor, else None."""
    kind = affine_of(value)
    return kind if kind is not None and kind.axis is None and kind.scales.size == 1 else None


def element_of(value: Any) -> Any:
    """Element type of tensor `value`."""
    return ir.RankedTensorType(value.type).element_type


def shape_of(value: Any) -> list[int]:
    """Shape of tensor `value`."""
    return list(ir.RankedTensorType(value.type).shape)


def retyped(value: Any, element: Any, shape: Sequence[int] | None = None) -> Any:
    """Tensor type of `value`'s shape (or `shape`) with another element type."""
    return ir.RankedTensorType.get(list(shape_of(value) if shape is None else shape), element, loc=ir.Location.unknown())


def make_constant(array: np.ndarray, element: Any, before: Any, *, loc: Any = None, name: str = "") -> Any:
    """A `qcc.constant` of `array` meaning `element`, inserted before operation `before`; its value."""
    location = before.location if loc is None else loc
    kind = ir.RankedTensorType.get(list(array.shape), element, loc=ir.Location.unknown())
    op = create("qcc.constant", [], [kind], {"value": weights.constant_attribute(array, name)}, loc=location, ip=ir.InsertionPoint(before))
    return op.results[0]


def make_float_constant(array: np.ndarray, before: Any, *, loc: Any = None, name: str = "") -> Any:
    """An f32 `qcc.constant` before operation `before`; its value."""
    return make_constant(np.asarray(array, np.float32), ir.F32Type.get(), before, loc=loc, name=name)


def attributes_of(op: Any, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """The attributes of `op` as a mapping for `create`."""
    return {name: op.attributes[name] for name in op.attributes if name not in without}


def rebuilt(op: Any, operands: Sequence[Any], result: Any, before: Any = None, **changed: Any) -> Any:
    """The result of a copy of `op` with other operands, result type and attributes, inserted before `before` (or `op`)."""
    attributes = {**attributes_of(op), **changed}
    copy = create(op.name, operands, [result], attributes, loc=op.location, ip=ir.InsertionPoint(before or op))
    return copy.results[0]


def quantized_levels(real: np.ndarray, kind: Affine) -> np.ndarray:
    """`clamp(round_half_even(real / scale) + zero_point, qmin, qmax)` for a float array, dtype int64.

    Binary32 input divides in binary32, as `qcc.quantize` does; float64 input in float64.
    """
    scale = kind.per_axis(kind.scales, real.ndim).astype(real.dtype)
    zero = kind.per_axis(kind.zero_points, real.ndim)
    with np.errstate(over="ignore"):
        ratio = np.rint(real / scale).astype(np.float64)
    return np.clip(np.nan_to_num(ratio, nan=0.0, posinf=1e18, neginf=-1e18) + zero, kind.qmin, kind.qmax).astype(np.int64)


def clamped_range(value: Any, kind: Affine) -> tuple[Any, int, int]:
    """Look through the `qcc.clamp` operations that made `value`: (what they clamp, lo, hi) in the stored integers of `kind`.

    Rounding and clamping are both monotone, so clamping before quantizing equals clamping the stored integers after it.
    """
    low, high = kind.qmin, kind.qmax
    while (op := producer(value, "qcc.clamp")) is not None:
        bounds = quantized_levels(np.array([op_attribute(op, "min"), op_attribute(op, "max")], np.float32), kind)
        low, high = (int(min(max(int(b), low), high)) for b in bounds)
        value = op.operands[0]
    return value, low, high


def clamp_attribute(low: int, high: int, kind: Affine) -> list[int] | None:
    """`clamp` attribute for stored integers `low`..`high`, or None where the type says it already."""
    return None if (low, high) == (kind.qmin, kind.qmax) else [low, high]


def erase_dead(module: Any) -> None:
    """Erase operations without effect whose results nobody uses."""
    for op in reversed(list(walk(module))):
        if op.name.startswith(_ERASABLE) and op.results and not any(True for r in op.results for _ in r.uses):
            op.operation.erase()
