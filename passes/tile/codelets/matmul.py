"""matmul of two computed operands: b is packed at run time, in the order in which the contraction reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qcc.dialects.codelet import ISAS
from qcc.dialects.mlir import ir
from qcc.passes.tile.codelets import elementwise
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place, row_major, stored_offset
from qcc.passes.tile.codelets.products import Contracting, Reading, emit
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.register_tile import choose_tile
from qcc.passes.values import affine_of


def matmul(lowering: Lowering, op: Any) -> set[Any]:
    """a [..., m, k] times b [..., k, n]."""
    program = Program(lowering)
    absorbed = elementwise.absorb(lowering, program, op.results[0])
    y = lowering.result(absorbed[-1].results[0] if absorbed else op.results[0])
    a, b = (_multiplicand(lowering, op, v) for v in op.operands)
    multiply(lowering, a, b, program, y, _compute(op))
    return {op, *absorbed}


def _compute(op: Any) -> str:
    element = ir.RankedTensorType(op.results[0].type).element_type
    if not isinstance(element, ir.IntegerType):
        return "lane_f32"
    return "lane_i64" if element.width > 32 else "lane_i32"


def _multiplicand(lowering: Lowering, op: Any, value: Any) -> Place:
    """Floats as they lie; integers with their zero point subtracted, in s16 (or i32 above 8 bits)."""
    place, kind = lowering.place(value), affine_of(value)
    if kind is None:
        return place
    element = "s16" if kind.bits <= 8 else "i32"
    return elementwise.convert(lowering, place, element, -int(kind.zero_points[0]) - stored_offset(value.type))


def multiply(lowering: Lowering, a: Place, b: Place, program: Program, y: Place, compute: str) -> None:
    """y [..., m, n] = steps(a [..., m, k] times b [..., k, n]); batch dimensions broadcast."""
    batch, (m, n), k = y.shape[:-2], y.shape[-2:], a.shape[-1]
    facts = ISAS[lowering.isa]
    tile = choose_tile(lowering.isa, compute, 1, m, n, k, one_row=True, summed=False)
    if (a.strides[-1] != 1 and k > 1) or a.buffer.owner.attributes["space"].value == "input":
        copied = lowering.temporary(a.element, a.shape)
        elementwise.copy(lowering, a, copied)
        a = copied
    packed, strides = _pack(lowering, b, tile[2], facts.lanes)
    a = a.broadcast([*batch, m, k])
    extra = len(batch) - len(strides)
    w_batch = [0] * extra + [0 if s == 1 else stride for s, stride in zip(b.shape[:-2], strides, strict=True)]
    others = [*program.operands, y]
    sizes, merged = elementwise.collapse(batch, [a.strides[:-2], w_batch, *[p.strides[:-2] for p in others]])
    if len(sizes) > 2:
        raise AssertionError(f"batch dimensions {batch} of a matmul do not merge into two")
    outer = [1] * (2 - len(sizes)) + sizes
    if not batch:
        outer, merged = [1, 1], [(0, 0)] * (2 + len(others))
    merged = [(*[0] * (2 - len(s)), *s) for s in merged]
    (an, ah), (wn, wh), *rest = merged
    block = k * tile[2] * facts.lanes
    reading = Reading(a, (an, 0, ah, a.strides[-2], 0), (1, 1), (0, 0), k)
    spread = [(sn, 0, sh, p.strides[-2], p.strides[-1]) for (sn, sh), p in zip(rest, others, strict=True)]
    contracting = Contracting(compute, (outer[0], 1, outer[1], m, n), reading, packed, (wn, 0, wh, 0, block), None, None, tile)
    emit(lowering, contracting, program, y, 0, spread)


def _pack(lowering: Lowering, b: Place, vectors: int, lanes: int) -> tuple[Place, Sequence[int]]:
    """b [..., k, n] as [...][block][k][vector][lane], and the strides of its batch dimensions."""
    *batch, k, n = b.shape
    width = vectors * lanes
    full, rest = divmod(n, width)
    tail = -(-rest // lanes) * lanes
    size = k * (full * width + tail)
    packed = lowering.temporary(b.element, [*batch, size])
    outer = [s * size for s in row_major(batch)]
    *b_outer, b_k, b_n = b.strides
    if full:
        source = replace(b, shape=(*batch, full, k, width), strides=(*b_outer, width * b_n, b_k, b_n), halo=(0, 0, 0, 0))
        target = replace(packed, shape=source.shape, strides=(*outer, k * width, width, 1))
        elementwise.copy(lowering, source, target)
    if rest:
        source = replace(b, shape=(*batch, k, rest), strides=(*b_outer, b_k, b_n), offset=b.offset + full * width * b_n, halo=(0, 0, 0, 0))
        target = replace(packed, shape=source.shape, strides=(*outer, tail, 1), offset=full * k * width)
        elementwise.copy(lowering, source, target)
    return packed, outer
