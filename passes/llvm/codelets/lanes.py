"""f32 lanes with Python's operators: formulas in generated code read as they do in the reference.

Every operator is one binary32 operation, in the order Python evaluates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.passes.llvm.codelets.builder import Builder, Value, kind_of, lanes_of


class Lanes:
    """A vector of f32 (or, after `to_int` and `bits`, i32) lanes."""

    __slots__ = ("b", "value")

    def __init__(self, b: Builder, value: Value) -> None:
        self.b, self.value = b, value

    def _other(self, other: Any) -> Value:
        return other.value if isinstance(other, Lanes) else self.b.like(other, self.value)

    def _binary(self, name: str, other: Any, reverse: bool = False) -> Lanes:
        name = "f" + name if kind_of(self.value).endswith("f32") else name
        a, b = self.value, self._other(other)
        return Lanes(self.b, self.b.binary(name, b, a) if reverse else self.b.binary(name, a, b))

    def __add__(self, other: Any) -> Lanes:
        return self._binary("add", other)

    def __radd__(self, other: Any) -> Lanes:
        return self._binary("add", other, True)

    def __sub__(self, other: Any) -> Lanes:
        return self._binary("sub", other)

    def __rsub__(self, other: Any) -> Lanes:
        return self._binary("sub", other, True)

    def __mul__(self, other: Any) -> Lanes:
        return self._binary("mul", other)

    def __rmul__(self, other: Any) -> Lanes:
        return self._binary("mul", other, True)

    def __truediv__(self, other: Any) -> Lanes:
        return self._binary("div", other)

    def __rtruediv__(self, other: Any) -> Lanes:
        return self._binary("div", other, True)

    def __neg__(self) -> Lanes:
        return Lanes(self.b, self.b.op("llvm.fneg", [self.value], kind_of(self.value)))

    def __and__(self, other: Any) -> Lanes:
        return Lanes(self.b, self.b.binary("and", self.value, self._other(other)))

    def __rshift__(self, other: int) -> Lanes:
        return Lanes(self.b, self.b.binary("ashr", self.value, self._other(other)))

    def __lshift__(self, other: int) -> Lanes:
        return Lanes(self.b, self.b.binary("shl", self.value, self._other(other)))

    def compare(self, predicate: str, other: Any) -> Value:
        """A vector of i1."""
        return self.b.compare(predicate, self.value, self._other(other))

    def where(self, condition: Value, other: Any) -> Lanes:
        """self where `condition` holds, else `other`."""
        return Lanes(self.b, self.b.select(condition, self.value, self._other(other)))

    def maximum(self, other: Any) -> Lanes:
        """The greater one; NaN in self stays NaN."""
        other = self._other(other)
        return Lanes(self.b, self.b.select(self.b.compare("ogt", other, self.value), other, self.value))

    def minimum(self, other: Any) -> Lanes:
        """The lesser one; NaN in self stays NaN."""
        other = self._other(other)
        return Lanes(self.b, self.b.select(self.b.compare("olt", other, self.value), other, self.value))

    def intrinsic(self, name: str, *others: Any) -> Lanes:
        """llvm.<name> of f32 lanes."""
        kind = kind_of(self.value)
        lanes = lanes_of(self.value)
        return Lanes(self.b, self.b.call(f"llvm.{name}.{f'v{lanes}' if lanes else ''}f32", [self.value, *map(self._other, others)], kind))

    def rint(self) -> Lanes:
        return self.intrinsic("rint")

    def abs(self) -> Lanes:
        return self.intrinsic("fabs")

    def sqrt(self) -> Lanes:
        return self.intrinsic("sqrt")

    def copysign(self, sign: Lanes) -> Lanes:
        return self.intrinsic("copysign", sign)

    def to_int(self) -> Lanes:
        """i32 lanes of values that are whole numbers already; those that do not fit give something that must not be used."""
        lanes = lanes_of(self.value)
        kind = f"{lanes}xi32" if lanes else "i32"
        name = f"v{lanes}i32.v{lanes}f32" if lanes else "i32.f32"
        return Lanes(self.b, self.b.call(f"llvm.lrint.{name}", [self.value], kind))

    def to_float(self) -> Lanes:
        return Lanes(self.b, self.b.cast("sitofp", self.value, "f32"))

    def bits(self, element: str) -> Lanes:
        """The same bits as i32 or f32 lanes."""
        lanes = lanes_of(self.value)
        return Lanes(self.b, self.b.op("llvm.bitcast", [self.value], f"{lanes}x{element}" if lanes else element))


def fma(a: Lanes, b: Any, c: Any) -> Lanes:
    """a * b + c, rounded once."""
    values = [a.value, a._other(b), a._other(c)]
    return Lanes(a.b, a.b.op("llvm.intr.fma", values, kind_of(a.value)))


def horner(coefficients: Sequence[float], x: Lanes) -> Lanes:
    """c[0] * x^n + ... + c[n] as fma(fma(c[0], x, c[1]), x, c[2]) ..."""
    p = Lanes(x.b, x.b.like(coefficients[0], x.value))
    for c in coefficients[1:]:
        p = fma(p, x, c)
    return p
