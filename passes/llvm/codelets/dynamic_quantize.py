"""The loop nest of ONNX DynamicQuantizeLinear behind the search for the range: scale, zero point and levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import RANGE_PARTS, DynamicQuantize
from qcc.passes.llvm.codelets.access import bytes_of, pieces, store
from qcc.passes.llvm.codelets.builder import Address, Builder, Index, Value, lanes_of
from qcc.passes.llvm.codelets.dynamic_range import LANES, extreme

LEVELS = 255.0


def emit(b: Builder, codelet: DynamicQuantize, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task. NaN becomes level 0."""
    c = codelet
    scale, zero = _parameters(b, c, buffers)
    offset = instructions.to_integer(b, b.splat(zero, LANES))

    def publish() -> None:
        b.store(scale, b.at(buffers[c.scale.buffer], bytes_of(c.scale, (0,), b)))
        b.store(b.extract(offset, 0), b.at(buffers[c.zero.buffer], bytes_of(c.zero, (0,), b)))

    b.when(b.equal(task, 0), publish)
    x = b.at(buffers[c.x.buffer], bytes_of(c.x, (0,), b))
    y = b.at(buffers[c.y.buffer], bytes_of(c.y, (0,), b))
    bounds = bounds_of(b, zero)

    def vector(i: Index, lanes: int) -> None:
        v = b.load(f"{lanes}xf32", b.at(x, b.mul(i, 4)))
        write(b, b.binary("fdiv", v, b.splat(scale, lanes)), bounds, offset, b.at(y, i), instructions)

    whole = c.size // LANES * LANES
    low = b.mul(task, c.chunk)
    high = b.minimum(b.add(low, c.chunk), c.size)
    b.loop(low, b.minimum(high, whole), LANES, lambda i: vector(i, LANES))

    def tail() -> None:
        for first, count in pieces(c.size - whole, LANES):
            vector(whole + first, count)

    if whole < c.size:
        b.when(b.equal(high, c.size), tail)


def bounds_of(b: Builder, zero: Value) -> tuple[Value, Value]:
    """What levels lie between before the zero point is added, f32 scalars as `zero`."""
    return b.binary("fsub", b.constant(0.0, "f32"), zero), b.binary("fsub", b.constant(LEVELS, "f32"), zero)


def write(b: Builder, v: Value, bounds: tuple[Value, Value], offset: Value, y: Address, instructions: Any) -> None:
    """Store f32 lanes, divided by their scale, as u8 levels; `offset` is the zero point as i32 [LANES]."""
    lanes = lanes_of(v)
    v = clamped(b, v, *(b.splat(bound, lanes) for bound in bounds))
    near = offset if lanes == LANES else b.shuffle(offset, offset, list(range(lanes)))
    store(b, "u8", y, 1, b.binary("add", instructions.to_integer(b, v), near))


def clamped(b: Builder, v: Value, low: Value, high: Value) -> Value:
    """`v` between `low` and `high`; NaN becomes `low`."""
    raised = b.select(b.compare("ogt", v, low), v, low)
    return b.select(b.compare("olt", raised, high), raised, high)


def _parameters(b: Builder, c: DynamicQuantize, buffers: Sequence[Value]) -> tuple[Value, Value]:
    """Scale and zero point as f32 scalars, from the ranges of all tasks."""
    zero = b.constant(0.0, "f32")
    base = b.at(buffers[c.ranges.buffer], bytes_of(c.ranges, (0,), b))
    ends = []
    for i in (0, 1):
        v = b.load(f"{LANES}xf32", base + 4 * RANGE_PARTS * i)
        v = b.shuffle(v, b.like(0.0, v), [k if k < c.parts else LANES for k in range(LANES)])
        ends.append(extreme(b, v, i == 0))
    scale = b.binary("fdiv", b.binary("fsub", ends[1], ends[0]), b.constant(LEVELS, "f32"))
    scale = b.select(b.compare("oeq", scale, zero), b.constant(1.0, "f32"), scale)
    position = b.call("llvm.rint.f32", [b.binary("fsub", zero, b.binary("fdiv", ends[0], scale))], "f32")
    return scale, clamped(b, position, zero, b.constant(LEVELS, "f32"))
