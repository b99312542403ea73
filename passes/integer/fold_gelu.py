"""GELU as exporters write it becomes one function.

Before:

    %d = qcc.div %x, %sqrt2
    %e = qcc.unary %d {kind = "erf"}
    %a = qcc.add %e, %one
    %m = qcc.mul %x, %a
    %y = qcc.mul %m, %half

After:

    %y = qcc.unary %x {kind = "gelu"}

The factors may come in any order, and the argument of erf may be a product with sqrt(1/2). The approximation by tanh, whose argument is
sqrt(2 / pi) * (x + 0.044715 * x^3) or the same with x taken out of the sum, becomes `gelu_tanh`.

Requires: graph form, float elements; what is between is used nowhere else.
Guarantees: x * (1 + erf(x / sqrt(2))) / 2, or its approximation, as `runtime/reference/float_ops.py` orders it; it differs from the
source's order by rounding.
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
            if (found := _gelu(op)) is not None:
                kind, x = found
                at = ir.InsertionPoint(op)
                replace_op(op, create("qcc.unary", [x], [op.results[0].type], {"kind": kind}, loc=op.location, ip=at).results)
        erase_dead(module)


def _gelu(op: Any) -> tuple[str, Any] | None:
    """Kind and x where `op` is x * (1 + erf(x / sqrt(2))) / 2 or its approximation by tanh, else None."""
    if not isinstance(element_of(op.results[0]), ir.FloatType):
        return None
    half, others = _product(op.results[0], True)
    if len(others) != 2 or not math.isclose(half, 0.5, rel_tol=CLOSE):
        return None
    for x, sums in (others, others[::-1]):
        if x.type != op.results[0].type or (found := _function_plus_one(sums)) is None:
            continue
        kind, inner = found
        if _is_scaled(inner, x) if kind == "erf" else _is_cubic(inner, x):
            return {"erf": "gelu", "tanh": "gelu_tanh"}[kind], x
    return None


def _product(value: Any, first: bool = False) -> tuple[float, list[Any]]:
    """`value` as a number times others, through products that nothing else uses."""
    op = producer(value, "qcc.mul")
    if (number := scalar(value)) is not None:
        return number, []
    if op is None or not (first or used_once(value)) or shape_of(value) != shape_of(op.operands[0]):
        return 1.0, [value]
    (a, left), (b, right) = (_product(v) for v in op.operands)
    return a * b, left + right


def _function_plus_one(sums: Any) -> tuple[str, Any] | None:
    """Kind and t where `sums` is erf(t) + 1 or tanh(t) + 1."""
    for a, b in _sum(sums):
        function = producer(a, "qcc.unary")
        if function is not None and op_attribute(function, "kind") in ("erf", "tanh") and scalar(b) == 1.0 and used_once(a):
            return op_attribute(function, "kind"), function.operands[0]
    return None


def _sum(value: Any) -> list[tuple[Any, Any]]:
    """The two terms of a sum that is used once, in both orders; none where `value` is something else."""
    add = producer(value, "qcc.add")
    if add is None or not used_once(value):
        return []
    a, b = add.operands
    return [(a, b), (b, a)]


def _is_cubic(value: Any, x: Any) -> bool:
    """Whether `value` is sqrt(2 / pi) * (x + 0.044715 * x^3)."""
    scale, others = _product(value)
    if not math.isclose(scale, math.sqrt(2 / math.pi), rel_tol=CLOSE) or not 1 <= len(others) <= 2:
        return False
    outside = len(others) - 1  # how often x stands before the sum
    sums = next((v for v in others if v != x), None)
    if sums is None or others.count(x) != outside:
        return False
    for term, power in _sum(sums):
        factor, parts = _product(power)
        is_first = scalar(term) == 1.0 if outside else term == x
        if is_first and parts == [x] * (3 - outside) and math.isclose(factor, 0.044715, rel_tol=CLOSE):
            return True
    return False


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
