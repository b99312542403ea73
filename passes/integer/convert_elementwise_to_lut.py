"""Replace a real function of one quantized tensor by a table with one entry per stored value.

Before:

    %f = qcc.dequantize %x : tensor<4x!quant.uniform<u8:f32, 0.5:3>>
    %g = qcc.unary %f {kind = "gelu"}
    %s = qcc.mul %g, %half
    %q = qcc.quantize %s : tensor<4x!quant.uniform<i8:f32, 0.25>>

After:

    %q = qcc.lut %x {table = dense<...> : tensor<256xi8>}

Any tree of unary functions, clamps and arithmetic between dequantize and quantize is one table, provided that its only operand that is not
one constant number is the one quantized tensor; the tensor may occur several times (x * sigmoid(x)). Tables that made an operand are
part of the function: exporters quantize between erf, add and mul of one GELU, and all of it becomes one table. Clamps alone are left to
fold-qdq.

Requires: graph form after propagate-quantization; the tensor's type per tensor and of at most 8 bits, the result's per tensor.
Guarantees: the table is computed in binary64 and rounded once to the result's steps, half to even; NaN gives the least value.
Why: a look-up of 8 bits is one byte shuffle per 64 elements, whatever the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qcc.dialects import element_types
from qcc.dialects.mlir import create, ir, op_attribute, replace_op, walk
from qcc.dialects.unary_functions import unary
from qcc.passes.base import Pass, PassContext
from qcc.passes.values import dequantized, erase_dead, per_tensor, producer, quantized_levels, scalar, shape_of

_ARITHMETIC: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "qcc.add": np.add,
    "qcc.sub": np.subtract,
    "qcc.mul": np.multiply,
    "qcc.div": np.divide,
}


class ConvertElementwiseToLutPass(Pass):
    """See the module's docstring."""

    name = "convert-elementwise-to-lut"

    def run(self, module: ir.Module, context: PassContext) -> None:
        """Convert every quantize whose operand is a function of one quantized tensor."""
        for op in walk(module, "qcc.quantize"):
            _convert(op)
        erase_dead(module)


def _convert(op: Any) -> None:
    kind = per_tensor(op.results[0])
    if kind is None:
        return
    tree = _Tree(shape_of(op.results[0]))
    with np.errstate(all="ignore"):
        real = tree.values(op.operands[0])
    if real is None or tree.leaf is None or not tree.steps:
        return
    stored = quantized_levels(np.where(np.isnan(real), -np.inf, real), kind)
    table = stored.astype(element_types.storage_dtype(op.results[0].type))
    at = ir.InsertionPoint(op)
    replace_op(op, create("qcc.lut", [tree.leaf], [op.results[0].type], {"table": table}, loc=op.location, ip=at).results)


class _Tree:
    """Evaluates the expression behind a value for every stored integer of its one quantized `leaf`; clamps are not counted in `steps`."""

    def __init__(self, shape: list[int]) -> None:
        self.shape, self.leaf, self.steps = shape, None, 0
        self.known: dict[Any, np.ndarray | None] = {}

    def values(self, value: Any) -> np.ndarray | None:
        """f64 values of `value`, one per stored integer of the leaf (or one number); None where it is not such a function."""
        if value not in self.known:
            self.known[value] = self._compute(value)
        return self.known[value]

    def _compute(self, value: Any) -> np.ndarray | None:
        if (number := scalar(value)) is not None:
            return np.array([number], np.float64)
        if (x := dequantized(value)) is not None:
            return self._levels(x)
        op = producer(value, "qcc.unary", "qcc.clamp", *_ARITHMETIC)
        if op is None or "multipliers" in op.attributes or shape_of(value) != self.shape:
            return None
        operands: list[np.ndarray] = []
        for operand in op.operands:
            found = self.values(operand)
            if found is None:
                return None
            operands.append(found)
        if op.name == "qcc.clamp":
            return np.minimum(np.maximum(operands[0], op_attribute(op, "min")), op_attribute(op, "max"))
        self.steps += 1
        if op.name == "qcc.unary":
            return unary(op_attribute(op, "kind"), operands[0], op_attribute(op, "alpha"))
        return _ARITHMETIC[op.name](*operands)

    def _levels(self, x: Any) -> np.ndarray | None:
        """Real values of quantized `x`, seen through the tables that made it, for every stored integer of the leaf behind them."""
        tables: list[Any] = []
        leaf = x
        while (lut := producer(leaf, "qcc.lut")) is not None:
            tables.append(lut)
            leaf = lut.operands[0]
        kind, x_kind = per_tensor(leaf), per_tensor(x)
        if kind is None or x_kind is None or kind.bits > 8 or shape_of(x) != self.shape or (self.leaf is not None and self.leaf != leaf):
            return None
        self.leaf = leaf
        self.steps += len(tables)
        stored = np.arange(kind.qmin, kind.qmax + 1)
        for lut in reversed(tables):
            before = per_tensor(lut.operands[0])
            assert before is not None
            stored = op_attribute(lut, "table").reshape(-1).astype(np.int64)[stored - before.qmin]
        return (stored - x_kind.zero_points[0]) * np.float64(x_kind.scales[0])
