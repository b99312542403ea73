"""A root mean square normalisation as exporters write it becomes one operation.

Before:

    %s = qcc.mul %x, %x
    %m = qcc.reduce %s {axes = [2], keepdims = true, kind = "mean"}
    %v = qcc.add %m, %epsilon
    %r = qcc.unary %v {kind = "rsqrt"}
    %n = qcc.mul %x, %r
    %y = qcc.mul %n, %gamma

After:

    %y = qcc.rms_norm %x, %gamma {axes = 1, epsilon = 1.0e-6}

The factors may come in any order, and the root may be a divisor or 1 / sqrt. Without a factor behind it that is a constant of the last
axes there is no gamma.

Requires: graph form, float elements.
Guarantees: the same numbers but for rounding where the source divides by the root.
Why: five passes over memory become one.
Source: B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", 2019.
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


class FoldRmsNormPass(Pass):
    """See the module's docstring."""

    name = "fold-rms-norm"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Fold every product or quotient that is a normalisation, then the factor behind it."""
        for op in walk(module):
            if op.name not in ("qcc.mul", "qcc.div"):
                continue
            if (found := _normalisation(op)) is not None:
                x, axes, epsilon = found
                _replace(op, [x], op.location, axes=axes, epsilon=epsilon)
            elif op.name == "qcc.mul" and (factors := _scaled_norm(op)) is not None:
                norm, gamma = factors
                _replace(op, [norm.operands[0], gamma], norm.location, **attributes_of(norm))
        erase_dead(module)


def _replace(op: Any, operands: list[Any], location: Any, **attributes: Any) -> None:
    at = ir.InsertionPoint(op)
    replace_op(op, create("qcc.rms_norm", operands, [op.results[0].type], attributes, loc=location, ip=at).results)


def _normalisation(op: Any) -> tuple[Any, int, float] | None:
    """x, the number of last axes and epsilon where `op` is x / sqrt(mean(x * x) + epsilon), else None."""
    if not isinstance(element_of(op.results[0]), ir.FloatType):
        return None
    a, b = op.operands
    if op.name == "qcc.div":
        candidates = [(a, _root(b))]
    else:
        candidates = [(a, _inverse_root(b)), (b, _inverse_root(a))]
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


def _mean_of_squares(radicand: Any, x: Any) -> tuple[int, float] | None:
    """Number of axes and epsilon where `radicand` is the mean of x * x over its last axes, kept, plus epsilon."""
    add, rank = producer(radicand, "qcc.add"), len(shape_of(x))
    if add is None:
        return None
    for mean, term in (list(add.operands), list(add.operands)[::-1]):
        reduce, epsilon = producer(mean, "qcc.reduce"), scalar(term)
        if reduce is None or epsilon is None or op_attribute(reduce, "kind") != "mean" or not op_attribute(reduce, "keepdims"):
            continue
        axes, square = sorted(op_attribute(reduce, "axes")), producer(reduce.operands[0], "qcc.mul")
        if square is not None and list(square.operands) == [x, x] and axes == list(range(rank - len(axes), rank)):
            return len(axes), epsilon
    return None


def _scaled_norm(op: Any) -> tuple[Any, Any] | None:
    """The normalisation and gamma where `op` is the product of one without gamma and a float constant of its axes, else None."""
    for value, factor in (list(op.operands), list(op.operands)[::-1]):
        norm, gamma = producer(value, "qcc.rms_norm"), constant_array(factor)
        if norm is None or len(norm.operands) > 1 or not used_once(value) or gamma is None or gamma.dtype != np.float32:
            continue
        leading = max(gamma.ndim - op_attribute(norm, "axes"), 0)
        if all(size == 1 for size in gamma.shape[:leading]) and op.results[0].type == value.type:
            return norm, make_float_constant(gamma.reshape(gamma.shape[leading:]), op) if leading else factor
    return None
