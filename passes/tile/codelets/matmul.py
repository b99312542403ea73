"""matmul of two computed operands: b is packed at run time, in the order in which the contraction reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qcc.dialects.codelet import Pack, PackBf16, PackPairs
from qcc.dialects.instruction_sets import ISAS
from qcc.dialects.mlir import error_at, ir
from qcc.passes.tile.codelets import elementwise, tile_products
from qcc.passes.tile.codelets.contracting import Contracting, emit
from qcc.passes.tile.codelets.lowering import Lowering
from qcc.passes.tile.codelets.place import Place, row_major, stored_offset
from qcc.passes.tile.codelets.program import Program
from qcc.passes.tile.codelets.reading import Reading
from qcc.passes.tile.codelets.register_tile import MOST_TASKS, choose_tile
from qcc.passes.values import affine_of, shape_of


@dataclass(frozen=True)
class Packed:
    """b in the order in which a contraction reads it, with the strides of its own batch dimensions, of a block, and of the bias's batch."""

    place: Place
    batch: tuple[int, ...]
    strides: tuple[int, ...]
    block: int
    tile: tuple[int, int, int]
    bias: Place | None = None
    bias_strides: tuple[int, ...] = ()
    zero: Place | None = None
    shape: tile_products.Shape | None = None  # on a matrix unit


def matmul(lowering: Lowering, op: Any) -> set[Any]:
    """a [..., m, k] times b [..., k, n]."""
    program = Program(lowering)
    absorbed = elementwise.absorb(lowering, program, op.results[0])
    y = lowering.result(absorbed[-1].results[0] if absorbed else op.results[0])
    compute, bytes_only = accumulation(op), all((kind := affine_of(v)) is not None and kind.bits <= 8 for v in op.operands)
    if compute == "lane_i32" and bytes_only and ISAS[lowering.isa].dot4:
        a, b = mergeable(lowering, lowering.place(op.operands[0]), lowering.place(op.operands[1]), program, y)
        za, zb = (int(affine_of(v).zero_points[0]) + stored_offset(v.type) for v in op.operands)  # type: ignore[union-attr]
        shape = tile_products.choose_matmul(lowering.isa, y.shape, a.shape[-1]) if tile_products.readable(a) else None
        _contract(lowering, a, _pack_bytes(lowering, b, y.shape[-2], za, zb, shape), program, y, "dot4_u8s8")
    elif compute == "lane_i32" and bytes_only and ISAS[lowering.isa].pairs:
        a, b = mergeable(lowering, lowering.place(op.operands[0]), lowering.place(op.operands[1]), program, y)
        za, zb = (int(affine_of(v).zero_points[0]) + stored_offset(v.type) for v in op.operands)  # type: ignore[union-attr]
        _contract(lowering, a, _pack_bytes(lowering, b, y.shape[-2], za, zb, None, depth=2), program, y, "dot2_s16")
    elif compute == "lane_f32" and (halves := _in_bf16(lowering, op)) is not None:
        a, b = mergeable(lowering, *halves, program, y)
        _contract(lowering, a, _pack_bf16(lowering, b, y.shape[-2]), program, y, "dot2_bf16")
    else:
        a, b = (multiplicand(lowering, op, v) for v in op.operands)
        multiply(lowering, a, b, program, y, compute)
    return {op, *absorbed}


def _in_bf16(lowering: Lowering, op: Any) -> tuple[Place, Place] | None:
    """Both operands of `op` where they are stored in bf16 and pairs of it are multiplied."""
    if not ISAS[lowering.isa].dot2_bf16 or shape_of(op.operands[0])[-1] == 1:
        return None
    a, b = (lowering.place(value, narrow=True) for value in op.operands)
    return (a, b) if a.element == b.element == "bf16" else None


def accumulation(op: Any) -> str:
    """The compute tile whose accumulators hold what `op` gives."""
    element = ir.RankedTensorType(op.results[0].type).element_type
    if not isinstance(element, ir.IntegerType):
        return "lane_f32"
    return "lane_i64" if element.width > 32 else "lane_i32"


