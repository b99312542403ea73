"""Which channels hold one number at every position, whatever the input, and which number.

Exact: the numbers are computed as the operations define it. Quantized values and accumulators are stored integers (i64), others f32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcc.dialects.mlir import ir, op_attribute
from qcc.dialects.unary_functions import unary
from qcc.passes.integer._channels.axes import MOVING, Axes, aligned, is_constant, reshaped
from qcc.passes.integer._channels.products import NAMES, Product, channels_enter
from qcc.passes.integer._rescaling import combined, rescaling, rounded, shifted
from qcc.passes.values import affine_of, constant_array, element_of, float_array, per_tensor, quantized_levels, shape_of

Array = np.ndarray[Any, Any]
F32 = np.float32

_EXACT_UNARY = frozenset({"neg", "abs", "sign", "binarize", "floor", "ceil", "round"})
_KEEPING_ZERO = frozenset({"gelu", "gelu_tanh", "silu", "tanh", "erf", "sin", "hardswish", "leaky_relu", "elu", "mish", "sqrt"})
_GREATEST_BIAS = 1 << 31


@dataclass(frozen=True)
class Fixed:
    """`known` [channels]: whether the channel is constant; `values` [channels]: its number (anything where it is not)."""

    known: Array
    values: Array


class Constants:
    """The constant channels of every value of a function, found in one sweep in program order."""

    def __init__(self, operations: list[Any], axes: Axes, products: dict[Any, Product]) -> None:
        self.axes, self.products = axes, products
        self.fixed: dict[Any, Fixed] = {}
        for op in operations:
            if op.results and op.results[0] in axes:
                with np.errstate(all="ignore"):
                    found = self.transfer(op)
                if found is not None and found.known.any():
                    self.fixed[op.results[0]] = found

    def transfer(self, op: Any) -> Fixed | None:
        if op.name in NAMES:
            return self.product(op)
        if op.name == "tensor.concat":
            return self.concatenation(op)
        if op.name == "qcc.reshape":
            return self.reshape(op)
        operands = [self.operand(op, v) for v in op.operands]
        if op.name == "qcc.mul" and (absorbed := self.absorbing(op, operands)) is not None:
            return absorbed
        rule = _RULES.get(op.name)
        first = 1 if op.name in ("qcc.requantize", "qcc.dequantize") else len(operands)
        if rule is None or any(v is None for v in operands[:first]):
            return None
        fixed = [v for v in operands[:first] if v is not None]
        known = np.logical_and.reduce([v.known for v in fixed])
        values = rule(op, *[v.values for v in fixed])
        if values is None:
            return None
        if values.dtype.kind == "f":
            known = known & np.isfinite(values)
        if op.name in ("qcc.avg_pool2d", "qcc.pad", "qcc.reduce", "qcc.unary"):
            known = known & _holds(op, fixed[0].values)
        return Fixed(known, values)

    def operand(self, op: Any, value: Any) -> Fixed | None:
        """The constant channels of operand `value`, one entry per channel of the result."""
        if (found := self.fixed.get(value)) is not None:
            axis = aligned(value, op.results[0], self.axes[op.results[0]])
            return found if op.name in MOVING or axis == self.axes[value] else None
        if not is_constant(value):
            return None
        result = op.results[0]
        array, channels = constant_array(value), shape_of(result)[self.axes[result]]
        if array is None or not array.size:
            return None
        array = array.astype(np.int64) if affine_of(value) is not None or array.dtype.kind in "iu" else array.astype(F32)
        at = aligned(value, result, self.axes[result])
        rows = array.reshape(1, -1) if at is None else np.moveaxis(array, at, 0).reshape(array.shape[at], -1)
        rows = np.broadcast_to(rows, (channels, rows.shape[1]))
        return Fixed((rows == rows[:, :1]).all(axis=1), rows[:, 0])

    def absorbing(self, op: Any, operands: list[Fixed | None]) -> Fixed | None:
        """0 * x of real operands, where x is the finite real value of an integer."""
        if "multipliers" in op.attributes:
            return None
        for i, factor in enumerate(operands):
            other = op.operands[1 - i].owner
            if factor is not None and not isinstance(other, ir.Block) and other.operation.name == "qcc.dequantize":
                zero = factor.known & (factor.values == 0)
                if zero.any():
                    both = operands[1 - i]
                    values = np.where(zero, F32(0), factor.values * (F32(0) if both is None else both.values))
                    return Fixed(zero if both is None else zero | (factor.known & both.known), values.astype(F32))
        return None

    def foldable(self, op: Any, found: Product) -> Array | None:
        """[in]: inputs of product `op` whose constant can go into its bias exactly; None where x has no channels to take out.

        Outside of the image a padded convolution reads 0 (the zero point), so there only the constant 0 can go.
        """
        x = op.operands[0]
        if found.groups != 1 or not channels_enter(op, self.axes):
            return None
        fixed = self.fixed.get(x)
        if fixed is None:
            return np.zeros(found.touched.shape[1], np.bool_)
        centred = fixed.values - _zero(x)
        if found.padded:
            return fixed.known & (centred == 0)
        reach = np.abs(found.bias).astype(np.float64) + np.abs(found.sums).astype(np.float64) @ np.abs(np.where(fixed.known, centred, 0))
        fits = found.is_float or float(reach.max(initial=0)) < _GREATEST_BIAS
        return fixed.known if fits else fixed.known & (centred == 0)

    def folded(self, op: Any, found: Product, inputs: Array) -> Array:
        """[out]: what the constant channels `inputs` [in] of x add to every output."""
        fixed = self.fixed.get(op.operands[0])
        if fixed is None or not inputs.any():
            return np.zeros_like(found.bias)
        return found.sums[:, inputs] @ (fixed.values - _zero(op.operands[0]))[inputs].astype(found.sums.dtype)

    def product(self, op: Any) -> Fixed | None:
        """An output is constant where it reads constant inputs only."""
        found = self.products.get(op)
        if found is None:
            return None
        inputs = self.foldable(op, found)
        if inputs is None:  # grouped, or x is the model's input
            known, values = np.asarray(~found.touched.any(axis=1)), found.bias
        else:
            known, values = np.asarray(~found.touched[:, ~inputs].any(axis=1)), found.bias + self.folded(op, found, inputs)
        return Fixed(known, values.astype(F32) if found.is_float else values)

    def concatenation(self, op: Any) -> Fixed | None:
        result = op.results[0]
        axis = self.axes[result]
        if op_attribute(op, "dim") != axis:
            return None
        parts = [self.fixed.get(v) or Fixed(*(np.zeros(shape_of(v)[axis], t) for t in (np.bool_, np.int64))) for v in op.operands]
        values = np.concatenate([p.values for p in parts])
        return Fixed(np.concatenate([p.known for p in parts]), values.astype(F32) if values.dtype.kind == "f" else values)

    def reshape(self, op: Any) -> Fixed | None:
        x = op.operands[0]
        fixed = self.fixed.get(x)
        moved = None if fixed is None else reshaped(shape_of(x), self.axes[x], shape_of(op.results[0]))
        if fixed is None or moved is None:
            return None
        return Fixed(np.repeat(fixed.known, moved[1]), np.repeat(fixed.values, moved[1]))


def _zero(value: Any) -> int:
    kind = per_tensor(value)
    return 0 if kind is None else int(kind.zero_points[0])


def _holds(op: Any, values: Array) -> Array:
    """Where an operation that reads padding, sums, or is a function known to a rounding only gives what its rule says."""
    zero = values == _zero(op.operands[0])
    match op.name:
        case "qcc.pad":
            filling = _zero(op.results[0]) if affine_of(op.results[0]) is not None else op_attribute(op, "value", 0.0)
            return values == filling
        case "qcc.avg_pool2d":
            return zero | (not any(op_attribute(op, "padding")))
        case "qcc.unary":
            kind = op_attribute(op, "kind")
            return np.full(values.shape, kind in _EXACT_UNARY) | (zero & (kind in _KEEPING_ZERO))
        case _:
            return zero | (op_attribute(op, "kind") in ("max", "min"))


def _quantize(op: Any, x: Array) -> Array | None:
    kind = per_tensor(op.results[0])
    return None if kind is None else quantized_levels(x.astype(F32), kind)


def _dequantize(op: Any, x: Array) -> Array | None:
    kind = affine_of(op.operands[0])
    if kind is not None and kind.scales.size != 1:
        return None
    if "multiplier" not in op.attributes:
        return None if kind is None else (x - int(kind.zero_points[0])).astype(F32) * F32(kind.scales[0])
    real = (x - _zero(op.operands[0])).astype(F32) * op_attribute(op, "multiplier").reshape(-1)
    if len(op.operands) < 2:
        return real
    bias = float_array(op.operands[1])
    return None if bias is None or bias.size not in (1, x.size) else real + bias.reshape(-1).astype(F32)


def _requantize(op: Any, x: Array) -> Array | None:
    kind = per_tensor(op.results[0])
    if kind is None:
        return None
    acc = x - _zero(op.operands[0])
    if len(op.operands) > 1:
        bias = constant_array(op.operands[1])
        if bias is None or bias.size not in (1, x.size):
            return None
        acc = acc + bias.reshape(-1).astype(np.int64)
    low, high = op_attribute(op, "clamp", [kind.qmin, kind.qmax])
    return rescaling(op, int(kind.zero_points[0]), max(low, kind.qmin), min(high, kind.qmax))(acc)


def _arithmetic(real: Callable[[Array, Array], Array]) -> Callable[[Any, Array, Array], Array | None]:
    def rule(op: Any, a: Array, b: Array) -> Array | None:
        if "multipliers" not in op.attributes:
            return real(a, b) if element_of(op.results[0]) == ir.F32Type.get() else None
        kind = per_tensor(op.results[0])
        if kind is None:
            return None
        return combined(op, a - _zero(op.operands[0]), b - _zero(op.operands[1]), kind)

    return rule


def _clamp(op: Any, x: Array) -> Array | None:
    return np.clip(x, F32(op_attribute(op, "min")), F32(op_attribute(op, "max"))) if x.dtype == F32 else None


def _lut(op: Any, x: Array) -> Array | None:
    kind = per_tensor(op.operands[0])
    if kind is None:
        return None
    return op_attribute(op, "table").reshape(-1)[np.clip(x, kind.qmin, kind.qmax) - kind.qmin].astype(np.int64)


def _average(op: Any, x: Array) -> Array | None:
    count = int(np.prod(op_attribute(op, "kernel")))
    if "multipliers" not in op.attributes:  # the reference adds the taps one by one
        total = np.zeros_like(x)
        for _ in range(count):
            total = total + x
        return total / F32(count)
    kind, m = per_tensor(op.results[0]), op_attribute(op, "multipliers").reshape(-1)[0]
    if kind is None:
        return None
    total = (x - _zero(op.operands[0])) * count
    zero = int(kind.zero_points[0])
    low, high = op_attribute(op, "clamp", [kind.qmin, kind.qmax])
    if op_attribute(op, "mode", "f32") == "f32":
        return rounded(total.astype(F32) * (F32(m) / F32(count)), zero, low, high)
    value = shifted(total * int(m), op_attribute(op, "shift").reshape(-1)[0], op_attribute(op, "rounding", "half_even"))
    return np.clip(value + zero, low, high)


def _unary(op: Any, x: Array) -> Array | None:
    return unary(op_attribute(op, "kind"), x, op_attribute(op, "alpha")) if x.dtype == F32 else None


def _same(op: Any, x: Array) -> Array:
    return x


_RULES: dict[str, Callable[..., Array | None]] = {
    "qcc.quantize": _quantize,
    "qcc.dequantize": _dequantize,
    "qcc.requantize": _requantize,
    "qcc.add": _arithmetic(np.add),
    "qcc.sub": _arithmetic(np.subtract),
    "qcc.mul": _arithmetic(np.multiply),
    "qcc.div": _arithmetic(np.divide),
    "qcc.clamp": _clamp,
    "qcc.unary": _unary,
    "qcc.lut": _lut,
    "qcc.avg_pool2d": _average,
    "qcc.max_pool2d": _same,
    "qcc.pad": _same,
    "qcc.slice": _same,
    "qcc.broadcast": _same,
    "qcc.transpose": _same,
    "qcc.reduce": _same,
}
