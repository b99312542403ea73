"""GELU as exporters write it becomes one function.

Before:

    %d = qcc.div %x, %sqrt2
    %e = qcc.unary %d {kind = "erf"}
    %a = qcc.add %e, %one
    %m = qcc.mul %x, %a
    %y = qcc.mul %m, %half

After:

    %y = qcc.unary %x {kind = "gelu"}

The factors may come in any order, and the argument of erf may be a product with sqrt(1/2).

Requires: graph form, float elements; what is between is used nowhere else.
Guarantees: x * (1 + erf(x / sqrt(2))) / 2 as `runtime/reference/float_ops.py` orders it; it differs from the source's order by rounding.
Why: x is used twice before, so that the chain cannot stand behind the product that makes x.
Source: D. Hendrycks, K. Gimpel, "Gaussian Error Linear Units", 2016.
"""

from __future__ import annotations

import math
from typing import Any

from qcc.dialects.mlir import create, ir, op_attribute, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import element_of, erase_dead, producer, scalar, shape_of, used_once

CLOSE = 1e-6  # relative: constants are binary32


class FoldGeluPass(Pass):
    """See the module's docstring."""

    name = "fold-gelu"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Fold every product that is a GELU."""
        for op in reversed(list(walk(module, "qcc.mul"))):  # the whole product before its parts
            if (x := _argument(op)) is not None:
                at = ir.InsertionPoint(op)
                replace_op(op, create("qcc.unary", [x], [op.results[0].type], {"kind": "gelu"}, loc=op.location, ip=at).results)
        erase_dead(module)


def _argument(op: Any) -> Any:
    """x where `op` is x * (1 + erf(x / sqrt(2))) / 2, else None."""
    if not isinstance(element_of(op.results[0]), ir.FloatType):
        return None
    factors = _factors(op.results[0], True)
    numbers = [n for v in factors if (n := scalar(v)) is not None]
    others = [v for v in factors if scalar(v) is None]
    if len(others) != 2 or not math.isclose(math.prod(numbers), 0.5, rel_tol=CLOSE):
        return None
    for x, sums in (others, others[::-1]):
        if x.type == op.results[0].type and (inner := _erf_argument(sums)) is not None and _is_scaled(inner, x):
            return x
    return None


def _factors(value: Any, first: bool = False) -> list[Any]:
    """The factors of a product, through products that nothing else uses."""
    op = producer(value, "qcc.mul")
    if op is None or not (first or used_once(value)) or shape_of(value) != shape_of(op.operands[0]):
        return [value]
    return [f for v in op.operands for f in _factors(v)]


def _erf_argument(sums: Any) -> Any:
    """t where `sums` is erf(t) + 1."""
    add = producer(sums, "qcc.add")
    if add is None or not used_once(sums):
        return None
    for a, b in (list(add.operands), list(add.operands)[::-1]):
        erf = producer(a, "qcc.unary")
        if erf is not None and op_attribute(erf, "kind") == "erf" and scalar(b) == 1.0 and used_once(a):
            return erf.operands[0]
    return None


def _is_scaled(value: Any, x: Any) -> bool:
    """Whether `value` is x / sqrt(2)."""
    op = producer(value, "qcc.div", "qcc.mul")
    if op is None or not used_once(value):
        return False
    for a, b in (list(op.operands), list(op.operands)[::-1]):
        number = scalar(b)
        if a == x and number is not None and number:
            if op.name == "qcc.mul":
                return math.isclose(number, math.sqrt(0.5), rel_tol=CLOSE)
            return b == op.operands[1] and math.isclose(number, math.sqrt(2), rel_tol=CLOSE)
    return False
