"""The qisa dialect: one operation per accelerator instruction, derived from the table in `runtime/fpga/isa.py`.

Operands of the instruction are integer attributes (enumerated ones are words); `wait` and `signal` list units. Order in
the block is order in the stream. A program is the body of a `func.func` that ends with `qisa.finish`.
"""

# No `from __future__ import annotations` here: the bindings read annotations as objects.
from typing import Any

from qcc.dialects.mlir import ext
from qcc.dialects.operation import Invalid, Kind, base_of
from qcc.runtime.fpga.isa import INSTRUCTIONS, UNITS, Field, Instruction


class Qisa(ext.Dialect, name="qisa"):
    """The instruction stream of the accelerator."""


Base: Any = base_of(Qisa)


def _kind(field: Field) -> Kind:
    if field.words:
        return "one of " + ", ".join(field.words), lambda v: v in field.words
    return (
        f"an integer in {field.least}..{field.greatest} ({field.meaning})",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and field.least <= v <= field.greatest,
    )


def _units() -> Kind:
    return "a list of units among " + ", ".join(UNITS), lambda v: isinstance(v, list) and all(u in UNITS for u in v)


def _check_tokens(self: Any) -> None:
    for mask in ("wait", "signal"):
        if self.UNIT in (units := self.attr(mask, [])):
            raise Invalid(f"'{mask}' names {self.UNIT}, which runs the instruction itself; expected other units only")
        if len(set(units)) != len(units):
            raise Invalid(f"'{mask}' is {units}, expected every unit at most once")


def _define(row: Instruction) -> Any:
    attributes = {f.name: _kind(f) for f in row.fields} | {"wait?": _units(), "signal?": _units()}
    name = "".join(part.capitalize() for part in row.name.split("_"))
    body = {"__doc__": row.meaning, "__module__": __name__, "check": _check_tokens, "UNIT": row.unit, "ROW": row}
    keywords: dict[str, Any] = {"name": row.name, "results": 0, "attributes": attributes, "pure": False}
    return type(Base)(name, (Base,), body, **keywords)


OPERATIONS: dict[str, Any] = {f"qisa.{row.name}": _define(row) for row in INSTRUCTIONS}
