"""Step programs: element-wise operations as steps on a current value, alone or behind a product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qcc.dialects.codelet import CURRENT, NOTHING, Step
from qcc.dialects.element_types import Affine
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import error_at, ir, op_attribute
from qcc.passes.tile.codelets.place import Place, element_name, stored_offset
from qcc.passes.tile.codelets.reciprocal import limits, rounds_as_division
from qcc.passes.values import affine_of, element_of, shape_of

FUSABLE = (
    "qcc.requantize",
    "qcc.dequantize",
    "qcc.quantize",
    "qcc.add",
    "qcc.sub",
    "qcc.mul",
    "qcc.div",
    "qcc.clamp",
    "qcc.unary",
    "qcc.lut",
    "qcc.maximum",
    "qcc.minimum",
    "qcc.compare",
    "qcc.select",
)
BINARY = ("qcc.add", "qcc.sub", "qcc.mul", "qcc.div", "qcc.maximum", "qcc.minimum", "qcc.compare")


def choices(op: Any) -> list[Any]:
    """The operands of an element-wise operation that may be the current value."""
    return list(op.operands)[: 3 if op.name == "qcc.select" else 2 if op.name in BINARY else 1]


@dataclass
class Program:
    """Steps with their arguments: `operands` are places broadcast to the result's logical shape, `words` the params buffer.

    `place_of(value)` gives the place of a tensor, `constant(array, shape)` one of f32 or i32 weights broadcast to a shape.
    """

    lowering: Any
    steps: list[Step] = field(default_factory=list)
    operands: list[Place] = field(default_factory=list)
    words: list[int] = field(default_factory=list)

    # --- arguments ------------------------------------------------------------------------------------------------------------------

    def integer(self, value: int) -> int:
        """A params word with an i32."""
        self.words.append(int(value) & 0xFFFFFFFF)
        return len(self.words) - 1

    def real(self, value: float | np.floating[Any]) -> int:
        """A params word with an f32."""
        self.words.append(int(np.float32(value).view(np.uint32)))
        return len(self.words) - 1

    def operand(self, place: Place) -> int:
        """The argument number of an operand place."""
        self.operands.append(place)
        return -len(self.operands)

    def per_channel(self, values: np.ndarray, axis: int | None, shape: Sequence[int]) -> int:
        """One word where `values` has one entry, else an operand that varies along `axis`."""
        values = np.asarray(values).reshape(-1)
        if values.size == 1:
            return self.real(values[0]) if values.dtype.kind == "f" else self.integer(int(values[0]))
        assert axis is not None
        sized = [1] * len(shape)
        sized[axis] = values.size
        kept = values.astype(np.float32 if values.dtype.kind == "f" else np.int32)
        return self.operand(self.lowering.constant_place(kept.reshape(sized)).broadcast(shape))

    # --- operations -----------------------------------------------------------------------------------------------------------------

    def append(self, op: Any, value: Any) -> None:
        """The steps of `op`, whose operand `value` is the current value."""
        getattr(self, "_" + op.name.split(".")[1])(op, value)

    def offset(self, amount: int) -> None:
        """current + amount, where amount is not 0."""
        if amount:
            self.steps.append(Step("offset", (self.integer(amount),)))

    def round_to(self, op: Any) -> None:
        """Round f32 values to the quantized result of `op`."""
        self.steps.append(Step("round_to", self._bounds(op, self._affine(op, op.results[0]))))

    def _requantize(self, op: Any, value: Any) -> None:
        shape, axis = shape_of(value), op_attribute(op, "axis")
        if (kind := affine_of(value)) is not None:
            self.offset(-self._stored_zero(op, value, kind))
        if len(op.operands) > 1:
            bias = self.lowering.constant_of(op, op.operands[1], "bias")
            self.steps.append(Step("offset", (self.per_channel(bias.astype(np.int32), axis, shape),)))
        y = self._affine(op, op.results[0])
        low, high = self._range(op, y)
        zero = int(y.zero_points[0])
        multiplier = op_attribute(op, "multiplier")
        if op_attribute(op, "mode") == "fixed":
            extra = stored_offset(op.results[0].type)
            args = (
                self.per_channel(multiplier.astype(np.int32), axis, shape),
                self.per_channel(np.asarray(op_attribute(op, "shift")).astype(np.int32), axis, shape),
                self.integer(low + extra),
                self.integer(high + extra),
                self.integer(zero + extra),
            )
            self.steps.append(Step("shift", args, kind=op_attribute(op, "rounding", "half_even")))
            return
        args = (self.per_channel(multiplier.astype(np.float32), axis, shape), *self._bounds(op, y))
        element = ir.RankedTensorType(value.type).element_type
        width = element.width if isinstance(element, ir.IntegerType) else 32
        if len(op.operands) > 1:
            width = max(width + 1, 32)  # with an i32 added
        largest = float(np.abs(multiplier).max(initial=0.0)) * 2.0 ** (width - 1)
        self.steps.append(Step("requantize", args, bounds=self._when_bounded(op, y, largest)))

    def _dequantize(self, op: Any, value: Any) -> None:
        shape, axis = shape_of(value), op_attribute(op, "axis")
        if "multiplier" not in op.attributes:
            kind = self._affine(op, value, per_axis=True)
            extra = stored_offset(value.type)
            zero = self.per_channel((kind.zero_points + extra).astype(np.int32), kind.axis, shape)
            self.steps.append(Step("dequantize", (zero, self.per_channel(kind.scales, kind.axis, shape))))
            return
        if (kind := affine_of(value)) is not None:
            self.offset(-self._stored_zero(op, value, kind))
        self.steps.append(Step("scale", (self.per_channel(op_attribute(op, "multiplier").astype(np.float32), axis, shape),)))
        if len(op.operands) > 1:
            bias = self.lowering.constant_or_none(op.operands[1])
            if bias is not None and (bias.size == 1 or bias.ndim == 1):
                self.steps.append(Step("float", (self.per_channel(bias.astype(np.float32), axis, shape),), kind="add"))
            else:
                self.steps.append(Step("float", (self.operand(self.lowering.place(op.operands[1]).broadcast(shape)),), kind="add"))

    def _quantize(self, op: Any, value: Any) -> None:
        y = self._affine(op, op.results[0], per_axis=True)
        shape = shape_of(value)
        scale = self.per_channel(y.scales, y.axis, shape)
        if y.axis is None:
            (low, high), one = self._range(op, y), float(y.scales[0])
            bounds, zero = self._bounds(op, y), int(y.zero_points[0])
            if rounds_as_division(one, low - zero, high - zero):
                least, most = limits(one, low - zero, high - zero)
                more = (self.real(np.float32(1) / np.float32(one)), self.real(least), self.real(most))
                self.steps.append(Step("quantize", (scale, *bounds, *more), kind="reciprocal", bounds="after"))
            else:
                self.steps.append(Step("quantize", (scale, *bounds)))
            return
        zero = y.zero_points
        bounds = [self.per_channel((b - zero).astype(np.float32), y.axis, shape) for b in (y.qmin, y.qmax)]
        stored = self.per_channel((zero + stored_offset(op.results[0].type)).astype(np.int32), y.axis, shape)
        self.steps.append(Step("quantize", (scale, *bounds, stored)))

    def _binary(self, op: Any, value: Any, name: str) -> None:
        a, b = op.operands[0], op.operands[1]
        swapped = b == value and a != value
        other = a if swapped else b
        if op_attribute(op, "multipliers") is None:
            word = "float" if isinstance(element_of(value), ir.FloatType) else "integer"
            self.steps.append(Step(word, (self._argument(other, op),), kind=name, swapped=swapped))
            return
        if op_attribute(op, "mode", "f32") != "f32":
            raise error_at(op, f"'{op.name}' is in mode fixed, which no CPU codelet computes; expected mode f32")
        multipliers = op_attribute(op, "multipliers")
        zeros = [self._zero(self._stored_zero(op, v, self._affine(op, v))) for v in (a, b)]
        y = self._affine(op, op.results[0])
        place = self.operand(self.lowering.place(other).broadcast(shape_of(op.results[0])))
        if name == "mul":
            ordered = zeros if not swapped else zeros[::-1]
            self.steps.append(Step("mul_quantized", (place, *ordered, self.real(multipliers[0]), *self._bounds(op, y))))
            return
        if self.steps and self.steps[-1].op == "requantize":  # its rounded f32 value is the stored one minus the zero point already
            before = self.steps.pop()
            self.steps.append(Step("requantize_real", before.args[:3]))
            name += "_real"
        args = (place, zeros[0], self.real(multipliers[0]), zeros[1], self.real(multipliers[1]), *self._bounds(op, y))
        bounds = self._when_bounded(op, y, 2.0**17 * float(np.abs(multipliers).sum()))
        self.steps.append(Step("add_quantized", args, kind=name, swapped=swapped, bounds=bounds))

    def _argument(self, other: Any, op: Any) -> int:
        """A float, an integer or a boolean, as a word where it is one constant that fits."""
        constant = self.lowering.constant_or_none(other)
        if constant is not None and constant.size == 1:
            number = constant.reshape(-1)[0]
            if constant.dtype == np.float32:
                return self.real(number)
            if constant.dtype.kind in "bi" and -(1 << 31) <= int(number) < 1 << 31:
                return self.integer(int(number))
        return self.operand(self.lowering.place(other, narrow=True).broadcast(shape_of(op.results[0])))

    def _add(self, op: Any, value: Any) -> None:
        self._binary(op, value, "add")

    def _sub(self, op: Any, value: Any) -> None:
        self._binary(op, value, "sub")

    def _mul(self, op: Any, value: Any) -> None:
        self._binary(op, value, "mul")

    def _div(self, op: Any, value: Any) -> None:
        self._binary(op, value, "div")

    def _maximum(self, op: Any, value: Any) -> None:
        self._binary(op, value, "maximum")

    def _minimum(self, op: Any, value: Any) -> None:
        self._binary(op, value, "minimum")

    def _compare(self, op: Any, value: Any) -> None:
        swapped = op.operands[0] != value
        other = self._argument(op.operands[0 if swapped else 1], op)
        self.steps.append(Step("compare", (other,), kind=op_attribute(op, "kind"), swapped=swapped))

    def _select(self, op: Any, value: Any) -> None:
        element = element_name(op.results[0].type)
        args = tuple(CURRENT if v == value else self._argument(v, op) for v in op.operands)
        self.steps.append(Step("select", args, kind="i32" if element == "i1" else str(element)))

    def _clamp(self, op: Any, value: Any) -> None:
        low, high = op_attribute(op, "min"), op_attribute(op, "max")
        if (kind := affine_of(value)) is None:
            self.steps.append(Step("clamp", (self.real(low), self.real(high))))
            return
        extra = stored_offset(value.type)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.rint(np.array([low, high], np.float32) / kind.scales[0])
        bounds = np.clip(scaled.astype(np.float64) + int(kind.zero_points[0]), kind.qmin, kind.qmax).astype(np.int64)
        self.steps.append(Step("limit", (self.integer(int(bounds[0]) + extra), self.integer(int(bounds[1]) + extra))))

    def _unary(self, op: Any, value: Any) -> None:
        alpha = op_attribute(op, "alpha")
        self.steps.append(Step("unary", () if alpha is None else (self.real(alpha),), kind=op_attribute(op, "kind")))

    def _lut(self, op: Any, value: Any) -> None:
        kind = self._affine(op, value)
        table = op_attribute(op, "table").reshape(-1).astype(np.int32) + stored_offset(op.results[0].type)
        if ISAS[self.lowering.isa].byte_tables and table.min() >= 0 and table.max() <= 255:
            place = self.lowering.weights(np.pad(table, (0, 256 - table.size)), "u8")
        else:
            place = self.lowering.constant_place(table)
        number = self.operand(Place(place.buffer, place.element, tuple(shape_of(value)), (0,) * len(shape_of(value))))
        self.steps.append(Step("lut", (number, self.integer(kind.qmin + stored_offset(value.type)))))

    # --- types ----------------------------------------------------------------------------------------------------------------------

    def _affine(self, op: Any, value: Any, *, per_axis: bool = False) -> Affine:
        kind = affine_of(value)
        if kind is None or kind.block is not None or (kind.axis is not None and not per_axis):
            element = ir.RankedTensorType(value.type).element_type
            expected = "!quant.uniform" + ("" if per_axis else " with one scale")
            raise error_at(op, f"'{op.name}' found {element}, expected {expected}; insert qcc.dequantize before it")
        return kind

    def _stored_zero(self, op: Any, value: Any, kind: Affine) -> int:
        return int(kind.zero_points[0]) + stored_offset(value.type)

    def _range(self, op: Any, y: Affine) -> tuple[int, int]:
        low, high = op_attribute(op, "clamp") or [y.qmin, y.qmax]
        return max(low, y.qmin), min(high, y.qmax)

    def _bounds(self, op: Any, y: Affine) -> tuple[int, int, int]:
        """Words: low and high relative to the zero point (f32), the stored zero point (i32)."""
        low, high = self._range(op, y)
        zero = int(y.zero_points[0])
        return self.real(low - zero), self.real(high - zero), self._zero(zero + stored_offset(op.results[0].type))

    def _zero(self, value: int) -> int:
        """A zero point; the one that changes nothing takes no word."""
        return self.integer(value) if value else NOTHING

    def _when_bounded(self, op: Any, y: Affine, largest: float) -> str:
        """`Step.bounds` of a step to `y` whose values before rounding are at most `largest` in magnitude."""
        if largest > 2.0**30:
            return ""
        return "byte" if [v + stored_offset(op.results[0].type) for v in self._range(op, y)] == [0, 255] else "after"
