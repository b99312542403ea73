"""The loop nest that finds the least and the greatest of a vector of f32 and 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qcc.dialects.codelet import RANGE_PARTS, DynamicRange
from qcc.passes.llvm.codelets.access import bytes_of, pieces
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value

LANES = 16
TOGETHER = 4  # vectors per step, each with extremes of its own


def emit(b: Builder, codelet: DynamicRange, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task. NaN is passed over."""
    c = codelet
    x = b.at(buffers[c.x.buffer], bytes_of(c.x, (0,), b))
    low = b.mul(task, c.chunk)
    for i, end in enumerate(ends(b, c.size, x, low, b.minimum(b.add(low, c.chunk), c.size))):
        y = b.at(buffers[c.y.buffer], b.add(bytes_of(c.y, (0,), b), b.mul(b.add(task, RANGE_PARTS * i), 4)))
        b.store(end, y)


def ends(b: Builder, size: int, x: Address, low: Index, high: Index) -> tuple[Value, Value]:
    """Least and greatest of 0 and the elements from `low` to `high` of the `size` at x, as scalars.

    The few elements behind the last whole step are looked at whatever `high` is: that changes no extreme of the whole.
    """
    whole = size // (LANES * TOGETHER) * (LANES * TOGETHER)
    zero = b.constant(0.0, f"{LANES}xf32")

    def step(i: Index, *found: Value) -> list[Value]:
        values = [b.load(f"{LANES}xf32", b.at(x, b.mul(i, 4)) + 4 * LANES * k) for k in range(TOGETHER)]
        return [better(b, f, v, k < TOGETHER) for k, (f, v) in enumerate(zip(found, [*values, *values], strict=True))]

    found = b.loop(low, b.minimum(high, whole), LANES * TOGETHER, step, [zero] * (2 * TOGETHER))
    lanes = [_joined(b, found[:TOGETHER], True), _joined(b, found[TOGETHER:], False)]
    for first, count in pieces(size - whole, LANES):
        v = b.load(f"{count}xf32", b.at(x, 4 * (whole + first)))
        v = b.shuffle(v, v, [min(i, count - 1) for i in range(LANES)])
        lanes = [better(b, end, v, i == 0) for i, end in enumerate(lanes)]
    return extreme(b, lanes[0], True), extreme(b, lanes[1], False)


def better(b: Builder, found: Value, v: Value, least: bool) -> Value:
    """The lesser (or greater) lanes; `found` where v is NaN."""
    return b.select(b.compare("olt" if least else "ogt", v, found), v, found)


def _joined(b: Builder, found: Sequence[Value], least: bool) -> Value:
    total = found[0]
    for v in found[1:]:
        total = better(b, total, v, least)
    return total


def _halved(b: Builder, v: Value, combine: Callable[[Value, Value], Value]) -> Value:
    """One lane of all lanes."""
    lanes = LANES
    while lanes > 1:
        lanes //= 2
        v = combine(b.shuffle(v, v, list(range(lanes))), b.shuffle(v, v, list(range(lanes, 2 * lanes))))
    return v


def extreme(b: Builder, v: Value, least: bool) -> Value:
    """The least (or greatest) of LANES lanes as a scalar."""
    return b.extract(_halved(b, v, lambda u, w: better(b, u, w, least)), 0)
