"""Operations of the qcc dialect that compare values and choose between them: what masks and bounds are made of."""

# No `from __future__ import annotations` here: the bindings read annotations as objects.
from typing import Any

from qcc.dialects import shapes
from qcc.dialects.element_types import is_float, is_integer
from qcc.dialects.expectations import expect_same_elements, expect_shape
from qcc.dialects.mlir import ir
from qcc.dialects.operation import Invalid, one_of, tensor
from qcc.dialects.qcc import Base, Qcc

__all__ = ["COMPARISONS", "Compare", "Maximum", "Minimum", "Qcc", "Select"]

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def _check(self: Any, *names: str) -> ir.RankedTensorType:
    """The operands `names` hold numbers of one type, all operands broadcast to the result's shape; the type of the first of `names`."""
    kinds = [tensor(getattr(self, name), name) for name in self.OPERANDS]
    expect_shape(tensor(self.y, "result").shape, shapes.broadcast(*(kind.shape for kind in kinds)), "broadcasting the operands")
    first, *others = (tensor(getattr(self, name), name) for name in names)
    if not is_float(first) and not is_integer(first):
        raise Invalid(f"'{names[0]}' has elements {first.element_type}, expected floats or integers; insert qcc.dequantize")
    for other in others:
        expect_same_elements(first, other)
    return first


def _is_boolean(kind: ir.RankedTensorType) -> bool:
    return str(kind.element_type) == "i1"


class Maximum(Base, name="maximum", operands=("a", "b")):
    """The greater of a and b, NaN where either is, b where they are equal; of booleans: a or b."""

    def check(self) -> None:
        expect_same_elements(_check(self, "a", "b"), tensor(self.y, "result"))


class Minimum(Base, name="minimum", operands=("a", "b")):
    """The lesser of a and b, NaN where either is, b where they are equal; of booleans: a and b."""

    def check(self) -> None:
        expect_same_elements(_check(self, "a", "b"), tensor(self.y, "result"))


class Compare(Base, name="compare", operands=("a", "b"), attributes={"kind": one_of(*COMPARISONS)}):
    """Whether a < b and the like, as i1; of NaN only "ne" holds."""

    def check(self) -> None:
        _check(self, "a", "b")
        if not _is_boolean(y := tensor(self.y, "result")):
            raise Invalid(f"result has elements {y.element_type}, expected i1")


class Select(Base, name="select", operands=("condition", "a", "b")):
    """a where the condition (i1) holds, else b."""

    def check(self) -> None:
        expect_same_elements(_check(self, "a", "b"), tensor(self.y, "result"))
        if not _is_boolean(condition := tensor(self.condition, "condition")):
            raise Invalid(f"'condition' has elements {condition.element_type}, expected i1")
