"""The loop nest of softmax, normalisation and reductions along contiguous rows, in the exact order of `runtime/reference/float_ops.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from qcc.dialects.approximations import LANES
from qcc.dialects.codelet import ELEMENT_BYTES, Rows
from qcc.passes.llvm.codelets.access import bytes_of, load, pieces, store
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value, lanes_of
from qcc.passes.llvm.codelets.fetch import Fetch
from qcc.passes.llvm.codelets.functions import exp
from qcc.passes.llvm.codelets.lanes import Lanes
from qcc.passes.llvm.codelets.steps import Steps
from qcc.passes.llvm.codelets.transposition import across

REDUCTIONS = ("sum", "mean", "max", "min")


def emit(b: Builder, codelet: Rows, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task."""
    c = codelet
    outer = c.sizes[:-1]
    low = b.mul(task, c.chunk)
    row = _Row(b, c, buffers, instructions, scratch)

    def nest(dimension: int, place: tuple[Index, ...]) -> None:
        if dimension == len(outer):
            row.emit(place)
            return
        start, end = (low, b.minimum(b.add(low, c.chunk), outer[0])) if dimension == 0 else (0, outer[dimension])
        b.loop(start, end, 1, lambda i: nest(dimension + 1, (*place, i)))

    nest(0, ())