def multiplicand(lowering: Lowering, op: Any, value: Any) -> Place:
    """Floats as they lie; integers with their zero point subtracted, in s16 (or i32 above 8 bits)."""
    place, kind = lowering.place(value), affine_of(value)
    if kind is None:
        return place
    element = "s16" if kind.bits <= 8 else "i32"
    return elementwise.convert(lowering, place, element, -int(kind.zero_points[0]) - stored_offset(value.type))


def multiply(lowering: Lowering, a: Place, b: Place, program: Program, y: Place, compute: str) -> None:
    """y [..., m, n] = steps(a [..., m, k] times b [..., k, n]); batch dimensions broadcast."""
    (m, n), k = y.shape[-2:], a.shape[-1]
    a, b = mergeable(lowering, a, b, program, y)
    tile = choose_tile(lowering.isa, compute, b.element, 1, m, n, k, one_row=True, summed=False)
    place, strides = _pack(lowering, b, tile[2], ISAS[lowering.isa].lanes)
    block = k * tile[2] * ISAS[lowering.isa].lanes
    _contract(lowering, a, Packed(place, b.shape[:-2], tuple(strides), block, tile), program, y, compute)


def mergeable(lowering: Lowering, a: Place, b: Place, program: Program, y: Place) -> tuple[Place, Place]:
    """a, b and the program's operands such that their batch dimensions merge into two: copied, broadcast, where they do not."""
    batch = y.shape[:-2]
    packed = _over(batch, b.shape[:-2], row_major(b.shape[:-2]))
    strides = [a.broadcast([*batch, *a.shape[-2:]]).strides[:-2], packed, *[p.strides[:-2] for p in (*program.operands, y)]]
    if not batch or len(elementwise.collapse(batch, strides)[0]) <= 2:
        return a, b
    program.operands[:] = [elementwise.convert(lowering, p, p.element, 0) for p in program.operands]
    return tuple(elementwise.convert(lowering, p.broadcast([*batch, *p.shape[-2:]]), p.element, 0) for p in (a, b))  # type: ignore[return-value]


def _contract(lowering: Lowering, a: Place, b: Packed, program: Program, y: Place, compute: str) -> None:
    batch, (m, n), k = y.shape[:-2], y.shape[-2:], a.shape[-1]
    if (a.strides[-1] != 1 and k > 1) or a.buffer.owner.attributes["space"].value == "input":
        copied = lowering.temporary(a.element, a.shape)
        elementwise.copy(lowering, a, copied)
        a = copied
    if compute == "dot2_s16":
        a = elementwise.widened(lowering, a)
    a = a.broadcast([*batch, m, k])
    others = [*program.operands, y]
    spreads = [a.strides[:-2], _over(batch, b.batch, b.strides), _over(batch, b.batch, b.bias_strides or (0,) * len(b.batch))]
    sizes, merged = elementwise.collapse(batch, [*spreads, *[p.strides[:-2] for p in others]])
    if len(sizes) > 2:
        raise error_at(lowering.current, f"batch dimensions {list(batch)} of a matmul do not merge into two; reshape its operands")
    outer = [1] * (2 - len(sizes)) + sizes
    if not batch:
        outer, merged = [1, 1], [(0, 0)] * (3 + len(others))
    (an, ah), (wn, wh), (bn, bh), *rest = [(*[0] * (2 - len(s)), *s) for s in merged]
    reading = Reading(a, (an, 0, ah, a.strides[-2], 0), (1, 1), (0, 0), k)
    spread = [(sn, 0, sh, p.strides[-2], p.strides[-1]) for (sn, sh), p in zip(rest, others, strict=True)]
    bias_strides = (bn, 0, bh, 0, 1) if b.bias is not None else None
    shape = (outer[0], 1, outer[1], m, n)
    if b.shape is not None:
        assert b.bias is not None and bias_strides is not None
        zero = None if b.zero is None else (b.zero, (0, 0, 0, 0, 1))
        w, bias = (b.place, (wn, 0, wh, 0, b.block)), (b.bias, bias_strides)
        tile_products.emit(lowering, b.shape, "tile_u8s8", shape, reading, w, bias, zero, program, y, spread, 0)
        return
    emit(
        lowering,
        Contracting(compute, shape, reading, b.place, (wn, 0, wh, 0, b.block), b.bias, b.zero, b.tile, bias_strides),
        program,
        y,
        0,
        spread,
    )


