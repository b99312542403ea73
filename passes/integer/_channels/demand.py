"""Which channels of every value somebody needs: the least solution of what the operations ask of each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcc.dialects.mlir import op_attribute
from qcc.passes.integer._channels.axes import MOVING, TIED, Axes, aligned, is_constant, reshaped
from qcc.passes.integer._channels.constants import Constants
from qcc.passes.integer._channels.products import NAMES, Product, channels_enter
from qcc.passes.values import shape_of

Array = np.ndarray[Any, Any]


class Demand:
    """`needed` [channels] of every value with channels. Values that an operation ties keep the same channels."""

    def __init__(self, operations: list[Any], axes: Axes, products: dict[Any, Product], constants: Constants, granule: int) -> None:
        self.operations, self.axes, self.products, self.constants = operations, axes, products, constants
        self.needed: dict[Any, Array] = {v: np.zeros(shape_of(v)[axis], np.bool_) for v, axis in axes.items()}
        self.changed = False
        self.solve()
        while self.fill(granule):
            self.solve()

    def solve(self) -> None:
        self.changed = True
        while self.changed:
            self.changed = False
            for op in reversed(self.operations):
                self.visit(op)

    def fill(self, granule: int) -> bool:
        """Keep further channels, in their order, up to a multiple of `granule`; whether any value grew."""
        grown = False
        for value, mask in self.needed.items():
            count = int(mask.sum())
            wanted = min(mask.size, max(1, -(-count // granule)) * granule)
            if count < wanted:
                extra = np.zeros_like(mask)
                extra[np.flatnonzero(~mask)[: wanted - count]] = True
                grown |= self.need(value, extra)
        return grown

    def need(self, value: Any, mask: Array | bool) -> bool:
        """Add `mask` to what is needed of `value`; whether that is new."""
        if value not in self.needed:
            return False
        found = self.needed[value]
        joined = found | mask
        if bool((joined == found).all()):
            return False
        self.needed[value] = joined
        self.changed = True
        return True

    def visit(self, op: Any) -> None:
        if op.name in ("qcc.constant", "arith.constant"):
            return
        result = op.results[0] if op.results else None
        if op.name in NAMES:
            self.visit_product(op)
        elif result is None or result not in self.axes:
            for value in op.operands:
                self.need(value, True)
        elif op.name == "tensor.concat" and op_attribute(op, "dim") == self.axes[result]:
            self.visit_concatenation(op)
        elif op.name == "qcc.reshape":
            x = op.operands[0]
            moved = reshaped(shape_of(x), self.axes[x], shape_of(result))
            assert moved is not None, "the result has a channel axis"
            self.need(x, np.asarray(self.needed[result].reshape(-1, moved[1]).any(axis=1)))
            self.need(result, np.repeat(self.needed[x], moved[1]))
        elif op.name in TIED or op.name == "tensor.concat":
            self.visit_tied(op)
        else:
            raise AssertionError(f"no rule for the channels of {op.name}")

    def visit_product(self, op: Any) -> None:
        x, result, found = op.operands[0], op.results[0], self.products.get(op)
        if found is None:
            for value in (*op.operands, result):
                self.need(value, True)
            return
        wanted = self.needed[result]
        if not channels_enter(op, self.axes):
            self.need(x, True)
            if found.groups > 1:
                self.need(result, True)
            return
        if found.groups == 1:
            inputs = self.constants.foldable(op, found)
            assert inputs is not None, "its channels enter"
            self.need(x, found.touched[wanted].any(axis=0) & ~inputs)
            return
        groups = wanted.reshape(found.groups, -1).any(axis=1) | self.needed[x].reshape(found.groups, -1).any(axis=1)
        self.need(x, np.repeat(groups, self.needed[x].size // found.groups))
        self.need(result, np.repeat(groups, wanted.size // found.groups))

    def visit_concatenation(self, op: Any) -> None:
        result = op.results[0]
        bounds = np.cumsum([shape_of(v)[self.axes[result]] for v in op.operands])[:-1]
        for value, part in zip(op.operands, np.split(self.needed[result], bounds), strict=True):
            self.need(value, part)
        self.need(result, np.concatenate([self.needed[v] for v in op.operands]))

    def visit_tied(self, op: Any) -> None:
        """The result and every operand whose channels meet its own keep the same ones; others keep all."""
        result = op.results[0]
        axis, same = self.axes[result], [result]
        for value in op.operands:
            meets = aligned(value, result, axis)
            if value in self.axes and (op.name in MOVING or meets == self.axes[value]):
                same.append(value)
            elif not is_constant(value):
                self.need(value, True)
                if meets is not None:
                    self.need(result, True)
        joined = np.logical_or.reduce([self.needed[v] for v in same])
        for value in same:
            self.need(value, joined)
