"""The loop nest that quantizes every row by its own range: one pass for the range, one for the levels while the row is in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcc.dialects.codelet import RowQuantize
from qcc.passes.llvm.codelets.access import bytes_of, pieces
from qcc.passes.llvm.codelets.builder import Builder, Index, Value
from qcc.passes.llvm.codelets.dynamic_quantize import LEVELS, bounds_of, clamped, write
from qcc.passes.llvm.codelets.dynamic_range import LANES, better, ends

MIDDLE = 128.0  # the u8 level of zero where ranges are symmetric


def emit(b: Builder, codelet: RowQuantize, buffers: Sequence[Value], task: Value, instructions: Any, scratch: Value) -> None:
    """Append the code of one task. NaN is passed over by the range and becomes level 0."""
    c = codelet
    first = b.mul(task, c.chunk)

    def row(i: Index) -> None:
        x, y = (b.at(buffers[o.buffer], bytes_of(o, (i, 0), b)) for o in (c.x, c.y))
        scale, zero = _parameters(b, c, *ends(b, c.sizes[1], x, 0, c.sizes[1]))
        offset = instructions.to_integer(b, b.splat(zero, LANES))
        b.store(scale, b.at(buffers[c.scale.buffer], bytes_of(c.scale, (i,), b)))
        b.store(b.extract(offset, 0), b.at(buffers[c.zero.buffer], bytes_of(c.zero, (i,), b)))
        inverse = b.binary("fdiv", b.constant(1.0, "f32"), scale)
        bounds = bounds_of(b, zero)

        def vector(k: Index, lanes: int) -> None:
            v = b.binary("fmul", b.load(f"{lanes}xf32", b.at(x, b.mul(k, 4))), b.splat(inverse, lanes))
            write(b, v, bounds, offset, b.at(y, k), instructions)

        whole = c.sizes[1] // LANES * LANES
        b.loop(0, whole, LANES, lambda k: vector(k, LANES))
        for k, count in pieces(c.sizes[1] - whole, LANES):
            vector(whole + k, count)

    b.loop(first, b.minimum(b.add(first, c.chunk), c.sizes[0]), 1, row)


def _parameters(b: Builder, c: RowQuantize, low: Value, high: Value) -> tuple[Value, Value]:
    """Scale and zero point as f32 scalars."""
    zero, least = b.constant(0.0, "f32"), b.constant(c.epsilon, "f32")
    if c.symmetric:
        scale = b.binary("fdiv", better(b, b.binary("fsub", zero, low), high, False), b.constant(LEVELS / 2, "f32"))
    else:
        scale = b.binary("fdiv", b.binary("fsub", high, low), b.constant(LEVELS, "f32"))
    scale = better(b, scale, least, False)
    if c.symmetric:
        return scale, b.constant(MIDDLE, "f32")
    position = b.call("llvm.rint.f32", [b.binary("fsub", zero, b.binary("fdiv", low, scale))], "f32")
    return scale, clamped(b, position, zero, b.constant(LEVELS, "f32"))