def _over(batch: Sequence[int], own: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Strides of batch dimensions `own`, broadcast to `batch`."""
    return [0] * (len(batch) - len(own)) + [0 if s == 1 else stride for s, stride in zip(own, strides, strict=True)]


def _pack_bytes(lowering: Lowering, b: Place, m: int, za: int, zb: int, shape: tile_products.Shape | None, depth: int = 4) -> Packed:
    """b [..., k, n] u8 for dot4. sum (a - za)(b - zb) = sum a b' - za sum b' - zb' sum a + k za zb' with b' = b - 128, zb' = zb - 128.

    With `depth` 2 for dot2_s16, whose 16 bits hold b' = b - zb, so that zb' = 0.
    """
    *batch, k, n = b.shape
    lanes, zero = ISAS[lowering.isa].lanes, zb - 128 if depth == 4 else 0
    steps, tile = -(-k // depth), (1, 1, 1)
    if shape is None:
        tile = choose_tile(
            lowering.isa, *(("dot4_u8s8", "s8") if depth == 4 else ("dot2_s16", "s16")), 1, m, n, steps, one_row=True, summed=zero != 0
        )
    width = tile[2] * lanes
    padded = -(-n // width) * width
    size = steps * depth * -(-n // lanes) * lanes
    packed, bias = lowering.temporary("s8" if depth == 4 else "s16", [*batch, size]), lowering.temporary("i32", [*batch, padded])
    sizes, strides = elementwise.collapse(batch or [1], [s or (0,) for s in (b.strides[:-2], packed.strides[:-1], bias.strides[:-1])])
    if len(sizes) > 2:
        copied = lowering.temporary(b.element, b.shape)
        elementwise.copy(lowering, b, copied)
        return _pack_bytes(lowering, copied, m, za, zb, shape, depth)
    sizes = [1] * (2 - len(sizes)) + sizes
    x, y, sums = ((*[0] * (2 - len(s)), *s) for s in strides)
    program = Program(lowering)
    args = (program.integer(za), program.integer(k * za * zero if depth == 4 else zb))
    params = lowering.params(program.words)
    codelet = (Pack if depth == 4 else PackPairs)(
        isa=lowering.isa,
        sizes=(sizes[0], sizes[1], k, n),
        vectors=tile[2],
        x=b.operand(0, (*x, *b.strides[-2:])),
        bias=bias.operand(2, (*sums, 0, 1)),
        y=packed.operand(3, (*y, 0, 0)),
        args=args,
        params=1,
        chunk=max(1, sizes[0] * sizes[1] // MOST_TASKS),
    )
    lowering.call(codelet, [b, params, bias, packed], writes=2)
    zeros = lowering.weights(np.full(padded, zero), "i32") if zero else None
    block = steps * width * depth
    return Packed(packed, tuple(batch), packed.strides[:-1], block, tile, bias, bias.strides[:-1], zeros, shape)


def _pack_bf16(lowering: Lowering, b: Place, m: int) -> Packed:
    """b [..., k, n] bf16 in pairs along k."""
    *batch, k, n = b.shape
    lanes, steps = ISAS[lowering.isa].lanes, -(-k // 2)
    tile = choose_tile(lowering.isa, "dot2_bf16", "bf16", 1, m, n, steps, one_row=True, summed=False)
    packed = lowering.temporary("bf16", [*batch, steps * 2 * -(-n // lanes) * lanes])
    sizes, strides = elementwise.collapse(batch or [1], [s or (0,) for s in (b.strides[:-2], packed.strides[:-1])])
    if len(sizes) > 2:
        return _pack_bf16(lowering, elementwise.convert(lowering, b, "bf16", 0), m)
    outer = [1] * (2 - len(sizes)) + sizes
    x, y = ((*[0] * (2 - len(s)), *s) for s in strides)
    codelet = PackBf16(
        isa=lowering.isa,
        sizes=(outer[0], outer[1], k, n),
        vectors=tile[2],
        x=b.operand(0, (*x, *b.strides[-2:])),
        y=packed.operand(1, (*y, 0, 0)),
        chunk=max(1, outer[0] * outer[1] // MOST_TASKS),
    )
    lowering.call(codelet, [b, packed])
    return Packed(packed, tuple(batch), packed.strides[:-1], steps * 2 * tile[2] * lanes, tile)


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