class _Row:
    def __init__(self, b: Builder, c: Rows, buffers: Sequence[Value], instructions: Any, scratch: Value) -> None:
        self.b, self.c, self.buffers, self.scratch = b, c, buffers, Address(scratch)
        self.length = c.sizes[-1]
        self.whole = self.length // LANES * LANES
        self.steps = Steps(b, instructions)
        self.fetch = Fetch(b, c.operands, buffers, c.params, instructions)

    def emit(self, place: tuple[Index, ...]) -> None:
        b, c = self.b, self.c
        x = b.at(self.buffers[c.x.buffer], bytes_of(c.x, (*place, 0), b))
        if c.op in REDUCTIONS:
            total = self._reduction(x)
            self._store(place, 0, b.splat(total, 1))
            return
        factor = {"softmax": self._softmax, "normalize": self._normalize, "rms_normalize": self._rms_normalize}[c.op](x)
        source = x if c.op == "rms_normalize" else self.scratch

        def finish(i: Index, lanes: int) -> None:
            value = load(b, "f32", b.at(source, b.mul(i, 4)), 1, lanes)
            self._store(place, i, b.binary("fmul", value, b.splat(factor, lanes)))

        self._each(finish)

    # --- the kinds of row -----------------------------------------------------------------------------------------------------------

    def _reduction(self, x: Address) -> Value:
        b, c = self.b, self.c
        if c.op in ("max", "min"):
            return self._extreme(x, c.op)
        total = self._lane_sum(lambda i, lanes: load(b, "f32", b.at(x, b.mul(i, 4)), 1, lanes))
        return b.binary("fdiv", total, b.constant(float(self.length), "f32")) if c.op == "mean" else total

    def _softmax(self, x: Address) -> Value:
        """exp(x - max) into scratch; 1 / its sum."""
        b = self.b
        greatest = self._extreme(x, "max", strict=False)  # a NaN comes back by its exponential, and from there into every quotient

        def exponential(i: Index, lanes: int) -> Value:
            value = load(b, "f32", b.at(x, b.mul(i, 4)), 1, lanes)
            e = exp(Lanes(b, b.binary("fsub", value, b.splat(greatest, lanes)))).value
            b.store(e, b.at(self.scratch, b.mul(i, 4)))
            return e

        return b.binary("fdiv", b.constant(1.0, "f32"), self._lane_sum(exponential))

    def _normalize(self, x: Address) -> Value:
        """x - mean into scratch; 1 / sqrt(variance + epsilon)."""
        b = self.b
        count = b.constant(float(self.length), "f32")
        mean = b.binary("fdiv", self._lane_sum(lambda i, lanes: load(b, "f32", b.at(x, b.mul(i, 4)), 1, lanes)), count)

        def square(i: Index, lanes: int) -> Value:
            d = b.binary("fsub", load(b, "f32", b.at(x, b.mul(i, 4)), 1, lanes), b.splat(mean, lanes))
            b.store(d, b.at(self.scratch, b.mul(i, 4)))
            return b.binary("fmul", d, d)

        return self._inverse_root(b.binary("fdiv", self._lane_sum(square), count))

    def _rms_normalize(self, x: Address) -> Value:
        """1 / sqrt(mean of squares + epsilon), a factor of x itself."""
        b = self.b

        def square(i: Index, lanes: int) -> Value:
            value = load(b, "f32", b.at(x, b.mul(i, 4)), 1, lanes)
            return b.binary("fmul", value, value)

        return self._inverse_root(b.binary("fdiv", self._lane_sum(square), b.constant(float(self.length), "f32")))

    def _inverse_root(self, variance: Value) -> Value:
        """1 / sqrt(variance + epsilon)."""
        b = self.b
        epsilon = b.load("f32", Address(self.buffers[self.c.params], 4 * self.c.args[0]), invariant=True)
        root = b.call("llvm.sqrt.f32", [b.binary("fadd", variance, epsilon)], "f32")
        return b.binary("fdiv", b.constant(1.0, "f32"), root)

    # --- along a row ----------------------------------------------------------------------------------------------------------------

    def _each(self, body: Callable[[Index, int], None]) -> None:
        self.b.loop(0, self.whole, LANES, lambda i: body(i, LANES))
        for first, count in pieces(self.length - self.whole, LANES):
            body(self.whole + first, count)

    def _lane_sum(self, value: Callable[[Index, int], Value]) -> Value:
        """`float_ops.lane_sum` of value(index, lanes)."""
        b = self.b
        total = b.loop(0, self.whole, LANES, lambda i, acc: [b.binary("fadd", acc, value(i, LANES))], [b.constant(0.0, f"{LANES}xf32")])[0]
        if self.whole < self.length:
            total = b.binary("fadd", total, self._tail(value, 0.0))
        return across(b, total, lambda low, high: b.binary("fadd", low, high))

    def _tail(self, value: Callable[[Index, int], Value], fill: float) -> Value:
        """The elements behind the last whole vector in the first lanes, `fill` in the others."""
        b = self.b
        found = b.constant(fill, f"{LANES}xf32")
        for first, count in pieces(self.length - self.whole, LANES):
            part = value(self.whole + first, count)
            wide = b.shuffle(part, part, [i - first if first <= i < first + count else 0 for i in range(LANES)])
            found = b.shuffle(found, wide, [LANES + i if first <= i < first + count else i for i in range(LANES)])
        return found

    def _extreme(self, x: Address, op: str, *, strict: bool = True) -> Value:
        """Greatest or least element; NaN if there is one, or, if not `strict`, without looking at NaN."""
        b = self.b
        name, fill = ("maximum", -math.inf) if op == "max" else ("minimum", math.inf)

        def read(i: Index, lanes: int) -> Value:
            return load(b, "f32", b.at(x, b.mul(i, 4)), 1, lanes)

        def better(a: Value, c: Value) -> Value:
            if not strict:
                return b.select(b.compare("ogt" if op == "max" else "olt", c, a), c, a)
            return b.call(f"llvm.{name}.v{lanes_of(a)}f32", [a, c], f"{lanes_of(a)}xf32")

        found = b.loop(0, self.whole, LANES, lambda i, acc: [better(acc, read(i, LANES))], [b.constant(fill, f"{LANES}xf32")])[0]
        if self.whole < self.length:
            found = better(found, self._tail(read, fill))
        return across(b, found, better)

    def _store(self, place: tuple[Index, ...], i: Index, value: Value) -> None:
        b, c, here = self.b, self.c, (*place, i)
        self.fetch.cache = {}
        self.fetch.place = lambda number: b.at(self.buffers[c.operands[number].buffer], bytes_of(c.operands[number], here, b))
        result = self.steps.run(c.steps, value, self.fetch)
        store(b, c.y.element, b.at(self.buffers[c.y.buffer], bytes_of(c.y, here, b)), c.y.strides[-1], result)


def scratch_bytes(codelet: Rows) -> int:
    """Thread scratch that a task uses."""
    return codelet.sizes[-1] * ELEMENT_BYTES["f32"]
