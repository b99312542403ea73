"""Layer norm and root mean square norm as exporters write them become one operation.

Before:

    %mean = qcc.reduce %x {axes = [2], keepdims = true, kind = "mean"}
    %d = qcc.sub %x, %mean
    %s = qcc.mul %d, %d
    %m = qcc.reduce %s {axes = [2], keepdims = true, kind = "mean"}
    %v = qcc.add %m, %epsilon
    %r = qcc.unary %v {kind = "rsqrt"}
    %n = qcc.mul %d, %r
    %g = qcc.mul %n, %gamma
    %y = qcc.add %g, %beta

After:

    %y = qcc.layer_norm %x, %gamma, %beta {axes = 1, epsilon = 1.0e-6}

Without the first two operations and beta it is a `qcc.rms_norm`. Factors and terms may come in any order, and the root may be a divisor or
1 / sqrt. Gamma and beta are constants over the last axes; each may be missing.

Requires: graph form, float elements, common subexpressions eliminated.
Guarantees: the same numbers but for rounding where the source divides by the root.
Why: as many passes over memory become one.
Source: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", 2016; B. Zhang, R. Sennrich, "Root Mean Square Layer
Normalization", 2019.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects.mlir import create, ir, op_attribute, replace_op, walk
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import (
    attributes_of,
    constant_array,
    element_of,
    erase_dead,
    make_float_constant,
    producer,
    scalar,
    shape_of,
    used_once,
)


class FoldNormsPass(Pass):
    """See the module's docstring."""

    name = "fold-norms"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Fold every product or quotient that is a normalisation, then gamma and beta behind it."""
        for op in walk(module):
            if op.name in ("qcc.mul", "qcc.div", "qcc.add") and isinstance(element_of(op.results[0]), ir.FloatType):
                if op.name != "qcc.add" and (found := _normalisation(op)) is not None:
                    _replace(op, *_norm(op, *found), op.location)
                elif op.name != "qcc.div" and (taken := _with_parameter(op)) is not None:
                    norm, operands = taken
                    _replace(op, norm.name, operands, attributes_of(norm), norm.location)
        erase_dead(module)


def _replace(op: Any, name: str, operands: list[Any], attributes: dict[str, Any], location: Any) -> None:
    at = ir.InsertionPoint(op)
    replace_op(op, create(name, operands, [op.results[0].type], attributes, loc=location, ip=at).results)


def _norm(op: Any, x: Any, axes: list[int], epsilon: float) -> tuple[str, list[Any], dict[str, Any]]:
    """Name, operands and attributes of the norm that `op` is, where it is `x` over its root mean square."""
    attributes, sub = {"axes": len(axes), "epsilon": epsilon}, producer(x, "qcc.sub")
    if sub is not None and _mean(sub.operands[1]) == (sub.operands[0], axes):
        parameters = [make_float_constant(np.array([value]), op) for value in (1.0, 0.0)]
        return "qcc.layer_norm", [sub.operands[0], *parameters], attributes
    return "qcc.rms_norm", [x], attributes


def _normalisation(op: Any) -> tuple[Any, list[int], float] | None:
    """x, its last axes and epsilon where `op` is x / sqrt(mean(x * x) + epsilon), else None."""
    a, b = op.operands
    candidates = [(a, _root(b))] if op.name == "qcc.div" else [(a, _inverse_root(b)), (b, _inverse_root(a))]
    for x, radicand in candidates:
        if radicand is not None and (found := _mean_of_squares(radicand, x)) is not None:
            return x, *found
    return None


def _root(value: Any) -> Any:
    """What `value` is the square root of, or None."""
    return _argument(value, "sqrt")


def _inverse_root(value: Any) -> Any:
    """What `value` is one over the square root of, or None."""
    if (radicand := _argument(value, "rsqrt")) is not None:
        return radicand
    if (mul := producer(value, "qcc.mul")) is not None and scalar(mul.operands[1]) == 1.0:  # torch's 1 / x is reciprocal(x) * 1
        return _inverse_root(mul.operands[0])
    divisor = _argument(value, "reciprocal")
    if (div := producer(value, "qcc.div")) is not None and scalar(div.operands[0]) == 1.0:
        divisor = div.operands[1]
    return None if divisor is None else _root(divisor)


def _argument(value: Any, kind: str) -> Any:
    """x where `value` is the function `kind` of x, or None."""
    op = producer(value, "qcc.unary")
    return op.operands[0] if op is not None and op_attribute(op, "kind") == kind else None


def _mean_of_squares(radicand: Any, x: Any) -> tuple[list[int], float] | None:
    """Axes and epsilon where `radicand` is the mean of x * x over its last axes, kept, plus epsilon."""
    add, rank = producer(radicand, "qcc.add"), len(shape_of(x))
    for mean, term in _both_orders(add) if add is not None else []:
        found, epsilon = _mean(mean), scalar(term)
        if found is None or epsilon is None:
            continue
        square, axes = producer(found[0], "qcc.mul"), found[1]
        if square is not None and list(square.operands) == [x, x] and axes == list(range(rank - len(axes), rank)):
            return axes, epsilon
    return None


def _mean(value: Any) -> tuple[Any, list[int]] | None:
    """What `value` is the mean of, and over which axes, which stay with size one; or None."""
    op = producer(value, "qcc.reduce")
    if op is None or op_attribute(op, "kind") != "mean" or not op_attribute(op, "keepdims"):
        return None
    return op.operands[0], sorted(op_attribute(op, "axes"))


def _both_orders(op: Any) -> list[tuple[Any, Any]]:
    a, b = op.operands
    return [(a, b), (b, a)]


def _with_parameter(op: Any) -> tuple[Any, list[Any]] | None:
    """A norm and its new operands where `op` is its product with the gamma, or its sum with the beta, that it lacks; else None."""
    for value, constant in _both_orders(op):
        norm, array = producer(value, "qcc.rms_norm", "qcc.layer_norm"), constant_array(constant)
        if norm is None or not used_once(value) or op.results[0].type != value.type or array is None or array.dtype != np.float32:
            continue
        leading = max(array.ndim - op_attribute(norm, "axes"), 0)
        if any(size != 1 for size in array.shape[:leading]):
            continue
        parameter = make_float_constant(array.reshape(array.shape[leading:]), op) if leading else constant
        x, *given = norm.operands
        numbers = [scalar(v) for v in given]
        if op.name == "qcc.mul" and numbers in ([], [1.0, 0.0]):
            return norm, [x, parameter, *given[1:]]
        if op.name == "qcc.add" and numbers[1:] == [0.0]:
            return norm, [x, given[0], parameter]
    return None
