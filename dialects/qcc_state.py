"""Operations of the qcc dialect for what a model keeps from run to run, and for the few rows of it that a run changes."""

# No `from __future__ import annotations` here: the bindings read annotations as objects.
from qcc.dialects.element_types import is_integer
from qcc.dialects.expectations import expect_same_elements, expect_shape
from qcc.dialects.operation import Invalid, elements, integer, tensor, text
from qcc.dialects.qcc import Base, Qcc

__all__ = ["Insert", "Qcc", "ReadState", "WriteState"]


class ReadState(Base, name="read_state", operands=(), attributes={"state": text(), "value?": elements()}):
    """What the model keeps under the name `state`, as the last run left it: at first `value`, or zeros."""

    def check(self) -> None:
        y = tensor(self.y, "result")
        if "value" in self.attributes:
            expect_shape(y.shape, self.attr("value").shape, "'value'")


class WriteState(Base, name="write_state", operands=("x",), results=0, attributes={"state": text()}, pure=False):
    """x is what the next run finds as `state`; this one goes on with the old value, wherever it reads it."""


class Insert(Base, name="insert", operands=("x", "rows", "positions"), attributes={"axis": integer(0)}):
    """x with rows[..., i, ...] in place of x[..., positions[i], ...] along `axis`; positions below 0 count from the end."""

    def check(self) -> None:
        x, rows, positions, y = (tensor(getattr(self, name), name) for name in ("x", "rows", "positions", "y"))
        if not is_integer(positions) or len(positions.shape) != 1:
            raise Invalid(f"'positions' is {positions}, expected integers along one axis")
        axis = self.attr("axis")
        if axis >= len(x.shape):
            raise Invalid(f"'axis' is {axis}, expected one of the {len(x.shape)} axes of x")
        if list(rows.shape) != [*x.shape[:axis], positions.shape[0], *x.shape[axis + 1 :]]:
            raise Invalid(
                f"rows have shape {list(rows.shape)}, expected that of x, {list(x.shape)}, with {positions.shape[0]} at axis {axis}"
            )
        expect_shape(y.shape, x.shape, "x")
        expect_same_elements(x, rows)
        expect_same_elements(x, y)
